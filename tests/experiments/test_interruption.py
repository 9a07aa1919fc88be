"""Signals end a training after its iteration; nothing that was finished is lost."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from helpers import same

from metarl.config.schema import parse
from metarl.experiments import checkpoints, interruption
from metarl.experiments.interruption import Abandoned, Interruption
from metarl.experiments.logs import read_metrics
from metarl.experiments.runs import train

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def config(**changes):
    agent = {"name": "rl2", "memory_width": 4, "trials": 4, "minibatches": 1, "epochs": 1}
    small = {"episodes": 2, "iterations": 6, "validation_tasks": 4, "test_tasks": 4}
    often = {"validate_every": 3, "checkpoint_every": 100}
    return parse({"agent": agent, "family": "bernoulli-bandit", **small, **often, **changes})


def numbers(folder):
    return [{k: v for k, v in r.items() if "second" not in k} for r in read_metrics(folder)]


def trained(folder):
    return checkpoints.load(folder / "checkpoints" / "latest.pt")


def send(number):
    """A callback that sends a signal in the second iteration."""

    def callback(update):
        if update.counters.iterations == 2:
            os.kill(os.getpid(), number)

    return callback


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal():
    """Whoever started the tests may have told them to ignore some."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_run_that_goes_on_as_if_nothing_had_been(number, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(config(), whole, quiet=True)
    ends = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    with pytest.raises(ends) as end:
        train(config(), parts, quiet=True, callbacks=[send(number)])
    if ends is SystemExit:
        assert end.value.code == 128 + number
    assert "interrupted after iteration 2; go on with --resume" in capsys.readouterr().err
    assert trained(parts)["counters"]["iterations"] == 2, "between two checkpoints"
    assert signal.getsignal(number) is signal.default_int_handler
    train(config(), parts, resume=True, quiet=True)
    assert same(trained(whole)["agent"], trained(parts)["agent"])
    assert numbers(whole) == numbers(parts)


def test_what_was_to_be_done_after_an_iteration_is_done_when_it_resumes(tmp_path, monkeypatch):
    """Validation takes too long: the iteration is kept, and validated later."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = train(config(), whole, quiet=True)
    from metarl.experiments import runs

    real = runs.evaluate

    def slow(*arguments, **given):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **given)

    monkeypatch.setattr(runs, "evaluate", slow)
    with pytest.raises(SystemExit):
        train(config(), parts, quiet=True)
    monkeypatch.undo()
    kept = trained(parts)
    assert kept["counters"]["iterations"] == 3
    assert kept["pending"]["return"] == numbers(whole)[2]["return"]
    seen = []
    result = train(
        config(),
        parts,
        resume=True,
        quiet=True,
        callbacks=[lambda update: seen.append(update.counters.iterations)],
    )
    assert seen == [3, 4, 5, 6]
    assert numbers(whole) == numbers(parts)
    assert result["scores"] == expected["scores"]


def test_an_iteration_that_takes_too_long_is_given_up(tmp_path):
    """And after slow ones a checkpoint is written, so that but the last one is lost."""

    def slow(update):
        if update.counters.iterations == 2:
            threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM]).start()
            time.sleep(30)

    began = time.monotonic()
    with pytest.raises(SystemExit):
        train(config(), tmp_path, quiet=True, callbacks=[slow], grace=0.3)
    assert time.monotonic() - began < 20
    assert trained(tmp_path)["counters"]["iterations"] == 2


def test_a_checkpoint_follows_every_slow_iteration(tmp_path, monkeypatch):
    from metarl.agents.rl2.agent import RL2

    real = RL2.iterate
    monkeypatch.setattr(RL2, "iterate", lambda *given: time.sleep(0.2) or real(*given))

    def look(update):
        before = update.counters.iterations - 1
        assert trained(tmp_path)["counters"]["iterations"] == before

    train(config(iterations=3), tmp_path, quiet=True, callbacks=[look], grace=0.3)


def test_what_may_not_be_abandoned_is_finished():
    listening = Interruption(grace=100)
    with listening.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        done = True
        with pytest.raises(Abandoned), listening.abandonable():
            done = False
    assert done
    assert listening.signal == signal.SIGTERM


def test_nothing_arrives_after_the_end():
    """The second signal, which would give the iteration up, is called off."""
    arrived = []
    signal.signal(signal.SIGTERM, lambda number, _: arrived.append(number))
    with Interruption(grace=0.1).listening():
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.3)
    assert arrived == []


def test_signals_that_are_ignored_stay_so():
    """As below nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interruption(1).listening():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN


def test_a_training_in_a_thread_leaves_signals_alone(tmp_path):
    results = []
    thread = threading.Thread(
        target=lambda: results.append(train(config(iterations=1), tmp_path, quiet=True))
    )
    thread.start()
    thread.join()
    assert results[0]["best_iteration"] == 1
    assert interruption.ending(signal.SIGHUP).args == (129,)
