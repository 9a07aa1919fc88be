"""Contenders that take turns: each is a process that works when asked and reports its figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


class Turns:
    """A contender's end of the pipe."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a peer may print what it likes

    def wait(self) -> None:
        """Ends the process where no turn follows."""
        if not sys.stdin.readline():
            sys.exit()

    def report(self, figures: dict[str, float]) -> None:
        print(json.dumps(figures), file=self._out, flush=True)


class Contender:
    """The other end: a process that has a turn whenever it is asked to.

    It is `script`, called with ``--serve``, the contender's `name` and its `options` in JSON.
    """

    def __init__(self, python: str, script: str, name: str, options: dict) -> None:
        command = [
            python,
            "-W",
            "ignore",
            str(Path(script).resolve()),
            "--serve",
            json.dumps([name, options]),
        ]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
        self._process = subprocess.Popen(command, env=os.environ | {"TQDM_DISABLE": "1"}, **pipes)  # noqa: S603  (ourselves)
        self.name = name

    def turn(self) -> dict[str, float]:
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended; its last message stands above")
        return json.loads(line)

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=30)
