"""What a run writes while it learns: `metrics.jsonl`, TensorBoard events, and a live line on the screen."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from metarl.experiments.checkpoints import disk_error, write_atomically

METRICS = "metrics.jsonl"


class MetricsLog:
    """One JSON object an iteration, and the same numbers for TensorBoard."""

    def __init__(self, folder: Path, resume_at: int) -> None:
        """Open the logs of a run that has finished `resume_at` iterations; later records are of work to be done again."""
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / METRICS
        kept = [record for record in read_metrics(folder) if record["iteration"] <= resume_at]
        write_atomically(self._path, "".join(json.dumps(record) + "\n" for record in kept).encode())
        self._file: IO[str] = self._path.open("a")
        self._events = SummaryWriter(
            str(folder / "tensorboard"), purge_step=resume_at + 1 if resume_at else None
        )

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

    def close(self) -> None:
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
    """Progress on the screen: a live line in a terminal, a line every ten seconds elsewhere."""

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, refresh_per_second=4, transient=False)
        self._quiet = quiet
        self._is_live = not quiet and self._console.is_terminal
        self._last = -float("inf")
        self._validation = ""
        if self._is_live:
            self._live.start()

    def show(self, record: Mapping[str, Any], progress: float, left: float) -> None:
        """The state after an iteration; `progress` from 0 to 1, `left` seconds still to come."""
        line = (
            f"{progress:4.0%}  iteration {record['iteration']}  env steps {record['env_steps']:,}  "
            f"{record['env_steps_per_second']:,.0f} steps/s  return {record['return']:.2f}  left {_clock(left)}"
        )
        if "validation" in record:
            self._validation = f"  validation {record['validation']:.2f}"
        line += self._validation
        if self._is_live:
            self._live.update(line)
        elif not self._quiet and time.monotonic() - self._last >= 10:
            self._last = time.monotonic()
            print(line, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A line that stays."""
        if not self._quiet:
            self._console.print(text)

    def close(self) -> None:
        if self._is_live:
            self._live.stop()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
