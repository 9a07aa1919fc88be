"""The posterior over a latent task variable of Z entries: a product of Gaussian factors.

Normal densities are held by their natural parameters, precision 1/σ² and shift μ/σ², which add up
in a product.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.core.types import tree


@tree
class Factors:
    """F normal factors; one of precision and shift 0 says nothing."""

    precision: Tensor  # [..., F, Z] 1/σₙ²
    shift: Tensor  # [..., F, Z] μₙ/σₙ²

    @staticmethod
    def normal(mean: Tensor, variance: Tensor) -> Factors:
        """Those of means and variances [..., F, Z]."""
        precision = 1 / variance
        return Factors(precision, mean * precision)


@tree
class Posterior:
    """A product of normal factors N(μₙ, σₙ²); the standard normal before there are any.

    q(z) ∝ Πₙ N(z; μₙ, σₙ²) = N(Σ μₙ/σₙ² / Σ 1/σₙ², 1 / Σ 1/σₙ²) (Rakelly et al. 2019,
    arXiv:1903.08254, section 4.2).
    """

    precision: Tensor  # [..., Z] Σ 1/σₙ²
    shift: Tensor  # [..., Z] Σ μₙ/σₙ²

    @staticmethod
    def prior(*axes: int, device: torch.device, precision: float = 0.0) -> Posterior:
        """No factors yet; `axes` end with Z.

        `precision`: of the prior as a factor of mean 0. With 1 the posterior is Bayes' rule for
        the prior N(0, I); with 0 the prior is no factor: it stands only where there is none.
        """
        zero = torch.zeros(axes, device=device)
        return Posterior(zero + precision, zero)

    @staticmethod
    def normal(mean: Tensor, variance: Tensor) -> Posterior:
        """N(mean, variance) of [..., Z]."""
        precision = 1 / variance
        return Posterior(precision, mean * precision)

    def update(self, factors: Factors, valid: Tensor | None = None) -> Posterior:
        """The posterior after the `valid` [..., F] ones of F factors."""
        precision, shift = factors.precision, factors.shift
        if valid is not None:
            valid = valid.unsqueeze(-1)
            precision = torch.where(valid, precision, 0.0)
            shift = torch.where(valid, shift, 0.0)
        return Posterior(self.precision + precision.sum(-2), self.shift + shift.sum(-2))

    @property
    def variance(self) -> Tensor:
        """[..., Z]."""
        return 1 / torch.where(self.precision > 0, self.precision, 1.0)

    @property
    def mean(self) -> Tensor:
        """[..., Z]."""
        return self.shift * self.variance

    @property
    def std(self) -> Tensor:
        """[..., Z]."""
        return self.variance.sqrt()

    def draw(self, normal: Tensor) -> Tensor:
        """z [..., Z] made of standard normal numbers [..., Z], reparameterized."""
        return self.mean + self.std * normal

    def kl(self) -> Tensor:
        """[...]: KL(q ‖ N(0, I)) in nats, summed over the entries of z."""
        return 0.5 * (self.variance + self.mean.square() - 1 - self.variance.log()).sum(-1)

    def kl_to(self, other: Posterior) -> Tensor:
        """[...]: KL(q ‖ other) in nats, summed over the entries of z."""
        ratio = self.variance / other.variance
        distance = (self.mean - other.mean).square() / other.variance
        return 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)
