"""Training runs: learn, log, validate, keep checkpoints, and report on unseen tasks."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from metarl.collect.pool import Pool
from metarl.config.files import load_config
from metarl.config.schema import Config, to_dict
from metarl.core.agent import Agent, World
from metarl.core.disk import write_atomically
from metarl.core.errors import CheckpointError, note
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.texts import to_json
from metarl.evaluation.meta_test import evaluate
from metarl.evaluation.scores import Scores
from metarl.experiments.building import (
    build,
    eval_protocol,
    fitting,
    restore,
    spec_for_agent,
    world_of,
)
from metarl.experiments.callbacks import Callback, RunCallback
from metarl.experiments.comparison import generalization_gaps
from metarl.experiments.counters import LIMITS, Counters
from metarl.experiments.diagnosis import Diagnosis
from metarl.experiments.events import begin_events, end_events
from metarl.experiments.folder import RunFolder, read_if_whole
from metarl.experiments.interruption import GRACE, Abandoned, Interruption, ending
from metarl.experiments.loading import SavedRun
from metarl.experiments.logs import Display, MetricsLog, read_metrics
from metarl.experiments.loop import Update, learn, require_finite
from metarl.experiments.provenance import core_seconds, peak_mebibytes, provenance
from metarl.experiments.tags import final_scores, flat
from metarl.experiments.workers import workers_of


def train(
    config: Config | str,
    out: str | Path,
    *,
    world: World | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
    grace: float = GRACE,
    test: bool = True,
) -> dict[str, Any]:
    """Train in the run folder `out` to the end, or on from where it was stopped.

    Ctrl-C, SIGTERM and SIGHUP end it after the iteration that is under way, with a checkpoint.

    Args:
        world: what to train on instead of the configuration's world; to resume, give it again.
        callbacks: called in their order after every iteration, and after its validation where one
            is due, with an `Update`. A `RunCallback`, such as a logger, is also told of the run's
            beginning and of its end.
        grace: seconds after a signal until the iteration is given up. After an iteration of more
            than half of it a checkpoint is written, so that none that was finished is lost.
        test: without it nothing is evaluated at the end, and test tasks are never drawn; to resume
            with it writes result.json.

    Returns:
        The content of result.json: among it "scores" of the best checkpoint by split, those of the
        "last" one, "validation", the score that the best one was chosen by, and its
        "best_iteration". Without `test` there are no scores.

    Raises:
        MetaRLError: a folder that holds another run or is in use, or anything that the
            configuration or the family got wrong.
        KeyboardInterrupt: after Ctrl-C, and SystemExit after the other signals.
    """
    if isinstance(config, str):
        config = load_config(config)
    folder = RunFolder(Path(out))
    interruption = Interruption(grace)
    with (
        folder.locked(),
        folder.keeping_tracebacks(),
        Display(quiet) as display,
        interruption.listening(),
    ):
        saved = folder.read_state(config, resume)
        if saved is not None:
            over = saved.counters.progress(**_limits(config)) >= 1
            result = read_if_whole(folder.result, "it is written again")
            if over and result and "last" in result:  # before 0.8 it was not
                folder.repair_logs()
                return result
            family, agent = build(config.model_copy(update={"warm_start": None}))
        else:
            family, agent = build(config)
        with workers_of(config) as workers:
            pool = workers.pool(config, family)
            run = _Run(
                config,
                family,
                agent,
                folder,
                saved,
                interruption,
                pool,
            )
            return run.go(world or world_of(config, family, pool), callbacks, display, test)


class _Run:
    """A training under way."""

    def __init__(
        self,
        config: Config,
        family: Family,
        agent: Agent,
        folder: RunFolder,
        saved: SavedRun | None,
        interruption: Interruption,
        pool: Pool,
    ):
        self.config, self.family, self.agent, self.folder = config, family, agent, folder
        self.interruption, self.pool = interruption, pool
        self.counters = Counters()
        self.best: float | None = None
        self.window: list[float] = []  # the last validation scores
        self.diagnosis = Diagnosis()
        self.pending: dict[str, float] | None = None
        """Metrics of the last iteration until it is validated and logged."""
        self._wall_seconds, self._began = 0.0, time.monotonic()
        self._core_seconds = -core_seconds()  # what was used before the run is not its own
        if saved is not None:
            with fitting(folder.checkpoint("latest"), config):
                agent.load_state_dict(saved.agent)
            self.counters, self.pending = saved.counters, saved.pending
            self.best, self.window = saved.best, saved.window
            self._wall_seconds = saved.wall_seconds or saved.counters.seconds
            self._core_seconds += saved.core_seconds
            if self.best is not None and self._read_best() is None:
                self.best, self.window = None, []
        self._code = folder.begin(config)
        self._note_changes(saved)

    @property
    def wall_seconds(self) -> float:
        """Of the whole run, validation included; what was lost to a crash is not counted."""
        return self._wall_seconds + time.monotonic() - self._began

    @property
    def core_seconds(self) -> float:
        """Processor time of the whole run, in the same sense."""
        return self._core_seconds + core_seconds()

    def go(
        self, world: World, callbacks: Sequence[Callback], display: Display, test: bool
    ) -> dict[str, Any]:
        """Learn, and report; or end as a signal asks."""
        followers = [callback for callback in callbacks if isinstance(callback, RunCallback)]
        try:
            for follower in followers:
                follower.begin(flat(to_dict(self.config)), self.folder.path)
            self.learn(world, callbacks, display)
            if test:
                tasks = self.config.test_tasks
                display.note(f"evaluating the best and the last checkpoint on {tasks} tasks")
            with self.interruption.abandonable():
                result = self.report(test)
                scores = final_scores(result)
                for follower in followers:
                    follower.end(scores, result)
                end_events(self.folder.path, scores, self.counters.env_steps)
                if test:
                    write_atomically(self.folder.result, to_json(result).encode())
                return result
        except Abandoned:
            place = f"{self.folder.path}: interrupted after iteration {self.counters.iterations}"
            note(f"{place}; go on with --resume")
            assert self.interruption.signal is not None
            raise ending(self.interruption.signal) from None

    def learn(self, world: World, callbacks: Sequence[Callback], display: Display) -> None:
        """Iterate until a limit is reached or a callback asks to stop.

        Raises:
            Abandoned: a signal asked to end; all that was finished is kept.
        """
        begun = self.counters.iterations
        if begun:
            display.note(f"resuming after iteration {begun}")
        done = begun - (self.pending is not None)
        begin_events(self.folder.path, self.config)
        with MetricsLog(self.folder.path, resume_at=done) as log:
            self.save("latest")
            self._check_score()
            self._replay_diagnosis()
            stop = False
            if self.pending is not None:
                stop = self._finish(callbacks, log, display)
                self.save("latest")
            updates = learn(
                self.agent,
                world,
                Rng(self.config.seed),
                start=self.counters,
                **_limits(self.config),
            )
            while not stop and (update := self._next(updates)) is not None:
                seconds = update.counters.seconds - self.counters.seconds
                self.counters, self.pending = update.counters, update.metrics
                stop = self._finish(callbacks, log, display)
                due = self.counters.iterations % self.config.checkpoint_every == 0
                if stop or due or seconds > self.interruption.grace / 2:
                    self.save("latest")

    def _next(self, updates: Iterator[Update]) -> Update | None:
        """Another iteration; None after the last one."""
        with self.interruption.abandonable():
            return next(updates, None)

    def _finish(self, callbacks: Sequence[Callback], log: MetricsLog, display: Display) -> bool:
        """Validate, tell the callbacks and log the last iteration → whether to stop.

        Raises:
            Abandoned: a signal asked to end. What is still to be done is done when it resumes.
        """
        assert self.pending is not None
        progress = self.counters.progress(**_limits(self.config))
        due = progress >= 1 or self.counters.iterations % self.config.validate_every == 0
        try:
            if due and "validation" not in self.pending:
                self.pending = self.pending | {"validation": self.validate()}
            metrics = self.pending.copy()
            validation = metrics.pop("validation", None)
            update = Update(self.counters, metrics, self.agent, validation, self.best)
            with self.interruption.abandonable():
                answers = [callback(update) for callback in callbacks]
        except Abandoned:
            self.save("latest")
            raise
        record = update.record()
        log.write(record)
        self.pending = None
        display.show(record, progress, self.counters.seconds * (1 / progress - 1))
        line = self.diagnosis.read(record, progress)
        if line and not self.config.warm_start:  # which begins above the untrained policy
            display.note(line)
        if self.interruption.signal is not None:
            self.save("latest")
            raise Abandoned
        return any(answers) or progress >= 1

    def _replay_diagnosis(self) -> None:
        """Up to the iteration that the run resumes after."""
        for record in read_metrics(self.folder.path):
            counters = Counters(record["iteration"], record["env_steps"], record["seconds"])
            self.diagnosis.read(record, counters.progress(**_limits(self.config)))

    def validate(self) -> float:
        """The score on validation tasks; the best mean of the last few so far is kept."""
        with self.interruption.abandonable():
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
        scores = evaluate(self.agent, self.family, protocol, self.pool)
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
            "core_seconds": self.core_seconds,
            "code": self._code,
            "pending": self.pending,
        }
        self.folder.save(name, content)

    def _read_best(self) -> SavedRun | None:
        """The best checkpoint; None, and a line, if it is lost."""
        try:
            return self.folder.read_own(self.folder.checkpoint("best"), self.config)
        except CheckpointError as error:
            note(f"{error}; the best checkpoint is chosen anew from now on")
            return None

    def _note_changes(self, saved: SavedRun | None) -> None:
        """Say which code is no longer what the run began with."""
        for name, known in saved.code.files.items() if saved else ():
            now = self._code["files"].get(name)
            if now is not None and now["sha256"] != known.sha256:
                note(f"{name} has changed since iteration {self.counters.iterations}")

    # -- the result

    def report(self, test: bool) -> dict[str, Any]:
        """What was reached, as result.json has it; with `test` also scores."""
        saved = None if self.best is None else self._read_best()
        if saved is None:  # stopped before any validation, or lost
            self.best, self.window = None, []
            self.validate()
            saved = self._read_best()
            assert saved is not None
        result = {
            "run": self.folder.path.name,
            "config": to_dict(self.config),
            **provenance(),
            "validation": self.best,
            "best_iteration": saved.counters.iterations,
            "best_env_steps": saved.counters.env_steps,
            "last": {"iteration": self.counters.iterations, "env_steps": self.counters.env_steps},
            "training_seconds": self.counters.seconds,
        }
        if test:
            agent = restore(saved, self.config, self.folder.checkpoint("best"))
            best = self._evaluate(agent)
            last = best
            if saved.counters.iterations != self.counters.iterations:
                last = self._evaluate(self.agent)
            gaps = generalization_gaps(best, self.config.score)
            result["scores"] = {split: scores.to_dict() for split, scores in best.items()}
            result["no_adaptation"] = self._without_adaptation(agent)
            result["gaps"] = {name: vars(gap) for name, gap in gaps.items()}
            result["last"]["scores"] = {split: scores.summary() for split, scores in last.items()}
        result["wall_seconds"] = self.wall_seconds
        result["core_seconds"] = self.core_seconds
        result["peak_mebibytes"] = peak_mebibytes()
        return result

    def _without_adaptation(self, agent: Agent) -> dict[str, Any] | None:
        """Its scores on test tasks where every round begins with the prior.

        None of an agent that has a single round, which is before any adaptation.
        """
        protocol = eval_protocol(self.config, self.family, adapt=False)
        single = protocol.episodes + protocol.test_episodes == agent.lanes
        if single or agent.task_input == "onehot" or "test" not in self.family.spec.splits:
            return None
        return evaluate(agent, self.family, protocol, self.pool).to_dict()

    def _evaluate(self, agent: Agent) -> dict[str, Scores]:
        """By split."""
        splits = ["train"] if agent.task_input == "onehot" else ["train", "test", "ood"]
        protocol = eval_protocol(self.config, self.family)
        return {
            split: evaluate(agent, self.family, protocol, self.pool, split=split)
            for split in splits
            if split in self.family.spec.splits
        }


def _limits(config: Config) -> dict[str, Any]:
    return config.model_dump(include=set(LIMITS))
