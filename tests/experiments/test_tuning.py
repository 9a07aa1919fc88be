"""Searches: what is drawn, judged, pruned, kept, gone on with, and never looked at."""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from filelock import FileLock
from helpers import FILES
from sqlalchemy.exc import OperationalError
from test_cli import metarl, mistake

from metarl.config.files import load_config
from metarl.config.schema import to_dict
from metarl.core.errors import CheckpointError, ConfigError, DiskError, MetaRLError
from metarl.experiments import tuning
from metarl.experiments.counters import Counters
from metarl.experiments.loop import Update
from metarl.experiments.runs import train
from metarl.experiments.space import read_space
from metarl.experiments.tuning import tune

SMALL = """
agent: {name: rl2, memory_width: 4, trials: 8, minibatches: 1, epochs: 1}
family: {name: "FAMILY:Asked", log: "LOG"}
episodes: 4
iterations: 4
validate_every: 2
validation_tasks: 4
test_tasks: 4
seed: 3
"""

SPACE = """
agent.learning_rate: {low: 1e-4, high: 1e-2, log: true}
agent:
  epochs: {low: 1, high: 3}
  clip_range: {low: 0.1, high: 0.3, step: 0.1}
  gae_lambda: [[0.3, 0.98, 0.6], 0.9]
"""


@pytest.fixture
def at(tmp_path):
    """A folder with a configuration and a space."""
    (tmp_path / "log").touch()
    text = SMALL.replace("FAMILY", str(FILES / "asked.py")).replace("LOG", str(tmp_path / "log"))
    (tmp_path / "c.yaml").write_text(text)
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


def space(at: Path, text: str | None = None, *overrides: str):
    if text is not None:
        (at / "space.yaml").write_text(text)
    return read_space(at / "space.yaml", str(at / "c.yaml"), overrides)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def splits(at: Path) -> set[str]:
    return set((at / "log").read_text().split())


# -------------------------------------------------------------------------------------------------
# The space


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("agent.learning_ratee: [1, 2]", "learning_ratee: unknown key; did you mean 'learning_rat"),
        ("episods: [1, 2]", "episods: unknown key; did you mean 'episodes'?"),
        ("agent.epochs: {low: 1, hihg: 2}", "epochs: unknown key hihg; did you mean 'high'?"),
        ("agent.epochs: {low: 0, high: 2}", "agent.epochs: input should be greater than 0, not 0"),
        ("agent.gamma: {low: 0.9, high: 1.1}", "agent.gamma: input should be less than or equal"),
        ("agent.epochs: {low: 1.5, high: 2}", "agent.epochs: input should be a valid integer"),
        ("agent.memory: [gru, lstm, gur]", "agent.memory: input should be 'gru', 'lstm', 'keyed'"),
        ("agent.gamma: {low: 0.9, high: 0.9}", "agent.gamma: low 0.9 is not below high 0.9"),
        ("agent.gamma: {low: 0.9}", "agent.gamma: high is a number, not None"),
        ("agent.gamma: {low: 0.9, high: true}", "agent.gamma: high is a number, not True"),
        ("agent.gamma: {low: 0, high: .inf}", "agent.gamma: high is a number, not inf"),
        ("agent.gamma: {low: 0, high: 1, log: true}", "agent.gamma: low 0 has no logarithm"),
        ("agent.gamma: {low: 0, high: 1, log: 1e-3}", "agent.gamma: log is true or false"),
        ("agent.epochs: {low: 1, high: 9, step: 3}", "steps of 3 from 1 do not reach 9"),
        ("agent.epochs: {low: 1, high: 9, step: 0.5}", "step 0.5 is no whole number above 0"),
        ("agent.gamma: {low: 0.1, high: 1.0, step: -1}", "step -1 is no number above 0"),
        ("agent.epochs: {low: 1, high: 9, step: 2, log: true}", "log and step do not go together"),
        ("agent.epochs: 3", "agent.epochs: give {low: …, high: …} or a list of choices, not 3"),
        ("agent.hidden_sizes: [64, 64]", "give two or more different choices, not [64, 64]"),
        ("agent.epochs: [1, 2]\nagent: {epochs: [3, 4]}", "agent.epochs: stands twice"),
        ("score: [total, last]", "score: trials are compared by it"),
        ("seed: [0, 1]", "seed: trials are compared by it"),
        ("family: {arms: [2, 3]}", "family.arms: trials are compared by it"),
        ("[1, 2]", "a space maps keys of the configuration to ranges or choices"),
        ("", "a space maps keys"),
    ],
)
def test_a_mistake_in_a_space_is_one_line_before_anything_runs(at, text, says):
    (at / "space.yaml").write_text(text)
    (line,) = mistake("tune", "c.yaml", "--out", "out", cwd=at)
    assert line.startswith("space.yaml: ")
    assert says in line
    assert not (at / "out").exists()


def test_mistakes_are_told_without_torch(at):
    code = """
import sys
from metarl import cli
sys.argv = ["metarl", "tune", "rl2/bernoulli-bandit", "--space", sys.argv[1]]
try:
    cli.main()
finally:
    assert "torch" not in sys.modules, "torch was imported"
"""
    (at / "space.yaml").write_text("agent.epohcs: [1, 2]")
    command = [sys.executable, "-c", code, str(at / "space.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "did you mean 'epochs'?" in done.stderr


def test_where_optuna_is_missing_a_line_says_what_to_install(at, monkeypatch):
    monkeypatch.delitem(sys.modules, "metarl.experiments.space")
    monkeypatch.delitem(sys.modules, "optuna.distributions")
    monkeypatch.setitem(sys.modules, "optuna", None)
    (line,) = mistake("tune", "c.yaml", cwd=at)
    assert line == "tune needs optuna: pip install 'metarl-torch[tune]'"


def test_what_was_drawn_takes_the_place_of_what_is_written(at):
    drawn = {"agent.learning_rate": 1.25e-05, "agent.epochs": 2, "agent.gae_lambda": "[0.5, 0.75]"}
    config = space(at, None, "agent.epochs=7", "agent.trials=6").config(drawn)
    settings = config.agent.settings
    assert (settings.learning_rate, settings.epochs, settings.trials) == (1.25e-05, 2, 6)
    assert settings.gae_lambda == (0.5, 0.75)
    assert settings.memory_width == 4


# -------------------------------------------------------------------------------------------------
# The command


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_search_leaves_runs_a_table_and_the_best_configuration(at, jobs):
    words = ["--trials", 3, "--jobs", jobs, "--out", "out", "--quiet"]
    code, out, err = metarl("tune", "c.yaml", "agent.trials=6", *words, cwd=at)
    assert (code, err) == (0, "")
    assert splits(at) == {"train", "validation"}, "test tasks were looked at"
    folder = at / "out"
    assert sorted(path.name for path in folder.glob("trial-*")) == [
        f"trial-{number:04d}" for number in range(3)
    ]
    table = rows(folder)
    keys = ["agent.learning_rate", "agent.epochs", "agent.clip_range", "agent.gae_lambda"]
    assert list(table[0]) == ["number", "state", "value", *keys, "error"]
    assert [row["number"] for row in table] == ["0", "1", "2"]
    for row in table:
        assert row["state"] == "finished"
        run = folder / f"trial-{int(row['number']):04d}"
        settings = load_config(run / "config.yaml").agent.settings
        assert settings.learning_rate == float(row["agent.learning_rate"])
        assert settings.epochs == int(row["agent.epochs"])
        assert settings.trials == 6
        lines = (run / "metrics.jsonl").read_text().splitlines()
        reached = [json.loads(line).get("validation", -1) for line in lines]
        assert float(row["value"]) == max(reached)
        assert not (run / "result.json").exists()
    best = max(table, key=lambda row: float(row["value"]))
    assert f"trial {best['number']}: out/best.yaml" in out
    assert "metarl train out/best.yaml --seeds 4,5,6 --out out/best" in out
    config = load_config(folder / "best.yaml")
    run = folder / f"trial-{int(best['number']):04d}"
    assert to_dict(config) == to_dict(load_config(run / "config.yaml"))
    assert config.seed == 3
    train(config, run, resume=True, quiet=True)
    assert (run / "result.json").is_file()
    assert splits(at) == {"train", "validation", "test", "ood"}


def test_a_search_is_repeated_by_its_seed(at, monkeypatch):
    """Also where TPE draws: after ten random trials."""
    monkeypatch.setattr(tuning, "train", lambda config, *_, **__: {"validation": rate(config)})
    for name, seed in (("first", 0), ("second", 0), ("other", 1)):
        tune(space(at), at / name, 12, seed=seed, quiet=True)
    texts = [(at / name / "trials.csv").read_text() for name in ("first", "second", "other")]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def rate(config) -> float:
    return config.agent.settings.learning_rate


def test_an_interrupted_search_goes_on_with_the_run_that_was_under_way(at, monkeypatch, capsys):
    """And ends with the trials of one that was left alone, or was gone on with later."""
    tune(space(at), at / "whole", 2, quiet=True)
    tune(space(at), at / "whole", 3, quiet=True)

    def interrupted(config, folder, *, callbacks, **given):
        def send(update):
            if folder.name == "trial-0001" and update.counters.iterations == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        return train(config, folder, callbacks=[*callbacks, send], **given)

    monkeypatch.setattr(tuning, "train", interrupted)
    with pytest.raises(SystemExit, match="143"):
        tune(space(at), at / "parts", 3, quiet=True)
    monkeypatch.undo()
    assert "parts: interrupted; repeat the command to go on" in capsys.readouterr().err
    assert [row["state"] for row in rows(at / "parts")] == ["finished", "interrupted"]
    tune(space(at), at / "parts", 3, quiet=True)
    texts = [(at / name / "trials.csv").read_text() for name in ("whole", "parts")]
    assert texts[0] == texts[1]
    lines = (at / "parts" / "trial-0001" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2, 3, 4]


def test_a_full_disk_is_no_fault_of_a_trial(at, monkeypatch):
    """The search ends with its line, and goes on as one that was left alone."""
    tune(space(at), at / "whole", 2, quiet=True)

    def full(config, folder, *, callbacks, **given):
        def refuse(update):
            if folder.name == "trial-0000" and update.counters.iterations == 3:
                raise DiskError("the disk is full")

        return train(config, folder, callbacks=[*callbacks, refuse], **given)

    monkeypatch.setattr(tuning, "train", full)
    with pytest.raises(DiskError, match="the disk is full"):
        tune(space(at), at / "parts", 2, quiet=True)
    monkeypatch.undo()
    assert [row["state"] for row in rows(at / "parts")] == ["interrupted"]
    tune(space(at), at / "parts", 2, quiet=True)
    texts = [(at / name / "trials.csv").read_text() for name in ("whole", "parts")]
    assert texts[0] == texts[1]


def test_a_storage_that_refuses_is_one_line(at):
    (at / "out").mkdir()
    cause = sqlite3.OperationalError("database or disk is full")
    with (
        pytest.raises(DiskError, match=r"out: the storage of the trials refuses .*disk is full"),
        tuning.opened(space(at), at / "out", 2, None, 0),
    ):
        raise OperationalError("INSERT", {}, cause) from cause


def test_a_signal_ends_all_processes_and_saves_what_they_do(at):
    """Ctrl-C in a terminal is for all of them."""
    command = [sys.executable, "-m", "metarl", "tune", str(at / "c.yaml"), "iterations=100000"]
    command += ["--space", str(at / "space.yaml"), "--trials", "4", "--jobs", "2"]
    command += ["--out", str(at / "out"), "--quiet"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    started = [at / "out" / f"trial-000{number}" / "metrics.jsonl" for number in (0, 1)]
    for _ in range(600):
        if all(path.is_file() and path.stat().st_size for path in started):
            break
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert err.count("go on with --resume") == 2
    assert err.count("repeat the command to go on") == 1
    assert [row["state"] for row in rows(at / "out")] == ["interrupted"] * 2


def test_a_trial_that_fails_is_kept_with_its_error_and_others_go_on(at):
    text = "agent.learning_rate: [1e-3, 1e30]"
    tuned = tune(space(at, text), at / "out", 6, quiet=True)
    failed = [trial for trial in tuned.trials if trial.state == "failed"]
    assert 0 < len(failed) < 6
    for trial in failed:
        assert float(trial.params["agent.learning_rate"]) == 1e30
        assert "is not finite after iteration" in trial.error
        assert rows(at / "out")[trial.number]["error"] == trial.error
    assert tuned.best.state == "finished"


def test_if_all_trials_fail_the_first_error_is_told(at):
    words = ["family.broken=validation", "--trials", 2, "--out", "out", "--quiet"]
    (line,) = mistake("tune", "c.yaml", *words, cwd=at)
    assert line.startswith("all 2 trials failed, the first of them so: needle: tasks('validation'")
    assert "no tasks of validation" in line
    assert [row["state"] for row in rows(at / "out")] == ["failed"] * 2


def test_an_error_that_nobody_foresaw_is_a_failed_trial_with_a_traceback(at, monkeypatch):
    real = tuning.train

    def out_of_memory(config, folder, **given):
        if folder.name == "trial-0000":
            raise RuntimeError("CUDA out of memory")
        return real(config, folder, **given)

    monkeypatch.setattr(tuning, "train", out_of_memory)
    tuned = tune(space(at), at / "out", 2, quiet=True)
    assert [trial.state for trial in tuned.trials] == ["failed", "finished"]
    assert "RuntimeError: CUDA out of memory" in tuned.trials[0].error
    assert "out_of_memory" in (at / "out" / "trial-0000" / "traceback.txt").read_text()


def test_another_search_in_the_same_folder_or_storage_is_refused(at):
    url = f"sqlite:///{at / 't.db'}"
    tune(space(at), at / "out", 1, storage=url, quiet=True)
    assert (at / "t.db").is_file()
    for overrides, given, says in [
        (["iterations=3"], {}, "another configuration"),
        ([], {"seed": 1}, "another seed"),
    ]:
        with pytest.raises(CheckpointError, match=f"out holds trials of {says}; choose another"):
            tune(space(at, None, *overrides), at / "out", 1, storage=url, quiet=True, **given)
    with pytest.raises(CheckpointError, match="out and the storage do not hold the same trials"):
        tune(space(at), at / "out", 1, quiet=True)
    with pytest.raises(CheckpointError, match="do not hold the same trials"):
        tune(space(at), at / "elsewhere" / "out", 1, storage=url, quiet=True)
    with pytest.raises(CheckpointError, match="another space"):
        tune(space(at, "agent.epochs: [1, 2]"), at / "out", 1, storage=url, quiet=True)
    with pytest.raises(ConfigError, match="--storage cannot be opened"):
        tune(space(at), at / "third", 1, storage="nonsense", quiet=True)
    with (
        FileLock(at / "out" / ".lock"),
        pytest.raises(CheckpointError, match="another process is tuning there"),
    ):
        tune(space(at), at / "out", 1, storage=url, quiet=True)


# -------------------------------------------------------------------------------------------------
# Pruning, with runs whose course is known


def curves(monkeypatch, scores: list[float], seen: dict[str, list[float]]) -> None:
    """Run i rises to `scores[i]` in a straight line of ten validations."""

    def fake(config, folder, *, callbacks, **_):
        score, best = scores[int(folder.name[-4:])], -1.0
        seen[folder.name] = []
        for tenth in range(1, 11):
            best = max(best, score * tenth / 10)
            seen[folder.name].append(best)
            counters = Counters(iterations=tenth * 2)
            if callbacks[0](Update(counters, {}, None, score * tenth / 10, best)):
                break
        return {"validation": best}

    monkeypatch.setattr(tuning, "train", fake)


def test_a_trial_below_the_median_ends_after_a_quarter_of_its_budget(at, monkeypatch):
    """Five are finished first; then scores below their median, 3, end at the first validation
    after 25 %, which is that at 30 %. The sixth is above it, and moves the median to 3.5."""
    scores = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 3.4, 2.9, 3.6]
    seen: dict[str, list[float]] = {}
    curves(monkeypatch, scores, seen)
    tuned = tune(space(at, None, "iterations=20"), at / "out", 9, quiet=True)
    states = [trial.state for trial in tuned.trials]
    assert states == ["finished"] * 6 + ["pruned"] * 2 + ["finished"]
    assert [len(course) for course in seen.values()] == [10] * 6 + [3] * 2 + [10]
    assert tuned.trials[6].value == pytest.approx(3.4 * 0.3)
    assert tuned.best.number == 5
    assert tuned.best.value == 6.0
    assert tuned.importances == {}, "seven finished trials say little"


def test_trials_of_different_validations_are_compared_at_equal_parts_of_the_budget(at):
    """One that validates at 30 and 100 % has a value wherever another one has."""
    study = optuna.create_study(direction="maximize")
    config = load_config(at / "c.yaml", ["iterations=10"])
    trial = study.ask()
    judge = tuning._Judge(trial, config, 0)
    for iterations, best in ((3, 1.0), (10, 2.0)):
        assert not judge(Update(Counters(iterations), {}, None, 0.0, best))
    assert not judge(Update(Counters(10), {}, None, None, 2.0))
    reported = study.trials[0].intermediate_values
    assert reported == dict.fromkeys(range(1, 7), 1.0) | dict.fromkeys(range(7, 21), 2.0)


def test_the_importance_of_what_matters_is_larger(at, monkeypatch):
    monkeypatch.setattr(tuning, "train", lambda config, *_, **__: {"validation": rate(config)})
    tuned = tune(space(at), at / "out", 20, quiet=True)
    assert next(iter(tuned.importances)) == "agent.learning_rate"
    assert sum(tuned.importances.values()) == pytest.approx(1)
    first = max(trial.value for trial in tuned.trials[:10])
    assert tuned.best.value > first, "TPE finds more than the first, random ones"


def test_a_score_that_is_not_finite_is_a_failed_trial(at, monkeypatch):
    monkeypatch.setattr(tuning, "train", lambda *_, **__: {"validation": float("nan")})
    with pytest.raises(MetaRLError, match="score: total is not finite on validation tasks"):
        tune(space(at), at / "out", 1, quiet=True)
