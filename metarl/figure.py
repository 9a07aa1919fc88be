"""What all pictures share: how a figure becomes a file, how its axes look, which of many panels it shows."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarl.checkpoint import write_atomically


def plain() -> tuple[Figure, Any]:
    """A figure of one panel, and its axes."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    return figure, axes


def quiet(axes: Axes) -> None:
    """Frame, ticks and grid step back behind what is drawn."""
    axes.spines[:].set_color("0.8")
    axes.tick_params(color="0.8", labelcolor="0.4", labelsize="small")
    axes.set_axisbelow(True)
    axes.grid(alpha=0.3)


def spread(count: int, most: int) -> list[int]:
    """At most `most` of 0 … count − 1, evenly spread, with the first and the last."""
    return [round(x) for x in np.linspace(0, count - 1, min(count, most))]


def save(figure: Figure, out: Path) -> Path:
    """The figure as a .png at `out`, whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomically(out, picture.getvalue())
    return out
