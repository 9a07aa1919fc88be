"""Training runs: learn, log, validate, keep checkpoints, and report on unseen tasks."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from metarl.config.files import load_config
from metarl.config.schema import Config, to_dict
from metarl.core.agent import Agent, World
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.evaluation.meta_test import evaluate
from metarl.evaluation.scores import Scores
from metarl.experiments import checkpoints
from metarl.experiments.building import build, eval_protocol, load, spec_for_agent, world_of
from metarl.experiments.comparison import generalization_gaps
from metarl.experiments.counters import LIMITS, Counters
from metarl.experiments.diagnosis import Diagnosis
from metarl.experiments.folder import RunFolder
from metarl.experiments.logs import Display, MetricsLog, read_metrics
from metarl.experiments.loop import Update, learn, require_finite
from metarl.experiments.provenance import provenance

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
        The content of result.json: among it "scores" of the best checkpoint by split, those of the
        "last" one, "validation", the score that the best one was chosen by, and its
        "best_iteration".

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
            result = json.loads(folder.result.read_text()) if folder.result.is_file() else {}
            if over and "last" in result:  # before 0.8 it was not: such a run is evaluated anew
                return dict(result)
            family, agent = build(config.model_copy(update={"warm_start": None}))
        else:
            family, agent = build(config)
        folder.begin(config)
        run = _Run(config, family, agent, folder, state)
        if world is None:
            world = world_of(config, family)
        run.learn(world, callbacks, display)
        display.note(f"evaluating the best and the last checkpoint on {config.test_tasks} tasks")
        return run.report()


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
        self.window: list[float] = []  # the last validation scores
        self._wall_seconds, self._began = 0.0, time.monotonic()
        if state is not None:
            agent.load_state_dict(state["agent"])
            self.counters = Counters(**state["counters"])
            self.best = state["best"]
            self.window = state.get("window", [])
            self._wall_seconds = state.get("wall_seconds", self.counters.seconds)

    @property
    def wall_seconds(self) -> float:
        """Of the whole run, validation included; what was lost to a crash is not counted."""
        return self._wall_seconds + time.monotonic() - self._began

    def learn(self, world: World, callbacks: Sequence[Callback], display: Display) -> None:
        """Iterate until a limit is reached or a callback asks to stop."""
        config, limits = self.config, _limits(self.config)
        if self.counters.iterations:
            display.note(f"resuming after iteration {self.counters.iterations}")
        with MetricsLog(self.folder.path, resume_at=self.counters.iterations) as log:
            self.save("latest")
            self._check_score()
            diagnosis = self._diagnosis(limits)
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
                line = diagnosis.read(record, progress)
                if line and not config.warm_start:  # which begins above the untrained policy
                    display.note(line)
                if stop or iterations % config.checkpoint_every == 0:
                    self.save("latest")
                if stop:
                    break

    def _diagnosis(self, limits: dict[str, Any]) -> Diagnosis:
        """Of this run, up to the iteration that it resumes after."""
        diagnosis = Diagnosis()
        for record in read_metrics(self.folder.path):
            counters = Counters(record["iteration"], record["env_steps"], record["seconds"])
            diagnosis.read(record, counters.progress(**limits))
        return diagnosis

    def validate(self) -> float:
        """The score on validation tasks; the best mean of the last few so far is kept."""
        reached = self._score(self.config.validation_tasks)
        self.window = [*self.window, reached][-self.config.validation_window :]
        smoothed = sum(self.window) / len(self.window)
        if self.best is None or smoothed > self.best:
            self.best = smoothed
            self.save("best")
        return reached

    def _score(self, tasks: int) -> float:
        """The mean on so many validation tasks."""
        onehot = self.agent.task_input == "onehot"
        protocol = eval_protocol(
            self.config,
            self.family,
            split="train" if onehot else "validation",
            tasks=tasks,
            purpose="validation",  # fixed training tasks are reported on other episodes
        )
        scores = evaluate(self.agent, self.family, protocol)
        return float(scores.figure(self.config.score).mean())

    def _check_score(self) -> None:
        """Raises a ConfigError now, not at the first validation, if there is no such score."""
        if self.config.score not in ("total", "last"):
            self._score(tasks=1)

    def save(self, name: str) -> None:
        """Keep the agent; the best one without its replay buffer, which only training needs."""
        state = self.agent.state_dict()
        require_finite(state, self.agent, self.counters.iterations)
        if name == "best":
            state.pop("replay", None)
        content = {
            "agent": state,
            "config": to_dict(self.config),
            "spec": asdict(spec_for_agent(self.config, self.family.spec)),
            "counters": asdict(self.counters),
            "best": self.best,
            "window": self.window,
            "wall_seconds": self.wall_seconds,
        }
        self.folder.save(name, content)

    # -- the result

    def report(self) -> dict[str, Any]:
        """The scores of the best and the last checkpoint, as result.json has them."""
        if self.best is None:  # stopped before any validation
            self.validate()
        loaded = load(self.folder.path)
        best = self._evaluate(loaded.agent)
        last = best
        if loaded.counters.iterations != self.counters.iterations:
            last = self._evaluate(self.agent)
        gaps = generalization_gaps(best, self.config.score)
        result = {
            "run": self.folder.path.name,
            "config": to_dict(self.config),
            **provenance(),
            "scores": {split: scores.to_dict() for split, scores in best.items()},
            "gaps": {name: vars(gap) for name, gap in gaps.items()},
            "validation": self.best,
            "best_iteration": loaded.counters.iterations,
            "best_env_steps": loaded.counters.env_steps,
            "last": {
                "iteration": self.counters.iterations,
                "env_steps": self.counters.env_steps,
                "scores": {split: scores.summary() for split, scores in last.items()},
            },
            "training_seconds": self.counters.seconds,
            "wall_seconds": self.wall_seconds,
        }
        checkpoints.write_atomically(self.folder.result, json.dumps(result).encode())
        return result

    def _evaluate(self, agent: Agent) -> dict[str, Scores]:
        """By split."""
        splits = ["train"] if agent.task_input == "onehot" else ["train", "test", "ood"]
        protocol = eval_protocol(self.config, self.family)
        return {
            split: evaluate(agent, self.family, protocol, split=split)
            for split in splits
            if split in self.family.spec.splits
        }


def _limits(config: Config) -> dict[str, Any]:
    return config.model_dump(include=set(LIMITS))
