"""Numbers that strangers give: arrays, single ones, truth values.

Imports no torch, so that worker processes stay light.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.core.errors import MetaRLError, shown

LARGEST = float(np.finfo(np.float32).max)


def short(x: object) -> str:
    """`x` on one line, in at most 60 characters."""
    try:
        text = str(x.item()) if isinstance(x, np.generic) else repr(x)
    except Exception:  # a stranger's object
        text = type(x).__name__
    return shown(" ".join(text.split()), 60)


def numbers(x: object, what: str, error: type[MetaRLError] = MetaRLError) -> NDArray[Any]:
    """`x` as an array of real numbers.

    Raises:
        error: `what`, which `x` is, is something else.
    """
    try:
        values = np.asarray(x)
    except Exception as cause:  # ragged lists, tensors with gradients, or whatever __array__ raises
        raise error(f"{what} is {short(x)}, not an array of numbers") from cause
    if values.dtype.kind not in "fiub":
        raise error(f"{what} is {short(x)} ({values.dtype}), not real numbers")
    return values


def single(x: object, what: str) -> float:
    """`x`, a number or an array of one, which float32 can hold.

    Raises:
        MetaRLError: `what`, which `x` is, is something else.
    """
    if isinstance(x, float) and -LARGEST <= x <= LARGEST:  # as most give it
        return float(x)
    values = numbers(x, what)
    if values.size == 1:
        value = float(values.item())
        if abs(value) <= LARGEST:
            return value
    raise MetaRLError(f"{what} is {short(x)}, not one finite number")


def flag(x: object, what: str) -> bool:
    """`x`, a truth value, 0 or 1, or an array of one.

    Raises:
        MetaRLError: `what`, which `x` is, is something else.
    """
    if x is True or x is False:
        return x
    values = numbers(x, what)
    if values.size == 1 and values.item() in (0, 1):
        return bool(values.item())
    raise MetaRLError(f"{what} is {short(x)}, neither True nor False")


def float32(x: object, what: str) -> NDArray[np.float32]:
    """`x` as a new array of finite float32.

    Raises:
        MetaRLError: `what`, which `x` is, is something else.
    """
    with np.errstate(over="ignore"):  # the infinity is told
        values = numbers(x, what).astype(np.float32)
    if not np.isfinite(values).all():
        raise MetaRLError(f"{what} is not finite: {short(x)}")
    return values
