"""Aggregates over problems against closed forms, loops, and how often they cover the truth."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from metarl.evaluation import aggregates


def suite(problems=8, runs=4, seed=0):
    """P arrays [R], means of .2 to .9."""
    rng = np.random.default_rng(seed)
    return [mean + 0.1 * rng.normal(size=runs) for mean in np.linspace(0.2, 0.9, problems)]


ALL = {
    "iqm": aggregates.iqm,
    "optimality_gap": aggregates.optimality_gap,
    "profile": lambda scores: aggregates.performance_profile(scores, [0.5])[0],
    "improvement": lambda scores: aggregates.probability_of_improvement(scores, suite(seed=1)),
}

# -------------------------------------------------------------------------------------------------
# Values


def test_iqm_cuts_a_quarter_of_all_runs_rounded_down():
    scores = [np.array([-100.0, 1.0, 2.0]), np.array([3.0, 100.0, 4.0])]  # 6 // 4 = 1
    assert aggregates.iqm(scores).value == 2.5
    ragged = [np.array([5.0, 1.0]), np.array([0.0, 9.0, 7.0])]
    expected = scipy.stats.trim_mean([5.0, 1.0, 0.0, 9.0, 7.0], 0.25)
    assert aggregates.iqm(ragged).value == pytest.approx(expected)


def test_more_than_the_goal_is_no_merit():
    scores = [np.array([0.5, 3.0]), np.array([1.0, 0.0])]
    assert aggregates.optimality_gap(scores).value == pytest.approx((0.5 + 0 + 0 + 1) / 4)
    assert aggregates.optimality_gap(scores, gamma=2.0).value == pytest.approx(
        (1.5 + 0 + 1 + 2) / 4
    )


def test_a_profile_counts_runs_above_and_not_at_the_threshold():
    profile = aggregates.performance_profile([np.array([0.1, 0.5]), np.array([0.9])], [0, 0.5, 1])
    assert [estimate.value for estimate in profile] == pytest.approx([1.0, 1 / 3, 0.0])


def test_improvement_averages_problems_and_halves_ties():
    first = [np.array([1.0, 2.0]), np.array([5.0, 5.0])]
    second = [np.array([1.0, 0.0, 3.0]), np.array([5.0])]
    expected = ((0.5 + 1 + 0 + 1 + 1 + 0) / 6 + 0.5) / 2
    assert aggregates.probability_of_improvement(first, second).value == pytest.approx(expected)
    mirrored = aggregates.probability_of_improvement(second, first)
    assert mirrored.value == pytest.approx(1 - expected)


@pytest.mark.parametrize("name", ALL)
def test_neither_the_order_of_runs_nor_of_problems_matters(name):
    """Problems are shuffled beside those that they are compared with."""
    scores = suite()
    shuffled = [runs[::-1] for runs in scores]
    expected = ALL[name](scores)
    assert ALL[name](shuffled).over_runs == pytest.approx(expected.over_runs)
    if name != "improvement":
        assert ALL[name](shuffled[::-1]).over_runs == pytest.approx(expected.over_runs)
    assert ALL[name](scores) == expected  # to the last digit


def test_iqm_moves_with_the_scores():
    low, high = aggregates.iqm(suite()).over_runs
    moved = aggregates.iqm([3 * runs - 1 for runs in suite()]).over_runs
    assert moved == pytest.approx((3 * low - 1, 3 * high - 1))


# -------------------------------------------------------------------------------------------------
# Intervals


def test_gap_of_alike_problems_is_by_student():
    """Eight problems of equal variance: Welch has 8·2 degrees of freedom, one problem 2."""
    scores = [np.array([-0.1, 0.0, 0.1]) + mean for mean in np.linspace(0, 0.8, 8)]
    half = np.sqrt(np.prod(scipy.stats.t.ppf(0.975, [16, 2])) * 0.01 / 24)
    estimate = aggregates.optimality_gap(scores)
    assert estimate.over_runs == pytest.approx((estimate.value - half, estimate.value + half))


def quarters_cut(entries, weights):
    """Mean of the middle half of weighted entries, by a loop over a fine grid of quantiles."""
    order = np.argsort(entries)
    above = np.cumsum(weights[order])
    levels = 0.25 + (np.arange(100_000) + 0.5) / 200_000
    return entries[order][np.searchsorted(above, levels)].mean()


def test_iqm_interval_is_the_jackknife_by_problem():
    scores = [*suite(5), *(runs[:3] for runs in suite(4, seed=1))]
    entries = np.concatenate(scores)
    problem = np.repeat(np.arange(9), [len(runs) for runs in scores])
    variance = []
    for place, runs in enumerate(scores):
        without = []
        for left in np.flatnonzero(problem == place):
            weights = np.full(len(entries), 1 / len(entries))
            weights[problem == place] *= len(runs) / (len(runs) - 1)
            weights[left] = 0
            without.append(quarters_cut(entries, weights))
        variance.append((len(runs) - 1) * np.var(without))
    freedom = np.array([len(runs) - 1 for runs in scores])
    welch = sum(variance) ** 2 / sum(np.square(variance) / freedom)
    half = np.sqrt(np.prod(scipy.stats.t.ppf(0.975, [welch, 2])) * sum(variance))
    low, high = aggregates.iqm(scores).over_runs
    assert high - low == pytest.approx(2 * half, rel=1e-3)


def test_shares_are_by_clopper_and_pearson():
    scores = [np.arange(5) / 4 for _ in range(4)]
    profile = aggregates.performance_profile(scores, [-1.0, 0.4, 2.0])
    for estimate, hits in zip(profile, [20, 12, 0], strict=True):
        expected = scipy.stats.binomtest(hits, 20).proportion_ci(0.95, "exact")
        assert estimate.over_runs == pytest.approx((expected.low, expected.high))


def test_improvement_has_as_many_pairs_as_the_fewer_runs():
    first, second = [np.ones(3), np.ones(6)], [np.zeros(5), np.zeros(6)]
    pairs = 4 / (1 / 3 + 1 / 6)  # of which all are won
    low, high = aggregates.probability_of_improvement(first, second).over_runs
    assert (low, high) == pytest.approx((0.025 ** (1 / pairs), 1.0))
    strategy = [np.zeros(1), np.zeros(1)]  # has no runs to differ
    low, _ = aggregates.probability_of_improvement(first, strategy).over_runs
    assert low == pytest.approx(0.025 ** (1 / pairs))


def test_where_an_interval_would_cover_too_little_there_is_none():
    fewest = aggregates.FEWEST_PROBLEMS
    for name in ("iqm", "optimality_gap"):
        assert ALL[name](suite(fewest)).over_runs is not None
        assert ALL[name](suite(fewest - 1)).over_runs is None
        assert ALL[name](suite(fewest, runs=2)).over_runs is None
        solved = [*suite(fewest - 1), np.ones(4), np.ones(4)]
        assert ALL[name](solved).over_runs is None  # a solved problem tells of no other
    assert ALL["profile"](suite(1)).over_runs is not None
    assert ALL["profile"](suite(8, runs=1)).over_runs is None
    assert ALL["improvement"](suite(8, runs=1)).over_runs is not None  # beside seeds
    alone = aggregates.probability_of_improvement(suite(runs=1), suite(runs=1))
    assert alone.kind is None


@pytest.mark.parametrize("name", ["iqm", "optimality_gap", "profile"])
def test_intervals_cover(name):
    """500 suites of three runs each of eight problems, one seed in five far worse."""
    rng = np.random.default_rng(0)
    means = np.linspace(0.2, 0.8, 8)

    def draw(runs):
        fails = rng.random((runs, 8)) < 0.2
        return list((means + 0.03 * rng.normal(size=(runs, 8)) - 0.3 * fails).T)

    entries = np.concatenate(draw(50_000))
    truth = {
        "iqm": scipy.stats.trim_mean(entries, 0.25),
        "optimality_gap": 1 - entries.clip(max=1).mean(),
        "profile": (entries > 0.5).mean(),
    }[name]
    intervals = [ALL[name](draw(3)).over_runs for _ in range(500)]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert covered >= 0.92
