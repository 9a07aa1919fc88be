"""Training runs: learn, log, validate, keep checkpoints, and report on unseen tasks."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._pytree import keystr, tree_leaves_with_path

from metarl.config.files import load_config
from metarl.config.schema import Config, to_dict
from metarl.core.agent import Agent, World
from metarl.core.errors import DISTRIBUTION, MetaRLError
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.evaluation.meta_test import evaluate
from metarl.experiments import checkpoints
from metarl.experiments.building import build, eval_protocol, load, spec_for_agent, world_of
from metarl.experiments.counters import LIMITS, Counters
from metarl.experiments.folder import RunFolder
from metarl.experiments.logs import Display, MetricsLog
from metarl.experiments.loop import Update, learn

_PACKAGES = ("torch", "mujoco", "gymnasium", "numpy", "metaworld", "gymnasium-robotics", "minigrid")
"""Whose versions a result depends on, where they are installed."""

Callback = Callable[[Update], bool | None]
"""Called after every iteration; True ends the training."""


def train(
    config: Config | str,
    out: str | Path,
    *,
    world: World | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
) -> dict[str, Any]:
    """Train in the run folder `out` to the end, or on from where it was stopped.

    Args:
        world: what to train on instead of the configuration's world; to resume, give it again.
        callbacks: called in their order after every iteration, and after its validation where one
            is due, with an `Update`.

    Returns:
        The content of result.json: among it "scores" of the best checkpoint by split, "validation",
        its score on validation tasks, and the "best_iteration" that it is of.

    Raises:
        MetaRLError: a folder that holds another run or is in use, or anything that the
            configuration or the family got wrong.
    """
    if isinstance(config, str):
        config = load_config(config)
    folder = RunFolder(Path(out))
    with folder.locked(), Display(quiet) as display:
        state = folder.read_state(config, resume)
        if state is not None:
            over = Counters(**state["counters"]).progress(**_limits(config)) >= 1
            if over and folder.result.is_file():
                return dict(json.loads(folder.result.read_text()))
            family, agent = build(config.model_copy(update={"warm_start": None}))
        else:
            family, agent = build(config)
        folder.begin(config)
        run = _Run(config, family, agent, folder, state)
        if world is None:
            world = world_of(config, family)
        run.learn(world, callbacks, display)
        display.note(f"evaluating the best checkpoint on {config.test_tasks} unseen tasks")
        return _report(config, family, folder, run.best)


class _Run:
    """A training under way."""

    def __init__(
        self,
        config: Config,
        family: Family,
        agent: Agent,
        folder: RunFolder,
        state: dict[str, Any] | None,
    ):
        self.config, self.family, self.agent, self.folder = config, family, agent, folder
        self.counters = Counters()
        self.best: float | None = None
        if state is not None:
            agent.load_state_dict(state["agent"])
            self.counters = Counters(**state["counters"])
            self.best = state["best"]

    def learn(self, world: World, callbacks: Sequence[Callback], display: Display) -> None:
        """Iterate until a limit is reached or a callback asks to stop."""
        config, limits = self.config, _limits(self.config)
        if self.counters.iterations:
            display.note(f"resuming after iteration {self.counters.iterations}")
        with MetricsLog(self.folder.path, resume_at=self.counters.iterations) as log:
            self.save("latest")
            for update in learn(self.agent, world, Rng(config.seed), start=self.counters, **limits):
                self.counters = update.counters
                iterations = self.counters.iterations
                progress = self.counters.progress(**limits)
                if progress >= 1 or iterations % config.validate_every == 0:
                    update = replace(update, validation=self.validate())
                answers = [callback(update) for callback in callbacks]
                stop = any(answers) or progress >= 1
                record = update.record()
                log.write(record)
                display.show(record, progress, self.counters.seconds * (1 / progress - 1))
                if stop or iterations % config.checkpoint_every == 0:
                    self.save("latest")
                if stop:
                    break

    def validate(self) -> float:
        """The score on validation tasks; the best so far is kept."""
        split = "train" if self.agent.task_input == "onehot" else "validation"
        protocol = eval_protocol(
            self.config,
            self.family,
            split=split,
            tasks=self.config.validation_tasks,
            purpose="validation",  # fixed training tasks are reported on other episodes
        )
        scores = evaluate(self.agent, self.family, protocol)
        reached = float(scores.figure(self.config.score).mean())
        if self.best is None or reached > self.best:
            self.best = reached
            self.save("best")
        return reached

    def save(self, name: str) -> None:
        """Keep the agent; the best one without its replay buffer, which only training needs."""
        state = self.agent.state_dict()
        self._check_finite(state)
        if name == "best":
            state.pop("replay", None)
        content = {
            "agent": state,
            "config": to_dict(self.config),
            "spec": asdict(spec_for_agent(self.config, self.family.spec)),
            "counters": asdict(self.counters),
            "best": self.best,
        }
        self.folder.save(name, content)

    def _check_finite(self, state: dict[str, Any]) -> None:
        """Raises a MetaRLError before a NaN or an infinity is kept."""
        for path, leaf in tree_leaves_with_path(state):
            real = isinstance(leaf, Tensor) and leaf.is_floating_point()
            if real and not leaf.sum().isfinite() and not leaf.isfinite().all():
                raise MetaRLError(
                    f"{self.config.agent.name}: {keystr(path)} is not finite after iteration "
                    f"{self.counters.iterations}; lower the learning rate, or scale the rewards "
                    "down (the last good checkpoint stays)"
                )


def _limits(config: Config) -> dict[str, Any]:
    return config.model_dump(include=set(LIMITS))


def _report(
    config: Config, family: Family, folder: RunFolder, validation: float | None
) -> dict[str, Any]:
    """The scores of the best checkpoint on unseen tasks, as result.json keeps them."""
    loaded = load(folder.path)
    splits = ["train"] if loaded.agent.task_input == "onehot" else ["train", "test", "ood"]
    scores = {}
    for split in splits:
        if split in family.spec.splits:
            scores[split] = evaluate(loaded.agent, family, loaded.protocol(split=split)).to_dict()
    result = {
        "run": folder.path.name,
        "config": to_dict(config),
        "versions": _versions(),
        "command": " ".join(sys.argv),
        "scores": scores,
        "validation": validation,
        "best_iteration": loaded.counters.iterations,
        "best_env_steps": loaded.counters.env_steps,
    }
    checkpoints.write_atomically(folder.result, json.dumps(result).encode())
    return result


def _versions() -> dict[str, str]:
    versions = {"metarl": version(DISTRIBUTION), "python": sys.version.split()[0]}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue  # an extra that is not installed
    return versions
