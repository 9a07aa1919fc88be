"""Losses and updates: pure functions that return a loss and what to log of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from metarl.distribution import Categorical, Distribution, Squashed
from metarl.policy import Decision


def masked_mean(x: Tensor, valid: Tensor, axes: tuple[int, ...] = ()) -> Tensor:
    """Mean of x [...] over the steps that were lived through: over all `axes`, or these, which then have length 1."""
    return (x * valid).sum(axes, keepdim=bool(axes)) / valid.sum(axes, keepdim=bool(axes))


def standardised(x: Tensor, valid: Tensor, axes: tuple[int, ...] = ()) -> Tensor:
    """x [...] with mean 0 and standard deviation 1 over the valid steps, along all `axes` or these."""
    mean = masked_mean(x, valid, axes)
    return (x - mean) / (masked_mean((x - mean).square(), valid, axes).sqrt() + 1e-8)


def clipped_gain(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """[...]: min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) (Schulman et al. 2017, arXiv:1707.06347, equation 7)."""
    return (ratio * advantage).minimum(ratio.clamp(1 - clip, 1 + clip) * advantage)


def ppo_loss(
    decision: Decision,
    action: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    value_target: Tensor,
    valid: Tensor,
    *,
    clip: float,
    value_weight: float,
    entropy_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347, equations 7 and 9).

    L = −mean min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) + c_v ½ mean (V − V_target)² − c_e mean entropy,  ρ = π(a|·) / π_old(a|·)

    Args:
        decision: of the current parameters, at every step [...].
        action: [...] int64 or [..., A].
        old_log_prob, advantage, value_target, valid: [...]; targets in the units of `decision.value`.

    Returns:
        The loss [] and its parts, detached.
    """
    log_ratio = decision.actions.log_prob(action) - old_log_prob
    ratio = log_ratio.exp()
    policy_loss = -masked_mean(clipped_gain(ratio, advantage, clip), valid)
    value_loss = 0.5 * masked_mean((decision.value - value_target).square(), valid)
    entropy = masked_mean(decision.actions.entropy(), valid)
    metrics = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "kl": masked_mean(ratio - 1 - log_ratio, valid),  # Schulman's low-variance estimate of KL(old, new)
        "clipped": masked_mean(((ratio - 1).abs() > clip).float(), valid),
    }
    loss = policy_loss + value_weight * value_loss - entropy_weight * entropy
    return loss, {name: value.detach() for name, value in metrics.items()}


def conjugate_gradient(product: Callable[[Tensor], Tensor], target: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """x with A x ≈ target, by at most `iterations` products with the symmetric, positive definite A [D, D].

    Hestenes & Stiefel 1952. Ends early where the residual is 10⁻⁵ of the target's norm.

    Returns:
        x [D] and A x [D], which the recursion knows without another product.
    """
    x, residual = torch.zeros_like(target), target.clone()
    direction, size = residual.clone(), residual.dot(residual)
    smallest = 1e-10 * size
    for _ in range(iterations):
        if size <= smallest:
            break
        image = product(direction)
        step = size / direction.dot(image)
        x, residual = x + step * direction, residual - step * image
        size, before = residual.dot(residual), size
        direction = residual + size / before * direction
    return x, target - residual


def trust_region_step(
    start: Tensor,
    loss: float,
    gradient: Tensor,
    product: Callable[[Tensor], Tensor],
    evaluate: Callable[[Tensor], tuple[float, float]],
    *,
    max_kl: float,
    damping: float = 1e-5,
    iterations: int = 10,
    shrink: float = 0.8,
    tries: int = 15,
) -> tuple[Tensor, dict[str, float]]:
    """Trust region policy optimisation (Schulman et al. 2015, arXiv:1502.05477, appendix C).

    The step −√(2 δ / xᵀF x) x with F x = gradient, shrunk until the loss falls and the divergence is at most δ.

    Args:
        start: [D] parameters.
        loss, gradient: there, the gradient [D].
        product: v [D] ↦ F v, with F the Hessian of the divergence at `start`.
        evaluate: other parameters [D] ↦ loss, mean KL divergence from the policy of `start`.
        max_kl: δ.
        damping: added to F's diagonal.
        iterations: of conjugate gradient.
        shrink, tries: the k-th of the `tries` steps is shrinkᵏ as long as the first.

    Returns:
        The new parameters, `start` itself where no try was accepted, and what to log.
    """
    x, image = conjugate_gradient(lambda v: product(v) + damping * v, gradient, iterations)
    curvature = x.dot(image)
    if not curvature > 0:
        return start, {"accepted": 0.0, "improvement": 0.0, "kl": 0.0, "backtracks": 0.0}
    step = -(2 * max_kl / curvature).sqrt() * x
    for backtracks in range(tries):
        there = start + shrink**backtracks * step
        now, kl = evaluate(there)
        if math.isfinite(now) and now < loss and kl <= max_kl:
            return there, {"accepted": 1.0, "improvement": loss - now, "kl": kl, "backtracks": float(backtracks)}
    return start, {"accepted": 0.0, "improvement": 0.0, "kl": 0.0, "backtracks": float(tries)}


def soft_value(
    actions: Distribution, worth: Callable[[Tensor | None], Tensor], temperature: Tensor, normal: Tensor | None
) -> tuple[Tensor, Tensor]:
    """What a state is worth to a policy that also likes to stay random: V = E_a[Q(s, a) − α log π(a|s)].

    Haarnoja et al. 2018, arXiv:1812.05905, equation 3; for discrete actions the sum over them (Christodoulou 2019,
    arXiv:1910.07207, equation 10). The critics' target is r + γ V(s'), and the policy is improved by ascending on V.

    Args:
        actions: the policy's at the states [...].
        worth: Q of an action [..., A] → [...]; for discrete actions it is asked without one → [..., A], one for each.
        temperature: α [].
        normal: [..., A] standard normal numbers that a continuous action is made of.

    Returns:
        V [...] and the policy's entropy [...], of continuous actions an estimate from this one.
    """
    if isinstance(actions, Categorical):
        entropy = actions.entropy()
        return (actions.logits.softmax(-1) * worth(None)).sum(-1) + temperature * entropy, entropy
    assert isinstance(actions, Squashed)
    assert normal is not None
    action, log_prob = actions.draw(normal)
    return worth(action) - temperature * log_prob, -log_prob
