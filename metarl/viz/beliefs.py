"""A picture of an agent's predictions beside those of Bayes' rule."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from metarl.core.errors import ConfigError
from metarl.evaluation.beliefs import Beliefs
from metarl.evaluation.meta_test import to_numpy
from metarl.evaluation.stats import Array
from metarl.viz.style import FOOT, mute, pick_evenly, save

_COLUMNS = 6  # the most times in one picture
_BAYES, _AGENT = "0.75", "#3a78c2"


def draw_beliefs(beliefs: Beliefs, out: Path, task: int = 0) -> Path:
    """The expected reward of every question, by Bayes' rule and by the agent, for one task.

    A column a time. Questions at different places of a plane are drawn there, in two rows; others
    as bars.

    Raises:
        ConfigError: there is no such task.
    """
    exact, agent = (to_numpy(x.reward) for x in (beliefs.exact, beliefs.agent))  # [K, N, M, Q]
    count = exact.shape[1]
    if task >= count:
        raise ConfigError(f"task {task}: there are {count} tasks, and the first is task 0")
    times = pick_evenly(len(beliefs.times), _COLUMNS)
    means = np.stack([exact[times, task, 0], agent[times, task, 0]])  # [2, K, Q]
    titles = [f"after {beliefs.times[k]} steps" for k in times]
    places = to_numpy(beliefs.questions.next_obs)
    apart = len(np.unique(places, axis=0)) == len(places)
    if places.shape[1] == 2 and apart:
        figure = _draw_on_plane(means, places, titles)
    else:
        figure = _draw_bars(means, titles)
    figure.suptitle(f"{beliefs.title}: the expected reward, task {task}")
    return save(figure, out)


def _draw_on_plane(means: Array, places: Array, titles: list[str]) -> Figure:
    """means [2, K, Q] at places [Q, 2]: colors tell small ones apart better than large ones."""
    rows, columns, _ = means.shape
    figure = Figure((2.2 * columns + 1.5, 2.2 * rows + 1), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    scale = ScalarMappable(PowerNorm(0.5, means.min(), means.max()), "viridis")
    side = _side(places)
    for panels, by, name in zip(grid, means, ("Bayes' rule", "the agent"), strict=True):
        panels[0].set_ylabel(name)
        for axes, values in zip(panels, by, strict=True):
            axes.scatter(*places.T, c=scale.to_rgba(values), s=(110 / side) ** 2, marker="s")
            axes.set_aspect("equal")
            axes.margins(max(0.05, 0.5 / (side - 1)))
            mute(axes)
            axes.grid(visible=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, loc="left", fontsize="medium")
    bar = figure.colorbar(scale, ax=list(grid.flat), pad=0.01)
    bar.set_label("expected reward", size="small")
    mute(bar.ax)
    return figure


def _side(places: Array) -> int:
    """How many squares a side has if places [Q, 2] fill a panel evenly; at least 2."""
    return max(2, *(len(np.unique(column.round(3))) for column in places.T))


def _draw_bars(means: Array, titles: list[str]) -> Figure:
    """means [2, K, Q] as bars: those of Bayes' rule are wide, and the agent's stand before them."""
    _, columns, questions = means.shape
    width = min(6.0, 1.5 + 0.15 * questions)
    figure = Figure((columns * width + 1, 4), layout="constrained")
    panels = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    place = np.arange(questions, dtype=float)
    for axes, exact, agent, title in zip(panels, *means, titles, strict=True):
        _draw_panel(axes, place, exact, agent)
        axes.set_title(title, loc="left", fontsize="medium")
    panels[0].set_ylabel("expected reward")
    figure.legend(*panels[0].get_legend_handles_labels(), **FOOT)
    return figure


def _draw_panel(axes: Axes, place: Array, exact: Array, agent: Array) -> None:
    axes.bar(place, exact, width=0.8, color=_BAYES, label="Bayes' rule")
    axes.bar(place, agent, width=0.35, color=_AGENT, label="the agent")
    axes.set_xlabel("question", fontsize="small")
    mute(axes)
