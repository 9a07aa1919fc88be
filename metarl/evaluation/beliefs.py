"""What an agent believes of tasks, beside the exact posterior of Bayes' rule.

A posterior that grows narrow, or a lower bound that rises, is no evidence that a belief is right:
its predictions must be those of Bayes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.collect.collector import adaptation_rounds, task_info
from metarl.core.agent import Agent
from metarl.core.errors import ConfigError
from metarl.core.family import Family
from metarl.core.predictions import KnowsPosterior, Predictions, Predicts, Questions
from metarl.core.protocol import EvalProtocol
from metarl.core.rollout import Rollout, join_steps
from metarl.core.types import Belief, Spec, Tasks, tree_map
from metarl.evaluation.meta_test import to_numpy, trial
from metarl.evaluation.stats import Array

_LEAST = 1e-6
"""No probability counts as less: a zero would cost infinitely many nats."""

_LEAST_SHARE = 1e-4
"""No variance counts as less than so much of the largest by Bayes' rule: a deviation of 1 %."""


@dataclass(frozen=True)
class Beliefs:
    """KL(Bayes ‖ …) in nats a prediction, of N tasks at K times; and what is predicted."""

    title: str
    times: tuple[int, ...]  # [K] steps of the trial
    reward: dict[str, Array]  # [K, N] each, of the agent, the prior, and another task's belief
    successor: dict[str, Array]  # [K, N] each; empty: not asked, or not predicted
    exact: Predictions  # [K, N, M, Q, …] by Bayes' rule
    agent: Predictions  # [K, N, M, Q, …] by the agent
    questions: Questions


def compare_beliefs(
    agent: Agent, family: Family, protocol: EvalProtocol, times: Sequence[int] | None = None
) -> Beliefs:
    """What `agent` predicts after its first `times` steps of trials, beside Bayes' rule.

    The histories are those that the agent acts out by `protocol`. By default `times` are 0, and a
    fifth, a half and all of the trial. "another task's" is the belief of the next task: what it
    costs more than the own one is what the agent knows of the task itself.

    Raises:
        ConfigError: an agent that predicts nothing, or a family that knows no posterior.
    """
    if not isinstance(agent, Predicts) or not agent.predicts:
        raise ConfigError(
            f"{type(agent).__name__} predicts no outcomes; choose an agent that does: "
            "varibad, or pearl with agent.teacher=outcomes"
        )
    if not isinstance(family, KnowsPosterior):
        raise ConfigError(
            f"{family.spec.name} knows no exact posterior: give it questions and "
            "posterior_predictions (see docs/plugging-in.md)"
        )
    if times is not None and not len(times):
        raise ConfigError("times: none is given; name steps of the trial, such as 0 and 20")
    tasks = protocol.rows(family, agent)
    if len(tasks) < 2:
        raise ConfigError("tasks: another task's belief is compared, too; ask for 2 or more")
    rollout = join_steps([part for part, _ in trial(agent, family, tasks, protocol)])
    steps = len(rollout.valid)
    if times is None:
        times = sorted({0, steps // 5, steps // 2, steps})
    late = [time for time in times if not 0 <= time <= steps]
    if late:
        raise ConfigError(f"times: {late[0]} is not in a trial of {steps} steps")

    questions = tree_map(lambda x: x.to(tasks.params.device), family.questions())
    exact = family.posterior_predictions(rollout, torch.tensor(times))
    prior = family.posterior_predictions(rollout, torch.zeros(1, dtype=torch.long))
    own, others = [], []
    for time in times:
        belief, obs = _belief_at(agent, family.spec, protocol, tasks, rollout, time)
        own.append(agent.predict(belief, obs, questions))
        others.append(agent.predict(tree_map(lambda x: x.roll(1, 0), belief), obs, questions))
    predicted = {
        "agent": _stack(own),
        "prior": tree_map(lambda x, like: x.expand_as(like), prior, exact),
        "another task's": _stack(others),
    }
    reward, successor = {}, {}
    for name, model in predicted.items():
        reward[name] = _per_task(reward_kl(exact, model, questions))
        if exact.successor is not None and model.successor is not None:
            successor[name] = _per_task(categorical_kl(exact.successor, model.successor))
    return Beliefs(
        f"{type(agent).__name__} on {len(tasks)} {tasks.split} tasks of {family.spec.name}",
        tuple(times),
        reward,
        successor if "agent" in successor else {},
        exact,
        predicted["agent"],
        questions,
    )


def reward_kl(exact: Predictions, model: Predictions, questions: Questions) -> Tensor:
    """[...]: KL(exact ‖ model) of the reward in nats.

    Of two possible rewards that is of Bernoulli variables; else of normal ones with the mean and
    variance that are predicted.
    """
    if questions.rewards is not None:
        low, high = questions.rewards
        p = ((exact.reward - low) / (high - low)).clamp(0, 1)
        q = ((model.reward - low) / (high - low)).clamp(0, 1)
        return categorical_kl(torch.stack([p, 1 - p], -1), torch.stack([q, 1 - q], -1))
    least = (_LEAST_SHARE * exact.variance.amax()).clamp(min=torch.finfo(torch.float32).tiny)
    variance = model.variance.clamp(min=least)
    ratio = exact.variance.clamp(min=least) / variance
    gap = (exact.reward - model.reward).square() / variance
    return 0.5 * (ratio + gap - 1 - ratio.log())


def categorical_kl(exact: Tensor, model: Tensor) -> Tensor:
    """[...]: KL(exact ‖ model) in nats, of probabilities [..., C]."""
    model = model.clamp(min=_LEAST)
    return (torch.xlogy(exact, exact) - torch.xlogy(exact, model)).sum(-1)


def _belief_at(
    agent: Agent, spec: Spec, protocol: EvalProtocol, tasks: Tasks, rollout: Rollout, time: int
) -> tuple[Belief, Tensor]:
    """The belief after `time` steps of every trial, and the observation [N, M, O] to act on.

    Where the trial is over, that is how it began: another episode would begin so.
    """
    rounds = adaptation_rounds(agent, protocol.episodes)
    belief = agent.begin(task_info(agent, spec, tasks, rounds, protocol.train_set), agent.lanes)
    if time:
        belief = agent.replay(belief, rollout.first_steps(time))
    over = rollout.valid.sum(0) <= time  # [N, M]: valid steps come first
    obs = rollout.inputs.obs
    here = obs[min(time, len(obs) - 1)]
    return belief, torch.where(over.unsqueeze(-1), obs[0], here)


def _stack(parts: Sequence[Predictions]) -> Predictions:
    return tree_map(lambda *x: torch.stack(x), *parts)


def _per_task(nats: Tensor) -> Array:
    """[K, N]: the mean over lanes and questions of nats [K, N, M, Q]."""
    return to_numpy(nats.mean((2, 3)))
