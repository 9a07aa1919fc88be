"""What is predicted of a task: the outcomes of steps that are asked for, by Bayes' rule or a model.

An agent that says what it believes of a task (`Predicts`) can then be compared with a family that
knows the exact posterior (`KnowsPosterior`).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from metarl.core.rollout import Rollout
from metarl.core.types import Belief, static, tree


@tree
class Questions:
    """Q steps whose outcomes are asked for."""

    obs: Tensor  # [Q, O]
    action: Tensor  # [Q] int64 or [Q, A]
    next_obs: Tensor  # [Q, O] where they led: their rewards may depend on it
    successors: Tensor | None = None  # [C, O] next observations to choose from; None: not asked
    rewards: tuple[float, float] | None = static(default=None)
    """The only two rewards that there are, the lower first; None: any."""


@tree
class Predictions:
    """Predictive distributions of the outcomes of Q questions."""

    reward: Tensor  # [..., Q] its mean
    variance: Tensor  # [..., Q] of the reward, its noise included
    successor: Tensor | None = None  # [..., Q, C] probabilities


@runtime_checkable
class KnowsPosterior(Protocol):
    """A family whose posterior over tasks, given a history, is known exactly."""

    def questions(self) -> Questions:
        """What is worth asking."""

    def posterior_predictions(self, rollout: Rollout, times: Tensor) -> Predictions:
        """[K, N, M, Q, …]: of an ideal observer after the first `times` [K] steps of every trial.

        At time 0 that is the prior of the split train. Steps that are not valid tell nothing.
        """


@runtime_checkable
class Predicts(Protocol):
    """An agent that says what it expects of steps that it has not taken."""

    predicts: bool
    """Whether it was trained to."""

    def predict(self, belief: Belief, obs: Tensor, questions: Questions) -> Predictions:
        """[N, M, Q, …]: by its belief, where it would act on obs [N, M, O] next."""
