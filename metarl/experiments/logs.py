"""What a run writes while it learns: `metrics.jsonl`, the same for TensorBoard, its progress."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from metarl.core.disk import write_atomically, writing
from metarl.core.errors import note
from metarl.core.texts import to_json
from metarl.experiments.events import MetricEvents
from metarl.experiments.tags import grouped

METRICS = "metrics.jsonl"
_EVERY = 10.0  # seconds between two lines
_REFRESH = 0.1  # seconds between two changes of a bar
_LOOKS = 0.5  # seconds between two looks whether a line is due


class MetricsLog:
    """One JSON object an iteration, and the same numbers for TensorBoard."""

    def __init__(self, folder: Path, resume_at: int):
        """Open the logs of a run that has finished `resume_at` iterations.

        Later records are of work that will be done again: they are dropped.

        Raises:
            MetaRLError: the disk is full.
        """
        self._path = folder / METRICS
        records = [r for r in read_metrics(folder) if r["iteration"] <= resume_at]
        write_metrics(folder, records)
        with writing(self._path):
            self._file = self._path.open("a", encoding="utf-8")
            self._events = MetricEvents(folder, records[-1]["env_steps"] if records else 0)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one iteration's record.

        Raises:
            MetaRLError: the disk is full.
        """
        with writing(self._path):
            self._file.write(to_json(record) + "\n")
            self._file.flush()
            self._events.write(grouped(record), record["env_steps"])

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *error: object) -> None:
        for file in (self._file, self._events.file):
            with suppress(OSError):  # all was flushed; what failed then was reported
                file.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run; a number that was not finite is NaN.

    A last line that a crash cut short is left out; so are damaged ones, which a line tells.
    """
    path = folder / METRICS
    lines = path.read_bytes().splitlines() if path.is_file() else []
    records = []
    damaged = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            finite = {key: value for key, value in record.items() if value is not None}
            record = dict.fromkeys(record, math.nan) | finite
            records.append(record | {key: int(record[key]) for key in ("iteration", "env_steps")})
        except (ValueError, TypeError, KeyError, AttributeError):
            damaged.append(number)
    if damaged and damaged != [len(lines)]:
        note(f"{path} is damaged: line {damaged[0]} and {len(damaged) - 1} others are left out")
    return records


def write_metrics(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Replace the records of a run.

    Raises:
        CheckpointError: the disk is full.
    """
    text = "".join(to_json(record) + "\n" for record in records)
    write_atomically(folder / METRICS, text.encode())


class Display:
    """Progress on the screen: a live bar in a terminal, a line every ten seconds elsewhere."""

    def __init__(self, quiet: bool = False, lasting: bool = True):
        """`lasting`: the bar stays, and the first line comes at once.

        Otherwise a line comes every ten seconds even where nothing new is told.
        """
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._console = Console(stderr=True, highlight=False, quiet=quiet)
        self._bar = Progress(
            BarColumn(20),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            transient=not lasting,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=1.0)
        self._lasting = lasting
        self._last_line = -math.inf if lasting else time.monotonic()
        self._last_told = -math.inf
        self._validation = ""
        self._line = ""
        self._lock = threading.Lock()  # of the last line
        self._over = threading.Event()
        self._repeating = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> Display:
        self._bar.start()
        if not self._lasting and not self._console.is_terminal:
            self._repeating.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._repeating.is_alive():
            self._repeating.join()
        self._bar.stop()

    def show(self, record: Mapping[str, Any], progress: float, left: float) -> None:
        """The state after an iteration; `progress` from 0 to 1, `left` seconds still to come."""
        if "validation" in record:
            self._validation = f"  validation {record['validation']:.2f}"
        gained = ""
        if "return" in record:
            gained = f"  return {record['return']:.2f}"
        text = (
            f"iteration {record['iteration']}  env steps {record['env_steps']:,}  "
            f"{record['env_steps_per_second']:,.0f} steps/s{gained}"
            f"  left {timedelta(seconds=max(0, int(left)))}{self._validation}"
        )
        self._last_told = -math.inf
        self.tell(text, progress)

    def tell(self, text: str, share: float) -> None:
        """What is done now; `share` of all, from 0 to 1, is done already."""
        self._line = f"{share:4.0%}  {text}"
        now = time.monotonic()
        if now - self._last_told < _REFRESH:
            return
        self._last_told = now
        self._bar.update(self._task, completed=share, description=text)
        self._print_if_due()

    def _repeat(self) -> None:
        """Say again what was told last, where nothing new is told for long."""
        while not self._over.wait(_LOOKS):
            self._print_if_due()

    def _print_if_due(self) -> None:
        with self._lock:
            now = time.monotonic()
            due = now - self._last_line >= _EVERY
            if self._line and due and not self._console.is_terminal:
                self._last_line = now
                self._console.print(self._line, soft_wrap=True)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, soft_wrap=True)
