"""Curves of runs: how they learned, and how the trained agents adapt to unseen tasks."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarl.core.errors import CheckpointError
from metarl.evaluation.stats import Array
from metarl.experiments.logs import read_metrics
from metarl.viz.style import create_axes, save

EVALUATION = "evaluation.json"


def draw_learning_curve(folders: Sequence[Path], out: Path) -> Path:
    """Training return (smoothed) and validation score over environment steps → a picture at `out`.

    The training return is the one that the agent logs: of the trial, or after adaptation.

    Raises:
        MetaRLError: a run without metrics.
    """
    figure, axes = create_axes()
    names = [folder.name for folder in folders]
    for i, folder in enumerate(folders):
        records = read_metrics(folder)
        if not records:
            raise CheckpointError(f"{folder} has no metrics to draw yet")
        name, color = folder.name, f"C{i}"
        if names.count(name) > 1:
            name = f"{folder.parent.name}/{name}"
        steps, returns = _columns(records, "return")
        axes.plot(steps, _smooth(returns), color=color, alpha=0.4, linewidth=1)
        steps, returns = _columns(records, "validation")
        axes.plot(steps, returns, color=color, marker=".", label=f"{name} (validation)")
    axes.set(xlabel="environment steps (millions)", ylabel="return", title="Learning curve")
    axes.legend(frameon=False)
    return save(figure, out)


def draw_adaptation_curve(scores: Mapping[str, Mapping[str, Any]], out: Path) -> Path:
    """Return of an episode of each round over episodes consumed → a picture at `out`.

    A curve an agent in `scores`, with its 95 % interval.
    """
    figure, axes = create_axes()
    for i, (name, score) in enumerate(scores.items()):
        curve, episodes = score["summary"]["curve"], score["episodes_consumed"]
        marker = "." if len(episodes) < 30 else None
        axes.plot(episodes, curve["mean"], color=f"C{i}", label=name, marker=marker)
        low, high = curve["low"], curve["high"]
        axes.fill_between(
            episodes,
            low,
            high,
            color=f"C{i}",
            alpha=0.2,
            linewidth=0,
        )
    first = next(iter(scores.values()))
    optimum = first["summary"].get("optimum")
    if optimum is not None:
        axes.axhline(
            optimum,
            color="black",
            linestyle=":",
            linewidth=1,
            label="task known (optimum)",
        )
    tasks = "a closed family's tasks" if first["closed"] else "unseen tasks"
    axes.set(
        xlabel="episodes consumed", ylabel="return of the episode", title=f"Adaptation to {tasks}"
    )
    axes.legend(frameon=False, fontsize="small")
    return save(figure, out)


def read_scores(folder: Path) -> dict[str, Any]:
    """Scores by agent of the last evaluation of a run, or else of its result.

    Raises:
        MetaRLError: the run has neither.
    """
    evaluation, result = folder / EVALUATION, folder / "result.json"
    if evaluation.is_file():
        return json.loads(evaluation.read_text())["scores"]
    if not result.is_file():
        raise CheckpointError(
            f"{folder} has no scores to draw yet; "
            f"finish its training or run metarl evaluate {folder}"
        )
    content = json.loads(result.read_text())
    agent = content["config"]["agent"]["name"]
    return {f"{agent} ({split})": score for split, score in content["scores"].items()}


def _columns(records: Sequence[Mapping[str, Any]], key: str) -> tuple[Array, Array]:
    """Millions of environment steps, and the values of `key` wherever it was logged."""
    logged = [record for record in records if key in record]
    steps = np.array([record["env_steps"] for record in logged])
    return steps / 1e6, np.array([record[key] for record in logged])


def _smooth(values: Array) -> Array:
    """Running mean over 2 % of the run."""
    width = max(1, int(len(values) * 0.02))
    padded = np.pad(values, (width - 1, 0), mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), mode="valid")
