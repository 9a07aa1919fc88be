"""Scores of runs: what they reached on tasks, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.core.errors import CheckpointError, ConfigError, FamilyError, one_line, suggest
from metarl.evaluation import stats
from metarl.evaluation.stats import Array

ARRAYS = ("returns", "success", "metrics", "optimum", "task_index")
"""The fields of `Scores` that hold numbers of every task."""

QUESTIONS = {
    "over_runs": "over runs, tasks fixed",
    "over_runs_and_tasks": "over runs and tasks",
    "over_tasks": "over tasks",
}
"""What an interval speaks of, in words."""


@dataclass(frozen=True)
class Scores:
    """What R runs of one agent reached on the same N tasks.

    A trial has K rounds of M episodes side by side, each before an adaptation. Where the family
    knows the means of its rewards, `returns` are sums of these (pseudo-returns): the same
    expectation with far less noise.
    """

    returns: Array
    """[R, K, N] return of an episode of the k-th round, the mean of the lanes."""
    success: Array | None
    """[R, K, N] share of lanes that succeeded at any step, where the family has a notion of it."""
    metrics: dict[str, Array]
    """[R, K, N] each: what the family logs by name, at the end of an episode."""
    optimum: Array | None
    """[N] best expected return of an episode if the task is known, where the family knows it."""
    mean_optimum: float | None
    """The exact mean of that over all tasks of the split, where the family knows it; None of tasks
    that are given, or of a fixed training set."""
    task_index: NDArray[np.int64]
    """[N] which task of the split each is: a family of few tasks repeats them."""
    lanes: int
    """M, episodes side by side in a round."""
    split: str
    closed: bool
    """Whether the family has no other tasks than those of the training."""
    tasks_fixed: bool
    """Whether there are no other tasks to speak of: a closed family, or a fixed training set."""
    adapt: bool
    mode: str
    test_mode: str
    """Of the rounds that test."""
    seed: int
    task_hash: str
    test_rounds: int = 1
    """The last rounds, which test what those before adapted."""
    acting: str = ""
    """What the agent says of how it acts, beside the modes."""

    @property
    def runs(self) -> int:
        return len(self.returns)

    @property
    def episodes_consumed(self) -> range:
        """[K] episodes of a task by the end of each round: the x-axis of adaptation."""
        return range(self.lanes, self.episodes + 1, self.lanes)

    @property
    def episodes(self) -> int:
        """Of the whole trial, in all lanes: K·M."""
        return int(self.lanes * self.returns.shape[1])

    @property
    def totals(self) -> Array:
        """[R, N]: return of the whole trial, all its K·M episodes.

        Task-sampling noise is removed with the known optimum as a control variate, where its exact
        mean is known: K·M · mean optimum − regret.
        """
        if self.optimum is None or self.mean_optimum is None:
            return self.lanes * self.returns.sum(1)
        return self.episodes * self.mean_optimum - self.regrets

    @property
    def regrets(self) -> Array:
        """[R, N]: what the trial's return falls short of the optimum's.

        Raises:
            FamilyError: the family does not know its optimum.
        """
        if self.optimum is None:
            raise FamilyError(
                "regret: the family does not know its optimum; give it a method optimum(tasks)"
            )
        return self.episodes * self.optimum - self.lanes * self.returns.sum(1)

    def figure(self, which: str) -> Array:
        """[R, N]: one number a run and a task.

        Args:
            which: "total", the return of the trial; "first", that of its first episode; or of an
                episode of the rounds that test "last", the return, "success", the share that
                succeeded, or a metric of the family, by name. With a minus in front it is negated.

        Raises:
            ConfigError: the family reports no such thing.
        """
        name = which.removeprefix("-")
        known = {
            "total": self.totals,
            "first": self.returns[:, 0],
            "last": self._tested(self.returns),
        }
        if self.success is not None:
            known["success"] = self._tested(self.success)
        known |= {metric: self._tested(values) for metric, values in self.metrics.items()}
        if name not in known:
            raise ConfigError(f"score: the family reports no {name!r}: {suggest(name, known)}")
        return -known[name] if which.startswith("-") else known[name]

    def _tested(self, rounds: Array) -> Array:
        """[R, N] of [R, K, N]: the mean of the rounds that test."""
        return rounds[:, -self.test_rounds :].mean(1)

    def by_task(self, rows: Array) -> Array:
        """[…, S] of the S different tasks: the means of rows […, N] of the same task."""
        return rows if self._shares is None else rows @ self._shares

    @cached_property
    def _shares(self) -> Array | None:
        """[N, S]: the share of each row in the mean of its task; None if no task is repeated."""
        different, place, copies = np.unique(
            self.task_index, return_inverse=True, return_counts=True
        )
        if len(different) == len(self.task_index):
            return None
        shares = np.zeros((len(self.task_index), len(different)))
        shares[np.arange(len(place)), place] = 1 / copies[place]
        return shares

    def estimate(self, rows: Array) -> stats.Estimate:
        """The mean of rows [R, N], and its intervals."""
        return stats.mean(self.by_task(rows), self.tasks_fixed)

    def summary(self) -> dict[str, Any]:
        """Means with 95 % intervals: of the trial, its first and last episode, the curve over
        rounds, regret, success and metrics."""
        summary: dict[str, Any] = {}
        for name in ("total", "first", "last"):
            rows = self.figure(name)
            summary[name] = self._figures(rows)
            if self.runs >= stats.FEWEST_RUNS:
                summary[name]["iqm"] = vars(stats.iqm(self.by_task(rows)))
        summary["curve"] = self.curve()
        if self.optimum is not None:
            summary["regret"] = self._figures(self.regrets)
            summary["optimum"] = float(self.by_task(self.optimum).mean())
        if self.success is not None:
            summary["success"] = self._figures(self.figure("success"))
        summary["metrics"] = {name: self._figures(self.figure(name)) for name in self.metrics}
        return summary

    def _figures(self, rows: Array) -> dict[str, Any]:
        """The mean of rows [R, N], and that of each run."""
        return {"mean": vars(self.estimate(rows)), "runs": self.by_task(rows).mean(1).tolist()}

    def curve(self) -> dict[str, Any]:
        """[K] the return of an episode of each round, and the interval that says most."""
        estimates = [self.estimate(rows) for rows in self.returns.swapaxes(0, 1)]
        curve: dict[str, Any] = {"mean": [e.value for e in estimates], "low": None, "high": None}
        kind = estimates[0].kind
        curve["interval"] = None
        if kind is not None:
            low, high = zip(*(vars(e)[kind] for e in estimates), strict=True)
            curve |= {"low": list(low), "high": list(high), "interval": QUESTIONS[kind]}
        return curve

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> Scores:
        """The scores that `to_dict` gave.

        Raises:
            CheckpointError: a part is missing or is something else.
        """
        arrays = {"returns", "success", "optimum"}
        try:
            given = {
                field.name: plain[field.name] for field in fields(Scores) if field.name in plain
            }
            for name in arrays:
                if given[name] is not None:
                    given[name] = np.array(given[name], np.float64)
            given["metrics"] = {
                name: np.array(values, np.float64) for name, values in given["metrics"].items()
            }
            given["task_index"] = np.array(given["task_index"], np.int64)
            return Scores(**given)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"scores are damaged: {one_line(error)}") from None

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain values with six decimals."""
        plain = {f: value for f, value in vars(self).items() if not f.startswith("_")}
        for name in ("returns", "success", "optimum"):
            if plain[name] is not None:
                plain[name] = np.round(plain[name], 6).tolist()
        plain["metrics"] = {name: np.round(x, 6).tolist() for name, x in self.metrics.items()}
        plain["task_index"] = self.task_index.tolist()
        plain["tasks"] = len(self.task_index)
        plain["episodes_consumed"] = list(self.episodes_consumed)
        plain["summary"] = self.summary()
        return plain


def modes_in_words(mode: str, test_mode: str, test_rounds: int) -> str:
    """How actions are chosen, where agents adapt and where they are tested."""
    if test_mode == mode:
        return mode
    last = "the last round" if test_rounds == 1 else f"the last {test_rounds} rounds"
    return f"{mode}, {test_mode} in {last}"


def acting_in_words(acting: Mapping[str, str]) -> list[str]:
    """What agents, by name, say of how they act: each of it once, and nothing of who is silent."""
    names: dict[str, str] = {}
    for name, words in acting.items():
        names.setdefault(words, name)
    return [f"{name}: {words}" for words, name in names.items() if words]


def combine(scores: Sequence[Scores], same_tasks: bool = True) -> Scores:
    """The runs of several `Scores` on the same tasks as one.

    Args:
        same_tasks: False: each may be of tasks of its own, such as fixed training sets; what an
            optimum is of each of the N tasks is not known then.

    Raises:
        ConfigError: they are not of the same tasks and the same protocol.
    """
    if not same_tasks:
        scores = [replace(other, task_hash="", optimum=None) for other in scores]
    first = scores[0]
    for other in scores:
        if met(other) != met(first):
            raise ConfigError(
                "scores of different tasks, episodes, lanes or modes cannot be combined; "
                "evaluate all with the same options"
            )
    success = [other.success for other in scores if other.success is not None]
    metrics = {name: np.concatenate([s.metrics[name] for s in scores]) for name in first.metrics}
    return replace(
        first,
        returns=np.concatenate([other.returns for other in scores]),
        success=np.concatenate(success) if success else None,
        metrics=metrics,
    )


def met(scores: Scores) -> tuple[object, ...]:
    """Which tasks, and how."""
    return (
        scores.task_hash,
        scores.adapt,
        scores.mode,
        scores.test_mode,
        scores.test_rounds,
        scores.episodes_consumed,
    )
