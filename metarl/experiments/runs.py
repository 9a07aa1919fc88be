"""Runs: a folder that holds all of a training, and survives being stopped::

config.yaml      the complete configuration
metrics.jsonl    one object an iteration
tensorboard/     the same for TensorBoard
checkpoints/     latest.pt, previous.pt, best.pt (by the validation tasks)
result.json      scores of the best checkpoint per task and episode, with all that is needed to compare them
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_leaves_with_path

from metarl.collect.world import TrainingWorld
from metarl.config.files import load_config, to_yaml
from metarl.config.schema import Config, to_dict
from metarl.core.agent import Agent, Mode
from metarl.core.errors import DISTRIBUTION, MetaRLError
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.evaluation.meta_test import Scores, evaluate
from metarl.experiments import checkpoints
from metarl.experiments.building import build, load, spec_for_agent, train_set
from metarl.experiments.counters import LIMITS, Counters
from metarl.experiments.logs import Display, MetricsLog
from metarl.experiments.loop import Update, learn

R = TypeVar("R")

_PACKAGES = ("torch", "mujoco", "gymnasium", "numpy", "metaworld", "gymnasium-robotics", "minigrid")
"""Whose versions a result depends on, where they are installed."""

Callback = Callable[[Update], bool | None]
"""Called after every iteration; True ends the training."""


# ---------------------------------------------------------------------------------------------------------------------
# Runs


def train(
    config: Config | str,
    out: str | Path,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
) -> dict[str, Any]:
    """Train in the run folder `out` to the end, or on from where it was stopped → the content of result.json.

    Raises:
        MetaRLError: a folder that holds another run or is in use, or anything the configuration or the family got wrong.
    """
    config = load_config(config) if isinstance(config, str) else config
    folder = Path(out)
    with _locked(folder):
        state = _open(config, folder, resume)
        result = folder / "result.json"
        if result.is_file() and state is not None and _over(config, state):
            return dict(json.loads(result.read_text()))
        family, agent = build(
            config if state is None else config.model_copy(update={"warm_start": None})
        )
        checkpoints.write_atomically(folder / "config.yaml", to_yaml(config).encode())
        result.unlink(missing_ok=True)
        display = Display(quiet)
        try:
            _run(config, family, agent, folder, state, callbacks, display)
            return _finish(config, family, folder, display)
        finally:
            display.close()


def _run(
    config: Config,
    family: Family,
    agent: Agent,
    folder: Path,
    state: dict[str, Any] | None,
    callbacks: Sequence[Callback],
    display: Display,
) -> None:
    """Learn, log, validate and keep checkpoints until a limit is reached or a callback asks to stop."""
    rng = Rng(config.seed)
    spec = spec_for_agent(config, family.spec)
    world = TrainingWorld(
        family, config.episodes, train_set(config, family), torch.device(config.device)
    )
    counters, best = Counters(), None
    if state is not None:
        agent.load_state_dict(state["agent"])
        counters, best = Counters(**state["counters"]), state["best"]
        display.note(f"resuming after iteration {counters.iterations}")

    def save(*names: str) -> None:
        everything = agent.state_dict()
        _check_finite(everything, config, counters)
        for name in names:
            kept = {
                key: value for key, value in everything.items() if name != "best" or key != "replay"
            }
            content = {"agent": kept, "config": to_dict(config), "spec": asdict(spec)}
            path = folder / "checkpoints" / f"{name}.pt"
            if name == "latest" and path.is_file():
                path.replace(path.with_name("previous.pt"))
            checkpoints.save(path, content | {"counters": asdict(counters), "best": best})

    limits = {name: getattr(config, name) for name in LIMITS}
    log = MetricsLog(folder, resume_at=counters.iterations)
    try:
        save("latest")
        for update in learn(agent, world, rng, start=counters, **limits):
            counters = update.counters
            record = asdict(counters) | update.metrics
            record = {"iteration": record.pop("iterations"), **record}
            progress = counters.progress(**limits)
            answers = [callback(update) for callback in callbacks]
            stop = any(answers) or progress >= 1
            if progress >= 1 or counters.iterations % config.validate_every == 0:
                split = "train" if agent.task_input == "onehot" else "validation"
                scores = score(config, family, agent, split, config.validation_tasks)
                record["validation"] = float(scores.figure(config.score).mean())
                if best is None or record["validation"] > best:
                    best = record["validation"]
                    save("best")
            log.write(record)
            display.show(record, progress, counters.seconds * (1 / progress - 1))
            if stop or counters.iterations % config.checkpoint_every == 0:
                save("latest")
            if stop:
                break
    finally:
        log.close()


def _check_finite(state: dict[str, Any], config: Config, counters: Counters) -> None:
    """Raises a MetaRLError before an agent is kept whose state holds a NaN or an infinity."""
    for path, leaf in tree_leaves_with_path(state):
        number = isinstance(leaf, Tensor) and leaf.is_floating_point()
        if number and not torch.isfinite(leaf.sum()) and not torch.isfinite(leaf).all():
            raise MetaRLError(
                f"{config.agent.name}: {keystr(path)} is not finite after iteration {counters.iterations}; lower the "
                "learning rate, or scale the rewards down (what was kept before stays in checkpoints/)"
            )


def _finish(config: Config, family: Family, folder: Path, display: Display) -> dict[str, Any]:
    """Report the best checkpoint on unseen tasks."""
    display.note(f"evaluating the best checkpoint on {config.test_tasks} unseen tasks")
    loaded = load(folder)
    reported = ("train",) if loaded.agent.task_input == "onehot" else ("train", "test", "ood")
    splits = [split for split in reported if split in family.spec.splits]
    scores = {
        split: score(config, family, loaded.agent, split, config.test_tasks) for split in splits
    }
    result = describe(folder, config, scores) | {
        "best_iteration": loaded.counters.iterations,
        "best_env_steps": loaded.counters.env_steps,
    }
    checkpoints.write_atomically(folder / "result.json", json.dumps(result).encode())
    return result


def describe(folder: Path, config: Config, scores: dict[str, Scores]) -> dict[str, Any]:
    """Scores with all that is needed to compare them: the configuration, versions, the command."""
    packages = [name for name in _PACKAGES if importlib.util.find_spec(name.replace("-", "_"))]
    versions = {package: version(package) for package in packages} | {
        "metarl": version(DISTRIBUTION)
    }
    return {
        "run": folder.name,
        "config": to_dict(config),
        "versions": versions | {"python": sys.version.split()[0]},
        "command": " ".join(sys.argv),
        "scores": {name: score.to_dict() for name, score in scores.items()},
    }


def score(
    config: Config,
    family: Family,
    agent: Agent,
    split: str,
    tasks: int,
    *,
    mode: Mode | None = None,
    seed: int = 0,
) -> Scores:
    """`evaluate` as a configuration says."""
    return as_configured(
        evaluate, config, family, agent, split=split, tasks=tasks, mode=mode, seed=seed
    )


def as_configured(
    meet: Callable[..., R],
    config: Config,
    family: Family,
    agent: Agent,
    *,
    split: str,
    tasks: int,
    episodes: int | None = None,
    mode: Mode | None = None,
    seed: int = 0,
) -> R:
    """`evaluate`, or whatever `meet` takes its arguments, as a configuration says where nothing else is given."""
    return meet(
        agent,
        family,
        episodes=episodes or config.episodes,
        tasks=tasks,
        split=split,
        mode=mode or config.mode,
        seed=seed,
        train_set=train_set(config, family),
        device=config.device,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Folders


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else trains in the folder meanwhile; a killed process holds no lock."""
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise checkpoints.disk_error(folder, error) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise MetaRLError(
                f"{folder} is in use: another process is training there; choose another --out"
            ) from None
        yield


def _open(config: Config, folder: Path, resume: bool) -> dict[str, Any] | None:
    """The checkpoint to go on from, or None at the start of a new run.

    Raises:
        MetaRLError: the folder holds a run and `resume` was not asked for, or it holds a run of another configuration.
    """
    written = folder / "config.yaml"
    if written.is_file() and not resume:
        raise MetaRLError(
            f"{folder} holds a run already: continue it with --resume, or choose another --out"
        )
    if written.is_file():
        old, new = to_dict(load_config(written)), to_dict(config)
        differing = [key for key in new if key not in LIMITS and old.get(key) != new[key]]
        if differing:
            raise MetaRLError(
                f"{folder} holds a run with another {', '.join(differing)}; only {', '.join(LIMITS)} may change"
            )
    paths = [
        path
        for name in ("latest", "previous")
        if (path := folder / "checkpoints" / f"{name}.pt").is_file()
    ]
    for path in paths:
        try:
            return checkpoints.load(path)
        except MetaRLError as error:
            if path == paths[-1]:
                raise
            path.unlink()  # or it would take the place of the good one when the next is written
            print(f"metarl: {error}; going on from {paths[-1].name}", file=sys.stderr)
    return None


def _over(config: Config, state: dict[str, Any]) -> bool:
    return (
        Counters(**state["counters"]).progress(**{name: getattr(config, name) for name in LIMITS})
        >= 1
    )
