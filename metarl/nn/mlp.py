"""Layers of affine maps and activations: what policies, critics and context encoders are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metarl.core.types import Params

Activation = Literal["tanh", "relu"]
_HEAD_GAIN = 0.01  # so that what is not learned yet is close to zero


@dataclass(frozen=True)
class MLP:
    """Hidden layers and a linear head; parameters are passed to every call."""

    input_width: int
    hidden: tuple[int, ...]
    output_width: int
    activation: Activation = "relu"

    def init(self, generator: torch.Generator) -> Params:
        """Orthogonal weights, zero biases, a small head."""
        params: Params = {}
        width = init_layers(params, "hidden", self.input_width, self.hidden, generator)
        params["head.weight"] = _HEAD_GAIN * orthogonal(1, self.output_width, width, generator)
        params["head.bias"] = torch.zeros(self.output_width)
        return params

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        """x [..., I] → [..., W]."""
        features = layers(params, "hidden", len(self.hidden), self.activation, x)
        return affine(features, params["head.weight"], params["head.bias"])


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [..., I] → [..., W]; with weight [N, W, I], one matrix a task, x is [N, B, I] or [T, N, B, I]."""
    if weight.dim() == 2:
        return torch.nn.functional.linear(x, weight, bias)
    rows = x if x.dim() == 3 else x.movedim(1, 0).flatten(1, 2)
    out = torch.baddbmm(bias.unsqueeze(-2), rows, weight.mT)
    return out if x.dim() == 3 else out.unflatten(1, (x.shape[0], -1)).movedim(0, 1)


def layers(params: Params, name: str, count: int, activation: Activation, x: Tensor) -> Tensor:
    """x [..., I] through the `count` layers called `name`."""
    activate = (
        torch.tanh_ if activation == "tanh" else torch.relu_
    )  # in place: nothing else needs what goes in
    for i in range(count):
        x = activate(affine(x, params[f"{name}.{i}.weight"], params[f"{name}.{i}.bias"]))
    return x


def init_layers(
    params: Params, name: str, width: int, widths: tuple[int, ...], generator: torch.Generator
) -> int:
    """Add layers of these widths on an input of `width` to `params` → the width of the last."""
    for i, out in enumerate(widths):
        params[f"{name}.{i}.weight"] = math.sqrt(2) * orthogonal(1, out, width, generator)
        params[f"{name}.{i}.bias"] = torch.zeros(out)
        width = out
    return width


def orthogonal(blocks: int, out: int, width: int, generator: torch.Generator) -> Tensor:
    """[blocks · out, width], each block orthogonal."""
    parts = [
        torch.nn.init.orthogonal_(torch.empty(out, width), generator=generator)
        for _ in range(blocks)
    ]
    return torch.cat(parts)


def named(params: Params, name: str) -> Params:
    """The same parameters, `name` in front."""
    return {f"{name}.{key}": value for key, value in params.items()}


def part(params: Params, name: str) -> Params:
    """Those with `name` in front, without it."""
    return {
        key.removeprefix(name + "."): value
        for key, value in params.items()
        if key.startswith(name + ".")
    }
