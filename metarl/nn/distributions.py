"""Action distributions, sampled from addressed noise: an action is a function of its place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from metarl.core.rng import Streams
from metarl.core.types import Params, tree

_SMALLEST_LOG_STD = math.log(1e-6)
_SQUASHED_LOG_STD = (-20.0, 2.0)
_SAMPLES = 64
NEVER = -1e9
"""log 0, but finite, so that 0 · log 0 is 0."""
_EDGE = 1 - 2**-24  # the largest float32 below 1
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_NORMAL_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)


@tree
class Categorical:
    """One of A choices."""

    logits: Tensor  # [..., A]

    @property
    def log_probs(self) -> Tensor:
        """[..., A]."""
        return self.logits.log_softmax(-1)

    def sample(self, noise: Streams, counter: int) -> Tensor:
        """[N, M] int64."""
        return sample_by_inversion(noise.uniform(counter, 1), self.logits.softmax(-1))

    def mode(self) -> Tensor:
        """[...] int64: the most likely choice."""
        return self.logits.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...]: log-probability of action [...] int64."""
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """[...] in nats."""
        log_probs = self.log_probs
        return -(log_probs.exp() * log_probs).sum(-1)

    def kl(self, other: Distribution) -> Tensor:
        """[...]: KL(self ‖ other) in nats, for another of the same kind."""
        assert isinstance(other, Categorical)
        log_probs = self.log_probs
        return (log_probs.exp() * (log_probs - other.log_probs)).sum(-1)


@tree
class MultiCategorical:
    """Independent choices: a MultiDiscrete action."""

    choices: tuple[Categorical, ...]

    def sample(self, noise: Streams, counter: int) -> Tensor:
        """[N, M, D] int64."""
        uniform = noise.uniform(counter, len(self.choices)).split(1, dim=-1)
        each = zip(uniform, self.choices, strict=True)
        return torch.stack([sample_by_inversion(u, x.logits.softmax(-1)) for u, x in each], dim=-1)

    def mode(self) -> Tensor:
        """[..., D] int64: the most likely choices."""
        return torch.stack([choice.mode() for choice in self.choices], dim=-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...]: log-probability of action [..., D] int64."""
        each = zip(self.choices, action.unbind(-1), strict=True)
        return torch.stack([choice.log_prob(one) for choice, one in each]).sum(0)

    def entropy(self) -> Tensor:
        """[...] in nats."""
        return torch.stack([choice.entropy() for choice in self.choices]).sum(0)

    def kl(self, other: Distribution) -> Tensor:
        """[...]: KL(self ‖ other) in nats, for another of the same kind."""
        assert isinstance(other, MultiCategorical)
        each = zip(self.choices, other.choices, strict=True)
        return torch.stack([one.kl(another) for one, another in each]).sum(0)


@tree
class Gaussian:
    """Independent normals; families clip what falls outside [−1, 1]."""

    mean: Tensor  # [..., A]
    log_std: Tensor  # [..., A], broadcast against the mean

    def sample(self, noise: Streams, counter: int) -> Tensor:
        """[N, M, A] float32."""
        normal = noise.normal(counter, self.mean.shape[-1])
        return self.mean + self.log_std.exp() * normal

    def mode(self) -> Tensor:
        """[..., A]: the mean."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """[...]: log-density of action [..., A], summed over its entries."""
        z = (action - self.mean) * torch.exp(-self.log_std)
        return -(0.5 * z.square() + self.log_std + _HALF_LOG_2PI).sum(-1)

    def entropy(self) -> Tensor:
        """[...] in nats."""
        per_entry = self.log_std + _NORMAL_ENTROPY
        return per_entry.expand_as(self.mean).sum(-1)

    def kl(self, other: Distribution) -> Tensor:
        """[...]: KL(self ‖ other) in nats, for another of the same kind."""
        assert isinstance(other, Gaussian)
        log_ratio = self.log_std - other.log_std
        gap = (self.mean - other.mean) * torch.exp(-other.log_std)
        per_entry = 0.5 * ((2 * log_ratio).exp() + gap.square() - 1) - log_ratio
        return per_entry.sum(-1)


def repeatable_normal(like: Tensor) -> Tensor:
    """[64, Z]: always the same standard normal numbers, to average over `like` [..., Z]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(_SAMPLES, like.shape[-1], generator=generator).to(like)


@tree
class SquashedGaussian:
    """tanh of independent normals (Haarnoja et al. 2018, arXiv:1812.05905, appendix C)."""

    mean: Tensor  # [..., A] before the tanh, as is the deviation
    log_std: Tensor  # [..., A]

    def draw(self, normal: Tensor) -> tuple[Tensor, Tensor]:
        """An action [..., A] made of standard normal numbers [..., A], and its log-density [...].

        Both are reparameterized; the density is exact even where the tanh rounds to ±1.
        """
        before = self.mean + self.log_std.exp() * normal
        density = -(0.5 * normal.square() + self.log_std + _HALF_LOG_2PI)
        return torch.tanh(before), (density - _log_tanh_slope(before)).sum(-1)

    def sample(self, noise: Streams, counter: int) -> Tensor:
        """[N, M, A] float32."""
        return torch.tanh(Gaussian(self.mean, self.log_std).sample(noise, counter))

    def mode(self) -> Tensor:
        """[..., A]: the tanh of the mean, which is the median."""
        return torch.tanh(self.mean)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...]: log-density of action [..., A], summed over its entries; ±1 is moved just inside.

        As inexact as the tanh's inverse close to ±1; that of `draw` is exact.
        """
        before = torch.atanh(action.clamp(-_EDGE, _EDGE))
        normal = (before - self.mean) * torch.exp(-self.log_std)
        _, log_prob = self.draw(normal)
        return log_prob


Primitive = Categorical | MultiCategorical | Gaussian


@tree
class Pair:
    """An option and an action given that option: what a policy with options draws at every step."""

    option: Categorical  # [..., L] given the previous option
    action: Primitive  # [..., A] given the option that was drawn

    def log_prob(self, action: tuple[Tensor, Tensor]) -> Tensor:
        """[...] of a pair: an option [...] and the action that was drawn with it."""
        option, primitive = action
        return self.option.log_prob(option) + self.action.log_prob(primitive)

    def entropy(self) -> Tensor:
        """[...] in nats: exact in expectation over the option that was drawn."""
        return self.option.entropy() + self.action.entropy()

    def kl(self, other: Distribution) -> Tensor:
        """[...]: KL(self ‖ other) in nats by the chain rule: exact in expectation over options."""
        assert isinstance(other, Pair)
        return self.option.kl(other.option) + self.action.kl(other.action)


Comparable = Primitive | Pair
"""Those with an entropy and a KL divergence."""

Distribution = Comparable | SquashedGaussian


def sample_by_inversion(uniform: Tensor, probs: Tensor) -> Tensor:
    """[...] int64: the choice at `uniform` [..., 1] in (0, 1) of the cumulated `probs` [..., A]."""
    bounds = probs.cumsum(-1)[..., :-1]
    return (bounds < uniform).sum(-1)


def from_heads(heads: Params) -> Comparable:
    """The distribution that a policy's heads describe.

    Args:
        heads: ``action`` [..., A]: logits; or means, with ``log_std`` [A], [N, A] (one deviation
            per task) or [..., A], clamped to at least log 1e-6. For MultiDiscrete actions
            ``action.0``, ``action.1``, …: logits of each choice. With options, also their logits
            ``option`` [..., L]; as the only head, they are all that is drawn.
    """
    if "option" not in heads:
        return _primitive(heads)
    option = Categorical(heads["option"])
    return option if len(heads) == 1 else Pair(option, _primitive(heads))


def _primitive(heads: Params) -> Primitive:
    """The distribution of actions."""
    if "action.0" in heads:
        logits = [heads[name] for name in heads if name.startswith("action.")]
        return MultiCategorical(tuple(map(Categorical, logits)))
    if "log_std" not in heads:
        return Categorical(heads["action"])
    mean = heads["action"]
    log_std = heads["log_std"].clamp(min=_SMALLEST_LOG_STD)
    if 1 < log_std.dim() < mean.dim():
        log_std = log_std.unsqueeze(-2)  # [N, A] → [N, 1, A]
    return Gaussian(mean, log_std)


def choice_heads(logits: Tensor, nvec: Sequence[int], valid: Tensor | None) -> Params:
    """Heads of choices with the `logits` [..., A]; those that are not `valid` [..., A] bool never
    happen (Huang & Ontañón 2022, arXiv:2006.14171)."""
    if valid is not None:
        logits = logits.masked_fill(~valid, NEVER)
    if not nvec:
        return {"action": logits}
    return {f"action.{i}": part for i, part in enumerate(logits.split(list(nvec), dim=-1))}


def from_squashed_head(head: Tensor) -> SquashedGaussian:
    """From means and log-deviations [..., 2 A] before the tanh, the latter clamped to [−20, 2]."""
    mean, log_std = head.chunk(2, -1)
    return SquashedGaussian(mean, log_std.clamp(*_SQUASHED_LOG_STD))


def _log_tanh_slope(x: Tensor) -> Tensor:
    """[...]: log of the derivative of tanh at x, log(1 − tanh² x), without rounding to −∞."""
    return 2 * (math.log(2) - x - softplus(-2 * x))
