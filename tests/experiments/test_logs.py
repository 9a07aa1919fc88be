"""What a run writes while it learns."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl.core.errors import MetaRLError
from metarl.experiments import logs
from metarl.experiments.logs import read_metrics


def test_metrics_that_are_no_numbers_are_null_in_json_and_nan_in_python(tmp_path):
    with logs.MetricsLog(tmp_path, resume_at=0) as log:
        log.write({"iteration": 1, "env_steps": 9, "loss": math.nan, "return": 2.0})
    text = (tmp_path / logs.METRICS).read_text()
    assert text == '{"iteration": 1, "env_steps": 9, "loss": null, "return": 2.0}\n'
    (record,) = read_metrics(tmp_path)
    assert math.isnan(record.pop("loss"))
    assert record == {"iteration": 1, "env_steps": 9, "return": 2.0}


def returns(folder):
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars("rollout/return")]


def test_tensorboard_counts_environment_steps_and_forgets_what_is_done_again(tmp_path):
    with logs.MetricsLog(tmp_path, resume_at=0) as log:
        for i in (1, 2, 3):
            log.write({"iteration": i, "env_steps": 10 * i, "return": float(i)})
            assert returns(tmp_path)[-1] == (10 * i, i)
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.rename(file.with_name("events.out.tfevents.1.1.metrics"))  # of an earlier process
    with logs.MetricsLog(tmp_path, resume_at=1) as log:
        assert returns(tmp_path) == [(10, 1.0)]
        log.write({"iteration": 2, "env_steps": 21, "return": 7.0})
    assert returns(tmp_path) == [(10, 1.0), (21, 7.0)]


@pytest.mark.parametrize("full", [logs.METRICS, "events"])
def test_a_disk_that_is_full_for_one_of_the_logs_is_one_line(tmp_path, full):
    """Writing to /dev/full fails as on a full disk; nothing more comes when the logs are closed."""
    log = logs.MetricsLog(tmp_path, resume_at=0)
    record = {"iteration": 1, "env_steps": 9, "return": 1.0}
    log.write(record)
    disk = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115
    if full == logs.METRICS:
        log._file.close()
        log._file = disk
    else:
        log._events.file.close()
        log._events.file = disk.buffer
    with pytest.raises(MetaRLError, match=r"^the disk is full"):
        log.write({"iteration": 2, "env_steps": 18, "return": 1.0})
    with log:
        pass
    assert read_metrics(tmp_path)[0] == record


# -------------------------------------------------------------------------------------------------
# Progress of commands


def test_outside_of_a_terminal_a_line_comes_now_and_then(monkeypatch, capsys):
    """On stderr, even where nothing new is told."""
    monkeypatch.setattr(logs, "_EVERY", 0.01)
    err = ""
    with logs.Display(lasting=False) as display:
        display.tell("checking hidden", 0.5)
        until = time.monotonic() + 20
        while err.count("hidden") < 2 and time.monotonic() < until:
            time.sleep(0.01)
            out, more = capsys.readouterr()
            assert not out
            err += more
    assert err.startswith(" 50%  checking hidden\n 50%  checking hidden\n")


def test_what_is_done_quickly_shows_nothing(capsys):
    with logs.Display(lasting=False) as display:
        display.tell("checking hidden", 0.5)
    assert capsys.readouterr() == ("", "")


def test_in_a_terminal_there_is_a_bar(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with logs.Display(lasting=False) as display:
        display.tell("checking hidden", 0.5)
    out, err = capsys.readouterr()
    assert not out
    assert "checking hidden" in err
