"""One number for an agent on many problems, and an interval over runs with the problems fixed.

The aggregates of Agarwal et al. (2021, arXiv:2108.13264), as rliable has them. Scores are P arrays
[R_p], one of each problem: what each run reached on it, the mean over its tasks, scaled so that 0
is a floor and 1 the goal. Problems may differ in runs; every run counts once.

Nothing is drawn: the same scores have the same interval to the last digit. Where an interval is
measured to cover less than .93 there is none (benchmarks/results/aggregates.md): look at the runs.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import betaincinv

from metarl.evaluation.stats import Array, Estimate, Variance, welch

FEWEST_RUNS = {
    "iqm": 3,
    "optimality_gap": 3,
    "performance_profile": 2,
    "probability_of_improvement": 2,
}
"""Of every problem, for an interval."""
FEWEST_PROBLEMS = 8
"""Whose runs differ, for an interval of the first two."""


def iqm(scores: Sequence[Array]) -> Estimate:
    """Interquartile mean of all runs: a quarter of them, rounded down, is cut at either end.

    Its variance is the jackknife's by problem, of exact quarters.
    """
    entries = np.sort(np.concatenate(scores))
    cut = len(entries) // 4
    value = entries[cut : len(entries) - cut].mean()
    if not _enough("iqm", scores):
        return Estimate(float(value))
    variances = []
    for values in _iqms_without_each(scores):
        runs = len(values)
        variances.append(Variance((runs - 1) ** 2 / runs * values.var(ddof=1), runs - 1))
    return _around(float(value), variances)


def optimality_gap(scores: Sequence[Array], gamma: float = 1.0) -> Estimate:
    """By how much runs fall short of `gamma`: its mean, more than `gamma` being no merit."""
    gaps = [gamma - np.minimum(runs, gamma) for runs in scores]
    count = sum(map(len, gaps))
    value = float(np.concatenate(gaps).mean())
    if not _enough("optimality_gap", gaps):
        return Estimate(value)
    return _around(value, [Variance(len(x) * x.var(ddof=1) / count**2, len(x) - 1) for x in gaps])


def performance_profile(scores: Sequence[Array], taus: Sequence[float]) -> list[Estimate]:
    """The share of runs above each of `taus`.

    A share of problems that differ varies no more than one of equal problems (Hoeffding 1956).
    """
    entries = np.concatenate(scores)
    shares = [float((entries > tau).mean()) for tau in taus]
    if min(map(len, scores)) < FEWEST_RUNS["performance_profile"]:
        return [Estimate(share) for share in shares]
    return [_share(share, len(entries)) for share in shares]


def probability_of_improvement(first: Sequence[Array], second: Sequence[Array]) -> Estimate:
    """P(a run of the first is better than one of the second), a tie being half, over the problems.

    Mann and Whitney's statistic is a mean over ways to pair the runs: it varies no more than with a
    single one, the share of min(R_p, R'_p) independent pairs (Hoeffding 1963; Birnbaum and Klose
    1957). An agent that was never trained has one run of each problem, and no runs to differ.
    """
    ahead = [np.sign(x[:, None] - y) for x, y in zip(first, second, strict=True)]
    value = float(np.mean([(1 + signs.mean()) / 2 for signs in ahead]))
    sides = [side for side in (first, second) if max(map(len, side)) > 1]
    runs = np.array([[len(x) for x in side] for side in sides])
    if not sides or runs.min() < FEWEST_RUNS["probability_of_improvement"]:
        return Estimate(value)
    return _share(value, len(ahead) ** 2 / float((1 / runs.min(0)).sum()))


# -------------------------------------------------------------------------------------------------
# Intervals


def _enough(name: str, scores: Sequence[Array]) -> bool:
    """Whether there are runs and problems for an interval; a solved problem tells of no other."""
    differ = sum(float(np.ptp(runs)) > 0 for runs in scores)
    return min(map(len, scores)) >= FEWEST_RUNS[name] and differ >= FEWEST_PROBLEMS


def _around(value: float, variances: Sequence[Variance]) -> Estimate:
    """Of a sum over problems.

    Its quantile is the geometric mean of two of Student's t: with Welch's degrees of freedom it is
    too small where runs seldom fail, with those of a single problem it is too large elsewhere.
    """
    total = welch(variances)
    cautious = Variance(total.value, min(part.freedom for part in variances))
    half = float(np.sqrt(total.half_width * cautious.half_width))
    return Estimate(value, (value - half, value + half))


def _iqms_without_each(scores: Sequence[Array]) -> list[Array]:
    """[R_p] of each problem: the interquartile mean without each run, at the problem's old weight.

    The k-th of the sorted runs counts by how much of its weight lies between the quartiles.
    """
    entries = np.concatenate(scores)
    runs = np.array([len(x) for x in scores])
    problem = np.repeat(np.arange(len(runs)), runs)
    grown = (runs / (runs - 1))[problem]
    weights = np.where(problem[:, None] == problem, grown, 1.0) / len(entries)
    np.fill_diagonal(weights, 0.0)

    order = np.argsort(entries)
    weights = weights[:, order]  # [without this run, of the k-th smallest]
    above = weights.cumsum(1)
    between = np.clip(np.minimum(above, 0.75) - np.maximum(above - weights, 0.25), 0.0, None)
    return np.split(2 * between @ entries[order], runs.cumsum()[:-1])


def _share(share: float, count: float) -> Estimate:
    """The interval of Clopper and Pearson (1934) of a share of `count` independent trials."""
    hits = share * count
    low = betaincinv(hits, count - hits + 1, 0.025) if share > 0 else 0.0
    high = betaincinv(hits + 1, count - hits, 0.975) if share < 1 else 1.0
    return Estimate(share, (float(low), float(high)))
