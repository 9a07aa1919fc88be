"""Episodes seen from above: the ground with its walls and goals, the way over it, and what the marks mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle
from numpy.typing import NDArray

from metarl.core.types import Scene
from metarl.viz.style import option_colors, quiet
from metarl.viz.timeline import options_legend

_TIME = LinearSegmentedColormap.from_list(
    "time", ["#b5d4e9", "#3f87c0", "#08306b"]
)  # of a path, from light to dark
_FAINT = 0.5  # how much of its colour the start of a path in colours of options has
_MARKS: dict[str, dict[str, Any]] = {
    "start": {"marker": "o", "markersize": 7, "color": "white", "markeredgecolor": "black"},
    "end": {"marker": "o", "markersize": 7, "color": _TIME(1.0), "markeredgecolor": "white"},
    "goal": {"marker": "*", "markersize": 14, "color": "C2", "markeredgecolor": "white"},
    "not the goal": {"marker": "o", "markersize": 9, "color": "none", "markeredgecolor": "0.55"},
}

Limits = tuple[float, float, float, float]
"""Left, right, bottom, top."""


class Way:
    """A path in a picture: from light to dark in time, or in the colours of the options [T] that led along it."""

    def __init__(self, axes: Axes, scene: Scene, options: NDArray[np.int64] | None = None) -> None:
        self._places = scene.path.numpy()  # [T + 1, 2]
        time = np.linspace(0, 1, len(self._places))
        color = _TIME(time) if options is None else _faded(np.append(options, options[-1:]), time)
        self._line = LineCollection([], colors=color, linewidths=2, capstyle="round", zorder=3)
        axes.add_collection(self._line)
        self._dots = axes.scatter(
            self._places[:, 0], self._places[:, 1], s=9, c=color, linewidths=0, zorder=3
        )
        axes.plot(*self._places[:1].T, linestyle="", zorder=4, **_MARKS["start"])
        (self._end,) = axes.plot(*self._places[-1:].T, linestyle="", zorder=5, **_MARKS["end"])
        self.until(len(self._places))

    def until(self, steps: int) -> None:
        """Show the first `steps` alone."""
        places = self._places[: steps + 1]
        self._line.set_segments(list(np.stack([places[:-1], places[1:]], axis=1)))
        self._dots.set_offsets(places)
        self._end.set_data(*places[-1:].T)


def _faded(options: NDArray[np.int64], time: NDArray[np.float64]) -> NDArray[np.float64]:
    """[T, 3]: colours that gain in strength."""
    strength = (_FAINT + (1 - _FAINT) * time)[:, None]
    return 1 - strength * (1 - option_colors(options))


def draw_ground(axes: Axes, scene: Scene, limits: Limits) -> None:
    """All but the path."""
    axes.set(xlim=limits[:2], ylim=limits[2:], aspect="equal")
    quiet(axes)
    for left, bottom, width, height in [] if scene.walls is None else scene.walls.tolist():
        axes.add_patch(
            Rectangle(
                (left, bottom), width, height, facecolor="0.35", edgecolor="0.35", linewidth=0.5
            )
        )
    for name, places in (("not the goal", scene.others), ("goal", scene.goal)):
        if places is not None:
            axes.plot(*places.numpy().T, linestyle="", zorder=3.5, **_MARKS[name])
    for goal in [] if scene.goal is None else scene.goal.tolist():
        axes.add_patch(Circle(goal, scene.goal_radius, facecolor="C2", alpha=0.2, linewidth=0))


def legend(figure: Figure, scene: Scene, last: str, options: int) -> None:
    """What the marks mean, below the picture; `last` is what the end of the path is called. Its colours are those of the
    `options`, if there are any, which stand beside the picture."""
    present = {"goal": scene.goal, "not the goal": scene.others}
    marks = [
        Line2D([], [], linestyle="", label=last if name == "end" else name, **mark)
        for name, mark in _MARKS.items()
        if present.get(name, ...) is not None
    ]
    color = "0.6" if options else _TIME(0.5)
    marks.insert(1, Line2D([], [], linewidth=2, color=color, label="path, darker with time"))
    if options:
        options_legend(figure, options)
    figure.legend(
        handles=marks, loc="outside lower center", ncols=len(marks), frameon=False, fontsize="small"
    )


def limits(scenes: Sequence[Scene]) -> Limits:
    """What holds all of `scenes` with their paths and goals."""
    corners = [np.array(scene.limits).reshape(2, 2).T for scene in scenes]
    corners += [
        place.numpy() for scene in scenes for place in (scene.path, scene.goal) if place is not None
    ]
    places = np.concatenate(corners)
    (left, bottom), (right, top) = places.min(0), places.max(0)
    return float(left), float(right), float(bottom), float(top)
