"""Multi-armed bandits: an episode is one pull, a trial of n episodes the classical problem."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Spec, Step, Tasks
from metarl_envs.config import BanditConfig, BernoulliBanditConfig, GaussianBanditConfig


class _Bandit(ABC):
    """A family of k-armed bandits."""

    name: ClassVar[str]

    def __init__(self, config: BanditConfig):
        self.spec = Spec(
            self.name,
            observation={"constant": 1},
            action_width=config.arms,
            discrete=True,
            horizon=1,
            task_width=config.arms,
        )
        self.mean_optimum = config.arms / (config.arms + 1)  # the largest of k uniform numbers

    @abstractmethod
    def shift(self, uniform: Tensor) -> Tensor:
        """[N, k]: the means in the split ood, from numbers that are uniform on [0, 1]."""

    @abstractmethod
    def reward(self, mean: Tensor, noise: Streams, time: int) -> Tensor:
        """[N, M] float32: the rewards of arms with these means [N, M] at this time."""

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` rows of arm means."""
        mean = rng.child(split).rows(count, self.spec.task_width)
        if split == "ood":
            mean = self.shift(mean)
        return Tasks.numbered(mean, split)

    def make(self, lanes: int) -> _Bandits:
        """N tasks × `lanes` lanes."""
        return _Bandits(self, lanes)

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the best arm's mean."""
        return tasks.params.max(-1).values

    def expected_reward(self, tasks: Tasks, rollout: Rollout) -> Tensor:
        """[T, N, M]: the mean of the arm that was pulled."""
        return _pulled(tasks.params, rollout.action)


class BernoulliBandit(_Bandit):
    """Rewards are 0 or 1.

    ============  ==================================================================================
    observation   [1] the constant 1
    action        one of k arms
    reward        1 with probability p_a, else 0
    episode       one pull, which terminates
    task row      [k] p: uniform on [0, 1]ᵏ; in the split ood u² with u uniform, so that good arms
                  are rare
    ============  ==================================================================================
    """

    Settings = BernoulliBanditConfig
    name = "bernoulli-bandit"

    def shift(self, uniform: Tensor) -> Tensor:
        """u²."""
        return uniform.square()

    def reward(self, mean: Tensor, noise: Streams, time: int) -> Tensor:
        """1 with probability `mean`."""
        return (noise.uniform(time, 1).squeeze(-1) < mean).float()


class GaussianBandit(_Bandit):
    """Rewards are normal with variance 1.

    ============  ==================================================================================
    observation   [1] the constant 1
    action        one of k arms
    reward        m_a + standard normal noise
    episode       one pull, which terminates
    task row      [k] m: uniform on [0, 1]ᵏ; in the split ood uniform on [0, 2]ᵏ
    ============  ==================================================================================
    """

    Settings = GaussianBanditConfig
    name = "gaussian-bandit"

    def shift(self, uniform: Tensor) -> Tensor:
        """2 u."""
        return 2 * uniform

    def reward(self, mean: Tensor, noise: Streams, time: int) -> Tensor:
        """`mean` + standard normal noise."""
        return mean + noise.normal(time, 1).squeeze(-1)


@dataclass
class _Bandits:
    """N bandits × M lanes."""

    family: _Bandit
    lanes: int

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        self._means = tasks.params
        self._noise = tasks.streams(rng, self.lanes)
        self._time = 0
        self._obs = tasks.params.new_ones(len(tasks), self.lanes, 1)
        self._never = torch.zeros_like(self._obs[..., 0], dtype=torch.bool)
        return self._obs

    def step(self, action: Tensor) -> Step:
        reward = self.family.reward(_pulled(self._means, action), self._noise, self._time)
        self._time += 1
        return Step(
            obs=self._obs,
            next_obs=self._obs,
            reward=reward,
            terminated=~self._never,
            truncated=self._never,
        )


def _pulled(means: Tensor, action: Tensor) -> Tensor:
    """means [N, k], action [..., N, M] → [..., N, M]."""
    return means.expand(*action.shape[:-1], -1).gather(-1, action)
