"""How trained agents adapt to unseen tasks, episode by episode, as a picture and a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metarl.core.disk import make_folder
from metarl.core.errors import CheckpointError
from metarl.evaluation.scores import acting_in_words, modes_in_words
from metarl.experiments.comparison import runs as runs_in
from metarl.experiments.folder import EVALUATION, read_if_whole
from metarl.viz.curves import Curve, counted, draw_curve, join, named, read_config, write_table
from metarl.viz.style import FOOT, create_axes, save


def draw_adaptation_curve(folder: Path, out: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Return of an episode over episodes consumed → adaptation.png … and adaptation.csv in `out`.

    Of the last evaluation of the run in `folder`, or else of its result: a curve an agent, with the
    interval that evaluation found.

    Raises:
        MetaRLError: a run without scores or configuration.
    """
    family = named(read_config(runs_in(folder)[0]).family)
    figure, curves = adaptation_figure(read_scores(folder), family)
    make_folder(out)
    pictures = [save(figure, out / f"adaptation.{suffix}") for suffix in formats]
    return [*pictures, write_table(curves, "episodes_consumed", out / "adaptation.csv")]


def adaptation_figure(scores: Mapping[str, Any], family: str) -> tuple[Figure, list[Curve]]:
    """A curve an agent, of its `Scores.to_dict` by name, and the optimum where it is known."""
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
        label = counted(name, len(curve.x), curve.runs)
        draw_curve(axes, curve, f"C{i}", 1, f"{label}, {_interval(score['summary']['curve'])}")
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
    acting = {name: score.get("acting", "") for name, score in scores.items()}
    title = [join(map(_conditions, scores.values())), *acting_in_words(acting)]
    axes.set_title("\n".join(title), loc="left", fontsize="medium")
    figure.suptitle(f"{family}: adaptation to {join(map(_met, scores.values()))}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    figure.legend(**FOOT | {"ncols": 2})
    return figure, [*drawn, *known]


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
    return scores_by_split(content)


def scores_by_split(result: Mapping[str, Any]) -> dict[str, Any]:
    """The scores in a result, each under the name of the agent with its split."""
    agent = result["config"]["agent"]["name"]
    return {f"{agent} ({split})": score for split, score in result["scores"].items()}


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
    mode = score["mode"]
    words = modes_in_words(mode, score.get("test_mode", mode), score.get("test_rounds", 1))
    return f"actions: {words}"
