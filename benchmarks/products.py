"""The limit of what is made of matrix products: those products alone, of the same shapes and layouts."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


class Operands(TorchDispatchMode):
    """Notes shape and strides of both operands of every matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[list[tuple[torch.Size, tuple[int, ...]]]] = []

    def __torch_dispatch__(self, function, _, args=(), kwargs=None):
        if str(function.overloadpacket) in ("aten.mm", "aten.addmm", "aten.bmm", "aten.baddbmm"):
            self.noted.append(
                [(x.shape, x.stride()) for x in args if isinstance(x, torch.Tensor)][-2:]
            )
        return function(*args, **kwargs or {})


def products(step: Callable[[], object]) -> tuple[int, Callable[[], None]]:
    """FLOPs of the matrix products of a step, and a function that computes such products and nothing else."""
    with FlopCounterMode(display=False) as counter:
        step()
    with Operands() as operands:
        step()
    made = {}
    for shape, strides in (operand for pair in operands.noted for operand in pair):
        extent = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        made[shape, strides] = torch.randn(extent).as_strided(shape, strides)
    pairs = [(made[a], made[b]) for a, b in operands.noted]
    results = {
        (*a.shape[:-1], b.shape[-1]): torch.empty(*a.shape[:-1], b.shape[-1]) for a, b in pairs
    }
    flops = sum(2 * a.numel() * b.shape[-1] for a, b in pairs)
    if flops != counter.get_total_flops():
        sys.exit(
            f"{flops} FLOP in the products that were noted, {counter.get_total_flops()} were counted"
        )

    def bare() -> None:
        for a, b in pairs:
            (torch.mm if a.dim() == 2 else torch.bmm)(
                a, b, out=results[(*a.shape[:-1], b.shape[-1])]
            )

    return flops, bare
