"""What is reported where something is unusual: runs of other sizes, a loss as the score."""

from __future__ import annotations

import json
from shutil import copytree

import numpy as np
import pytest

from metarl.config.schema import parse
from metarl.experiments import checkpoints
from metarl.experiments.comparison import compare
from metarl.experiments.runs import train
from metarl.experiments.tables import print_comparison, print_result

SMALL = {
    "agent": {"name": "rl2", "memory_width": 8, "trials": 12, "minibatches": 2, "epochs": 1},
    "family": {"name": "bernoulli-bandit", "arms": 3},
    "episodes": 3,
    "iterations": 2,
    "validate_every": 10,
    "validation_tasks": 5,
    "test_tasks": 8,
}


def test_seeds_with_training_tasks_of_their_own_have_a_gap_over_runs(tmp_path):
    for seed in (0, 1):
        train(
            parse({**SMALL, "train_tasks": 6, "seed": seed}), tmp_path / f"seed-{seed}", quiet=True
        )
    comparison = compare(tmp_path)
    gap = comparison.gaps()["train − test"]
    apart = []
    for seed in (0, 1):
        own = compare(tmp_path / f"seed-{seed}", baselines=False, split="train").scores["rl2"]
        test = compare(tmp_path / f"seed-{seed}", baselines=False).scores["rl2"]
        apart.append(own.totals.mean() - test.totals.mean())
    assert gap.value == pytest.approx(np.mean(apart))
    half = 12.7062 * np.std(apart, ddof=1) / np.sqrt(2)  # Student's t, one degree of freedom
    assert np.subtract(gap.over_runs, gap.value) == pytest.approx([-half, half], rel=1e-4)
    assert json.dumps(comparison.to_dict())


def test_a_run_stopped_before_any_validation_is_validated_once(tmp_path):
    config = parse({**SMALL, "iterations": 5, "checkpoint_every": 1})
    result = train(config, tmp_path, callbacks=[lambda update: True], quiet=True)
    assert result["best_iteration"] == result["last"]["iteration"] == 1
    assert checkpoints.load(tmp_path / "checkpoints" / "best.pt")["best"] == result["validation"]
    summaries = {split: scores["summary"] for split, scores in result["scores"].items()}
    assert result["last"]["scores"] == summaries


def test_a_stopped_run_that_is_resumed_to_fewer_iterations_reports(tmp_path, capsys):
    stop = [lambda update: update.counters.iterations == 2]
    train(parse({**SMALL, "iterations": 5}), tmp_path, callbacks=stop, quiet=True)
    (tmp_path / "result.json").unlink()
    (tmp_path / "checkpoints" / "best.pt").unlink()
    state = checkpoints.load(tmp_path / "checkpoints" / "latest.pt")
    checkpoints.save(tmp_path / "checkpoints" / "latest.pt", {**state, "best": None, "window": []})
    result = train(parse({**SMALL, "iterations": 2}), tmp_path, resume=True, quiet=True)
    print_result(result)
    assert f"{result['validation']:.2f}" in capsys.readouterr().out


def test_the_result_of_an_older_version_is_evaluated_anew(tmp_path, capsys):
    config = parse(SMALL)
    result = train(config, tmp_path, quiet=True)
    older = {key: x for key, x in result.items() if key not in ("last", "gaps", "versions")}
    (tmp_path / "result.json").write_text(json.dumps(older))
    again = train(config, tmp_path, resume=True, quiet=True)
    assert again["scores"] == result["scores"]
    assert again["last"] == result["last"]
    print_result(again)
    assert "test" in capsys.readouterr().out


def test_the_table_of_a_loss_has_one_sign(tmp_path, capsys):
    """What is smallest is negated everywhere: in validation, on tasks, and in gaps."""
    config = {**SMALL, "family": {"name": "point"}, "score": "-distance"}
    result = train(parse(config), tmp_path, quiet=True)
    assert result["validation"] < 0
    print_result(result)
    table = capsys.readouterr().out
    rows = [cells for cells in map(str.split, table.splitlines()) if len(cells) == 7]
    shown = {row[0]: row[1:] for row in rows}
    for split in ("train", "test", "ood"):
        mean = result["scores"][split]["summary"]["metrics"]["distance"]["mean"]
        value, low, high = (float(cell.strip("[,]")) for cell in shown[split][:3])
        expected = [-mean["value"], -mean["over_tasks"][1], -mean["over_tasks"][0]]
        assert [value, low, high] == pytest.approx(expected, abs=0.0051)
        assert low <= value <= high


def row(table, name):
    """The line of an agent in a table that is wide enough."""
    return next(line for line in table.splitlines() if line.strip().startswith(f"{name} "))


def test_runs_of_other_sizes_stand_in_the_columns_of_their_own(tmp_path, capsys):
    """One run beside three and five: no cell of one kind under the heading of another."""
    train(parse({**SMALL, "iterations": 1}), tmp_path / "one", quiet=True)
    for count in (3, 5):
        for seed in range(count):
            copytree(tmp_path / "one", tmp_path / f"r{count}" / f"seed-{seed}")
    comparison = compare(tmp_path / "one", [str(tmp_path / "r3"), str(tmp_path / "r5")])
    print_comparison(comparison)
    table, _, differences = capsys.readouterr().out.partition("\nreturn of the trial: differ")
    assert "95 % intervals over runs and tasks; of one run over tasks" in table
    heading = table.splitlines()[2] + table.splitlines()[3] + table.splitlines()[4]
    assert "each run" in heading
    assert "IQM" in heading
    mean = comparison.scores["rl2"].totals.mean()
    assert row(table, "rl2").count("[") == 4  # total, first, last, regret
    assert row(table, "r3").count("[") == 5  # and over runs
    assert row(table, "r3").split()[-3:] == [f"{mean:.2f}"] * 3
    assert row(table, "r5").count("[") == 6  # and the interquartile mean, without each run
    assert row(table, "r5").split().count(f"{mean:.2f}") == 2
    assert row(differences, "rl2 − r5").split()[-2:] == ["50", "%"]
    assert "95 % intervals over tasks" in differences


def test_a_trial_of_one_round_has_no_baseline_without_adaptation(tmp_path, capsys):
    train(parse({**SMALL, "iterations": 1}), tmp_path, quiet=True)
    assert "rl2, no adaptation" in compare(tmp_path).scores
    once = compare(tmp_path, episodes=1)
    assert set(once.scores) == {"rl2", "random"}
    print_comparison(once)
    table = capsys.readouterr().out
    assert "8 test tasks, 1 episode each (trained for 3)" in table
    assert "first episode" not in table  # it is the trial


def test_a_closed_family_has_no_interval_to_speak_of(tmp_path, capsys):
    family = {"name": "movement-bandits", "horizon": 4}
    train(parse({**SMALL, "family": family, "iterations": 1}), tmp_path, quiet=True)
    print_result(json.loads((tmp_path / "result.json").read_text()))
    table = capsys.readouterr().out
    assert "no intervals: a single run, on fixed tasks" in table
    assert "over tasks" not in table


def test_how_an_agent_acts_stands_beside_its_figures(tmp_path, capsys):
    """Once, though it is the same without adaptation; nothing of who has nothing to say."""
    small = {"encoder_sizes": [8], "hidden_sizes": [8], "tasks": 2, "initial_episodes": 2}
    agent = {"name": "pearl", "exploration_episodes": 2, "updates": 2, "batch_size": 8, **small}
    config = {**SMALL, "agent": agent, "family": "sparse-point", "train_tasks": 3, "iterations": 1}
    acting = "z from the prior in the first 2 episodes; then z from the posterior"
    result = train(parse(config), tmp_path, quiet=True)
    print_result(result)
    assert " ".join(capsys.readouterr().out.split()).count(acting) == 1
    print_comparison(compare(tmp_path, ["random"]))
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count(acting) == 1
    assert f"pearl: {acting}" in shown
    assert "random:" not in shown
