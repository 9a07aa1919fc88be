"""What commands print, whatever stands at the other end."""

from __future__ import annotations

import subprocess
import sys

import pytest

from metarl.cli import app


def metarl(redirected: str, **environment: str) -> tuple[int, str]:
    """Run in a shell → exit code and what stands in its errors."""
    command = redirected.replace("metarl", f"{sys.executable} -m metarl", 1)
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True,
        encoding="utf-8",
        env={"PATH": "/usr/bin:/bin", **environment},
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("metarl envs >&-", 0, ""),
        ("metarl envs > /dev/full", 2, "metarl: [Errno 28] No space left on device\n"),
        ("metarl config rl2/point > /dev/full", 2, "metarl: [Errno 28] No space left on device\n"),
        ("metarl config nonsense 2>&-", 2, ""),
    ],
)
def test_output_that_goes_nowhere_is_at_most_a_line(command: str, code: int, says: str):
    assert metarl(command) == (code, says)


def test_a_reader_that_has_seen_enough_ends_a_command_quietly():
    code, errors = metarl("metarl config rl2/point | head -1 > /dev/null")
    assert errors == ""
    assert code in (0, 1, 2)  # the reader may have been slow


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_letters_that_a_terminal_lacks_are_escaped(encoding: str):
    old = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    code, errors = metarl("metarl agents rl2 > /dev/null", PYTHONIOENCODING=encoding, **old)
    assert (code, errors) == (0, "")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 7 TiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("Storage size calculation overflowed with sizes=[3, 5]\nmore"),
    ],
)
def test_sizes_that_fit_no_memory_are_one_line(monkeypatch, capsys, error: Exception):
    def fail() -> None:
        raise error

    monkeypatch.setattr(app, "app", fail)
    with pytest.raises(SystemExit, match="2"):
        app.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("metarl: memory ran out; choose smaller sizes (")


def test_other_errors_of_torch_stay_errors(monkeypatch):
    def fail() -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(app, "app", fail)
    with pytest.raises(RuntimeError, match="multiplied"):
        app.main()
