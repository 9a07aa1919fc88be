"""Bandits whose arm is a combination of choices, the smallest MultiDiscrete problem."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.core.rng import Rng
from metarl.core.types import Spec, Tasks
from metarl_envs.config import FactoredBanditConfig
from metarl_envs.episodes import TensorEnv, Transition


class FactoredBandit:
    """D choices at once, whose values add up (Zimmert & Seldin 2018, arXiv:1807.01488).

    ============  ==================================================================================
    observation   [1] the constant 1
    action        D choices, each one of k
    reward        the mean of the D chosen values; which of them was good must be inferred
    episode       one pull, which terminates
    task row      [D · k] the values of all choices: uniform on [0, 1]; in the split ood u² with u
                  uniform, so that good ones are rare
    ============  ==================================================================================
    """

    Settings = FactoredBanditConfig

    def __init__(self, config: FactoredBanditConfig):
        nvec = (config.arms,) * config.factors
        self.spec = Spec(
            "factored-bandit",
            observation={"constant": 1},
            action_width=sum(nvec),
            discrete=True,
            horizon=1,
            task_width=sum(nvec),
            nvec=nvec,
        )
        self.mean_optimum = config.arms / (config.arms + 1)  # the largest of k uniform ones

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` rows of values."""
        values = rng.child(split).rows(count, self.spec.task_width)
        if split == "ood":
            values = values.square()
        return Tasks.numbered(values, split)

    def make(self, lanes: int) -> _Pulls:
        """N tasks × `lanes` lanes."""
        return _Pulls(self, lanes)

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the mean of the best values."""
        return tasks.params.unflatten(-1, (len(self.spec.nvec), -1)).amax(-1).mean(-1)


class _Pulls(TensorEnv):
    """The state is the observation."""

    def load(self, tasks: Tasks, rng: Rng) -> None:
        factors = len(self.family.spec.nvec)
        values = tasks.params.view(len(tasks), 1, factors, -1)
        self._values = values.expand(-1, self.lanes, -1, -1)  # [N, M, D, k]

    def start(self) -> Tensor:
        return torch.ones(*self.shape, 1, device=self._values.device)

    def move(self, state: Tensor, action: Tensor) -> Transition:
        chosen = self._values.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        reward = chosen.mean(-1)
        return Transition(state, reward, torch.ones_like(reward, dtype=torch.bool))
