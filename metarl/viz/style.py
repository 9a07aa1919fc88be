"""What all pictures share: panels, colors and files."""

import io
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.typing import ColorType
from numpy.typing import NDArray

from metarl.core.disk import write_atomically
from metarl.core.errors import ConfigError
from metarl.evaluation.stats import Array

Ints = NDArray[np.int64]

_HEX = ["#3a78c2", "#e8863a", "#9a5bb8", "#cf3a55", "#38b6b0", "#cdbb22", "#ee8fc4", "#7d5a45"]
_OPTION_COLORS = to_rgba_array(_HEX)[:, :3]
"""None is close to the green of goals or the gray of walls."""


FOOT: dict[str, Any] = {
    "loc": "outside lower center",
    "ncols": 4,
    "frameon": False,
    "fontsize": "small",
}
"""The keywords of a legend below the picture."""


def create_axes(count: int) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels over a common x, in two rows if they are more than two."""
    rows = 1 if count <= 2 else 2
    columns = ceil(count / rows)
    figure = Figure((3 + 5 * columns, 5 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, sharex=True, squeeze=False).flat)
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[:count]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.tick_params(labelbottom=True)
    return figure, panels[:count]


def create_panels(
    count: int,
    width: float,
    height: float,
    margins: tuple[float, float],
) -> tuple[Figure, NDArray[np.object_]]:
    """A figure, and the axes of `count` panels with the same limits, in two rows if many.

    All sizes are in inches; `margins` are those of the figure, horizontal and vertical.
    """
    rows = 1 if count <= 4 else 2
    columns = ceil(count / rows)
    size = (columns * width + margins[0], rows * height + margins[1])
    figure = Figure(size, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def mute(axes: Axes) -> None:
    """Draw the frame, ticks and grid in gray behind the data."""
    axes.spines[:].set_color("0.8")
    axes.tick_params(color="0.8", labelcolor="0.4", labelsize="small")
    axes.set_axisbelow(True)
    axes.grid(alpha=0.3)


def mark(
    label: str,
    marker: str,
    size: int,
    color: ColorType,
    edge: str | None = None,
) -> dict[str, Any]:
    """The keywords of a Line2D that is a mark without a line."""
    return {
        "label": label,
        "linestyle": "",
        "marker": marker,
        "markersize": size,
        "color": color,
        "markeredgecolor": edge,
    }


def option_colors(options: Ints) -> Array:
    """options [...] → [..., 3]: the same in every picture; there are eight."""
    return _OPTION_COLORS[options % len(_OPTION_COLORS)]


def mix_with_white(colors: Array, strength: Array) -> Array:
    """[C, 3]: white at `strength` [C] 0, `colors` at 1."""
    return 1 - strength[:, None] * (1 - colors)


def pick_evenly(count: int, most: int) -> list[int]:
    """At most `most` of 0 … count − 1, evenly spaced, the first and the last among them."""
    return [round(x) for x in np.linspace(0, count - 1, min(count, most))]


def check_path(out: Path, *suffixes: str) -> None:
    """Raises a ConfigError if `out` has none of the `suffixes`, or no folder."""
    if out.suffix not in suffixes:
        raise ConfigError(f"{out}: its name must end in {' or '.join(suffixes)}")
    if not out.parent.is_dir():
        raise ConfigError(f"{out} cannot be written: there is no folder {out.parent}")


def save(figure: Figure, out: Path) -> Path:
    """Write the figure to `out`, .png, .svg or .pdf; until it is complete, an old file stays."""
    write_atomically(out, figure_bytes(figure, out.suffix[1:]))
    return out


def figure_bytes(figure: Figure, suffix: str, transparent: bool = False) -> bytes:
    """The figure as a file: text remains text, and the same figure gives the same bytes."""
    dated = {"svg": "Date", "pdf": "CreationDate"}.get(suffix)
    metadata = {dated: None} if dated else None
    content = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "metarl", "pdf.fonttype": 42}):
        figure.savefig(content, format=suffix, dpi=150, metadata=metadata, transparent=transparent)
    return content.getvalue()
