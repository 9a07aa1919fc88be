"""Running mean and spread, to put observations, rewards and value targets on a common scale."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.types import tree

_SMALLEST_STD = 1e-4


@tree
class Moments:
    """Mean and variance of what was seen so far."""

    mean: Tensor  # [W]
    var: Tensor  # [W]
    count: Tensor  # [] float64: how many samples they stand for

    @staticmethod
    def unknown(width: int, device: torch.device) -> Moments:
        """Mean 0, variance 1, nothing seen."""
        ones = torch.ones(width, device=device)
        return Moments(torch.zeros_like(ones), ones, torch.zeros((), dtype=torch.float64, device=device))

    @property
    def std(self) -> Tensor:
        """[W]."""
        return self.var.sqrt().clamp(min=_SMALLEST_STD)

    def update(self, x: Tensor, valid: Tensor, window: float = float("inf")) -> Moments:
        """With x [..., W] where `valid` [...] holds (Chan et al. 1983, equation 2.1).

        What was seen before counts as at most `window` times the new samples, so that moving targets are followed.
        """
        new = x[valid]
        if not len(new):
            return self
        size = torch.tensor(float(len(new)), dtype=torch.float64, device=x.device)
        old = torch.minimum(self.count, size * window) if window < float("inf") else self.count
        share = (size / (old + size)).float()
        gap = new.mean(0) - self.mean
        var = (1 - share) * self.var + share * new.var(0, unbiased=False) + share * (1 - share) * gap.square()
        return Moments(self.mean + share * gap, var, old + size)

    def standardise(self, x: Tensor, limit: float = 10.0) -> Tensor:
        """[..., W] in standard deviations from the mean, at most `limit`."""
        return ((x - self.mean) / self.std).clamp(-limit, limit)

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "var": self.var, "count": self.count}

    @staticmethod
    def from_state_dict(state: dict[str, Tensor], device: torch.device) -> Moments:
        return Moments(**{name: value.to(device) for name, value in state.items()})
