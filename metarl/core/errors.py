"""What a user can put right: one clear line, never a traceback of ours."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

DISTRIBUTION = "metarl-torch"
"""What to install; the name `metarl` on the package index is a stranger's."""


class MetaRLError(Exception):
    """Something the user can fix; the message names the culprit and the next step. Several faults, several lines."""


class ConfigError(MetaRLError):
    """A configuration, a name or an option that cannot be."""


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
    """« did you mean …» for a misspelt word, or the list of what there is."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there is: {', '.join(known) or 'nothing'}"
