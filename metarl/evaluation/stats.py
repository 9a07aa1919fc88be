"""Statistics of scores: means that outliers cannot carry away, and honest intervals.

Scores are arrays [R, N] of R training runs on the same N tasks. The bootstrap resamples whole runs
and whole tasks (the crossed design of Owen 2007, "The pigeonhole bootstrap"), because every run has
met every task: resampling single scores, as if each were independent, would make intervals far too
narrow. With one run, the interval is about tasks alone.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A point estimate with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def mean(scores: Array) -> Estimate:
    """Mean over runs and tasks of scores [R, N]."""

    def weighted(runs: Array, tasks: Array) -> float:
        return float(runs @ scores @ tasks)

    return _estimate(scores, float(scores.mean()), weighted)


def iqm(scores: Array) -> Estimate:
    """Interquartile mean: the mean of the middle half of scores [R, N].

    Agarwal et al. 2021, arXiv:2108.13264.
    """
    flat = scores.ravel()
    order = flat.argsort()

    def middle(runs: Array, tasks: Array) -> float:
        weight = np.outer(runs, tasks).ravel()[order]
        upper = weight.cumsum()
        inside = np.clip(np.minimum(upper, 0.75) - np.maximum(upper - weight, 0.25), 0.0, None)
        return float(inside @ flat[order] / inside.sum())

    runs, tasks = scores.shape
    value = middle(np.full(runs, 1 / runs), np.full(tasks, 1 / tasks))
    return _estimate(scores, value, middle)


def mean_curve(curves: Array) -> tuple[Array, Array, Array]:
    """Mean over runs and tasks of curves [R, K, N] → (mean, low, high), each [K]."""
    runs, tasks = _weights(curves.shape[0], curves.shape[2])
    draws = np.einsum("br,rkn,bn->bk", runs, curves, tasks, optimize=True)
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    return curves.mean((0, 2)), low, high


def _estimate(scores: Array, value: float, statistic: Callable[[Array, Array], float]) -> Estimate:
    runs, tasks = _weights(*scores.shape)
    draws = [statistic(r, t) for r, t in zip(runs, tasks, strict=True)]
    low, high = np.quantile(draws, (0.025, 0.975))
    return Estimate(value, float(low), float(high))


@functools.lru_cache(maxsize=4)  # many figures of the same runs and tasks are estimated in turn
def _weights(runs: int, tasks: int) -> tuple[Array, Array]:
    """How often each run and each task is drawn, as shares: [B, R] and [B, N]."""
    rng = np.random.default_rng(0)
    run_counts = rng.multinomial(runs, np.full(runs, 1 / runs), size=_RESAMPLES)
    task_counts = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=_RESAMPLES)
    return run_counts / runs, task_counts / tasks
