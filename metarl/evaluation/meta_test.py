"""Adaptation curves: how well an agent does on tasks it has not seen, episode by episode."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from metarl.collect.collector import collect, rounds, task_info
from metarl.core.agent import Agent, Mode
from metarl.core.errors import MetaRLError, suggest
from metarl.core.family import BatchEnv, Family
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Belief, Spec, Tasks
from metarl.evaluation import stats

ARRAYS = ("returns", "success", "optimum")
"""The fields of `Scores` that hold a number a task."""

_CHUNK = 2048  # task rows × lanes evaluated side by side


@dataclass(frozen=True)
class Scores:
    """What R runs of one agent did on the same N tasks: K rounds of M episodes side by side, each before an adaptation.

    Where the family knows the mean of its rewards, `returns` are sums of these means (pseudo-returns): the same
    expectation as the rewards that fell, with far less noise.
    """

    returns: stats.Array  # [R, K, N] return of an episode of the k-th round, mean of the lanes
    success: (
        stats.Array | None
    )  # [R, K, N] share of lanes that succeeded at any step, where that has a meaning
    optimum: (
        stats.Array | None
    )  # [N] best expected return of an episode for who knows the task, where it is known
    mean_optimum: float | None  # its exact mean over all tasks of the split, where it is known
    lanes: int  # episodes side by side in a round, M
    split: str
    closed: (
        bool  # whether these are the tasks that agents were trained on, the family having no others
    )
    mode: str
    seed: int
    task_hash: str

    @property
    def episodes_consumed(self) -> range:
        """[K] how many episodes of a task were lived through at the end of each round: the x-axis of adaptation."""
        return range(self.lanes, self.episodes + 1, self.lanes)

    @property
    def episodes(self) -> int:
        """Of the whole trial, in all lanes: K·M."""
        return int(self.lanes * self.returns.shape[1])

    @property
    def totals(self) -> stats.Array:
        """[R, N]: return of the whole trial, all its K·M episodes.

        Where the optimum's exact mean is known, the luck of the drawn tasks is taken out: K·M · mean optimum − regret.
        """
        if self.optimum is None or self.mean_optimum is None:
            return np.asarray(self.lanes * self.returns.sum(1))
        return np.asarray(self.episodes * self.mean_optimum - self.regrets)

    @property
    def regrets(self) -> stats.Array:
        """[R, N]: what the trial's return falls short of the optimum's.

        Raises:
            MetaRLError: the family does not know its optimum.
        """
        if self.optimum is None:
            raise MetaRLError(
                "regret: the family does not know its optimum; give it a method optimum(tasks)"
            )
        return np.asarray(self.episodes * self.optimum - self.lanes * self.returns.sum(1))

    def figure(self, which: str) -> stats.Array:
        """[R, N]: "total", the trial's return, or "last", that of an episode of its last round."""
        return self.totals if which == "total" else np.asarray(self.returns[:, -1])

    def summary(self) -> dict[str, Any]:
        """Mean and interquartile mean with 95 % intervals, the curve over rounds, regret and success if known."""

        def both(scores: stats.Array) -> dict[str, Any]:
            return {"mean": vars(stats.mean(scores)), "iqm": vars(stats.iqm(scores))}

        curve = dict(
            zip(
                ("mean", "low", "high"),
                (x.tolist() for x in stats.mean_curve(self.returns)),
                strict=True,
            )
        )
        summary: dict[str, Any] = {
            "total": both(self.totals),
            "last": both(self.returns[:, -1]),
            "curve": curve,
        }
        if self.optimum is not None:
            summary["regret"] = both(self.regrets)
            summary["optimum"] = float(self.optimum.mean())
        if self.success is not None:
            summary["success"] = both(self.success[:, -1])
        return summary

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain values with six decimals."""
        arrays = {
            name: None if getattr(self, name) is None else np.round(getattr(self, name), 6).tolist()
            for name in ARRAYS
        }
        return (
            vars(self)
            | arrays
            | {"episodes_consumed": list(self.episodes_consumed), "summary": self.summary()}
        )


def evaluate(
    agent: Agent,
    family: Family,
    *,
    episodes: int,
    tasks: int = 1000,
    split: str = "test",
    mode: Mode = "sample",
    seed: int = 0,
    train_set: Tasks | None = None,
    device: str | torch.device = "cpu",
) -> Scores:
    """Let `agent` meet `tasks` rows of `split` and live through `episodes` episodes of each: begin, act, adapt.

    These are all that it may use: an agent of M lanes has `episodes` / M rounds, and adapts to M episodes after each.
    Tasks and chance come from `seed` alone, so that all agents meet the same ones. A result has R = 1; `combine` joins
    several training runs. Where an agent was trained on a fixed `train_set`, that is the split train.

    Raises:
        MetaRLError: a split that the family does not have, episodes that cannot be shared out among the agent's lanes, or
            an agent that needs to be shown what these tasks cannot show.
    """
    rng = evaluation_rng(seed)
    rows = sample_tasks(family, split, tasks, rng, train_set).to(torch.device(device))
    chunk = max(1, _CHUNK // agent.lanes)
    parts = [
        _evaluate_rows(agent, family, rows[first : first + chunk], episodes, mode, rng, train_set)
        for first in range(0, len(rows), chunk)
    ]
    returns, successes = zip(*parts, strict=True)
    optimum = getattr(family, "optimum", None)
    return Scores(
        returns=np.concatenate(returns, axis=1)[None],
        success=None if successes[0] is None else np.concatenate(successes, axis=1)[None],
        optimum=None if optimum is None else optimum(rows).double().cpu().numpy(),
        mean_optimum=None if split == "ood" else getattr(family, "mean_optimum", None),
        lanes=agent.lanes,
        split=split,
        closed=family.spec.closed,
        mode=mode,
        seed=seed,
        task_hash=_hash(rows),
    )


def combine(scores: Sequence[Scores]) -> Scores:
    """The runs of several `Scores` on the same tasks as one.

    Raises:
        MetaRLError: they were not made on the same tasks in the same way.
    """
    first = scores[0]
    ways = [(s.task_hash, s.mode, s.episodes_consumed) for s in scores]
    if any(way != ways[0] for way in ways):
        raise MetaRLError(
            "scores of different tasks, episodes, lanes or modes cannot be combined; evaluate all with the same options"
        )
    success = (
        None
        if first.success is None
        else np.concatenate([s.success for s in scores if s.success is not None])
    )
    return replace(first, returns=np.concatenate([s.returns for s in scores]), success=success)


# ---------------------------------------------------------------------------------------------------------------------
# Meeting tasks


def evaluation_rng(seed: int) -> Rng:
    """Where all randomness of an evaluation with this seed comes from."""
    return Rng(seed).child("evaluate")


def sample_tasks(
    family: Family, split: str, count: int, rng: Rng, train_set: Tasks | None
) -> Tasks:
    """The first `count` rows of `split`; of the fixed `train_set`, if there is one, where the split is train.

    Raises:
        MetaRLError: a split that the family does not have.
    """
    if split not in family.spec.splits:
        raise MetaRLError(
            f"{family.spec.name} has no split {split!r}: {suggest(split, family.spec.splits)}"
        )
    if train_set is not None and split == "train":
        return train_set[:count]
    return family.tasks(split, count, rng.child("tasks"))


def trial(
    agent: Agent,
    env: BatchEnv,
    spec: Spec,
    tasks: Tasks,
    episodes: int,
    mode: Mode,
    rng: Rng,
    *,
    lanes: int,
    train_set: Tasks | None = None,
) -> Iterator[tuple[Rollout, Belief]]:
    """Begin, then act and adapt in rounds until all `episodes` are used.

    Each round gives what was lived through, and what is believed after adapting to it.
    `lanes` stand in the environment: the agent's own, or more, to see what might have happened as well.

    Raises:
        MetaRLError: the episodes cannot be shared out among the agent's lanes.
    """
    count = rounds(agent, episodes)
    begun = agent.begin(task_info(agent, spec, tasks, count, train_set), lanes=lanes)

    def live(belief: Belief) -> Iterator[tuple[Rollout, Belief]]:
        for k in range(count):
            rollout, belief = collect(
                agent, env, spec, belief, tasks, 1, rng.child("episode", k), mode
            )
            belief = agent.adapt(belief, rollout)
            yield rollout, belief

    return live(begun)


def _evaluate_rows(
    agent: Agent,
    family: Family,
    tasks: Tasks,
    episodes: int,
    mode: Mode,
    rng: Rng,
    train_set: Tasks | None,
) -> tuple[stats.Array, stats.Array | None]:
    """Returns and successes, each [K, N]."""
    returns, successes, env, lanes = [], [], family.make(agent.lanes), agent.lanes
    for rollout, _ in trial(
        agent, env, family.spec, tasks, episodes, mode, rng, lanes=lanes, train_set=train_set
    ):
        returns.append(_returns(family, tasks, rollout))
        if rollout.success is not None:
            successes.append(
                (rollout.success & rollout.valid).any(0).double().mean(-1).cpu().numpy()
            )
    return np.stack(returns), np.stack(successes) if successes else None


def _returns(family: Family, tasks: Tasks, rollout: Rollout) -> stats.Array:
    """[N]: return of an episode, one in every lane, of mean rewards where the family knows them."""
    expected = getattr(family, "expected_reward", None)
    reward = rollout.reward if expected is None else expected(tasks, rollout)
    per_lane: stats.Array = rollout.episode_returns(reward)[0].mean(-1).double().cpu().numpy()
    return per_lane


def _hash(tasks: Tasks) -> str:
    """Which tasks these are, to compare results by."""
    return hashlib.sha256(tasks.split.encode() + tasks.params.cpu().numpy().tobytes()).hexdigest()[
        :16
    ]
