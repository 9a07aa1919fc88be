"""Estimates and intervals against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.evaluation import stats


def test_iqm_is_the_mean_of_the_middle_half():
    assert stats.iqm(np.array([[0.0, 1.0, 2.0, 100.0]])).value == pytest.approx(1.5)
    assert stats.iqm(np.array([[-1e6, 1.0, 3.0, 1e6]])).value == pytest.approx(2.0)


def test_iqm_splits_scores_that_straddle_a_quartile():
    # of five equal weights of .2, the middle half takes .15 of the second, .2 of the third and
    # .15 of the fourth
    assert stats.iqm(np.array([[0.0, 1.0, 2.0, 4.0, 9.0]])).value == pytest.approx(
        (0.15 * 1 + 0.2 * 2 + 0.15 * 4) / 0.5
    )


def test_mean_interval_of_one_run_is_that_of_the_tasks():
    scores = np.random.default_rng(0).normal(3.0, 2.0, (1, 4000))
    estimate = stats.mean(scores)
    half = 1.96 * 2.0 / np.sqrt(4000)
    assert estimate.value == pytest.approx(scores.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * half, rel=0.1)


def test_interval_contains_the_spread_between_runs():
    """Four runs that differ far more than their tasks do: thousands of tasks must not hide it."""
    rng = np.random.default_rng(0)
    runs = np.array([[0.0], [1.0], [2.0], [3.0]])
    estimate = stats.mean(runs + 0.01 * rng.normal(size=(4, 5000)))
    assert estimate.value == pytest.approx(1.5, abs=0.01)
    assert estimate.high - estimate.low > 1.5


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        estimate = stats.mean(rng.exponential(1.0, (1, 200)))
        hits += estimate.low <= 1.0 <= estimate.high
    assert 0.90 <= hits / 300 <= 0.98


def test_curve_equals_the_mean_of_every_column():
    curves = np.random.default_rng(0).normal(size=(3, 4, 50))
    mean, low, high = stats.mean_curve(curves)
    assert mean == pytest.approx(curves.mean((0, 2)))
    for k in range(4):
        column = stats.mean(curves[:, k])
        assert (low[k], high[k]) == pytest.approx((column.low, column.high))


def test_same_scores_same_interval():
    scores = np.random.default_rng(0).normal(size=(2, 30))
    assert stats.iqm(scores) == stats.iqm(scores)
