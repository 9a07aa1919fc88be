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

    precision: Tensor  # [..., F, Z] 1/σₙ²; or a matrix each, [..., F, D, D]
    shift: Tensor  # [..., F, Z] μₙ/σₙ²; or [..., F, D] precision times mean

    @staticmethod
    def normal(mean: Tensor, variance: Tensor) -> Factors:
        """Those of means and variances [..., F, Z]."""
        precision = 1 / variance
        return Factors(precision, mean * precision)

    @staticmethod
    def measured(direction: Tensor, value: Tensor) -> Factors:
        """Those of D numbers w by measurements v = u·w + ε, ε ~ N(0, 1): u uᵀ and u v.

        `direction` u is [..., F, D], and `value` v [..., F]; a u of 0 says nothing.
        """
        precision = direction.unsqueeze(-1) * direction.unsqueeze(-2)
        return Factors(precision, direction * value.unsqueeze(-1))


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


@tree
class JointPosterior:
    """A product of normal factors of D numbers w that depend on each other, and the prior N(0, I).

    Of measurements along any directions that is Bayesian linear regression (Bishop 2006, equations
    3.50 and 3.51; of learned features: ALPaCA, Harrison et al. 2018, arXiv:1807.08912). It can tell
    where lines meet, which a product of factors of single entries cannot.
    """

    precision: Tensor  # [..., D, D] C⁻¹ = I + Σ u uᵀ
    shift: Tensor  # [..., D] C⁻¹ m = Σ u v

    @staticmethod
    def prior(*axes: int, device: torch.device) -> JointPosterior:
        """N(0, I); `axes` end with D."""
        identity = torch.eye(axes[-1], device=device).expand(*axes, -1)
        return JointPosterior(identity, torch.zeros(axes, device=device))

    def update(self, factors: Factors, valid: Tensor | None = None) -> JointPosterior:
        """The posterior after the `valid` [..., F] ones of F factors of precisions [D, D]."""
        precision, shift = factors.precision, factors.shift
        if valid is not None:
            valid = valid.unsqueeze(-1)
            precision = torch.where(valid.unsqueeze(-1), precision, 0.0)
            shift = torch.where(valid, shift, 0.0)
        return JointPosterior(self.precision + precision.sum(-3), self.shift + shift.sum(-2))

    def moments(self) -> tuple[Tensor, Tensor]:
        """m [..., D] and C [..., D, D]."""
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(self.precision))
        return (covariance @ self.shift.unsqueeze(-1)).squeeze(-1), covariance
