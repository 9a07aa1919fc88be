"""A picture of posteriors over a latent variable, colored by the true task rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from metarl.evaluation.posteriors import Inference
from metarl.evaluation.stats import Array
from metarl.viz.style import FOOT, mark, mute, pick_evenly, save

Grid = NDArray[np.object_]
"""Axes [rows, columns]."""

_COLUMNS = 6  # the most rounds in one picture
_ROWS = 3  # the most entries of the task row
_TRUTH = ListedColormap(colormaps["viridis"](np.linspace(0, 0.93, 256)))
"""The rest of viridis is too light on white."""
_COLOR = _TRUTH(0.5)


def draw_posteriors(inference: Inference, out: Path) -> Path:
    """A column a round and a row an entry of the task row → a picture at `out`.

    A task is a dot at the mean of its posterior within an ellipse of one standard deviation, in
    the color of the true entry. The axes are the principal axes of the means after the last round,
    labeled with their share of the variance; a latent variable of one entry is drawn over the true
    entry. Of many rounds some are shown, evenly spaced, the first and the last among them; of many
    entries the first three that differ between the tasks.
    """
    rounds = pick_evenly(len(inference.means), _COLUMNS)
    entries = np.flatnonzero(np.ptp(inference.params, axis=0))[:_ROWS].tolist() or [0]
    draw = _draw_over_truth if inference.means.shape[2] == 1 else _draw_on_plane
    figure, grid = draw(inference, rounds, entries)
    for axes, k in zip(grid[0], rounds, strict=True):
        episodes = inference.episodes_consumed[k]
        unit = "episode" if episodes == 1 else "episodes"
        axes.set_title(f"after {episodes} {unit}", loc="left", fontsize="medium")
    figure.suptitle(f"{inference.title}, one run")
    handles = [
        Line2D([], [], **mark("a task: the mean of its posterior", "o", 4, _COLOR)),
        Patch(facecolor=(_COLOR, 0.3), edgecolor="none", label="± one standard deviation"),
    ]
    figure.legend(handles=handles, **FOOT)
    return save(figure, out)


def _draw_on_plane(
    inference: Inference, rounds: Sequence[int], entries: Sequence[int]
) -> tuple[Figure, Grid]:
    """The posteriors on two principal axes."""
    plane, shares = principal_axes(inference.means[rounds[-1]])
    means = inference.means[rounds] @ plane.T  # [K, N, 2]
    covariances = np.einsum("az,knz,bz->knab", plane, inference.stds[rounds] ** 2, plane)
    stds = np.sqrt(np.diagonal(covariances, axis1=2, axis2=3))  # [K, N, 2]
    xlim, ylim = _limits(np.stack([means - stds, means + stds]).reshape(-1, 2))
    height = np.ptp(ylim) / np.ptp(xlim)
    figure, grid = _create_grid(len(entries), len(rounds), height, sharex=True)
    for panels, entry in zip(grid, entries, strict=True):
        truth = inference.params[:, entry]
        scale = ScalarMappable(Normalize(truth.min(), truth.max()), _TRUTH)
        for axes, mean, covariance in zip(panels, means, covariances, strict=True):
            _draw_normals(axes, mean, covariance, scale.to_rgba(truth))
            axes.set(xlim=xlim, ylim=ylim, aspect="equal")
        bar = figure.colorbar(scale, ax=list(panels), pad=0.01)
        bar.set_label(inference.names[entry], size="small")
        mute(bar.ax)
    for axes in grid[-1]:
        axes.set_xlabel(f"principal axis 1 ({100 * shares[0]:.0f} % of variance)", fontsize="small")
    for axes in grid[:, 0]:
        axes.set_ylabel(f"principal axis 2 ({100 * shares[1]:.0f} % of variance)", fontsize="small")
    return figure, grid


def _draw_normals(
    axes: Axes,
    means: Array,
    covariances: Array,
    colors: Array,
) -> None:
    """Normal distributions [N, 2], [N, 2, 2] as dots in ellipses, in `colors` [N, 4]."""
    variances, directions = np.linalg.eigh(covariances)  # the larger one last
    short, long = 2 * np.sqrt(variances.clip(0)).T
    angles = np.degrees(np.arctan2(directions[:, 1, 1], directions[:, 0, 1]))
    ellipses = EllipseCollection(
        long,
        short,
        angles,
        units="xy",
        offsets=means,
        offset_transform=axes.transData,
        facecolors=colors * (1, 1, 1, 0.12),
        edgecolors=colors * (1, 1, 1, 0.5),
        linewidths=0.6,
        zorder=2,
    )
    axes.add_collection(ellipses)
    x, y = means.T
    axes.scatter(
        x,
        y,
        c=colors,
        s=14,
        linewidths=0.4,
        edgecolors="white",
        zorder=3,
    )


def _draw_over_truth(
    inference: Inference, rounds: Sequence[int], entries: Sequence[int]
) -> tuple[Figure, Grid]:
    """The posteriors of a latent variable of one entry over the true entries."""
    figure, grid = _create_grid(len(entries), len(rounds), 0.9, sharex="row")
    for panels, entry in zip(grid, entries, strict=True):
        for axes, k in zip(panels, rounds, strict=True):
            mean, std = inference.means[k, :, 0], inference.stds[k, :, 0]
            axes.errorbar(
                inference.params[:, entry],
                mean,
                std,
                fmt="o",
                markersize=4,
                color=_COLOR,
                elinewidth=3,
                ecolor=(_COLOR, 0.3),
            )
            axes.set_xlabel(inference.names[entry], fontsize="small")
        panels[0].set_ylabel("latent variable z", fontsize="small")
    return figure, grid


def principal_axes(points: Array) -> tuple[Array, Array]:
    """Two unit vectors [2, Z] along which points [N, Z] vary most, and their variance shares [2].

    Each vector's largest entry is positive, so that pictures are not mirrored by accident.
    """
    centered = points - points.mean(0)
    _, variances, axes = np.linalg.svd(centered.T @ centered, hermitian=True)
    largest = np.abs(axes).argmax(1, keepdims=True)
    signs = np.sign(np.take_along_axis(axes, largest, axis=1))
    return (signs * axes)[:2], variances[:2] / max(variances.sum(), np.finfo(float).tiny)


def _limits(points: Array) -> Array:
    """[x or y, low or high] of a panel about points [N, 2], neither too flat nor too tall."""
    low, high = points.min(0), points.max(0)
    half = (high - low) / 2
    half = np.maximum(half, half[::-1] * (1 / 1.4, 0.6))  # height over width: 0.6 to 1.4
    middle = (high + low) / 2
    return np.stack([middle - 1.05 * half, middle + 1.05 * half], axis=1)


def _create_grid(
    rows: int,
    columns: int,
    height: float,
    sharex: bool | Literal["row"],
) -> tuple[Figure, Grid]:
    """Panels with a common vertical axis, `height` times as high as wide."""
    width = 4.5
    if columns > 1:
        width = 3.2 if columns <= 3 else 2.4
    size = (columns * (width + 0.1) + 1.5, rows * (height * width + 0.1) + 1.2)
    figure = Figure(size, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=sharex, sharey=True, squeeze=False)
    for axes in grid.flat:
        mute(axes)
    return figure, grid
