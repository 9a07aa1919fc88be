"""The folder of a run::

config.yaml      the complete configuration
metrics.jsonl    one object an iteration
tensorboard/     the same for TensorBoard, with configuration, final scores and pictures
checkpoints/     latest.pt, previous.pt, best.pt (by the validation tasks)
code/            copies of the user's own files that the configuration names
evaluation.json  of the last `metarl evaluate`
result.json      scores of the best checkpoint per task and episode, and all that is needed to
                 compare them
traceback.txt    of the error that ended it, where a user's own code raised it
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from metarl.config.files import to_yaml
from metarl.config.schema import CHOICES, Config, absent, choose, parse, to_dict
from metarl.core.disk import disk_error, link_atomically, remove_partials, write_atomically, writing
from metarl.core.errors import CheckpointError, DiskError, MetaRLError, note
from metarl.core.texts import read_json
from metarl.experiments import checkpoints
from metarl.experiments.counters import LIMITS, WORKERS
from metarl.experiments.loading import CHECKPOINTS, SavedRun, read_checkpoint
from metarl.experiments.logs import METRICS, read_metrics, write_metrics
from metarl.experiments.user_code import keep_code, located

EVALUATION = "evaluation.json"


class RunFolder:
    """Where a run keeps what it must not lose."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"
        self.result = path / "result.json"
        self.traceback = path / "traceback.txt"

    def checkpoint(self, name: str) -> Path:
        """Where the checkpoint called `name` is."""
        return self.path / CHECKPOINTS / f"{name}.pt"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else trains in the folder meanwhile; see `alone_in`."""
        kept = self.checkpoint("latest").parent
        with alone_in(self.path, kept, "training"):
            remove_partials(kept)
            yield

    @contextmanager
    def keeping_tracebacks(self) -> Iterator[None]:
        """An error that something else has caused names the file where all of it is told."""
        try:
            yield
        except MetaRLError as error:
            if error.__cause__ is None:
                raise
            text = "".join(traceback.format_exception(error))
            with suppress(DiskError):  # which would hide what happened
                write_atomically(self.traceback, text.encode())
                error.args = (f"{error} (traceback: {self.traceback})",)
            raise

    def begin(self, config: Config) -> dict[str, Any]:
        """Write the configuration, and copy its code; a result of fewer steps is no longer one.

        Returns:
            What checkpoints say of the code.
        """
        write_atomically(self.config, to_yaml(config).encode())
        with writing(self.path):
            self.result.unlink(missing_ok=True)
            self.traceback.unlink(missing_ok=True)
        return asdict(keep_code(to_dict(config), self.path))

    def save(self, name: str, content: dict[str, Any]) -> None:
        """Write a checkpoint; the latest one becomes the previous one."""
        path = self.checkpoint(name)
        if name == "latest" and path.is_file():
            link_atomically(path, self.checkpoint("previous"))
        checkpoints.save(path, content)

    def read_state(self, config: Config, resume: bool) -> SavedRun | None:
        """The checkpoint to go on from, or None at the start of a new run.

        A run that ended before its first iteration did has nothing to lose: another may begin.

        Raises:
            CheckpointError: the folder holds a run and `resume` was not asked for, it holds a run
                of another configuration, or no checkpoint in it can be read.
        """
        if not resume:
            self.require_empty()
        saved = self._last_state(config) if resume else None
        if saved is None or not saved.counters.iterations:
            return None
        return saved

    def require_empty(self) -> None:
        """Raises a CheckpointError if there is a run in the folder."""
        if self._holds_run():
            raise CheckpointError(
                f"{self.path} holds a run already: continue it with --resume, "
                "or choose another --out"
            )

    def repair_logs(self) -> None:
        """Of a finished run: keep what can be read, and tell what else is damaged."""
        write_metrics(self.path, read_metrics(self.path))
        read_if_whole(self.path / EVALUATION, f"metarl evaluate {self.path} writes it again")

    def _holds_run(self) -> bool:
        """Whether an iteration was finished here."""
        for file in (self.result, self.checkpoint("best"), self.path / METRICS):
            if file.is_file() and file.stat().st_size:
                return True
        latest = self.checkpoint("latest")
        return latest.is_file() and read_checkpoint(latest).counters.iterations > 0

    def _last_state(self, config: Config) -> SavedRun | None:
        """The latest checkpoint of the run, or the previous one where that is damaged."""
        latest, previous = self.checkpoint("latest"), self.checkpoint("previous")
        if latest.is_file():
            try:
                return self.read_own(latest, config)
            except CheckpointError as error:
                try:
                    saved = self.read_own(previous, config)
                except CheckpointError:
                    raise error from None
                with writing(latest):
                    latest.unlink()  # or it would take the good one's place at the next save
                note(f"{error}; going on from {previous.name}")
                return saved
        return self.read_own(previous, config) if previous.is_file() else None

    def read_own(self, file: Path, config: Config) -> SavedRun:
        """A checkpoint of a run as `config` says, whose limits may be others.

        Raises:
            CheckpointError: it cannot be read, or is of another run.
        """
        saved = read_checkpoint(file)
        old, new = _as_today(saved, file, config), to_dict(config)
        then = located(old, saved.code.directory or str(Path.cwd()))
        now = located(new, str(Path.cwd()))
        differing = [
            key
            for key in new
            if key not in (*LIMITS, *WORKERS)
            and old.get(key) != new[key]
            and then.get(key) != now[key]
        ]
        if differing:
            raise CheckpointError(
                f"{self.path} holds a run with another {', '.join(differing)} ({file.name}); "
                f"only {', '.join((*LIMITS, *WORKERS))} may change"
            )
        return saved


@contextmanager
def alone_in(path: Path, folder: Path, doing: str) -> Iterator[None]:
    """No other process holds `path` meanwhile; a killed one holds no lock.

    Args:
        folder: to be made: `path`, or one below it.
        doing: what for, such as "training".

    Raises:
        CheckpointError: another process does, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock").acquire(blocking=False)
    except Timeout:
        raise CheckpointError(
            f"{path} is in use: another process is {doing} there; choose another --out"
        ) from None
    except OSError as error:
        raise disk_error(path, error) from None
    with lock:
        yield


def read_if_whole(file: Path, remedy: str) -> dict[str, Any] | None:
    """An object; None where there is no such file, or a damaged one, which a line tells."""
    if not file.is_file():
        return None
    try:
        return read_json(file)
    except CheckpointError:
        note(f"{file} is damaged; {remedy}")
        return None


def _as_today(saved: SavedRun, file: Path, config: Config) -> dict[str, Any]:
    """The configuration of a checkpoint `file` with the keys of today.

    Nothing is imported for it: classes are those of `config`, or absent.
    """
    tree: dict[str, Any] = {**to_dict(config), **saved.config}
    for kind in CHOICES:
        try:
            tree[kind] = choose(kind, tree[kind], vars(config)[kind].found)
        except MetaRLError:  # options of another class
            tree[kind] = absent(kind, tree[kind], "it is another one")
    return to_dict(parse(tree, where=str(file)))
