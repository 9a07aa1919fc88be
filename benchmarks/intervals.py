"""How often 95 % intervals cover the truth, where it is known because the scores are drawn.

Scores [R, N] of R runs on N tasks are normal: a mean of 0, an effect of each run, of each task and
of each trial. Beside our intervals stand those with Satterthwaite's degrees of freedom, and the
percentile bootstrap that resamples whole runs and whole tasks (with a tenth of the repetitions).

    python benchmarks/intervals.py [--repetitions 10000]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.special import stdtrit

from metarl.evaluation import stats
from metarl.evaluation.stats import Array, Interval

REGIMES = {
    "run noise": (1.0, 0.3, 1.0),
    "balanced": (0.1, 1.0, 1.0),
    "task noise": (0.01, 1.0, 1.0),
    "runs as tasks": (1.0, 1.0, 1.0),
    "trials alone": (0.0, 0.0, 1.0),
}
"""Standard deviations of the effects of runs, tasks and trials."""
RUNS = (2, 3, 5, 10)
TASKS = (40, 200)
_RESAMPLES = 1000


def satterthwaite(scores: Array) -> Interval:
    """Two-way variance with Satterthwaite's degrees of freedom."""
    runs, tasks = scores.shape
    parts = [
        (scores.mean(1).var(ddof=1) / runs, runs - 1),
        (scores.mean(0).var(ddof=1) / tasks, tasks - 1),
    ]
    residual = stats._residual_variance(scores)
    variance = max(sum(value for value, _ in parts) - residual, 0.0)
    parts.append((residual, (runs - 1) * (tasks - 1)))
    freedom = variance**2 / sum(value**2 / df for value, df in parts)
    half = stdtrit(max(freedom, 1.0), 0.975) * np.sqrt(variance)
    return scores.mean() - half, scores.mean() + half


def bootstrap(scores: Array, rng: np.random.Generator) -> Interval:
    """Percentiles of means whose runs and tasks are drawn anew."""
    runs, tasks = scores.shape
    by_run = rng.multinomial(runs, np.full(runs, 1 / runs), _RESAMPLES) / runs
    by_task = rng.multinomial(tasks, np.full(tasks, 1 / tasks), _RESAMPLES) / tasks
    means = ((by_run @ scores) * by_task).sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=10_000)
    repetitions = parser.parse_args().repetitions
    rng = np.random.default_rng(0)

    def draw(regime: str, runs: int, tasks: int, by_task: Array) -> Array:
        run, task, trial = REGIMES[regime]
        by_run = run * rng.standard_normal((runs, 1))
        own = trial * rng.standard_normal((runs, tasks))
        return by_run + task * by_task + own

    def covers(interval: Callable[[], Interval | None], count: int = repetitions) -> float:
        hits = 0
        for _ in range(count):
            low, high = interval() or (np.inf, -np.inf)
            hits += low <= 0 <= high
        return hits / count

    def single(regime: str, runs: int, tasks: int) -> Array:
        return draw(regime, runs, tasks, rng.standard_normal(tasks))

    def paired(regime: str, runs: int, tasks: int) -> tuple[Array, Array]:
        """Two agents on the same tasks; what differs between them is half as large by task."""
        shared = rng.standard_normal(tasks)
        other = shared + 0.5 * rng.standard_normal(tasks)
        return draw(regime, runs, tasks, shared), draw(regime, runs, tasks, other)

    methods: dict[str, Callable[[str, int, int], Interval | None]] = {
        "mean": lambda *x: stats.mean(single(*x)).over_runs_and_tasks,
        "mean, Satterthwaite": lambda *x: satterthwaite(single(*x)),
        "mean, bootstrap": lambda *x: bootstrap(single(*x), rng),
        "paired difference": lambda *x: stats.difference(*paired(*x)).over_runs_and_tasks,
        "gap of the same runs": lambda r, n, t: (
            stats.gap(single(r, n, t), single(r, n, t)).over_runs_and_tasks
        ),
    }
    print("| interval | noise | tasks | " + " | ".join(f"R = {runs}" for runs in RUNS) + " |")
    print("|---" * (3 + len(RUNS)) + "|")
    for name, method in methods.items():
        count = max(1, repetitions // 10) if "bootstrap" in name else repetitions
        for regime in REGIMES:
            for tasks in TASKS:
                shares = [covers(partial(method, regime, runs, tasks), count) for runs in RUNS]
                cells = " | ".join(f"{share:.3f}" for share in shares)
                print(f"| {name} | {regime} | {tasks} | {cells} |", flush=True)

    def again() -> Interval | None:
        """One agent on two sets of tasks: skewed scores."""
        return stats.gap(rng.exponential(1.0, (1, 100)), rng.exponential(1.0, (1, 100))).over_tasks

    print(f"two evaluations of one agent called different: {1 - covers(again):.3f}")


if __name__ == "__main__":
    main()
