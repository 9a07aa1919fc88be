"""What a run folder or a checkpoint file holds."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from metarl.config.overrides import override
from metarl.config.registry import Found, Kind, find
from metarl.config.schema import CHOICES, Choice, Config, absent, choose, parse
from metarl.core.errors import CheckpointError, ConfigError, MetaRLError, note
from metarl.core.types import Spec
from metarl.experiments import checkpoints
from metarl.experiments.archive import is_archive, read_archive
from metarl.experiments.counters import Counters
from metarl.experiments.user_code import OPTIONS, CodeRecord, locate_code

CHECKPOINTS = "checkpoints"
"""The folder of them in that of a run."""


@dataclass(frozen=True)
class SavedRun:
    """A checkpoint, read and not yet an agent."""

    config: dict[str, Any]
    """As `to_dict` gave it."""
    spec: Spec
    counters: Counters
    agent: dict[str, Any]
    """What the agent's `state_dict` gave."""
    best: float | None = None
    """The highest mean validation score so far."""
    window: list[float] = field(default_factory=list)
    """The last validation scores."""
    wall_seconds: float | None = None
    """None: before version 0.8 it was not kept."""
    core_seconds: float = 0.0
    code: CodeRecord = field(default_factory=CodeRecord)
    pending: dict[str, float] | None = None
    """Metrics of the last iteration, where it was interrupted before it was validated."""
    exported: bool = False
    """Whether `agent` is but what its `acting_state` gave."""


COLLECTING = ("collector", "workers", "worker_cpus", "shard_rows")
"""The keys of a configuration that say who evaluates, and in which shards."""


@dataclass(frozen=True)
class Opening:
    """How a run is opened."""

    device: str | None = None
    """Where its agent acts; None: where it was trained, or on the CPU if there is no such device.
    """
    trust: bool = False
    """Whether code that came with the run may be executed."""
    family: str | None = None
    """A family in place of the run's own, with the same options."""
    collecting: tuple[str, ...] = ()
    """Overrides of `COLLECTING`, ``key=value`` each; None of them: this process evaluates."""


OPENING = Opening()
"""As it was trained; only code that this user trained with is executed."""

_SAVED = TypeAdapter(SavedRun)


def read_checkpoint(path: Path) -> SavedRun:
    """A checkpoint file, or an exported agent.

    Raises:
        CheckpointError: it cannot be read, or a part is missing or is something else.
    """
    exported = is_archive(path)
    content = read_archive(path) if exported else checkpoints.load(path)
    try:
        return _SAVED.validate_python({**content, "exported": exported})
    except ValidationError as error:
        first = error.errors()[0]
        part = ".".join(map(str, first["loc"]))
        raise CheckpointError(
            f"checkpoint {path} is not one of a run: {part}: {first['msg']:.100}; use another, "
            "such as previous.pt"
        ) from None


def checkpoint_folder(path: Path) -> Path:
    """The run folder that a checkpoint lies in; that of a run folder is itself."""
    if path.is_dir():
        return path
    return path.parent.parent if path.parent.name == CHECKPOINTS else path.parent


def read_run(path: str | Path) -> tuple[SavedRun, Path]:
    """The best checkpoint of a run folder, or a checkpoint file; and the file that it is.

    Where the best one is damaged or missing, the latest is read, and a line says so.

    Raises:
        CheckpointError: nothing there that can be read.
    """
    path = Path(path)
    if not path.is_dir():
        return read_checkpoint(path), path
    errors: list[CheckpointError] = []
    for name in ("best", "latest", "previous"):
        file = path / CHECKPOINTS / f"{name}.pt"
        if not file.is_file():
            continue
        try:
            saved = read_checkpoint(file)
        except CheckpointError as error:
            errors.append(error)
            continue
        if errors:
            note(f"{errors[0]}; this is {file.name}, of iteration {saved.counters.iterations}")
        elif name != "best" and saved.best is not None:
            note(f"{path} has lost its best.pt; this is {file.name}")
        return saved, file
    if errors:
        raise errors[0]
    raise CheckpointError(f"{path} is no run folder: it has no checkpoints")


def read_configuration(saved: SavedRun, file: Path, opening: Opening) -> Config:
    """The configuration of a run whose checkpoint is `file`, with its code where it is now.

    Without its family and its world an agent can act, too: they are missed when they are asked for.

    Raises:
        MetaRLError: mistakes, or an agent whose code may not be executed.
    """
    tree = saved.config.copy()
    folder = checkpoint_folder(file)

    def locate(place: str, name: str) -> str:
        """A name that can be found wherever we are."""
        if saved.exported and place == "family":
            raise ConfigError(f"{file} holds no code: give {place}=path/to/file.py:Class, {name}")
        if saved.exported:
            return str(file / f"{place}.zip")
        if ":" in name:
            return locate_code(place, name, saved.code, folder, opening.trust)
        moved = Path(saved.code.directory, name)  # where a relative path of a run led in training
        return str(moved) if moved.exists() and not Path(name).exists() else name

    def read_choice(kind: Kind) -> Choice:
        section = tree[kind]
        name, options = section.get("name"), section.get(OPTIONS)
        known: Found | None = None
        if kind == "family" and opening.family is not None:
            known = find(kind, opening.family)
        elif isinstance(name, str) and ":" in name:
            known = find(kind, locate(kind, name))
        if isinstance(options, list) and all(isinstance(x, str) for x in options):
            places = [locate(f"option-{i}", x) for i, x in enumerate(options)]
            section = section | {OPTIONS: places}
        return choose(kind, section, known)

    for kind in CHOICES:
        if not isinstance(tree.get(kind), dict):
            continue
        try:
            tree[kind] = read_choice(kind)
        except MetaRLError as error:
            if kind == "agent":
                raise
            tree[kind] = absent(kind, tree[kind], str(error))
    tree["collector"] = "local"  # whoever trained it need not be there now
    return parse(override(tree, opening.collecting), where=str(file))
