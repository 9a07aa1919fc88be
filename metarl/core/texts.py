"""Text that enters and leaves: UTF-8 in files, JSON that others read, output on any terminal."""

import io
import json
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

from metarl.core.errors import CheckpointError, ConfigError, MetaRLError


def read_text(path: Path, fault: type[MetaRLError] = ConfigError, most: int | None = None) -> str:
    """The text of a UTF-8 file, without the mark that some editors put at its beginning.

    Args:
        most: bytes that are read.

    Raises:
        MetaRLError: a `fault`: there is no such file, it cannot be read, or it is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise fault(f"{path} is not UTF-8 (byte {error.start}); save it in that encoding") from None
    except OSError as error:
        raise fault(f"{path}: {error.strerror}") from None
    except ValueError as error:  # a name that no file can have
        raise fault(f"{str(path)!r} cannot be read: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a run folder.

    Raises:
        CheckpointError: there is no such file, or nothing that can be read.
    """
    text = read_text(path, CheckpointError)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is cut short or damaged; repeat the command that wrote it")
    return content


def to_json(content: object) -> str:
    """JSON, which has no NaN and no infinity: they are null."""
    try:
        return json.dumps(content, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(content), allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    infinite = isinstance(content, float) and not abs(content) < float("inf")
    return None if infinite else content


def terminal_width() -> int | None:
    """Columns of the terminal that is printed to, or COLUMNS; None: lines may be of any length."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):  # a file, a pipe or no stream of the system
        return None


def fold(text: str, width: int | None, beginning: str) -> str:
    """A line in lines of at most `width` columns, those after the first with this `beginning`.

    What no-break spaces hold together stays so, with plain ones.
    """
    if width is not None:
        text = textwrap.fill(
            text,
            max(width, len(beginning) + 20),
            subsequent_indent=beginning,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return text.replace("\N{NO-BREAK SPACE}", " ")


def open_streams() -> None:
    """Printing fails nowhere: letters that the terminal lacks are escaped, as in Python's errors.

    Where a stream was closed, what is printed is lost.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.TextIOWrapper(io.FileIO(os.devnull, "w"), "utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
