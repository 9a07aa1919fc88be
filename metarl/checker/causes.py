"""Why the same code gives another result when it runs again: its first suspect."""

from __future__ import annotations

import pickle
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from inspect import getattr_static
from types import FunctionType, ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.checker.rules import CheckFailed
from metarl.checker.values import difference
from metarl.core.errors import is_of_user
from metarl.core.rng import seeding_globals

Run = Callable[[], object]
"""Gives a tree of tensors."""

_GENERATORS: dict[str, Callable[[int], object]] = {
    "torch's global generator (torch.rand and the like)": torch.manual_seed,
    "NumPy's global generator (np.random.rand and the like)": np.random.seed,
    "Python's global generator (random.random and the like)": random.seed,
}
_CLOCKS = ("time", "monotonic", "perf_counter")
_DEEPEST = 6  # attributes of attributes of … that are looked through
_WIDEST = 2000  # of one depth
_NO_CLOCK = "count the steps; a result must not depend on the hour or on the speed of the machine"
_OF_ENV = "keep it on the environment, and set it in every reset"


def require_repeated(one: object, other: object, what: str, run: Run, *about: object) -> None:
    """Raises CheckFailed, beginning with `what`, if two trees differ; names the cause if it can.

    Args:
        run: gives such a tree again.
        about: objects through whose attributes everything is reached that `run` may change.
    """
    differs = difference(one, other)
    if differs is None:
        return
    observed = f"{what}; {differs}"
    drawn = _drawn(run)
    if drawn:
        raise CheckFailed(observed, " and ".join(drawn))
    clocks = _clocks(run)
    if clocks:
        raise CheckFailed(observed, f"the clock: it reads {', '.join(clocks)}", _NO_CLOCK)
    kept = _kept(run, about)
    if kept:
        raise CheckFailed(observed, f"{' and '.join(kept)}: it outlives the environment", _OF_ENV)
    raise CheckFailed(observed, "a generator that the seed does not reach, or the clock")


# -------------------------------------------------------------------------------------------------
# Global generators


def _drawn(run: Run) -> list[str]:
    """The global generators that decide what `run` gives, if nothing else does."""

    def seeded(reseed: Callable[[int], object] = lambda seed: None) -> object:
        with seeding_globals(1):
            reseed(2)
            return run()

    first = seeded()
    if difference(first, seeded()):
        return []
    return [name for name, reseed in _GENERATORS.items() if difference(first, seeded(reseed))]


# -------------------------------------------------------------------------------------------------
# Clocks


def _clocks(run: Run) -> list[str]:
    """What is read of the clock, with the line, if `run` is the same where clocks are."""
    read: dict[str, None] = {}
    with _ticking(read):
        first = run()
    with _ticking(read):
        second = run()
    return list(read) if difference(first, second) is None else []


@contextmanager
def _ticking(read: dict[str, None]) -> Iterator[None]:
    """Within, clocks go from 0 on by a millisecond whenever the user's code reads one."""
    count = 0

    def replaced(name: str, genuine: Callable[[], float]) -> Callable[[], float]:
        def tick() -> float:
            nonlocal count
            frame = sys._getframe(1)
            if not is_of_user(frame.f_code.co_filename):
                return genuine()
            count += 1
            read[f"time.{name}"] = None
            return count / 1000

        return tick

    genuine = {name: getattr(time, name) for name in _CLOCKS}
    try:
        for name, clock in genuine.items():
            setattr(time, name, replaced(name, clock))
        yield
    finally:
        for name, clock in genuine.items():
            setattr(time, name, clock)


# -------------------------------------------------------------------------------------------------
# What outlives an environment


class _Place(NamedTuple):
    """Where the user's code may keep something that no new environment begins with anew."""

    name: str
    owner: object
    attribute: str

    def pickled(self) -> bytes | None:
        """The value, to be compared and restored; of what has no such form, None."""
        with suppress(Exception):
            return pickle.dumps(getattr(self.owner, self.attribute))
        return None

    def restore(self, pickled: bytes) -> None:
        """Set it to what was pickled, in what is frozen, too."""
        write = type.__setattr__ if isinstance(self.owner, type) else object.__setattr__
        write(self.owner, self.attribute, pickle.loads(pickled))  # noqa: S301  (ours)


def _kept(run: Run, about: tuple[object, ...]) -> list[str]:
    """The names of what `run` changes, if it gives the same as before where that is undone."""
    run()  # caches are filled
    before = [(place, place.pickled()) for place in _places(about)]
    first = run()
    changed = [(place, value) for place, value in before if value and place.pickled() != value]
    for place, value in changed:
        place.restore(value)
    same = changed and difference(first, run()) is None
    return [place.name for place, _ in changed] if same else []


def _places(about: tuple[object, ...]) -> Iterator[_Place]:
    """Attributes of the first object `about`, and of the user's classes that are reached from all:
    theirs, their modules' and their methods' defaults."""
    yield from _data("attribute of the family", about[0])
    classes = _classes(about)
    for module in dict.fromkeys(sys.modules[cls.__module__] for cls in classes):
        yield from _data("global variable", module)
    for cls in classes:
        yield from _data(f"class attribute of {cls.__name__}", cls)
        for method in vars(cls).values():
            if isinstance(method, FunctionType):
                name = f"default argument of {cls.__name__}.{method.__name__}"
                yield _Place(name, method, "__defaults__")


def _data(kind: str, owner: object) -> Iterator[_Place]:
    """What `owner` itself holds that is neither code nor found from other attributes."""
    code = (type, ModuleType, FunctionType, property, classmethod, staticmethod)
    for name, value in getattr(owner, "__dict__", {}).items():
        derived = isinstance(getattr_static(type(owner), name, None), cached_property)
        if not (name.startswith("__") or isinstance(value, code) or derived):
            yield _Place(f"{name}, {kind}", owner, name)


def _classes(about: tuple[object, ...]) -> list[type]:
    """The user's classes of objects that are reached."""
    found: dict[type, None] = {}
    known: set[int] = set()
    layer = list(about)
    for _ in range(_DEEPEST):
        below: list[object] = []
        for thing in layer:
            if id(thing) not in known:
                known.add(id(thing))
                found |= dict.fromkeys(filter(_of_user, type(thing).__mro__))
                below += _parts(thing).values()
        layer = below[:_WIDEST]
    return list(found)


def _parts(thing: object) -> dict[object, object]:
    """What a container or an object holds, by key, place or attribute."""
    if isinstance(thing, dict):
        return thing
    if isinstance(thing, list | tuple):
        return dict(enumerate(thing))
    return dict(getattr(thing, "__dict__", {}))


def left_over(used: object, fresh: object) -> list[str]:
    """Attributes of the user's objects by which two environments that were reset alike differ."""
    found: dict[str, None] = {}
    known: set[int] = set()
    layer: list[tuple[object, object]] = [(used, fresh)]
    for _ in range(_DEEPEST):
        below: list[tuple[object, object]] = []
        for one, other in layer:
            if type(one) is not type(other) or id(one) in known:
                continue
            known.add(id(one))
            parts = _parts(other)
            below += [(part, parts.get(key)) for key, part in _parts(one).items()]
            if _of_user(type(one)):
                found |= dict.fromkeys(_differing(one, other))
        layer = below[:_WIDEST]
    return list(found)


def _differing(one: object, other: object) -> Iterator[str]:
    """The names of attributes that are data and differ."""
    for name, value in getattr(one, "__dict__", {}).items():
        before = vars(other).get(name)
        same = True
        with suppress(Exception):  # what cannot be compared
            if isinstance(value, np.ndarray):
                same = isinstance(before, np.ndarray) and np.array_equal(value, before)
            elif isinstance(value, Tensor | np.generic | int | float | str | list | dict):
                same = difference(value, before) is None
        if not same:
            yield f"{type(one).__name__}.{name}"


def _of_user(cls: type) -> bool:
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return file is not None and is_of_user(file)
