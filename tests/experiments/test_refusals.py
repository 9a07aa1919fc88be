"""A disk that refuses, a folder that vanishes, a clock that jumps: one line, nothing lost."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import time
from pathlib import Path

import pytest
from helpers import same
from test_cli import mistake

from metarl.config.schema import parse
from metarl.core import disk
from metarl.core.errors import DiskError, FamilyError
from metarl.experiments import checkpoints, logs
from metarl.experiments.events import MetricEvents
from metarl.experiments.logs import read_metrics
from metarl.experiments.runs import train

HALVES = {
    "checkpoint": "latest.pt",
    "best checkpoint": "best.pt",
    "configuration": "config.yaml",
    "log": "metrics.jsonl",
    "events of the configuration": ".config",
    "scores": ".result",
    "result": "result.json",
}
"""What a file is, and how its name ends."""


def config(**changes):
    agent = {"name": "rl2", "memory_width": 4, "trials": 4, "minibatches": 1, "epochs": 1}
    small = {"episodes": 2, "iterations": 4, "validation_tasks": 4, "test_tasks": 4}
    often = {"validate_every": 1, "checkpoint_every": 1}
    return parse({"agent": agent, "family": "bernoulli-bandit", **small, **often, **changes})


def numbers(folder):
    return [{k: v for k, v in r.items() if "second" not in k} for r in read_metrics(folder)]


def latest(folder):
    return checkpoints.load(folder / "checkpoints" / "latest.pt")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(config(), folder, quiet=True)
    return folder


def assert_same_run(folder, whole):
    assert same(latest(folder)["agent"], latest(whole)["agent"])
    assert numbers(folder) == numbers(whole)


def disturb(update_at, what):
    """A callback that does `what` after that iteration."""

    def call(update):
        if update.counters.iterations == update_at:
            what()

    return call


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("ending", HALVES.values(), ids=HALVES)
def test_a_file_that_is_refused_loses_nothing(ending, number, tmp_path, whole, monkeypatch):
    """The latest checkpoint at its third writing, the others at their first."""
    opened, asked = Path.open, []
    third = ending == "latest.pt"

    def refuse(path, *more, **options):
        mode = more[0] if more else options.get("mode", "r")
        name = path.name.removesuffix(f".{os.getpid()}.partial")
        if mode[0] in "wa" and name.endswith(ending):
            asked.append(path)
            if len(asked) == 1 + 2 * third:
                raise OSError(number, os.strerror(number))
        return opened(path, *more, **options)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(DiskError) as error:
            train(config(), folder, quiet=True)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    assert not list(folder.rglob(".*.partial"))
    if third:
        assert latest(folder)["counters"]["iterations"] == 1
    train(config(), folder, resume=True, quiet=True)
    assert_same_run(folder, whole)
    assert (folder / "result.json").is_file()


def test_a_line_that_the_log_could_not_hold_is_done_again(tmp_path, whole, monkeypatch):
    """Half of it was written."""

    def half(log, record):
        with disk.writing(log._path):
            log._file.write('{"iteration": 2, "env_')
            log._file.flush()
            raise OSError(errno.ENOSPC, "")

    written = logs.MetricsLog.write
    monkeypatch.setattr(
        logs.MetricsLog, "write", lambda log, r: (half if r["iteration"] == 2 else written)(log, r)
    )
    with pytest.raises(DiskError, match="the disk is full"):
        train(config(), tmp_path, quiet=True)
    monkeypatch.undo()
    train(config(), tmp_path, resume=True, quiet=True)
    assert_same_run(tmp_path, whole)


def test_a_folder_that_vanishes_is_told_and_goes_on_where_it_comes_back(tmp_path, whole):
    folder, away = tmp_path / "run", tmp_path / "away"
    moving = disturb(2, lambda: folder.rename(away))
    with pytest.raises(DiskError, match="its folder is not there: see what removed it"):
        train(config(), folder, callbacks=[moving], quiet=True)
    assert not folder.exists()
    away.rename(folder)
    train(config(), folder, resume=True, quiet=True)
    assert_same_run(folder, whole)


def test_a_clock_that_jumps_changes_nothing(tmp_path, whole, monkeypatch):
    chance, real = random.Random(0), time.time
    monkeypatch.setattr(time, "time", lambda: real() + chance.uniform(-1e6, 1e6))
    train(config(), tmp_path, quiet=True)
    assert_same_run(tmp_path, whole)


def test_events_are_in_the_order_of_their_writing_where_the_clock_was_put_back(
    tmp_path, monkeypatch
):
    files = []
    for now in (1e9, 1e9, 0.9e9, 1.1e9):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        writer = MetricEvents(tmp_path, env_steps=0)
        writer.file.close()
        files.append(Path(writer.file.name).name)
    assert files == sorted(set(files))


def test_a_full_disk_does_not_hide_what_a_users_own_code_raised(tmp_path, monkeypatch):
    file = tmp_path / "mine.py"
    file.write_text(
        "from metarl_envs.bandit import BernoulliBandit\n\n\n"
        "class Mine(BernoulliBandit):\n"
        "    def make(self, lanes):\n"
        "        return {}['nothing']\n",
        encoding="utf-8",
    )
    opened = Path.open

    def refuse(path, *more, **options):
        if "traceback" in path.name:
            raise OSError(errno.ENOSPC, "")
        return opened(path, *more, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(FamilyError, match=r"KeyError: 'nothing'") as error:
        train(config(family=f"{file}:Mine"), tmp_path / "run", quiet=True)
    assert "traceback.txt" not in str(error.value)


@pytest.mark.parametrize(
    "command",
    [
        ["train", "rl2/bernoulli-bandit", "--quiet", "--out", "FILE/new"],
        ["train", "rl2/bernoulli-bandit", "--quiet", "--out", "FILE"],
        ["benchmark", "smoke", "--quiet", "--out", "FILE"],
        ["benchmark", "smoke", "--quiet", "--out", "FILE/new"],
        ["tune", "rl2/bernoulli-bandit", "--space", "space.yaml", "--out", "FILE/new"],
        ["plot", "RUN", "--out", "FILE"],
        ["plot", "RUN", "--out", "FILE/new"],
        ["render", "point", "--out", "FILE/new.png"],
        ["render", "point", "family.horizon=3", "--out", "FILE/new.gif"],
        ["export", "RUN", "FILE/new.zip"],
        ["export", "RUN", "folder.zip"],
    ],
    ids=" ".join,
)
def test_a_file_in_the_place_of_a_folder_is_one_line_of_every_command(command, tmp_path, whole):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "space.yaml").write_text("agent.learning_rate: [1e-3, 1e-2]")
    places = {"FILE": "file", "RUN": "run"}
    shutil.copytree(whole, tmp_path / "run")
    words = []
    for word in command:
        first, *rest = word.split("/")
        words.append("/".join([places.get(first, first), *rest]))
    (line,) = mistake(*words, cwd=tmp_path)
    assert re.search("move it, or write elsewhere|there is no folder file$", line)
    assert (tmp_path / "file").read_text() == "mine"
    assert not list((tmp_path / "folder.zip").iterdir())
