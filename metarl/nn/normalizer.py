"""Running mean and variance, to put observations, rewards and value targets on a common scale."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metarl.core.errors import ConfigError
from metarl.core.rollout import Rollout
from metarl.core.types import Inputs, Spec, replace, tree, tree_map

_SMALLEST_STD = 1e-12
_ROUNDING = 1e-6
"""A deviation of so small a share of the mean is that of float32's rounding errors."""
_FARTHEST_MEAN = 3.0
"""In deviations: of rewards that are not shifted."""
_LIMIT = 10.0
"""No input of a policy is larger, whatever is rare, new, or hardly ever changes."""


@tree
class Normalizer:
    """Mean and variance of each of W columns, over the samples so far."""

    mean: Tensor  # [W]
    var: Tensor  # [W] float64: squares of what float32 holds
    count: Tensor  # [W] float64: how many samples they stand for

    @staticmethod
    def initial(width: int, device: torch.device) -> Normalizer:
        """Mean 0, variance 1, no samples."""
        ones = torch.ones(width, dtype=torch.float64, device=device)
        return Normalizer(torch.zeros(width, device=device), ones, torch.zeros_like(ones))

    def columns(self, width: int) -> Normalizer:
        """The first `width` columns, without samples where there are fewer."""
        missing = max(0, width - len(self.mean))
        more = Normalizer.initial(missing, self.mean.device)
        return tree_map(lambda own, new: torch.cat([own[:width], new]), self, more)

    @property
    def std(self) -> Tensor:
        """[W]: at least what rounding makes of a constant."""
        rounding = _ROUNDING * self.mean.abs()
        return torch.maximum(self.var.sqrt().to(rounding), rounding).clamp(min=_SMALLEST_STD)

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
        x = x.reshape(-1, x.shape[-1]).double()
        valid = valid.reshape(-1, valid.shape[-1])
        weight = valid.expand_as(x).to(x.dtype)
        size = weight.sum(0)
        divisor = size.clamp(min=1)
        new_mean = (x * weight).sum(0) / divisor
        new_var = ((x - new_mean).square() * weight).sum(0) / divisor

        old = self.count
        if window < torch.inf:
            old = torch.minimum(old, size * window)
        share = size / (old + size).clamp(min=1)
        gap = new_mean - self.mean
        between = share * (1 - share) * gap.square()
        mean = self.mean + share * gap
        var = (1 - share) * self.var + share * new_var + between
        count = torch.where(size > 0, old + size, self.count)
        return Normalizer(mean.to(self.mean), var, count)

    def normalize(self, x: Tensor, limit: float = _LIMIT) -> Tensor:
        """x [..., W] in standard deviations from the mean, clipped to ±`limit`."""
        return ((x - self.mean) / self.std).clamp(-limit, limit)

    def scale(self, x: Tensor) -> Tensor:
        """x [..., W] in standard deviations from zero, clipped as by `normalize`.

        What would put the mean farther than 3 of them is subtracted: it says nothing, and would
        drown the rest, as a reward of 1 a step does.
        """
        farthest = _FARTHEST_MEAN * self.std
        shift = self.mean - self.mean.clamp(-farthest, farthest)
        return ((x - shift) / self.std).clamp(-_LIMIT, _LIMIT)

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
        mean, var, count = state["mean"], state["var"].double(), state["count"]
        if not mean.shape == var.shape == count.shape or (var < 0).any() or (count < 0).any():
            raise ConfigError("moments: mean, var and count do not belong together")
        return tree_map(lambda x: x.to(device), Normalizer(mean, var, count))


class InputNormalizer:
    """Scales a policy's inputs by running statistics of observations and rewards."""

    def __init__(self, spec: Spec, device: torch.device, *, obs: bool, reward: bool):
        """Whether to scale the observations, and the reward in the cue.

        Images, bytes and action masks stay as they are.
        """
        self._scaled = _scaled_columns(spec).to(device)
        self._scales_obs = obs and bool(self._scaled.any())
        self._scales_all = bool(self._scaled.all())
        self._scales_reward = reward
        self._action_width = spec.action_width
        self.obs = Normalizer.initial(spec.obs_width, device)
        self.reward = Normalizer.initial(1, device)

    def normalize(self, inputs: Inputs) -> Inputs:
        """The inputs [..., W] by the present statistics."""
        if self._scales_obs:
            scaled = self.obs.normalize(inputs.obs)
            if not self._scales_all:
                scaled = torch.where(self._scaled, scaled, inputs.obs)
            inputs = replace(inputs, obs=scaled)
        if self._scales_reward and inputs.cue is not None:
            action, reward, done = inputs.cue.split([self._action_width, 1, 1], dim=-1)
            cue = torch.cat([action, self.reward.scale(reward), done], dim=-1)
            inputs = replace(inputs, cue=cue)
        return inputs

    def update(self, rollout: Rollout) -> None:
        """Take the steps of `rollout` into account."""
        valid = rollout.valid.unsqueeze(-1)
        if self._scales_obs:
            self.obs = self._with_obs(rollout.inputs.obs, valid)
        if self._scales_reward:
            self.reward = self.reward.update(rollout.reward.unsqueeze(-1), valid)

    def _with_obs(self, obs: Tensor, valid: Tensor) -> Normalizer:
        """The statistics with those of obs [..., O]; of pixels, which are many, there are none."""
        if self._scales_all:
            return self.obs.update(obs, valid)
        columns = self._scaled.nonzero().squeeze(-1)
        known = tree_map(lambda x: x[columns], self.obs)
        known = known.update(obs[..., columns], valid)
        return tree_map(lambda x, new: x.index_copy(0, columns, new), self.obs, known)

    def state_dict(self) -> dict[str, Any]:
        """Both statistics."""
        return {"obs": self.obs.state_dict(), "reward": self.reward.state_dict()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """The inverse of `state_dict`."""
        self.obs = Normalizer.from_state_dict(state["obs"], device)
        self.reward = Normalizer.from_state_dict(state["reward"], device)


def _scaled_columns(spec: Spec) -> Tensor:
    """[O] bool: the numbers of an observation that have a scale of their own."""
    scaled = torch.full((spec.obs_width,), spec.obs_dtype == "float32")
    for name in (*spec.images, spec.action_mask):
        if name is not None:
            scaled[spec.part(name)] = False
    return scaled
