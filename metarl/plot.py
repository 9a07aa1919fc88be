"""Pictures of runs: how they learned, and how the trained agent adapts to a task it has not seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from metarl.errors import Mistake
from metarl.log import read_metrics
from metarl.stats import Array

EVALUATION = "evaluation.json"


def learning_curve(folders: Sequence[Path], out: Path) -> Path:
    """Return of the training trials (smoothed) and on validation tasks, over environment steps → a picture at `out`.

    Raises:
        Mistake: a run without metrics.
    """
    figure, axes = _figure()
    for i, folder in enumerate(folders):
        records = read_metrics(folder)
        if not records:
            raise Mistake(f"{folder} has no metrics to draw yet")
        color = f"C{i}"
        steps = np.array([record["env_steps"] for record in records]) / 1e6
        axes.plot(steps, _smooth([record["return"] for record in records]), color=color, alpha=0.4, linewidth=1)
        validated = [record for record in records if "validation" in record]
        x, y = [r["env_steps"] / 1e6 for r in validated], [r["validation"] for r in validated]
        axes.plot(x, y, color=color, marker=".", label=f"{folder.name} (validation)")
    axes.set(xlabel="environment steps (millions)", ylabel="return of a trial", title="Learning curve")
    axes.legend(frameon=False)
    return _save(figure, out)


def adaptation_curve(scores: Mapping[str, Mapping[str, Any]], out: Path) -> Path:
    """Return of the k-th episode with its 95 % interval, of every agent in `scores` → a picture at `out`."""
    figure, axes = _figure()
    for i, (name, score) in enumerate(scores.items()):
        curve = score["summary"]["curve"]
        episodes = score["episodes_consumed"]
        axes.plot(episodes, curve["mean"], color=f"C{i}", label=name, marker="." if len(episodes) < 30 else None)
        axes.fill_between(episodes, curve["low"], curve["high"], color=f"C{i}", alpha=0.2, linewidth=0)
    optimum = next(iter(scores.values()))["summary"].get("optimum")
    if optimum is not None:
        axes.axhline(optimum, color="black", linestyle=":", linewidth=1, label="task known (optimum)")
    axes.set(xlabel="episodes consumed", ylabel="return of the episode", title="Adaptation to unseen tasks")
    axes.legend(frameon=False, fontsize="small")
    return _save(figure, out)


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


def _figure() -> tuple[Figure, Any]:
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Figure, out: Path) -> Path:
    try:
        figure.savefig(out, dpi=150)
    except OSError as error:
        raise Mistake(f"{out} could not be written: {error.strerror}") from None
    return out


def _smooth(values: Sequence[float], share: float = 0.02) -> Array:
    """Running mean over a share of the run."""
    width = max(1, int(len(values) * share))
    return np.convolve(np.pad(values, (width - 1, 0), mode="edge"), np.full(width, 1 / width), mode="valid")
