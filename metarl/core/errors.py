"""Errors that a user can fix: one clear line, never a traceback."""

import difflib
import reprlib
import sys
import sysconfig
import textwrap
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_OURS = f"{Path(__file__).parents[1]}/"
_INSTALLED = sysconfig.get_paths()
_NOT_THEIRS = ("<frozen", _OURS, _INSTALLED["stdlib"], _INSTALLED["purelib"], _INSTALLED["platlib"])
"""Path prefixes of code that is not the user's."""
DISTRIBUTION = "metarl-torch"
"""The package to install; `metarl` on the package index is another project."""

_LONGEST_VALUE = 120
_LONGEST_LIST = 200


class MetaRLError(Exception):
    """Something the user can fix; the message names the culprit and the next step in one line."""


class ConfigError(MetaRLError):
    """An invalid configuration, name or option."""


class FamilyError(MetaRLError):
    """A family or an environment that breaks its contract."""


class CheckpointError(MetaRLError):
    """A checkpoint or a run folder that cannot be read, written or continued."""


class DiskError(CheckpointError):
    """What the disk refuses: free space, or a folder that can be written, is all that is wanted."""


Mistake = MetaRLError
"""The name of `MetaRLError` up to version 0.5."""


def note(text: str) -> None:
    """Tell the user in a line what went another way than they may think."""
    print(f"metarl: {text}", file=sys.stderr)


class _Repr(reprlib.Repr):
    """Of a nested value the beginning, of a long number its first and last digits."""

    def repr_int(self, x: int, level: int) -> str:
        """Python writes no more than 4,300 decimal digits."""
        return hex(x) if x.bit_length() > 512 else repr(x)


_REPR = _Repr()
_REPR.maxstring = _REPR.maxother = _LONGEST_VALUE


def shown(text: str, most: int = _LONGEST_VALUE) -> str:
    """A text of somebody else's in a message: on one line, without its middle where it is long."""
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[-(most // 2) :]}"
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def quoted(value: object) -> str:
    """A value in a message, as Python writes it."""
    return shown(_REPR.repr(value))


def install_command(extra: str) -> str:
    """The command that installs the packages of one of our extras."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def suggest(word: str, known: Iterable[str]) -> str:
    """«did you mean …» for a misspelled word, or the first of the known ones."""
    known = sorted(known)
    close = difflib.get_close_matches(word[:_LONGEST_VALUE], known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    some = textwrap.shorten(", ".join(known), _LONGEST_LIST, placeholder=" …")
    return f"there is: {some or 'nothing'}"


def one_line(error: BaseException) -> str:
    """The error with the innermost line of the user's own code."""
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if is_of_user(frame.filename):
            place = f" ({Path(frame.filename).name}, line {frame.lineno})"
    return f"{type(error).__name__}: {shown(' '.join(str(error).split()), 200)}{place}"


def is_of_user(file: str) -> bool:
    """Whether a source file is neither ours nor an installed package's."""
    return not file.startswith(_NOT_THEIRS)


@contextmanager
def blaming(whose: object) -> Iterator[None]:
    """What a user's own code raises, below ours, is an error of `whose` class in one line."""
    try:
        yield
    except MetaRLError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        if not any(is_of_user(frame.filename) for frame in frames):
            raise
        raise MetaRLError(f"{type(whose).__name__}: {one_line(error)}") from error


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
