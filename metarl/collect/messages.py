"""Values on their way to another process: bytes, and the arrays of their tensors beside them.

Arrays travel as NumPy's, which is read without a copy where memory is shared.
"""

import io
import pickle
from typing import Any, NamedTuple

import cloudpickle  # type: ignore[import-untyped]  # it has no types
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Message(NamedTuple):
    """A value without its arrays, and these, flat."""

    content: bytes
    arrays: list[NDArray[Any]]

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content) + sum(array.nbytes for array in self.arrays)


def pack(value: object) -> Message:
    """`value`, with all tensors as arrays of the CPU."""
    file = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    _Pickler(file, protocol=5, buffer_callback=buffers.append).dump(value)
    arrays = [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]
    return Message(file.getvalue(), arrays)


def unpack(message: Message) -> Any:
    """The value, with tensors of its own on the CPU."""
    content, arrays = message
    return pickle.loads(content, buffers=arrays)  # noqa: S301  (from our own process)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    """Pickles tensors as arrays, and classes of a user's own file with their code."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            array = np.ascontiguousarray(value.detach().cpu().numpy())
            return _tensor, (array, value.shape)
        return super().reducer_override(value)


def _tensor(array: NDArray[Any], shape: torch.Size) -> Tensor:
    """A tensor with memory of its own: what was shared is given back."""
    return torch.from_numpy(array.copy()).view(shape)
