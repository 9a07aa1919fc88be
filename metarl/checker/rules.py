"""A promise that can be looked at: what `metarl check` is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Look = Callable[[Any], str]
"""Says what was seen of a `Probe`; raises Broken, or lets the family's own error pass, where the promise is not kept."""


class Broken(Exception):
    """What was seen of a promise that is not kept."""


@dataclass(frozen=True)
class Rule:
    """One promise."""

    name: str
    look: Look
    why: str
    mend: str
    gate: bool  # where it is broken, nothing that follows can be looked at


def rule(*, why: str, mend: str, gate: bool = False) -> Callable[[Look], Rule]:
    """Make a function a rule of its own name."""
    return lambda look: Rule(look.__name__, look, why, mend, gate)


def must(kept: bool, seen: str) -> None:
    """Raises Broken unless `kept`."""
    if not kept:
        raise Broken(seen)
