"""Gymnasium's spaces as flat arrays. Imports no torch, so that worker processes stay light."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.core.errors import FamilyError, suggest

Array = NDArray[Any]


@dataclass(frozen=True)
class Part:
    """A leaf of an observation space: numbers as they are, or choices as one-hots side by side."""

    path: tuple[str | int, ...]
    """The keys that lead to it through Dict and Tuple spaces."""
    entries: int
    """How many numbers or choices it holds."""
    width: int
    """How many numbers they become."""
    ones: tuple[int, ...] | None = None
    """For choices: where in the one-hots the choice 0 of each would stand."""

    @property
    def name(self) -> str:
        return ".".join(map(str, self.path)) or "observation"

    def flat(self, observation: Any, count: int) -> Array:
        """[count, width] float32 of one observation (count 1) or of a batch.

        Raises:
            FamilyError: the observation is not what its space says.
        """
        for key in self.path:
            observation = observation[key]
        values = np.asarray(observation).reshape(count, -1)
        if values.shape[1] != self.entries:
            raise FamilyError(
                f"observation {self.name}: {values.shape[1]} numbers; its space says {self.entries}"
            )
        if self.ones is None:
            return values.astype(np.float32)
        hot = np.zeros((count, self.width), np.float32)
        np.put_along_axis(hot, values.astype(np.int64) + np.array(self.ones), 1.0, axis=1)
        return hot


def parts(space: gymnasium.Space[Any], hidden: Sequence[str] = ()) -> tuple[Part, ...]:
    """The leaves of an observation space in its own order, without those that are `hidden`.

    Raises:
        FamilyError: a space that has no flat form, or nothing to hide of that name.
    """
    found = tuple(_leaves(space, ()))
    for name in hidden:
        if not any(_is_in(part, name) for part in found):
            raise FamilyError(
                f"hidden: there is no observation {name!r}; {suggest(name, (part.name for part in found))}"
            )
    kept = tuple(part for part in found if not any(_is_in(part, name) for name in hidden))
    if not kept:
        raise FamilyError(f"hidden: nothing is left of the observation {space}")
    return kept


def _is_in(part: Part, name: str) -> bool:
    return part.name == name or part.name.startswith(f"{name}.")


def _leaves(space: gymnasium.Space[Any], path: tuple[str | int, ...]) -> Iterator[Part]:
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for place, inner in enumerate(space.spaces):
            yield from _leaves(inner, (*path, place))
    elif isinstance(space, spaces.Box | spaces.MultiBinary):
        size = prod(space.shape)
        yield Part(path, size, size)
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        sizes = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)
        before = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        yield Part(
            path, len(sizes), int(sizes.sum()), tuple((before - np.ravel(space.start)).tolist())
        )
    else:
        raise FamilyError(
            f"observation space {space} has no flat form; turn it into a Box with gymnasium.wrappers.TransformObservation"
        )


@dataclass(frozen=True)
class Actions:
    """An action space: one of `width` choices, or `width` numbers in [−1, 1] that are rescaled to its bounds."""

    width: int
    discrete: bool
    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()
    start: int = 0
    low: Array = field(default_factory=lambda: np.zeros(0))  # [A] float64
    high: Array = field(default_factory=lambda: np.zeros(0))  # [A] float64

    def given(self, action: Array) -> Array:
        """What the space holds for `action` [L] int64 or [L, A] float32 (clipped to [−1, 1]) → [L, *shape]."""
        if self.discrete:
            return (action + self.start).astype(self.dtype)
        share = (np.clip(action, -1, 1).astype(np.float64) + 1) / 2
        rescaled: Array = self.low + share * (self.high - self.low)
        return rescaled.astype(self.dtype).reshape(len(action), *self.shape)

    def each(self, action: Array) -> list[Any]:
        """What is `given`, one by one: an int, or an array of the space's shape."""
        given = self.given(action)
        return given.tolist() if self.discrete else list(given)

    def some(self, count: int) -> Array:
        """`count` valid actions [count] or [count, A]: the first choice, or the middle of the bounds."""
        return (
            np.zeros(count, np.int64)
            if self.discrete
            else np.zeros((count, self.width), np.float32)
        )


def actions(space: gymnasium.Space[Any]) -> Actions:
    """The form of an action space.

    Raises:
        FamilyError: neither Discrete nor a bounded Box of floats.
    """
    if isinstance(space, spaces.Discrete):
        return Actions(int(space.n), True, np.dtype(np.int64), start=int(space.start))
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        raise FamilyError(
            f"action space {space}: Discrete and Box of floats are supported; "
            "offer one of them with a gymnasium.ActionWrapper"
        )
    if not space.is_bounded():
        raise FamilyError(
            f"action space {space} has no bounds to rescale [−1, 1] to; "
            "set some with gymnasium.wrappers.TransformAction(env, lambda action: action, a bounded Box)"
        )
    low, high = (np.ravel(bound).astype(np.float64) for bound in (space.low, space.high))
    return Actions(len(low), False, space.dtype, space.shape, low=low, high=high)


@dataclass(frozen=True)
class Layout:
    """What metarl must know of an environment before it is stepped."""

    parts: tuple[Part, ...]
    actions: Actions
    horizon: int
    task_width: int
    tells_success: bool
    renders: bool

    @property
    def observation(self) -> dict[str, int]:
        """Width of each part, as in `Spec.observation`."""
        return {part.name: part.width for part in self.parts}

    def flat(self, observation: Any, count: int) -> Array:
        """[count, O] float32, a new array, of one observation (count 1) or of a batch."""
        return np.concatenate([part.flat(observation, count) for part in self.parts], axis=1)
