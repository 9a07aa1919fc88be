"""Large arrays whose memory is used again."""

import math
import weakref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SMALLEST = 2**25
"""Bytes of a block; of smaller ones malloc itself keeps the memory (DEFAULT_MMAP_THRESHOLD_MAX)."""


class Blocks:
    """Memory for large arrays on the CPU, kept when the last tensor that uses it is gone.

    A rollout after the other asks for as much again. Memory that is fresh from the system costs
    several times what writing it does: each page is mapped and cleared when it is first touched.
    """

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []

    def empty(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """An array of `shape` with the type and device of `like`, not initialized."""
        size = math.prod(shape) * like.element_size()
        if like.device.type != "cpu" or size < SMALLEST:
            return like.new_empty(shape)
        block = self._take(size)
        lent = block[:size]
        weakref.finalize(lent, self._free.append, block).atexit = False
        return torch.from_numpy(lent).view(like.dtype).view(shape)

    def _take(self, size: int) -> NDArray[np.uint8]:
        """A free block of `size` bytes to twice as many; if there is none, all others are freed."""
        for place, block in enumerate(self._free):
            if size <= len(block) <= 2 * size:
                return self._free.pop(place)
        self._free.clear()
        return torch.empty(size, dtype=torch.uint8).numpy()


BLOCKS = Blocks()
"""Those of this process."""
