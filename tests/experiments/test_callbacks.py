"""What callbacks are told of a run."""

from __future__ import annotations

import json
import signal

import pytest
from test_events import config

from metarl.experiments.runs import train


class Told:
    """Everything that a run says, in its order."""

    def __init__(self, stop_after=None):
        self.said, self.stop_after = [], stop_after

    def begin(self, config, folder):
        self.folder = folder
        self.said.append(("begin", config["agent.name"], folder.name))

    def __call__(self, update):
        self.said.append(update.counters.iterations)
        return update.counters.iterations == self.stop_after

    def end(self, scores, result):
        assert not (self.folder / "result.json").exists()
        self.said.append(("end", scores, result))


def test_a_logger_is_told_of_beginning_iterations_and_end(tmp_path):
    told = Told()
    result = train(config(), tmp_path / "run", quiet=True, callbacks=[told])
    begin, *iterations, (_, scores, given) = told.said
    assert begin == ("begin", "rl2", "run")
    assert iterations == [1, 2, 3]
    assert given is result
    assert json.loads((tmp_path / "run" / "result.json").read_text())["scores"]
    assert scores["test/return"] == result["scores"]["test"]["summary"]["total"]["mean"]["value"]
    assert scores["validation/best"] == result["validation"]


def test_a_run_whose_logger_fails_at_the_end_tells_it_again(tmp_path):
    def fail(scores, result):
        raise ConnectionError("no network")

    told = Told()
    told.end = fail
    with pytest.raises(ConnectionError):
        train(config(), tmp_path / "run", quiet=True, callbacks=[told])
    told = Told()
    train(config(), tmp_path / "run", resume=True, quiet=True, callbacks=[told])
    assert [word for word, *_ in told.said] == ["begin", "end"]


def test_an_interrupted_run_has_no_end_before_it_was_resumed(tmp_path):
    def interrupt(update):
        if update.counters.iterations == 2:
            signal.raise_signal(signal.SIGTERM)

    told = Told()
    with pytest.raises(SystemExit):
        train(config(), tmp_path / "run", quiet=True, callbacks=[told, interrupt])
    assert [told.said[0][0], *told.said[1:]] == ["begin", 1, 2]
    told = Told()
    train(config(), tmp_path / "run", resume=True, quiet=True, callbacks=[told])
    begin, iteration, end = told.said
    assert (begin[0], iteration, end[0]) == ("begin", 3, "end")


def test_a_finished_run_tells_nothing(tmp_path):
    train(config(), tmp_path / "run", quiet=True)
    told = Told()
    train(config(), tmp_path / "run", resume=True, quiet=True, callbacks=[told])
    assert told.said == []


def test_an_update_names_its_numbers_as_tensorboard_does(tmp_path):
    tags = []
    train(config(), tmp_path, quiet=True, callbacks=[lambda update: tags.append(update.by_tag())])
    assert {"rollout/return", "train/kl", "time/seconds"} <= set(tags[0])
    assert ["validation/score" in numbers for numbers in tags] == [False, True, True]
