"""Layers whose weights are made at every step (hypernetworks: Ha et al. 2017, arXiv:1609.09106).

Features m [..., F] make the layer that inputs x [..., I] go through::

    [b, W] = A m + a        y = W x + b

So y is affine in x, and how is said by m. A head of such a kind reads the observation. As the first
layer after a memory, it makes of the policy one of the present step, whose weights the memory has
chosen (Beck et al. 2022, arXiv:2210.11348, who make all layers so).
"""

import torch
from torch import Tensor

from metarl.core.types import Params
from metarl.nn.mlp import init_layers, linear, orthogonal

_GAIN = 0.01  # of A; Beck et al. 2022 start from 0, through which no gradient reaches the memory


def generated(params: Params, name: str, features: Tensor, x: Tensor) -> Tensor:
    """x [..., I] → y [..., W] by the layer that `features` [..., F] make.

    A is ``name.weight`` [(1 + I) · W, F], and a is ``name.bias``: b first, then Wᵀ row by row.
    """
    made = linear(params, name, features).unflatten(-1, (1 + x.shape[-1], -1))
    bias, weight = made[..., 0, :], made[..., 1:, :]
    product = torch.matmul(x.unsqueeze(-2), weight)
    return bias + product.squeeze(-2)


def init_generated(
    feature_width: int,
    input_width: int,
    output_width: int,
    generator: torch.Generator,
) -> Params:
    """A of nearly zero, and a of an ordinary layer (Bias-HyperInit of Beck et al. 2022).

    So the first policies are those without memory, whatever their features are.
    """
    layer: Params = {}
    init_layers(layer, "layer", input_width, (output_width,), generator)
    bias = torch.cat([layer["layer.0.bias"].unsqueeze(0), layer["layer.0.weight"].mT])
    weight = _GAIN * orthogonal(1 + input_width, output_width, feature_width, generator)
    return {"weight": weight, "bias": bias.flatten()}
