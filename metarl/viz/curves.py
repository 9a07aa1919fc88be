"""Pictures of runs: how they learned, how the trained agent adapts to a task it has not seen, and what it does there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metarl.core.errors import MetaRLError
from metarl.core.types import Scene
from metarl.evaluation.episodes import Episode, Film, Picture
from metarl.evaluation.stats import Array
from metarl.experiments.logs import read_metrics
from metarl.viz.scene import Way, draw_ground, legend, limits
from metarl.viz.style import plain, save, spread
from metarl.viz.timeline import Timeline, below, options_legend

EVALUATION = "evaluation.json"

_PANELS = 8  # the most episodes in one picture, and the most frames of an episode
_OPTIONS = 0.9  # inches: for their legend

_Options = NDArray[np.int64] | None  # [T] of an episode


def learning_curve(folders: Sequence[Path], out: Path) -> Path:
    """Return in training (smoothed) and on validation tasks, over environment steps → a picture at `out`.

    In training it is what the agent logs, that of the trial or that after adaptation; on validation tasks, the run's score.

    Raises:
        MetaRLError: a run without metrics.
    """
    figure, axes = plain()
    names = [folder.name for folder in folders]
    for i, folder in enumerate(folders):
        name = (
            folder.name if names.count(folder.name) == 1 else f"{folder.parent.name}/{folder.name}"
        )
        records = read_metrics(folder)
        if not records:
            raise MetaRLError(f"{folder} has no metrics to draw yet")
        color = f"C{i}"
        steps = np.array([record["env_steps"] for record in records]) / 1e6
        axes.plot(
            steps,
            _smooth([record["return"] for record in records]),
            color=color,
            alpha=0.4,
            linewidth=1,
        )
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
        axes.plot(
            episodes,
            curve["mean"],
            color=f"C{i}",
            label=name,
            marker="." if len(episodes) < 30 else None,
        )
        axes.fill_between(
            episodes, curve["low"], curve["high"], color=f"C{i}", alpha=0.2, linewidth=0
        )
    first = next(iter(scores.values()))
    optimum, tasks = (
        first["summary"].get("optimum"),
        "a closed family's tasks" if first["closed"] else "unseen tasks",
    )
    if optimum is not None:
        axes.axhline(
            optimum, color="black", linestyle=":", linewidth=1, label="task known (optimum)"
        )
    axes.set(
        xlabel="episodes consumed", ylabel="return of the episode", title=f"Adaptation to {tasks}"
    )
    axes.legend(frameon=False, fontsize="small")
    return save(figure, out)


def read_scores(folder: Path) -> dict[str, Any]:
    """Scores by agent from the last evaluation of a run, or else those of its result.

    Raises:
        MetaRLError: the run has neither.
    """
    if (path := folder / EVALUATION).is_file():
        return dict(json.loads(path.read_text())["scores"])
    if (path := folder / "result.json").is_file():
        result = json.loads(path.read_text())
        return {
            f"{result['config']['agent']['name']} ({split})": score
            for split, score in result["scores"].items()
        }
    raise MetaRLError(
        f"{folder} has no scores to draw yet; finish its training or run metarl evaluate {folder}"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Films


def storyboard(film: Film, out: Path) -> Path:
    """A panel an episode, seen from above, or else a strip of its frames → a picture at `out`.

    Of many episodes some are shown, evenly spread, with the first and the last.
    """
    shown = spread(film.length, _PANELS)
    panels: list[tuple[str, Scene, _Options]] = []
    strips: list[tuple[str, list[tuple[int, Picture]], _Options]] = []
    for k, episode in enumerate(film.episodes):
        title = f"episode {k + 1}: return {_number(episode.return_after())}"
        if k in shown and episode.scene is not None:
            panels.append((title, episode.scene, episode.options))
        elif k in shown:
            frames = [(t, episode.frames[t]) for t in spread(episode.steps, _PANELS)]
            strips.append((title, frames, episode.options))
    figure = _panels(panels, film.options) if panels else _strips(strips, film.options)
    figure.suptitle(film.title, fontsize="large")
    return save(figure, out)


def moving(film: Film, hold: int) -> Iterator[Picture]:
    """The pictures of a video: the T + 1 moments of every episode, the last of them `hold` times more."""
    screen: _Above | _Screen | None = None
    for k, episode in enumerate(film.episodes):
        if screen is None:
            screen = (
                _Above(film, episode.scene) if episode.scene else _Screen(film, episode.frames[0])
            )
        screen.begin(episode)
        for t in range(episode.steps + 1):
            paid = _number(episode.return_after(t))
            yield (
                picture := screen.show(
                    t, f"episode {k + 1} of {film.length},  step {t},  return {paid}"
                )
            )
        for _ in range(hold):
            yield picture


class _Above:
    """A figure in which the path of one episode after another grows; those of before stay as shadows."""

    def __init__(self, film: Film, first: Scene) -> None:
        left, right, bottom, top = limits([first])
        height = np.clip(6 * (top - bottom) / (right - left), 2, 9) + (1.7 if film.options else 1.2)
        width = 6.4 + _OPTIONS * bool(film.options)
        self._figure = Figure(
            figsize=(width, round(50 * height) / 50), dpi=100, layout="constrained"
        )
        self._canvas = FigureCanvasAgg(self._figure)
        self._axes = self._figure.add_subplot()
        self._figure.suptitle(film.title, fontsize="large")
        legend(self._figure, first, last="now", options=film.options)
        self._seen: list[Scene] = []

    def begin(self, episode: Episode) -> None:
        assert episode.scene is not None
        self._seen.append(episode.scene)
        self._axes.clear()
        for past in self._seen[:-1]:
            self._axes.plot(*past.path.numpy().T, color="0.85", linewidth=1)
        draw_ground(self._axes, episode.scene, limits(self._seen))
        self._growing: list[Way | Timeline] = [Way(self._axes, episode.scene, episode.options)]
        if episode.options is not None:
            self._growing.append(Timeline(below(self._axes), episode.options, episode.steps))

    def show(self, steps: int, caption: str) -> Picture:
        """After the first `steps` of the episode."""
        for growing in self._growing:
            growing.until(steps)
        self._axes.set_title(caption, loc="left", fontsize="medium")
        picture = _pixels(self._canvas)
        self._figure.set_layout_engine(
            "none"
        )  # to lay out once is enough, and takes longer than to draw
        return picture


class _Screen:
    """A figure that shows frames pixel by pixel below two lines of text."""

    def __init__(self, film: Film, first: Picture) -> None:
        zoom = -(-480 // first.shape[1])  # or the text would not fit
        height, width, text = zoom * first.shape[0], zoom * first.shape[1], 56
        foot, side = (40, 100 * _OPTIONS) if film.options else (0, 0)
        whole = height + text + foot
        self._figure = Figure(figsize=((width + side) / 100, whole / 100), dpi=100)
        self._canvas = FigureCanvasAgg(self._figure)
        axes = self._figure.add_axes((0, foot / whole, width / (width + side), height / whole))
        axes.axis("off")
        self._image = axes.imshow(first, aspect="auto", interpolation="nearest")
        self._figure.text(0.02, 1 - 8 / whole, film.title, va="top", fontsize="large")
        self._caption = self._figure.text(0.02, 1 - 34 / whole, "", va="top", fontsize="medium")
        if film.options:
            options_legend(self._figure, film.options)
            self._strip = self._figure.add_axes(
                (0.02, 26 / whole, width / (width + side) - 0.04, 12 / whole)
            )

    def begin(self, episode: Episode) -> None:
        self._frames, self._timeline = episode.frames, None
        if episode.options is not None:
            self._strip.clear()
            self._timeline = Timeline(self._strip, episode.options, episode.steps)

    def show(self, steps: int, caption: str) -> Picture:
        """Before the step after `steps`; the camera has not seen what the last one led to, so its frame stays."""
        self._image.set_data(self._frames[min(steps, len(self._frames) - 1)])
        if self._timeline is not None:
            self._timeline.until(steps)
        self._caption.set_text(caption)
        return _pixels(self._canvas)


def _panels(episodes: Sequence[tuple[str, Scene, _Options]], options: int) -> Figure:
    """Episodes side by side, all in the same limits, and below each its timeline, if there are options."""
    edges = left, right, bottom, top = limits([scene for _, scene, _ in episodes])
    rows = 1 if len(episodes) <= 4 else 2
    columns = -(-len(episodes) // rows)
    width = 4.5 if columns == 1 else 3.0
    height = width * np.clip((top - bottom) / (right - left), 0.3, 2) + (0.5 if options else 0)
    size = (columns * (width + 0.1) + 0.5 + _OPTIONS * bool(options), rows * (height + 0.3) + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    longest = max(len(scene.path) - 1 for _, scene, _ in episodes)
    for axes, (title, scene, ran) in zip(grid, episodes, strict=False):
        axes.set_title(title, loc="left", fontsize="medium")
        draw_ground(axes, scene, edges)
        Way(axes, scene, ran)
        if ran is not None:
            Timeline(below(axes), ran, longest)
    for axes in grid[len(episodes) :]:
        axes.remove()
    legend(figure, episodes[0][1], last="end", options=options)
    return figure


def _strips(
    strips: Sequence[tuple[str, Sequence[tuple[int, Picture]], _Options]], options: int
) -> Figure:
    """A strip of frames an episode, and below it its timeline, if there are options; a single episode takes two."""
    rows = 2 if len(strips) == 1 else 1
    columns = -(-max(len(frames) for _, frames, _ in strips) // rows)
    height, width, _ = strips[0][1][0][1].shape
    size, foot = 2.4 if rows == 2 else 1.6, 0.35 * bool(options)
    part_height = rows * (size * height / width + 0.25) + 0.3 + foot
    figure = Figure(
        figsize=(columns * size + _OPTIONS * bool(options), len(strips) * part_height + 0.4),
        layout="constrained",
    )
    longest = max(0 if ran is None else len(ran) for _, _, ran in strips)
    parts = figure.subfigures(len(strips), squeeze=False)[:, 0]
    for part, (title, frames, ran) in zip(parts, strips, strict=True):
        part.suptitle(title, x=0.01, ha="left", fontsize="medium")
        heights = [1] * rows + ([0.06] if options else [])
        grid = part.add_gridspec(len(heights), columns, height_ratios=heights)
        for place, (step, frame) in enumerate(frames):
            axes = part.add_subplot(grid[divmod(place, columns)])
            axes.imshow(frame)
            axes.set_title(f"step {step}", fontsize="small", color="0.4")
            axes.axis("off")
        if ran is not None:
            Timeline(part.add_subplot(grid[rows, :]), ran, longest)
    if options:
        options_legend(figure, options)
    return figure


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _pixels(canvas: FigureCanvasAgg) -> Picture:
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]


def _smooth(values: Sequence[float], share: float = 0.02) -> Array:
    """Running mean over a share of the run."""
    width = max(1, int(len(values) * share))
    return np.convolve(
        np.pad(values, (width - 1, 0), mode="edge"), np.full(width, 1 / width), mode="valid"
    )
