"""What a run folder or a checkpoint file holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.config.schema import Config, parse
from metarl.core.errors import CheckpointError
from metarl.core.types import Spec
from metarl.experiments import checkpoints
from metarl.experiments.counters import Counters


@dataclass(frozen=True)
class SavedRun:
    """A checkpoint, read and not yet an agent."""

    config: Config
    spec: Spec
    counters: Counters
    state: dict[str, Any]
    """What the agent's `state_dict` gave."""


def read_run(path: str | Path) -> SavedRun:
    """The best checkpoint of a run folder, or a checkpoint file.

    Raises:
        CheckpointError: nothing there that can be read.
    """
    content = checkpoints.load(checkpoint_path(Path(path)))
    config = parse(content["config"], where=str(path))
    return SavedRun(
        config, Spec(**content["spec"]), Counters(**content["counters"]), content["agent"]
    )


def checkpoint_path(path: Path) -> Path:
    """A checkpoint file itself, or that of a run folder: the best one, else the latest."""
    if not path.is_dir():
        return path
    for name in ("best", "latest", "previous"):
        found = path / "checkpoints" / f"{name}.pt"
        if found.is_file():
            return found
    raise CheckpointError(f"{path} is no run folder: it has no checkpoints")
