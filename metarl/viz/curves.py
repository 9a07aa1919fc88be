"""Curves of runs: how they learned, and how the trained agents adapt to unseen tasks.

The runs of one configuration are one curve. Beside every picture a table (.csv) holds what is drawn
in it, number by number.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from metarl.config.files import load_config
from metarl.config.schema import Choice, Config, to_dict
from metarl.core.errors import CheckpointError, ConfigError, suggest
from metarl.evaluation.stats import Array, t_interval
from metarl.experiments.checkpoints import write_atomically
from metarl.experiments.comparison import runs as runs_in
from metarl.experiments.folder import EVALUATION, read_if_whole
from metarl.experiments.logs import read_metrics
from metarl.viz.style import FOOT, create_axes, save

FORMATS = ("png", "svg", "pdf")

UNITS = {
    "env_steps": "environment steps",
    "minutes": "minutes of training",
    "iterations": "iterations",
}
_SMOOTHED = 2  # percent of a run's iterations
_FEW = 30  # points that are marked one by one
_ALIKE = (
    "agent",
    "family",
    "world",
    "episodes",
    "train_tasks",
    "mode",
    "test_mode",
    "score",
    "validation_tasks",
)
"""What the runs of one curve have in common; their ready-made options may differ."""


@dataclass(frozen=True)
class Curve:
    """A line of P points, and its band if it has one: a row of the table a point."""

    quantity: str
    group: str
    x: Array  # [P]
    mean: Array  # [P]
    low: Array | None = None  # [P]
    high: Array | None = None  # [P]
    runs: int | None = None
    """None: unknown."""


@dataclass(frozen=True)
class Group:
    """Runs of one configuration."""

    label: str
    config: Config
    records: dict[str, list[dict[str, Any]]]
    """By the run's name."""


# -------------------------------------------------------------------------------------------------
# Learning


def draw_learning_curve(
    paths: Sequence[Path],
    out: Path,
    x: str = "env_steps",
    formats: Sequence[str] = ("png",),
) -> list[Path]:
    """Training return and validation score while learning → learning.png … and .csv in `out`.

    Each of `paths` is a run or a folder of several seeds, and one curve: of two runs or more their
    mean with its 95 % Student t interval, and behind it every run. Runs whose records lie at
    different x are interpolated linearly, at the records of the run that has the fewest, from where
    the last of them begins to where the first of them ends. A quantity has a panel of its own.

    Args:
        x: "env_steps", "minutes" or "iterations".
        formats: of the picture, among `FORMATS`.

    Raises:
        MetaRLError: a run without metrics or configuration, or runs that cannot share a curve or
            an axis.
    """
    groups = read_groups(paths)
    configs = [group.config for group in groups]
    panels: dict[str, dict[str, list[Curve]]] = {}
    for key, quantity_of in (("return", _training), ("validation", _validation)):
        for group in groups:
            curves = run_curves(group.label, group.records, key, quantity_of(group), x)
            if curves:
                panels.setdefault(curves[0].quantity, {})[group.label] = curves
    if not panels:
        raise CheckpointError(f"{', '.join(map(str, paths))}: no return was logged yet")

    colors = {group.label: f"C{i}" for i, group in enumerate(groups)}
    drawn = [curve for panel in panels.values() for curves in panel.values() for curve in curves]
    divisor, unit = axis_scale(x, max(curve.x.max(initial=0) for curve in drawn))
    figure, panes = create_axes(len(panels))
    for axes, (quantity, panel) in zip(panes, panels.items(), strict=True):
        for label, (*behind, curve) in panel.items():
            for run in behind:
                axes.plot(run.x / divisor, run.mean, color=colors[label], alpha=0.4, linewidth=0.7)
            draw_curve(
                axes, curve, colors[label], divisor, _counted(label, len(curve.x), curve.runs)
            )
        kind, _, what = quantity.partition(": ")
        title = f"training: mean of the last {_SMOOTHED} % of iterations"
        if kind == "validation":
            shown = [group.config for group in groups if group.label in panel]
            title = f"validation: mean over {_join(map(_validated_on, shown))}"
        axes.set_title(title, loc="left", fontsize="medium")
        axes.set(xlabel=UNITS[x] + unit, ylabel=what)
        axes.legend(frameon=False, fontsize="small")
    agents = _join(_named(config.agent) for config in configs)
    figure.suptitle(f"{_join(_named(config.family) for config in configs)}: {agents}")
    if any(curve.low is not None for curve in drawn):
        figure.legend(handles=_foot(panels), **FOOT)
    out.mkdir(parents=True, exist_ok=True)
    pictures = [save(figure, out / f"learning.{suffix}") for suffix in formats]
    return [*pictures, write_table(drawn, x, out / "learning.csv")]


def _foot(panels: Mapping[str, Mapping[str, Sequence[Curve]]]) -> list[Artist]:
    """What stands for several runs, and how their mean was taken if their records differ in x."""
    handles: list[Artist] = [
        Patch(color="0.5", alpha=0.3, label="95 % Student t interval of the mean over runs"),
        Line2D([], [], color="0.6", linewidth=0.7, label="a single run"),
    ]
    for panel in panels.values():
        for *behind, mean in panel.values():
            if not all(np.array_equal(run.x, mean.x) for run in behind):
                label = "mean of what is interpolated linearly between a run's records"
                return [*handles, Line2D([], [], color="0.3", label=label)]
    return handles


def read_groups(paths: Sequence[Path]) -> list[Group]:
    """One a path.

    Raises:
        MetaRLError: no run there, a run without configuration or metrics, runs of a folder that
            are not of one configuration, or runs of several families, whose returns differ.
    """
    given = {path.resolve(): path for path in paths}
    groups = []
    for path, label in zip(given.values(), _labels(list(given)), strict=True):
        groups.append(_read_group(path, label))
    families = sorted({group.config.family.name for group in groups})
    if len(families) > 1:
        raise ConfigError(
            f"{' and '.join(families)} have returns of their own: draw one family at a time"
        )
    return groups


def _read_group(path: Path, label: str) -> Group:
    folders = runs_in(path)
    configs = [read_config(folder) for folder in folders]
    records = {}
    for folder, config in zip(folders, configs, strict=True):
        differing = [key for key in _ALIKE if _part(config, key) != _part(configs[0], key)]
        if differing:
            raise ConfigError(
                f"{folder} differs from {folders[0].name} in its {', '.join(differing)}: a curve "
                "is of one configuration; name every run by itself"
            )
        records[folder.name] = read_metrics(folder)
        if not records[folder.name]:
            raise CheckpointError(f"{folder} has no metrics to draw yet")
    return Group(label, configs[0], records)


def read_config(folder: Path) -> Config:
    """The configuration of the run in `folder`.

    Raises:
        MetaRLError: there is none that can be read.
    """
    if folder.is_file():
        raise CheckpointError(f"{folder} is a checkpoint: name its run folder")
    return load_config(folder / "config.yaml", code=False)


def _part(config: Config, key: str) -> Any:
    part = to_dict(config)[key]
    if key == "agent":
        part.pop("pretrained_options", None)
    return part


def _labels(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of `paths` that differ."""
    depth = 1
    while True:
        labels = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(labels)) == len(paths):
            return labels
        depth += 1


def _training(group: Group) -> str:
    """The return that the agent logs: of a trial, or of an episode after adaptation."""
    logged = [record for records in group.records.values() for record in records]
    known = [record for record in logged if "return" in record and "last_return" in record]
    what = "return, as the agent logs it"
    if known:
        adapted = all(record["return"] == record["last_return"] for record in known)
        what = "return of an episode after adaptation" if adapted else "return of a trial"
    return f"training: {what}"


def _validation(group: Group) -> str:
    score = group.config.score.removeprefix("-")
    if score == "total":
        return "validation: return of a trial"
    return f"validation: {'return' if score == 'last' else score} of a trial's last episode"


def _validated_on(config: Config) -> str:
    onehot = to_dict(config)["agent"].get("task_input") == "onehot"
    return f"{config.validation_tasks} {'training' if onehot else 'validation'} tasks"


def run_curves(
    label: str,
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    key: str,
    quantity: str,
    x: str,
) -> list[Curve]:
    """Of the single runs that logged `key`, and at last of their mean if there are several.

    Args:
        runs: records by the name of the run.
    """
    curves = []
    for name, records in runs.items():
        logged = [record for record in records if key in record]
        if logged:
            values = np.array([record[key] for record in logged])
            if key == "return":
                values = smooth(values)
            own = f"{label}/{name}" if len(runs) > 1 else label
            curves.append(Curve(quantity, own, _places(logged, x), values, runs=1))
    if len(curves) > 1:
        places = common_places([curve.x for curve in curves])
        values = np.stack([np.interp(places, curve.x, curve.mean) for curve in curves])
        mean = Curve(quantity, label, places, *t_interval(values), len(curves))
        curves.append(mean)
    return curves


def _places(records: Sequence[Mapping[str, Any]], x: str) -> Array:
    """[P]"""
    key, unit = {"minutes": ("seconds", 60), "iterations": ("iteration", 1)}.get(x, (x, 1))
    return np.array([record[key] / unit for record in records])


def smooth(values: Array) -> Array:
    """[P]: the mean of the last 2 % of a run's P values; at its beginning, of those before."""
    width = max(1, len(values) * _SMOOTHED // 100)
    sums = np.convolve(values, np.ones(width))[: len(values)]
    return sums / np.minimum(np.arange(len(values)) + 1, width)


def common_places(places: Sequence[Array]) -> Array:
    """Where runs with records at `places` [R][P] are averaged: see `draw_learning_curve`."""
    if all(np.array_equal(own, places[0]) for own in places):
        return places[0]
    first, last = max(own[0] for own in places), min(own[-1] for own in places)
    fewest = min(places, key=len)
    ends = [first, last] if first <= last else []
    return np.union1d(fewest[(fewest >= first) & (fewest <= last)], ends)


def axis_scale(x: str, top: float) -> tuple[float, str]:
    """The divisor of an axis up to `top`, and how to call it."""
    if x == "minutes" or top < 1e4:
        return 1, ""
    return (1e6, " (millions)") if top >= 1e6 else (1e3, " (thousands)")


# -------------------------------------------------------------------------------------------------
# Adaptation


def draw_adaptation_curve(folder: Path, out: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Return of an episode over episodes consumed → adaptation.png … and adaptation.csv in `out`.

    Of the last evaluation of the run in `folder`, or else of its result: a curve an agent, with the
    interval that evaluation found.

    Raises:
        MetaRLError: a run without scores or configuration.
    """
    scores = read_scores(folder)
    family = _named(read_config(runs_in(folder)[0]).family)
    figure, (axes,) = create_axes(1)
    consumed = [score["episodes_consumed"] for score in scores.values()]
    ends = np.array([min(x[0] for x in consumed), max(x[-1] for x in consumed)], float)
    optima = {name: score["summary"].get("optimum") for name, score in scores.items()}
    shared = len(set(optima.values())) == 1
    drawn: list[Curve] = []
    known: list[Curve] = []
    for i, (name, score) in enumerate(scores.items()):
        curve = _adaptation(name, score)
        drawn.append(curve)
        counted = _counted(name, len(curve.x), curve.runs)
        draw_curve(axes, curve, f"C{i}", 1, f"{counted}, {_interval(score['summary']['curve'])}")
        if optima[name] is not None and not (shared and known):
            label = "task known (optimum)" if shared else f"{name}: task known (optimum)"
            line = Curve("optimum", "" if shared else name, ends, np.full(2, optima[name]))
            axes.plot(
                line.x,
                line.mean,
                color="black" if shared else f"C{i}",
                linestyle=":",
                linewidth=1,
                label=label,
            )
            known.append(line)
    trained = next(iter(scores.values())).get("trained_episodes")
    if trained is not None and trained < ends[1]:
        label = f"the {trained} episodes of a trial in training"
        axes.axvline(trained, color="0.4", linestyle="--", linewidth=1, label=label)
    axes.set(xlabel="episodes consumed", ylabel="return of an episode")
    axes.set_title(_join(map(_conditions, scores.values())), loc="left", fontsize="medium")
    figure.suptitle(f"{family}: adaptation to {_join(map(_met, scores.values()))}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    figure.legend(**FOOT | {"ncols": 2})
    out.mkdir(parents=True, exist_ok=True)
    pictures = [save(figure, out / f"adaptation.{suffix}") for suffix in formats]
    table = write_table([*drawn, *known], "episodes_consumed", out / "adaptation.csv")
    return [*pictures, table]


def read_scores(folder: Path) -> dict[str, Any]:
    """Scores by agent of the last evaluation of a run, or else of its result.

    Raises:
        MetaRLError: the run has neither.
    """
    again = f"run metarl evaluate {folder}"
    content = read_if_whole(folder / EVALUATION, again)
    if content is not None:
        return dict(content["scores"])
    content = read_if_whole(folder / "result.json", "metarl train --resume writes it again")
    if content is None:
        raise CheckpointError(f"{folder} has no scores to draw; finish its training or {again}")
    agent = content["config"]["agent"]["name"]
    return {f"{agent} ({split})": score for split, score in content["scores"].items()}


def _adaptation(name: str, score: Mapping[str, Any]) -> Curve:
    curve = score["summary"]["curve"]
    low, high = (
        None if curve[key] is None else np.array(curve[key], float) for key in ("low", "high")
    )
    return Curve(
        "return of an episode",
        name,
        np.array(score["episodes_consumed"], float),
        np.array(curve["mean"], float),
        low,
        high,
        _size(score)[0],
    )


def _size(score: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Runs and tasks, where they are known: old evaluations kept neither."""
    if "returns" in score:
        runs, _, tasks = np.shape(score["returns"])
        return runs, tasks
    runs_of = score["summary"].get("total", {}).get("runs")
    return None if runs_of is None else len(runs_of), score.get("tasks")


def _interval(curve: Mapping[str, Any]) -> str:
    if curve["low"] is None:
        return "no interval"
    return f"95 % interval {curve.get('interval') or ''}".rstrip()


def _met(score: Mapping[str, Any]) -> str:
    """Which tasks."""
    _, tasks = _size(score)
    count = "" if tasks is None else f"{tasks} "
    closed = ", which all splits share" if score["closed"] else ""
    return f"{count}{score['split']} tasks{closed}"


def _conditions(score: Mapping[str, Any]) -> str:
    """How actions are chosen."""
    last = score.get("test_mode", score["mode"])
    return f"actions: {score['mode']}" + (
        f", {last} in the last round" if last != score["mode"] else ""
    )


# -------------------------------------------------------------------------------------------------
# Both


def check_formats(text: str) -> list[str]:
    """The formats named in `text`, such as ``png,svg``.

    Raises:
        ConfigError: one that is none of `FORMATS`.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in FORMATS:
            raise ConfigError(f"format {name!r}: {suggest(name, FORMATS)}")
    return list(dict.fromkeys(names))


def write_table(curves: Sequence[Curve], x: str, out: Path) -> Path:
    """A row a point, in the columns quantity, group, `x`, mean, low, high and runs → `out`.

    What is unknown is empty.
    """
    content = io.StringIO()
    table = csv.writer(content, lineterminator="\n")
    table.writerow(["quantity", "group", x, "mean", "low", "high", "runs"])
    for curve in curves:
        empty = [None] * len(curve.x)
        low, high = (empty if end is None else end.tolist() for end in (curve.low, curve.high))
        for point in zip(curve.x.tolist(), curve.mean.tolist(), low, high, strict=True):
            table.writerow([curve.quantity, curve.group, *point, curve.runs])
    write_atomically(out, content.getvalue().encode())
    return out


def draw_curve(
    axes: Axes,
    curve: Curve,
    color: str,
    divisor: float,
    label: str | None,
    **look: Any,
) -> None:
    """With its band; few points are marked. `look` is that of the line."""
    x = curve.x / divisor
    marker = "." if len(x) < _FEW else None
    axes.plot(x, curve.mean, color=color, marker=marker, label=label, **look)
    if curve.low is None or curve.high is None:
        return
    if len(x) == 1:
        axes.vlines(x, curve.low, curve.high, color=color, alpha=0.4, linewidth=3)
        return
    axes.fill_between(
        x,
        curve.low,
        curve.high,
        color=color,
        alpha=0.2,
        linewidth=0,
    )


def _counted(label: str, points: int, runs: int | None) -> str:
    """The name of a curve and of how many runs it is."""
    if runs is None:
        return label
    if not points:
        return f"{label}: {runs} runs that have no x in common, so no mean"
    return f"{label}: {runs} {'run' if runs == 1 else 'runs'}"


def _named(choice: Choice) -> str:
    """The name, and the variant if it is not the default one."""
    name = choice.name.rpartition(":")[2]
    fields = type(choice.settings).model_fields
    if "variant" not in fields:
        return name
    variant = choice.settings.model_dump()["variant"]
    return name if variant == fields["variant"].default else f"{name} ({variant})"


def _join(words: Iterable[str]) -> str:
    """Each once."""
    return ", ".join(dict.fromkeys(words))
