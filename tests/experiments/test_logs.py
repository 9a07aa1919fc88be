"""What a run writes while it learns."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl.core.errors import MetaRLError
from metarl.experiments import logs
from metarl.experiments.logs import read_metrics


def test_metrics_that_are_no_numbers_are_null_in_json_and_nan_in_python(tmp_path):
    with logs.MetricsLog(tmp_path, resume_at=0, config="") as log:
        log.write({"iteration": 1, "loss": math.nan, "return": 2.0})
    text = (tmp_path / logs.METRICS).read_text()
    assert text == '{"iteration": 1, "loss": null, "return": 2.0}\n'
    (record,) = read_metrics(tmp_path)
    assert math.isnan(record.pop("loss"))
    assert record == {"iteration": 1, "return": 2.0}


def events(folder):
    accumulator = EventAccumulator(str(folder / "tensorboard")).Reload()
    returns = [(event.step, event.value) for event in accumulator.Scalars("return")]
    tensor = accumulator.Tensors("config/text_summary")[-1].tensor_proto
    return returns, tensor.string_val[0].decode()


def test_tensorboard_shows_curves_and_configuration_and_forgets_what_is_done_again(tmp_path):
    records = [{"iteration": i, "return": float(i)} for i in (1, 2, 3)]
    with logs.MetricsLog(tmp_path, resume_at=0, config="# α\nseed: 1\n") as log:
        for record in records:
            log.write(record)
            assert events(tmp_path)[0][-1] == (record["iteration"], record["return"])
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.rename(file.with_name("events.out.tfevents.1"))  # of an earlier process
    with logs.MetricsLog(tmp_path, resume_at=1, config="seed: 1\n") as log:
        log.write({"iteration": 2, "return": 7.0})
    returns, text = events(tmp_path)
    assert returns == [(1, 1.0), (2, 7.0)]
    assert text == "    seed: 1\n"


@pytest.mark.parametrize("full", [logs.METRICS, "events"])
def test_a_disk_that_is_full_for_one_of_the_logs_is_one_line(tmp_path, full):
    """Writing to /dev/full fails as on a full disk; nothing more comes when the logs are closed."""
    log = logs.MetricsLog(tmp_path, resume_at=0, config="")
    log.write({"iteration": 1, "return": 1.0})
    disk = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115
    if full == logs.METRICS:
        log._file.close()
        log._file = disk
    else:
        log._events.file.close()
        log._events.file = disk.buffer
    with pytest.raises(MetaRLError, match=r"^the disk is full"):
        log.write({"iteration": 2, "return": 1.0})
    with log:
        pass
    assert read_metrics(tmp_path)[0] == {"iteration": 1, "return": 1.0}
