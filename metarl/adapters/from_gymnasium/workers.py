"""Environments in worker processes. A worker is a plain Python process that imports no torch and ends with its parent."""

from __future__ import annotations

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
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from multiprocessing.connection import Connection, Pipe
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np

from metarl.adapters.from_gymnasium.lanes import Builder, EnvLanes, Stepped
from metarl.adapters.from_gymnasium.spaces import Array
from metarl.config.registry import one_line
from metarl.core.errors import FamilyError

_GRACE = 2.0  # seconds that a worker may take to close its environments
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}


class Workers:
    """L lanes, shared out evenly among processes; one message to each of them and one answer a step.

    Raises:
        FamilyError: whatever an environment raised in a worker, in one line with the user's own, or that a worker died.
    """

    def __init__(self, family: Builder, count: int) -> None:
        cls = type(family)
        _ = family.env_layout  # found here, or every process would build an environment to find it
        try:
            pickled = cloudpickle.dumps(family)
        except Exception as error:  # whatever an attribute raises
            raise FamilyError(
                f"workers: {cls.__name__} cannot be sent to another process: {one_line(error)}"
            ) from error
        self._opening = (
            cls.__module__,
            getattr(sys.modules.get(cls.__module__), "__file__", None),
            pickled,
        )
        self._count = count
        self._open()

    def reset(self, rows: Array, keys: Array) -> Array:
        if not self._ending.alive:
            self._open()
        bounds = np.linspace(0, len(keys), min(self._count, len(keys)) + 1).astype(int).tolist()
        self._shares = [slice(first, last) for first, last in pairwise(bounds)]
        return np.concatenate(self._share("reset", rows, keys))

    def restart(self, chosen: Array, episodes: Array) -> None:
        self._share("restart", chosen, episodes)

    def step(self, action: Array) -> Stepped:
        columns = zip(*self._share("step", action), strict=True)
        joined: list[Any] = [
            None if column[0] is None else np.concatenate(column) for column in columns
        ]
        return Stepped(*joined)

    def frame(self, lane: int) -> Array:
        owner, share = next(
            (w, share) for w, share in enumerate(self._shares) if share.start <= lane < share.stop
        )
        frame: Array = self._ask("frame", [(lane - share.start,)], first=owner)[0]
        return frame

    def _open(self) -> None:
        self._workers = [_start() for _ in range(self._count)]
        self._ending = weakref.finalize(self, _end, self._workers)
        self._ask("open", [self._opening] * self._count)

    def _share(self, method: str, *arrays: Array) -> list[Any]:
        return self._ask(
            method, [tuple(array[share] for array in arrays) for share in self._shares]
        )

    def _ask(self, method: str, arguments: Sequence[tuple[Any, ...]], first: int = 0) -> list[Any]:
        """The answer of each of the workers from the `first`, one for each of `arguments`."""
        asked = self._workers[first : first + len(arguments)]
        try:
            for (_, connection), given in zip(asked, arguments, strict=True):
                with suppress(OSError):  # a worker that died says so when it should answer
                    connection.send((method, given))
            answers = [self._answer(process, connection) for process, connection in asked]
        except (
            BaseException
        ):  # interrupted: what is still on its way would be taken for the next answer
            self._ending()
            raise
        for line, answer in answers:
            if line is not None:
                raise FamilyError(line) from (None if answer is None else RuntimeError(answer))
        return [answer for _, answer in answers]

    def _answer(
        self, process: subprocess.Popen[bytes], connection: Connection
    ) -> tuple[str | None, Any]:
        """(None, the answer), or (what went wrong, the traceback)."""
        try:
            answer: tuple[str | None, Any] = connection.recv()
        except (EOFError, OSError):
            code = process.wait(_GRACE)
            self._ending()  # of all of them; the next reset starts others
            return (
                f"a worker process died (exit code {code}; negative: by a signal, −9 for want of memory)",
                None,
            )
        return answer


def _start() -> tuple[subprocess.Popen[bytes], Connection]:
    """A process that serves the other end of the connection; its input ends when this process does."""
    ours, theirs = Pipe()
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve({theirs.fileno()})"
    with theirs:
        process = subprocess.Popen(  # noqa: S603  (our own interpreter and code)
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
            env=os.environ | _ONE_THREAD,
        )
    return process, ours


def _end(workers: Sequence[tuple[subprocess.Popen[bytes], Connection]]) -> None:
    for process, connection in workers:
        connection.close()
        if process.stdin is not None:
            process.stdin.close()
    for process, _ in workers:
        try:
            process.wait(2 * _GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# ---------------------------------------------------------------------------------------------------------------------
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
            reply: tuple[str | None, Any]
            try:
                if method == "open":
                    lanes, reply = EnvLanes(_family(*arguments)), (None, None)
                else:
                    reply = (None, getattr(lanes, method)(*arguments))
            except (
                Exception
            ) as error:  # whatever the user's environment raises is told to the parent
                line = (
                    str(error)
                    if isinstance(error, FamilyError)
                    else f"in a worker process: {one_line(error)}"
                )
                reply = (line, traceback.format_exc())
            connection.send(reply)


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
