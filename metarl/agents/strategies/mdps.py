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

from metarl.agents.strategies import config as settings
from metarl.agents.strategies.strategy import Strategy, choose, dirichlet
from metarl.config.registry import Settings
from metarl.core.agent import Mode
from metarl.core.errors import Mistake
from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Acted, Belief, Inputs, Spec, View, first_cue, one_hot, replace, tree, where


@tree
class Experience:
    """What every row's process has shown so far."""

    visits: Tensor  # [N, S, A] how often an action was taken in a state
    paid: Tensor  # [N, S, A] sum of its rewards
    moves: Tensor  # [N, S, A, S] where it led
    shown: Tensor | None = None  # [N, S·A + S·A·S] the truth, for the oracle: mean rewards, then transitions

    def mean_reward(self, prior_mean: float) -> Tensor:
        """[N, S, A]: posterior mean of the mean rewards; their posterior variance is 1 / (visits + 1)."""
        return (self.paid + prior_mean) / (self.visits + 1)

    @property
    def concentration(self) -> Tensor:
        """[N, S, A, S]: of the Dirichlet posterior of the transitions."""
        return self.moves + 1


# ---------------------------------------------------------------------------------------------------------------------
# Rules: (options, experience, one stream a lane [N, M], horizon) → action values [N, M or 1, H, S, A]


def psrl(options: settings.MDPSettings, seen: Experience, noise: Streams, horizon: int) -> Tensor:
    """Of one process drawn from the posterior."""
    return action_values(*_sampled(options, seen, noise), horizon)


def opsrl(options: settings.OPSRL, seen: Experience, noise: Streams, horizon: int) -> Tensor:
    """The largest of several drawn processes, state by state and action by action."""
    values = [psrl(options, seen, noise.split(sample), horizon) for sample in range(options.samples)]
    return torch.stack(values).amax(0)


def certainty_equivalence(
    options: settings.CertaintyEquivalence, seen: Experience, noise: Streams, horizon: int
) -> Tensor:
    """Of the posterior's mean process."""
    return action_values(*_mean(options, seen), horizon)


def beb(options: settings.BEB, seen: Experience, noise: Streams, horizon: int) -> Tensor:
    """Of the mean process with a bonus that falls as 1 / visits (Kolter & Ng 2009).

    TabulaRL's form: 1 / (τ + 1) for the reward, τ its posterior precision, and for what may follow
    2 H³ · scaling / (1 + α) for every step that is left after this one, α the sum of the Dirichlet counts.
    """
    reward, transition = _mean(options, seen)
    bonus = 2 * horizon**3 * options.scaling / (1 + seen.concentration.sum(-1))
    return action_values(reward + 1 / (seen.visits + 2).unsqueeze(1), transition, horizon, bonus.unsqueeze(1))


def value_iteration(options: settings.ValueIteration, seen: Experience, noise: Streams, horizon: int) -> Tensor:
    """Of the true process."""
    assert seen.shown is not None, "the oracle's task_input is row"
    pairs = seen.visits[0].numel()
    reward, transition = seen.shown[:, :pairs], seen.shown[:, pairs:]
    return action_values(reward.view_as(seen.visits).unsqueeze(1), transition.view_as(seen.moves).unsqueeze(1), horizon)


_RULES: dict[type[Settings], Callable[[Any, Experience, Streams, int], Tensor]] = {
    settings.PSRL: psrl,
    settings.OPSRL: opsrl,
    settings.CertaintyEquivalence: certainty_equivalence,
    settings.BEB: beb,
    settings.ValueIteration: value_iteration,
}


def action_values(reward: Tensor, transition: Tensor, horizon: int, bonus: Tensor | float = 0.0) -> Tensor:
    """Backward induction: reward [..., S, A], transition [..., S, A, S] → action values [..., H, S, A].

    `bonus` [..., S, A] is added once for every step that is left after the present one.
    """
    value, values = torch.zeros_like(reward[..., 0]), []
    for left in range(horizon):
        future = (transition * value[..., None, None, :]).sum(-1)  # a product of matrices would round equal rows apart
        values.append(reward + future + left * bonus)
        value = values[-1].amax(-1)
    return torch.stack(values[::-1], dim=-3)


def _mean(options: settings.MDPSettings, seen: Experience) -> tuple[Tensor, Tensor]:
    """The posterior's mean process: rewards [N, 1, S, A], transitions [N, 1, S, A, S]."""
    transition = seen.concentration / seen.concentration.sum(-1, keepdim=True)
    return seen.mean_reward(options.prior_mean).unsqueeze(1), transition.unsqueeze(1)


def _sampled(options: settings.MDPSettings, seen: Experience, noise: Streams) -> tuple[Tensor, Tensor]:
    """A process drawn from the posterior for every lane: rewards [N, M, S, A], transitions [N, M, S, A, S]."""
    pairs = seen.visits.shape[1:]
    deviation = (seen.visits + 1).rsqrt().unsqueeze(1)
    normal = noise.normal(0, pairs.numel()).view(*noise.keys.shape, *pairs)
    concentration = seen.concentration.unsqueeze(1).expand(*normal.shape, -1)
    reward = seen.mean_reward(options.prior_mean).unsqueeze(1) + deviation * normal
    return reward, dirichlet(concentration, noise.split(1, *pairs))


# ---------------------------------------------------------------------------------------------------------------------
# The agent


@tree
class _Plan:
    """The plan of a lane's running episode."""

    values: Tensor  # [N, M, H, S, A] of each action in each state at each step
    time: Tensor  # [N, M] int64: steps of the episode so far


class MDP(Strategy):
    """Plans where an episode begins and follows the plan through it; its belief's row is its experience."""

    def __init__(self, options: Settings, spec: Spec, rng: Rng, device: torch.device) -> None:
        pairs, oracle = spec.obs_width * spec.action_width, isinstance(options, settings.ValueIteration)
        if not spec.discrete or (oracle and spec.task_width != pairs * (1 + spec.obs_width)):
            raise Mistake(
                f"{type(options).__name__} plays finite decision processes, one-hot states and discrete actions"
                f"{', their rewards and transitions in the task row' if oracle else ''}; {spec.name} is none: "
                "choose another agent"
            )
        self.task_input = "row" if oracle else "none"
        self.options = options
        self.rule = _RULES[type(options)]
        self.spec = spec

    def begin(self, view: View, lanes: int) -> Belief:
        """Nothing was tried yet; the oracle is shown the truth."""
        states, actions = self.spec.obs_width, self.spec.action_width
        nothing = torch.zeros(view.rows, states, actions, states, device=view.device)
        seen = Experience(nothing[..., 0], nothing[..., 0], nothing, view.shown)
        values = torch.zeros(view.rows, lanes, self.spec.horizon, states, actions, device=view.device)
        cue = first_cue(self.spec, view.rows, lanes, view.device)
        return Belief(cue, row=seen, lane=_Plan(values, torch.zeros_like(cue[..., 0], dtype=torch.long)))

    def act(self, belief: Belief, obs: Tensor, noise: Streams, counter: int, mode: Mode) -> tuple[Acted, Belief]:
        """The best action of the plan, which is made anew where an episode begins.

        Raises:
            Mistake: an episode begins with an observation that is no one-hot.
        """
        plan: _Plan = belief.lane
        begins = belief.cue[..., -1] == 1
        if begins.any():
            if not ((obs.sum(-1) == 1) & (obs.amax(-1) == 1)).all():
                raise Mistake(f"{self.spec.name}: its observations are no one-hot states; choose another agent")
            fresh = self.rule(self.options, belief.row, noise.split(counter), self.spec.horizon)
            plan = where(begins, _Plan(fresh.expand_as(plan.values), torch.zeros_like(plan.time)), plan)
        rows, lanes = (torch.arange(size, device=obs.device) for size in begins.shape)
        values = plan.values[rows.unsqueeze(1), lanes, plan.time, obs.argmax(-1)]
        action = choose(values, noise, counter)
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
