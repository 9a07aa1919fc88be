"""A picture of which option acts where, and where it goes from there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from metarl.core.errors import MetaRLError
from metarl.core.family import Family
from metarl.evaluation.option_usage import Moves, Usage
from metarl.evaluation.stats import Array
from metarl.viz.scene import draw_ground, limits
from metarl.viz.style import option_colors, save

_PANELS = 8  # the most options in one picture
_ACROSS = 15  # about how many cells the longer side has where places are anywhere
_FEW = 3  # the least steps whose mean is drawn
_RING, _SHAFT = 0.5, 0.09  # in widths of a cell: the largest ring, and the shaft of a needle
_LATTICE = 25  # the most different coordinates of places that stand on a lattice


@dataclass(frozen=True)
class Lattice:
    """Square cells that cover the plane."""

    corner: Array  # [2] left and lower edge of a cell
    width: float

    def cells(self, places: Array) -> NDArray[np.int64]:
        """places [S, 2] → the column and row [S, 2] of the cell that each is in."""
        found: NDArray[np.int64] = np.floor((places - self.corner) / self.width).astype(np.int64)
        return found

    def centres(self, cells: NDArray[np.int64]) -> Array:
        """[C, 2]"""
        middle: Array = self.corner + (cells + 0.5) * self.width
        return middle


@dataclass(frozen=True)
class Cells:
    """What one option does in the C cells where it acts."""

    centre: Array  # [C, 2]
    steps: NDArray[np.int64]  # [C] how many it took there
    begun: NDArray[np.int64]  # [C] how many of them were its first
    move: Array  # [C, 2] mean displacement of a step

    @property
    def often(self) -> NDArray[np.bool_]:
        """[C]: it acts here often enough for a mean."""
        return self.steps >= _FEW


def lattice(moves: Moves) -> Lattice:
    """That on which all places stand in the middle of a cell, or else about 15 cells a side, aligned with the ground."""
    places = np.unique(np.concatenate([moves.before, moves.after]).round(6), axis=0)
    sides = [np.unique(side) for side in places.T]
    gaps = np.concatenate([np.diff(side) for side in sides])
    if len(gaps) and max(map(len, sides)) <= _LATTICE:
        width = gaps.min()
        if np.allclose(gaps / width, np.round(gaps / width), atol=1e-3):
            return Lattice(places.min(0) - width / 2, float(width))
    left, right, bottom, top = limits([moves.ground])
    longer = max(right - left, top - bottom)
    whole = (
        float(longer).is_integer() and longer <= _ACROSS
    )  # so may the walls be, and cells shall not cut them
    return Lattice(
        np.array([left, bottom]), 1 / round(_ACROSS / longer) if whole else longer / _ACROSS
    )


def cells_of(moves: Moves, option: int, on: Lattice) -> Cells:
    """Steps count in the cell that they begin in."""
    mine = moves.option == option
    cells, which = np.unique(on.cells(moves.before[mine]), axis=0, return_inverse=True)
    which = which.ravel()
    steps = np.bincount(which, minlength=len(cells))
    gone = (moves.after - moves.before)[mine]
    move = np.stack(
        [np.bincount(which, weights=side, minlength=len(cells)) for side in gone.T], axis=-1
    )
    begun = np.bincount(which[moves.begins[mine]], minlength=len(cells))
    return Cells(on.centres(cells), steps, begun, move / steps[:, None])


def check_drawable(family: Family, out: Path) -> None:
    """Raises a MetaRLError where the options of agents on `family` cannot be drawn to `out`."""
    if not hasattr(family, "scene"):
        raise MetaRLError(
            f"{family.spec.name} offers no scene to draw options in: leave out --out, or give the family scene(params, obs)"
        )
    if out.suffix != ".png":
        raise MetaRLError(f"{out}: the name of a picture ends in .png")
    if not out.parent.is_dir():
        raise MetaRLError(f"{out} cannot be written: there is no folder {out.parent}")


def option_picture(usage: Usage, out: Path) -> Path:
    """A panel an option → a picture at `out`; of more than eight the most used.

    A cell has the option's colour, the stronger the more steps it took there, by the same measure in all panels. The needle
    in it is their mean displacement, where they are three or more, and its ring is the larger the more of them were the
    first of a stretch.
    """
    moves = usage.moves
    assert moves is not None
    shown = sorted(np.argsort(-usage.shares, kind="stable")[:_PANELS].tolist())
    on, edges = lattice(moves), limits([moves.ground])
    parts = [cells_of(moves, option, on) for option in shown]
    most = max(part.steps.max(initial=1) for part in parts)
    longest = max(
        float(np.linalg.norm(part.move[part.often], axis=1).max(initial=0)) for part in parts
    )
    figure, grid = _grid(len(shown), (edges[3] - edges[2]) / (edges[1] - edges[0]))
    for axes, option, part in zip(grid, shown, parts, strict=False):
        draw_ground(axes, moves.ground, edges)
        axes.grid(visible=False)
        color = option_colors(np.array(option))
        _draw_cells(axes, part, on.width, color, np.sqrt(part.steps / most))
        _draw_moves(axes, part, on.width, 0.4 * color, max(longest, np.finfo(float).tiny))
        axes.set_title(_caption(usage, option), loc="left", fontsize="medium")
    _legend(figure, longest, beside=min(len(shown), 4) > 2)
    figure.suptitle(usage.title, fontsize="large")
    return save(figure, out)


def _caption(usage: Usage, option: int) -> str:
    if not usage.begun[option]:
        return f"option {option}: never ran"
    return f"option {option}: {100 * usage.shares[option]:.0f} % of steps, {usage.durations[option]:.1f} at a time"


def _draw_cells(axes: Axes, cells: Cells, width: float, color: Array, strength: Array) -> None:
    """Squares; `strength` [C] from 0 to 1."""
    corners = width / 2 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    squares = cells.centre[:, None] + corners
    shades = 1 - (0.08 + 0.92 * strength[:, None]) * (1 - color)
    axes.add_collection(
        PolyCollection(
            list(squares), facecolors=shades, edgecolors="white", linewidths=0.4, zorder=1
        )
    )


def _draw_moves(axes: Axes, cells: Cells, width: float, color: Array, longest: float) -> None:
    """Needles from the middles of the cells, half a cell long where a mean step goes as far as `longest`."""
    sizes = _RING * width * np.sqrt(cells.begun / cells.steps) * cells.often
    rings = EllipseCollection(
        sizes, sizes, 0 * sizes, units="xy", offsets=cells.centre, offset_transform=axes.transData,
        facecolors="white", edgecolors=[color], linewidths=0.7 * (sizes > 0), zorder=2,
    )  # fmt: skip
    axes.add_collection(rings)
    needles = 0.5 * width * cells.move / longest * cells.often[:, None]
    axes.quiver(
        *cells.centre.T, *needles.T, color=[color], angles="xy", scale_units="xy", scale=1, units="xy",
        width=_SHAFT * width, headwidth=3.5, headlength=3.5, headaxislength=3.2, minlength=0, minshaft=1.2, zorder=2.1,
    )  # fmt: skip


def _legend(figure: Figure, longest: float, beside: bool) -> None:
    """What cells, needles and rings mean, below the picture, `beside` each other or not."""
    move = f"mean move of a step, at most {longest:.2g}"
    ring: dict[str, Any] = {
        "marker": "o",
        "markersize": 7,
        "color": "white",
        "markeredgecolor": "0.2",
    }
    handles = [
        Patch(facecolor="0.65", label="where it acts: the stronger, the more often"),
        Line2D(
            [],
            [],
            linestyle="",
            marker=r"$\longrightarrow$",
            markersize=16,
            color="0.2",
            label=move,
        ),
        Line2D(
            [], [], linestyle="", **ring, label="where it begins: the larger, the more of its steps"
        ),
    ]
    columns = len(handles) if beside else 1
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize="small",
        handlelength=1.6,
    )


def _grid(count: int, height: float) -> tuple[Figure, NDArray[np.object_]]:
    """Panels for `count` options, each `height` times as high as wide, and room for the legend."""
    rows = 1 if count <= 4 else 2
    columns, width = -(-count // rows), 3.4
    size = (
        max(columns * (width + 0.1) + 0.4, 4.2),
        rows * (height * width + 0.35) + (1.0 if columns > 2 else 1.4),
    )
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes in grid[count:]:
        axes.remove()
    return figure, grid
