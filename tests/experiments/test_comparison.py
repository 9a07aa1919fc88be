"""Agents beside each other on the same tasks: paired differences, baselines, gaps."""

from __future__ import annotations

import json

import numpy as np
import pytest

from metarl.config.schema import parse
from metarl.evaluation import stats
from metarl.experiments.comparison import compare
from metarl.experiments.runs import train

SMALL = {
    "agent": {"name": "rl2", "memory_width": 8, "trials": 12, "minibatches": 2, "epochs": 2},
    "family": {"name": "bernoulli-bandit", "arms": 3},
    "episodes": 5,
    "iterations": 2,
    "validate_every": 2,
    "validation_tasks": 20,
    "test_tasks": 30,
}


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three seeds of one run."""
    folder = tmp_path_factory.mktemp("runs") / "three"
    for seed in range(3):
        train(parse({**SMALL, "seed": seed}), folder / f"seed-{seed}", quiet=True)
    return folder


def test_standard_rows_stand_beside_the_run(three):
    comparison = compare(three)
    assert list(comparison.scores) == ["rl2", "rl2, no adaptation", "random"]
    assert set(comparison.elsewhere) == {"train", "ood"}
    assert list(compare(three, baselines=False).scores) == ["rl2"]
    assert list(compare(three, ["random"]).scores) == ["rl2", "rl2, no adaptation", "random"]


def test_differences_are_paired_by_task(three):
    comparison = compare(three, ["ucb1"])
    own, ucb1 = (comparison.scores[name].totals for name in ("rl2", "ucb1"))
    paired = comparison.differences()["rl2 − ucb1"]
    assert paired["value"] == pytest.approx(own.mean() - ucb1.mean())
    expected = stats.difference(own, ucb1)
    assert paired["over_runs_and_tasks"] == expected.over_runs_and_tasks
    ahead = own.mean(0) - ucb1[0]
    assert paired["tasks_won"] == pytest.approx(np.mean(ahead > 0) + np.mean(ahead == 0) / 2)


def test_without_adaptation_the_same_runs_are_compared(three):
    comparison = compare(three)
    own, fixed = (comparison.scores[name].totals for name in ("rl2", "rl2, no adaptation"))
    paired = comparison.differences()["rl2 − rl2, no adaptation"]
    assert paired["over_runs"] == stats.mean(own - fixed).over_runs


def test_beside_a_single_run_other_seeds_are_not_spoken_of(three):
    one = three / "seed-0"
    for path, other in ((three, one), (one, three)):
        comparison = compare(path, [str(other)], baselines=False)
        (paired,) = comparison.differences().values()
        assert paired["over_tasks"] is not None
        assert paired["over_runs"] is paired["over_runs_and_tasks"] is None


def test_gaps_are_of_the_same_runs_between_splits(three):
    comparison = compare(three)
    gaps = comparison.gaps()
    assert set(gaps) == {"train − test", "test − ood"}
    test, ood = comparison.scores["rl2"].totals, comparison.elsewhere["ood"].totals
    assert gaps["test − ood"] == stats.gap(test, ood)
    assert not compare(three, split="ood").gaps()


def test_runs_are_compared_by_what_they_were_chosen_by(tmp_path):
    train(parse({**SMALL, "score": "last"}), tmp_path, quiet=True)
    comparison = compare(tmp_path, ["random"])
    own, random = (comparison.scores[name].returns[:, -1] for name in ("rl2", "random"))
    assert comparison.differences()["rl2 − random"]["value"] == pytest.approx(
        own.mean() - random.mean()
    )


def test_who_is_shown_the_task_is_called_so(three, tmp_path):
    agent = {**SMALL["agent"], "task_input": "row"}
    train(parse({**SMALL, "agent": agent}), tmp_path / "oracle", quiet=True)
    comparison = compare(three, [str(tmp_path / "oracle")])
    assert "oracle (shown the task)" in comparison.scores


def test_everything_is_json_and_arrays_are_left_out_on_demand(three):
    comparison = compare(three, ["ucb1"], episodes=7)
    content = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert content["scores"]["rl2"]["trained_episodes"] == 5
    assert content["scores"]["rl2"]["episodes_consumed"][-1] == 7
    kept = comparison.to_dict(arrays=False)["scores"]["rl2"]
    assert "returns" not in kept
    assert kept["tasks"] == 30


def test_a_closed_family_has_no_gap(tmp_path):
    closed = {**SMALL, "family": {"name": "gridnavi", "variant": "all"}, "episodes": 2}
    train(parse(closed), tmp_path, quiet=True)
    comparison = compare(tmp_path)
    assert not comparison.elsewhere
    assert not comparison.gaps()
    own = comparison.scores["rl2"]
    assert own.estimate(own.totals).kind is None
