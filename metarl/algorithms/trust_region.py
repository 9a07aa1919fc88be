"""Trust-region steps: conjugate gradient and a line search."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], target: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
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
        return start, {"accepted": 0.0, "improvement": 0.0, "kl": 0.0, "line_search_steps": 0.0}
    step = -(2 * max_kl / curvature).sqrt() * x
    for line_search_steps in range(tries):
        there = start + shrink**line_search_steps * step
        now, kl = evaluate(there)
        if math.isfinite(now) and now < loss and kl <= max_kl:
            return there, {
                "accepted": 1.0,
                "improvement": loss - now,
                "kl": kl,
                "line_search_steps": float(line_search_steps),
            }
    return start, {
        "accepted": 0.0,
        "improvement": 0.0,
        "kl": 0.0,
        "line_search_steps": float(tries),
    }
