"""`Lanes` as a BatchEnv: NumPy arrays become tensors, and a copy in mid-episode goes on exactly."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from metarl.adapters.from_gymnasium.calls import EVERY_LANE, CallError
from metarl.adapters.from_gymnasium.lanes import Lanes
from metarl.adapters.from_gymnasium.spaces import Array, Layout
from metarl.core.errors import FamilyError
from metarl.core.rng import Rng, send
from metarl.core.types import Step, Tasks


class Lender(Protocol):
    """What `LanesEnv` needs of a family."""

    @property
    def env_layout(self) -> Layout: ...
    def lend_lanes(self, borrower: object) -> Lanes:
        """Lanes to step, which go back to the family when `borrower` is gone."""


class LanesEnv:
    """N task rows × M lanes that somebody else steps.

    Pickled in mid-episode, it takes along the actions of every lane's running episode; the copy
    starts these episodes again with their seeds and takes the same actions. So environments need
    not be picklable themselves.
    """

    steps_on_cpu: Literal[True] = True

    def __init__(self, family: Lender, width: int):
        self._family = family
        self._width = width
        self._lanes = family.lend_lanes(self)

    def _begin(self, rows: Array, keys: Array) -> Array:
        """[L, O], with episode 0 begun in lanes with these rows [L, P] and keys [L]."""
        self._begun = (rows, keys)
        # The actions [L, …] of the last steps, as many as an episode may have.
        self._actions: deque[Array] = deque(maxlen=self._family.env_layout.horizon)
        self._age, self._episode = np.zeros((2, len(keys)), np.int64)
        with self._told():
            return self._lanes.reset(rows, keys)

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        keys = tasks.streams(rng, self._width).keys
        self._shape = keys.shape
        self._device = keys.device
        rows = tasks.params.double().cpu().numpy().repeat(self._width, axis=0)
        return self._tensor(self._begin(rows, keys.flatten().cpu().numpy()))

    def step(self, action: Tensor) -> Step:
        taken = action.flatten(0, 1).cpu().numpy().copy()
        with self._told(next_episode=1):
            stepped = self._lanes.step(taken)
        done = stepped.terminated | stepped.truncated
        self._actions.append(taken)
        self._age = np.where(done, 0, self._age + 1)
        self._episode = self._episode + done
        layout = self._family.env_layout
        *fields, success, metrics = map(self._tensor, stepped)
        if layout.has_success:
            fields.append(success)
        named = dict(zip(layout.metrics, metrics.unbind(-1), strict=True))
        return Step(*fields, metrics=named)

    @property
    def renders(self) -> bool:
        """Whether the environments were built with pictures."""
        return self._family.env_layout.renders

    def frame(self, row: int, lane: int) -> Array:
        """[height, width, 3] uint8: a picture of the present state of one lane of one row.

        Raises:
            FamilyError: the environments were built without pictures.
        """
        if not self.renders:
            raise FamilyError("no picture can be taken: build() must set render_mode='rgb_array'")
        with self._told():
            return self._lanes.frame(row * self._width + lane)

    @contextmanager
    def _told(self, next_episode: int = 0) -> Iterator[None]:
        """Says of a CallError where it happened; a step begins the next episode of a lane."""
        try:
            yield
        except CallError as error:
            place = ""
            if error.lane != EVERY_LANE:
                rows, _ = self._begun
                episode = self._episode[error.lane]
                if error.call in ("step", "success", "render"):
                    place += f" {self._age[error.lane]}"
                else:
                    episode += next_episode
                row = rows[error.lane].round(6).tolist()
                lane = error.lane % self._width
                place += f" of episode {episode} of the task {row}, lane {lane}"
            raise error.told(self._family.env_layout.name, place) from error.__cause__

    def _tensor(self, array: Array) -> Tensor:
        """[L, …] → [N, M, …]."""
        return send(torch.from_numpy(array), self._device).view(*self._shape, *array.shape[1:])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lanes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        LanesEnv.__init__(self, state["_family"], state["_width"])
        if "_begun" not in state:
            return
        self._begin(*state["_begun"])
        vars(self).update(state)
        for steps_ago in range(int(self._age.max()), -1, -1):
            begins = self._age == steps_ago
            if begins.any():
                with self._told():
                    self._lanes.restart(begins, self._episode)
            if steps_ago > 0:
                with self._told(next_episode=1):
                    self._lanes.step(self._actions[-steps_ago])
