"""Gymnasium's spaces as flat arrays. Imports no torch, so that worker processes stay light."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from metarl.core.errors import FamilyError, suggest

Array = NDArray[Any]
Env = gymnasium.Env[Any, Any]
ManyEnvs = VectorEnv[Any, Any, Any]
Space = gymnasium.Space[Any]
Info = dict[str, Any]


# -------------------------------------------------------------------------------------------------
# Observations


@dataclass(frozen=True)
class Part:
    """A leaf of an observation space: numbers as they are, or choices as one-hots side by side."""

    path: tuple[str | int, ...]
    """The keys that lead to it through Dict and Tuple spaces."""
    entries: int
    """How many numbers or choices it holds."""
    width: int
    """How many numbers they become."""
    zeros: tuple[int, ...] | None = None
    """For choices: the column that stands for the choice 0, of each of them."""

    @property
    def name(self) -> str:
        return ".".join(map(str, self.path)) or "observation"

    def is_in(self, name: str) -> bool:
        """Whether this is the part called `name`, or lies in the Dict or Tuple called so."""
        return f"{self.name}.".startswith(f"{name}.")

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
        if self.zeros is None:
            return values.astype(np.float32)
        one_hots = np.zeros((count, self.width), np.float32)
        np.put_along_axis(one_hots, values.astype(np.int64) + self.zeros, 1.0, axis=1)
        return one_hots


def parts(space: Space, hidden: Sequence[str] = ()) -> tuple[Part, ...]:
    """The leaves of an observation space in its own order, without those that are `hidden`.

    Raises:
        FamilyError: a space that has no flat form, or nothing to hide of that name.
    """
    known = kept = tuple(_leaves(space, ()))
    for name in hidden:
        if not any(part.is_in(name) for part in known):
            hint = suggest(name, (part.name for part in known))
            raise FamilyError(f"hidden: there is no observation {name!r}; {hint}")
        kept = tuple(part for part in kept if not part.is_in(name))
    if not kept:
        raise FamilyError(f"hidden: nothing is left of the observation {space}")
    return kept


def _leaves(space: Space, path: tuple[str | int, ...]) -> Iterator[Part]:
    match space:
        case spaces.Dict():
            for key, child in space.spaces.items():
                yield from _leaves(child, (*path, key))
        case spaces.Tuple():
            for place, child in enumerate(space.spaces):
                yield from _leaves(child, (*path, place))
        case spaces.Box() | spaces.MultiBinary():
            size = spaces.flatdim(space)
            yield Part(path, size, size)
        case spaces.Discrete():
            yield Part(path, 1, int(space.n), (-int(space.start),))
        case spaces.MultiDiscrete():
            choices = space.nvec.ravel()
            first = np.cumsum(choices) - choices  # column of each one-hot's first choice
            zeros = first - space.start.ravel()
            yield Part(path, len(choices), int(choices.sum()), tuple(zeros.tolist()))
        case _:
            raise FamilyError(
                f"observation space {space} has no flat form; turn it into a Box with "
                "gymnasium.wrappers.TransformObservation"
            )


# -------------------------------------------------------------------------------------------------
# Actions


class Actions:
    """An action space: one of `width` choices, or `width` numbers in [−1, 1], which are rescaled.

    Raises:
        FamilyError: neither Discrete nor a bounded Box of floats.
    """

    def __init__(self, space: Space):
        if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
            if not space.is_bounded():
                raise FamilyError(
                    f"action space {space} has no bounds to rescale [−1, 1] to; set some with "
                    "gymnasium.wrappers.TransformAction(env, lambda action: action, a bounded Box)"
                )
            self._low = space.low.ravel().astype(np.float64)
            self._range = space.high.ravel().astype(np.float64) - self._low
        elif not isinstance(space, spaces.Discrete):
            raise FamilyError(
                f"action space {space}: Discrete and Box of floats are supported; "
                "offer one of them with a gymnasium.ActionWrapper"
            )
        self._space = space
        self.width = spaces.flatdim(space)
        self.discrete = isinstance(space, spaces.Discrete)

    def to_env(self, action: Array) -> Array:
        """`action` [L] int64 or [L, A] float32, clipped to [−1, 1] → [L, *shape] of the space."""
        space = self._space
        if isinstance(space, spaces.Discrete):
            return action + int(space.start)
        share = (np.clip(action, -1, 1).astype(np.float64) + 1) / 2
        rescaled = self._low + share * self._range
        return rescaled.astype(space.dtype).reshape(len(action), *space.shape)

    def per_lane(self, action: Array) -> list[Any]:
        """`to_env`, one by one: ints, or arrays of the space's shape."""
        values = self.to_env(action)
        return values.tolist() if self.discrete else list(values)

    def neutral(self, count: int) -> Array:
        """`count` valid actions [count] or [count, A]: the first choice, or the middle."""
        if self.discrete:
            return np.zeros(count, np.int64)
        return np.zeros((count, self.width), np.float32)


# -------------------------------------------------------------------------------------------------
# Both


@dataclass(frozen=True)
class Layout:
    """What metarl must know of an environment before it is stepped."""

    parts: tuple[Part, ...]
    actions: Actions
    horizon: int
    row: Array  # [P] float64: an example of a task
    renders: bool
    metrics: tuple[str, ...]
    """Entries of info."""
    has_success: bool = False

    @property
    def observation(self) -> dict[str, int]:
        """Width of each part, as in `Spec.observation`."""
        return {part.name: part.width for part in self.parts}

    def flat(self, observation: object, count: int) -> Array:
        """[count, O] float32, a new array, of one observation (count 1) or of a batch."""
        return np.concatenate([part.flat(observation, count) for part in self.parts], axis=1)
