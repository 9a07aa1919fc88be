"""Multi-armed bandits: an episode is one pull, a trial of n episodes the classical problem."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metarl.core.predictions import Predictions, Questions
from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Spec, Step, Tasks
from metarl_envs.config import BanditConfig, BernoulliBanditConfig, GaussianBanditConfig
from metarl_envs.posteriors import sums_by_place, visits_by_place


class _Bandit(ABC):
    """A family of k-armed bandits."""

    name: ClassVar[str]
    rewards: ClassVar[tuple[float, float] | None] = None
    """The only two, the lower first; None: any number."""

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

    @abstractmethod
    def predictive(self, pulls: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance [...] float64 of an arm's next reward.

        It was pulled `pulls` [...] times, for rewards that add up to `total` [...]; its mean has
        the prior of the split train.
        """

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

    def questions(self) -> Questions:
        """One pull of every arm."""
        arm = torch.arange(self.spec.action_width)
        obs = torch.ones(len(arm), 1)
        return Questions(obs, arm, obs, rewards=self.rewards)

    def posterior_predictions(self, rollout: Rollout, times: Tensor) -> Predictions:
        """[K, N, M, k]: of every arm's next reward."""
        arms = self.spec.action_width
        pulls = visits_by_place(rollout, rollout.action, arms, times)
        total = sums_by_place(rollout, rollout.action, rollout.reward, arms, times)
        mean, variance = self.predictive(pulls, total)
        return Predictions(mean.float(), variance.float())


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
    rewards = (0.0, 1.0)

    def shift(self, uniform: Tensor) -> Tensor:
        """u²."""
        return uniform.square()

    def reward(self, mean: Tensor, noise: Streams, time: int) -> Tensor:
        """1 with probability `mean`."""
        return (noise.uniform(time, 1).squeeze(-1) < mean).float()

    def predictive(self, pulls: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """p = (total + 1) / (pulls + 2), a Beta posterior's mean; the variance is p (1 − p)."""
        mean = (total + 1) / (pulls + 2)
        return mean, mean * (1 - mean)


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

    def predictive(self, pulls: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior mean of m_a; the variance is the posterior's, and 1 of the noise."""
        mean, variance = _normal_on_unit_interval(pulls, total)
        return mean, 1 + variance


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


def _normal_on_unit_interval(count: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance [...] of m ~ U[0, 1], given `count` normal numbers that add up to `total`.

    That is N(total / count, 1 / count) truncated to [0, 1]. With a and b the ends of the interval
    in standard deviations from the mode, Z = Φ(b) − Φ(a), f = φ(a) / Z and g = φ(b) / Z,

        mean = (total / count) + (f − g) / √count,
        variance = (1 + a f − b g − (f − g)²) / count.

    Where the mode lies far outside, φ and Z underflow but f and g do not: both are divided by φ(a),
    with Φ from the scaled complementary error function. The interval is mirrored where that is
    needed for |a| ≤ |b|, which keeps all exponents negative.
    """
    mirrored = total > count - total
    low = torch.where(mirrored, count - total, total)  # the total of the mirrored numbers 1 − y
    root = count.clamp(min=1).sqrt()
    a = -low / root
    b = (count - low) / root

    decay = (-(b - a) * (b + a) / 2).exp()  # φ(b) / φ(a)
    tails = torch.special.erfcx(a / math.sqrt(2)) - decay * torch.special.erfcx(b / math.sqrt(2))
    f = 1 / (math.sqrt(math.pi / 2) * tails)
    g = decay * f
    mean = (f - g - a) / root  # −a / √count = total / count
    variance = (1 + a * f - b * g - (f - g).square()) / root.square()

    mean = torch.where(mirrored, 1 - mean, mean)
    unseen = count == 0
    return mean.where(~unseen, 1 / 2), variance.where(~unseen, 1 / 12)
