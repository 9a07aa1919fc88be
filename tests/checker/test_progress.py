"""Which rule is looked at is shown on stderr, and nothing of it on stdout."""

from __future__ import annotations

import time

import pytest

from metarl.checker import progress
from metarl.checker.progress import Progress


def test_outside_of_a_terminal_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(progress, "EVERY", 0.01)
    err = ""
    with Progress("walk") as shown:
        shown.show("hidden", 0.5)
        until = time.monotonic() + 20
        while "hidden" not in err and time.monotonic() < until:
            time.sleep(0.01)
            out, more = capsys.readouterr()
            assert not out
            err += more
    assert " 50%  walk: hidden  0 s\n" in err


def test_a_quick_check_shows_nothing(capsys: pytest.CaptureFixture[str]):
    with Progress("walk") as shown:
        shown.show("hidden", 0.5)
    assert capsys.readouterr() == ("", "")


def test_in_a_terminal_there_is_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Progress("walk") as shown:
        shown.show("hidden", 0.5)
    out, err = capsys.readouterr()
    assert not out
    assert "hidden" in err
