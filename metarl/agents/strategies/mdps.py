"""Classical rules for tabular MDPs: each plans an episode from the belief at its start.

Under the prior, mean rewards are N(prior_mean, 1), rewards have variance 1, and transitions are
Dirichlet(1, …, 1), as they are in metarl's tabular-mdp. Definitions follow TabulaRL (Osband & Van
Roy 2016, arXiv:1607.00215), which Duan et al. 2016 (arXiv:1611.02779) compare RL² with.
"""

import torch
from torch import Tensor

from metarl.agents.strategies.config import (
    BEBConfig,
    CertaintyEquivalenceConfig,
    OPSRLConfig,
    PSRLConfig,
)
from metarl.agents.strategies.strategy import Strategy, random_argmax, sample_dirichlet
from metarl.config.registry import Settings
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
    tree,
    tree_map,
    where,
)


@tree
class Experience:
    """Counts of every row's process so far, and the posterior that they give."""

    visits: Tensor  # [..., S, A] how often an action was taken in a state
    reward_sum: Tensor  # [..., S, A]
    transitions: Tensor  # [..., S, A, S] how often it led to each state
    shown: Tensor | None = None  # [..., S·A + S·A·S] the oracle's: true mean rewards, transitions

    def mean_reward(self, prior_mean: float) -> Tensor:
        """[..., S, A]: posterior mean of the mean rewards; the variance is 1 / (visits + 1)."""
        return (self.reward_sum + prior_mean) / (self.visits + 1)

    @property
    def concentration(self) -> Tensor:
        """[..., S, A, S]: of the Dirichlet posterior of the transitions."""
        return self.transitions + 1

    def mean_process(self, prior_mean: float) -> tuple[Tensor, Tensor]:
        """The posterior mean: rewards [..., S, A], transitions [..., S, A, S]."""
        concentration = self.concentration
        transition = concentration / concentration.sum(-1, keepdim=True)
        return self.mean_reward(prior_mean), transition

    def true_process(self) -> tuple[Tensor, Tensor]:
        """What the oracle is shown: rewards [..., S, A], transitions [..., S, A, S]."""
        assert self.shown is not None, "the oracle's task_input is row"
        pairs = self.visits[0].numel()
        reward, transition = self.shown.tensor_split([pairs], dim=-1)
        return reward.view_as(self.visits), transition.view_as(self.transitions)

    def sample_process(self, prior_mean: float, noise: Streams) -> tuple[Tensor, Tensor]:
        """A posterior sample for every stream of `noise` [N, M], of counts [N, 1, S, A]."""
        pairs = self.visits.shape[2:]
        normal = noise.normal(0, pairs.numel()).unflatten(-1, pairs)
        reward = self.mean_reward(prior_mean) + (self.visits + 1).rsqrt() * normal
        concentration = self.concentration.expand(*normal.shape, -1)
        return reward, sample_dirichlet(concentration, noise.split(1, *pairs))


# -------------------------------------------------------------------------------------------------
# Rules: one stream of `noise` per lane [N, M] → Q [N, 1 or M, H, S, A]


def plan(
    config: Settings,
    experience: Experience,
    noise: Streams,
    horizon: int,
) -> Tensor:
    """Q of the process that the configured rule solves."""
    experience = tree_map(lambda x: x.unsqueeze(1), experience)
    match config:
        case PSRLConfig():
            process = experience.sample_process(config.prior_mean, noise)
        case OPSRLConfig():
            return opsrl(config, experience, noise, horizon)
        case CertaintyEquivalenceConfig():
            process = experience.mean_process(config.prior_mean)
        case BEBConfig():
            return beb(config, experience, horizon)
        case _:
            process = experience.true_process()
    return q_values(*process, horizon)


def opsrl(
    config: OPSRLConfig,
    experience: Experience,
    noise: Streams,
    horizon: int,
) -> Tensor:
    """The maximum over several drawn processes, for each state and action."""
    values: list[Tensor] = []
    for sample in range(config.samples):
        process = experience.sample_process(config.prior_mean, noise.split(sample))
        values.append(q_values(*process, horizon))
    return torch.stack(values).amax(0)


def beb(config: BEBConfig, experience: Experience, horizon: int) -> Tensor:
    """Of the mean process with a bonus that falls as 1 / visits (Kolter & Ng 2009).

    TabulaRL's form: 1 / (τ + 1) for the reward, τ its posterior precision, and for the transitions
    2 H³ · scaling / (1 + α) for every step after this one, α the sum of the Dirichlet counts.
    """
    reward, transition = experience.mean_process(config.prior_mean)
    reward = reward + 1 / (experience.visits + 2)
    bonus = 2 * horizon**3 * config.scaling / (1 + experience.concentration.sum(-1))
    return q_values(reward, transition, horizon, bonus)


def q_values(
    reward: Tensor,
    transition: Tensor,
    horizon: int,
    bonus: Tensor | float = 0.0,
) -> Tensor:
    """Backward induction: reward [..., S, A], transition [..., S, A, S] → Q [..., H, S, A].

    `bonus` [..., S, A] is added once for every step that is left after the present one.
    """
    value = torch.zeros_like(reward[..., 0])
    values: list[Tensor] = []
    for left in range(horizon):
        # A matrix product might round equal rows differently.
        future = (transition * value[..., None, None, :]).sum(-1)
        values.insert(0, reward + future + left * bonus)
        value = values[0].amax(-1)
    return torch.stack(values, dim=-3)


# -------------------------------------------------------------------------------------------------
# The agent


@tree
class _Plan:
    """The plan of a lane's running episode."""

    values: Tensor  # [N, M, H, S, A] Q of each step
    time: Tensor  # [N, M] int64: steps of the episode so far


class MDP(Strategy):
    """Plans at the start of an episode and follows the plan; its belief's row is `Experience`."""

    needs = "a tabular MDP (one-hot states, discrete actions)"

    def suits(self, spec: Spec) -> bool:
        """Whether the family may be a tabular MDP; observations are checked when they come."""
        return spec.single_choice

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """No experience yet; the oracle is shown the task."""
        states = self.spec.obs_width
        actions = self.spec.action_width
        zero = torch.zeros(info.rows, states, actions, states, device=info.device)
        experience = Experience(zero[..., 0], zero[..., 0], zero, info.shown)

        cue = first_cue(self.spec, info.rows, lanes, info.device)
        time = torch.zeros_like(cue[..., 0], dtype=torch.long)
        values = cue.new_zeros(info.rows, lanes, self.spec.horizon, states, actions)
        return Belief(cue, row=experience, lane=_Plan(values, time))

    def act(
        self,
        belief: Belief,
        obs: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> tuple[Acted, Belief]:
        """The best action of the plan, which is made anew where an episode begins.

        Raises:
            ConfigError: the first observation of an episode is not one-hot.
        """
        current: _Plan = belief.lane
        begins = belief.cue[..., -1] == 1
        if begins.any():
            if not ((obs.sum(-1) == 1) & (obs.amax(-1) == 1)).all():
                raise ConfigError(
                    f"{self.spec.name}: observations are not one-hot states; choose another agent"
                )
            values = plan(self.config, belief.row, noise.split(counter), self.spec.horizon)
            new = _Plan(values.expand_as(current.values), torch.zeros_like(current.time))
            current = where(begins, new, current)
        rows, lanes = map(torch.arange, obs.shape[:2])
        values = current.values[rows.unsqueeze(1), lanes, current.time, obs.argmax(-1)]
        action = random_argmax(values, noise, counter)
        lane = replace(current, time=current.time + 1)
        return self.acted(belief, obs, action), replace(belief, lane=lane)

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Count every lane's state-action pairs, their rewards and transitions.

        The last step of an episode has no transition: an agent in use does not observe where it
        led, but the start of the next episode.
        """
        experience: Experience = belief.row
        obs = rollout.inputs.obs
        taken = one_hot(rollout.action, self.spec.action_width) * rollout.valid.unsqueeze(-1)
        reward = rollout.reward.where(rollout.valid, 0.0)
        next_obs = rollout.next_obs * ~rollout.done.unsqueeze(-1)
        visits = torch.einsum("tnms,tnma->nsa", obs, taken)
        reward_sum = torch.einsum("tnms,tnma,tnm->nsa", obs, taken, reward)
        transitions = torch.einsum("tnms,tnma,tnmz->nsaz", obs, taken, next_obs)
        experience = replace(
            experience,
            visits=experience.visits + visits,
            reward_sum=experience.reward_sum + reward_sum,
            transitions=experience.transitions + transitions,
        )
        return replace(belief, row=experience)


class Oracle(MDP):
    """Solves the true process, which it is shown."""

    task_input = "row"
    needs = "a tabular MDP with its rewards and transitions as the task row"

    def suits(self, spec: Spec) -> bool:
        """Whether the task row is as wide as the rewards and transitions."""
        pairs = spec.obs_width * spec.action_width
        return spec.single_choice and spec.task_width == pairs * (1 + spec.obs_width)
