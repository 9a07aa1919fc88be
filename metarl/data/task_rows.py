"""Task rows of a user's own, from a file."""

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.core.arrays import numbers
from metarl.core.errors import ConfigError
from metarl.core.types import Tasks


def which_tasks(text: str, split: str) -> int | Tasks:
    """A number of tasks of `split`, or those of the file `text`.

    Raises:
        ConfigError: fewer than two, or an error of `read_tasks`.
    """
    tasks: int | Tasks
    if text.isdecimal() and len(text) < 10:
        tasks = count = int(text)
    else:
        tasks = read_tasks(text, split)
        count = len(tasks)
    if count < 2:
        raise ConfigError(f"tasks: {text} has fewer than 2; scores need several")
    return tasks


def read_tasks(path: str | Path, split: str = "test") -> Tasks:
    """The tasks of a file, a row each: .csv (numbers with commas, # comments) or .npy [N, P].

    Raises:
        ConfigError: no such file, or no finite numbers in rows of one width.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            rows = np.load(file) if path.suffix == ".npy" else _read_csv(file)
        with np.errstate(over="ignore"):  # an infinity is told
            params = torch.as_tensor(numbers(rows, "it").astype(np.float32))
    except (OSError, EOFError, MemoryError) as error:
        raise ConfigError(f"tasks: {path} cannot be read: {_line(error)}") from error
    except Exception as error:  # whatever NumPy raises where the bytes are no table
        raise ConfigError(f"tasks: {path}: {_line(error)}") from error
    if params.dim() != 2 or not params.numel() or not params.isfinite().all():
        raise ConfigError(
            f"tasks: {path} has numbers of shape {list(params.shape)}; "
            "give finite numbers, a row for each task"
        )
    return Tasks.numbered(params, split)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _read_csv(file: BinaryIO) -> NDArray[np.float64]:
    with warnings.catch_warnings(action="ignore"):  # of an empty file: the error says it
        return np.loadtxt(file, delimiter=",", ndmin=2, encoding="utf-8-sig")
