"""Adapting a policy by gradient steps on each task, and differentiating through them.

A chain of steps leads from the meta-parameters θ to every task's own parameters (Finn et al. 2017, arXiv:1703.03400,
equation 1), each on the episodes that the policy before it lived through:

    θ⁰ᵢ = θ,   θᵏ⁺¹ᵢ = θᵏᵢ − α ⊙ gᵢ(θᵏᵢ),   gᵢ = ∇ Lᵢ

Its derivatives need nothing but the Hessians Hᵢ of the inner losses, which are symmetric: a step's Jacobian is
I − α ⊙ Hᵢ, its transpose I − Hᵢ (α ⊙ ·). Everything is computed for N tasks side by side, each with its own copy of the
parameters [N, …]; nothing is summed over tasks but where a gradient arrives at θ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from metarl.algorithms.losses import clipped_surrogate
from metarl.algorithms.second_order import Linearization, LossDerivatives, linearize
from metarl.core.types import Inputs, Params, replace, tree, tree_map
from metarl.nn.distributions import Distribution, from_heads
from metarl.options.option_policy import AnyPolicy

STEP_SIZE = "step_size."
"""Before a parameter's name: its step size, where it is learned as a part of θ (Meta-SGD)."""


@tree
class Episodes:
    """What a policy-gradient step needs of N tasks' episodes, one a lane."""

    inputs: Inputs  # [T, N, M, …]
    action: (
        Any  # [T, N, M] or [T, N, M, A]; a pair of option and action where the policy draws both
    )
    log_prob: Tensor  # [T, N, M] of the policy that lived through them
    advantage: Tensor  # [T, N, M]
    valid: Tensor  # [T, N, M] bool

    def mean(self, x: Tensor) -> Tensor:
        """[N]: mean of x [T, N, M] over the steps that the task's lanes lived through."""
        total: Tensor = (x * self.valid).sum((0, 2)) / self.valid.sum((0, 2))
        return total


# ---------------------------------------------------------------------------------------------------------------------
# Losses of each task: (its episodes, a policy's decisions on them) → [N]

InnerLoss = Callable[[Episodes, Distribution], Tensor]


def log_likelihood(episodes: Episodes, actions: Distribution) -> Tensor:
    """−mean log π(a|s) A: REINFORCE (Williams 1992), the inner loss of MAML."""
    return -episodes.mean(actions.log_prob(episodes.action) * episodes.advantage)


def likelihood_ratio(episodes: Episodes, actions: Distribution) -> Tensor:
    """−mean ρ A with ρ = π(a|s) / π_old(a|s).

    Its gradient at π_old is that of `log_likelihood`; its Hessian is an estimate of the expected return's, which that of
    `log_likelihood` is not (Rothfuss et al. 2019, arXiv:1810.06784, section 5).
    """
    return -episodes.mean(_ratio(episodes, actions) * episodes.advantage)


def clipped_ratio(episodes: Episodes, actions: Distribution, clip_range: float) -> Tensor:
    """−mean min(ρ A, clip(ρ, 1 − ε, 1 + ε) A), PPO's."""
    return -episodes.mean(
        clipped_surrogate(_ratio(episodes, actions), episodes.advantage, clip_range)
    )


def _ratio(episodes: Episodes, actions: Distribution) -> Tensor:
    """[T, N, M]: 1 where nothing was lived through."""
    return torch.where(
        episodes.valid, actions.log_prob(episodes.action) - episodes.log_prob, 0.0
    ).exp()


# ---------------------------------------------------------------------------------------------------------------------
# The chain


@dataclass(frozen=True)
class InnerStep:
    """One step: the episodes that it is taken on, the policy before it on them, and the loss that it descends."""

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
    first_order: bool = False  # whether gradients are differentiated as if they were constants
    steps: tuple[InnerStep, ...] = ()

    def step(self, episodes: Episodes, factor: Tensor) -> Chain:
        """The chain with one more step, on `episodes`, α times `factor` [N] wide."""
        policy = linearize(self.policy, self.params, episodes.inputs)
        loss = policy.differentiate(lambda heads: self.inner_loss(episodes, from_heads(heads)))
        step = InnerStep(
            episodes,
            policy,
            loss,
            factor,
            {name: _outer(factor, size) for name, size in self.step_size.items()},
        )
        params = tree_map(torch.sub, self.params, tree_map(torch.mul, step.rate, loss.gradient))
        return replace(self, params=params, steps=(*self.steps, step))

    def again(self, theta: Params) -> Chain:
        """The same steps from other meta-parameters."""
        params = {name: theta[name].expand_as(value) for name, value in self.params.items()}
        step_size = {
            name: theta.get(STEP_SIZE + name, size) for name, size in self.step_size.items()
        }
        chain = replace(self, params=params, step_size=step_size, steps=())
        for step in self.steps:
            chain = chain.step(step.episodes, step.factor)
        return chain

    def jvp(self, tangent: Params) -> Params:
        """[N, …]: how every task's parameters move when θ moves along `tangent` [...], step sizes among it or not."""
        moved = {name: tangent[name].expand_as(value) for name, value in self.params.items()}
        for step in self.steps:
            if not self.first_order:
                moved = tree_map(
                    torch.sub, moved, tree_map(torch.mul, step.rate, step.loss.hvp(moved))
                )
            for name in moved:
                if STEP_SIZE + name in tangent:
                    change = (
                        _outer(step.factor, tangent[STEP_SIZE + name]) * step.loss.gradient[name]
                    )
                    moved = moved | {name: moved[name] - change}
        return moved

    def vjp(self, cotangent: Params, along: Sequence[Params] = ()) -> Params:
        """The gradient, with respect to θ and α, of a function of what the chain leads to, summed over tasks.

        Args:
            cotangent: [N, …] the function's gradient with respect to the parameters after the last step.
            along: its gradient with respect to the heads of the policy before each step, where it depends on them.
        """
        w, sizes = cotangent, tree_map(torch.zeros_like, self.step_size)
        for step, heads in reversed(list(zip_longest(self.steps, along))):
            products = tree_map(torch.mul, w, step.loss.gradient)
            sizes = tree_map(
                lambda size, p, f=step.factor: size - torch.tensordot(f, p, dims=1), sizes, products
            )
            if not self.first_order:
                w = tree_map(torch.sub, w, step.loss.hvp(tree_map(torch.mul, step.rate, w)))
            if heads is not None:
                w = tree_map(torch.add, w, step.policy.vjp(heads))
        return {name: value.sum(0) for name, value in w.items()} | {
            STEP_SIZE + n: size for n, size in sizes.items()
        }


def _outer(factor: Tensor, size: Tensor) -> Tensor:
    """[N], [...] → [N, …]."""
    return factor.view(-1, *(1,) * size.dim()) * size
