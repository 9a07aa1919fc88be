"""Action distributions: drawn from noise that is passed in, so that chance has an address."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from metarl.core.rng import Streams
from metarl.core.types import Params, tree

_SMALLEST_LOG_STD = math.log(1e-6)
_SQUASHED_LOG_STD = (-20.0, 2.0)
_EDGE = 1 - 2**-24  # the largest float32 below 1
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(64)


@tree
class Categorical:
    """One of A choices."""

    logits: Tensor  # [..., A]

    def sample(self, noise: Streams, counter: int) -> Tensor:
        """[N, M] int64."""
        return sample_by_inversion(noise.uniform(counter, 1), self.logits.softmax(-1))

    def mode(self) -> Tensor:
        """[...] int64: the most likely choice."""
        return self.logits.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...]: log-probability of action [...] int64."""
        return self.logits.log_softmax(-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """[...] in nats."""
        log_probs = self.logits.log_softmax(-1)
        return -(log_probs.exp() * log_probs).sum(-1)

    def kl(self, other: Distribution) -> Tensor:
        """[...]: KL(self ‖ other) in nats, for another of the same kind."""
        assert isinstance(other, Categorical)
        log_probs = self.logits.log_softmax(-1)
        return (log_probs.exp() * (log_probs - other.logits.log_softmax(-1))).sum(-1)


@tree
class Gaussian:
    """Independent normals; families clip what falls outside [−1, 1]."""

    mean: Tensor  # [..., A]
    log_std: Tensor  # [..., A], broadcast against the mean

    def sample(self, noise: Streams, counter: int) -> Tensor:
        """[N, M, A] float32."""
        return self.mean + self.log_std.exp() * noise.normal(counter, self.mean.shape[-1])

    def mode(self) -> Tensor:
        """[..., A]: the mean."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """[...]: log-density of action [..., A], summed over its entries."""
        z = (action - self.mean) * torch.exp(-self.log_std)
        return -(0.5 * z.square() + self.log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """[...] in nats."""
        per_entry = self.log_std + 0.5 * math.log(2 * math.pi * math.e)
        return per_entry.expand_as(self.mean).sum(-1)

    def kl(self, other: Distribution) -> Tensor:
        """[...]: KL(self ‖ other) in nats, for another of the same kind."""
        assert isinstance(other, Gaussian)
        log_ratio = self.log_std - other.log_std
        gap = (self.mean - other.mean) * torch.exp(-other.log_std)
        return (0.5 * ((2 * log_ratio).exp() + gap.square() - 1) - log_ratio).sum(-1)


@tree
class SquashedGaussian:
    """tanh of independent normals: always within [−1, 1] (Haarnoja et al. 2018, arXiv:1812.05905, appendix C)."""

    mean: Tensor  # [..., A] before the tanh, as is the deviation
    log_std: Tensor  # [..., A]

    def draw(self, normal: Tensor) -> tuple[Tensor, Tensor]:
        """An action [..., A] made of standard normal numbers [..., A], and its log-density [...].

        Both can be differentiated; the density is exact also where the tanh rounds to ±1.
        """
        before = self.mean + self.log_std.exp() * normal
        density = -(0.5 * normal.square() + self.log_std + 0.5 * math.log(2 * math.pi))
        return torch.tanh(before), (density - _log_slope(before)).sum(-1)

    def sample(self, noise: Streams, counter: int) -> Tensor:
        """[N, M, A] float32."""
        return self.draw(noise.normal(counter, self.mean.shape[-1]))[0]

    def mode(self) -> Tensor:
        """[..., A]: the tanh of the mean, where the median is."""
        return torch.tanh(self.mean)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...]: log-density of action [..., A], summed over its entries; ±1 counts as the nearest number within.

        It is as inexact as the tanh's inverse close to ±1; `draw` tells that of its own actions exactly.
        """
        before = torch.atanh(action.clamp(-_EDGE, _EDGE))
        return self.draw((before - self.mean) * torch.exp(-self.log_std))[1]

    def entropy(self) -> Tensor:
        """[...] in nats, at most A · log 2: by Gauss–Hermite quadrature with 64 nodes."""
        nodes, weights = (
            torch.as_tensor(x, dtype=self.mean.dtype, device=self.mean.device)
            for x in (_NODES, _WEIGHTS)
        )
        before = self.mean.unsqueeze(-1) + self.log_std.exp().unsqueeze(-1) * nodes
        slope = (_log_slope(before) * weights).sum(-1) / math.sqrt(2 * math.pi)
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e) + slope).sum(-1)

    def kl(self, other: Distribution) -> Tensor:
        """[...]: KL(self ‖ other) in nats, for another of the same kind: that of the normals, the tanh being one to one."""
        assert isinstance(other, SquashedGaussian)
        return Gaussian(self.mean, self.log_std).kl(Gaussian(other.mean, other.log_std))


Primitive = Categorical | Gaussian | SquashedGaussian


@tree
class Pair:
    """An option, and an action given that option: what a policy with options draws at every step."""

    option: Categorical  # [..., L] given the option that ran before
    action: Primitive  # [..., A] given the option that was drawn

    def log_prob(self, action: Any) -> Tensor:
        """[...] of an option [...] and the action that was drawn with it: a pair."""
        option, action = action
        return self.option.log_prob(option) + self.action.log_prob(action)

    def entropy(self) -> Tensor:
        """[...] in nats: exact in expectation over the option that was drawn."""
        return self.option.entropy() + self.action.entropy()

    def kl(self, other: Distribution) -> Tensor:
        """[...]: KL(self ‖ other) in nats by the chain rule: exact in expectation over the option that was drawn."""
        assert isinstance(other, Pair)
        return self.option.kl(other.option) + self.action.kl(other.action)


Distribution = Primitive | Pair


def sample_by_inversion(share: Tensor, probs: Tensor) -> Tensor:
    """[...] int64: which choice is at `share` [..., 1] between 0 and 1 of `probs` [..., A], side by side (inversion)."""
    return (probs.cumsum(-1)[..., :-1] < share).sum(-1)


def from_heads(heads: Params) -> Distribution:
    """The distribution that a policy's heads describe.

    Args:
        heads: ``action`` [..., A], means or logits; where actions are continuous also ``log_std`` [A], or [N, A] for
            one deviation a task, or [..., A], of which those below 1e-6 count as 1e-6; or else ``squashed`` [..., 2 A],
            means and log-deviations before the tanh, the latter held between −20 and 2. Where options are chosen, too,
            their ``option`` [..., L], logits; without any other head, they are all that is chosen.
    """
    if "option" not in heads:
        return _primitive(heads)
    option = Categorical(heads["option"])
    action = {name: value for name, value in heads.items() if name != "option"}
    return Pair(option, _primitive(action)) if action else option


def _primitive(heads: Params) -> Primitive:
    if "squashed" in heads:
        mean, log_std = heads["squashed"].chunk(2, -1)
        return SquashedGaussian(mean, log_std.clamp(*_SQUASHED_LOG_STD))
    if "log_std" not in heads:
        return Categorical(heads["action"])
    mean, log_std = heads["action"], heads["log_std"].clamp(min=_SMALLEST_LOG_STD)
    return Gaussian(mean, log_std.unsqueeze(-2) if 1 < log_std.dim() < mean.dim() else log_std)


def _log_slope(x: Tensor) -> Tensor:
    """[...]: log of the derivative of tanh at x, log(1 − tanh² x), without rounding to −∞."""
    return 2 * (math.log(2) - x - softplus(-2 * x))
