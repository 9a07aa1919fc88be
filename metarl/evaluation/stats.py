"""Intervals that cover: of means, of paired differences, of gaps between splits.

Scores are arrays [R, N] of R training runs that each met the same N tasks: a two-way layout. Two
questions have two answers, which every figure here gives by name:

* over runs, tasks fixed: what further training runs would reach on these very tasks;
* over runs and tasks: what they would reach on further tasks.

One run says nothing about others: its interval is over tasks alone. All intervals are of 95 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

Array = NDArray[np.float64]
Interval = tuple[float, float]

FEWEST_RUNS = 5
"""With fewer, the interquartile mean of runs is not given: look at the runs."""

KINDS = ("over_runs_and_tasks", "over_tasks", "over_runs")
"""Intervals of an `Estimate`, the one that answers most first."""

FEWEST_TASKS = 3
"""With fewer, no interval speaks of others."""


@dataclass(frozen=True)
class Estimate:
    """A value and its intervals; None where the scores cannot answer."""

    value: float
    over_runs: Interval | None = None
    """Tasks fixed."""
    over_runs_and_tasks: Interval | None = None
    over_tasks: Interval | None = None
    """Of the very runs that were given."""

    @property
    def kind(self) -> str | None:
        """The name of the interval that answers most, if there is one."""
        return next((kind for kind in KINDS if vars(self)[kind] is not None), None)


@dataclass(frozen=True)
class Variance:
    """An estimated variance of a mean, and its degrees of freedom."""

    value: float
    freedom: float

    @property
    def quantile(self) -> float:
        """Student's t at 97.5 %."""
        return float(stdtrit(self.freedom, 0.975))

    @property
    def half_width(self) -> float:
        return float(self.quantile * np.sqrt(self.value))


# -------------------------------------------------------------------------------------------------
# Estimates


def mean(scores: Array, tasks_fixed: bool = False) -> Estimate:
    """Mean over runs and tasks of scores [R, N].

    Args:
        tasks_fixed: the N tasks are all that there are.
    """
    tasks = [] if tasks_fixed else [scores.mean(0)]
    return _estimate(float(scores.mean()), [scores.mean(1)], tasks, [scores])


def difference(first: Array, second: Array, tasks_fixed: bool = False) -> Estimate:
    """Mean of first [R, N] − second [R', N], of different runs on the same tasks: paired by task.

    An agent that was never trained has one row and no runs to differ.
    """
    value = float(first.mean() - second.mean())
    tasks = [] if tasks_fixed else [first.mean(0) - second.mean(0)]
    runs = [scores.mean(1) for scores in (first, second)]
    return _estimate(value, runs, tasks, [first, second])


def gap(first: Array, second: Array, tasks_fixed: tuple[bool, bool] = (False, False)) -> Estimate:
    """Mean of first [R, N] − second [R, N'], of the same runs on other tasks: paired by run."""
    runs = first.mean(1) - second.mean(1)
    varied = [x for x, fixed in zip((first, second), tasks_fixed, strict=True) if not fixed]
    return _estimate(float(runs.mean()), [runs], [x.mean(0) for x in varied], varied)


def iqm(scores: Array) -> Estimate:
    """Interquartile mean of runs: a quarter of the runs' means, rounded down, is cut at either end.

    Single trials are never cut: of a success rate of 0.2 that would leave 0. The interval is Tukey
    and McLaughlin's (1963), of a trimmed mean by the winsorized variance.
    """
    runs = np.sort(scores.mean(1))
    count = len(runs)
    cut = count // 4
    kept = runs[cut : count - cut]
    winsorized = np.clip(runs, kept[0], kept[-1])
    spread = winsorized.var(ddof=1) / count / (len(kept) / count) ** 2
    half = Variance(spread, len(kept) - 1).half_width
    return Estimate(float(kept.mean()), (kept.mean() - half, kept.mean() + half))


def tasks_won(first: Array, second: Array) -> float:
    """Share of tasks on which first [R, N] is better than second [R', N]; a tie is half a win."""
    ahead = np.sign(np.round(first.mean(0) - second.mean(0), 9))  # no tie is won by rounding
    return float((1 + ahead).mean() / 2)


def p_worse(second: Array, first: Array) -> float:
    """p of the one-sided test that second [R', N] is no worse than first [R, N], tasks fixed.

    By the variance of `difference`: over runs where an agent has several (Welch 1947), else over
    tasks, of which there must be two. Scores that agree to nine decimals are equal: p = 1.
    """
    ahead = round(float(first.mean() - second.mean()), 9)
    if ahead == 0:
        return 1.0
    runs = [_variance(scores.mean(1)) for scores in (first, second) if len(scores) > 1]
    variance = welch(runs or [_variance(first[0] - second[0])])
    if variance.value == 0:
        return 0.0 if ahead > 0 else 1.0
    return float(stdtr(variance.freedom, -ahead / np.sqrt(variance.value)))


def holm(p: Sequence[float]) -> Array:
    """[S] p-values, corrected: where all is chance, any is below .05 in at most 5 % (Holm 1979).

    The k-th smallest of S is multiplied by S − k + 1, and is no less than the one before.
    """
    order = np.argsort(p)
    steps = np.arange(len(p), 0, -1) * np.asarray(p)[order]
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def t_interval(values: Array) -> tuple[Array, Array, Array]:
    """Mean over runs of values [R, P], and its 95 % Student t interval → mean, low, high, [P]."""
    runs = len(values)
    mean = values.mean(0)
    half = stdtrit(runs - 1, 0.975) * values.std(0, ddof=1) / np.sqrt(runs)
    return mean, mean - half, mean + half


# -------------------------------------------------------------------------------------------------
# Two-way variance


def _estimate(
    value: float,
    runs: Sequence[Array],
    tasks: Sequence[Array],
    scores: Sequence[Array],
) -> Estimate:
    """`value` with intervals from independent samples of run means and of task means.

    There are none of tasks that are fixed. What both vary by, the residuals of `scores`, is in the
    variance of either, and is counted once.
    """
    agents = [_variance(x) for x in runs if len(x) > 1]
    by_run = welch(agents) if agents else None
    enough = tasks and min(map(len, tasks)) >= FEWEST_TASKS
    by_task = welch([_variance(x) for x in tasks]) if enough else None

    def around(half_width: float) -> Interval:
        return value - half_width, value + half_width

    if by_run is None:
        return Estimate(value, over_tasks=None if by_task is None else around(by_task.half_width))
    both = None
    if by_task is not None:
        residual = sum(_residual_variance(x) for x in scores)
        both = around(_half_width(by_run, by_task, residual, len(agents)))
    return Estimate(value, around(by_run.half_width), both)


def _half_width(runs: Variance, tasks: Variance, residual: float, agents: int) -> float:
    """Of the interval over runs and tasks.

    Var x̄ = σ²_run/R + σ²_task/N + σ²_residual/(RN), of which both estimates contain the last. It is
    no less than that. Its quantile is the geometric mean of both quantiles of Student's t, weighted
    by the runs' share of the variance: Satterthwaite's degrees of freedom grow too fast where two
    or three runs happen to agree. Of two agents hardly ever both do, so that half of the residual
    variance does not count as the runs' (benchmarks/results/intervals.md).
    """
    variance = max(runs.value + tasks.value - residual, residual)
    common = residual * (agents - 1) / 2
    share = 0.0
    if variance > common:
        share = min(max((runs.value - common) / (variance - common), 0.0), 1.0)
    return float(runs.quantile**share * tasks.quantile ** (1 - share) * np.sqrt(variance))


def _variance(sample: Array) -> Variance:
    """Of the mean of independent values [S]."""
    return Variance(sample.var(ddof=1) / len(sample), len(sample) - 1)


def welch(parts: Sequence[Variance]) -> Variance:
    """Of a sum of independent means, with the degrees of freedom of Welch (1947)."""
    total = sum(part.value for part in parts)
    spread = sum(part.value**2 / part.freedom for part in parts)
    return Variance(total, total**2 / spread if spread else parts[0].freedom)


def _residual_variance(scores: Array) -> float:
    """σ²_residual/(RN): what is left of scores [R, N] without the means of runs and of tasks."""
    runs, tasks = scores.shape
    if min(runs, tasks) == 1:
        return 0.0
    left = scores - scores.mean(1, keepdims=True) - scores.mean(0) + scores.mean()
    return float(np.square(left).sum() / ((runs - 1) * (tasks - 1)) / (runs * tasks))
