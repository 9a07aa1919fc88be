"""Adaptation curves: how well an agent does on tasks it has not seen, episode by episode."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from metarl.collect.collector import adaptation_rounds, collect, task_info
from metarl.core.agent import Agent
from metarl.core.errors import ConfigError, FamilyError
from metarl.core.family import BatchEnv, Family, HasMeanOptimum, KnowsExpectedReward, KnowsOptimum
from metarl.core.protocol import EvalProtocol
from metarl.core.rollout import Rollout
from metarl.core.types import Belief, Tasks
from metarl.evaluation import stats

ARRAYS = ("returns", "success", "optimum")
"""The fields of `Scores` that hold a number a task."""

_CHUNK = 2048  # task rows × lanes evaluated side by side


@dataclass(frozen=True)
class Scores:
    """What R runs of one agent reached on the same N tasks.

    A trial has K rounds of M episodes side by side, each before an adaptation. Where the family
    knows the means of its rewards, `returns` are sums of these (pseudo-returns): the same
    expectation with far less noise.
    """

    returns: stats.Array
    """[R, K, N] return of an episode of the k-th round, the mean of the lanes."""
    success: stats.Array | None
    """[R, K, N] share of lanes that succeeded at any step, where the family has a notion of it."""
    optimum: stats.Array | None
    """[N] best expected return of an episode if the task is known, where the family knows it."""
    mean_optimum: float | None
    """The exact mean of that over all tasks of the split, where the family knows it; None of tasks
    that are given, or of a fixed training set."""
    lanes: int
    """M, episodes side by side in a round."""
    split: str
    closed: bool
    """Whether the family has no other tasks than those of the training."""
    mode: str
    test_mode: str
    """Of the last round."""
    seed: int
    task_hash: str

    @property
    def episodes_consumed(self) -> range:
        """[K] episodes of a task by the end of each round: the x-axis of adaptation."""
        return range(self.lanes, self.episodes + 1, self.lanes)

    @property
    def episodes(self) -> int:
        """Of the whole trial, in all lanes: K·M."""
        return int(self.lanes * self.returns.shape[1])

    @property
    def totals(self) -> stats.Array:
        """[R, N]: return of the whole trial, all its K·M episodes.

        Task-sampling noise is removed with the known optimum as a control variate, where its exact
        mean is known: K·M · mean optimum − regret.
        """
        if self.optimum is None or self.mean_optimum is None:
            return self.lanes * self.returns.sum(1)
        return self.episodes * self.mean_optimum - self.regrets

    @property
    def regrets(self) -> stats.Array:
        """[R, N]: what the trial's return falls short of the optimum's.

        Raises:
            FamilyError: the family does not know its optimum.
        """
        if self.optimum is None:
            raise FamilyError(
                "regret: the family does not know its optimum; give it a method optimum(tasks)"
            )
        return self.episodes * self.optimum - self.lanes * self.returns.sum(1)

    def figure(self, which: str) -> stats.Array:
        """[R, N]: "total", the trial's return, or "last", that of an episode of its last round."""
        return self.totals if which == "total" else self.returns[:, -1]

    def summary(self) -> dict[str, Any]:
        """Mean and interquartile mean with 95 % intervals, curve over rounds, regret, success."""
        curve = stats.mean_curve(self.returns)
        summary: dict[str, Any] = {
            "total": _estimates(self.totals),
            "last": _estimates(self.returns[:, -1]),
            "curve": dict(zip(("mean", "low", "high"), np.stack(curve).tolist(), strict=True)),
        }
        if self.optimum is not None:
            summary["regret"] = _estimates(self.regrets)
            summary["optimum"] = float(self.optimum.mean())
        if self.success is not None:
            summary["success"] = _estimates(self.success[:, -1])
        return summary

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain values with six decimals."""
        plain = dict(vars(self))
        for name in ARRAYS:
            if plain[name] is not None:
                plain[name] = np.round(plain[name], 6).tolist()
        plain["episodes_consumed"] = list(self.episodes_consumed)
        plain["summary"] = self.summary()
        return plain


def _estimates(scores: stats.Array) -> dict[str, Any]:
    return {"mean": vars(stats.mean(scores)), "iqm": vars(stats.iqm(scores))}


def evaluate(
    agent: Agent,
    family: Family,
    protocol: EvalProtocol | None = None,
    **changes: Any,
) -> Scores:
    """Let `agent` adapt to the tasks of a protocol: begin, then act and adapt in rounds.

    ``evaluate(agent, family, episodes=10, tasks=1000, split="test", mode="sample", seed=0)`` names
    the settings of an `EvalProtocol`, or changes of the one that is given; `tasks` may be `Tasks`
    of one's own. An agent of M lanes has `episodes` / M rounds, and adapts to M episodes after
    each. The result has R = 1; `combine` joins several runs.

    Raises:
        MetaRLError: a split that the family does not have, episodes that the agent's lanes cannot
            share evenly, or an agent that must be shown what these tasks cannot show.
    """
    protocol = protocol.changed(**changes) if protocol else EvalProtocol(**changes)
    rows = protocol.rows(family)
    chunk = max(1, _CHUNK // agent.lanes)
    parts = []
    for first in range(0, len(rows), chunk):
        parts.append(_evaluate_rows(agent, family, rows[first : first + chunk], protocol))
    returns, successes = zip(*parts, strict=True)
    mean_optimum = None
    given = isinstance(protocol.tasks, Tasks)
    fixed = given or (protocol.train_set is not None and rows.split == "train")
    if isinstance(family, HasMeanOptimum) and rows.split != "ood" and not fixed:
        mean_optimum = family.mean_optimum
    return Scores(
        returns=np.concatenate(returns, axis=1)[None],
        success=None if successes[0] is None else np.concatenate(successes, axis=1)[None],
        optimum=to_numpy(family.optimum(rows)) if isinstance(family, KnowsOptimum) else None,
        mean_optimum=mean_optimum,
        lanes=agent.lanes,
        split=rows.split,
        closed=family.spec.closed and not given,
        mode=protocol.mode,
        test_mode=protocol.mode_of(rounds_left=0),
        seed=protocol.seed,
        task_hash=_hash(rows),
    )


def combine(scores: Sequence[Scores]) -> Scores:
    """The runs of several `Scores` on the same tasks as one.

    Raises:
        ConfigError: they are not of the same tasks and the same protocol.
    """
    first = scores[0]
    for other in scores:
        if _met(other) != _met(first):
            raise ConfigError(
                "scores of different tasks, episodes, lanes or modes cannot be combined; "
                "evaluate all with the same options"
            )
    returns = np.concatenate([s.returns for s in scores])
    if first.success is None:
        return replace(first, returns=returns)
    success = np.concatenate([s.success for s in scores if s.success is not None])
    return replace(first, returns=returns, success=success)


def _met(scores: Scores) -> tuple[str, str, str, range]:
    """Which tasks, and how."""
    return scores.task_hash, scores.mode, scores.test_mode, scores.episodes_consumed


# -------------------------------------------------------------------------------------------------
# Meeting tasks


def trial(
    agent: Agent,
    family: Family,
    tasks: Tasks,
    protocol: EvalProtocol,
    env: BatchEnv | None = None,
    lanes: int = 0,
) -> Iterator[tuple[Rollout, Belief]]:
    """Begin, then act and adapt in rounds until all episodes of `protocol` are used.

    Each round yields its rollout, and the belief after adapting to it. The environment is `env`, or
    a new one, with so many `lanes`: the agent's own, or more, to see other randomness as well.

    Raises:
        MetaRLError: the agent's lanes cannot share the episodes evenly, or it is shown a one-hot,
            which given tasks do not have.
    """
    spec, lanes = family.spec, lanes or agent.lanes
    if agent.task_input == "onehot" and isinstance(protocol.tasks, Tasks):
        raise ConfigError("tasks: an agent that is shown a one-hot knows only its training tasks")
    rounds = adaptation_rounds(agent, protocol.episodes)
    prior = agent.begin(task_info(agent, spec, tasks, rounds, protocol.train_set), lanes=lanes)
    world = env or family.make(lanes)

    rng = protocol.rng

    def adapt_in_rounds(belief: Belief) -> Iterator[tuple[Rollout, Belief]]:
        for k in range(rounds):
            rollout, belief = collect(
                agent,
                world,
                spec,
                belief,
                tasks,
                1,
                rng.child("episode", k),
                protocol.mode_of(rounds - 1 - k),
            )
            belief = agent.adapt(belief, rollout)
            yield rollout, belief

    return adapt_in_rounds(prior)


def _evaluate_rows(
    agent: Agent,
    family: Family,
    tasks: Tasks,
    protocol: EvalProtocol,
) -> tuple[stats.Array, stats.Array | None]:
    """Returns and success, [K, N] each."""
    returns, success = [], []
    expected = family.expected_reward if isinstance(family, KnowsExpectedReward) else None
    for rollout, _ in trial(agent, family, tasks, protocol):
        reward = expected(tasks, rollout) if expected else rollout.reward
        returns.append(to_numpy(rollout.episode_returns(reward)[0].mean(-1)))
        if rollout.success is not None:
            success.append(to_numpy((rollout.success & rollout.valid).any(0).double().mean(-1)))
    return np.stack(returns), np.stack(success) if success else None


def to_numpy(tensor: Tensor) -> stats.Array:
    """In float64, on the CPU."""
    return tensor.detach().double().cpu().numpy()


def _hash(tasks: Tasks) -> str:
    """Which tasks these are, to compare results by."""
    content = tasks.split.encode() + tasks.params.cpu().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]
