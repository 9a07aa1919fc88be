"""How runs learned: training return and validation score, as a picture and a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from metarl.config.schema import Config, to_dict
from metarl.core.disk import make_folder
from metarl.core.errors import CheckpointError, ConfigError
from metarl.evaluation.stats import Array, t_interval
from metarl.experiments.comparison import runs as runs_in
from metarl.experiments.logs import read_metrics
from metarl.viz.curves import (
    UNITS,
    Curve,
    axis_scale,
    counted,
    draw_curve,
    join,
    named,
    read_config,
    write_table,
)
from metarl.viz.style import FOOT, create_axes, save

_SMOOTHED = 2  # percent of a run's iterations
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
class Group:
    """Runs of one configuration."""

    label: str
    config: Config
    records: dict[str, list[dict[str, Any]]]
    """By the run's name."""


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
        _draw_panel(axes, panel, colors, divisor)
        kind, _, what = quantity.partition(": ")
        title = f"training: mean of the last {_SMOOTHED} % of iterations"
        if kind == "validation":
            shown = [group.config for group in groups if group.label in panel]
            title = f"validation: mean over {join(map(_validated_on, shown))}"
        axes.set_title(title, loc="left", fontsize="medium")
        axes.set(xlabel=UNITS[x] + unit, ylabel=what)
        axes.legend(frameon=False, fontsize="small")
    agents = join(named(config.agent) for config in configs)
    figure.suptitle(f"{join(named(config.family) for config in configs)}: {agents}")
    if any(curve.low is not None for curve in drawn):
        figure.legend(handles=_foot(panels), **FOOT)
    make_folder(out)
    pictures = [save(figure, out / f"learning.{suffix}") for suffix in formats]
    return [*pictures, write_table(drawn, x, out / "learning.csv")]


def _draw_panel(
    axes: Axes,
    panel: Mapping[str, Sequence[Curve]],
    colors: Mapping[str, str],
    divisor: float,
) -> None:
    """The curves of a quantity, by label, each with its single runs behind it."""
    for label, (*behind, curve) in panel.items():
        for run in behind:
            axes.plot(run.x / divisor, run.mean, color=colors[label], alpha=0.4, linewidth=0.7)
        draw_curve(axes, curve, colors[label], divisor, counted(label, len(curve.x), curve.runs))


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
