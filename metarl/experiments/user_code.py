"""Code of users that runs were trained with, and whether opening a run may execute it.

A configuration may name classes of a user's own, such as ``fam.py:Maze``. A run keeps a copy of
their files, for whoever gets the run. Opening it executes a file only if it is unchanged, where it
was when the run was trained, and trained by this user: a seal says so, which nobody else can make.
Its key is in the user's state folder ($XDG_STATE_HOME, or ~/.local/state).
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from metarl.config.registry import modules_of_user, stand_for
from metarl.config.schema import CHOICES
from metarl.core.disk import make_folder, write_atomically
from metarl.core.errors import CheckpointError

COPIES = "code"
"""The folder of the copies in that of a run."""

OPTIONS = "pretrained_options"
"""The option of an agent that may name code, too."""


@dataclass(frozen=True)
class CodeFile:
    """What is known of a class of a user's own that a run was trained with."""

    path: str | None
    """Where its file was; None for one that was imported as ``package.module:Class``."""
    sha256: str | None
    """Of that file."""
    seal: str | None = None
    """Of the name and all that; None where the user could have no key."""


@dataclass(frozen=True)
class CodeRecord:
    """All of them, as the checkpoints of a run say it."""

    directory: str = ""
    """The working directory of the training, where its relative paths begin."""
    files: dict[str, CodeFile] = field(default_factory=dict)
    """By the name in the configuration."""


def code_names(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where a configuration names a user's code, and the name."""
    for kind in CHOICES:
        if ":" in tree[kind]["name"]:
            yield kind, tree[kind]["name"]
    for place, name in enumerate(tree["agent"].get(OPTIONS) or ()):
        if ":" in name:
            yield f"option-{place}", name


def keep_code(tree: Mapping[str, Any], folder: Path) -> CodeRecord:
    """Copy the code that the configuration `tree` names into a run's `folder`.

    Beside it the modules that were imported from where it lies.
    """
    record = CodeRecord(str(Path.cwd()))
    for place, name in code_names(tree):
        path = _file_of(name)
        if path is None:
            record.files[name] = CodeFile(None, None, _seal(name, None, None))
            continue
        _copy(path, folder / COPIES / place)
        digest = _digest(path)
        record.files[name] = CodeFile(str(path), digest, _seal(name, str(path), digest))
    return record


def locate_code(
    place: str,
    name: str,
    record: CodeRecord,
    folder: Path,
    trust: bool,
) -> str:
    """The name by which code called `name` may be imported, whatever the working directory.

    Args:
        place: where the configuration of the run in `folder` names it.
        trust: execute the copy in `folder`, or whatever is called so here, if it must be.

    Raises:
        CheckpointError: it may not be executed.
    """
    path_text, _, attribute = name.rpartition(":")
    known = record.files.get(name)
    why = "which you did not train with on this machine"
    if known is not None and _is_sealed(name, known):
        if known.path is None:
            return name
        path = Path(known.path)
        if path.is_file() and _digest(path) == known.sha256:
            return f"{path}:{attribute}"
        why = f"but {path} " + ("has changed since" if path.is_file() else "is gone")
    if trust:
        copy = folder / COPIES / place / Path(path_text).name
        return f"{copy}:{attribute}" if copy.is_file() else name
    more = f", or give {place}=path/to/file.py:Class" if place == "family" else ""
    raise CheckpointError(
        f"{folder} was trained with the code {name}, {why}: opening the run executes it; look at "
        f"it, then add --trust{more}"
    )


def located(tree: Mapping[str, Any], directory: str) -> dict[str, Any]:
    """The configuration with absolute paths, as it was meant in a working `directory`."""

    def absolute(name: str) -> str:
        path, colon, attribute = name.rpartition(":")
        if colon and not path.endswith(".py"):
            return name
        return os.path.normpath(Path(directory, path or attribute)) + (colon and colon + attribute)

    tree = dict(tree)
    for kind in CHOICES:
        if ":" in tree[kind]["name"]:
            tree[kind] = tree[kind] | {"name": absolute(tree[kind]["name"])}
    if tree["agent"].get(OPTIONS):
        paths = [absolute(name) for name in tree["agent"][OPTIONS]]
        tree["agent"] = tree["agent"] | {OPTIONS: paths}
    if tree.get("warm_start"):
        tree["warm_start"] = absolute(tree["warm_start"])
    return tree


def _file_of(name: str) -> Path | None:
    """The file of ``path/to/file.py:Class``; None for ``package.module:Class``."""
    path, _, _ = name.rpartition(":")
    return Path(path).resolve() if path.endswith(".py") else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _copy(path: Path, folder: Path) -> None:
    """`path`, and what was imported from beside it."""
    _write_files(_files_with(path), folder)


def _files_with(path: Path) -> dict[str, bytes]:
    """The contents of `path` and of what was imported from beside it, by name."""
    files = {file for file in modules_of_user().values() if path.parent in file.parents}
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in files | {path}}


def _write_files(files: Mapping[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        copy = folder / name
        make_folder(copy.parent)
        write_atomically(copy, content)


# -------------------------------------------------------------------------------------------------
# On other machines


@dataclass(frozen=True)
class CodeCopy:
    """A user's file on its way to another machine."""

    place: str
    """Where a configuration names it."""
    name: str
    """The name there."""
    path: str
    """Where the file is on this machine."""
    files: dict[str, bytes]
    """Its content, and that of what was imported from beside it."""


def code_copies(tree: Mapping[str, Any]) -> list[CodeCopy]:
    """The files that the configuration `tree` names."""
    copies = []
    for place, name in code_names(tree):
        path = _file_of(name)
        if path is not None:
            copies.append(CodeCopy(place, name, str(path), _files_with(path)))
    return copies


def unpack_code(tree: Mapping[str, Any], copies: Iterable[CodeCopy]) -> dict[str, Any]:
    """The configuration `tree` with files that are here: where they were, or written anew."""
    changed = dict(tree)
    names = {}
    for copy in copies:
        path = Path(copy.path)
        if not (path.is_file() and path.read_bytes() == copy.files[path.name]):
            folder = Path(mkdtemp(prefix="metarl-code-"))
            _write_files(copy.files, folder)
            path = folder / path.name
            stand_for(path, Path(copy.path))
        names[copy.name] = f"{path}:{copy.name.rpartition(':')[2]}"
    for kind in CHOICES:
        changed[kind] = {
            **changed[kind],
            "name": names.get(changed[kind]["name"], changed[kind]["name"]),
        }
    agent = changed["agent"]
    if agent.get(OPTIONS):
        changed["agent"] = agent | {OPTIONS: [names.get(name, name) for name in agent[OPTIONS]]}
    return changed


# -------------------------------------------------------------------------------------------------
# Seals


def _is_sealed(name: str, known: CodeFile) -> bool:
    """Whether this user has trained with it."""
    seal = _seal(name, known.path, known.sha256)
    return None not in (seal, known.seal) and hmac.compare_digest(str(seal), str(known.seal))


def _seal(name: str, path: str | None, digest: str | None) -> str | None:
    """None where this user can have no key."""
    key = _key()
    if key is None:
        return None
    return hmac.new(key, json.dumps([name, path, digest]).encode(), "sha256").hexdigest()


def _key() -> bytes | None:
    """This user's, which is made when it is first needed."""
    try:
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        path = Path(home, "metarl", "key")
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".key-{os.getpid()}")
            partial.touch(mode=0o600)
            partial.write_bytes(secrets.token_bytes(32))
            with suppress(FileExistsError):
                os.link(partial, path)  # whole or not at all; the first one stays
            partial.unlink()
        return path.read_bytes()
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return None
