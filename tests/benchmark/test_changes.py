"""What became worse between two versions, of scores that are made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metarl.benchmark.changes import Scored, find_changes
from metarl.evaluation import stats
from metarl.evaluation.scores import Scores

TASKS = 40


def cell(totals, trained=True, score="total", tasks=None, **fields):
    """Of totals [R, N] in trials of one episode."""
    totals = np.atleast_2d(np.asarray(totals, float))
    count = totals.shape[1]
    scores = Scores(
        returns=totals[:, None],
        success=np.clip(totals[:, None], 0, 1),
        metrics={},
        optimum=None,
        mean_optimum=None,
        task_index=np.arange(count) if tasks is None else np.resize(np.arange(tasks), count),
        lanes=1,
        split="test",
        closed=False,
        tasks_fixed=tasks is not None,
        adapt=True,
        mode="sample",
        test_mode="sample",
        seed=0,
        task_hash="a",
    )
    return Scored(replace(scores, **fields), score, trained)


def runs(mean, seed=0, count=5, noise=0.02):
    """[R, N]: runs that differ, on tasks that differ more."""
    rng = np.random.default_rng(seed)
    tasks = np.random.default_rng(99).normal(size=TASKS)
    return mean + tasks - tasks.mean() + noise * rng.normal(size=(count, 1)) + np.zeros(TASKS)


def judge(old, new):
    (change,) = find_changes({("bandit", "rl2"): old}, {("bandit", "rl2"): new})
    return change


def test_a_loss_beyond_the_noise_of_runs_is_worse_and_a_gain_better():
    old, new = cell(runs(1.0)), cell(runs(0.9, seed=1))
    change = judge(old, new)
    assert (change.problem, change.agent, change.verdict) == ("bandit", "rl2", "worse")
    assert (change.old, change.new) == pytest.approx((old.rows.mean(), new.rows.mean()))
    assert change.difference == stats.difference(new.rows, old.rows, tasks_fixed=True)
    assert change.p == stats.p_worse(new.rows, old.rows)
    assert judge(new, old).verdict == "better"
    assert judge(old, cell(runs(0.999, seed=1))).verdict == "same"
    assert judge(old, old).p == 1


def test_verdicts_and_intervals_never_disagree():
    """Of a single cell a p of .03 is below .05, and its interval of 95 % holds 0."""
    old, new = runs(1.0), runs(1.0, seed=1)
    _, high = stats.difference(new, old, tasks_fixed=True).over_runs
    change = judge(cell(old), cell(new - 0.95 * high))
    assert 0.025 < change.p < 0.05
    assert change.verdict == "same"
    assert judge(cell(old), cell(new - 1.05 * high)).verdict == "worse"


def test_many_cells_need_more_evidence():
    """p = .01 is enough for one cell, and not for one of ten."""
    rng = np.random.default_rng(0)
    old, new = runs(1.0), runs(0.965, seed=1)
    p = stats.p_worse(new, old)
    assert 0.005 < p < 0.025
    assert judge(cell(old), cell(new)).verdict == "worse"
    before, after = {("bandit", "rl2"): cell(old)}, {("bandit", "rl2"): cell(new)}
    for other in range(9):
        before["bandit", f"agent {other}"] = cell(runs(1.0, seed=rng.integers(1000)))
        after["bandit", f"agent {other}"] = before["bandit", f"agent {other}"]
    changes = find_changes(before, after)
    assert changes[0].p == pytest.approx(10 * p)
    assert {change.verdict for change in changes} == {"same"}


def test_strategies_are_paired_over_tasks():
    tasks = np.random.default_rng(0).normal(size=TASKS)
    old = cell(tasks, trained=False)
    assert judge(old, cell(tasks, trained=False)).verdict == "same"
    noise = 0.1 * np.random.default_rng(1).normal(size=TASKS)
    change = judge(old, cell(tasks - 0.1 + noise, trained=False))
    assert change.verdict == "worse"
    assert change.difference.over_tasks[1] < 0
    assert judge(old, cell(tasks - 0.1, trained=False)).p == 0


def test_a_strategy_on_two_fixed_tasks_is_compared_by_row():
    old = np.resize([0.0, 5.0], TASKS)
    noise = 0.1 * np.random.default_rng(1).normal(size=TASKS)
    change = judge(cell(old, False, tasks=2), cell(old - 0.1 + noise, False, tasks=2))
    assert change.verdict == "worse"


def test_less_is_better_where_the_score_has_a_minus():
    old, new = runs(0.5, noise=0.01).clip(0, 1), runs(0.5, noise=0.01).clip(0, 1) / 2
    assert judge(cell(old, score="success"), cell(new, score="success")).verdict == "worse"
    assert judge(cell(old, score="-success"), cell(new, score="-success")).verdict == "better"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (cell(runs(1)), cell(runs(1), task_hash="b"), "other tasks"),
        (cell(runs(1)), cell(runs(1), mode="greedy"), "modes"),
        (cell(runs(1)), cell(runs(1), score="last"), "another score"),
        (cell(runs(1)), cell(runs(1)[:1], trained=False), "trained"),
        (cell(runs(1)[:1]), cell(runs(1)), "a single run"),
        (cell(runs(1)), cell(runs(np.nan)), "not finite"),
        (cell([1.0, 2.0], trained=False), cell([1.0, 2.0], trained=False), "fewer than 3 tasks"),
    ],
)
def test_what_cannot_be_compared_is_not_judged(old, new, reason):
    change = judge(old, new)
    assert change.verdict == "not judged"
    assert reason in change.reason
    assert change.difference is change.p is None


def test_cells_of_one_version_alone_are_told_and_do_not_count():
    old, new = cell(runs(1.0)), cell(runs(0.9, seed=1))
    lost, both, added = ("a", "x"), ("b", "x"), ("c", "x")
    changes = find_changes({lost: old, both: old}, {added: new, both: new})
    assert [(change.problem, change.agent) for change in changes] == [lost, both, added]
    assert [change.verdict for change in changes] == ["not judged", "worse", "not judged"]
    assert [change.reason for change in changes] == [
        "only in the old version",
        "",
        "only in the new version",
    ]
    assert changes[0].new is changes[2].old is None
    assert changes[1].p == stats.p_worse(new.rows, old.rows)
