"""Lanes that can wait: each is an environment of its own."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.core.family import Family, make_env
from metarl.core.rng import Rng
from metarl.core.types import Step, Tasks, replace, tree_map

Flags = NDArray[np.bool_]


class SeparateLanes:
    """N task rows × M lanes, stepped one after the other.

    The first lane of a row has the episodes that it has in a batch with the same rng.
    """

    def __init__(self, family: Family, rows: int, lanes: int):
        self._shape = (rows, lanes)
        self.envs: list[Any] = [make_env(family, 1) for _ in range(rows * lanes)]
        self._obs: Tensor | None = None  # [N · M, O] what every lane acts on next
        self._steps: list[Step | None] = [None] * len(self.envs)  # the last one of each

    def reset(self, tasks: Tasks, rng: Rng, begins: Flags) -> Tensor:
        """Begin anew where `begins` [N · M] → obs [N, M, O], what every lane acts on next."""
        obs = [None] * len(self.envs) if self._obs is None else list(self._obs)
        for place in np.flatnonzero(begins).tolist():
            row, lane = divmod(place, self._shape[1])
            own = rng.child("lane", lane) if lane else rng
            obs[place] = self.envs[place].reset(tasks[row : row + 1], own).flatten()
        self._obs = torch.stack(obs)
        return self._obs.view(*self._shape, -1)

    def step(self, action: Tensor, waiting: Flags) -> Step:
        """Step with `action` [N, M, …] all lanes but those that are `waiting` [N · M].

        A waiting one observes what it acts on next, and reports zeros.
        """
        assert self._obs is not None
        for place, one in enumerate(action.flatten(0, 1)):
            if waiting[place]:
                idle = tree_map(torch.zeros_like, self._steps[place])
                self._steps[place] = replace(idle, obs=self._obs[place].view(1, 1, -1))
            else:
                self._steps[place] = self.envs[place].step(one.view(1, 1, *one.shape))
        step: Step = tree_map(
            lambda *parts: torch.cat(parts).view(*self._shape, *parts[0].shape[2:]), *self._steps
        )
        self._obs = step.obs.flatten(0, 1)
        return step

    def frame(self, row: int, lane: int) -> NDArray[np.uint8]:
        """[height, width, 3]: a picture of one lane, where the environments have them."""
        picture: NDArray[np.uint8] = self.envs[row * self._shape[1] + lane].frame(0, 0)
        return picture
