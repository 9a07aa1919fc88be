"""Errors that a user can fix: one clear line, never a traceback."""

import difflib
import reprlib
import sys
import textwrap
from collections.abc import Iterable

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
