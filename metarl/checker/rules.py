"""A promise that can be checked: what `metarl check` is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from metarl.core.errors import MetaRLError

P = TypeVar("P")
"""What is examined: the probe of a family or of an agent."""


class CheckFailed(MetaRLError):
    """What was observed of a broken promise; `suspect` is what causes it, if that was found out.

    A `fix` stands in for that of the rule.
    """

    def __init__(self, observed: str, suspect: str = "", fix: str | None = None):
        super().__init__(observed)
        self.suspect = suspect
        self.fix = fix


class Skipped(str):
    """Said instead of an observation: why a promise could not be tested."""


class NotOffered(str):
    """Said instead of an observation: nothing was promised."""


class Warned(str):
    """Said instead of an observation: what may be a fault, and may be meant so."""


@dataclass(frozen=True)
class Rule(Generic[P]):
    """One promise."""

    name: str
    check: Callable[[P], str]
    """Says what was observed; raises CheckFailed, or an error of what is examined, if the promise
    is broken."""
    why: str
    fix: str | Callable[[P], str]
    gate: bool  # if it is broken, no later rule can be checked
    rests: tuple[str, ...]
    """Earlier rules: where one of them is broken, this one would break for the same reason, and is
    not looked at."""

    def fix_of(self, probe: P) -> str:
        """The next step for what is examined."""
        return self.fix if isinstance(self.fix, str) else self.fix(probe)


def rules_of(module: ModuleType) -> list[Rule[Any]]:
    """Those of a module, in the order in which they are written."""
    return [value for value in vars(module).values() if isinstance(value, Rule)]


def rule(
    *,
    why: str,
    fix: str | Callable[[P], str],
    gate: bool = False,
    rests: tuple[str, ...] = (),
) -> Callable[[Callable[[P], str]], Rule[P]]:
    """Make a function a rule of its own name."""
    return lambda check: Rule(check.__name__, check, why, fix, gate, rests)


def require(kept: object, observed: str) -> None:
    """Raises CheckFailed unless `kept`."""
    if not kept:
        raise CheckFailed(observed)


def require_array(
    name: str,
    x: object,
    shape: tuple[int, ...],
    dtype: torch.dtype | None = None,
) -> None:
    """Raises CheckFailed unless `x` is a finite tensor of this shape and type (default: real)."""
    if not isinstance(x, Tensor):
        raise CheckFailed(f"{name} is {type(x).__name__}, no tensor")
    fits = x.dtype == dtype if dtype else x.is_floating_point()
    wanted = f"{dtype or 'real numbers'} of shape {list(shape)}"
    actual = f"{x.dtype} of shape {list(x.shape)}"
    require(fits and x.shape == shape, f"{name} is {actual}, not {wanted}")
    require(x.isfinite().all(), f"{name} is not finite")
