"""The folder of a run::

config.yaml      the complete configuration
metrics.jsonl    one object an iteration
tensorboard/     the same for TensorBoard
checkpoints/     latest.pt, previous.pt, best.pt (by the validation tasks)
result.json      scores of the best checkpoint per task and episode, and all that is needed to
                 compare them
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from metarl.config.files import load_config, to_yaml
from metarl.config.schema import Config, to_dict
from metarl.core.errors import CheckpointError
from metarl.experiments import checkpoints
from metarl.experiments.counters import LIMITS
from metarl.experiments.logs import METRICS


class RunFolder:
    """Where a run keeps what it must not lose."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"
        self.result = path / "result.json"

    def checkpoint(self, name: str) -> Path:
        """Where the checkpoint called `name` is."""
        return self.path / "checkpoints" / f"{name}.pt"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else trains in the folder meanwhile; a killed process holds no lock.

        Raises:
            CheckpointError: another process does, or the folder cannot be written.
        """
        try:
            self.checkpoint("latest").parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock").acquire(blocking=False)
        except Timeout:
            raise CheckpointError(
                f"{self.path} is in use: another process is training there; choose another --out"
            ) from None
        except OSError as error:
            raise checkpoints.disk_error(self.path, error) from None
        with lock:
            yield

    def begin(self, config: Config) -> None:
        """Write the configuration; a result of fewer steps is no longer one."""
        checkpoints.write_atomically(self.config, to_yaml(config).encode())
        self.result.unlink(missing_ok=True)

    def save(self, name: str, content: dict[str, Any]) -> None:
        """Write a checkpoint; the latest one becomes the previous one."""
        path = self.checkpoint(name)
        if name == "latest" and path.is_file():
            path.replace(self.checkpoint("previous"))
        checkpoints.save(path, content)

    def read_state(self, config: Config, resume: bool) -> dict[str, Any] | None:
        """The checkpoint to go on from, or None at the start of a new run.

        A run that ended before its first iteration did has nothing to lose: another may begin.

        Raises:
            CheckpointError: the folder holds a run and `resume` was not asked for, it holds a run
                of another configuration, or no checkpoint in it can be read.
        """
        if not resume and self._holds_run():
            raise CheckpointError(
                f"{self.path} holds a run already: continue it with --resume, "
                "or choose another --out"
            )
        state = self._last_state() if resume else None
        if state is None or not state["counters"]["iterations"]:
            return None
        old = to_dict(load_config(self.config))
        new = to_dict(config)
        differing = [key for key in new if key not in LIMITS and old.get(key) != new[key]]
        if differing:
            raise CheckpointError(
                f"{self.path} holds a run with another {', '.join(differing)}; "
                f"only {', '.join(LIMITS)} may change"
            )
        return state

    def _holds_run(self) -> bool:
        """Whether an iteration was finished here."""
        for file in (self.result, self.checkpoint("best"), self.path / METRICS):
            if file.is_file() and file.stat().st_size:
                return True
        latest = self.checkpoint("latest")
        return latest.is_file() and checkpoints.load(latest)["counters"]["iterations"] > 0

    def _last_state(self) -> dict[str, Any] | None:
        """The latest checkpoint, or the previous one where that is damaged."""
        latest, previous = self.checkpoint("latest"), self.checkpoint("previous")
        if latest.is_file():
            try:
                return checkpoints.load(latest)
            except CheckpointError as error:
                if not previous.is_file():
                    raise
                latest.unlink()  # or it would take the place of the good one at the next save
                print(f"metarl: {error}; going on from {previous.name}", file=sys.stderr)
        return checkpoints.load(previous) if previous.is_file() else None
