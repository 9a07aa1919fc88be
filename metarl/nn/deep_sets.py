"""A memory without order: a sum over what was seen (Zaheer et al. 2017, arXiv:1703.06114)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metarl.core.types import Inputs, Params
from metarl.nn.mlp import linear, orthogonal

State = tuple[Tensor, ...]
"""The sum [N, M, W] and how many steps it is of [N, M, 1]."""


@dataclass(frozen=True)
class SetMemory:
    """Σ_{u ≤ t} W x_u, and its mean, beside the inputs x_t.

    The encoder before it makes x of a step, the body after it reads the sum: together they are Deep
    Sets. What holds of a task does not depend on the order in which it was found out.
    """

    slots: ClassVar = 0
    width: int

    def output_width(self, input_width: int) -> int:
        return 2 * self.width + 2 + input_width

    def init(self, input_width: int, generator: torch.Generator) -> Params:
        return {
            "sum.weight": orthogonal(1, self.width, input_width, generator),
            "sum.bias": torch.zeros(self.width),
        }

    def start(self, rows: int, lanes: int, device: torch.device) -> State:
        empty = torch.zeros(rows, lanes, self.width + 1, device=device)
        return empty[..., :-1], empty[..., -1:]

    def step(self, params: Params, x: Tensor, inputs: Inputs, state: State) -> tuple[Tensor, State]:
        total, count = state
        total = total + linear(params, "sum", x)
        count = count + 1
        return self._read(total, count, x), (total, count)

    def unroll(self, params: Params, x: Tensor, inputs: Inputs, state: State) -> Tensor:
        total, count = state
        added = linear(params, "sum", x)
        steps = torch.ones_like(added[..., :1])
        return self._read(total + added.cumsum(0), count + steps.cumsum(0), x)

    def _read(self, total: Tensor, count: Tensor, x: Tensor) -> Tensor:
        """Brought to the size of one by constants, for trials of about a hundred steps."""
        size = [count.rsqrt(), 0.4 * count.log() - 1]
        return torch.cat([0.1 * total, total / count, *size, x], -1)
