"""The lanes of a vector environment: one batch, or environments of their own that can wait."""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.adapters.from_gymnasium.batch_env import LanesEnv
from metarl.core.family import BatchEnv, Family, HasFrames, make_env
from metarl.core.rng import Rng
from metarl.core.types import Step, Tasks, replace, tree_map

Flags = NDArray[np.bool_]


class EnvLanes(Protocol):
    """N task rows × M lanes."""

    obs: Tensor  # [N, M, O] what every lane acts on next
    has_frames: bool

    def begin(self, tasks: Tasks, rng: Rng, begins: Flags) -> None:
        """Begin anew where `begins` [N · M]."""

    def step(self, action: Tensor, waiting: Flags) -> Step:
        """Step with `action` [N, M, …] all lanes but those that are `waiting` [N · M].

        A waiting one observes what it acts on next, and reports zeros.
        """

    def frame(self, row: int, lane: int) -> NDArray[np.uint8]:
        """[height, width, 3]: a picture of one lane, where `has_frames`."""


class TogetherLanes:
    """Lanes of one batch, which begin together and never wait."""

    obs: Tensor

    def __init__(self, family: Family, lanes: int):
        self._env: Any = make_env(family, lanes)
        self.has_frames = _has_frames(self._env)

    def begin(self, tasks: Tasks, rng: Rng, begins: Flags) -> None:
        assert begins.all()
        self.obs = self._env.reset(tasks, rng)

    def step(self, action: Tensor, waiting: Flags) -> Step:
        assert not waiting.any()
        step: Step = self._env.step(action)
        self.obs = step.obs
        return step

    def frame(self, row: int, lane: int) -> NDArray[np.uint8]:
        picture: NDArray[np.uint8] = self._env.frame(row, lane)
        return picture


class SeparateLanes:
    """Lanes that are environments of their own, stepped one after the other.

    The first lane of a row has the episodes that it has in a batch with the same rng.
    """

    def __init__(self, family: Family, rows: int, lanes: int):
        self._shape = (rows, lanes)
        self._envs: list[Any] = [make_env(family, 1) for _ in range(rows * lanes)]
        self._steps: dict[int, Step] = {}  # the last one of each
        self.has_frames = _has_frames(self._envs[0])
        self.obs = torch.zeros(rows, lanes, family.spec.obs_width, dtype=family.spec.obs_type)

    def begin(self, tasks: Tasks, rng: Rng, begins: Flags) -> None:
        obs = self.obs.clone()
        for place in np.flatnonzero(begins).tolist():
            row, lane = divmod(place, self._shape[1])
            own = rng.child("lane", lane) if lane else rng
            obs[row, lane] = self._envs[place].reset(tasks[row : row + 1], own)[0, 0]
        self.obs = obs

    def step(self, action: Tensor, waiting: Flags) -> Step:
        for place, env in enumerate(self._envs):
            row, lane = divmod(place, self._shape[1])
            one = slice(row, row + 1), slice(lane, lane + 1)
            if waiting[place]:
                idle = tree_map(torch.zeros_like, self._steps[place])
                self._steps[place] = replace(idle, obs=self.obs[one])
            else:
                self._steps[place] = env.step(action[one])
        steps = (self._steps[place] for place in range(len(self._envs)))
        step = tree_map(self._join, *steps)
        self.obs = step.obs
        return step

    def frame(self, row: int, lane: int) -> NDArray[np.uint8]:
        picture: NDArray[np.uint8] = self._envs[row * self._shape[1] + lane].frame(0, 0)
        return picture

    def _join(self, *parts: Tensor) -> Tensor:
        """[1, 1, …] of every lane → [N, M, …]."""
        return torch.cat(parts).view(*self._shape, *parts[0].shape[2:])


def _has_frames(env: BatchEnv) -> bool:
    """Whether it gives pictures: other people's environments may have been built without."""
    if isinstance(env, LanesEnv):
        return env.renders
    return isinstance(env, HasFrames)
