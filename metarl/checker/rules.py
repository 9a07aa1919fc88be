"""A promise that can be looked at: what `metarl check` is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Look = Callable[[Any], str]
"""Says what was seen of a `Probe`; raises CheckFailed, or lets the family's own error pass, where the promise is not kept."""


class CheckFailed(Exception):
    """What was seen of a promise that is not kept."""


@dataclass(frozen=True)
class Rule:
    """One promise."""

    name: str
    look: Look
    why: str
    fix: str
    gate: bool  # where it is broken, nothing that follows can be looked at


def rule(*, why: str, fix: str, gate: bool = False) -> Callable[[Look], Rule]:
    """Make a function a rule of its own name."""
    return lambda look: Rule(look.__name__, look, why, fix, gate)


def require(kept: bool, seen: str) -> None:
    """Raises CheckFailed unless `kept`."""
    if not kept:
        raise CheckFailed(seen)
