"""Folders of benchmarks that nobody has trained: scores that are known, and texts that are odd."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from metarl.benchmark.suite import config_hash
from metarl.evaluation.scores import Scores

ODD = """<script>alert(1)</script> & $x_1$ | "it's" \\ % # {} ~ ^ `code` *star*"""
"""Means something in HTML, LaTeX, Markdown, mathtext, CSV or JSON."""


def scores_of(returns, split="test", optimum=None, task_hash="hash", **changes):
    """Of one run on N tasks: its returns [K, N]."""
    returns = np.asarray(returns, float)[None]
    known = None if optimum is None else np.asarray(optimum, float)
    given = {
        "returns": returns,
        "success": None,
        "metrics": {},
        "optimum": known,
        "mean_optimum": None,
        "task_index": np.arange(returns.shape[2]),
        "lanes": 1,
        "split": split,
        "closed": False,
        "tasks_fixed": False,
        "adapt": True,
        "mode": "sample",
        "test_mode": "sample",
        "seed": 0,
        "task_hash": f"{task_hash}-{split}",
    }
    return Scores(**given | changes)


def result_of(agent, seed, returns, shown="none", score="total", optimum=None, **changes):
    """The result of a run: on training tasks it reaches 1 more an episode, elsewhere 2 less."""
    returns = np.asarray(returns, float)
    changes = {"task_hash": "hash"} | changes
    splits = {"train": 1.0, "test": 0.0, "ood": -2.0}
    scores = {
        split: scores_of(returns + shift, split, optimum, **changes).to_dict()
        for split, shift in splits.items()
    }
    first = np.broadcast_to(returns[:1], returns.shape)
    steps = 0 if agent == "random" else 1000
    return {
        "run": f"seed-{seed}",
        "config": {
            "agent": {"name": agent, "task_input": shown},
            "family": {"name": "bernoulli-bandit", "arms": 5},
            "seed": seed,
            "score": score,
        },
        "scores": scores,
        "no_adaptation": scores_of(first, optimum=optimum, adapt=False, **changes).to_dict(),
        "last": {"iteration": 2, "env_steps": steps, "scores": {}},
        "training_seconds": 60.0,
        "core_seconds": 36.0,
        "peak_mebibytes": 300.0,
        "versions": {"metarl": "1.0"},
        "git_commit": {"metarl": "c0ffee+"},
        "machine": {"processor": "a < b & c", "cores": 2},
        "command": f"/where/it/is/metarl/__main__.py train {agent}.yaml",
    }


def write_benchmark(folder: Path, problems, *, suite=None, failed=(), **options):
    """A folder with results, as `metarl benchmark` leaves it.

    Args:
        problems: returns [R][K, N] by problem and agent; a run a seed. "random" learns nothing.
        suite: parts of the suite's file, and of each problem in it under "problem".
        failed: problem, agent and error of further runs.
        options: of `result_of`; shown: by agent.
    """
    suite = {"title": "Known", "problem": {}} | (suite or {})
    extra = suite.pop("problem")
    suite["problems"] = {
        problem: {"family": "bernoulli-bandit", "agents": dict.fromkeys(_labels(agents), "psrl")}
        | extra
        for problem, agents in problems.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "suite.yaml").write_text(json.dumps(suite))
    score, shown = extra.get("score", "total"), options.pop("shown", {})
    cells = []
    for problem, agents in problems.items():
        for place, (agent, runs) in enumerate(agents.items()):
            for seed, returns in enumerate(runs):
                given = {"shown": shown.get(agent, "none"), "score": score} | options
                result = result_of(agent, seed, returns, **given)
                path = folder / problem / f"agent-{place}" / f"seed-{seed}"
                path.mkdir(parents=True, exist_ok=True)
                (path / "result.json").write_text(json.dumps(result))
                (path / "metrics.jsonl").write_text(_records(np.asarray(returns)))
                cells.append(_cell(folder, path, problem, agent, seed, result["config"]))
    for place, (problem, agent, error) in enumerate(failed):
        path = folder / problem / f"failed-{place}"
        path.mkdir(parents=True, exist_ok=True)
        (path / "error.txt").write_text(error)
        cells.append(_cell(folder, path, problem, agent, 9, {}))
    (folder / "matrix.json").write_text(json.dumps({"suite": "known", "cells": cells}))
    return folder


def _labels(agents):
    """Those that a suite's file may have."""
    return [agent for agent in agents if agent.isidentifier()] or ["some"]


def _records(returns):
    lines = []
    for i in (1, 2, 3):
        record = {"iteration": i, "env_steps": 1000 * i, "seconds": 30.0 * i}
        lines.append(json.dumps(record | {"validation": float(returns.sum(0).mean()) - 3 + i}))
    return "\n".join(lines) + "\n"


def _cell(folder, path, problem, agent, seed, config):
    return {
        "problem": problem,
        "agent": agent,
        "seed": seed,
        "trained": agent != "random",
        "hash": config_hash(config),
        "folder": str(path.relative_to(folder)),
    }
