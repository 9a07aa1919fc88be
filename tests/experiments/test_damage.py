"""Damaged, missing and foreign files of a run: a line says so, and what is left is used."""

from __future__ import annotations

import json
import shutil

import pytest
from helpers import same

from metarl.config.schema import parse
from metarl.core.errors import CheckpointError
from metarl.experiments import checkpoints
from metarl.experiments.building import load
from metarl.experiments.folder import EVALUATION
from metarl.experiments.logs import read_metrics
from metarl.experiments.runs import train


def config(**changes):
    agent = {"name": "rl2", "memory_width": 4, "trials": 4, "minibatches": 1, "epochs": 1}
    small = {"episodes": 2, "iterations": 4, "validation_tasks": 4, "test_tasks": 4}
    often = {"validate_every": 1, "checkpoint_every": 1}
    return parse({"agent": agent, "family": "bernoulli-bandit", **small, **often, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(config(), folder, quiet=True)
    train(config(seed=1), folder.parent / "other", quiet=True)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A finished run that may be damaged."""
    return shutil.copytree(finished, tmp_path / "run")


def damage(path):
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 100] = bytes(~byte & 255 for byte in data[middle : middle + 100])
    path.write_bytes(data)


def remove(path):
    path.unlink()


def take_from_another_seed(path):
    shutil.copy(path.parents[2] / "other" / "checkpoints" / path.name, path)


def scores(run):
    return json.loads((run / "result.json").read_bytes())["scores"]


def checkpoint(run, name):
    return run / "checkpoints" / f"{name}.pt"


def test_a_damaged_best_checkpoint_is_told_and_the_latest_is_loaded(run, capsys):
    damage(checkpoint(run, "best"))
    loaded = load(run)
    latest = checkpoints.load(checkpoint(run, "latest"))
    assert same(loaded.agent.state_dict(), latest["agent"])
    assert capsys.readouterr().err.count("best.pt is truncated, damaged") == 1
    damage(checkpoint(run, "latest"))
    assert load(run).counters.iterations == 3
    damage(checkpoint(run, "previous"))
    with pytest.raises(CheckpointError, match=r"best\.pt is truncated, damaged"):
        load(run)


def test_a_missing_best_checkpoint_is_told(run, capsys):
    remove(checkpoint(run, "best"))
    assert load(run).counters.iterations == 4
    assert "has lost its best.pt; this is latest.pt" in capsys.readouterr().err


@pytest.mark.parametrize("happened", [damage, remove, take_from_another_seed])
def test_a_run_whose_best_checkpoint_is_lost_can_be_finished(
    happened, finished, run, capsys, tmp_path
):
    shutil.copytree(finished.parent / "other", tmp_path / "other", dirs_exist_ok=True)
    happened(checkpoint(run, "best"))
    result = train(config(iterations=5), run, resume=True, quiet=True)
    assert "the best checkpoint is chosen anew from now on" in capsys.readouterr().err
    assert result["best_iteration"] == 5
    assert load(run).counters.iterations == 5


def test_so_it_can_when_the_best_checkpoint_is_lost_at_the_end(run, capsys):
    """There is no validation to come: the last agent is validated."""
    damage(checkpoint(run, "best"))
    (run / "result.json").unlink()
    result = train(config(), run, resume=True, quiet=True)
    assert (result["best_iteration"], result["last"]["iteration"]) == (4, 4)
    assert load(run).counters.iterations == 4


@pytest.mark.parametrize("happened", [damage, take_from_another_seed])
def test_a_latest_checkpoint_that_is_not_of_the_run_is_passed_over(
    happened, finished, run, capsys, tmp_path
):
    shutil.copytree(finished.parent / "other", tmp_path / "other", dirs_exist_ok=True)
    happened(checkpoint(run, "latest"))
    (run / "result.json").unlink()
    train(config(), run, resume=True, quiet=True)
    assert "going on from previous.pt" in capsys.readouterr().err
    assert scores(run) == scores(finished)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[1]", b'{"scores": 1e'])
def test_a_damaged_result_is_told_and_written_again(text, run, finished, capsys):
    (run / "result.json").write_bytes(text)
    train(config(), run, resume=True, quiet=True)
    assert "result.json is damaged; it is written again" in capsys.readouterr().err
    assert scores(run) == scores(finished)


def test_damaged_logs_of_a_finished_run_are_told_and_written_again(run, capsys):
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(lines[0] + b'{"iteration": tw\xf6}\n' + b"".join(lines[2:]))
    (run / EVALUATION).write_text("{")
    train(config(), run, resume=True, quiet=True)
    said = capsys.readouterr().err
    assert "metrics.jsonl is damaged: line 2" in said
    assert "evaluation.json is damaged; metarl evaluate" in said
    assert [record["iteration"] for record in read_metrics(run)] == [1, 3, 4]
    assert "damaged" not in capsys.readouterr().err
