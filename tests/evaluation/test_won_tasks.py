"""Shares of tasks won, where sums of floating-point numbers differ by rounding alone."""

import numpy as np

from metarl.evaluation import stats


def test_a_tie_is_half_a_win_whatever_the_number_of_runs():
    runs = 4.17 - np.random.default_rng(0).random((3, 40))
    for other in (np.concatenate([runs, runs]), runs[::-1]):
        assert stats.tasks_won(runs, other) == stats.tasks_won(other, runs) == 0.5
