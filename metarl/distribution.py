"""Action distributions: drawn from noise that is passed in, so that chance has an address."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metarl.rng import Streams
from metarl.types import Params, tree

_SMALLEST_LOG_STD = math.log(1e-6)


@tree
class Categorical:
    """One of A choices."""

    logits: Tensor  # [..., A]

    def sample(self, noise: Streams, counter: int) -> Tensor:
        """[N, M] int64, by inversion of the distribution function."""
        cumulative = self.logits.softmax(-1).cumsum(-1)
        return (cumulative[..., :-1] < noise.uniform(counter, 1)).sum(-1)

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


Distribution = Categorical | Gaussian


def from_heads(heads: Params) -> Distribution:
    """The distribution that a policy's heads describe.

    Args:
        heads: ``action`` [..., A], means or logits; where actions are continuous also ``log_std`` [A], or [N, A] for
            one deviation a task. Deviations below 1e-6 count as 1e-6.
    """
    if "log_std" not in heads:
        return Categorical(heads["action"])
    log_std = heads["log_std"].clamp(min=_SMALLEST_LOG_STD)
    return Gaussian(heads["action"], log_std.unsqueeze(-2) if log_std.dim() > 1 else log_std)
