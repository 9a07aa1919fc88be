"""The classical rules for bandits: each gives every arm an index, and the arm of the highest index is pulled.

Arm means are uniform on [0, 1] under the prior, which is the truth in metarl's bandits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from metarl.agents.strategies.config import (
    BanditConfig,
    EpsilonGreedyConfig,
    GittinsConfig,
    GreedyConfig,
    ThompsonConfig,
    UCB1Config,
)
from metarl.agents.strategies.strategy import Strategy, sample_dirichlet
from metarl.config.registry import Settings
from metarl.core.agent import Mode
from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import (
    Acted,
    Belief,
    Inputs,
    Spec,
    TaskInfo,
    first_cue,
    one_hot,
    replace,
    static,
    tree,
    tree_map,
)

_FEW_PULLS = 1e-6  # stands for none, where a formula divides by their number: the posterior is flat to six digits
_FAR = (
    6.0  # standard deviations: an average that lies farther outside [0, 1] counts as lying so far
)
_GRID = 500  # known arms to compare with; twice as many change the value of 100 pulls of two arms by 1e-6


@tree
class Arms:
    """What the arms of every row have paid so far, and the posterior of their means."""

    pulls: Tensor  # [..., k] how often each was pulled
    paid: Tensor  # [..., k] sum of its rewards
    rewards: Literal["bernoulli", "gaussian"] = static()
    horizon: int = static()  # pulls that a row will have had in the end

    def mean(self) -> Tensor:
        """[..., k]: posterior mean of each arm."""
        if self.rewards == "bernoulli":
            return (self.paid + 1) / (self.pulls + 2)
        average, deviation, low, high = self._normal()
        mass: Tensor = torch.special.ndtr(high) - torch.special.ndtr(low)
        return average + deviation * (_density(low) - _density(high)) / mass

    def sample(self, noise: Streams) -> Tensor:
        """[N, M, k]: a mean for each arm, drawn from the posterior by one stream a lane."""
        if self.rewards == "bernoulli":
            beta = torch.stack([self.paid + 1, self.pulls - self.paid + 1], dim=-1)  # [N, 1, k, 2]
            beta = beta.expand(*noise.keys.shape, -1, -1)
            return sample_dirichlet(beta, noise.split(0, beta.shape[-2]))[..., 0]
        average, deviation, low, high = self._normal()
        below, above = torch.special.ndtr(low), torch.special.ndtr(high)
        drawn: Tensor = torch.special.ndtri(
            below + noise.uniform(0, low.shape[-1]) * (above - below)
        )
        return average + deviation * drawn

    def _normal(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Average and its standard deviation, and 0 and 1 in these units: the posterior is normal between the two."""
        pulls = self.pulls.double().clamp_min(_FEW_PULLS)
        deviation = pulls.rsqrt()
        average = (self.paid / pulls).clamp(-_FAR * deviation, 1 + _FAR * deviation)
        return average, deviation, -average / deviation, (1 - average) / deviation


# ---------------------------------------------------------------------------------------------------------------------
# Rules: (config, arms [N, 1, k], one stream a lane [N, M]) → index of each arm, [N, 1, k] or [N, M, k]


def greedy(config: GreedyConfig, arms: Arms, noise: Streams) -> Tensor:
    """The posterior mean."""
    return arms.mean()


def epsilon_greedy(config: EpsilonGreedyConfig, arms: Arms, noise: Streams) -> Tensor:
    """The posterior mean; with probability ε something random."""
    whether, anything = noise.uniform(0, 1 + arms.pulls.shape[-1]).tensor_split([1], dim=-1)
    return anything.where(whether < config.epsilon, arms.mean())


def thompson(config: ThompsonConfig, arms: Arms, noise: Streams) -> Tensor:
    """A draw from the posterior."""
    return arms.sample(noise)


def ucb1(config: UCB1Config, arms: Arms, noise: Streams) -> Tensor:
    """mean + c √(2 ln t / (n + 2)) after t pulls, n of them of the arm (Auer et al. 2002, figure 1).

    The posterior mean and n + 2, as if every arm had been pulled twice, are those of Duan et al.'s published code.
    """
    pulled = arms.pulls.sum(-1, keepdim=True).clamp_min(1)
    return arms.mean() + config.bonus * (2 * pulled.log() / (arms.pulls + 2)).sqrt()


def gittins(config: GittinsConfig, arms: Arms, noise: Streams) -> Tensor:
    """The index of the pulls that are left; past the horizon the posterior mean, as at the last pull."""
    pulls, left = arms.pulls.long(), arms.horizon - arms.pulls.sum(-1, keepdim=True).long()
    index = gittins_indices(arms.horizon).to(pulls.device)
    place = _place(pulls + left, pulls, arms.paid.long()).clamp(0, len(index) - 1)
    return torch.where(left > 1, index[place], arms.mean())


_RULES: dict[type[Settings], Callable[[Any, Arms, Streams], Tensor]] = {
    GreedyConfig: greedy,
    EpsilonGreedyConfig: epsilon_greedy,
    ThompsonConfig: thompson,
    UCB1Config: ucb1,
    GittinsConfig: gittins,
}


# ---------------------------------------------------------------------------------------------------------------------
# The agent


class Bandit(Strategy):
    """Pulls the arm of the highest index; its belief's row is what the arms have paid."""

    def __init__(self, config: BanditConfig, spec: Spec, rng: Rng, device: torch.device) -> None:
        if not spec.discrete or spec.horizon != 1:
            raise MetaRLError(
                f"{type(config).__name__.removesuffix('Config')} plays bandits, discrete actions and episodes of one step; "
                f"{spec.name} is none: choose another agent"
            )
        self.task_input = "none"
        self.config = config
        self.rule = _RULES[type(config)]
        self.spec = spec

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """No arm was pulled yet."""
        nothing = torch.zeros(info.rows, self.spec.action_width, device=info.device)
        arms = Arms(nothing, nothing, self.config.rewards, horizon=info.episodes * lanes)
        return Belief(cue=first_cue(self.spec, info.rows, lanes, info.device), row=arms)

    def act(
        self, belief: Belief, obs: Tensor, noise: Streams, counter: int, mode: Mode
    ) -> tuple[Acted, Belief]:
        """The arm of the highest index, the first of several: so a greedy rule stays with an arm as long as it can."""
        arms = tree_map(lambda x: x.unsqueeze(1), belief.row)
        index = self.rule(self.config, arms, noise.split(counter))
        action = index.argmax(-1).expand(obs.shape[:2])
        return Acted(Inputs(obs=obs, cue=belief.cue), action, torch.zeros_like(obs[..., 0])), belief

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Count every pull of every lane and add what it paid.

        Raises:
            MetaRLError: a reward that an arm of this kind cannot pay.
        """
        reward = rollout.reward.where(rollout.valid, 0.0)
        if self.config.rewards == "bernoulli" and not ((reward == 0) | (reward == 1)).all():
            raise MetaRLError(
                f"{self.spec.name} pays other rewards than 0 and 1; set agent.rewards to gaussian"
            )
        pulled = one_hot(rollout.action, self.spec.action_width) * rollout.valid.unsqueeze(-1)
        arms: Arms = belief.row
        pulls, paid = (
            arms.pulls + pulled.sum((0, 2)),
            arms.paid + (pulled * reward.unsqueeze(-1)).sum((0, 2)),
        )
        return replace(belief, row=replace(arms, pulls=pulls, paid=paid))


# ---------------------------------------------------------------------------------------------------------------------
# Mathematics


@functools.lru_cache(maxsize=2)
def gittins_indices(horizon: int) -> Tensor:
    """The finite-horizon Gittins index of a Bernoulli arm under a Beta(1, 1) prior, for every state that `horizon`
    pulls can reach: float32, laid out by `_place`.

    The index of an arm with r pulls left is the pay λ of a known arm that makes one more pull of it just worth while,
    if the known arm may be taken for good at any time: the root of E in (Kaufmann 2018, arXiv:1601.01190)

        E_r(s, f) = p + p V_{r−1}(s + 1, f) + (1 − p) V_{r−1}(s, f + 1) − λ,  V_r = max(0, E_r),  V_0 = 0,

    p = (s + 1) / (s + f + 2). E falls and is convex in λ; the recursion runs on a grid of λ, on which E is
    interpolated linearly between the two points where it changes sign. Below a second for 100 pulls, half a minute and
    84 MB for 500, growing with the third power.
    """
    grid = torch.linspace(0, 1, _GRID + 1, dtype=torch.float64)
    index = torch.empty(horizon * (horizon + 1) * (horizon + 2) // 6)
    zero = torch.zeros(horizon, 1, dtype=torch.float64)
    for reach in range(1, horizon + 1):
        loss = torch.zeros(reach + 1, _GRID + 1, dtype=torch.float64)  # −V, [successes, λ]
        for pulls in range(reach - 1, -1, -1):
            p = (torch.arange(1, pulls + 2, dtype=torch.float64) / (pulls + 2)).unsqueeze(1)
            regret = torch.lerp(loss[:-1], loss[1:], p).sub_(p).add_(grid)  # −E, which rises with λ
            right = torch.searchsorted(regret, zero[: pulls + 1]).clamp_(1, _GRID)
            below, above = regret.gather(1, right - 1), regret.gather(1, right)
            first = _place(reach, pulls, 0)
            index[first : first + pulls + 1] = (
                (right - below / (above - below) - 1) / _GRID
            ).squeeze(1)
            loss = regret.clamp_(max=0)
    return index


def _place(reach: Any, pulls: Any, successes: Any) -> Any:
    """Where the index of an arm stands, for integers or tensors of them; reach = its pulls + the pulls that are left.

    Every reach from 1 has a triangle of states, successes ≤ pulls < reach, stored row by row, one after the other.
    """
    return (reach - 1) * reach * (reach + 1) // 6 + pulls * (pulls + 1) // 2 + successes


def _density(x: Tensor) -> Tensor:
    """Of the standard normal distribution."""
    return torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
