"""Whether two values are the same, and whether they are as they should be."""

from dataclasses import is_dataclass
from operator import itemgetter
from types import EllipsisType
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from metarl.checker.rules import CheckFailed, require

C = TypeVar("C")

IMPROBABLE = 1e-3
"""What is less probable than this is not put down to randomness."""


def part(tree: C, *place: slice | Tensor | EllipsisType) -> C:
    """A copy of `x[place]` of every tensor x."""
    copied: C = tree_map_only(Tensor, lambda x: x[place].detach().clone(), tree)
    return copied


def require_same(one: object, other: object, what: str, *, rounding: bool = False) -> None:
    """Raises CheckFailed, beginning with `what`, if two trees differ."""
    differs = difference(one, other, rounding=rounding)
    require(differs is None, f"{what}; {differs}")


def equal(one: object, other: object, what: str, *, rounding: bool = False) -> str:
    """Says that `what`, two things, are the same; raises CheckFailed if they differ."""
    require_same(one, other, f"{what}: not the same", rounding=rounding)
    return f"{what}: the same"


def difference(one: object, other: object, *, rounding: bool = False) -> str | None:
    """The first difference of two trees along the leading axis of their tensors, or None.

    `rounding` ignores small ones.
    """
    left, right = named_leaves(one), named_leaves(other)
    found = []
    for name in {**left, **right}:
        differs = _difference(left.get(name), right.get(name), rounding)
        if differs is not None:
            place, values = differs
            found.append((place[:1], f"{name or 'it'} differs{values}"))
    return min(found, key=itemgetter(0))[1] if found else None


def require_nowhere(fault: Tensor, what: str) -> None:
    """Raises CheckFailed, beginning with `what`, at the first entry [T, N, M, …] of a `fault`."""
    for place in fault.nonzero()[:1].tolist():
        raise CheckFailed(f"{what} at [step, row, lane] {place}")


def named_leaves(tree: object, name: str = "") -> dict[str, object]:
    """The leaves by their place, such as ``belief row 0``."""
    if is_dataclass(tree):
        tree = vars(tree)
    if isinstance(tree, list | tuple):
        tree = dict(enumerate(tree))
    if not isinstance(tree, dict):
        return {name: tree}
    leaves: dict[str, object] = {}
    for key, value in tree.items():
        leaves |= named_leaves(value, f"{name} {key}".strip())
    return leaves


def _difference(one: object, other: object, rounding: bool) -> tuple[list[int], str] | None:
    """The index of the first entries that differ, and what they are; or None."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return None if one is other or one == other else ([], "")
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return [], " in shape or type"
    if torch.equal(one, other):  # the usual case, at a glance
        return None
    tolerance = (1e-4, 1e-5) if rounding else (0.0, 0.0)
    differs = ~torch.isclose(one.double(), other.double(), *tolerance, equal_nan=True)
    for place in differs.nonzero()[:1].tolist():
        a, b = (float(x[tuple(place)]) for x in (one, other))
        return place, f" at {place}: {a:.6g} and {b:.6g}"
    return None


def require_leading(name: str, tree: object, leading: tuple[int, ...]) -> None:
    """Raises CheckFailed unless all leaves of `tree` are tensors [*leading, …]."""
    for x in tree_leaves(tree):
        fits = isinstance(x, Tensor) and x.shape[: len(leading)] == leading
        axes = list(leading)
        kind = type(x).__name__
        require(x is None or fits, f"{name} holds {kind}, no tensor with the leading axes {axes}")
