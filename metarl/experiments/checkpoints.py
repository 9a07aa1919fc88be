"""Checkpoints: written whole or not at all, read without executing anything."""

import io
import warnings
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from metarl.core.disk import write_atomically
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
