"""How often intervals of aggregates cover the truth, and how often a comparison is wrong.

Runs are drawn from known distributions, so that the aggregates of infinitely many are known. Beside
our intervals stand those with Welch's degrees of freedom alone, the stratified percentile bootstrap
(rliable's) and its expanded percentiles (Hesterberg 2015). What is computed here for many draws at
once is compared with the library's on the first.

    python benchmarks/aggregates.py [--repetitions 10000]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy.special import betaincinv, ndtr, ndtri, stdtr, stdtrit

from metarl.evaluation import aggregates, stats
from metarl.evaluation.stats import Array

RUNS = (3, 5, 10)
PROBLEMS = (1, 3, 6, 8)
TAU = 0.8
_BOOTSTRAPS = 200
_RESAMPLES = 300


def failing(u: Array) -> Array:
    """One seed in five fails."""
    fails = u < 0.2
    within = np.where(fails, u / 0.2, (u - 0.2) / 0.8)
    return np.where(fails, -3.0, 0.6) + 0.3 * ndtri(within)


NOISE: dict[str, Callable[[Array], Array]] = {
    "normal": ndtri,
    "skewed": lambda u: 1 + np.log(u),
    "heavy": lambda u: stdtrit(3, u) / np.sqrt(3),
    "failing": failing,
    "ceiling": ndtri,
    "half solved": failing,
}
"""Quantiles of a run's score, of mean 0 and a standard deviation of about 1."""


def scores(noise: str, u: Array, shift: float = 0.0) -> Array:
    """[…, P] of uniform u; means of .3 to .9, standard deviations of .05 to .2."""
    problems = u.shape[-1]
    means = np.linspace(0.3, 0.9, problems) if problems > 1 else np.full(1, 0.6)
    spreads = np.resize([0.1, 0.05, 0.2], problems)
    if noise == "ceiling":
        return np.minimum(0.95 + 0.1 * (NOISE[noise](u) - shift), 1.0)
    drawn = means + spreads * (NOISE[noise](u) - shift)
    if noise == "half solved":  # as many more problems, on which every run reaches 1
        return np.concatenate([drawn, np.ones_like(drawn)], -1)
    return drawn


def grid(problems: int, points: int) -> Array:
    """[points, P]: every quantile alike."""
    return np.repeat(((np.arange(points) + 0.5) / points)[:, None], problems, 1)


# -------------------------------------------------------------------------------------------------
# Aggregates of scores [B, R, P], and their variances by problem [B, P]


def iqm(x: Array) -> Array:
    entries = np.sort(x.reshape(len(x), -1), 1)
    cut = entries.shape[1] // 4
    return entries[:, cut : entries.shape[1] - cut].mean(1)


def gap(x: Array) -> Array:
    return 1 - np.minimum(x, 1).mean((1, 2))


def iqm_variances(x: Array) -> Array:
    draws, runs, problems = x.shape
    order = x.reshape(draws, -1).argsort(1)
    entries = np.take_along_axis(x.reshape(draws, -1), order, 1)
    without = np.empty((runs * problems, draws))
    for left in range(runs * problems):
        mates = order % problems == left % problems
        weights = np.where(mates, 1 / (runs - 1), 1 / runs) / problems
        weights[order == left] = 0
        above = weights.cumsum(1)
        kept = np.minimum(above, 0.75) - np.maximum(above - weights, 0.25)
        without[left] = 2 * (kept.clip(0) * entries).sum(1)
    by_problem = without.reshape(runs, problems, draws)
    return (runs - 1) ** 2 / runs * by_problem.var(0, ddof=1).T


def gap_variances(x: Array) -> Array:
    _, runs, problems = x.shape
    return np.minimum(x, 1).var(1, ddof=1) / runs / problems**2


def half_widths(variances: Array, runs: int) -> tuple[Array, Array]:
    """Ours [B], and with Welch's degrees of freedom alone."""
    total = variances.sum(1)
    squares = np.where(total > 0, (variances**2).sum(1), 1)
    freedom = np.where(total > 0, total**2 / squares, 1) * (runs - 1)
    quantile = stdtrit(freedom, 0.975)
    ours = np.sqrt(quantile * stdtrit(runs - 1, 0.975) * total)
    return ours, quantile * np.sqrt(total)


def share_interval(share: Array, count: int) -> tuple[Array, Array]:
    hits = share * count
    low = np.where(share > 0, betaincinv(np.maximum(hits, 1e-9), count - hits + 1, 0.025), 0)
    high = betaincinv(hits + 1, np.maximum(count - hits, 1e-9), 0.975)
    return low, np.where(share < 1, high, 1)


def bootstrap(x: Array, statistic: Callable[[Array], Array], rng: np.random.Generator) -> Array:
    """[4, B] percentiles of aggregates whose runs are drawn anew within each problem."""
    runs, problems = x.shape[1:]
    expanded = ndtr(np.sqrt(runs / (runs - 1)) * stdtrit(runs - 1, 0.025))
    levels = [0.025, 0.975, expanded, 1 - expanded]
    found = []
    for drawn in x:
        index = rng.integers(runs, size=(_RESAMPLES, runs, problems))
        found.append(np.quantile(statistic(drawn[index, np.arange(problems)]), levels))
    return np.transpose(found)


# -------------------------------------------------------------------------------------------------
# Tables


def covers(low: Array, high: Array, truth: float) -> float:
    return float(np.mean((low <= truth + 1e-12) & (truth - 1e-12 <= high)))


def agree(ours: stats.Estimate, low: float, high: float) -> None:
    assert ours.over_runs is None or np.allclose(ours.over_runs, (low, high), atol=1e-9)


def print_header(first: str, columns: list[str]) -> None:
    cells = [f"{column}, R = {runs}" for column in columns for runs in RUNS]
    print(f"\n| {first} | " + " | ".join(cells) + " |")
    print("|---" * (len(cells) + first.count("|") + 1) + "|")


def row(name: str, shares: list[list[float]]) -> None:
    """Of each run count all methods' shares, method by method."""
    cells = [f"{share:.3f}" for method in zip(*shares, strict=True) for share in method]
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def print_means(repetitions: int, rng: np.random.Generator) -> None:
    print_header("aggregate | noise | P", ["ours", "Welch", "bootstrap", "expanded"])
    kinds = {
        "iqm": (iqm, iqm_variances, aggregates.iqm),
        "gap": (gap, gap_variances, aggregates.optimality_gap),
    }
    for name, (statistic, variances, library) in kinds.items():
        for noise in NOISE:
            for problems in PROBLEMS:
                truth = float(statistic(scores(noise, grid(problems, 100_001))[None])[0])
                shares = []
                for runs in RUNS:
                    x = scores(noise, rng.random((repetitions, runs, problems)))
                    value = statistic(x)
                    ours, welch = half_widths(variances(x), runs)
                    for i in range(5):
                        agree(library(list(x[i].T)), value[i] - ours[i], value[i] + ours[i])
                    drawn = bootstrap(x[:_BOOTSTRAPS], statistic, rng)
                    shares.append(
                        [
                            covers(value - ours, value + ours, truth),
                            covers(value - welch, value + welch, truth),
                            covers(drawn[0], drawn[1], truth),
                            covers(drawn[2], drawn[3], truth),
                        ]
                    )
                row(f"{name} | {noise} | {problems}", shares)


def improvement(first: Array, second: Array) -> Array:
    """[B] of [B, R, P] each."""
    ahead = np.sign(first[:, :, None] - second[:, None])
    return (1 + ahead.mean((1, 2, 3))) / 2


def print_shares(repetitions: int, rng: np.random.Generator) -> None:
    print_header("aggregate | noise | P", ["ours", "bootstrap"])
    for noise in NOISE:
        for problems in PROBLEMS:
            truth = float((scores(noise, grid(problems, 100_001)) > TAU).mean())
            shares = []
            for runs in RUNS:
                x = scores(noise, rng.random((repetitions, runs, problems)))
                share = (x > TAU).mean((1, 2))
                low, high = share_interval(share, x[0].size)
                for i in range(5):
                    (ours,) = aggregates.performance_profile(list(x[i].T), [TAU])
                    agree(ours, low[i], high[i])
                drawn = bootstrap(x[:_BOOTSTRAPS], lambda y: (y > TAU).mean((1, 2)), rng)
                shares.append([covers(low, high, truth), covers(drawn[0], drawn[1], truth)])
            row(f"profile | {noise} | {problems}", shares)
    for shift, name in ((0.5, "close"), (2.0, "clear")):
        for noise in NOISE:
            for problems in PROBLEMS:
                u = grid(problems, 1501)[None]
                truth = float(improvement(scores(noise, u), scores(noise, u, shift))[0])
                shares = []
                for runs in RUNS:
                    x = scores(noise, rng.random((repetitions, runs, problems)))
                    y = scores(noise, rng.random((repetitions, runs, problems)), shift)
                    low, high = share_interval(improvement(x, y), x[0].size)
                    for i in range(5):
                        ours = aggregates.probability_of_improvement(list(x[i].T), list(y[i].T))
                        agree(ours, low[i], high[i])
                    both = np.concatenate([x, y], -1)[:_BOOTSTRAPS]
                    half = both.shape[-1] // 2
                    drawn = bootstrap(
                        both, lambda z, n=half: improvement(z[..., :n], z[..., n:]), rng
                    )
                    shares.append([covers(low, high, truth), covers(drawn[0], drawn[1], truth)])
                row(f"improvement, {name} | {noise} | {problems}", shares)


# -------------------------------------------------------------------------------------------------
# Comparison of versions


def p_worse(new: Array, old: Array) -> Array:
    """[B, C] of run means [B, C, R]: Welch's test."""
    runs = new.shape[-1]
    first, second = old.var(-1, ddof=1) / runs, new.var(-1, ddof=1) / runs
    freedom = (first + second) ** 2 * (runs - 1) / (first**2 + second**2)
    return stdtr(freedom, (new.mean(-1) - old.mean(-1)) / np.sqrt(first + second))


def alarms(p: Array) -> tuple[Array, Array]:
    """[B, C] which cells are called worse, with Holm's correction and without."""
    cells = p.shape[1]
    for values in p[:20]:
        corrected = stats.holm(values) <= 0.05
        assert corrected.any() == (values.min() * cells <= 0.05)
    order = p.argsort(1)
    steps = np.take_along_axis(p, order, 1) * np.arange(cells, 0, -1)
    called = np.empty(p.shape, bool)
    np.put_along_axis(called, order, np.maximum.accumulate(steps, 1) <= 0.05, 1)
    return called, p <= 0.05


def suite(noise: str, repetitions: int, runs: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """[B, 10] p of two equal versions; cells of 40 to 200 tasks, noise of runs and of trials."""
    p = np.empty((repetitions, 10))
    for cell, tasks in enumerate(np.linspace(40, 200, 10).astype(int)):
        versions = []
        for _ in range(2):
            by_run = 0.1 * NOISE[noise](rng.random((repetitions, runs)))
            trial = rng.standard_exponential((repetitions, runs, tasks), dtype=np.float32)
            versions.append(by_run + 0.5 * trial.mean(-1))
        old, new = versions
        p[:, cell] = p_worse(new[:, None], old[:, None])[:, 0]
        for i in range(3):
            ours = stats.p_worse(new[i][:, None], old[i][:, None])
            assert np.isclose(ours, p[i, cell])
    return alarms(p)


def strategies(
    noise: str, repetitions: int, tasks: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """[B, 10] p of ten strategies in two equal versions, paired over tasks."""
    change = NOISE[noise](rng.random((repetitions, 10, tasks)))
    change -= NOISE[noise](rng.random((repetitions, 10, tasks)))
    error = change.std(-1, ddof=1) / np.sqrt(tasks)
    p = stdtr(tasks - 1, change.mean(-1) / error)
    assert np.isclose(stats.p_worse(change[0, :1], np.zeros((1, tasks))), p[0, 0])
    return alarms(p)


def print_alarms(repetitions: int, rng: np.random.Generator) -> None:
    print("\n| cells | noise of runs | Holm | without |\n|---|---|---|---|")
    for noise in ("normal", "skewed", "heavy", "failing"):
        for runs in RUNS:
            holm, plain = suite(noise, repetitions, runs, rng)
            found = f"{holm.any(1).mean():.3f} | {plain.any(1).mean():.3f}"
            print(f"| {runs} seeds | {noise} | {found} |", flush=True)
        holm, plain = strategies(noise, repetitions, 40, rng)
        found = f"{holm.any(1).mean():.3f} | {plain.any(1).mean():.3f}"
        print(f"| strategies, 40 tasks | {noise} | {found} |", flush=True)


def print_power(repetitions: int, rng: np.random.Generator) -> None:
    print_header("noise of seeds", ["one of ten cells", "one cell alone", "all of ten cells"])
    for noise in (0.01, 0.02, 0.05):
        shares = []
        for runs in RUNS:
            old, new = 1 + noise * rng.standard_normal((2, repetitions, 10, runs))
            one, every = new.copy(), new - 0.05
            one[:, 0] -= 0.05
            p = p_worse(one, old)
            shares.append(
                [
                    float(alarms(p)[0][:, 0].mean()),
                    float((p[:, 0] <= 0.025).mean()),
                    float(alarms(p_worse(every, old))[0].any(1).mean()),
                ]
            )
        row(f"{noise:.0%}", shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=10_000)
    repetitions = parser.parse_args().repetitions
    rng = np.random.default_rng(0)
    print_means(repetitions, rng)
    print_shares(repetitions, rng)
    print_alarms(repetitions, rng)
    print_power(repetitions, rng)


if __name__ == "__main__":
    main()
