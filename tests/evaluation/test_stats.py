"""Estimates and intervals against closed forms, and against how often they cover the truth."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from metarl.evaluation import stats

REGIMES = {"run": (1.0, 0.3, 1.0), "balanced": (0.1, 1.0, 1.0), "task": (0.01, 1.0, 1.0)}
"""Standard deviations of runs, of tasks and of single trials; the mean is 0."""


def layout(rng, regime, runs, tasks, repetitions):
    """[B, R, N] scores of a two-way layout, and the effects of the tasks [B, 1, N]."""
    run, task, trial = REGIMES[regime]
    by_task = task * rng.standard_normal((repetitions, 1, tasks))
    by_run = run * rng.standard_normal((repetitions, runs, 1))
    return by_run + by_task + trial * rng.standard_normal((repetitions, runs, tasks)), by_task


def coverage(intervals):
    return np.mean([low <= 0 <= high for low, high in intervals])


# -------------------------------------------------------------------------------------------------
# Closed forms


def test_one_run_speaks_of_tasks_alone_by_student():
    scores = np.random.default_rng(0).normal(3.0, 2.0, (1, 12))
    estimate = stats.mean(scores)
    expected = scipy.stats.ttest_1samp(scores[0], 0.0).confidence_interval(0.95)
    assert estimate.value == pytest.approx(scores.mean())
    assert estimate.over_tasks == pytest.approx(expected)
    assert estimate.over_runs is estimate.over_runs_and_tasks is None
    assert estimate.kind == "over_tasks"


def test_over_runs_is_student_of_the_runs_means():
    scores = np.random.default_rng(0).normal(size=(4, 30))
    expected = scipy.stats.ttest_1samp(scores.mean(1), 0.0).confidence_interval(0.95)
    assert stats.mean(scores).over_runs == pytest.approx(expected)


def test_two_way_variance_of_an_additive_layout():
    """Without residuals Var x̄ = s²_run/R + s²_task/N, the two terms of which are equal here."""
    runs, tasks = np.array([-1.0, 0.0, 1.0]), np.array([-1.0, 0.0, 1.0])
    estimate = stats.mean(runs[:, None] + tasks)
    half = scipy.stats.t.ppf(0.975, 2) * np.sqrt(1 / 3 + 1 / 3)
    assert estimate.over_runs_and_tasks == pytest.approx((-half, half))


def test_quantiles_are_weighted_by_the_share_of_the_runs():
    scores = np.array([1.0, -1.0])[:, None] + np.sqrt(8) * np.array([-1.0, 1.0, -1.0, 1.0])
    run, task = 2.0 / 2, 8 * 4 / 3 / 4  # variances of the mean
    share = run / (run + task)
    quantile = scipy.stats.t.ppf(0.975, 1) ** share * scipy.stats.t.ppf(0.975, 3) ** (1 - share)
    half = quantile * np.sqrt(run + task)
    assert stats.mean(scores).over_runs_and_tasks == pytest.approx((-half, half))


def test_residuals_are_counted_once_and_never_left_out():
    scores = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])  # nothing but residuals
    residual = 4 / ((2 - 1) * (3 - 1)) / 6
    half = scipy.stats.t.ppf(0.975, 2) * np.sqrt(residual)
    assert stats.mean(scores).over_runs_and_tasks == pytest.approx((-half, half))


def test_equal_scores_have_an_interval_of_no_width():
    assert stats.mean(np.full((3, 5), 2.0)).over_runs_and_tasks == (2.0, 2.0)
    assert stats.difference(np.ones((3, 5)), np.ones((2, 5))).over_runs_and_tasks == (0.0, 0.0)


def test_tasks_that_are_fixed_have_no_variance():
    scores = np.random.default_rng(0).normal(size=(4, 30))
    estimate = stats.mean(scores, tasks_fixed=True)
    assert estimate.over_runs == stats.mean(scores).over_runs
    assert estimate.over_runs_and_tasks is estimate.over_tasks is None
    alone = stats.mean(scores[:1], tasks_fixed=True)
    assert alone.kind is None
    assert alone.value == pytest.approx(scores[0].mean())


def test_two_tasks_are_too_few_to_speak_of_others():
    scores = np.random.default_rng(0).normal(size=(4, 2))
    assert stats.mean(scores).kind == "over_runs"
    assert stats.mean(scores[:1]).kind is None


def test_difference_over_runs_is_welchs():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(4, 30)), 3 * rng.normal(size=(6, 30))
    expected = scipy.stats.ttest_ind(first.mean(1), second.mean(1), equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert stats.difference(first, second).over_runs == pytest.approx(interval)


def test_difference_of_single_runs_is_the_paired_t_interval():
    rng = np.random.default_rng(0)
    tasks = 10 * rng.normal(size=40)
    first, second = tasks + rng.normal(size=(1, 40)), tasks + rng.normal(size=(1, 40))
    expected = scipy.stats.ttest_rel(first[0], second[0]).confidence_interval(0.95)
    low, high = stats.difference(first, second).over_tasks
    assert (low, high) == pytest.approx(expected)
    unpaired = scipy.stats.ttest_ind(first[0], second[0]).confidence_interval(0.95)
    assert high - low < 0.2 * (unpaired.high - unpaired.low)


def test_gap_of_one_run_is_welchs_over_tasks():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(1, 30)), 3 * rng.normal(size=(1, 50))
    expected = scipy.stats.ttest_ind(first[0], second[0], equal_var=False)
    assert stats.gap(first, second).over_tasks == pytest.approx(expected.confidence_interval(0.95))


def test_gap_is_paired_by_run():
    """Runs that differ by far more than their gap does."""
    rng = np.random.default_rng(0)
    runs = 100 * rng.normal(size=(5, 1))
    first, second = runs + rng.normal(size=(5, 40)), runs - 3 + rng.normal(size=(5, 60))
    expected = scipy.stats.ttest_rel(first.mean(1), second.mean(1)).confidence_interval(0.95)
    estimate = stats.gap(first, second)
    assert estimate.over_runs == pytest.approx(expected)
    assert estimate.over_runs_and_tasks[0] > 2


def test_a_fixed_side_of_a_gap_has_no_variance():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(1, 30)), rng.normal(size=(1, 50))
    low, high = stats.gap(first, second, (True, False)).over_tasks
    alone = scipy.stats.ttest_1samp(second[0], 0.0).confidence_interval(0.95)
    assert high - low == pytest.approx(alone.high - alone.low)


def test_iqm_cuts_runs_and_never_trials():
    """Success of .2 is .2, though in the middle half of the trials nothing succeeds."""
    trials = np.zeros((8, 10))
    trials[:, :2] = 1
    assert stats.iqm(trials).value == pytest.approx(0.2)
    runs = np.array([-1e6, 1.0, 2.0, 3.0, 1e6])[:, None] + np.zeros((5, 3))
    assert stats.iqm(runs).value == pytest.approx(2.0)
    many = np.random.default_rng(0).normal(size=(11, 4))
    expected = scipy.stats.trim_mean(many.mean(1), 0.25)
    assert stats.iqm(many).value == pytest.approx(expected, abs=1e-12)


def test_iqm_interval_is_that_of_a_trimmed_mean():
    """By the formula of Tukey and McLaughlin (1963), as scipy has it for trimmed t tests."""
    scores = np.random.default_rng(0).normal(1.0, 1.0, (9, 1))
    low, high = stats.iqm(scores).over_runs
    order = np.sort(scores[:, 0])
    winsorized = np.concatenate([[order[2]] * 2, order[2:7], [order[6]] * 2])
    spread = winsorized.std(ddof=1) / (5 / 9) / 3
    assert high - low == pytest.approx(2 * scipy.stats.t.ppf(0.975, 4) * spread)


def test_tasks_won_counts_a_tie_as_half():
    first, second = np.array([[1.0, 2.0, 3.0, 0.0]]), np.array([[0.0, 2.0, 4.0, -1.0]])
    assert stats.tasks_won(first, second) == pytest.approx((1 + 0.5 + 0 + 1) / 4)


# -------------------------------------------------------------------------------------------------
# Coverage: 4,000 repetitions with a fixed seed, ± .007 (95 %)


@pytest.mark.parametrize("runs", [2, 3, 5, 10])
@pytest.mark.parametrize("regime", REGIMES)
def test_intervals_over_runs_and_tasks_cover(regime, runs):
    scores, _ = layout(np.random.default_rng(runs), regime, runs, 40, 4000)
    covered = coverage(stats.mean(x).over_runs_and_tasks for x in scores)
    assert 0.923 <= covered <= 0.977  # .93 to .97


@pytest.mark.parametrize("runs", [2, 3, 5, 10])
@pytest.mark.parametrize("regime", REGIMES)
def test_paired_intervals_cover(regime, runs):
    rng = np.random.default_rng(runs)
    first, by_task = layout(rng, regime, runs, 40, 2000)
    second = (
        by_task + layout(rng, regime, runs, 40, 2000)[0]
    )  # the same tasks, and a change of each
    covered = coverage(
        stats.difference(x, y).over_runs_and_tasks for x, y in zip(first, second, strict=True)
    )
    assert 0.92 <= covered <= 0.98


@pytest.mark.parametrize("regime", REGIMES)
def test_intervals_over_runs_cover_what_further_runs_reach_on_the_same_tasks(regime):
    scores, by_task = layout(np.random.default_rng(0), regime, 3, 40, 4000)
    shifted = scores - by_task.mean(2, keepdims=True)  # the truth on these tasks is 0
    covered = coverage(stats.mean(x).over_runs for x in shifted)
    assert 0.94 <= covered <= 0.96


def test_two_evaluations_of_one_agent_seldom_differ():
    """The same agent on other tasks and with other randomness: «different» in at most 6 %."""
    rng = np.random.default_rng(0)
    scores = rng.exponential(1.0, (4000, 2, 100))
    same = coverage(stats.gap(x[:1], x[1:]).over_tasks for x in scores)
    assert 1 - same <= 0.06


# -------------------------------------------------------------------------------------------------
# Tests


def test_p_over_runs_is_welchs():
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(4, 30)), 3 * rng.normal(size=(6, 30)) - 0.3
    expected = scipy.stats.ttest_ind(
        new.mean(1), old.mean(1), equal_var=False, alternative="less"
    ).pvalue
    assert stats.p_worse(new, old) == pytest.approx(expected, rel=1e-6)
    assert stats.p_worse(old, new) == pytest.approx(1 - expected, rel=1e-6)


def test_p_beside_a_strategy_is_students():
    rng = np.random.default_rng(0)
    runs, strategy = rng.normal(size=(5, 30)), rng.normal(size=(1, 30))
    expected = scipy.stats.ttest_1samp(runs.mean(1), strategy.mean(), alternative="less").pvalue
    assert stats.p_worse(runs, strategy) == pytest.approx(expected, rel=1e-6)


def test_p_of_strategies_is_paired_by_task():
    rng = np.random.default_rng(0)
    old = 10 * rng.normal(size=(1, 40))
    new = old - 0.2 + rng.normal(size=(1, 40))
    expected = scipy.stats.ttest_rel(new[0], old[0], alternative="less").pvalue
    assert stats.p_worse(new, old) == pytest.approx(expected, rel=1e-6)


def test_p_and_the_interval_agree():
    """p is .025 where the interval of the difference ends at 0."""
    rng = np.random.default_rng(0)
    for runs in (1, 4):
        old, new = rng.normal(size=(runs, 30)), rng.normal(size=(runs, 30))
        estimate = stats.difference(new, old, tasks_fixed=runs > 1)
        _, high = estimate.over_runs or estimate.over_tasks
        assert stats.p_worse(new - high, old) == pytest.approx(0.025, abs=1e-6)


def test_p_without_any_noise():
    same = np.full((3, 5), 0.75)
    assert stats.p_worse(same, same) == 1
    assert stats.p_worse(same + 1e-15, same) == stats.p_worse(same, same + 1e-15) == 1  # rounding
    assert stats.p_worse(same - 0.5, same) == 0
    assert stats.p_worse(same + 0.5, same) == 1
    assert stats.p_worse(same[:1] - 0.5, same[:1]) == 0


def test_holm_corrects_step_by_step():
    """.01, .04, .03 and .005: 4·.005, 3·.01, 2·.03, and .04 is no less than the one before."""
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert stats.holm([0.02]) == pytest.approx([0.02])
    assert len(stats.holm([])) == 0
