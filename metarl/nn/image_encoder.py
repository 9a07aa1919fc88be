"""Convolutions that turn the images of an observation into features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from metarl.core.types import Params, Spec
from metarl.nn.config import ImageConfig
from metarl.nn.mlp import linear, orthogonal, part

_BRIGHTEST = 255.0
_KERNEL = 3


@dataclass(frozen=True)
class ImageEncoder:
    """Observations [..., O] with images → [..., E]: the other parts, then features of each image.

    Every layer is a convolution of 3 × 3 with stride 2 and a ReLU, so that images of any size fit;
    a linear layer with a ReLU follows. Parameters are passed to every call.
    """

    observation: dict[str, int]
    images: dict[str, tuple[int, int, int]]
    """Height, width, channels; entries from 0 to 255."""
    channels: tuple[int, ...]
    """Of each layer; none: the features are the pixels, scaled to [0, 1]."""
    features: int
    """Of each image, after the linear layer."""

    @property
    def width(self) -> int:
        """E."""
        return self._others_width + sum(map(self._features, self.images))

    def place(self, name: str) -> slice:
        """Where the part `name`, which is no image, stands in what this gives."""
        first = 0
        for other in self._others:
            if other == name:
                break
            first += self.observation[other]
        return slice(first, first + self.observation[name])

    def init(self, generator: torch.Generator) -> Params:
        """Orthogonal weights, zero biases."""
        params: Params = {}
        gain = math.sqrt(2)
        for name, (height, width, inputs) in self.images.items():
            for i, outputs in enumerate(self.channels):
                weight = gain * orthogonal(1, outputs, inputs * _KERNEL**2, generator)
                params[f"{name}.{i}.weight"] = weight.view(outputs, inputs, _KERNEL, _KERNEL)
                params[f"{name}.{i}.bias"] = torch.zeros(outputs)
                height, width, inputs = -(-height // 2), -(-width // 2), outputs
            if self.channels:
                size = height * width * inputs
                params[f"{name}.head.weight"] = gain * orthogonal(1, self.features, size, generator)
                params[f"{name}.head.bias"] = torch.zeros(self.features)
        return params

    def __call__(self, params: Params, obs: Tensor) -> Tensor:
        """obs [..., O] uint8 or float → [..., E]; with one copy of the parameters a task, its N is
        third from the last axis of obs."""
        first = f"{next(iter(self.images))}.0.weight"
        if self.channels and params[first].dim() > 4:
            axis = obs.dim() - 3
            return torch.vmap(self._encode, (0, axis), axis)(params, obs)
        return self._encode(params, obs)

    def _encode(self, params: Params, obs: Tensor) -> Tensor:
        if not obs.is_floating_point():
            obs = obs.float()
        widths = list(self.observation.values())
        parts = dict(zip(self.observation, obs.split(widths, dim=-1), strict=True))
        encoded = [parts[name] for name in self._others]
        for name, shape in self.images.items():
            image = parts[name] / _BRIGHTEST
            if self.channels:
                image = self._image(part(params, name), image.unflatten(-1, shape))
            encoded.append(image)
        return torch.cat(encoded, dim=-1)

    def _image(self, params: Params, image: Tensor) -> Tensor:
        """[..., height, width, channels] → [..., F]."""
        x = image.flatten(0, -4).movedim(-1, 1)
        for i in range(len(self.channels)):
            weight, bias = params[f"{i}.weight"], params[f"{i}.bias"]
            x = conv2d(x, weight, bias, stride=2, padding=1).relu()
        features = linear(params, "head", x.flatten(1)).relu()
        return features.unflatten(0, image.shape[:-3])

    @property
    def _others(self) -> list[str]:
        """Parts that are no images."""
        return [name for name in self.observation if name not in self.images]

    @property
    def _others_width(self) -> int:
        return sum(self.observation[name] for name in self._others)

    def _features(self, name: str) -> int:
        return self.features if self.channels else self.observation[name]


def make_image_encoder(config: ImageConfig, spec: Spec) -> ImageEncoder | None:
    """The encoder of a family's images; None: it has none."""
    if not spec.images:
        return None
    return ImageEncoder(spec.observation, spec.images, config.conv_channels, config.image_features)
