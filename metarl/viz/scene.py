"""Episodes seen from above: walls and goals, the agent's path, and what the marks mean."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle

from metarl.core.types import Scene
from metarl.viz.style import FOOT, Ints, mark, mix_with_white, mute, option_colors
from metarl.viz.timeline import Timeline, add_strip, draw_options_legend

_TIME = LinearSegmentedColormap.from_list("time", ["#b5d4e9", "#3f87c0", "#08306b"])
"""Colors of a path from its start to its end."""
_START = mark("start", "o", 7, "white", "black")
_END = mark("end", "o", 6, _TIME(1.0), "white")
_GOAL = mark("goal", "*", 17, "C2", "white")
_OTHER = mark("not the goal", "o", 9, "none", "0.55")


_MARGIN = 0.15  # beside what happens, of its longer side
_MUCH = 0.6  # of the ground's width or height: that is drawn whole
_LONG = 40  # steps of a path that is drawn thin, for it may cross itself


class Limits(NamedTuple):
    """What a panel shows of the plane."""

    left: float
    right: float
    bottom: float
    top: float

    @property
    def aspect(self) -> float:
        """Height over width."""
        return (self.top - self.bottom) / (self.right - self.left)


def limits_of(scenes: Sequence[Scene]) -> Limits:
    """Limits that hold all `scenes` with their paths and goals."""
    places = []
    for scene in scenes:
        places += [np.reshape(scene.limits, (2, 2)).T, scene.path.numpy()]
        if scene.goal is not None:
            places.append(scene.goal.numpy())
    points = np.concatenate(places)
    corners = np.stack([points.min(0), points.max(0)], axis=1)  # [x or y, low or high]
    return Limits(*corners.ravel().tolist())


def fit_limits(scenes: Sequence[Scene]) -> Limits:
    """`limits_of`, or closer where no walls stand.

    A width or a height of which the paths, goals and other places take little is fitted to them.
    """
    whole = limits_of(scenes)
    if any(scene.walls is not None for scene in scenes):
        return whole
    places = []
    for scene in scenes:
        places.append(scene.path.numpy())
        if scene.others is not None:
            places.append(scene.others.numpy())
        if scene.goal is not None:
            goal = scene.goal.numpy()
            places += [goal - scene.goal_radius, goal + scene.goal_radius]
    points = np.concatenate(places)
    low, high = points.min(0), points.max(0)
    margin = _MARGIN * max(high - low)
    fitted: list[float] = []
    for axis, (first, last) in enumerate((whole[:2], whole[2:])):
        near = max(first, low[axis] - margin), min(last, high[axis] + margin)
        much = near[1] - near[0] > _MUCH * (last - first)
        fitted += (first, last) if much else near
    return Limits(*map(float, fitted))


class EpisodeMap:
    """An episode on its ground: its path, and below it the timeline of its options, if any."""

    def __init__(
        self,
        axes: Axes,
        scene: Scene,
        limits: Limits,
        options: Ints | None,
        length: int,
    ):
        """`options` [T]; `length`: steps that the width of the timeline stands for, T or more.

        Of a long one the path is thin.
        """
        draw_ground(axes, scene, limits)
        self._places = scene.path.numpy()  # [T + 1, 2]
        time = np.linspace(0, 1, len(self._places))
        colors = _TIME(time)
        self._timeline = None
        if options is not None:
            colors = option_colors(np.append(options, options[-1:]))
            colors = mix_with_white(colors, 0.5 + 0.5 * time)
            self._timeline = Timeline(add_strip(axes), options, length)
        self._segments = list(np.stack([self._places[:-1], self._places[1:]], axis=1))
        long = length > _LONG
        self._line = LineCollection(
            self._segments,
            colors=colors,
            linewidths=0.9 if long else 2,
            capstyle="round",
            zorder=3,
        )
        axes.add_collection(self._line)
        x, y = self._places.T
        self._dots = axes.scatter(
            x,
            y,
            s=4 if long else 9,
            c=colors,
            linewidths=0,
            zorder=3,
        )
        axes.plot(x[:1], y[:1], zorder=4, **_START)
        (self._end,) = axes.plot(x[-1:], y[-1:], zorder=5, **_END)

    def show(self, steps: int) -> None:
        """Show the first `steps` only."""
        self._line.set_segments(self._segments[:steps])
        self._dots.set_offsets(self._places[: steps + 1])
        self._end.set_data(*self._places[steps : steps + 1].T)
        if self._timeline is not None:
            self._timeline.show(steps)


def draw_ground(axes: Axes, scene: Scene, limits: Limits) -> None:
    """Draw walls, goals, and the places that are easily taken for goals."""
    axes.set(xlim=limits[:2], ylim=limits[2:], aspect="equal")
    mute(axes)
    if scene.walls is not None:
        for left, bottom, width, height in scene.walls.tolist():
            axes.add_patch(Rectangle((left, bottom), width, height, color="0.35", linewidth=0.5))
    if scene.others is not None:
        axes.plot(*scene.others.numpy().T, zorder=3.5, **_OTHER)
    if scene.goal is not None:
        axes.plot(*scene.goal.numpy().T, zorder=3.5, **_GOAL)
        for goal in scene.goal.tolist():
            axes.add_patch(Circle(goal, scene.goal_radius, facecolor="C2", alpha=0.2, linewidth=0))


def draw_legend(
    figure: Figure,
    scene: Scene,
    end: str,
    num_options: int,
) -> None:
    """What the marks mean, below the picture, and the colors of options, if there are any.

    `end` says what the end of the path is.
    """
    path_color = "0.6" if num_options else _TIME(0.5)
    handles = [
        Line2D([], [], **_START),
        Line2D([], [], linewidth=2, color=path_color, label="path, darker with time"),
        Line2D([], [], **_END | {"label": end}),
    ]
    if scene.goal is not None:
        handles.append(Line2D([], [], **_GOAL))
    if scene.others is not None:
        handles.append(Line2D([], [], **_OTHER))
    if num_options:
        draw_options_legend(figure, num_options)
    figure.legend(handles=handles, **FOOT | {"ncols": len(handles)})
