"""The posterior over a latent task variable of Z entries: a product of Gaussian factors."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.core.types import tree


@tree
class Posterior:
    """A product of normal factors N(μₙ, σₙ²); the standard normal before there are any.

    q(z) ∝ Πₙ N(z; μₙ, σₙ²) = N(Σ μₙ/σₙ² / Σ 1/σₙ², 1 / Σ 1/σₙ²) (Rakelly et al. 2019,
    arXiv:1903.08254, section 4.2). The prior is no factor: it stands only where there is none.
    """

    precision: Tensor  # [..., Z] Σ 1/σₙ²
    shift: Tensor  # [..., Z] Σ μₙ/σₙ²

    @staticmethod
    def prior(*axes: int, device: torch.device) -> Posterior:
        """No factors yet; `axes` end with Z."""
        zero = torch.zeros(axes, device=device)
        return Posterior(zero, zero)

    def update(self, factors: Tensor, valid: Tensor | None = None) -> Posterior:
        """The posterior after `valid` [..., F] factors [..., F, 2, Z], means and variances."""
        mean, variance = factors.unbind(-2)
        precision = 1 / variance
        if valid is not None:
            valid = valid.unsqueeze(-1)
            mean = torch.where(valid, mean, 0.0)
            precision = torch.where(valid, precision, 0.0)
        shift = (mean * precision).sum(-2)
        return Posterior(self.precision + precision.sum(-2), self.shift + shift)

    @property
    def variance(self) -> Tensor:
        """[..., Z]."""
        return 1 / torch.where(self.precision > 0, self.precision, 1.0)

    @property
    def mean(self) -> Tensor:
        """[..., Z]."""
        return self.shift * self.variance

    def draw(self, normal: Tensor) -> Tensor:
        """z [..., Z] made of standard normal numbers [..., Z], reparameterized."""
        return self.mean + self.variance.sqrt() * normal

    def kl(self) -> Tensor:
        """[...]: KL(q ‖ N(0, I)) in nats, summed over the entries of z."""
        return 0.5 * (self.variance + self.mean.square() - 1 - self.variance.log()).sum(-1)
