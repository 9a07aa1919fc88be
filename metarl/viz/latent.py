"""A picture of what was inferred: posteriors over a latent variable as they move apart, coloured by what the tasks are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from metarl.evaluation.posteriors import Inference
from metarl.evaluation.stats import Array
from metarl.viz.style import quiet, save, spread

_COLUMNS = 6  # the most moments in one picture
_ROWS = 3  # the most entries of the task row
_TRUTH = ListedColormap(
    matplotlib.colormaps["viridis"](np.linspace(0, 0.93, 256))
)  # the rest is too light on white
_BOTH = np.array([-1.05, 1.05])  # from the middle to the ends of an axis, with a margin
_FLATTEST, _TALLEST = 0.6, 1.4  # height of a panel, in widths


def inference_picture(inference: Inference, out: Path) -> Path:
    """A column a moment and a row an entry of the task row → a picture at `out`.

    Every task is a dot at the mean of its posterior within an ellipse of one standard deviation, seen on the two
    principal axes of the last column's means, labelled with their share of the variance; its colour is what the entry
    truly is. A latent variable of a single entry stands over the truth instead. Of many moments some are shown, evenly
    spread, with the first and the last; of many entries the first three that differ between the tasks.
    """
    columns = spread(len(inference.means), _COLUMNS)
    rows = np.flatnonzero(np.ptp(inference.params, axis=0))[:_ROWS].tolist() or [0]
    draw = _over_truth if inference.means.shape[2] == 1 else _on_plane
    figure, grid = draw(inference, columns, rows)
    for axes, k in zip(grid[0], columns, strict=True):
        episodes = inference.episodes_consumed[k]
        axes.set_title(
            f"after {episodes} episode{'s' if episodes > 1 else ''}", loc="left", fontsize="medium"
        )
    figure.suptitle(inference.title, fontsize="large")
    color = _TRUTH(0.5)
    dot = Line2D(
        [],
        [],
        linestyle="",
        marker="o",
        markersize=4,
        color=color,
        label="a task: the mean of its posterior",
    )
    width = Patch(facecolor=(color, 0.3), edgecolor="none", label="± one standard deviation")
    figure.legend(
        handles=[dot, width], loc="outside lower center", ncols=2, frameon=False, fontsize="small"
    )
    return save(figure, out)


def _on_plane(
    inference: Inference, columns: Sequence[int], rows: Sequence[int]
) -> tuple[Figure, Any]:
    """The posteriors of `columns` [K, N, Z] on two principal axes, in the colours of every entry in `rows`."""
    plane, shares = principal_axes(inference.means[columns[-1]])
    places = inference.means[columns] @ plane.T  # [K, N, 2]
    covariances = np.einsum("az,knz,bz->knab", plane, inference.stds[columns] ** 2, plane)
    reach = np.sqrt(
        np.diagonal(covariances, axis1=2, axis2=3)
    )  # [K, N, 2] of the ellipse along each axis
    middle, half = _box(np.stack([places - reach, places + reach]).reshape(-1, 2))
    figure, grid = _grid(len(rows), len(columns), height=half[1] / half[0], sharex=True)
    for panels, entry in zip(grid, rows, strict=True):
        truth = inference.params[:, entry]
        scale = ScalarMappable(Normalize(truth.min(), truth.max()), _TRUTH)
        for axes, place, covariance in zip(panels, places, covariances, strict=True):
            _draw_normals(axes, place, covariance, scale.to_rgba(truth))
            axes.set(
                xlim=middle[0] + half[0] * _BOTH, ylim=middle[1] + half[1] * _BOTH, aspect="equal"
            )
        bar = figure.colorbar(scale, ax=list(panels), pad=0.01)
        bar.set_label(inference.names[entry], size="small")
        quiet(bar.ax)
    first, second = (f"axis {k + 1} ({100 * share:.0f} %)" for k, share in enumerate(shares))
    _label(grid[-1], grid[:, 0], first, second)
    return figure, grid


def _draw_normals(axes: Axes, places: Array, covariances: Array, colors: Any) -> None:
    """Dots at `places` [N, 2] within ellipses, in `colors` [N, 4]."""
    widths, heights, angles = ellipses(covariances)
    shapes = EllipseCollection(
        widths,
        heights,
        angles,
        units="xy",
        offsets=places,
        offset_transform=axes.transData,
        facecolors=colors * (1, 1, 1, 0.12),
        edgecolors=colors * (1, 1, 1, 0.5),
        linewidths=0.6,
        zorder=2,
    )
    axes.add_collection(shapes)
    axes.scatter(
        places[:, 0], places[:, 1], c=colors, s=14, linewidths=0.4, edgecolors="white", zorder=3
    )


def _over_truth(
    inference: Inference, columns: Sequence[int], rows: Sequence[int]
) -> tuple[Figure, Any]:
    """The posteriors of `columns` [K, N, 1] over each entry in `rows`."""
    figure, grid = _grid(len(rows), len(columns), height=0.9, sharex="row")
    for panels, entry in zip(grid, rows, strict=True):
        for axes, k in zip(panels, columns, strict=True):
            mean, std = inference.means[k, :, 0], inference.stds[k, :, 0]
            color, faint = _TRUTH(0.5), _TRUTH(0.5, alpha=0.3)
            axes.errorbar(
                inference.params[:, entry],
                mean,
                std,
                fmt="o",
                markersize=4,
                color=color,
                elinewidth=3,
                ecolor=faint,
            )
        _label(panels, panels[:1], inference.names[entry], "latent variable z")
    return figure, grid


def _label(below: Any, left: Any, x: str, y: str) -> None:
    for axes in below:
        axes.set_xlabel(x, fontsize="small")
    for axes in left:
        axes.set_ylabel(y, fontsize="small")


def principal_axes(points: Array) -> tuple[Array, Array]:
    """Two orthogonal unit vectors [2, Z], along which points [N, Z] vary most, and their shares of the variance [2].

    Each vector's largest entry is positive, so that pictures are not mirrored by accident.
    """
    away = points - points.mean(0)
    variances, axes = np.linalg.eigh(away.T @ away)  # from the least to the largest
    variances, axes = variances[::-1].clip(0), axes.T[::-1]
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(1, keepdims=True), axis=1))
    return (signs * axes)[:2], variances[:2] / max(variances.sum(), np.finfo(float).tiny)


def ellipses(covariances: Array) -> tuple[Array, Array, Array]:
    """One standard deviation of normal distributions [N, 2, 2]: the longer and the shorter diameter, and the angle of the
    longer one in degrees, [N] each."""
    variances, axes = np.linalg.eigh(covariances)  # the larger one last
    short, long = 2 * np.sqrt(variances.clip(0)).T
    return long, short, np.degrees(np.arctan2(axes[:, 1, 1], axes[:, 0, 1]))


def _box(points: Array) -> tuple[Array, Array]:
    """Middle and half extents, [2] each, of a box about points [N, 2]; widened where a panel would be too flat or tall."""
    low, high = points.min(0), points.max(0)
    half = (high - low) / 2
    return (high + low) / 2, np.maximum(half, half[::-1] * (_TALLEST**-1, _FLATTEST))


def _grid(rows: int, columns: int, *, height: float, sharex: Any) -> tuple[Figure, Any]:
    """Panels [rows, columns] which are `height` times as high as wide, all of one vertical axis."""
    width = 4.5 if columns == 1 else 3.2 if columns <= 3 else 2.4
    figure = Figure(
        figsize=(columns * (width + 0.1) + 1.5, rows * (height * width + 0.1) + 1.2),
        layout="constrained",
    )
    grid = figure.subplots(rows, columns, sharex=sharex, sharey=True, squeeze=False)
    for axes in grid.flat:
        quiet(axes)
    return figure, grid
