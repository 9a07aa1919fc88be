"""Runs of several seeds: how many at once, and what becomes of them."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from metarl.core.errors import ConfigError, MetaRLError
from metarl.experiments import launcher
from metarl.experiments.launcher import read_seeds, train_seeds


class FakeProcess:
    """A process of one seed that ends when it is told to."""

    def __init__(self, command: list[str], **_: object) -> None:
        (self.seed,) = (int(word[5:]) for word in command if re.fullmatch(r"seed=\d+", word))
        self.ended = threading.Event()
        self.code = 0
        self.terminated = False
        started[self.seed] = self
        changed.release()

    def wait(self) -> int:
        assert self.ended.wait(10)
        return self.code

    def terminate(self) -> None:
        self.terminated = True

    def end(self, code: int = 0) -> None:
        self.code = code
        self.ended.set()


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    global started, changed
    started, changed = {}, threading.Semaphore(0)
    monkeypatch.setattr(launcher.subprocess, "Popen", FakeProcess)


def test_seeds_are_whole_numbers_each_once():
    assert read_seeds("0, 1,12") == [0, 1, 12]
    for text in ("", "1,,2", "-1", "1;2", "1_0", "٣", "1.0", str(2**63), "9" * 5000, "0,1,"):
        with pytest.raises(ConfigError, match="write whole numbers from 0") as caught:
            read_seeds(text)
        assert len(str(caught.value)) < 250
    with pytest.raises(ConfigError, match="give it once"):
        read_seeds("0,1,00")


def in_background(seeds: list[int], jobs: int) -> tuple[threading.Thread, list[str]]:
    errors: list[str] = []

    def run() -> None:
        try:
            train_seeds("c.yaml", [], Path("out"), seeds, jobs, False, True, 20.0)
        except MetaRLError as error:
            errors.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def wait_for(count: int) -> None:
    for _ in range(count):
        assert changed.acquire(timeout=10)


def test_the_next_seed_begins_when_any_has_ended():
    """Not only when the first one has: seed 0 is slow here, and the others pass it."""
    thread, errors = in_background([0, 1, 2, 3], jobs=2)
    wait_for(2)
    assert set(started) == {0, 1}
    for seed in (1, 2, 3):
        started[seed].end()
        wait_for(seed < 3)
        assert set(started) == set(range(min(seed + 2, 4)))
    started[0].end()
    thread.join(10)
    assert errors == []


def test_all_are_trained_and_those_that_failed_are_named():
    thread, errors = in_background([4, 5, 6], jobs=3)
    wait_for(3)
    for seed, code in ((6, 1), (4, 2), (5, 0)):
        started[seed].end(code)
    thread.join(10)
    assert errors == ["seeds 4, 6 ended with an error; see above"]


def test_an_interrupt_ends_those_that_run(monkeypatch: pytest.MonkeyPatch):
    def interrupted(self: FakeProcess) -> int:
        if self.seed == 1:
            raise KeyboardInterrupt
        return self.ended.wait(10) and 0

    monkeypatch.setattr(FakeProcess, "wait", interrupted)
    threading.Timer(0.5, lambda: started[0].end()).start()
    with pytest.raises(KeyboardInterrupt):
        train_seeds("c.yaml", [], Path("out"), [0, 1, 2, 3, 4], 2, False, True, 20.0)
    assert all(process.terminated for process in started.values())


def test_seeds_are_whole_numbers():
    assert read_seeds("0,1,2") == [0, 1, 2]
    with pytest.raises(ConfigError, match="write whole numbers"):
        read_seeds("0;1")
