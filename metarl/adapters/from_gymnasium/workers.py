"""Environments in worker processes.

A worker is a plain Python process that imports no torch and ends with its parent.
"""

import importlib
import importlib.util
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from bisect import bisect
from collections.abc import Sequence
from contextlib import suppress
from mmap import mmap
from multiprocessing.connection import Connection, Pipe
from operator import methodcaller
from tempfile import TemporaryFile
from typing import Any, NamedTuple, Protocol

import cloudpickle  # type: ignore[import-untyped]  # it has no types
import numpy as np

from metarl.adapters.from_gymnasium.calls import EVERY_LANE, NAMES, CallError, Calls
from metarl.adapters.from_gymnasium.lanes import Builder, EnvLanes, Stepped
from metarl.adapters.from_gymnasium.spaces import Array, Layout
from metarl.core.errors import FamilyError, one_line

_GRACE = 2.0  # seconds that a worker may take to close its environments
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

_NOTE = 16  # bytes that a note takes
_LOOKS = 8  # how often a worker's note is looked at before it is given up

Fault = tuple[str, str, int]
"""What went wrong, in which call and which of the worker's lanes."""


class Sent(Builder, Protocol):
    """What `Workers` need of a family."""

    call_seconds: float

    def _look(self, row: Array) -> Layout: ...


class Worker(NamedTuple):
    """A process, how it is asked, and where it notes what it does, as `Calls` do."""

    process: subprocess.Popen[bytes]
    connection: Connection
    ready: select.poll  # whether there is an answer
    note: memoryview


class Workers:
    """L lanes, shared out evenly among processes; a step is one message to each and one answer.

    Raises:
        CallError: what an environment raised in a worker, in one line with the line of the user's
            own file, or that a worker died or a call took too long.
    """

    def __init__(self, family: Sent, count: int):
        cls = type(family)
        self._patience = family.call_seconds
        try:
            pickled = cloudpickle.dumps(family)
        except Exception as error:  # whatever an attribute raises
            raise FamilyError(
                f"workers: {cls.__name__} cannot be sent to another process: {one_line(error)}"
            ) from error
        path = getattr(sys.modules.get(cls.__module__), "__file__", None)
        self._opening = (cls.__module__, path, pickled)
        self._count = count
        self._open()

    def reset(self, rows: Array, keys: Array) -> Array:
        if not self._ending.alive:
            self._open()
        busy = min(self._count, len(keys))
        self._first = [worker * len(keys) // busy for worker in range(busy)]
        return np.concatenate(self._share("reset", rows, keys))

    def restart(self, chosen: Array, episodes: Array) -> None:
        self._share("restart", chosen, episodes)

    def step(self, action: Array) -> Stepped:
        columns = zip(*self._share("step", action), strict=True)
        return Stepped(*map(np.concatenate, columns))

    def frame(self, lane: int) -> Array:
        owner = bisect(self._first, lane) - 1
        return self._ask("frame", [(lane - self._first[owner],)], owner)[0]

    def look(self, row: Array) -> Layout:
        return self._ask("_look", [(row,)])[0]

    def _open(self) -> None:
        self._workers = [_start() for _ in range(self._count)]
        self._ending = weakref.finalize(self, _end, self._workers)
        self._first = [0] * self._count  # lane of each worker
        self._ask("open", [self._opening] * self._count)

    def _share(self, method: str, *arrays: Array) -> list[Any]:
        """The answer of each worker for its own lanes of `arrays` [L, …]."""
        shares = [np.split(array, self._first[1:]) for array in arrays]
        return self._ask(method, list(zip(*shares, strict=True)))

    def _ask(self, method: str, arguments: Sequence[tuple[Any, ...]], first: int = 0) -> list[Any]:
        """The answer of each of the workers from the `first`, one for each of `arguments`."""
        asked = self._workers[first : first + len(arguments)]
        try:
            for worker, own in zip(asked, arguments, strict=True):
                with suppress(OSError):  # a worker that died says so when it should answer
                    worker.connection.send((method, own))
            answers = [self._answer(worker) for worker in asked]
        except BaseException:
            self._ending()  # or the next call would take what is still on its way for its answer
            raise
        for number, (fault, answer) in enumerate(answers, first):
            if fault is not None:
                what, call, lane = fault
                if lane != EVERY_LANE:
                    lane += self._first[number]
                raise CallError(what, call, lane) from RuntimeError(answer)
        return [answer for _, answer in answers]

    def _answer(self, worker: Worker) -> tuple[Fault | None, Any]:
        """(None, the answer), or (what went wrong, the traceback)."""
        still = 0
        last = None
        while not worker.ready.poll(1000 * self._patience / _LOOKS):
            now = tuple(worker.note)
            still = still + 1 if now == last and now[0] else 0
            last = now
            if still == _LOOKS:
                worker.process.kill()
                what = f"it takes longer than {self._patience:g} s (call_seconds)"
                return self._lost(worker, what)
        try:
            return worker.connection.recv()
        except (EOFError, OSError):
            code = worker.process.wait(_GRACE)
            what = f"its worker process died (exit code {code}; −9 may mean that memory ran out)"
            return self._lost(worker, what)

    def _lost(self, worker: Worker, what: str) -> tuple[Fault, str]:
        """The fault of a worker that will not answer, blamed on the call that it has noted."""
        self._ending()  # of all of them; the next reset starts others
        call, lane = worker.note
        return (what, NAMES[call], lane), "a process that is dead leaves no traceback"


def look(family: Sent, row: Array) -> Layout:
    """What an environment looks like, found in a worker process: see `AdaptedFamily.env_layout`."""
    return Workers(family, 1).look(row)


def _start() -> Worker:
    """A process that serves the other end of the connection, and whose input ends with this one."""
    ours, theirs = Pipe()
    with theirs, TemporaryFile() as file:
        file.truncate(_NOTE)
        handles = theirs.fileno(), file.fileno()
        code = f"import sys; sys.path[:] = {sys.path}; from {__name__} import serve; serve{handles}"
        process = subprocess.Popen(  # noqa: S603  (our own interpreter and code)
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            pass_fds=handles,
            env=os.environ | _ONE_THREAD,
        )
        note = _shared(file.fileno())
    ready = select.poll()
    ready.register(ours.fileno(), select.POLLIN)
    return Worker(process, ours, ready, note)


def _shared(handle: int) -> memoryview:
    """Two numbers in a file that several processes have open."""
    return memoryview(mmap(handle, _NOTE)).cast("q")


def _end(workers: Sequence[Worker]) -> None:
    for process, connection, *_ in workers:
        connection.close()
        if process.stdin:
            process.stdin.close()
    for process, *_ in workers:
        try:
            process.wait(2 * _GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# -------------------------------------------------------------------------------------------------
# In the worker


def serve(connection_handle: int, note_handle: int) -> None:
    """Answer until the parent closes the connection or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    connection = Connection(connection_handle)
    calls = Calls(_shared(note_handle))
    family: Any = None
    lanes: EnvLanes | None = None
    with suppress(EOFError, OSError):
        while True:
            method, arguments = connection.recv()
            fault: Fault | None = None
            answer: Any = None
            try:
                with calls:
                    if method == "open":
                        family = _family(*arguments)
                        family.workers, family._calls = 0, calls
                    elif method == "_look":
                        answer = family._look(*arguments)
                    else:
                        lanes = lanes or EnvLanes(family)
                        answer = methodcaller(method, *arguments)(lanes)
            except CallError as error:
                fault, answer = (str(error), error.call, error.lane), traceback.format_exc()
            connection.send((fault, answer))


def _end_with_the_parent() -> None:
    """End even where an environment never returns."""
    os.read(0, 1)
    time.sleep(_GRACE)
    os._exit(1)


def _family(module_name: str, path: str | None, pickled: bytes) -> Any:
    """The family; its module is loaded from its file where it cannot be imported by its name."""
    try:
        importlib.import_module(module_name)
    except ModuleNotFoundError:
        if path is None:
            raise
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[module_name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module_name])
    return pickle.loads(pickled)  # noqa: S301  (from our own parent)
