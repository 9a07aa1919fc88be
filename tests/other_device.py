"""A device that is not there: CPU data that refuse what CUDA refuses.

Its tensors say that they are on ``meta``, the one other device that every build of torch knows. An
operation on tensors of both devices is a mistake, except for a CPU scalar of no axes; so is a draw
from a generator of the CPU. Operations that make the CPU wait are counted, and so are sums that
CUDA forms in no fixed order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

OTHER = torch.device("meta")

_aten = torch.ops.aten
_WAITS = {
    _aten._local_scalar_dense,  # item, bool, int, float
    _aten.nonzero,
    _aten.masked_select,
    _aten.equal,
    _aten.is_nonzero,
    _aten.bincount,
    _aten._unique2,
    _aten.unique_dim,
    _aten.repeat_interleave,
}
"""The CPU needs the outcome, or its shape."""
_INDEXES = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_}
_COPIES = {_aten._to_copy, _aten.copy_}
_UNORDERED = {_aten.scatter_add, _aten.scatter_add_}


class _There(Tensor):
    """A tensor of the other device."""

    here: Tensor
    """Its numbers, on the CPU."""

    @staticmethod
    def __new__(cls, here: Tensor) -> _There:
        made: _There = Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=OTHER,
        )
        made.here = here
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"there({self.here!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return _There(self.here.clone()).requires_grad_(self.requires_grad)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class OtherDevice(TorchDispatchMode):
    """Within, tensors are made on `OTHER` as on any device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        """How often each operation made the CPU wait."""
        self.unordered: Counter[str] = Counter()
        """How often each operation added floats in no fixed order."""
        self._with = ExitStack()

    def __enter__(self) -> OtherDevice:
        self._with.enter_context(_Lists())
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._with.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._count(func, args, kwargs)
        return _compute(func, args, kwargs)

    def _count(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        packet = func.overloadpacket
        tensors = list(_tensors(args))
        if not _to_other(kwargs) and not any(isinstance(x, _There) for x in tensors):
            return
        if packet in _WAITS or (packet in _COPIES and _crosses(tensors, kwargs)):
            self.waits[packet.__name__] += 1
        if packet in _INDEXES:
            masks = [x for x in args[1] if x is not None and x.dtype in (torch.bool, torch.uint8)]
            if masks:
                self.waits["a mask as index"] += 1
        if packet in _UNORDERED and args[0].is_floating_point():
            _, dim, places, _ = _map(_here, args)
            none = torch.zeros(args[0].shape, dtype=torch.long)
            if none.scatter_add(dim, places, torch.ones_like(places)).max() > 1:
                self.unordered[packet.__name__] += 1


class _Lists(TorchFunctionMode):
    """Numbers of Python come from the other device, and go to it, by way of the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and _to_other(kwargs):
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is Tensor.tolist:
            return func(args[0].cpu())
        return func(*args, **kwargs)


def _to_other(kwargs: dict[str, Any]) -> bool:
    return kwargs.get("device") is not None and torch.device(kwargs["device"]) == OTHER


def _tensors(x: Any) -> Iterator[Tensor]:
    """All tensors of arguments."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, tuple | list):
        for part in x:
            yield from _tensors(part)


def _map(change: Callable[[Tensor], Tensor], x: Any) -> Any:
    """`change` applied to all tensors of arguments or outcomes."""
    if isinstance(x, Tensor):
        return change(x)
    return type(x)(_map(change, part) for part in x) if isinstance(x, tuple | list) else x


def _crosses(tensors: list[Tensor], kwargs: dict[str, Any]) -> bool:
    """Whether a copy goes from one device to the other, and is waited for."""
    there = {isinstance(x, _There) for x in tensors}
    if len(tensors) == 1 and kwargs.get("device") is not None:
        there.add(_to_other(kwargs))
    sent = _to_other(kwargs) and kwargs.get("non_blocking", False)
    return len(there) == 2 and not sent


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """`func` on the CPU; its outcome is where CUDA would leave it."""
    tensors = list(_tensors((args, list(kwargs.values()))))
    there = any(isinstance(x, _There) for x in tensors)
    device = kwargs.get("device")
    stays = there if device is None else _to_other(kwargs)
    if not there and not stays:
        return func(*args, **kwargs)
    if func.overloadpacket not in _COPIES:
        if any(x.dim() and isinstance(x, _There) is not stays for x in tensors):
            raise RuntimeError(f"{func}: tensors of two devices")
        if kwargs.get("generator") is not None:
            raise RuntimeError(f"{func}: a generator of the CPU on another device")
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    here_kwargs = {name: _map(_here, value) for name, value in kwargs.items()}
    outcome = func(*_map(_here, args), **here_kwargs)
    if func.overloadpacket is _aten.copy_:
        return args[0]  # on either device
    if not stays:
        return outcome
    given = {id(x.here): x for x in tensors if isinstance(x, _There)}  # changed in place
    return _map(lambda x: given[id(x)] if id(x) in given else _There(x), outcome)


def _here(x: Tensor) -> Tensor:
    return x.here if isinstance(x, _There) else x
