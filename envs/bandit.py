"""Multi-armed bandits: an episode is one pull, a trial of n episodes is the classical n-pull problem."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Spec, Step, Tasks
from metarl_envs.config import BernoulliBanditConfig, GaussianBanditConfig


class BernoulliBandit:
    """Rewards are 0 or 1.

    ============  =====================================================================================
    observation   [1] the constant 1: nothing but the cue tells an agent anything
    action        one of k arms
    reward        1 with probability p_a, else 0
    episode       one pull, which terminates
    task row      [k] p: uniform on [0, 1]ᵏ; in the split ood u² with u uniform, so that good arms are rare
    ============  =====================================================================================
    """

    def __init__(self, config: BernoulliBanditConfig) -> None:
        self.spec = _spec("bernoulli-bandit", config.arms)
        self.mean_optimum = config.arms / (config.arms + 1)  # the largest of k uniform numbers

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` rows of arm means."""
        uniform = rng.child(split).rows(count, self.spec.task_width)
        return Tasks(uniform.square() if split == "ood" else uniform, torch.arange(count), split)

    def make(self, lanes: int) -> _Bandits:
        return _Bandits(self, lanes)

    def reward(self, mean: Tensor, noise: Streams, time: int) -> Tensor:
        """[N, M] float32: what pulling arms of these means [N, M] pays at this time."""
        return (noise.uniform(time, 1).squeeze(-1) < mean).float()

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the best arm's mean."""
        return tasks.params.max(-1).values

    def expected_reward(self, tasks: Tasks, rollout: Rollout) -> Tensor:
        """[T, N, M]: the mean of the arm that was pulled."""
        return _pulled(tasks.params, rollout.action)


class GaussianBandit:
    """Rewards are normal with variance 1.

    ============  =====================================================================================
    observation   [1] the constant 1
    action        one of k arms
    reward        m_a + standard normal noise
    episode       one pull, which terminates
    task row      [k] m: uniform on [0, 1]ᵏ; in the split ood uniform on [0, 2]ᵏ
    ============  =====================================================================================
    """

    def __init__(self, config: GaussianBanditConfig) -> None:
        self.spec = _spec("gaussian-bandit", config.arms)
        self.mean_optimum = config.arms / (config.arms + 1)

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` rows of arm means."""
        uniform = rng.child(split).rows(count, self.spec.task_width)
        return Tasks(2 * uniform if split == "ood" else uniform, torch.arange(count), split)

    def make(self, lanes: int) -> _Bandits:
        return _Bandits(self, lanes)

    def reward(self, mean: Tensor, noise: Streams, time: int) -> Tensor:
        """[N, M] float32: what pulling arms of these means [N, M] pays at this time."""
        return mean + noise.normal(time, 1).squeeze(-1)

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the best arm's mean."""
        return tasks.params.max(-1).values

    def expected_reward(self, tasks: Tasks, rollout: Rollout) -> Tensor:
        """[T, N, M]: the mean of the arm that was pulled."""
        return _pulled(tasks.params, rollout.action)


class _Payout(Protocol):
    spec: Spec

    def reward(self, mean: Tensor, noise: Streams, time: int) -> Tensor: ...


class _Bandits:
    """N bandits × M lanes."""

    def __init__(self, family: _Payout, lanes: int) -> None:
        self._family = family
        self._lanes = lanes

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        self._means = tasks.params
        self._noise = tasks.streams(rng, self._lanes)
        self._time = 0
        self._obs = torch.ones(len(tasks), self._lanes, 1, device=tasks.params.device)
        self._never = torch.zeros(self._obs.shape[:2], dtype=torch.bool, device=self._obs.device)
        return self._obs

    def step(self, action: Tensor) -> Step:
        reward = self._family.reward(_pulled(self._means, action), self._noise, self._time)
        self._time += 1
        return Step(
            obs=self._obs,
            next_obs=self._obs,
            reward=reward,
            terminated=~self._never,
            truncated=self._never,
        )


def _spec(name: str, arms: int) -> Spec:
    return Spec(
        name,
        observation={"constant": 1},
        action_width=arms,
        discrete=True,
        horizon=1,
        task_width=arms,
    )


def _pulled(means: Tensor, action: Tensor) -> Tensor:
    """means [N, k], action [..., N, M] → [..., N, M]."""
    return means.expand(*action.shape[:-1], -1).gather(-1, action)
