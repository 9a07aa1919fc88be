"""Trust-region steps: conjugate gradient and a backtracking line search."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""v [D] → A v [D], for a symmetric, positive definite A [D, D]."""


def conjugate_gradient(
    product: Product,
    target: Tensor,
    iterations: int,
) -> tuple[Tensor, Tensor]:
    """x with A x ≈ target, by at most `iterations` products (Hestenes & Stiefel 1952).

    Ends early where the residual is 10⁻⁵ of the target's norm.

    Returns:
        x [D] and A x [D], which the recursion knows without another product.
    """
    x = torch.zeros_like(target)
    residual = target.clone()
    direction = residual.clone()
    size = residual.dot(residual)
    smallest = 1e-10 * size
    for _ in range(iterations):
        if size <= smallest:
            break
        image = product(direction)
        step = size / direction.dot(image)
        x = x + step * direction
        residual = residual - step * image
        before = size
        size = residual.dot(residual)
        direction = residual + size / before * direction
    return x, target - residual


def trust_region_step(
    start: Tensor,
    loss: float,
    gradient: Tensor,
    product: Product,
    evaluate: Callable[[Tensor], tuple[float, float]],
    *,
    max_kl: float,
    damping: float = 1e-5,
    iterations: int = 10,
    shrink: float = 0.8,
    tries: int = 15,
) -> tuple[Tensor, dict[str, float]]:
    """Trust region policy optimization (Schulman et al. 2015, arXiv:1502.05477, appendix C).

    The step −√(2 δ / xᵀF x) x with F x = gradient, shrunk until the loss falls and KL ≤ δ.

    Args:
        start: [D] parameters.
        loss, gradient: there, the gradient [D].
        product: v [D] → F v, with F the Hessian of the KL divergence at `start`.
        evaluate: other parameters [D] → loss, mean KL divergence from the policy of `start`.
        max_kl: δ.
        damping: added to F's diagonal.
        iterations: of conjugate gradient.
        shrink, tries: the k-th of the `tries` steps is shrinkᵏ as long as the first.

    Returns:
        The new parameters, `start` itself where no step was accepted, and what to log.
    """
    metrics = {
        "accepted": 0.0,
        "improvement": 0.0,
        "kl": 0.0,
        "line_search_steps": 0.0,
    }
    x, image = conjugate_gradient(lambda v: product(v) + damping * v, gradient, iterations)
    curvature = x.dot(image)
    if not curvature > 0:
        return start, metrics

    step = -(2 * max_kl / curvature).sqrt() * x
    for k in range(tries):
        theta = start + shrink**k * step
        new_loss, kl = evaluate(theta)
        metrics["line_search_steps"] = float(k)
        if math.isfinite(new_loss) and new_loss < loss and kl <= max_kl:
            metrics |= {"accepted": 1.0, "improvement": loss - new_loss, "kl": kl}
            return theta, metrics
    metrics["line_search_steps"] = float(tries)
    return start, metrics
