"""What a user can put right: one clear line, never a traceback of ours."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

DISTRIBUTION = "metarl-torch"
"""What to install; the name `metarl` on the package index is a stranger's."""


class Mistake(Exception):
    """Something the user can mend; the message names the culprit and the next step. Several mistakes, several lines."""


def install(extra: str) -> str:
    """The command that brings the packages of one of our extras."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def nearest(word: str, known: Iterable[str]) -> str:
    """« did you mean …» for a misspelt word, or the list of what there is."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there is: {', '.join(known) or 'nothing'}"
