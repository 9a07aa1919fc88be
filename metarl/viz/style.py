"""What all pictures share: how a figure becomes a file, how its axes look, which of many panels it shows, which colour is
which option."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metarl.experiments.checkpoints import write_atomically

_OPTIONS = np.array(
    [
        to_rgb(color)
        for color in (
            "#3a78c2",
            "#e8863a",
            "#9a5bb8",
            "#cf3a55",
            "#38b6b0",
            "#cdbb22",
            "#ee8fc4",
            "#7d5a45",
        )
    ]
)  # apart from the goal's green and the walls' grey


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


def option_colors(options: NDArray[np.int64]) -> NDArray[np.float64]:
    """options [...] → [..., 3]: the same colour in every picture; after eight they return."""
    colors: NDArray[np.float64] = _OPTIONS[options % len(_OPTIONS)]
    return colors


def spread(count: int, most: int) -> list[int]:
    """At most `most` of 0 … count − 1, evenly spread, with the first and the last."""
    return [round(x) for x in np.linspace(0, count - 1, min(count, most))]


def save(figure: Figure, out: Path) -> Path:
    """The figure as a .png at `out`, whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomically(out, picture.getvalue())
    return out
