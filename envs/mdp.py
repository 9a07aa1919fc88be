"""Random finite Markov decision processes: rewards and transitions must be learned in the trial."""

import torch
from torch import Tensor

from metarl.core.predictions import Predictions, Questions
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Spec, Tasks, one_hot
from metarl_envs.config import TabularMDPConfig
from metarl_envs.episodes import TensorEnv, Transition
from metarl_envs.posteriors import sums_by_place, visits_by_place


class TabularMDP:
    """S states, A actions, episodes of H steps from state 0.

    ============  ==================================================================================
    observation   [S] the state as a one-hot
    action        one of A
    reward        m[s, a] + standard normal noise
    transition    s′ ~ P[s, a]
    episode       H steps, then truncated
    task row      [S·A + S·A·S] m ~ N(1, 1), then P ~ Dirichlet(1, …, 1); in the split ood, P from
                  squared exponential weights, so that transitions are more predictable
    ============  ==================================================================================
    """

    Settings = TabularMDPConfig

    def __init__(self, config: TabularMDPConfig):
        self.states = config.states
        self.actions = config.actions
        self.pairs = self.states * self.actions
        self.spec = Spec(
            "tabular-mdp",
            observation={"state": self.states},
            action_width=self.actions,
            discrete=True,
            horizon=config.horizon,
            task_width=self.pairs + self.pairs * self.states,
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` rows of mean rewards and transition probabilities."""
        index = torch.arange(count)
        mean = 1 + rng.child(split, "mean").streams(index).normal(0, self.pairs).squeeze(1)
        noise = rng.child(split, "transition").streams(index)
        uniform = noise.uniform(0, self.pairs * self.states)

        # exponential weights: normalized, they are Dirichlet(1, …, 1)
        weight = -uniform.log().view(count, self.pairs, self.states)
        if split == "ood":
            weight = weight.square()
        transition = weight / weight.sum(-1, keepdim=True)
        return Tasks(torch.cat([mean, transition.flatten(1)], dim=1), index, split)

    def make(self, lanes: int) -> TensorEnv:
        """N tasks × `lanes` lanes."""
        return _MDPs(self, lanes)

    def unpack(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Task rows [N, P] → mean rewards [N, S, A], transitions [N, S, A, S]."""
        mean = params[:, : self.pairs].view(-1, self.states, self.actions)
        transition = params[:, self.pairs :].view(-1, self.states, self.actions, self.states)
        return mean, transition

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the value of state 0 under the best policy (backward induction over the H steps)."""
        mean, transition = self.unpack(tasks.params)
        value = mean.new_zeros(len(tasks), self.states)
        for _ in range(self.spec.horizon):
            value = (mean + torch.einsum("nsat,nt->nsa", transition, value)).max(-1).values
        return value[:, 0]

    def expected_reward(self, tasks: Tasks, rollout: Rollout) -> Tensor:
        """[T, N, M]: the mean reward of the state and action."""
        mean, _ = self.unpack(tasks.params)
        pair = self._pair(rollout)
        return mean.flatten(1).expand(len(pair), -1, -1).gather(-1, pair)

    def questions(self) -> Questions:
        """Every action in every state, [S·A]; rewards do not depend on where a step leads."""
        states = torch.eye(self.states)
        obs = states.repeat_interleave(self.actions, dim=0)
        action = torch.arange(self.actions).repeat(self.states)
        return Questions(obs, action, next_obs=obs, successors=states)

    def posterior_predictions(self, rollout: Rollout, times: Tensor) -> Predictions:
        """[K, N, M, S·A, …], by conjugacy.

        After n visits, m ~ N((Σ r + 1) / (n + 1), 1 / (n + 1)) and P ~ Dirichlet(counts + 1). The
        last step of an episode tells its reward alone: an acting agent does not observe where it
        led, but the start of the next episode.
        """
        pair = self._pair(rollout)
        visits = visits_by_place(rollout, pair, self.pairs, times)
        total = sums_by_place(rollout, pair, rollout.reward, self.pairs, times)
        mean = (total + 1) / (visits + 1)
        variance = 1 + 1 / (visits + 1)

        place = pair * self.states + rollout.next_obs.argmax(-1)
        places = self.pairs * self.states
        counts = sums_by_place(rollout, place, ~rollout.done, places, times)
        concentration = counts.unflatten(-1, (self.pairs, self.states)) + 1
        successor = concentration / concentration.sum(-1, keepdim=True)
        return Predictions(mean.float(), variance.float(), successor.float())

    def _pair(self, rollout: Rollout) -> Tensor:
        """[T, N, M] int64: the place of every step's state and action among all S·A."""
        return rollout.inputs.obs.argmax(-1) * self.actions + rollout.action


class _MDPs(TensorEnv):
    """N processes × M lanes; the state is an integer [N, M]."""

    family: TabularMDP

    def load(self, tasks: Tasks, rng: Rng) -> None:
        mean, transition = self.family.unpack(tasks.params)
        rows = torch.arange(len(tasks), device=mean.device).unsqueeze(1)
        self._first_pair = self.family.pairs * rows  # [N, 1]
        self._mean = mean.flatten()  # [N·S·A]
        self._cumulative = transition.cumsum(-1)[..., :-1].flatten(0, 2)  # [N·S·A, S − 1]
        self._move = tasks.streams(rng.child("move"), self.lanes)
        self._noise = tasks.streams(rng.child("reward"), self.lanes)

    def start(self) -> Tensor:
        return torch.zeros(self.shape, dtype=torch.long, device=self._mean.device)

    def observe(self, state: Tensor) -> Tensor:
        return one_hot(state, self.family.states)

    def move(self, state: Tensor, action: Tensor) -> Transition:
        pair = self._first_pair + state * self.family.actions + action
        reward = self._mean[pair] + self._noise.normal(self.time, 1).squeeze(-1)
        successor = (self._cumulative[pair] < self._move.uniform(self.time, 1)).sum(-1)
        return Transition(successor, reward)
