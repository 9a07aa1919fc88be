"""A picture of where each option acts, and where it goes from there."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from metarl.core.errors import FamilyError
from metarl.core.family import Drawable, Family
from metarl.evaluation.option_usage import Moves, Usage
from metarl.evaluation.stats import Array
from metarl.viz.scene import draw_ground, limits_of
from metarl.viz.style import (
    FOOT,
    Ints,
    check_path,
    create_panels,
    mark,
    mix_with_white,
    option_colors,
    save,
)

_PANELS = 8  # the most options in one picture
_CELLS = 15  # along the longer side, about, unless all places are on a lattice
_LATTICE = 25  # the most different coordinates of places on a lattice
_FEW = 3  # the least steps whose mean is drawn
_RING = 0.5  # diameter of the largest ring, in widths of a cell


@dataclass(frozen=True)
class Lattice:
    """Square cells that cover the plane."""

    corner: Array  # [2] left and lower edge of a cell
    width: float

    def cells(self, places: Array) -> Ints:
        """places [S, 2] → column and row [S, 2] of the cell around each."""
        return np.floor((places - self.corner) / self.width).astype(np.int64)

    def centers(self, cells: Ints) -> Array:
        """[C, 2]"""
        return self.corner + (cells + 0.5) * self.width


@dataclass(frozen=True)
class Cells:
    """What one option does in the C cells where it acts."""

    centers: Array  # [C, 2]
    steps: Ints  # [C] that it took there
    begun: Ints  # [C] how many of them were the first of a stretch
    move: Array  # [C, 2] mean displacement of a step


def fit_lattice(moves: Moves) -> Lattice:
    """The lattice whose cells have all places in their middle.

    If there is none, about 15 cells a side, aligned with the ground.
    """
    places = np.concatenate([moves.before, moves.after]).round(6)
    x, y = np.unique(places[:, 0]), np.unique(places[:, 1])
    gaps = np.concatenate([np.diff(x), np.diff(y)])
    if len(gaps) and max(len(x), len(y)) <= _LATTICE:
        width = gaps.min()
        if np.allclose(gaps / width, np.round(gaps / width), atol=1e-3):
            return Lattice(places.min(0) - width / 2, float(width))

    left, right, bottom, top = limits_of([moves.ground])
    longer = max(right - left, top - bottom)
    width = longer / _CELLS
    if longer.is_integer() and longer <= _CELLS:  # walls may be on whole numbers: do not cut them
        width = 1 / round(_CELLS / longer)
    return Lattice(np.array([left, bottom]), width)


def count_by_cell(moves: Moves, option: int, lattice: Lattice) -> Cells:
    """The steps of `option` in the cells that they begin in."""
    ran = moves.option == option
    cells, which = np.unique(lattice.cells(moves.before[ran]), axis=0, return_inverse=True)
    which = which.ravel()
    steps = np.bincount(which, minlength=len(cells))
    begun = np.bincount(which[moves.begins[ran]], minlength=len(cells))
    moved = np.zeros(cells.shape)
    np.add.at(moved, which, (moves.after - moves.before)[ran])
    return Cells(lattice.centers(cells), steps, begun, moved / steps[:, None])


def check_drawable(family: Family, out: Path) -> None:
    """Raises a MetaRLError if the options of agents on `family` cannot be drawn to `out`."""
    if not isinstance(family, Drawable):
        raise FamilyError(
            f"{family.spec.name} offers no scene to draw options in: leave out --out, "
            "or give the family scene(params, obs)"
        )
    check_path(out, ".png")


def draw_option_map(usage: Usage, out: Path) -> Path:
    """A panel an option → a picture at `out`; of more than eight the most used.

    The more steps an option took in a cell, the stronger is its color there, by the same measure
    in all panels. An arrow is the mean displacement of three or more steps; its ring is the larger
    the more of them were the first of a stretch.
    """
    moves = usage.moves
    assert moves is not None
    shown = np.sort(np.argsort(-usage.shares, kind="stable")[:_PANELS])
    lattice = fit_lattice(moves)
    parts = [count_by_cell(moves, option, lattice) for option in shown]
    most, longest = 1, 0.0
    for cells in parts:
        most = max(most, cells.steps.max(initial=1))
        lengths = np.linalg.norm(cells.move[cells.steps >= _FEW], axis=1)
        longest = max(longest, lengths.max(initial=0))

    limits = limits_of([moves.ground])
    wide = len(shown) > 2
    margins = (0.7 if len(shown) == 1 else 0.4, 1.0 if wide else 1.4)
    height = limits.aspect * 3.4 + 0.35
    figure, panels = create_panels(len(shown), 3.5, height, margins)
    for axes, option, cells in zip(panels, shown, parts, strict=True):
        draw_ground(axes, moves.ground, limits)
        axes.grid(visible=False)
        color = option_colors(option)
        _draw_cells(axes, cells, lattice.width, color, np.sqrt(cells.steps / most))
        _draw_moves(axes, cells, lattice.width, 0.4 * color, longest)
        axes.set_title(_caption(usage, option), loc="left", fontsize="medium")
    _draw_legend(figure, longest, wide)
    figure.suptitle(f"{usage.title}, one run")
    return save(figure, out)


def _caption(usage: Usage, option: int) -> str:
    if not usage.begun[option]:
        return f"option {option}: never ran"
    share = f"{100 * usage.shares[option]:.0f} % of steps"
    return f"option {option}: {share}, {usage.durations[option]:.1f} at a time"


def _draw_cells(
    axes: Axes,
    cells: Cells,
    width: float,
    color: Array,
    strength: Array,
) -> None:
    """Squares; `strength` [C] from 0 to 1."""
    corners = width / 2 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    squares = PolyCollection(
        list(cells.centers[:, None] + corners),
        facecolors=mix_with_white(color, 0.08 + 0.92 * strength),
        edgecolors="white",
        linewidths=0.4,
        zorder=1,
    )
    axes.add_collection(squares)


def _draw_moves(
    axes: Axes,
    cells: Cells,
    width: float,
    color: Array,
    longest: float,
) -> None:
    """Arrows from the centers of the cells; a mean move of `longest` is half a cell long."""
    often = cells.steps >= _FEW
    sizes = _RING * width * np.sqrt(cells.begun / cells.steps) * often
    rings = EllipseCollection(
        sizes,
        sizes,
        0,
        units="xy",
        offsets=cells.centers,
        offset_transform=axes.transData,
        facecolors="white",
        edgecolors=[color],
        linewidths=0.7 * (sizes > 0),
        zorder=2,
    )
    axes.add_collection(rings)
    arrows = 0.5 * width * cells.move / max(longest, np.finfo(float).tiny) * often[:, None]
    axes.quiver(
        *cells.centers.T,
        *arrows.T,
        color=[color],
        angles="xy",
        scale_units="xy",
        scale=1,
        units="xy",
        width=0.09 * width,
        headwidth=3.5,
        headlength=3.5,
        headaxislength=3.2,
        minlength=0,
        minshaft=1.2,
        zorder=2.1,
    )


def _draw_legend(figure: Figure, longest: float, wide: bool) -> None:
    """What cells, arrows and rings mean, below the picture, side by side if it is `wide`."""
    move = f"mean move of a step, at most {longest:.2g}"
    begins = "where it begins: the larger, the more of its steps"
    handles = [
        Patch(facecolor="0.65", label="where it acts: the stronger, the more often"),
        Line2D([], [], **mark(move, r"$\longrightarrow$", 16, "0.2")),
        Line2D([], [], **mark(begins, "o", 7, "white", "0.2")),
    ]
    figure.legend(handles=handles, **FOOT | {"ncols": 3 if wide else 1, "handlelength": 1.6})
