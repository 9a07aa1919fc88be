"""The tasks of a family, as Gymnasium's observations tell of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from metarl.core.errors import FamilyError, suggest
from metarl.core.family import Family
from metarl.core.types import Tasks, one_hot

Array = NDArray[Any]
Reward = Callable[[Array, Array, Any], Any]
TaskInput = Literal["none", "row", "onehot", "goal"]
"""What observations tell of the task: nothing, its row, a one-hot of its place among the tasks, or its goal."""


class TaskObservation:
    """The tasks of a family, as observations tell of them."""

    def __init__(self, family: Family, tasks: Tasks, task_input: TaskInput) -> None:
        spec = family.spec
        if task_input not in get_args(TaskInput):
            raise FamilyError(
                f"task_input {task_input!r}: {suggest(task_input, get_args(TaskInput))}"
            )
        spec.shown_width(task_input)  # a goal that there is not is its FamilyError
        self.family, self.tasks = family, tasks
        self.action_space: spaces.Space[Any] = (
            spaces.Discrete(spec.action_width)
            if spec.discrete
            else spaces.Box(-1.0, 1.0, (spec.action_width,), np.float32)
        )
        self._goal = (
            spec.part(spec.achieved_goal) if task_input == "goal" and spec.achieved_goal else None
        )
        self._row = {
            "none": tasks.params[:, :0],
            "row": tasks.params,
            "goal": tasks.params[:, : spec.goal_width],
            "onehot": one_hot(torch.arange(len(tasks)), len(tasks)),
        }[task_input]  # [S, what is shown]
        shown = self._row.shape[1]
        self.observation_space: spaces.Space[Any] = (
            _anything(spec.obs_width + shown)
            if self._goal is None
            else spaces.Dict(
                observation=_anything(spec.obs_width),
                achieved_goal=_anything(shown),
                desired_goal=_anything(shown),
            )
        )

    def choose(self, task: int | Sequence[int], count: int | None = None) -> Tensor:
        """[N] places in the tasks.

        Raises:
            FamilyError: there are not so many, not `count` of them, or one stands there twice.
        """
        chosen = torch.as_tensor(np.atleast_1d(np.asarray(task, np.int64)))
        if chosen.min() < 0 or chosen.max() >= len(self.tasks):
            raise FamilyError(
                f"task {task}: there are the tasks 0 to {len(self.tasks) - 1}; draw more with tasks=…"
            )
        if count not in (None, len(chosen)) or len(chosen.unique()) < len(chosen):
            raise FamilyError(
                f"task {task}: give {count or 'some'} different tasks; lanes are environments of the same task"
            )
        return chosen

    def observation(self, obs: Tensor, chosen: Tensor) -> Any:
        """obs [N, M, O] as new arrays [N · M, …]."""
        shown = self._row[chosen].unsqueeze(1).expand(-1, obs.shape[1], -1)
        if self._goal is None:
            return flat(torch.cat([obs, shown], dim=-1))
        parts = {"observation": obs, "achieved_goal": obs[..., self._goal], "desired_goal": shown}
        return {name: flat(part) for name, part in parts.items()}

    def action(self, action: Array, shape: tuple[int, int]) -> Tensor:
        """Actions [N · M, …] as a tensor [N, M, …]."""
        dtype = torch.int64 if self.family.spec.discrete else torch.float32
        return torch.tensor(action, dtype=dtype).view(*shape, *action.shape[1:])

    def compute_reward(self) -> Reward:
        """The family's reward for having achieved one goal where another was desired.

        Raises:
            AttributeError: there is none, or no goals are shown; so libraries know whether hindsight is possible.
        """
        reward = getattr(self.family, "goal_reward", None)
        if reward is None or self._goal is None:
            raise AttributeError(
                "compute_reward: needs task_input goal and a family with goal_reward"
            )

        def compute_reward(achieved_goal: Array, desired_goal: Array, info: Any) -> Any:
            goals = (
                torch.as_tensor(np.asarray(goal, np.float32))
                for goal in (achieved_goal, desired_goal)
            )
            paid = reward(*goals).numpy()
            return paid if paid.ndim else float(paid)

        return compute_reward


def _anything(width: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (width,), np.float32)


def flat(x: Tensor) -> Array:
    """[N, M, …] → a new array [N · M, …]."""
    array: Array = x.flatten(0, 1).numpy().copy()
    return array
