"""What is believed of a latent task variable: normal, one variable for each of Z entries, a product of what was seen."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.core.types import tree


@tree
class Posterior:
    """A product of normal factors, N(μₙ, σₙ²) each, in any order; the standard normal before there are any.

    q(z) ∝ Πₙ N(z; μₙ, σₙ²) = N(Σ μₙ/σₙ² / Σ 1/σₙ², 1 / Σ 1/σₙ²) (Rakelly et al. 2019, arXiv:1903.08254, section 4.2). The
    prior is no factor of it: it stands only where nothing was seen.
    """

    precision: Tensor  # [..., Z] Σ 1/σₙ²
    shift: Tensor  # [..., Z] Σ μₙ/σₙ²

    @staticmethod
    def prior(*axes: int, device: torch.device) -> Posterior:
        """Nothing seen."""
        return Posterior(torch.zeros(axes, device=device), torch.zeros(axes, device=device))

    def seen(self, factors: Tensor, valid: Tensor | None = None) -> Posterior:
        """With more factors [..., F, 2, Z], means and variances; if given, only those that are `valid` [..., F]."""
        mean, variance = factors.unbind(-2)
        precision = 1 / variance
        if valid is not None:
            mean, precision = (torch.where(valid.unsqueeze(-1), x, 0.0) for x in (mean, precision))
        return Posterior(
            self.precision + precision.sum(-2), self.shift + (mean * precision).sum(-2)
        )

    @property
    def variance(self) -> Tensor:
        """[..., Z]."""
        return 1 / torch.where(self.precision > 0, self.precision, 1.0)

    @property
    def mean(self) -> Tensor:
        """[..., Z]."""
        return self.shift * self.variance

    def draw(self, normal: Tensor) -> Tensor:
        """[..., Z] made of standard normal numbers [..., Z], to be differentiated."""
        return self.mean + self.variance.sqrt() * normal

    def kl(self) -> Tensor:
        """[...]: KL(q ‖ N(0, I)) in nats, summed over the entries of z."""
        return 0.5 * (self.variance + self.mean.square() - 1 - self.variance.log()).sum(-1)
