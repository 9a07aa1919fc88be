"""Checkpoints: written whole or not at all, read without executing anything."""

import errno
import io
import os
import warnings
import zipfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from metarl.core.errors import DISTRIBUTION, CheckpointError

FORMAT = 1
"""Incremented when checkpoints of earlier versions can no longer be read."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Write `content` (tensors, numbers, strings, lists, dicts) to `path`.

    Until it is complete, the old file stays.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "metarl": version(DISTRIBUTION), **content}, buffer)
    write_atomically(path, buffer.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises:
        CheckpointError: no file, a truncated, damaged or foreign one, or one of another format.
    """
    try:
        _check_whole(path)
        with warnings.catch_warnings(action="ignore"):  # of foreign files: the error below says it
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path}: there is no such file") from None
    except Exception as error:  # whatever reading another file leads to
        raise CheckpointError(
            f"checkpoint {path} is truncated, damaged or no checkpoint "
            f"({type(error).__name__}); use another, such as previous.pt"
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise CheckpointError(f"checkpoint {path} was not written by metarl")
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"checkpoint {path} has format {content['format']}, written by metarl "
            f"{content.get('metarl')}; this is metarl {version(DISTRIBUTION)} with format "
            f"{FORMAT}: use that version, or train again"
        )
    return content


def _check_whole(path: Path) -> None:
    """Raises BadZipFile where a byte is not what was written.

    Every record has a checksum, which torch does not read.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(damaged)


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Replace `path` by `data` in one step that survives a crash.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise disk_error(path, error) from None


def disk_error(path: Path, error: OSError) -> CheckpointError:
    """What to tell a user whose disk refuses."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CheckpointError(
            f"the disk is full: {path} could not be written; "
            "free some space and repeat the command (a training with --resume)"
        )
    return CheckpointError(f"{path} could not be written: {error.strerror}")
