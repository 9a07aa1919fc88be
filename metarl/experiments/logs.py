"""What a run writes while it learns: `metrics.jsonl`, TensorBoard events, its progress."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from metarl.experiments.checkpoints import disk_error, write_atomically

METRICS = "metrics.jsonl"


class MetricsLog:
    """One JSON object an iteration, and the same numbers for TensorBoard."""

    def __init__(self, folder: Path, resume_at: int):
        """Open the logs of a run that has finished `resume_at` iterations.

        Later records are of work that will be done again: they are dropped.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / METRICS
        kept = ""
        for record in read_metrics(folder):
            if record["iteration"] <= resume_at:
                kept += json.dumps(record) + "\n"
        write_atomically(self._path, kept.encode())
        self._file: IO[str] = self._path.open("a")
        purge_step = resume_at + 1 if resume_at else None
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=purge_step)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one iteration's record.

        Raises:
            MetaRLError: the disk is full.
        """
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
            for name, value in record.items():
                if isinstance(value, float):
                    self._events.add_scalar(name, value, record["iteration"])
        except OSError as error:
            raise disk_error(self._path, error) from None

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._events.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run; a last line that a crash cut short is left out."""
    path = folder / METRICS
    records = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


class Display:
    """Progress on the screen: a live bar in a terminal, a line every ten seconds elsewhere."""

    def __init__(self, quiet: bool = False):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._console = Console(stderr=True, highlight=False, quiet=quiet)
        self._bar = Progress(
            BarColumn(20),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=1.0)
        self._last_line = -float("inf")
        self._validation = ""

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
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
        self._bar.update(self._task, completed=progress, description=text)
        if not self._console.is_terminal and time.monotonic() - self._last_line >= 10:
            self._last_line = time.monotonic()
            self._console.print(f"{progress:4.0%}  {text}", soft_wrap=True)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, soft_wrap=True)
