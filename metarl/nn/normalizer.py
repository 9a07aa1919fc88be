"""Running mean and spread, to put observations, rewards and value targets on a common scale."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.core.types import tree, tree_map

_SMALLEST_STD = 1e-4
_LARGEST_CONSTANT = 10.0


@tree
class Normalizer:
    """Mean and variance of each of W columns, as far as they were seen."""

    mean: Tensor  # [W]
    var: Tensor  # [W]
    count: Tensor  # [W] float64: how many samples they stand for

    @staticmethod
    def initial(width: int, device: torch.device) -> Normalizer:
        """Mean 0, variance 1, nothing seen."""
        ones = torch.ones(width, device=device)
        return Normalizer(
            torch.zeros_like(ones), ones, torch.zeros(width, dtype=torch.float64, device=device)
        )

    def columns(self, width: int) -> Normalizer:
        """The first `width` columns, unknown where there are fewer."""
        more = Normalizer.initial(max(0, width - len(self.mean)), self.mean.device)
        return tree_map(lambda own, new: torch.cat([own[:width], new]), self, more)

    @property
    def std(self) -> Tensor:
        """[W]."""
        return self.var.sqrt().clamp(min=_SMALLEST_STD)

    @property
    def scale(self) -> Tensor:
        """[W]: what to divide by where zero must stay zero: the deviation, but at least a tenth of the mean's size.

        A quantity that (almost) never changes, such as a reward of 1 a step, then becomes at most 10.
        """
        return torch.maximum(self.std, self.mean.abs() / _LARGEST_CONSTANT)

    def update(self, x: Tensor, valid: Tensor, window: float = float("inf")) -> Normalizer:
        """With samples x [..., W] where `valid` [..., W] or [..., 1] holds (Chan et al. 1983, equation 2.1).

        What was seen before counts as at most `window` times the new samples, so that moving targets are followed.
        """
        x = x.reshape(-1, x.shape[-1])
        weight = valid.reshape(-1, valid.shape[-1]).expand_as(x).to(x.dtype)
        size = weight.sum(0)
        new_mean = (x * weight).sum(0) / size.clamp(min=1)
        new_var = ((x - new_mean).square() * weight).sum(0) / size.clamp(min=1)
        old = torch.minimum(self.count, size * window) if window < float("inf") else self.count
        share = (size / (old + size).clamp(min=1)).float()
        gap = new_mean - self.mean
        var = (1 - share) * self.var + share * new_var + share * (1 - share) * gap.square()
        return Normalizer(
            self.mean + share * gap, var, torch.where(size > 0, old + size, self.count)
        )

    def normalize(self, x: Tensor, limit: float = 10.0) -> Tensor:
        """x [..., W] in standard deviations from the mean, at most `limit`."""
        return ((x - self.mean) / self.std).clamp(-limit, limit)

    def denormalize(self, x: Tensor) -> Tensor:
        """The inverse of `normalize` within its limit."""
        return x * self.std + self.mean

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "var": self.var, "count": self.count}

    @staticmethod
    def from_state_dict(state: dict[str, Tensor], device: torch.device) -> Normalizer:
        return Normalizer(**{name: value.to(device) for name, value in state.items()})
