"""The classical rules for tabular Markov decision processes: each plans an episode from what is known at its start.

Under the prior, mean rewards are N(prior_mean, 1), rewards scatter around them with variance 1, and transitions are
Dirichlet(1, …, 1): the truth in metarl's tabular-mdp. Definitions follow TabulaRL (Osband & Van Roy 2016,
arXiv:1607.00215), which Duan et al. 2016 (arXiv:1611.02779) compare RL² with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metarl.agents.strategies.config import (
    BEBConfig,
    CertaintyEquivalenceConfig,
    MDPConfig,
    OPSRLConfig,
    PSRLConfig,
    ValueIterationConfig,
)
from metarl.agents.strategies.strategy import Strategy, random_argmax, sample_dirichlet
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
    tree,
    where,
)


@tree
class Experience:
    """What every row's process has shown so far."""

    visits: Tensor  # [N, S, A] how often an action was taken in a state
    paid: Tensor  # [N, S, A] sum of its rewards
    moves: Tensor  # [N, S, A, S] where it led
    shown: Tensor | None = (
        None  # [N, S·A + S·A·S] the truth, for the oracle: mean rewards, then transitions
    )

    def mean_reward(self, prior_mean: float) -> Tensor:
        """[N, S, A]: posterior mean of the mean rewards; their posterior variance is 1 / (visits + 1)."""
        return (self.paid + prior_mean) / (self.visits + 1)

    @property
    def concentration(self) -> Tensor:
        """[N, S, A, S]: of the Dirichlet posterior of the transitions."""
        return self.moves + 1


# ---------------------------------------------------------------------------------------------------------------------
# Rules: (config, experience, one stream a lane [N, M], horizon) → action values [N, M or 1, H, S, A]


def psrl(config: MDPConfig, seen: Experience, noise: Streams, horizon: int) -> Tensor:
    """Of one process drawn from the posterior."""
    return action_values(*_sample_batches(config, seen, noise), horizon)


def opsrl(config: OPSRLConfig, seen: Experience, noise: Streams, horizon: int) -> Tensor:
    """The largest of several drawn processes, state by state and action by action."""
    values = [psrl(config, seen, noise.split(sample), horizon) for sample in range(config.samples)]
    return torch.stack(values).amax(0)


def certainty_equivalence(
    config: CertaintyEquivalenceConfig, seen: Experience, noise: Streams, horizon: int
) -> Tensor:
    """Of the posterior's mean process."""
    return action_values(*_mean(config, seen), horizon)


def beb(config: BEBConfig, seen: Experience, noise: Streams, horizon: int) -> Tensor:
    """Of the mean process with a bonus that falls as 1 / visits (Kolter & Ng 2009).

    TabulaRL's form: 1 / (τ + 1) for the reward, τ its posterior precision, and for what may follow
    2 H³ · scaling / (1 + α) for every step that is left after this one, α the sum of the Dirichlet counts.
    """
    reward, transition = _mean(config, seen)
    bonus = 2 * horizon**3 * config.scaling / (1 + seen.concentration.sum(-1))
    return action_values(
        reward + 1 / (seen.visits + 2).unsqueeze(1), transition, horizon, bonus.unsqueeze(1)
    )


def value_iteration(
    config: ValueIterationConfig, seen: Experience, noise: Streams, horizon: int
) -> Tensor:
    """Of the true process."""
    assert seen.shown is not None, "the oracle's task_input is row"
    pairs = seen.visits[0].numel()
    reward, transition = seen.shown[:, :pairs], seen.shown[:, pairs:]
    return action_values(
        reward.view_as(seen.visits).unsqueeze(1),
        transition.view_as(seen.moves).unsqueeze(1),
        horizon,
    )


_RULES: dict[type[Settings], Callable[[Any, Experience, Streams, int], Tensor]] = {
    PSRLConfig: psrl,
    OPSRLConfig: opsrl,
    CertaintyEquivalenceConfig: certainty_equivalence,
    BEBConfig: beb,
    ValueIterationConfig: value_iteration,
}


def action_values(
    reward: Tensor, transition: Tensor, horizon: int, bonus: Tensor | float = 0.0
) -> Tensor:
    """Backward induction: reward [..., S, A], transition [..., S, A, S] → action values [..., H, S, A].

    `bonus` [..., S, A] is added once for every step that is left after the present one.
    """
    value, values = torch.zeros_like(reward[..., 0]), []
    for left in range(horizon):
        future = (transition * value[..., None, None, :]).sum(
            -1
        )  # a product of matrices would round equal rows apart
        values.append(reward + future + left * bonus)
        value = values[-1].amax(-1)
    return torch.stack(values[::-1], dim=-3)


def _mean(config: MDPConfig, seen: Experience) -> tuple[Tensor, Tensor]:
    """The posterior's mean process: rewards [N, 1, S, A], transitions [N, 1, S, A, S]."""
    transition = seen.concentration / seen.concentration.sum(-1, keepdim=True)
    return seen.mean_reward(config.prior_mean).unsqueeze(1), transition.unsqueeze(1)


def _sample_batches(config: MDPConfig, seen: Experience, noise: Streams) -> tuple[Tensor, Tensor]:
    """A process drawn from the posterior for every lane: rewards [N, M, S, A], transitions [N, M, S, A, S]."""
    pairs = seen.visits.shape[1:]
    deviation = (seen.visits + 1).rsqrt().unsqueeze(1)
    normal = noise.normal(0, pairs.numel()).view(*noise.keys.shape, *pairs)
    concentration = seen.concentration.unsqueeze(1).expand(*normal.shape, -1)
    reward = seen.mean_reward(config.prior_mean).unsqueeze(1) + deviation * normal
    return reward, sample_dirichlet(concentration, noise.split(1, *pairs))


# ---------------------------------------------------------------------------------------------------------------------
# The agent


@tree
class _Plan:
    """The plan of a lane's running episode."""

    values: Tensor  # [N, M, H, S, A] of each action in each state at each step
    time: Tensor  # [N, M] int64: steps of the episode so far


class MDP(Strategy):
    """Plans where an episode begins and follows the plan through it; its belief's row is its experience."""

    def __init__(self, config: Settings, spec: Spec, rng: Rng, device: torch.device) -> None:
        pairs, oracle = spec.obs_width * spec.action_width, isinstance(config, ValueIterationConfig)
        if not spec.discrete or (oracle and spec.task_width != pairs * (1 + spec.obs_width)):
            raise MetaRLError(
                f"{type(config).__name__.removesuffix('Config')} plays finite decision processes, one-hot states and discrete actions"
                f"{', their rewards and transitions in the task row' if oracle else ''}; {spec.name} is none: "
                "choose another agent"
            )
        self.task_input = "row" if oracle else "none"
        self.config = config
        self.rule = _RULES[type(config)]
        self.spec = spec

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """Nothing was tried yet; the oracle is shown the truth."""
        states, actions = self.spec.obs_width, self.spec.action_width
        nothing = torch.zeros(info.rows, states, actions, states, device=info.device)
        seen = Experience(nothing[..., 0], nothing[..., 0], nothing, info.shown)
        values = torch.zeros(
            info.rows, lanes, self.spec.horizon, states, actions, device=info.device
        )
        cue = first_cue(self.spec, info.rows, lanes, info.device)
        return Belief(
            cue, row=seen, lane=_Plan(values, torch.zeros_like(cue[..., 0], dtype=torch.long))
        )

    def act(
        self, belief: Belief, obs: Tensor, noise: Streams, counter: int, mode: Mode
    ) -> tuple[Acted, Belief]:
        """The best action of the plan, which is made anew where an episode begins.

        Raises:
            MetaRLError: an episode begins with an observation that is no one-hot.
        """
        plan: _Plan = belief.lane
        begins = belief.cue[..., -1] == 1
        if begins.any():
            if not ((obs.sum(-1) == 1) & (obs.amax(-1) == 1)).all():
                raise MetaRLError(
                    f"{self.spec.name}: its observations are no one-hot states; choose another agent"
                )
            fresh = self.rule(self.config, belief.row, noise.split(counter), self.spec.horizon)
            plan = where(
                begins, _Plan(fresh.expand_as(plan.values), torch.zeros_like(plan.time)), plan
            )
        rows, lanes = (torch.arange(size, device=obs.device) for size in begins.shape)
        values = plan.values[rows.unsqueeze(1), lanes, plan.time, obs.argmax(-1)]
        action = random_argmax(values, noise, counter)
        acted = Acted(Inputs(obs=obs, cue=belief.cue), action, torch.zeros_like(obs[..., 0]))
        return acted, replace(belief, lane=replace(plan, time=plan.time + 1))

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Count what every lane tried, what it paid and where it led.

        The step that ends an episode leads nowhere: an acting agent is shown the next episode's start instead.
        """
        seen: Experience = belief.row
        taken = one_hot(rollout.action, self.spec.action_width) * rollout.valid.unsqueeze(-1)
        led = rollout.next_obs * ~rollout.done.unsqueeze(-1)
        reward = rollout.reward.where(rollout.valid, 0.0)
        obs = rollout.inputs.obs
        seen = replace(
            seen,
            visits=seen.visits + torch.einsum("tnms,tnma->nsa", obs, taken),
            paid=seen.paid + torch.einsum("tnms,tnma,tnm->nsa", obs, taken, reward),
            moves=seen.moves + torch.einsum("tnms,tnma,tnmz->nsaz", obs, taken, led),
        )
        return replace(belief, row=seen)
