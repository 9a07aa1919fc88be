"""The figures of a report: small panels, in colors that a page may change."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metarl.benchmark.report_tables import scaled_runs
from metarl.benchmark.results import BenchmarkResults, Entry
from metarl.benchmark.score_table import candidates, difference
from metarl.core.errors import shown
from metarl.evaluation import aggregates
from metarl.evaluation.stats import Array, Estimate
from metarl.experiments.comparison import RANDOM
from metarl.viz.curves import UNITS, Curve, axis_scale, draw_curve
from metarl.viz.learning import run_curves
from metarl.viz.style import pick_evenly

INK, FAINT, GRAY = "#1a1b1c", "#c9cacb", "#7f8081"
"""Of texts and axes, of grids, and of what others are compared with."""
COLORS = (
    "#2f6fbd",
    "#d9731a",
    "#8a4fb0",
    "#c42f4b",
    "#1b958f",
    "#9a8400",
    "#d0589f",
    "#7d5a45",
)
"""Of agents, in the order of the suite."""

LOOK: Any = {
    "text.parse_math": False,  # names are not formulas
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRAY,
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.fontsize": "small",
    "legend.frameon": False,
}
_SIZE = (4.4, 3.4)
_DOTS = 400
"""The most tasks in a scatter plot."""
_LONGEST = 24
"""Letters of a label."""
_TAUS = np.linspace(-0.25, 1.25, 61)


@dataclass(frozen=True)
class Picture:
    """A figure by name: a-z and dashes, and a label of a problem."""

    key: str
    words: str
    """What it shows, for who cannot see it."""
    figure: Figure


def draw_figures(results: BenchmarkResults) -> dict[str, list[Picture]]:
    """By section: aggregates, adaptation, learning, tasks; to be called and saved in `LOOK`."""
    return {
        "aggregates": list(_aggregates(results)),
        "adaptation": [_adaptation(results, problem) for problem in results.problems],
        "learning": list(_learning(results)),
        "tasks": list(_scatters(results)),
    }


def rivals(results: BenchmarkResults, problem: str) -> tuple[Entry, Entry] | None:
    """The best two candidates; None if there are not two on the same tasks."""
    best = candidates(results, problem)[:2]
    if len(best) < 2 or difference(*best) is None:
        return None
    return best[0], best[1]


def _panel(width: float = 1.0) -> tuple[Figure, Axes]:
    figure = Figure((_SIZE[0] * width, _SIZE[1]), layout="constrained")
    return figure, figure.subplots()


def _colors(results: BenchmarkResults) -> dict[str, str]:
    """Of each agent, the same in every figure."""
    learning = [agent for agent in results.agents if agent != RANDOM]
    colors = {agent: COLORS[i % len(COLORS)] for i, agent in enumerate(learning)}
    return {RANDOM: GRAY} | colors


def _styles(results: BenchmarkResults) -> dict[str, str]:
    """Of lines: those that share a color differ."""
    learning = [agent for agent in results.agents if agent != RANDOM]
    styles = ("-", "--", "-.", ":")
    return {RANDOM: "-"} | {a: styles[i // len(COLORS) % 4] for i, a in enumerate(learning)}


def _finish(figure: Figure, axes: Axes) -> None:
    """The legend below, for which the figure grows."""
    handles, labels = axes.get_legend_handles_labels()
    labels = [_short(label) for label in labels]
    if not handles:
        return
    columns = max(min(3, len(handles), 50 // (max(map(len, labels)) + 6)), 1)
    rows = ceil(len(handles) / columns)
    figure.set_figheight(_SIZE[1] + 0.18 * max(rows - 2, 0))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.2)


def _short(label: str) -> str:
    """A label that leaves room for the data."""
    return shown(label, _LONGEST)


# -------------------------------------------------------------------------------------------------
# Curves


def _adaptation(results: BenchmarkResults, problem: str) -> Picture:
    """Return of an episode over episodes consumed, of each agent."""
    figure, axes = _panel()
    colors, styles = _colors(results), _styles(results)
    for entry in results.of_problem(problem):
        curve = entry.test.curve()
        low, high = (
            None if curve[key] is None else np.array(curve[key]) for key in ("low", "high")
        )
        x = np.array(entry.test.episodes_consumed, float)
        drawn = Curve("return", entry.agent, x, np.array(curve["mean"]), low, high)
        look = {"linestyle": styles[entry.agent]}
        draw_curve(axes, drawn, colors[entry.agent], 1, entry.agent, **look)
    optimum = results.optimum(problem, "last")
    if optimum is not None:
        axes.axhline(optimum, color=INK, linestyle=":", linewidth=1, label="known optimum")
    axes.set(title=_short(problem), xlabel="episodes consumed", ylabel="return of an episode")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _finish(figure, axes)
    return Picture(f"adaptation-{problem}", f"{problem}: return over episodes consumed", figure)


def _learning(results: BenchmarkResults) -> Iterator[Picture]:
    """Validation score over environment steps and over minutes."""
    for problem in results.problems:
        records = {
            entry.agent: {f"seed {cell.seed}": cell.curve for cell in entry.cells}
            for entry in results.of_problem(problem)
            if entry.trained
        }
        for x in ("env_steps", "minutes"):
            curves = {
                agent: run_curves(agent, runs, "validation", "validation", x)
                for agent, runs in records.items()
            }
            drawn = {agent: lines for agent, lines in curves.items() if lines}
            if drawn:
                yield _learning_panel(results, problem, drawn, x)


def _learning_panel(
    results: BenchmarkResults,
    problem: str,
    curves: Mapping[str, Sequence[Curve]],
    x: str,
) -> Picture:
    figure, axes = _panel()
    colors, styles = _colors(results), _styles(results)
    top = max(float(curve.x.max(initial=0)) for lines in curves.values() for curve in lines)
    divisor, unit = axis_scale(x, top)
    for agent, (*behind, mean) in curves.items():
        for run in behind:
            draw_curve(axes, run, colors[agent], divisor, None, alpha=0.4, linewidth=0.6)
        draw_curve(axes, mean, colors[agent], divisor, agent, linestyle=styles[agent])
    axes.set(title=_short(problem), xlabel=UNITS[x] + unit, ylabel="validation score")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    _finish(figure, axes)
    words = f"{problem}: validation score over {UNITS[x]}"
    return Picture(f"learning-{problem}-{x.replace('_', '-')}", words, figure)


# -------------------------------------------------------------------------------------------------
# Over problems


def _aggregates(results: BenchmarkResults) -> Iterator[Picture]:
    """The scaled score of every run, and performance profiles."""
    _, agents = scaled_runs(results)
    if not agents:
        return
    colors = _colors(results)
    figure, axes = _panel()
    for place, (agent, runs) in enumerate(reversed(agents.items())):
        scores = np.concatenate(runs)
        y = place + np.linspace(-0.25, 0.25, len(scores)) if len(scores) > 1 else [place]
        axes.plot(scores, y, ".", color=colors[agent], alpha=0.5)
        estimate = aggregates.iqm(runs)
        axes.plot([estimate.value], [place], "D", color=INK, markersize=5)
        if estimate.over_runs is not None:
            axes.plot(estimate.over_runs, [place, place], color=INK, linewidth=2)
    axes.set_yticks(range(len(agents)), [_short(agent) for agent in agents][::-1])
    axes.set(title="each run, and the interquartile mean", xlabel="scaled score")
    yield Picture("aggregates-runs", "scaled score of each run, by agent", figure)

    figure, axes = _panel()
    for agent, runs in agents.items():
        _profile(axes, runs, colors[agent], _styles(results)[agent], agent)
    axes.set(title="performance profiles", xlabel="scaled score τ", ylabel="share of runs above τ")
    _finish(figure, axes)
    yield Picture("aggregates-profiles", "share of runs above each scaled score, by agent", figure)


def _profile(axes: Axes, runs: Sequence[Array], color: str, style: str, label: str) -> None:
    shares: list[Estimate] = aggregates.performance_profile(runs, _TAUS.tolist())
    values = [share.value for share in shares]
    axes.step(_TAUS, values, where="post", color=color, linestyle=style, label=label)
    ends = [share.over_runs for share in shares if share.over_runs is not None]
    if len(ends) == len(shares):
        low, high = zip(*ends, strict=True)
        axes.fill_between(_TAUS, low, high, step="post", color=color, alpha=0.15, linewidth=0)


# -------------------------------------------------------------------------------------------------
# Single tasks


def _scatters(results: BenchmarkResults) -> Iterator[Picture]:
    """The two best candidates of each problem, a dot a task."""
    for problem in results.problems:
        pair = rivals(results, problem)
        if pair is None:
            continue
        best, other = (entry.rows.mean(0) for entry in pair)
        order = np.argsort(best - other, kind="stable")
        kept = order[pick_evenly(len(order), _DOTS)]
        figure, axes = _panel()
        ends = [min(best.min(), other.min()), max(best.max(), other.max())]
        axes.plot(ends, ends, color=GRAY, linewidth=1)
        axes.plot(other[kept], best[kept], ".", color=COLORS[0], alpha=0.5, markeredgewidth=0)
        title = f"{_short(problem)}: {len(order)} tasks"
        if len(kept) < len(order):
            title = f"{_short(problem)}: {len(kept)} of {len(order)} tasks"
        axes.set(title=title, xlabel=_short(pair[1].agent), ylabel=_short(pair[0].agent))
        words = f"{problem}: scores of {pair[0].agent} over those of {pair[1].agent}, by task"
        yield Picture(f"tasks-{problem}", words, figure)
