"""The limit of a step made of matrix products: those products alone, same shapes and layouts."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


class Operands(TorchDispatchMode):
    """Records shape and strides of both operands of every matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[list[tuple[torch.Size, tuple[int, ...]]]] = []

    def __torch_dispatch__(self, function, _, args=(), kwargs=None):
        if str(function.overloadpacket) in ("aten.mm", "aten.addmm", "aten.bmm", "aten.baddbmm"):
            shapes = [(x.shape, x.stride()) for x in args if isinstance(x, torch.Tensor)]
            self.pairs.append(shapes[-2:])
        return function(*args, **kwargs or {})


def products(step: Callable[[], object]) -> tuple[int, Callable[[], None]]:
    """FLOPs of the matrix products of a step, and a function that computes those products alone."""
    with FlopCounterMode(display=False) as counter:
        step()
    with Operands() as operands:
        step()
    made = {}
    for shape, strides in itertools.chain.from_iterable(operands.pairs):
        extent = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        made[shape, strides] = torch.randn(extent).as_strided(shape, strides)
    pairs = [(made[a], made[b]) for a, b in operands.pairs]
    results = {}
    for a, b in pairs:
        shape = (*a.shape[:-1], b.shape[-1])
        results[shape] = torch.empty(shape)
    flops = sum(2 * a.numel() * b.shape[-1] for a, b in pairs)
    counted = counter.get_total_flops()
    if flops != counted:
        sys.exit(f"{flops} FLOP in the products that were recorded, {counted} were counted")

    def bare() -> None:
        for a, b in pairs:
            multiply = torch.mm if a.dim() == 2 else torch.bmm
            multiply(a, b, out=results[(*a.shape[:-1], b.shape[-1])])

    return flops, bare
