"""What curves of runs share: lines with bands, their tables, and the words around them.

The runs of one configuration are one curve. Beside every picture a table (.csv) holds what is drawn
in it, number by number.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from metarl.config.files import load_config
from metarl.config.schema import Choice, Config
from metarl.core.disk import write_atomically
from metarl.core.errors import CheckpointError, ConfigError, suggest
from metarl.evaluation.stats import Array

FORMATS = ("png", "svg", "pdf")

UNITS = {
    "env_steps": "environment steps",
    "minutes": "minutes of training",
    "iterations": "iterations",
}
_FEW = 30  # points that are marked one by one


@dataclass(frozen=True)
class Curve:
    """A line of P points, and its band if it has one: a row of the table a point."""

    quantity: str
    group: str
    x: Array  # [P]
    mean: Array  # [P]
    low: Array | None = None  # [P]
    high: Array | None = None  # [P]
    runs: int | None = None
    """None: unknown."""


def check_formats(text: str) -> list[str]:
    """The formats named in `text`, such as ``png,svg``.

    Raises:
        ConfigError: one that is none of `FORMATS`.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in FORMATS:
            raise ConfigError(f"format {name!r}: {suggest(name, FORMATS)}")
    return list(dict.fromkeys(names))


def write_table(curves: Sequence[Curve], x: str, out: Path) -> Path:
    """A row a point, in the columns quantity, group, `x`, mean, low, high and runs → `out`.

    What is unknown is empty.
    """
    content = io.StringIO()
    table = csv.writer(content, lineterminator="\n")
    table.writerow(["quantity", "group", x, "mean", "low", "high", "runs"])
    for curve in curves:
        empty = [None] * len(curve.x)
        low, high = (empty if end is None else end.tolist() for end in (curve.low, curve.high))
        for point in zip(curve.x.tolist(), curve.mean.tolist(), low, high, strict=True):
            table.writerow([curve.quantity, curve.group, *point, curve.runs])
    write_atomically(out, content.getvalue().encode())
    return out


def draw_curve(
    axes: Axes,
    curve: Curve,
    color: str,
    divisor: float,
    label: str | None,
    **look: Any,
) -> None:
    """With its band; few points are marked. `look` is that of the line."""
    x = curve.x / divisor
    marker = "." if len(x) < _FEW else None
    axes.plot(x, curve.mean, color=color, marker=marker, label=label, **look)
    if curve.low is None or curve.high is None:
        return
    if len(x) == 1:
        axes.vlines(x, curve.low, curve.high, color=color, alpha=0.4, linewidth=3)
        return
    axes.fill_between(
        x,
        curve.low,
        curve.high,
        color=color,
        alpha=0.2,
        linewidth=0,
    )


def counted(label: str, points: int, runs: int | None) -> str:
    """The name of a curve and of how many runs it is."""
    if runs is None:
        return label
    if not points:
        return f"{label}: {runs} runs that have no x in common, so no mean"
    return f"{label}: {runs} {'run' if runs == 1 else 'runs'}"


def named(choice: Choice) -> str:
    """The name, and the variant if it is not the default one."""
    name = choice.name.rpartition(":")[2]
    fields = type(choice.settings).model_fields
    if "variant" not in fields:
        return name
    variant = choice.settings.model_dump()["variant"]
    return name if variant == fields["variant"].default else f"{name} ({variant})"


def join(words: Iterable[str]) -> str:
    """Each once."""
    return ", ".join(dict.fromkeys(words))


def axis_scale(x: str, top: float) -> tuple[float, str]:
    """The divisor of an axis up to `top`, and how to call it."""
    if x == "minutes" or top < 1e4:
        return 1, ""
    return (1e6, " (millions)") if top >= 1e6 else (1e3, " (thousands)")


def read_config(folder: Path) -> Config:
    """The configuration of the run in `folder`.

    Raises:
        MetaRLError: there is none that can be read.
    """
    if folder.is_file():
        raise CheckpointError(f"{folder} is a checkpoint: name its run folder")
    return load_config(folder / "config.yaml", code=False)
