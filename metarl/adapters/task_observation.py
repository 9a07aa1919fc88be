"""The tasks of a family, as Gymnasium's observations tell of them."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from metarl.core.errors import ConfigError, suggest
from metarl.core.family import Family, HasGoalReward
from metarl.core.types import Spec, Tasks, one_hot

Array = NDArray[Any]
Observation = Array | dict[str, Array]
Info = dict[str, Any]
Reward = Callable[[Array, Array, object], Array | float]
TaskInput = Literal["none", "row", "onehot", "goal"]
"""What observations tell of the task: nothing, its row, a one-hot of its place among the tasks, or
its goal."""


class TaskObservation:
    """Observations of a family that also tell of the chosen `tasks` what `task_input` says."""

    chosen: Tasks

    def __init__(self, family: Family, tasks: Tasks, task_input: TaskInput):
        spec = family.spec
        if task_input not in get_args(TaskInput):
            hint = suggest(task_input, get_args(TaskInput))
            raise ConfigError(f"task_input {task_input!r}: {hint}")
        self._family = family
        self._tasks = tasks
        self._onehot = task_input == "onehot"
        self._shown_width = len(tasks) if self._onehot else spec.shown_width(task_input)

        self.observation_space = observation_space(spec, task_input, self._shown_width)
        self.action_space = action_space(spec)
        self._achieved: slice | None = None
        if isinstance(self.observation_space, spaces.Dict):
            assert spec.achieved_goal is not None
            self._achieved = spec.part(spec.achieved_goal)

    def choose(self, task: int | Sequence[int], count: int | None = None) -> None:
        """Choose one or some of the tasks, by their places.

        Raises:
            ConfigError: there are not so many, not `count` of them, or one stands there twice.
        """
        places = torch.as_tensor(np.atleast_1d(np.asarray(task, np.int64)))
        if places.min() < 0 or places.max() >= len(self._tasks):
            last = len(self._tasks) - 1
            raise ConfigError(
                f"task {task}: there are the tasks 0 to {last}; draw more with tasks=…"
            )
        if count not in (None, len(places)) or len(places.unique()) < len(places):
            raise ConfigError(
                f"task {task}: give {count or 'some'} different tasks; "
                "lanes are environments of the same task"
            )
        self.chosen = self._tasks[places]
        self._shown = self.chosen.params[:, : self._shown_width]  # [N, what is shown]
        if self._onehot:
            self._shown = one_hot(places, self._shown_width)

    def observation(self, obs: Tensor) -> Observation:
        """obs [N, M, O] as new arrays [N · M, …]."""
        shown = self._shown.unsqueeze(1).expand(-1, obs.shape[1], -1)
        if self._achieved is None:
            return flat(torch.cat([obs, shown], dim=-1))
        return {
            "observation": flat(obs),
            "achieved_goal": flat(obs[..., self._achieved]),
            "desired_goal": flat(shown),
        }

    def action(self, action: Array, shape: tuple[int, int]) -> Tensor:
        """Actions [N · M, …] as a tensor [N, M, …]."""
        dtype = torch.int64 if self._family.spec.discrete else torch.float32
        return torch.tensor(action, dtype=dtype).view(*shape, *action.shape[1:])

    def compute_reward(self) -> Reward:
        """The family's reward for having achieved one goal where another was desired.

        Raises:
            AttributeError: there is none, or no goals are shown; so libraries know whether
                hindsight is possible.
        """
        if self._achieved is None or not isinstance(self._family, HasGoalReward):
            raise AttributeError(
                "compute_reward: needs task_input goal and a family with goal_reward"
            )
        goal_reward = self._family.goal_reward

        def compute_reward(
            achieved_goal: Array, desired_goal: Array, info: object
        ) -> Array | float:
            achieved = torch.as_tensor(np.asarray(achieved_goal, np.float32))
            desired = torch.as_tensor(np.asarray(desired_goal, np.float32))
            reward: Array = goal_reward(achieved, desired).numpy()
            return reward if reward.ndim else float(reward)

        return compute_reward


def observation_space(spec: Spec, task_input: TaskInput, shown_width: int) -> spaces.Space[Any]:
    """Of observations that also tell `shown_width` numbers of the task; goals are a Dict."""
    if task_input == "goal" and spec.achieved_goal:
        return spaces.Dict(
            observation=unbounded(spec.obs_width),
            achieved_goal=unbounded(shown_width),
            desired_goal=unbounded(shown_width),
        )
    return unbounded(spec.obs_width + shown_width)


def action_space(spec: Spec) -> spaces.Space[Any]:
    """Discrete, or a Box [A] on [−1, 1]."""
    if spec.discrete:
        return spaces.Discrete(spec.action_width)
    return spaces.Box(-1.0, 1.0, (spec.action_width,), np.float32)


def unbounded(width: int) -> spaces.Box:
    """Any `width` numbers."""
    return spaces.Box(-np.inf, np.inf, (width,), np.float32)


def flat(x: Tensor) -> Array:
    """[N, M, …] → a new array [N · M, …]."""
    return x.flatten(0, 1).numpy().copy()
