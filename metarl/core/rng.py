"""One seed, named streams of random numbers, and no state.

An `Rng` is a value, a 64-bit key. `child` derives further keys by name, so every consumer of
randomness is addressed (`rng.child("iteration", 7, "env")`) rather than advanced. A run therefore
resumes from its seed and its counters alone, and drawing more numbers in one place changes none
elsewhere.

`Streams` are counter-based generators (Salmon et al. 2011, "Parallel random numbers: as easy as 1,
2, 3"): the number at place `counter` of the stream of task row i and lane j is a hash of
(key, i, j, counter). It does not depend on which other rows are in the batch.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

# The constants of SplitMix64, as signed integers; the first, its increment, is 2⁶⁴ / golden ratio.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64

_WIDEST_DRAW = 2**20
_BLOCK_ELEMENTS = 2**17


@dataclass(frozen=True)
class Rng:
    """A named node in the tree of random numbers that grows from one seed."""

    key: int
    """A signed 64-bit number; a user's seed is one too."""

    def child(self, *names: str | int) -> Rng:
        """The node `names` below this one; ``child(a, b)`` is ``child(a).child(b)``."""
        key = self.key
        for name in names:
            digest = hashlib.blake2b(f"{key}/{name!r}".encode(), digest_size=8).digest()
            key = int.from_bytes(digest, "little", signed=True)
        return Rng(key)

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh torch generator, for draws of no task row (initial weights, minibatches).

        That of another device draws other numbers: draw on the CPU, and `send` them there.
        """
        return torch.Generator(device).manual_seed(self.key & 0x7FFF_FFFF_FFFF_FFFF)

    def rows(self, count: int, width: int) -> Tensor:
        """[count, width] uniform on (0, 1), for task rows: row i is the same for every count."""
        return self.streams(torch.arange(count)).uniform(0, width).squeeze(1)

    def streams(self, index: Tensor, lanes: int = 1) -> Streams:
        """One stream for each task row of `index` [N] and each lane → keys [N, M]."""
        row = _hash(index.unsqueeze(1) * _GOLDEN + self.key)
        return Streams(_hash(row + torch.arange(1, lanes + 1, device=index.device) * _GOLDEN))


def send(x: Tensor, device: torch.device) -> Tensor:
    """What was drawn on the CPU, on `device`; neither waits for the other."""
    if device.type == "cuda":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


@contextmanager
def seeding_globals(seed: int) -> Iterator[None]:
    """Within, the global generators of torch, NumPy and Python begin at `seed`, 0 to 2³² − 1.

    For code of others that draws from them; afterwards they are as before.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        gpus = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
        with torch.random.fork_rng(gpus):
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


class Streams:
    """An endless sequence of draws for every task row and lane, addressed by a counter.

    One purpose, one `Streams`: the same counter always gives the same numbers.
    """

    def __init__(self, keys: Tensor, ahead: int = 64):
        self.keys = keys  # [N, M] int64
        self._ahead = ahead  # most counters that are drawn at once

        self._block = torch.empty(0)  # [block, N, M, width]: drawn ahead, more every time
        self._first = 0  # the counter that the block begins at
        self._width = 0
        self._below = (0, self._block)  # a number, and integers below it made of the block

    def uniform(self, counter: int, width: int) -> Tensor:
        """[N, M, width] float32, uniform on the open interval (0, 1) in steps of 2⁻²³.

        Not to be changed in place.
        """
        if width != self._width or not 0 <= counter - self._first < len(self._block):
            most = _BLOCK_ELEMENTS // max(1, self.keys.numel() * width)
            size = min(2 * len(self._block), self._ahead, most)
            bits = self._bits(counter, max(1, size), width)
            self._block = ((bits >> 41) & 0x7FFFFF).to(torch.float32).mul_(2.0**-23).add_(2.0**-24)
            self._first = counter
            self._width = width
            self._below = (0, self._block)
        return self._block[counter - self._first]

    def below(self, number: int, counter: int) -> Tensor:
        """[N, M] int64, uniform on 0, …, `number` − 1: ⌊number · u⌋ of `uniform(counter, 1)`.

        Not to be changed in place.
        """
        self.uniform(counter, 1)
        if self._below[0] != number:
            self._below = number, (number * self._block.squeeze(-1)).long()
        return self._below[1][counter - self._first]

    def normal(self, counter: int, width: int) -> Tensor:
        """[N, M, width] float32, standard normal: the quantile of `uniform`, so within ±5.3."""
        return math.sqrt(2.0) * torch.erfinv(2.0 * self.uniform(counter, width) - 1.0)

    @cached_property
    def substream(self) -> Streams:
        """Streams for a second purpose: independent numbers at the same places."""
        return Streams(_hash(self.keys ^ _GOLDEN), self._ahead)

    def split(self, counter: int, *shape: int) -> Streams:
        """[N, M, *shape] further streams, one for every place `counter` of this one.

        For draws whose number is not known beforehand (rejection sampling), and for wide draws that
        are rarely needed.
        """
        bits = self._bits(counter, 1, math.prod(shape))
        return Streams(bits.view(*self.keys.shape, *shape), ahead=1)

    def _bits(self, first: int, size: int, width: int) -> Tensor:
        """[size, N, M, width] int64: the hashes at counters first … first + size − 1."""
        device = self.keys.device
        counters = torch.arange(first, first + size, device=device)
        counters = counters.view(-1, *[1] * self.keys.dim(), 1)
        place = counters * _WIDEST_DRAW + torch.arange(1, width + 1, device=device)
        return _hash(self.keys.unsqueeze(-1) + place * _GOLDEN)


def _hash(x: Tensor) -> Tensor:
    """The output function of SplitMix64 (Steele et al. 2014), a bijection of wrapping int64."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's own repeats the sign bit."""
    return (x >> bits) & (2 ** (64 - bits) - 1)
