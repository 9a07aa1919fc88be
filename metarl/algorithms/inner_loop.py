"""Adapting a policy by gradient steps on each task, and differentiating through them.

A chain of steps leads from the meta-parameters θ to every task's own parameters (Finn et al. 2017,
arXiv:1703.03400, equation 1), each on episodes of the policy before it:

    θ⁰ᵢ = θ,   θᵏ⁺¹ᵢ = θᵏᵢ − α ⊙ gᵢ(θᵏᵢ),   gᵢ = ∇ Lᵢ

Its derivatives need only the Hessians Hᵢ of the inner losses, which are symmetric: a step's
Jacobian is I − α ⊙ Hᵢ, its transpose I − Hᵢ (α ⊙ ·). All N tasks are computed side by side, each
with its own copy of the parameters [N, …]; only a gradient with respect to θ is summed over tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from metarl.algorithms.losses import clipped_surrogate
from metarl.algorithms.second_order import Linearization, LossDerivatives, linearize
from metarl.core.types import (
    Inputs,
    Params,
    append_axes,
    replace,
    tree,
    tree_map,
)
from metarl.nn.distributions import Distribution, from_heads
from metarl.options.option_policy import AnyPolicy

STEP_SIZE = "step_size."
"""Before a parameter's name: its step size, where it is learned as a part of θ (Meta-SGD)."""


@tree
class Episodes:
    """What a policy-gradient step needs of N tasks' episodes, one per lane."""

    inputs: Inputs  # [T, N, M, …]
    action: Any  # [T, N, M] or [T, N, M, A]; (option, action) if the policy draws both
    log_prob: Tensor  # [T, N, M] of the policy that collected them
    advantage: Tensor  # [T, N, M]
    valid: Tensor  # [T, N, M] bool

    def mean(self, x: Tensor) -> Tensor:
        """[N]: mean of x [T, N, M] over the valid steps of each task."""
        steps = self.valid.sum((0, 2))
        return (x * self.valid).sum((0, 2)) / steps


# -------------------------------------------------------------------------------------------------
# Losses of each task: (its episodes, the action distributions at their steps) → [N]

InnerLoss = Callable[[Episodes, Distribution], Tensor]


def log_likelihood(episodes: Episodes, actions: Distribution) -> Tensor:
    """−mean log π(a|s) A: REINFORCE (Williams 1992), the inner loss of MAML."""
    return -episodes.mean(actions.log_prob(episodes.action) * episodes.advantage)


def likelihood_ratio(episodes: Episodes, actions: Distribution) -> Tensor:
    """−mean ρ A with ρ = π(a|s) / π_old(a|s).

    At π_old it has the gradient of `log_likelihood`; and its Hessian estimates that of the expected
    return, which the one of `log_likelihood` does not (Rothfuss et al. 2019, arXiv:1810.06784,
    section 5).
    """
    return -episodes.mean(_ratio(episodes, actions) * episodes.advantage)


def clipped_ratio(episodes: Episodes, actions: Distribution, clip_range: float) -> Tensor:
    """−mean min(ρ A, clip(ρ, 1 − ε, 1 + ε) A), PPO's."""
    ratio = _ratio(episodes, actions)
    return -episodes.mean(clipped_surrogate(ratio, episodes.advantage, clip_range))


def _ratio(episodes: Episodes, actions: Distribution) -> Tensor:
    """[T, N, M]: ρ, and 1 where a step is not valid."""
    log_ratio = actions.log_prob(episodes.action) - episodes.log_prob
    return torch.where(episodes.valid, log_ratio, 0.0).exp()


# -------------------------------------------------------------------------------------------------
# The chain


@dataclass(frozen=True)
class InnerStep:
    """One step: its episodes, the policy before it on them, and the loss that it descends."""

    episodes: Episodes
    policy: Linearization
    loss: LossDerivatives
    factor: Tensor  # [N] of the step sizes
    rate: Params  # [N, …] factor · α


@dataclass(frozen=True)
class Chain:
    """The steps from θ to every task's own parameters, with their derivatives at θ."""

    policy: AnyPolicy
    inner_loss: InnerLoss
    step_size: Params  # α [...] of every parameter
    params: Params  # [N, …] after the last step
    first_order: bool = False  # treat inner gradients as constants (FOMAML)
    steps: tuple[InnerStep, ...] = ()

    def step(self, episodes: Episodes, factor: Tensor) -> Chain:
        """The chain with one more step, on `episodes`, with step sizes α times `factor` [N]."""
        policy = linearize(self.policy, self.params, episodes.inputs)
        loss = policy.differentiate(lambda heads: self.inner_loss(episodes, from_heads(heads)))
        rate = tree_map(partial(_outer, factor), self.step_size)
        params = tree_map(_descend, self.params, rate, loss.gradient)
        step = InnerStep(episodes, policy, loss, factor, rate)
        return replace(self, params=params, steps=(*self.steps, step))

    def replay_from(self, theta: Params) -> Chain:
        """The same steps, on the same episodes, from other meta-parameters."""
        params: Params = {}
        step_size: Params = {}
        for name, value in self.params.items():
            params[name] = theta[name].expand_as(value)
            step_size[name] = theta.get(STEP_SIZE + name, self.step_size[name])
        chain = replace(self, params=params, step_size=step_size, steps=())
        for step in self.steps:
            chain = chain.step(step.episodes, step.factor)
        return chain

    def jvp(self, tangent: Params) -> Params:
        """[N, …]: the derivative of every task's parameters along `tangent` [...] of θ.

        Without step sizes in `tangent`, these are constant.
        """
        moved = {name: tangent[name].expand_as(value) for name, value in self.params.items()}
        for step in self.steps:
            if not self.first_order:
                moved = tree_map(_descend, moved, step.rate, step.loss.hvp(moved))
            for name, gradient in step.loss.gradient.items():
                if STEP_SIZE + name in tangent:
                    rate = _outer(step.factor, tangent[STEP_SIZE + name])
                    moved[name] = _descend(moved[name], rate, gradient)
        return moved

    def vjp(self, cotangent: Params, along: Sequence[Params] = ()) -> Params:
        """The gradient, with respect to θ and α, of a function of the chain, summed over tasks.

        Args:
            cotangent: [N, …] its gradient with respect to the parameters after the last step.
            along: its gradient with respect to the heads of the policy before each step; none if
                it does not depend on them.
        """
        w = cotangent
        sizes = tree_map(torch.zeros_like, self.step_size)
        for step, heads in zip_longest(reversed(self.steps), reversed(along)):
            for name, gradient in step.loss.gradient.items():
                product = torch.tensordot(step.factor, w[name] * gradient, dims=1)
                sizes[name] = sizes[name] - product
            if not self.first_order:
                turned = step.loss.hvp(tree_map(torch.mul, step.rate, w))
                w = tree_map(torch.sub, w, turned)
            if heads is not None:
                w = tree_map(torch.add, w, step.policy.vjp(heads))

        gradient = {name: value.sum(0) for name, value in w.items()}
        return gradient | {STEP_SIZE + name: size for name, size in sizes.items()}


def _descend(x: Tensor, rate: Tensor, gradient: Tensor) -> Tensor:
    """x − α ⊙ g."""
    return x - rate * gradient


def _outer(factor: Tensor, size: Tensor) -> Tensor:
    """[N], [...] → [N, …]."""
    return append_axes(factor, 1 + size.dim()) * size
