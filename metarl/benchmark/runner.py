"""Running a suite: a matrix of ordinary runs, each in a process and a folder of its own::

suite.yaml, references.csv     copies of what the suite says
matrix.json                    the cells, and the hashes of their configurations
PROBLEM/AGENT/seed-0.yaml      the complete configuration of a cell
PROBLEM/AGENT/seed-0.log       what it printed
PROBLEM/AGENT/seed-0/          its run folder; error.txt says why a cell failed
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from metarl.benchmark.results import ERROR, MATRIX, SUITE, read_matrix, read_result
from metarl.benchmark.suite import Cell, ReadSuite
from metarl.config.files import to_yaml
from metarl.core.disk import make_folder, write_atomically, writing
from metarl.core.errors import CheckpointError, note
from metarl.core.texts import to_json
from metarl.experiments.folder import RunFolder, alone_in
from metarl.experiments.interruption import GRACE
from metarl.experiments.processes import Ended, Job, Launch, run_jobs

_ERROR_LINE = re.compile("metarl: (.*)")


class Benchmark:
    """The cells of a suite in a folder."""

    def __init__(self, suite: ReadSuite, cells: Sequence[Cell], out: Path):
        self.suite, self.cells, self.out = suite, cells, out

    def is_done(self, cell: Cell) -> bool:
        """Whether its folder holds a result of its configuration."""
        return read_result(RunFolder(self.out / cell.folder), cell.hash) is not None

    def run(
        self,
        jobs: int,
        resume: bool,
        quiet: bool,
        grace: float = GRACE,
        launch: Launch | None = None,
    ) -> list[Cell]:
        """Run all cells that are not done, `jobs` at a time → those that have failed.

        `launch` runs them; None: `run_jobs`.

        A cell that fails, or runs past the limit of the suite, leaves its error; others go on.

        Raises:
            CheckpointError: the folder holds a benchmark and `resume` was not asked for, or is in
                use.
            KeyboardInterrupt: after Ctrl-C, and SystemExit after the other signals.
        """
        with alone_in(self.out, self.out, "running a benchmark"):
            self._begin(resume)
            waiting = [cell for cell in self.cells if not self.is_done(cell)]
            progress = _Progress(self, waiting, jobs, quiet)
            commands = [self._job(cell, grace) for cell in waiting]
            (launch or run_jobs)(commands, jobs, grace, progress.ended)
            return [cell for cell in waiting if not self.is_done(cell)]

    def _begin(self, resume: bool) -> None:
        """Write what the suite says; cells of an earlier call stay if it still has them."""
        known: dict[str, dict[str, Any]] = {}
        if (self.out / MATRIX).is_file():
            if not resume:
                raise CheckpointError(
                    f"{self.out} holds a benchmark already: go on with --resume, or choose "
                    "another --out"
                )
            known = {cell["folder"]: cell for cell in read_matrix(self.out)}
        for cell in self.cells:
            known[str(cell.folder)] = _record(cell)
        write_atomically(self.out / SUITE, self.suite.text.encode())
        if self.suite.suite.references is not None:
            path = self.out / Path(self.suite.suite.references).name
            write_atomically(path, self.suite.references_text.encode())
        by_place: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for record in sorted(known.values(), key=lambda record: record["seed"]):
            by_place.setdefault((record["problem"], record["agent"]), []).append(record)
        cells = []
        for problem, content in self.suite.problems.items():
            for agent in content.agents:
                cells += by_place.get((problem, agent), [])
        matrix = {"suite": self.suite.name, "cells": cells}
        write_atomically(self.out / MATRIX, to_json(matrix).encode())

    def _job(self, cell: Cell, grace: float) -> Job:
        folder = self.out / cell.folder
        config = folder.with_suffix(".yaml")
        make_folder(config.parent)
        write_atomically(config, to_yaml(cell.config).encode())
        command = ["train", str(config), "--out", str(folder), "--resume", "--quiet"]
        return Job(
            [*command, "--no-pictures", f"--grace={grace:g}"],
            folder.with_suffix(".log").absolute(),
            cell.limit_minutes * 60,
            cell.config.threads,
        )


def _record(cell: Cell) -> dict[str, Any]:
    return {
        "problem": cell.problem,
        "agent": cell.agent,
        "seed": cell.seed,
        "trained": cell.trained,
        "hash": cell.hash,
        "folder": str(cell.folder),
    }


class _Progress:
    """A line a cell, and the time that is left."""

    def __init__(self, benchmark: Benchmark, waiting: Sequence[Cell], jobs: int, quiet: bool):
        self.benchmark, self.waiting, self.jobs, self.quiet = benchmark, waiting, jobs, quiet
        self.total = len(benchmark.cells)
        self.done = self.total - len(waiting)
        self.seconds: dict[tuple[str, str], list[float]] = {}
        self.left = [(cell.problem, cell.agent) for cell in waiting]
        if self.done and not quiet:
            note(f"{self.done} of {self.total} cells are done already")

    def ended(self, end: Ended) -> None:
        """Tell of a cell; keep its error if it failed."""
        cell = self.waiting[end.place]
        folder = self.benchmark.out / cell.folder
        self.done += 1
        self.left.remove((cell.problem, cell.agent))
        self.seconds.setdefault((cell.problem, cell.agent), []).append(end.seconds)
        if self.benchmark.is_done(cell):
            with writing(folder / ERROR):
                (folder / ERROR).unlink(missing_ok=True)
            outcome = f"{end.seconds:.0f} s"
        else:
            error = _error(end, cell, folder)
            make_folder(folder)
            write_atomically(folder / ERROR, error.encode())
            outcome = f"FAILED: {error}"
        if not self.quiet:
            left = f"; {self._time_left()} left" if self.jobs else ""
            note(f"[{self.done}/{self.total}] {cell}: {outcome}{left}")

    def _time_left(self) -> str:
        """By the seconds of cells of the same agent and problem, or of all."""
        every = [x for seconds in self.seconds.values() for x in seconds]
        mean = sum(every) / len(every)
        expected = 0.0
        for place in self.left:
            known = self.seconds.get(place)
            expected += sum(known) / len(known) if known else mean
        return str(timedelta(seconds=round(expected / self.jobs)))


def _error(end: Ended, cell: Cell, folder: Path) -> str:
    """Why a cell has no result, in a line."""
    if end.too_long:
        return f"ended after the limit of {cell.limit_minutes:g} minutes (limit_minutes)"
    if end.code == 0:
        return f"its result is of another configuration; remove {folder} to train anew"
    log = folder.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
    told = _ERROR_LINE.findall(log) or log.split("\n")
    told = [line.strip() for line in told if line.strip()]
    return f"{told[-1] if told else 'it printed nothing'} (exit code {end.code})"
