"""Gymnasium's spaces as flat arrays. Imports no torch, so that worker processes stay light."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from metarl.core.arrays import numbers, short
from metarl.core.errors import FamilyError, suggest

Array = NDArray[Any]
Env = gymnasium.Env[Any, Any]
ManyEnvs = VectorEnv[Any, Any, Any]
Space = gymnasium.Space[Any]
Info = dict[str, Any]
Path = tuple[Any, ...]
"""The keys that lead to a part of an observation through Dict and Tuple spaces."""


class LaneError(FamilyError):
    """What is wrong in one lane."""

    def __init__(self, what: str, lane: int):
        super().__init__(what)
        self.lane = lane


_BRIGHTEST = 255
_MOST_CHANNELS = 4  # of an image that is no stack of several

# -------------------------------------------------------------------------------------------------
# Observations


@dataclass(frozen=True, eq=False)
class Choices:
    """That each of E numbers of a part is one of so many."""

    start: Array  # [E] int64: the smallest
    count: Array  # [E] uint64
    columns: Array | None  # [E] int64: where the one-hot of each begins; None: numbers as they are

    def places(self, values: Array) -> tuple[Array, Array]:
        """[count, E] int64, from 0, of `values` [count, E], and which of them are choices."""
        places = values - self.start
        if places.dtype == np.int64:
            return places, places.view(np.uint64) < self.count  # a negative one is very large
        valid = (places >= 0) & (places < self.count) & (places == np.floor(places))
        return np.where(valid, places, 0).astype(np.int64), valid


@dataclass(frozen=True, eq=False)
class Part:
    """A leaf of an observation space: numbers as they are, or choices as one-hots side by side.

    Images are given with their channels last.
    """

    name: str
    path: Path
    shape: tuple[int, ...]
    """As the space has it."""
    size: int
    """How many numbers or choices it holds."""
    width: int
    """How many numbers it becomes."""
    choices: Choices | None = None
    image: tuple[int, int, int] | None = None
    """Height, width and channels, of an image of bytes."""
    is_bytes: bool = False
    """Whether uint8 holds what it becomes."""
    in_info: bool = False
    """It stands in info, not in the observation."""

    @cached_property
    def _what(self) -> str:
        place = "info" if self.in_info else "observation"
        return f"{place} {self.name}" if self.path else self.name

    def flat(self, observation: Any, count: int, dtype: type[np.generic] = np.float32) -> Array:
        """[count, width], a new array, of one observation (count 1) or of a batch.

        Raises:
            FamilyError: the observation is not what its space says.
        """
        values = self._values(observation, count)
        choices = self.choices
        if choices is None:
            if self.is_bytes:
                self._require_bytes(values)
            return values.astype(dtype)
        places, valid = choices.places(values)
        if np.count_nonzero(valid) < valid.size:
            lane, entry = np.argwhere(~valid)[0]
            first, count = int(choices.start[entry]), int(choices.count[entry])
            raise LaneError(
                f"{self._what}: {values[lane, entry]} is outside its space, the whole numbers "
                f"from {first} to {first + count - 1}",
                int(lane),
            )
        if choices.columns is None:
            return values.astype(dtype)
        one_hots = np.zeros((count, self.width), dtype)
        columns = places + choices.columns
        if count == 1:
            one_hots[0, columns[0]] = 1
        else:
            one_hots[np.arange(count)[:, None], columns] = 1
        return one_hots

    def _values(self, observation: Any, count: int) -> Array:
        """[count, E], as the environment gives them."""
        for key in self.path:
            try:
                observation = observation[key]
            except (LookupError, TypeError):
                raise FamilyError(
                    f"{self._what}: there is no {key!r} in {short(observation)}"
                ) from None
        if self.in_info and isinstance(observation, tuple):  # a mask for each of several choices
            observation = np.hstack(observation)
        values = numbers(observation, self._what)
        shape = self.shape if count == 1 else (count, *self.shape)
        # Axes of one entry do not change the order of the others.
        if values.shape != shape and _longer(values.shape) != _longer(shape):
            raise FamilyError(
                f"{self._what} is of shape {list(values.shape)}; its space says {list(shape)}"
            )
        if self.image is not None and self.shape != self.image:  # channels first, or none
            values = np.moveaxis(values.reshape(count, *_channels_first(self.shape)), 1, -1)
        return values.reshape(count, self.size)

    def _require_bytes(self, values: Array) -> None:
        """Raises a LaneError at the first of `values` [count, E] that uint8 does not hold."""
        if values.dtype == np.uint8:
            return
        fits = (values >= 0) & (values <= _BRIGHTEST) & (values == np.floor(values))
        if fits.all():
            return
        lane, entry = np.argwhere(~fits)[0]
        raise LaneError(
            f"{self._what}: {values[lane, entry]} is outside its space, the whole numbers from 0 "
            f"to {_BRIGHTEST}",
            int(lane),
        )


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an image as [channels, height, width]."""
    return shape if len(shape) == 3 else (1, *shape)


def _image(space: spaces.Box) -> tuple[int, int, int] | None:
    """Height, width and channels, if these are the bytes of an image.

    Channels are last, or first where that axis is the shortest; a grey image may have none.
    """
    whole = space.dtype == np.uint8 and (space.low == 0).all() and (space.high == _BRIGHTEST).all()
    if not whole or len(space.shape) not in (2, 3) or not space.shape:
        return None
    height, width, channels = (*space.shape, 1)[:3]
    if channels > _MOST_CHANNELS and height < min(width, channels):
        return width, channels, height
    return height, width, channels


def _longer(shape: tuple[int, ...]) -> list[int]:
    """The axes that have not one entry."""
    return [length for length in shape if length != 1]


def parts(space: Space, hidden: Sequence[str] = ()) -> tuple[Part, ...]:
    """The leaves of an observation space in its own order, without those that are `hidden`.

    Raises:
        FamilyError: a space that has no flat form, two parts of one name, or nothing to hide of
            that name.
    """
    leaves = list(_leaves(space, ()))
    for name in hidden:
        if not any(_is_in(path, name) for path, _ in leaves):
            hint = suggest(name, (_name(path) for path, _ in leaves))
            raise FamilyError(f"hidden: there is no observation {name!r}; {hint}")
    shown = [
        (path, leaf) for path, leaf in leaves if not any(_is_in(path, name) for name in hidden)
    ]
    for name, count in Counter(_name(path) for path, _ in shown).items():
        if count > 1:
            raise FamilyError(f"{count} parts of the observation are called {name!r}; rename one")
    kept = tuple(_part(path, leaf) for path, leaf in shown)
    if not sum(part.width for part in kept):
        what = "hidden: nothing is left of" if hidden else "there is no number in"
        raise FamilyError(f"{what} the observation {space}")
    return kept


def _leaves(space: Space, path: Path) -> Iterator[tuple[Path, Space]]:
    children: Iterable[tuple[Any, Space]]
    match space:
        case spaces.Dict():
            children = space.spaces.items()
        case spaces.Tuple():
            children = enumerate(space.spaces)
        case _:
            yield path, space
            return
    for key, child in children:
        yield from _leaves(child, (*path, key))


def _name(path: Path) -> str:
    return ".".join(map(str, path)) or "observation"


def _is_in(path: Path, name: str) -> bool:
    """Whether a part is the one called `name`, or lies in the Dict or Tuple called so."""
    return f"{_name(path)}.".startswith(f"{name}.")


def _part(path: Path, space: Space) -> Part:
    name = _name(path)
    shape = space.shape or ()
    size = math.prod(shape)
    match space:
        case spaces.Box():
            image = _image(space)
            whole = space.dtype == np.uint8
            return Part(name, path, shape, size, size, image=image, is_bytes=whole)
        case spaces.MultiBinary():
            choices = Choices(np.zeros(size, np.int64), np.full(size, 2, np.uint64), None)
            return Part(name, path, shape, size, size, choices, is_bytes=True)
        case spaces.Discrete():
            start, count = np.array([space.start]), np.array([space.n])
        case spaces.MultiDiscrete():
            start, count = space.start.ravel(), space.nvec.ravel()
        case _:
            raise FamilyError(
                f"observation space {space} has no flat form; turn it into a Box with "
                "gymnasium.wrappers.TransformObservation, or hide it"
            )
    columns = np.cumsum(count, dtype=np.int64) - count.astype(np.int64)
    choices = Choices(start.astype(np.int64), count.astype(np.uint64), columns)
    return Part(name, path, shape, size, int(count.sum()), choices, is_bytes=True)


def mask_part(name: str, width: int) -> Part:
    """The entry of info that says which of `width` choices are valid."""
    choices = Choices(np.zeros(width, np.int64), np.full(width, 2, np.uint64), None)
    return Part(name, (name,), (width,), width, width, choices, is_bytes=True, in_info=True)


# -------------------------------------------------------------------------------------------------
# Actions


class Actions:
    """An action space: choices, or `width` numbers in [−1, 1], which are rescaled.

    Raises:
        FamilyError: neither Discrete, MultiDiscrete nor MultiBinary, nor a bounded Box of floats.
    """

    nvec: tuple[int, ...] = ()
    """Numbers of choices of MultiDiscrete and MultiBinary, `width` in all."""

    def __init__(self, space: Space):
        if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
            self._low, self._high = (
                bound.ravel().astype(np.float64) for bound in (space.low, space.high)
            )
            with np.errstate(all="ignore"):
                self._range = self._high - self._low
            if not np.isfinite(self._range).all():
                raise FamilyError(
                    f"action space {space} has no bounds to rescale [−1, 1] to; set some with "
                    "gymnasium.wrappers.TransformAction(env, lambda action: action, a bounded Box)"
                )
            if not self._range.size:
                raise FamilyError(f"action space {space} has no entries")
        elif isinstance(space, spaces.MultiDiscrete):
            self.nvec = tuple(space.nvec.ravel().tolist())
        elif isinstance(space, spaces.MultiBinary):
            self.nvec = (2,) * math.prod(space.shape)
        elif not isinstance(space, spaces.Discrete):
            raise FamilyError(
                f"action space {space}: Discrete, MultiDiscrete, MultiBinary and Box of floats are "
                "supported; offer one of them with a gymnasium.ActionWrapper"
            )
        self._space = space
        self.width = sum(self.nvec) or spaces.flatdim(space)
        self.discrete = not isinstance(space, spaces.Box)

    def to_env(self, action: Array) -> Array:
        """`action` [L] or [L, D] int64, or [L, A] float32, clipped to [−1, 1] → [L, *shape]."""
        space = self._space
        if isinstance(space, spaces.Discrete):
            return action + int(space.start)
        if isinstance(space, spaces.MultiDiscrete):
            chosen = action.reshape(len(action), *space.shape) + space.start
            return chosen.astype(space.dtype)
        if isinstance(space, spaces.MultiBinary):
            return action.reshape(len(action), *space.shape).astype(space.dtype)
        share = (np.clip(action, -1, 1).astype(np.float64) + 1) / 2
        rescaled = self._low + share * self._range
        rescaled = np.minimum(rescaled, self._high)  # which rounding may exceed
        return rescaled.astype(space.dtype).reshape(len(action), *space.shape)

    def per_lane(self, action: Array) -> list[Any]:
        """`to_env`, one by one: ints, or arrays of the space's shape."""
        values = self.to_env(action)
        return values.tolist() if isinstance(self._space, spaces.Discrete) else list(values)

    def neutral(self, count: int) -> Array:
        """`count` actions [count], [count, D] or [count, A]: the first choices, or the middle."""
        if self.nvec:
            return np.zeros((count, len(self.nvec)), np.int64)
        if self.discrete:
            return np.zeros(count, np.int64)
        return np.zeros((count, self.width), np.float32)


# -------------------------------------------------------------------------------------------------
# Both


@dataclass(frozen=True)
class Layout:
    """What metarl must know of an environment before it is stepped."""

    name: str  # of the family
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

    @property
    def images(self) -> dict[str, tuple[int, int, int]]:
        """As in `Spec.images`."""
        return {part.name: part.image for part in self.parts if part.image is not None}

    @cached_property
    def dtype(self) -> type[np.generic]:
        """Of observations: uint8 where there is an image, and bytes beside it at most."""
        return np.uint8 if self.images and all(part.is_bytes for part in self.parts) else np.float32

    def flat(self, observation: object, count: int, info: Info | None = None) -> Array:
        """[count, O], a new array, of one observation (count 1) with its info, or of a batch."""
        flats = [
            part.flat(info if part.in_info else observation, count, self.dtype)
            for part in self.parts
        ]
        return flats[0] if len(flats) == 1 else np.concatenate(flats, axis=1)
