"""Multi-layer perceptrons: the layers of policies, critics and context encoders."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metarl.core.types import Params

Activation = Literal["tanh", "relu"]
ACTIVATIONS = {"tanh": torch.tanh_, "relu": torch.relu_}
"""In place: nothing else needs what they are applied to."""
_HEAD_GAIN = 0.01  # the first outputs are close to zero


@dataclass(frozen=True)
class MLP:
    """Hidden layers and a linear head; parameters are passed to every call."""

    input_width: int
    hidden_sizes: tuple[int, ...]
    output_width: int
    activation: Activation = "relu"

    def init(self, generator: torch.Generator) -> Params:
        """Orthogonal weights, zero biases, a small head."""
        params: Params = {}
        width = init_layers(params, "hidden", self.input_width, self.hidden_sizes, generator)
        params["head.weight"] = _HEAD_GAIN * orthogonal(1, self.output_width, width, generator)
        params["head.bias"] = torch.zeros(self.output_width)
        return params

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        """x [..., I] → [..., W]."""
        features = layers(params, "hidden", len(self.hidden_sizes), self.activation, x)
        return linear(params, "head", features)


def linear(params: Params, name: str, x: Tensor) -> Tensor:
    """x [..., I] → [..., W] by the layer `name`, see `affine`."""
    return affine(x, params[f"{name}.weight"], params[f"{name}.bias"])


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [..., I] → [..., W]; with weight [N, W, I], one a task, x is [N, B, I] or [T, N, M, I]."""
    if weight.dim() == 2:
        return torch.nn.functional.linear(x, weight, bias)
    if x.dim() == 4:
        return unflatten_steps(affine(flatten_steps(x), weight, bias), len(x))
    return torch.baddbmm(bias.unsqueeze(-2), x, weight.mT)


def flatten_steps(x: Tensor) -> Tensor:
    """All steps of a task side by side: [T, N, M, W] → [N, T·M, W]."""
    return x.movedim(1, 0).flatten(1, 2)


def unflatten_steps(x: Tensor, steps: int) -> Tensor:
    """The inverse: [N, T·M, W] → [T, N, M, W] for T `steps`."""
    return x.unflatten(1, (steps, -1)).movedim(0, 1)


def layers(
    params: Params,
    name: str,
    count: int,
    activation: Activation,
    x: Tensor,
) -> Tensor:
    """x [..., I] through the `count` layers called `name`."""
    activate = ACTIVATIONS[activation]
    for i in range(count):
        x = activate(linear(params, f"{name}.{i}", x))
    return x


def init_layers(
    params: Params,
    name: str,
    width: int,
    sizes: tuple[int, ...],
    generator: torch.Generator,
) -> int:
    """Add layers of these sizes on an input of `width` to `params` → the width of the last."""
    for i, size in enumerate(sizes):
        params[f"{name}.{i}.weight"] = math.sqrt(2) * orthogonal(1, size, width, generator)
        params[f"{name}.{i}.bias"] = torch.zeros(size)
        width = size
    return width


def orthogonal(
    blocks: int,
    rows: int,
    columns: int,
    generator: torch.Generator,
) -> Tensor:
    """[blocks · rows, columns]: blocks that are orthogonal each."""
    weight = torch.empty(blocks, rows, columns)
    for block in weight:
        torch.nn.init.orthogonal_(block, generator=generator)
    return weight.flatten(0, 1)


def named(params: Params, name: str) -> Params:
    """The same parameters, `name` in front of theirs."""
    return {f"{name}.{key}": value for key, value in params.items()}


def part(params: Params, name: str) -> Params:
    """The parameters with `name` in front, without it."""
    prefix = f"{name}."
    return {k.removeprefix(prefix): v for k, v in params.items() if k.startswith(prefix)}
