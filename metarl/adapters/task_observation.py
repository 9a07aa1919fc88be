"""The tasks of a family, as Gymnasium's observations tell of them."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from metarl.core.errors import ConfigError, quoted, suggest
from metarl.core.family import Family, HasGoalReward
from metarl.core.types import Spec, Tasks, one_hot

Array = NDArray[Any]
Flags = NDArray[np.bool_]
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
        self._task_input = task_input

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
        parts = observed(self._family.spec, self._task_input, obs, shown)
        if isinstance(parts, Tensor):
            return flat(parts)
        return {name: flat(part) for name, part in parts.items()}

    def action(self, action: ArrayLike, shape: tuple[int, int], acting: Flags) -> Tensor:
        """Actions [N · M, …] as a tensor [N, M, …]; those of lanes not `acting` [N · M] are zero.

        Raises:
            ConfigError: one of them is not in the action space.
        """
        space = self.action_space
        given = np.asarray(action)
        lanes = len(acting)
        if given.shape != (lanes, *(space.shape or ())):
            raise ConfigError(
                f"actions of shape {list(given.shape)}: give {lanes}, each one of {space}"
            )
        taken = np.zeros(given.shape, space.dtype)
        chosen = given[acting]
        if not np.can_cast(chosen.dtype, taken.dtype, "same_kind"):
            raise ConfigError(f"actions of type {chosen.dtype}: give some of {space}")
        with np.errstate(over="ignore"):  # infinity is outside, too
            taken[acting] = chosen
        low, high = _bounds(space)
        outside = acting & ~((taken >= low) & (taken <= high)).reshape(lanes, -1).all(1)
        if outside.any():
            lane = int(outside.argmax())
            whose = f" of environment {lane}" if lanes > 1 else ""
            raise ConfigError(f"action {quoted(given[lane].tolist())}{whose} is not in {space}")
        return torch.from_numpy(taken).view(*shape, *taken.shape[1:])

    def compute_reward(self) -> Reward:
        """The family's reward for having achieved one goal where another was desired.

        Raises:
            AttributeError: there is none, or no goals are shown; so libraries know whether
                hindsight is possible.
        """
        goals = shows_goals(self._family.spec, self._task_input)
        if not goals or not isinstance(self._family, HasGoalReward):
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


def shows_goals(spec: Spec, task_input: TaskInput) -> bool:
    """Whether observations are a Dict of goals."""
    return task_input == "goal" and spec.achieved_goal is not None


def observation_space(spec: Spec, task_input: TaskInput, shown_width: int) -> spaces.Space[Any]:
    """Of observations that also tell `shown_width` numbers of the task.

    Goals are a Dict; so are images with something beside them, the task as "task".
    """
    if shows_goals(spec, task_input):
        return spaces.Dict(
            observation=unbounded(spec.obs_width),
            achieved_goal=unbounded(shown_width),
            desired_goal=unbounded(shown_width),
        )
    if not spec.images:
        return unbounded(spec.obs_width + shown_width)
    parts: dict[str, spaces.Space[Any]] = {}
    for name, width in spec.observation.items():
        parts[name] = unbounded(width)
        if name in spec.images:
            parts[name] = spaces.Box(0, 255, spec.images[name], np.uint8)
    if shown_width:
        parts["task"] = unbounded(shown_width)
    return next(iter(parts.values())) if len(parts) == 1 else spaces.Dict(parts)


def observed(
    spec: Spec, task_input: TaskInput, obs: Tensor, shown: Tensor
) -> Tensor | dict[str, Tensor]:
    """obs [N, M, O] and what is `shown` of the task [N, M, P] as in `observation_space`."""
    if shows_goals(spec, task_input):
        achieved = spec.achieved(obs)
        return {"observation": obs, "achieved_goal": achieved, "desired_goal": shown}
    if not spec.images:
        return torch.cat([obs, shown], dim=-1)
    parts = {}
    for name in spec.observation:
        part = obs[..., spec.part(name)]
        image = spec.images.get(name)
        parts[name] = part.float() if image is None else part.byte().unflatten(-1, image)
    if shown.shape[-1]:
        parts["task"] = shown
    return next(iter(parts.values())) if len(parts) == 1 else parts


def action_space(spec: Spec) -> spaces.Space[Any]:
    """Discrete, MultiDiscrete, or a Box [A] on [−1, 1]."""
    if spec.nvec:
        return spaces.MultiDiscrete(list(spec.nvec))
    if spec.discrete:
        return spaces.Discrete(spec.action_width)
    return spaces.Box(-1.0, 1.0, (spec.action_width,), np.float32)


def _bounds(space: spaces.Space[Any]) -> tuple[Array | int, Array | int]:
    """The least and the greatest action."""
    if isinstance(space, spaces.Discrete):
        return 0, int(space.n) - 1
    if isinstance(space, spaces.MultiDiscrete):
        return 0, space.nvec - 1
    assert isinstance(space, spaces.Box)
    return space.low, space.high


def unbounded(width: int) -> spaces.Box:
    """Any `width` numbers."""
    return spaces.Box(-np.inf, np.inf, (width,), np.float32)


def flat(x: Tensor) -> Array:
    """[N, M, …] → a new array [N · M, …]."""
    return x.flatten(0, 1).numpy().copy()
