"""What a user's environment is asked to do, and what it may answer.

Imports no torch, so that worker processes stay light.
"""

from typing import Any

import numpy as np

from metarl.adapters.from_gymnasium.spaces import Array, Info, LaneError
from metarl.core.arrays import LARGEST, flag, numbers, short, single
from metarl.core.errors import FamilyError, MetaRLError, one_line

NAMES = ("", "build", "apply", "reset", "step", "success", "render")
_NOTHING, BUILD, APPLY, RESET, STEP, SUCCESS, RENDER = range(len(NAMES))
EVERY_LANE = -1
Note = list[int] | memoryview


class CallError(FamilyError):
    """What came of a call of a user's code, in one lane, or in all of them together."""

    def __init__(self, what: str, call: str, lane: int):
        super().__init__(what)
        self.call = call
        self.lane = lane

    def told(self, family: str, place: str = "") -> FamilyError:
        """The line for the user; the call is empty where it was no call that went wrong."""
        call = f"{self.call}{place}: " if self.call else ""
        return FamilyError(f"{family}: {call}{self}")


class Calls:
    """A note of the call that is made now, which another process can read if it never ends.

    Within ``with calls as note``, ``note[0]`` is a place in `NAMES`, ``note[1]`` a lane, and what
    is raised becomes a CallError. KeyboardInterrupt and SystemExit pass.
    """

    def __init__(self, note: Note | None = None):
        self._note: Note = [_NOTHING, 0] if note is None else note

    def __enter__(self) -> Note:
        return self._note

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        call, lane = self._note
        self._note[0] = _NOTHING
        if not isinstance(error, Exception) or isinstance(error, CallError):
            return
        if lane == EVERY_LANE and isinstance(error, LaneError):
            lane = error.lane
        what = one_line(error)
        cause: BaseException = error
        if isinstance(error, MetaRLError):
            what, cause = " ".join(str(error).split()), error.__cause__ or error
        raise CallError(what, NAMES[call], lane) from cause


# -------------------------------------------------------------------------------------------------
# One environment


def first(given: Any) -> tuple[Any, Info]:
    """What reset gives: the observation, and info.

    Raises:
        FamilyError: it gives something else than (observation, info).
    """
    if not isinstance(given, tuple | list) or len(given) != 2 or not isinstance(given[1], dict):
        raise FamilyError(f"it gives {short(given)}; Gymnasium's gives (observation, info)")
    obs, info = given
    return obs, info


def stepped(given: Any) -> tuple[Any, float, bool, bool, Info]:
    """What step gives, with a number and truth values as Python's.

    Raises:
        FamilyError: it gives something else than five values of the right types.
    """
    obs, reward, terminated, truncated, info = five(given)
    # What most environments give is looked at here: a call for each would cost more.
    if type(reward) is not float or not -LARGEST <= reward <= LARGEST:
        reward = single(reward, "the reward")
    if type(terminated) is not bool:
        terminated = flag(terminated, "terminated")
    if type(truncated) is not bool:
        truncated = flag(truncated, "truncated")
    return obs, reward, terminated, truncated, info


def five(given: Any) -> tuple[Any, Any, Any, Any, Info]:
    """The five values of a step, the last one a dict.

    Raises:
        FamilyError: there are not five, or info is something else.
    """
    if not isinstance(given, tuple | list) or len(given) != 5:
        count = f"{len(given)} values" if isinstance(given, tuple | list) else short(given)
        raise FamilyError(
            f"it gives {count}; Gymnasium's gives five, (observation, reward, terminated, "
            "truncated, info), and gym's old API gave four: split done into the first two flags"
        )
    if not isinstance(given[4], dict):
        raise FamilyError(f"info is {short(given[4])}, not a dict")
    obs, reward, terminated, truncated, info = given
    return obs, reward, terminated, truncated, info


# -------------------------------------------------------------------------------------------------
# Many of them


def each(x: object, count: int, what: str) -> Array:
    """[count] finite float32, one number for each lane.

    Raises:
        LaneError: one is not finite.
        FamilyError: there are not so many numbers.
    """
    values = numbers(x, what)
    if values.size != count:
        raise FamilyError(f"{what} is of shape {list(values.shape)}; give [{count}]")
    values = values.reshape(count)
    fits = np.abs(values) <= LARGEST
    if not fits.all():
        lane = int(np.argmin(fits))
        raise LaneError(f"{what} is {values[lane]}, not one finite number", lane)
    return values.astype(np.float32)


def flags(x: object, count: int, what: str) -> Array:
    """[count] bool, a new array: truth values, or 0 and 1.

    Raises:
        LaneError: one is neither.
        FamilyError: there are not so many.
    """
    values = each(x, count, what)
    fits = (values == 0) | (values == 1)
    if not fits.all():
        lane = int(np.argmin(fits))
        raise LaneError(f"{what} is {values[lane]}, neither True nor False", lane)
    return values.astype(bool)
