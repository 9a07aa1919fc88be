"""`Lanes` as a BatchEnv: NumPy arrays become tensors, and a copy in mid-episode goes on exactly."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from metarl.adapters.from_gymnasium.lanes import Lanes
from metarl.adapters.from_gymnasium.spaces import Array, Layout
from metarl.core.errors import FamilyError
from metarl.core.rng import Rng
from metarl.core.types import Step, Tasks


class Lender(Protocol):
    """What `LanesEnv` needs of a family."""

    @property
    def env_layout(self) -> Layout: ...
    @property
    def idle_lanes(self) -> list[Lanes]:
        """Where lanes are left that are not needed any more."""

    def lend_lanes(self) -> Lanes:
        """Idle lanes, or new ones."""


class LanesEnv:
    """N task rows × M lanes that somebody else steps.

    Pickled in mid-episode, it takes along the actions of every lane's running episode; the copy starts these episodes
    again with their seeds and lives through them. So environments need not be picklable themselves.
    """

    def __init__(self, family: Lender, width: int) -> None:
        self._family, self._width = family, width
        self._borrow()

    def _borrow(self) -> None:
        """Lanes to step, which go back to the family when this environment is gone."""
        family = self._family
        self._lanes = family.lend_lanes()
        weakref.finalize(self, family.idle_lanes.append, self._lanes).atexit = False
        self._age, self._episode = np.zeros(
            (2, 0), np.int64
        )  # [L] steps and number of each lane's episode

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        keys = tasks.streams(rng, self._width).keys
        self._shape, self._device = keys.shape, keys.device
        rows = tasks.params.double().cpu().numpy()
        self._begin(rows.repeat(self._width, axis=0), keys.flatten().cpu().numpy())
        return self._tensor(self._obs)

    def step(self, action: Tensor) -> Step:
        taken = action.flatten(0, 1).cpu().numpy().copy()
        stepped = self._lanes.step(taken)
        done = stepped.terminated | stepped.truncated
        self._past.append(taken)
        self._age = np.where(done, 0, self._age + 1)
        self._episode = self._episode + done
        return Step(
            obs=self._tensor(stepped.obs),
            next_obs=self._tensor(stepped.next_obs),
            reward=self._tensor(stepped.reward),
            terminated=self._tensor(stepped.terminated),
            truncated=self._tensor(stepped.truncated),
            success=None if stepped.success is None else self._tensor(stepped.success),
        )

    def frame(self, row: int, lane: int) -> Array:
        """[height, width, 3] uint8: a picture of what is the case now.

        Raises:
            FamilyError: the environments were built without pictures.
        """
        if not self._family.env_layout.renders:
            raise FamilyError(
                "no picture can be taken: let build() make the environment with render_mode='rgb_array'"
            )
        return self._lanes.frame(row * self._width + lane)

    def _begin(self, rows: Array, keys: Array) -> None:
        """Episode 0 of lanes with these rows [L, P] and keys [L]."""
        self._given = (rows, keys)
        self._obs = self._lanes.reset(rows, keys)
        self._past: deque[Array] = deque(
            maxlen=self._family.env_layout.horizon
        )  # actions [L, …], as many as an episode has
        self._age, self._episode = np.zeros((2, len(keys)), np.int64)

    def _tensor(self, array: Array) -> Tensor:
        """[L, …] → [N, M, …]."""
        return torch.from_numpy(array).view(*self._shape, *array.shape[1:]).to(self._device)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_lanes", "_obs")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._family, self._width = state["_family"], state["_width"]
        self._borrow()
        if "_given" not in state:
            return
        self._begin(*state["_given"])
        self.__dict__.update(state)
        for back in range(int(self._age.max()), -1, -1):  # steps until the present
            if (self._age == back).any():
                self._lanes.restart(self._age == back, self._episode)
            if back > 0:
                self._lanes.step(self._past[-back])
