"""Environments in worker processes.

A worker is a plain Python process that imports no torch and ends with its parent.
"""

import importlib
import importlib.util
import os
import pickle
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
from multiprocessing.connection import Connection, Pipe
from operator import methodcaller
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np

from metarl.adapters.from_gymnasium.lanes import Builder, EnvLanes, Stepped
from metarl.adapters.from_gymnasium.spaces import Array
from metarl.config.registry import one_line
from metarl.core.errors import FamilyError

_GRACE = 2.0  # seconds that a worker may take to close its environments
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

Worker = tuple[subprocess.Popen[bytes], Connection]


class Workers:
    """L lanes, shared out evenly among processes; a step is one message to each and one answer.

    Raises:
        FamilyError: what an environment raised in a worker, in one line with the line of the user's
            own file, or that a worker died.
    """

    def __init__(self, family: Builder, count: int):
        cls = type(family)
        _ = family.env_layout  # found here, or every process would build an environment to find it
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
        self._first = [worker * len(keys) // busy for worker in range(busy)]  # lane of each worker
        return np.concatenate(self._share("reset", rows, keys))

    def restart(self, chosen: Array, episodes: Array) -> None:
        self._share("restart", chosen, episodes)

    def step(self, action: Array) -> Stepped:
        columns = zip(*self._share("step", action), strict=True)
        return Stepped(*map(np.concatenate, columns))

    def frame(self, lane: int) -> Array:
        owner = bisect(self._first, lane) - 1
        return self._ask("frame", [(lane - self._first[owner],)], owner)[0]

    def _open(self) -> None:
        self._workers = [_start() for _ in range(self._count)]
        self._ending = weakref.finalize(self, _end, self._workers)
        self._ask("open", [self._opening] * self._count)

    def _share(self, method: str, *arrays: Array) -> list[Any]:
        """The answer of each worker for its own lanes of `arrays` [L, …]."""
        shares = [np.split(array, self._first[1:]) for array in arrays]
        return self._ask(method, list(zip(*shares, strict=True)))

    def _ask(self, method: str, arguments: Sequence[tuple[Any, ...]], first: int = 0) -> list[Any]:
        """The answer of each of the workers from the `first`, one for each of `arguments`."""
        asked = self._workers[first : first + len(arguments)]
        try:
            for (_, connection), own in zip(asked, arguments, strict=True):
                with suppress(OSError):  # a worker that died says so when it should answer
                    connection.send((method, own))
            answers = [self._answer(worker) for worker in asked]
        except BaseException:
            self._ending()  # or the next call would take what is still on its way for its answer
            raise
        for fault, details in answers:
            if fault is not None:
                raise FamilyError(fault) from RuntimeError(details)
        return [answer for _, answer in answers]

    def _answer(self, worker: Worker) -> tuple[str | None, Any]:
        """(None, the answer), or (what went wrong, the traceback)."""
        process, connection = worker
        try:
            return connection.recv()
        except (EOFError, OSError):
            code = process.wait(_GRACE)
            self._ending()  # of all of them; the next reset starts others
            fault = f"a worker process died (exit code {code}; −9 may mean that memory ran out)"
            return fault, "a process that dies leaves no traceback"


def _start() -> Worker:
    """A process that serves the other end of the connection, and whose input ends with this one."""
    ours, theirs = Pipe()
    handle = theirs.fileno()
    code = f"import sys; sys.path[:] = {sys.path}; from {__name__} import serve; serve({handle})"
    with theirs:
        process = subprocess.Popen(  # noqa: S603  (our own interpreter and code)
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            pass_fds=(handle,),
            env=os.environ | _ONE_THREAD,
        )
    return process, ours


def _end(workers: Sequence[Worker]) -> None:
    for process, connection in workers:
        connection.close()
        if process.stdin:
            process.stdin.close()
    for process, _ in workers:
        try:
            process.wait(2 * _GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# -------------------------------------------------------------------------------------------------
# In the worker


def serve(handle: int) -> None:
    """Answer until the parent closes the connection or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    connection = Connection(handle)
    lanes: EnvLanes | None = None
    with suppress(EOFError, OSError):
        while True:
            method, arguments = connection.recv()
            fault: str | None = None
            answer: Any = None
            try:
                if method == "open":
                    lanes = EnvLanes(_family(*arguments))
                else:
                    answer = methodcaller(method, *arguments)(lanes)
            except FamilyError as error:
                fault, answer = str(error), traceback.format_exc()
            except Exception as error:  # whatever the user's environment raises
                fault = f"in a worker process: {one_line(error)}"
                answer = traceback.format_exc()
            connection.send((fault, answer))


def _end_with_the_parent() -> None:
    """End even where an environment never returns."""
    os.read(0, 1)
    time.sleep(_GRACE)
    os._exit(1)


def _family(module_name: str, path: str | None, pickled: bytes) -> Builder:
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
