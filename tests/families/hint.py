"""A bandit with an arm that pays nothing worth having, but tells which other arm is best."""

from __future__ import annotations

import torch

from metarl import Rng, Spec, Step, Tasks

ARMS = 10


class Hint:
    """One of ten arms pays 1, the others nothing; the eleventh pays 0.02 × the number of that one.

    To pull the eleventh once and the paying one from then on is the optimum. It pays so little that
    it is never worth a pull by itself.
    """

    spec = Spec(
        "hint", {"constant": 1}, ARMS + 1, discrete=True, horizon=1, task_width=1, closed=True
    )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        best = (rng.child(split).rows(count, 1) * ARMS).floor()
        return Tasks(best, torch.arange(count), split)

    def make(self, lanes: int) -> _Pulls:
        return _Pulls(lanes)


class _Pulls:
    def __init__(self, lanes: int) -> None:
        self.lanes = lanes

    def reset(self, tasks: Tasks, rng: Rng) -> torch.Tensor:
        self.best = tasks.params
        return torch.ones(len(tasks), self.lanes, 1)

    def step(self, action: torch.Tensor) -> Step:
        pays = (action == self.best).float()
        tells = 0.02 * self.best.expand_as(pays)
        reward = torch.where(action == ARMS, tells, pays)
        obs = torch.ones(*action.shape, 1)
        over = torch.ones_like(action, dtype=torch.bool)
        return Step(obs, obs, reward, over, ~over)
