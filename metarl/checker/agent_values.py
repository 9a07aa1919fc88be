"""What agents take and return: whether two values are the same, and of the right shape."""

from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from metarl.checker.rules import require, require_array
from metarl.core.types import Acted, Spec


def part(tree: Any, *place: Any) -> Any:
    """A copy of `x[place]` of every tensor x."""
    return tree_map_only(Tensor, lambda x: x[place].detach().clone(), tree)


def require_same(one: object, other: object, what: str, *, rounding: bool = False) -> None:
    """Raises CheckFailed, beginning with `what`, if two trees differ."""
    differs = difference(one, other, rounding=rounding)
    require(differs is None, f"{what}; {differs} differs")


def difference(one: object, other: object, *, rounding: bool = False) -> str | None:
    """The place of the first difference of two trees, or None; `rounding` ignores small ones."""
    left, right = named_leaves(one), named_leaves(other)
    for name in {**left, **right}:
        absent = name not in left or name not in right
        if absent or not _same(left[name], right[name], rounding):
            return name or "it"
    return None


def named_leaves(tree: Any, name: str = "") -> dict[str, Any]:
    """The leaves by their place, such as ``belief row 0``."""
    if is_dataclass(tree):
        tree = vars(tree)
    if isinstance(tree, list | tuple):
        tree = dict(enumerate(tree))
    if not isinstance(tree, dict):
        return {name: tree}
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= named_leaves(value, f"{name} {key}".strip())
    return leaves


def _same(one: Any, other: Any, rounding: bool) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return one is other or one == other
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    tolerance = (1e-4, 1e-5) if rounding else (0.0, 0.0)
    return torch.allclose(one, other, *tolerance, equal_nan=True)


def require_leading(name: str, tree: object, leading: tuple[int, ...]) -> None:
    """Raises CheckFailed unless all leaves of `tree` are tensors [*leading, …]."""
    for x in tree_leaves(tree):
        if x is not None:
            kind = type(x).__name__
            require(isinstance(x, Tensor), f"{name} holds {kind}, no tensor")
            fits = x.shape[: len(leading)] == leading
            require(fits, f"{name} holds a tensor without the leading axes {list(leading)}")


def require_acted(acted: Acted, obs: Tensor, spec: Spec) -> None:
    """Raises CheckFailed unless `acted` is a decision on obs [N, M, O]."""
    size = tuple(obs.shape[:2])
    require_same(obs, acted.inputs.obs, "act: inputs.obs is not the observation")
    require_array("log_prob", acted.log_prob, size)
    require_leading("act: extras", acted.extras, size)
    if not spec.discrete:
        require_array("action", acted.action, (*size, spec.action_width), torch.float32)
        return
    require_array("action", acted.action, size, torch.int64)
    low, high = acted.action.aminmax()
    inside = low >= 0 and high < spec.action_width
    require(inside, f"actions from {low} to {high}, not from 0 to {spec.action_width - 1}")
