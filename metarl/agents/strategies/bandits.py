"""Classical rules for bandits: each gives every arm an index and pulls the arm of the highest.

Under the prior, arm means are uniform on [0, 1], as they are in metarl's bandits.
"""

import functools
import math
from typing import Literal, TypeVar

import torch
from torch import Tensor

from metarl.agents.strategies.config import (
    BanditConfig,
    EpsilonGreedyConfig,
    GittinsConfig,
    ThompsonConfig,
    UCB1Config,
)
from metarl.agents.strategies.strategy import Strategy, sample_dirichlet
from metarl.core.agent import Mode
from metarl.core.errors import ConfigError
from metarl.core.rng import Streams
from metarl.core.rollout import Rollout
from metarl.core.types import (
    Acted,
    Belief,
    Spec,
    TaskInfo,
    first_cue,
    one_hot,
    replace,
    static,
    tree,
    tree_map,
)

_FEW_PULLS = 1e-6  # instead of 0 pulls in a denominator: the posterior is flat to six digits
_FAR = 6.0  # averages farther outside [0, 1] are clamped to so many standard deviations
_GRID = 500  # values of the known arm; twice as many change 100 pulls of two arms by 1e-6


Count = TypeVar("Count", int, Tensor)


@tree
class Arms:
    """Pulls and rewards of every row's arms so far, and the posterior of the arms' means."""

    pulls: Tensor  # [..., k] how often each was pulled
    reward_sum: Tensor  # [..., k]
    rewards: Literal["bernoulli", "gaussian"] = static()
    horizon: int = static()  # pulls of a row in the whole trial

    def mean(self) -> Tensor:
        """[..., k]: posterior mean of each arm."""
        if self.rewards == "bernoulli":
            return (self.reward_sum + 1) / (self.pulls + 2)
        average, std, low, high = self._truncated_normal()
        mass = torch.special.ndtr(high) - torch.special.ndtr(low)
        return average + std * (_density(low) - _density(high)) / mass

    def sample(self, noise: Streams) -> Tensor:
        """[N, M, k]: a mean for each arm, drawn from the posterior by one stream per lane."""
        if self.rewards == "bernoulli":
            failures = self.pulls - self.reward_sum
            beta = torch.stack([self.reward_sum + 1, failures + 1], dim=-1)  # [N, 1, k, 2]
            beta = beta.expand(*noise.keys.shape, -1, -1)
            draws = sample_dirichlet(beta, noise.split(0, beta.shape[-2]))
            return draws[..., 0]
        average, std, low, high = self._truncated_normal()
        below = torch.special.ndtr(low)
        above = torch.special.ndtr(high)
        uniform = noise.uniform(0, low.shape[-1])
        quantile = below + uniform * (above - below)
        return average + std * torch.special.ndtri(quantile)

    def _truncated_normal(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean, deviation and standardized bounds 0 and 1 of the truncated normal posterior."""
        pulls = self.pulls.double().clamp_min(_FEW_PULLS)
        std = pulls.rsqrt()
        average = (self.reward_sum / pulls).clamp(-_FAR * std, 1 + _FAR * std)
        return average, std, -average / std, (1 - average) / std


# -------------------------------------------------------------------------------------------------
# Rules: arms [N, 1, k], one stream of `noise` per lane [N, M] → index of each arm, [N, 1 or M, k]


def arm_index(config: BanditConfig, arms: Arms, noise: Streams) -> Tensor:
    """The index by which the configured rule ranks the arms."""
    match config:
        case ThompsonConfig():
            return arms.sample(noise)
        case EpsilonGreedyConfig():
            return epsilon_greedy(arms, config.epsilon, noise)
        case UCB1Config():
            return ucb1(arms, config.bonus)
        case GittinsConfig():
            return gittins(arms)
        case _:
            return arms.mean()


def epsilon_greedy(arms: Arms, epsilon: float, noise: Streams) -> Tensor:
    """The posterior mean; with probability ε a random index."""
    uniform = noise.uniform(0, 1 + arms.pulls.shape[-1])
    explores = uniform[..., :1] < epsilon
    return torch.where(explores, uniform[..., 1:], arms.mean())


def ucb1(arms: Arms, bonus: float) -> Tensor:
    """mean + c √(2 ln t / (n + 2)) after t pulls, n of the arm (Auer et al. 2002, figure 1).

    The posterior mean and n + 2, as if every arm had been pulled twice, are those of the code of
    Duan et al. 2016.
    """
    total = arms.pulls.sum(-1, keepdim=True).clamp_min(1)
    width = (2 * total.log() / (arms.pulls + 2)).sqrt()
    return arms.mean() + bonus * width


def gittins(arms: Arms) -> Tensor:
    """The index for the pulls that are left; at the last pull and later the posterior mean."""
    pulls = arms.pulls.long()
    left = arms.horizon - pulls.sum(-1, keepdim=True)
    indices = gittins_indices(arms.horizon).to(pulls.device)
    place = _place(pulls + left, pulls, arms.reward_sum.long())
    index = indices[place.clamp(0, len(indices) - 1)]
    return torch.where(left > 1, index, arms.mean())


# -------------------------------------------------------------------------------------------------
# The agent


class Bandit(Strategy):
    """Pulls the arm of the highest index; its belief's row is `Arms`."""

    config: BanditConfig
    needs = "a bandit (discrete actions, episodes of one step)"

    def suits(self, spec: Spec) -> bool:
        """Whether the family is a bandit."""
        return spec.single_choice and spec.horizon == 1

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """No pulls yet."""
        zero = torch.zeros(info.rows, self.spec.action_width, device=info.device)
        arms = Arms(zero, zero, self.config.rewards, horizon=info.episodes * lanes)
        return Belief(first_cue(self.spec, info.rows, lanes, info.device), row=arms)

    def act(
        self,
        belief: Belief,
        obs: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> tuple[Acted, Belief]:
        """The arm of the highest index, the first of several: greedy rules do not switch arms."""
        arms = tree_map(lambda x: x.unsqueeze(1), belief.row)
        index = arm_index(self.config, arms, noise.split(counter))
        action = index.argmax(-1).expand(obs.shape[:2])
        return self.acted(belief, obs, action), belief

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Count the pulls of all lanes and sum up their rewards.

        Raises:
            ConfigError: a reward other than 0 and 1 of a Bernoulli arm.
        """
        reward = rollout.reward.where(rollout.valid, 0.0)
        if self.config.rewards == "bernoulli" and not ((reward == 0) | (reward == 1)).all():
            raise ConfigError(
                f"{self.spec.name}: its rewards are not all 0 or 1; set agent.rewards to gaussian"
            )
        arms: Arms = belief.row
        pulled = one_hot(rollout.action, self.spec.action_width) * rollout.valid.unsqueeze(-1)
        pulls = arms.pulls + pulled.sum((0, 2))
        reward_sum = arms.reward_sum + (pulled * reward.unsqueeze(-1)).sum((0, 2))
        return replace(belief, row=replace(arms, pulls=pulls, reward_sum=reward_sum))


class BestArm(Strategy):
    """Pulls the best arm, whose mean it is shown."""

    task_input = "row"
    needs = "a bandit with the means of its arms as the task row"

    def suits(self, spec: Spec) -> bool:
        """Whether episodes are one pull, and the task row is as wide as there are arms."""
        return spec.single_choice and spec.horizon == 1 and spec.task_width == spec.action_width

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """The means."""
        return Belief(first_cue(self.spec, info.rows, lanes, info.device), row=info.shown)

    def act(
        self,
        belief: Belief,
        obs: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> tuple[Acted, Belief]:
        """The arm of the highest mean."""
        action = belief.row.argmax(-1, keepdim=True).expand(obs.shape[:2])
        return self.acted(belief, obs, action), belief

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Nothing to learn."""
        return belief


# -------------------------------------------------------------------------------------------------
# The Gittins index


@functools.lru_cache(maxsize=2)
def gittins_indices(horizon: int) -> Tensor:
    """The finite-horizon Gittins index of a Bernoulli arm under a Beta(1, 1) prior.

    For every state that `horizon` pulls can reach: float32, laid out by `_place`. With r pulls left
    it is the reward λ of a known arm that makes one more pull of the unknown one just worthwhile,
    if one may switch to the known arm for good at any time: the root of E in (Kaufmann 2018,
    arXiv:1601.01190)

        E_r(s, f) = p + p V_{r−1}(s + 1, f) + (1 − p) V_{r−1}(s, f + 1) − λ,
        V_r = max(0, E_r),  V_0 = 0,  p = (s + 1) / (s + f + 2).

    E is decreasing and convex in λ; the recursion runs on a grid of λ, interpolated linearly where
    E changes sign. Below a second for 100 pulls, half a minute and 84 MB for 500, cubic in them.
    """
    grid = torch.linspace(0, 1, _GRID + 1, dtype=torch.float64)
    indices = torch.empty(horizon * (horizon + 1) * (horizon + 2) // 6)
    zero = torch.zeros(horizon, 1, dtype=torch.float64)
    for reach in range(1, horizon + 1):
        loss = torch.zeros(reach + 1, _GRID + 1, dtype=torch.float64)  # −V, [successes, λ]
        for pulls in range(reach - 1, -1, -1):
            p = torch.arange(1, pulls + 2, dtype=torch.float64).unsqueeze(1) / (pulls + 2)
            regret = torch.lerp(loss[:-1], loss[1:], p).sub_(p).add_(grid)  # −E, increasing in λ
            right = torch.searchsorted(regret, zero[: pulls + 1]).clamp_(1, _GRID)
            below = regret.gather(1, right - 1)
            above = regret.gather(1, right)
            root = (right - below / (above - below) - 1) / _GRID
            first = _place(reach, pulls, 0)
            indices[first : first + pulls + 1] = root.squeeze(1)
            loss = regret.clamp_(max=0)
    return indices


def _place(reach: Count, pulls: Count, successes: Count) -> Count:
    """Where the index of an arm is, for integers or tensors; reach = its pulls + pulls left.

    Every reach from 1 has a triangle of states, successes ≤ pulls < reach, stored row by row.
    """
    return (reach - 1) * reach * (reach + 1) // 6 + pulls * (pulls + 1) // 2 + successes


def _density(x: Tensor) -> Tensor:
    """Of the standard normal distribution."""
    return torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
