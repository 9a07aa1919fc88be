"""The episodes of a film, as one picture or as those of a video."""

from collections.abc import Iterator, Mapping
from math import ceil
from pathlib import Path
from textwrap import wrap

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from metarl.core.progress import tell
from metarl.core.types import Scene, replace
from metarl.evaluation.episodes import Episode, Film, Picture
from metarl.viz.scene import EpisodeMap, draw_legend, fit_limits, limits_of
from metarl.viz.style import create_panels, pick_evenly, save
from metarl.viz.timeline import LEGEND_WIDTH, Timeline, draw_options_legend

_LETTER = 7.2  # pixels that one takes in a line of text, about
_PANELS = 8  # the most episodes in one picture, and the most frames of an episode


def frames_apart(horizon: int) -> int:
    """Steps between the frames that a storyboard chooses among: twice as many as it shows."""
    return max(1, horizon // (2 * _PANELS))


def draw_storyboard(film: Film, out: Path) -> Path:
    """A panel an episode, seen from above, or a strip of its frames → a picture at `out`.

    Of many episodes some are shown, evenly spaced, the first and the last among them.
    """
    shown = pick_evenly(film.length, _PANELS)
    episodes = {}
    for k, episode in enumerate(film.episodes):
        if k in shown:
            title = f"episode {k + 1}: return {episode.return_after():.2f}".replace("-", "−")
            if not episode.scene:  # frames are large: those that are not shown are given up
                frames = tuple(episode.frames[i] for i in _picked(episode))
                episode = replace(episode, frames=frames)
            episodes[title] = episode
    draw = _draw_scenes if episode.scene else _draw_strips
    figure = draw(episodes, film.num_options)
    figure.suptitle(film.title)
    return save(figure, out)


def _picked(episode: Episode) -> list[int]:
    """Which of its frames are shown."""
    return pick_evenly(ceil(episode.steps / episode.every), _PANELS)


def _draw_scenes(episodes: Mapping[str, Episode], num_options: int) -> Figure:
    """Scenes in the same limits, and below each its timeline, if there are options."""
    scenes = [episode.scene for episode in episodes.values() if episode.scene]
    limits = fit_limits(scenes)
    width = 4.5 if len(scenes) == 1 else 3.0
    height = width * np.clip(limits.aspect, 0.3, 2)
    side = 0.5
    if num_options:
        height += 0.5
        side += LEGEND_WIDTH
    figure, panels = create_panels(len(scenes), width + 0.1, height + 0.3, (side, 0.9))
    longest = max(episode.steps for episode in episodes.values())
    for axes, scene, title in zip(panels, scenes, episodes, strict=True):
        axes.set_title(title, loc="left", fontsize="medium")
        EpisodeMap(axes, scene, limits, episodes[title].options, longest)
    draw_legend(figure, scenes[0], "end", num_options)
    return figure


def _draw_strips(episodes: Mapping[str, Episode], num_options: int) -> Figure:
    """Strips of frames, and below each its timeline, if there are options.

    A single strip takes two rows.
    """
    longest = max(episode.steps for episode in episodes.values())
    rows = 2 if len(episodes) == 1 else 1
    columns = ceil(max(len(episode.frames) for episode in episodes.values()) / rows)
    size = 2.4 if rows == 2 else 1.6
    height, width, _ = next(iter(episodes.values())).frames[0].shape
    part_height = rows * (size * height / width + 0.25) + 0.3
    whole_width = columns * size
    heights = [1.0] * rows
    if num_options:
        part_height += 0.35
        whole_width += LEGEND_WIDTH
        heights.append(0.06)
    figure = Figure((whole_width, len(episodes) * part_height + 0.4), layout="constrained")
    parts = figure.subfigures(len(episodes), squeeze=False)[:, 0]
    for part, (title, episode) in zip(parts, episodes.items(), strict=True):
        part.suptitle(title, x=0.01, ha="left", fontsize="medium")
        grid = part.add_gridspec(len(heights), columns, height_ratios=heights)
        steps = [episode.every * i for i in _picked(episode)]
        for place, frame in enumerate(episode.frames):
            axes = part.add_subplot(grid[place])
            axes.imshow(frame)
            axes.set_title(f"step {steps[place]}", fontsize="small", color="0.4")
            axes.axis("off")
        if episode.options is not None:
            Timeline(part.add_subplot(grid[rows, :]), episode.options, longest)
    if num_options:
        draw_options_legend(figure, num_options)
    return figure


# -------------------------------------------------------------------------------------------------
# Moving pictures


def animate(film: Film, hold: int) -> Iterator[Picture]:
    """The T + 1 moments of every episode, the last of them `hold` times more."""
    screen: _Ground | _Screen | None = None
    for k, episode in enumerate(film.episodes):
        if screen is None:
            screen = _Ground(film, episode) if episode.scene else _Screen(film, episode)
        screen.begin(episode)
        for t in range(episode.steps + 1):
            reached = f"{episode.return_after(t):.2f}".replace("-", "−")
            caption = f"episode {k + 1} of {film.length},  step {t},  return {reached}"
            picture = screen.draw(t, caption)
            yield picture
            drawn = f"pictures of episode {k + 1} of {film.length}"
            tell(drawn, (k + (t + 1) / (episode.steps + 1)) / film.length)
        yield from [picture] * hold


class _Ground:
    """A scene in which the path of an episode grows; those of earlier episodes stay in gray."""

    def __init__(self, film: Film, first: Episode):
        assert first.scene is not None
        width = 6.4
        height = np.clip(6 * limits_of([first.scene]).aspect, 2, 9) + 1.4
        if film.num_options:
            width += LEGEND_WIDTH
            height += 0.5
        size = (width, round(50 * height) / 50)  # an even number of pixels
        self._figure = Figure(size, dpi=100, layout="constrained")
        self._axes = self._figure.add_subplot()
        self._figure.suptitle(film.title)
        draw_legend(self._figure, first.scene, "now", film.num_options)
        self._scenes: list[Scene] = []

    def begin(self, episode: Episode) -> None:
        scene = episode.scene
        assert scene is not None
        self._axes.clear()
        for earlier in self._scenes:
            self._axes.plot(*earlier.path.numpy().T, color="0.85", linewidth=1)
        self._scenes.append(scene)
        limits = limits_of(self._scenes)
        self._map = EpisodeMap(self._axes, scene, limits, episode.options, episode.steps)

    def draw(self, steps: int, caption: str) -> Picture:
        """The state after the first `steps` of the episode."""
        self._map.show(steps)
        self._axes.set_title(caption, loc="left", fontsize="medium")
        picture = _pixels(self._figure)
        self._figure.set_layout_engine("none")  # keep the first layout: another takes long
        return picture


class _Screen:
    """Frames pixel by pixel below lines of text."""

    def __init__(self, film: Film, first: Episode):
        frame = first.frames[0]
        zoom = ceil(480 / frame.shape[1])  # or the text would not fit
        self._pixel = np.ones((zoom, zoom, 1), np.uint8)
        height, width = zoom * frame.shape[0], zoom * frame.shape[1]
        foot, side = (40, 100 * LEGEND_WIDTH) if film.num_options else (0, 0)
        title, *words = film.title.split("\n")
        lines = [line for text in words for line in wrap(text, int(width / _LETTER))]
        top, right = height + 56 + 24 * len(lines) + foot, width + side
        self._figure = figure = Figure((right / 100, top / 100), dpi=100)
        self._image = figure.figimage(np.kron(frame, self._pixel), 0, foot)
        figure.text(0.02, 1 - 8 / top, title, va="top", fontsize="large")
        for place, line in enumerate([*lines, ""]):  # the last one is the caption
            below = 1 - (34 + 24 * place) / top
            self._caption = figure.text(0.02, below, line, va="top", fontsize="medium")
        if film.num_options:
            draw_options_legend(figure, film.num_options)
            self._strip = figure.add_axes((0.02, 26 / top, width / right - 0.04, 12 / top))

    def begin(self, episode: Episode) -> None:
        self._frames = episode.frames
        self._timeline = None
        if episode.options is not None:
            self._strip.clear()
            self._timeline = Timeline(self._strip, episode.options, episode.steps)

    def draw(self, steps: int, caption: str) -> Picture:
        """The frame before the next step; there is none after the last, whose frame stays."""
        frame = self._frames[min(steps, len(self._frames) - 1)]
        self._image.set_data(np.kron(frame, self._pixel))
        if self._timeline is not None:
            self._timeline.show(steps)
        self._caption.set_text(caption)
        return _pixels(self._figure)


def _pixels(figure: Figure) -> Picture:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
