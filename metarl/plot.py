"""Pictures of runs: how they learned, how the trained agent adapts to a task it has not seen, and what it does there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle

from metarl.errors import Mistake
from metarl.figure import plain, quiet, save, spread
from metarl.film import Episode, Film, Picture
from metarl.log import read_metrics
from metarl.stats import Array
from metarl.types import Scene

EVALUATION = "evaluation.json"

_PANELS = 8  # the most episodes in one picture, and the most frames of an episode
_TIME = LinearSegmentedColormap.from_list("time", ["#b5d4e9", "#3f87c0", "#08306b"])  # of a path, from light to dark
_MARKS: dict[str, dict[str, Any]] = {
    "start": {"marker": "o", "markersize": 7, "color": "white", "markeredgecolor": "black"},
    "end": {"marker": "o", "markersize": 7, "color": _TIME(1.0), "markeredgecolor": "white"},
    "goal": {"marker": "*", "markersize": 14, "color": "C2", "markeredgecolor": "white"},
    "not the goal": {"marker": "o", "markersize": 9, "color": "none", "markeredgecolor": "0.55"},
}


def learning_curve(folders: Sequence[Path], out: Path) -> Path:
    """Return in training (smoothed) and on validation tasks, over environment steps → a picture at `out`.

    In training it is what the agent logs, that of the trial or that after adaptation; on validation tasks, the run's score.

    Raises:
        Mistake: a run without metrics.
    """
    figure, axes = plain()
    names = [folder.name for folder in folders]
    for i, folder in enumerate(folders):
        name = folder.name if names.count(folder.name) == 1 else f"{folder.parent.name}/{folder.name}"
        records = read_metrics(folder)
        if not records:
            raise Mistake(f"{folder} has no metrics to draw yet")
        color = f"C{i}"
        steps = np.array([record["env_steps"] for record in records]) / 1e6
        axes.plot(steps, _smooth([record["return"] for record in records]), color=color, alpha=0.4, linewidth=1)
        validated = [record for record in records if "validation" in record]
        x, y = [r["env_steps"] / 1e6 for r in validated], [r["validation"] for r in validated]
        axes.plot(x, y, color=color, marker=".", label=f"{name} (validation)")
    axes.set(xlabel="environment steps (millions)", ylabel="return", title="Learning curve")
    axes.legend(frameon=False)
    return save(figure, out)


def adaptation_curve(scores: Mapping[str, Mapping[str, Any]], out: Path) -> Path:
    """Return of an episode of each round with its 95 % interval, over the episodes that were consumed by its end, of
    every agent in `scores` → a picture at `out`.
    """
    figure, axes = plain()
    for i, (name, score) in enumerate(scores.items()):
        curve = score["summary"]["curve"]
        episodes = score["episodes_consumed"]
        axes.plot(episodes, curve["mean"], color=f"C{i}", label=name, marker="." if len(episodes) < 30 else None)
        axes.fill_between(episodes, curve["low"], curve["high"], color=f"C{i}", alpha=0.2, linewidth=0)
    first = next(iter(scores.values()))
    optimum, tasks = first["summary"].get("optimum"), "a closed family's tasks" if first["closed"] else "unseen tasks"
    if optimum is not None:
        axes.axhline(optimum, color="black", linestyle=":", linewidth=1, label="task known (optimum)")
    axes.set(xlabel="episodes consumed", ylabel="return of the episode", title=f"Adaptation to {tasks}")
    axes.legend(frameon=False, fontsize="small")
    return save(figure, out)


def read_scores(folder: Path) -> dict[str, Any]:
    """Scores by agent from the last evaluation of a run, or else those of its result.

    Raises:
        Mistake: the run has neither.
    """
    if (path := folder / EVALUATION).is_file():
        return dict(json.loads(path.read_text())["scores"])
    if (path := folder / "result.json").is_file():
        result = json.loads(path.read_text())
        return {f"{result['config']['agent']['name']} ({split})": score for split, score in result["scores"].items()}
    raise Mistake(f"{folder} has no scores to draw yet; finish its training or run metarl evaluate {folder}")


# ---------------------------------------------------------------------------------------------------------------------
# Films


def storyboard(film: Film, out: Path) -> Path:
    """A panel an episode, seen from above, or else a strip of its frames → a picture at `out`.

    Of many episodes some are shown, evenly spread, with the first and the last.
    """
    shown = spread(film.length, _PANELS)
    panels: list[tuple[str, Scene]] = []
    strips: list[tuple[str, list[tuple[int, Picture]]]] = []
    for k, episode in enumerate(film.episodes):
        title = f"episode {k + 1}: return {_number(episode.paid())}"
        if k in shown and episode.scene is not None:
            panels.append((title, episode.scene))
        elif k in shown:
            strips.append((title, [(t, episode.frames[t]) for t in spread(episode.steps, _PANELS)]))
    figure = _panels(panels) if panels else _strips(strips)
    figure.suptitle(film.title, fontsize="large")
    return save(figure, out)


def moving(film: Film, hold: int) -> Iterator[Picture]:
    """The pictures of a video: the T + 1 moments of every episode, the last of them `hold` times more."""
    screen: _Above | _Screen | None = None
    for k, episode in enumerate(film.episodes):
        if screen is None:
            screen = _Above(film.title, episode.scene) if episode.scene else _Screen(film.title, episode.frames[0])
        screen.begin(episode)
        for t in range(episode.steps + 1):
            paid = _number(episode.paid(t))
            yield (picture := screen.show(t, f"episode {k + 1} of {film.length},  step {t},  return {paid}"))
        for _ in range(hold):
            yield picture


class _Above:
    """A figure in which the path of one episode after another grows; those of before stay as shadows."""

    def __init__(self, title: str, first: Scene) -> None:
        left, right, bottom, top = _limits([first])
        height = np.clip(6 * (top - bottom) / (right - left), 2, 9) + 1.2
        self._figure = Figure(figsize=(6.4, round(50 * height) / 50), dpi=100, layout="constrained")
        self._canvas = FigureCanvasAgg(self._figure)
        self._axes = self._figure.add_subplot()
        self._figure.suptitle(title, fontsize="large")
        _legend(self._figure, first, last="now")
        self._seen: list[Scene] = []

    def begin(self, episode: Episode) -> None:
        assert episode.scene is not None
        self._seen.append(episode.scene)
        self._axes.clear()
        for past in self._seen[:-1]:
            self._axes.plot(*past.path.numpy().T, color="0.85", linewidth=1)
        _draw_ground(self._axes, episode.scene, _limits(self._seen))
        self._draw_path = _Path(self._axes, episode.scene)

    def show(self, steps: int, caption: str) -> Picture:
        """After the first `steps` of the episode."""
        self._draw_path.until(steps)
        self._axes.set_title(caption, loc="left", fontsize="medium")
        picture = _pixels(self._canvas)
        self._figure.set_layout_engine("none")  # to lay out once is enough, and takes longer than to draw
        return picture


class _Screen:
    """A figure that shows frames pixel by pixel below two lines of text."""

    def __init__(self, title: str, first: Picture) -> None:
        zoom = -(-480 // first.shape[1])  # or the text would not fit
        height, width, text = zoom * first.shape[0], zoom * first.shape[1], 56
        self._figure = Figure(figsize=(width / 100, (height + text) / 100), dpi=100)
        self._canvas = FigureCanvasAgg(self._figure)
        axes = self._figure.add_axes((0, 0, 1, height / (height + text)))
        axes.axis("off")
        self._image = axes.imshow(first, aspect="auto", interpolation="nearest")
        self._figure.text(0.02, 1 - 8 / (height + text), title, va="top", fontsize="large")
        self._caption = self._figure.text(0.02, 1 - 34 / (height + text), "", va="top", fontsize="medium")

    def begin(self, episode: Episode) -> None:
        self._frames = episode.frames

    def show(self, steps: int, caption: str) -> Picture:
        """Before the step after `steps`; the camera has not seen what the last one led to, so its frame stays."""
        self._image.set_data(self._frames[min(steps, len(self._frames) - 1)])
        self._caption.set_text(caption)
        return _pixels(self._canvas)


class _Path:
    """A path in a picture, from light to dark in time."""

    def __init__(self, axes: Axes, scene: Scene) -> None:
        self._places = scene.path.numpy()  # [T + 1, 2]
        color = _TIME(np.linspace(0, 1, len(self._places)))
        self._line = LineCollection([], colors=color, linewidths=2, capstyle="round", zorder=3)
        axes.add_collection(self._line)
        self._dots = axes.scatter(self._places[:, 0], self._places[:, 1], s=9, c=color, linewidths=0, zorder=3)
        axes.plot(*self._places[:1].T, linestyle="", zorder=4, **_MARKS["start"])
        (self._end,) = axes.plot(*self._places[-1:].T, linestyle="", zorder=5, **_MARKS["end"])
        self.until(len(self._places))

    def until(self, steps: int) -> None:
        """Show the first `steps` alone."""
        places = self._places[: steps + 1]
        self._line.set_segments(list(np.stack([places[:-1], places[1:]], axis=1)))
        self._dots.set_offsets(places)
        self._end.set_data(*places[-1:].T)


def _panels(scenes: Sequence[tuple[str, Scene]]) -> Figure:
    """Episodes side by side, all in the same limits."""
    limits = left, right, bottom, top = _limits([scene for _, scene in scenes])
    rows = 1 if len(scenes) <= 4 else 2
    columns = -(-len(scenes) // rows)
    width = 4.5 if columns == 1 else 3.0
    height = width * np.clip((top - bottom) / (right - left), 0.3, 2)
    figure = Figure(figsize=(columns * (width + 0.1) + 0.5, rows * (height + 0.3) + 0.9), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, (title, scene) in zip(grid, scenes, strict=False):
        axes.set_title(title, loc="left", fontsize="medium")
        _draw_ground(axes, scene, limits)
        _Path(axes, scene)
    for axes in grid[len(scenes) :]:
        axes.remove()
    _legend(figure, scenes[0][1], last="end")
    return figure


def _strips(strips: Sequence[tuple[str, Sequence[tuple[int, Picture]]]]) -> Figure:
    """A strip of frames an episode; a single episode takes two."""
    rows = 2 if len(strips) == 1 else 1
    columns = -(-max(len(frames) for _, frames in strips) // rows)
    height, width, _ = strips[0][1][0][1].shape
    size = 2.4 if rows == 2 else 1.6
    figure = Figure(
        figsize=(columns * size, len(strips) * (rows * (size * height / width + 0.25) + 0.3) + 0.4),
        layout="constrained",
    )
    parts = figure.subfigures(len(strips), squeeze=False)[:, 0]
    for part, (title, frames) in zip(parts, strips, strict=True):
        part.suptitle(title, x=0.01, ha="left", fontsize="medium")
        for place, (step, frame) in enumerate(frames):
            axes = part.add_subplot(rows, columns, place + 1)
            axes.imshow(frame)
            axes.set_title(f"step {step}", fontsize="small", color="0.4")
            axes.axis("off")
    return figure


def _draw_ground(axes: Axes, scene: Scene, limits: tuple[float, float, float, float]) -> None:
    """All but the path."""
    axes.set(xlim=limits[:2], ylim=limits[2:], aspect="equal")
    quiet(axes)
    for left, bottom, width, height in [] if scene.walls is None else scene.walls.tolist():
        axes.add_patch(Rectangle((left, bottom), width, height, facecolor="0.35", edgecolor="0.35", linewidth=0.5))
    for name, places in (("not the goal", scene.others), ("goal", scene.goal)):
        if places is not None:
            axes.plot(*places.numpy().T, linestyle="", zorder=3.5, **_MARKS[name])
    for goal in [] if scene.goal is None else scene.goal.tolist():
        axes.add_patch(Circle(goal, scene.goal_radius, facecolor="C2", alpha=0.2, linewidth=0))


def _legend(figure: Figure, scene: Scene, last: str) -> None:
    """What the marks mean, below the picture; `last` is what the end of the path is called."""
    present = {"goal": scene.goal, "not the goal": scene.others}
    marks = [
        Line2D([], [], linestyle="", label=last if name == "end" else name, **mark)
        for name, mark in _MARKS.items()
        if present.get(name, ...) is not None
    ]
    marks.insert(1, Line2D([], [], linewidth=2, color=_TIME(0.5), label="path, darker with time"))
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False, fontsize="small")


def _limits(scenes: Sequence[Scene]) -> tuple[float, float, float, float]:
    """What holds all of `scenes` with their paths and goals: left, right, bottom, top."""
    corners = [np.array(scene.limits).reshape(2, 2).T for scene in scenes]
    corners += [place.numpy() for scene in scenes for place in (scene.path, scene.goal) if place is not None]
    places = np.concatenate(corners)
    (left, bottom), (right, top) = places.min(0), places.max(0)
    return float(left), float(right), float(bottom), float(top)


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _pixels(canvas: FigureCanvasAgg) -> Picture:
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]


def _smooth(values: Sequence[float], share: float = 0.02) -> Array:
    """Running mean over a share of the run."""
    width = max(1, int(len(values) * share))
    return np.convolve(np.pad(values, (width - 1, 0), mode="edge"), np.full(width, 1 / width), mode="valid")
