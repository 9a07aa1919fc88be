"""Random finite Markov decision processes, whose transitions and rewards must be learned within a trial."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Spec, Step, Tasks, one_hot
from metarl_envs.config import TabularMDPConfig


class TabularMDP:
    """S states, A actions, episodes of H steps from state 0.

    ============  =====================================================================================
    observation   [S] the state as a one-hot
    action        one of A
    reward        m[s, a] + standard normal noise
    transition    s′ ~ P[s, a]
    episode       H steps, then truncated
    task row      [S·A + S·A·S] m ~ N(1, 1), then P ~ Dirichlet(1, …, 1); in the split ood, P from squared
                  exponential weights, so that transitions are more predictable
    ============  =====================================================================================
    """

    def __init__(self, config: TabularMDPConfig) -> None:
        self.states, self.actions = config.states, config.actions
        pairs = self.states * self.actions
        self.spec = Spec(
            "tabular-mdp",
            observation={"state": self.states},
            action_width=self.actions,
            discrete=True,
            horizon=config.horizon,
            task_width=pairs + pairs * self.states,
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` rows of mean rewards and transition probabilities."""
        index, pairs = torch.arange(count), self.states * self.actions
        mean = 1 + rng.child(split, "mean").streams(index).normal(0, pairs).squeeze(1)
        uniform = rng.child(split, "transition").streams(index).uniform(0, pairs * self.states)
        weight = -uniform.log().view(
            count, pairs, self.states
        )  # exponential: normalised, they are Dirichlet(1, …, 1)
        weight = weight.square() if split == "ood" else weight
        transition = weight / weight.sum(-1, keepdim=True)
        return Tasks(torch.cat([mean, transition.flatten(1)], dim=1), index, split)

    def make(self, lanes: int) -> _MDPs:
        return _MDPs(self, lanes)

    def unpack(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Task rows [N, P] → mean rewards [N, S, A], transitions [N, S, A, S]."""
        pairs = self.states * self.actions
        return (
            params[:, :pairs].view(-1, self.states, self.actions),
            params[:, pairs:].view(-1, self.states, self.actions, self.states),
        )

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the value of state 0 under the best policy (backward induction over the H steps)."""
        mean, transition = self.unpack(tasks.params)
        value = torch.zeros(len(tasks), self.states, device=mean.device)
        for _ in range(self.spec.horizon):
            value = (mean + torch.einsum("nsat,nt->nsa", transition, value)).max(-1).values
        return value[:, 0]

    def expected_reward(self, tasks: Tasks, rollout: Rollout) -> Tensor:
        """[T, N, M]: the mean of the reward in the state that was met."""
        mean, _ = self.unpack(tasks.params)
        pair = rollout.inputs.obs.argmax(-1) * self.actions + rollout.action
        return mean.flatten(1).expand(len(pair), -1, -1).gather(-1, pair)


class _MDPs:
    """N processes × M lanes."""

    def __init__(self, family: TabularMDP, lanes: int) -> None:
        self._family = family
        self._lanes = lanes

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        mean, transition = self._family.unpack(tasks.params)
        pairs = self._family.states * self._family.actions
        self._mean = mean.flatten()  # [N·S·A]
        self._cumulative = transition.cumsum(-1)[..., :-1].flatten(0, 2)  # [N·S·A, S − 1]
        self._first_pair = pairs * torch.arange(len(tasks), device=mean.device).unsqueeze(1)
        self._move = tasks.streams(rng.child("move"), self._lanes)
        self._noise = tasks.streams(rng.child("reward"), self._lanes)
        self._time = 0
        self._state = torch.zeros(len(tasks), self._lanes, dtype=torch.long, device=mean.device)
        self._never = torch.zeros_like(self._state, dtype=torch.bool)
        return one_hot(self._state, self._family.states)

    def step(self, action: Tensor) -> Step:
        family, pair = self._family, self._first_pair + self._state * self._family.actions + action
        reward = self._mean[pair] + self._noise.normal(self._time, 1).squeeze(-1)
        self._state = (self._cumulative[pair] < self._move.uniform(self._time, 1)).sum(-1)
        self._time += 1
        next_obs = one_hot(self._state, family.states)
        if self._time % family.spec.horizon:
            return Step(
                obs=next_obs,
                next_obs=next_obs,
                reward=reward,
                terminated=self._never,
                truncated=self._never,
            )
        self._state = torch.zeros_like(self._state)
        obs = one_hot(self._state, family.states)
        return Step(
            obs=obs,
            next_obs=next_obs,
            reward=reward,
            terminated=self._never,
            truncated=~self._never,
        )
