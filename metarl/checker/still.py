"""Randomness that stands still, so that all episodes are the same one."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.core.rng import Rng, Streams

_REJECTING = 100  # draws from one stream within one step


class Still:
    """Stands in for an `Rng`: each of its streams gives the same numbers at every counter.

    So every episode has the same randomness; with the same actions it is the same episode.
    """

    def __init__(self, rng: Rng, root: Still | None = None):
        self._rng = rng
        self._root = root or self
        self.time = 0
        """Steps of the environment; of the root alone."""
        self.escaped = False
        """Whether seeds were made, which generate other numbers all the time; of the root alone."""

    @property
    def key(self) -> int:
        self._root.escaped = True
        return self._rng.key

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        self._root.escaped = True
        return self._rng.generator(device)

    def child(self, *names: str | int) -> Still:
        return Still(self._rng.child(*names), self._root)

    def rows(self, count: int, width: int) -> Tensor:
        return self._rng.rows(count, width)

    def streams(self, index: Tensor, lanes: int = 1) -> _StillStreams:
        return _StillStreams(self._rng.streams(index, lanes), self._root)


class _StillStreams:
    """The same numbers at every counter, except after very many draws within a step.

    Those are rejection sampling, which would never end.
    """

    def __init__(self, streams: Streams, root: Still):
        self._streams = Streams(streams.keys, ahead=1)
        self._root = root
        self._time = -1
        self._draws = 0

    @property
    def keys(self) -> Tensor:
        self._root.escaped = True
        return self._streams.keys

    @property
    def substream(self) -> _StillStreams:
        return _StillStreams(self._streams.substream, self._root)

    def uniform(self, counter: int, width: int) -> Tensor:
        return self._streams.uniform(self._place(), width)

    def below(self, number: int, counter: int) -> Tensor:
        return self._streams.below(number, self._place())

    def normal(self, counter: int, width: int) -> Tensor:
        return self._streams.normal(self._place(), width)

    def split(self, counter: int, *shape: int) -> _StillStreams:
        return _StillStreams(self._streams.split(self._place(), *shape), self._root)

    def _place(self) -> int:
        if self._time != self._root.time:
            self._time = self._root.time
            self._draws = 0
        self._draws += 1
        return max(0, self._draws - _REJECTING)
