"""Errors that a user can fix: one clear line, never a traceback."""

import difflib
import sys
from collections.abc import Iterable

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


def note(text: str) -> None:
    """Tell the user in a line what went another way than they may think."""
    print(f"metarl: {text}", file=sys.stderr)


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
