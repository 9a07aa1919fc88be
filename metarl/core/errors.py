"""Errors that a user can fix: one clear line, never a traceback."""

import difflib
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

_OURS = f"{Path(__file__).parents[1]}/"
_INSTALLED = sysconfig.get_paths()
_NOT_THEIRS = ("<frozen", _OURS, _INSTALLED["stdlib"], _INSTALLED["purelib"], _INSTALLED["platlib"])
"""Path prefixes of code that is not the user's."""
DISTRIBUTION = "metarl-torch"
"""The package to install; `metarl` on the package index is another project."""


class MetaRLError(Exception):
    """Something the user can fix; the message names the culprit and the next step in one line."""


class ConfigError(MetaRLError):
    """An invalid configuration, name or option."""


class FamilyError(MetaRLError):
    """A family or an environment that breaks its contract."""


class CheckpointError(MetaRLError):
    """A checkpoint or a run folder that cannot be read, written or continued."""


Mistake = MetaRLError
"""The name of `MetaRLError` up to version 0.5."""


def install_command(extra: str) -> str:
    """The command that installs the packages of one of our extras."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def suggest(word: str, known: Iterable[str]) -> str:
    """«did you mean …» for a misspelled word, or the list of known ones."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there is: {', '.join(known) or 'nothing'}"


def one_line(error: BaseException) -> str:
    """The error with the innermost line of the user's own code."""
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith(_NOT_THEIRS):
            place = f" ({Path(frame.filename).name}, line {frame.lineno})"
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"


class calling:
    """A call of a user's own code: what it raises is a FamilyError in one line, with its cause."""

    def __init__(self, what: str):
        """`what` is called, such as "my-family: step 3"."""
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, MetaRLError):
            raise FamilyError(f"{self._what}: {one_line(error)}") from error
