"""Processes side by side: trainings of our own program, ended with the one that began them."""

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import IO, Any

from metarl.core.disk import writing
from metarl.core.errors import note
from metarl.experiments.interruption import ending, on_signals

PARENT = "METARL_PARENT"
"""The environment variable by which a process knows whom it must not outlive."""

_WATCHED = "METARL_WATCHED"
"""The environment variable that says which file a process leaves when it has told why it ends."""

PROGRAM = (sys.executable, "-m", "metarl")
_POLL = 0.05  # seconds
KILL_AFTER = 15.0
"""Seconds from being asked to end, beside the grace."""


@dataclass(frozen=True)
class Job:
    """A command of metarl."""

    arguments: Sequence[str]
    log: Path | None = None
    """Where its output goes; None: where ours goes."""
    seconds: float | None = None
    """After so many it is ended."""
    cpus: float = 1.0
    """That it keeps busy, for whoever shares out machines."""


@dataclass(frozen=True)
class Ended:
    """A job that has ended."""

    place: int
    """Among the jobs."""
    code: int
    seconds: float
    too_long: bool
    """Whether it was ended after its limit."""


class _Running:
    def __init__(self, place: int, job: Job, grace: float):
        self.place, self.job, self.grace = place, job, grace
        self.began = time.monotonic()
        self.asked: float | None = None
        self.too_long = False
        output: IO[bytes] | None = None
        if job.log is not None:
            with writing(job.log):
                job.log.parent.mkdir(parents=True, exist_ok=True)
                output = job.log.open("wb")
        self.process = subprocess.Popen(  # noqa: S603  (our own program)
            [*PROGRAM, *job.arguments],
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            stdin=subprocess.DEVNULL,
            env=os.environ | {PARENT: str(os.getpid())},
            start_new_session=True,  # or Ctrl-C would reach it twice
        )
        if output is not None:
            output.close()

    def ask_to_end(self) -> None:
        if self.asked is None:
            self.asked = time.monotonic()
            self.process.terminate()

    def poll(self) -> Ended | None:
        now = time.monotonic()
        code = self.process.poll()
        if code is not None:
            return Ended(self.place, code, now - self.began, self.too_long)
        limit = self.job.seconds
        if limit is not None and now - self.began > limit:
            self.too_long = True
            self.ask_to_end()
        if self.asked is not None and now - self.asked > self.grace + KILL_AFTER:
            self.process.kill()
        return None


Launch = Callable[[Sequence[Job], int, float, Callable[[Ended], None]], list[int]]
"""What runs jobs: `run_jobs`, or the same on a cluster."""


def run_jobs(
    jobs: Sequence[Job],
    at_once: int,
    grace: float,
    ended: Callable[[Ended], None] = lambda _: None,
) -> list[int]:
    """Run all `jobs`, `at_once` of them at a time; the next begins when any has ended.

    Signals are handed on: every training is saved, and no other begins. A job that does not end
    in `grace` seconds and some more after it was asked to is killed.

    Returns:
        Their exit codes, in the order of the jobs.

    Raises:
        KeyboardInterrupt: after Ctrl-C, and SystemExit after the other signals.
    """
    waiting = list(enumerate(jobs))[::-1]
    running: list[_Running] = []
    codes = [0] * len(jobs)
    signals: list[int] = []

    def receive(number: int, _: FrameType | None) -> None:
        signals.append(number)

    try:
        with on_signals(receive):
            while running or (waiting and not signals):
                while waiting and len(running) < at_once and not signals:
                    running.append(_Running(*waiting.pop(), grace))
                if signals:
                    for one in running:
                        one.ask_to_end()
                for one in list(running):
                    end = one.poll()
                    if end is not None:
                        running.remove(one)
                        codes[end.place] = end.code
                        if not signals:
                            ended(end)
                time.sleep(_POLL)
    finally:
        for one in running:
            one.process.kill()
    if signals:
        raise ending(signals[0])
    return codes


def run_watched(arguments: Sequence[str], grace: float, remedy: str) -> int | None:
    """Run our own program in a process that this one sees end → its exit code.

    Ray ends a process whose node dies, past all that could tell of it: then a line with the
    `remedy` is told here. What the process leaves behind is killed. None in such a process.

    Raises:
        KeyboardInterrupt: after Ctrl-C, and SystemExit after the other signals.
    """
    mark = os.environ.pop(_WATCHED, None)
    if mark is not None:
        atexit.register(Path(mark).touch)
        return None
    _adopt_orphans()
    with TemporaryDirectory() as folder:
        ended = Path(folder, "ended")
        os.environ[_WATCHED] = str(ended)
        try:
            [code] = run_jobs([Job(arguments)], 1, grace)
        finally:
            del os.environ[_WATCHED]
            _kill_children()
        if ended.exists():
            return code
    why = f"was killed by signal {-code}"
    if code >= 0:
        why = f"was ended by Ray (exit code {code}), as its node or its head is gone"
    note(f"this command {why}; {remedy}")
    return 2


def _adopt_orphans() -> None:
    """Processes below this one whose parent dies become its children, on Linux."""
    if sys.platform == "linux":
        import ctypes

        libc: Any = ctypes.CDLL(None)
        libc.prctl(36, 1)  # PR_SET_CHILD_SUBREAPER


def _kill_children() -> None:
    """All that are left, and theirs."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while children.is_file() and (numbers := children.read_text(encoding="utf-8").split()):
        for number in map(int, numbers):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(number, 0)


def follow_parent() -> None:
    """Be killed when the process that began this one is: its runs lose nothing by that.

    Linux tells a process of its parent's end; elsewhere it goes on.
    """
    parent = os.environ.pop(PARENT, None)
    if parent is None or sys.platform != "linux":
        return
    import ctypes

    libc: Any = ctypes.CDLL(None)
    libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != int(parent):  # it ended before that
        os.kill(os.getpid(), signal.SIGKILL)
