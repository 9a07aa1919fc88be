"""Running mean and variance, to put observations, rewards and value targets on a common scale."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metarl.core.errors import ConfigError
from metarl.core.rollout import Rollout
from metarl.core.types import Inputs, Spec, replace, tree, tree_map

_SMALLEST_STD = 1e-4
_LARGEST_CONSTANT = 10.0


@tree
class Normalizer:
    """Mean and variance of each of W columns, over the samples so far."""

    mean: Tensor  # [W]
    var: Tensor  # [W]
    count: Tensor  # [W] float64: how many samples they stand for

    @staticmethod
    def initial(width: int, device: torch.device) -> Normalizer:
        """Mean 0, variance 1, no samples."""
        count = torch.zeros(width, dtype=torch.float64, device=device)
        ones = torch.ones(width, device=device)
        return Normalizer(torch.zeros_like(ones), ones, count)

    def columns(self, width: int) -> Normalizer:
        """The first `width` columns, without samples where there are fewer."""
        missing = max(0, width - len(self.mean))
        more = Normalizer.initial(missing, self.mean.device)
        return tree_map(lambda own, new: torch.cat([own[:width], new]), self, more)

    @property
    def std(self) -> Tensor:
        """[W]."""
        return self.var.sqrt().clamp(min=_SMALLEST_STD)

    @property
    def scale(self) -> Tensor:
        """[W]: a divisor that keeps zero at zero: the deviation, but at least |mean| / 10.

        A quantity that (almost) never changes, such as a reward of 1 per step, becomes at most 10.
        """
        return torch.maximum(self.std, self.mean.abs() / _LARGEST_CONSTANT)

    def update(
        self,
        x: Tensor,
        valid: Tensor,
        window: float = torch.inf,
    ) -> Normalizer:
        """Statistics that include the `valid` [..., W or 1] samples x [..., W].

        Chan et al. 1983, equation 2.1.

        Earlier samples count as at most `window` times the new ones, to follow moving targets.
        """
        x = x.reshape(-1, x.shape[-1])
        valid = valid.reshape(-1, valid.shape[-1])
        weight = valid.expand_as(x).to(x.dtype)
        size = weight.sum(0)
        divisor = size.clamp(min=1)
        new_mean = (x * weight).sum(0) / divisor
        new_var = ((x - new_mean).square() * weight).sum(0) / divisor

        old = self.count
        if window < torch.inf:
            old = torch.minimum(old, size * window)
        share = (size / (old + size).clamp(min=1)).float()
        gap = new_mean - self.mean
        between = share * (1 - share) * gap.square()
        mean = self.mean + share * gap
        var = (1 - share) * self.var + share * new_var + between
        count = torch.where(size > 0, old + size, self.count)
        return Normalizer(mean, var, count)

    def normalize(self, x: Tensor, limit: float = 10.0) -> Tensor:
        """x [..., W] in standard deviations from the mean, clipped to ±`limit`."""
        return ((x - self.mean) / self.std).clamp(-limit, limit)

    def denormalize(self, x: Tensor) -> Tensor:
        """The inverse of `normalize` within its limit."""
        return x * self.std + self.mean

    def state_dict(self) -> dict[str, Tensor]:
        """Mean, variance and count."""
        return dict(vars(self))

    @staticmethod
    def from_state_dict(state: dict[str, Tensor], device: torch.device) -> Normalizer:
        """The inverse of `state_dict`.

        Raises:
            ConfigError: moments of unequal length, or that none can have.
        """
        mean, var, count = state["mean"], state["var"], state["count"]
        if not mean.shape == var.shape == count.shape or (var < 0).any() or (count < 0).any():
            raise ConfigError("moments: mean, var and count do not belong together")
        return tree_map(lambda x: x.to(device), Normalizer(mean, var, count))


class InputNormalizer:
    """Scales a policy's inputs by running statistics of observations and rewards."""

    def __init__(self, spec: Spec, device: torch.device, *, obs: bool, reward: bool):
        """Whether to scale the observations, and the reward in the cue."""
        self._scales_obs = obs
        self._scales_reward = reward
        self._action_width = spec.action_width
        self.obs = Normalizer.initial(spec.obs_width, device)
        self.reward = Normalizer.initial(1, device)

    def normalize(self, inputs: Inputs) -> Inputs:
        """The inputs [..., W] by the present statistics."""
        if self._scales_obs:
            inputs = replace(inputs, obs=self.obs.normalize(inputs.obs))
        if self._scales_reward and inputs.cue is not None:
            action, reward, done = inputs.cue.split([self._action_width, 1, 1], dim=-1)
            reward = reward / self.reward.scale
            inputs = replace(inputs, cue=torch.cat([action, reward, done], dim=-1))
        return inputs

    def update(self, rollout: Rollout) -> None:
        """Take the steps of `rollout` into account."""
        valid = rollout.valid.unsqueeze(-1)
        if self._scales_obs:
            self.obs = self.obs.update(rollout.inputs.obs, valid)
        if self._scales_reward:
            self.reward = self.reward.update(rollout.reward.unsqueeze(-1), valid)

    def state_dict(self) -> dict[str, Any]:
        """Both statistics."""
        return {"obs": self.obs.state_dict(), "reward": self.reward.state_dict()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """The inverse of `state_dict`."""
        self.obs = Normalizer.from_state_dict(state["obs"], device)
        self.reward = Normalizer.from_state_dict(state["reward"], device)
