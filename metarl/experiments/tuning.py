"""Hyperparameters by validation: trials are runs, which Optuna chooses and may end early.

A folder of them::

study.json   the configuration, the space and the seed
tune.db      Optuna's storage
trial-0000/  the folder of a run, one a trial
trials.csv   all trials
best.yaml    the configuration of the best one
"""

import csv
import io
import math
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
from filelock import FileLock
from optuna.distributions import distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from metarl.config.files import to_yaml
from metarl.config.schema import Config, to_dict
from metarl.core.disk import write_atomically
from metarl.core.errors import (
    CheckpointError,
    ConfigError,
    DiskError,
    MetaRLError,
    note,
    one_line,
)
from metarl.core.rng import Rng
from metarl.core.texts import read_json, to_json
from metarl.experiments.counters import LIMITS
from metarl.experiments.folder import RunFolder, alone_in
from metarl.experiments.interruption import GRACE, ending, on_signals
from metarl.experiments.loop import Update
from metarl.experiments.processes import Job, run_jobs
from metarl.experiments.runs import train
from metarl.experiments.space import Space
from metarl.experiments.tables import digits

_MARKS = 20
"""At so many equal parts of the budget trials are compared, whatever steps an iteration has."""
_WARMUP = _MARKS // 4
_FEW = 10
"""Finished trials, below which the importance of a parameter is a guess."""
_SQLITE_SECONDS = 60  # to wait for another process that writes
_STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True)
class Trial:
    """What became of a run."""

    number: int
    state: str
    """finished, pruned, failed, or interrupted."""
    value: float | None
    """The best validation score."""
    params: dict[str, Any]
    """What was drawn, by key; a choice as YAML."""
    error: str
    """Why it failed."""


@dataclass(frozen=True)
class Tuned:
    """What a search found."""

    trials: list[Trial]
    """All, by number."""
    best: Trial
    config: Config
    """Of the best one."""
    file: Path
    """Where that is written."""
    importances: dict[str, float]
    """Share of each parameter in reaching the best tenth, the largest first (PED-ANOVA, Watanabe
    et al. 2023, arXiv 2304.10255); empty after few trials."""


def tune(
    space: Space,
    out: Path,
    trials: int,
    *,
    jobs: int = 1,
    storage: str | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> Tuned:
    """Search `space` until there are `trials`, those of an earlier call in the folder `out` too.

    Trials differ by what was drawn alone: each trains with the seed of the configuration. No test
    task is drawn.

    Args:
        jobs: processes that train at the same time; of a single one a search can be repeated.
        storage: of Optuna, as a database URL; by default a file in `out`.
        seed: of the search.

    Raises:
        MetaRLError: a folder or a storage of another search, or all trials failed.
        KeyboardInterrupt: after Ctrl-C, and SystemExit after the other signals; repeated, it goes
            on with the runs that were under way.
    """
    with alone_in(out, out, "tuning"), opened(space, out, trials, storage, seed) as search:
        search.begin()
        try:
            if jobs == 1:
                search.work(quiet, quiet)
            else:
                command = ["tune", space.name, *space.overrides, "--space", str(space.file)]
                command += ["--out", str(out), "--trials", str(trials), "--seed", str(seed)]
                command += ["--storage", storage] if storage else []
                command += ["--worker", *["--quiet"] * quiet]
                codes = run_jobs([Job(command)] * jobs, jobs, GRACE)
                if any(codes):
                    raise MetaRLError(
                        f"{out}: a process ended with an error; see above, and repeat the command "
                        "to go on"
                    )
        except (KeyboardInterrupt, SystemExit):
            note(f"{out}: interrupted; repeat the command to go on")
            raise
        finally:
            search.write()
        return search.result()


@contextmanager
def opened(
    space: Space, out: Path, trials: int, storage: str | None, seed: int
) -> Iterator["Search"]:
    """A search in the folder `out`, its storage open."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = storage or f"sqlite:///{out / 'tune.db'}"
    waiting = {"connect_args": {"timeout": _SQLITE_SECONDS}} if url.startswith("sqlite") else {}
    try:
        database = optuna.storages.RDBStorage(url, engine_kwargs=waiting)
    except Exception as error:  # of any of its drivers
        raise ConfigError(f"--storage cannot be opened: {one_line(error)}") from error
    try:
        study = optuna.create_study(
            storage=database,
            study_name=out.name if storage else "tune",
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=_WARMUP),
            load_if_exists=True,
        )
        yield Search(space, out, trials, seed, study)
    except (StorageInternalError, SQLAlchemyError) as error:
        raise DiskError(
            f"{out}: the storage of the trials refuses ({one_line(error.__cause__ or error)}); "
            "repeat the command to go on"
        ) from error
    finally:
        database.remove_session()
        database.engine.dispose()


class Search:
    """A search under way; every process has one of its own, with the same storage."""

    def __init__(self, space: Space, out: Path, trials: int, seed: int, study: optuna.Study):
        self.space, self.out, self.trials, self.seed = space, out, trials, seed
        self.study = study

    def begin(self) -> None:
        """Begin, or go on: what was under way is done first, by the processes to come.

        Raises:
            CheckpointError: the folder or the storage is of another search.
        """
        content = {
            "configuration": to_dict(self.space.config({})),
            "space": {k: distribution_to_json(d) for k, d in self.space.distributions.items()},
            "seed": self.seed,
        }
        file = self.out / "study.json"
        if file.is_file():
            before = read_json(file)
            differing = [key for key, value in content.items() if before.get(key) != value]
            if differing:
                raise CheckpointError(
                    f"{self.out} holds trials of another {', '.join(differing)}; "
                    "choose another --out"
                )
        trials = self.study.get_trials(deepcopy=False)
        if bool(trials) != any(self.out.glob("trial-*")):
            raise CheckpointError(
                f"{self.out} and the storage do not hold the same trials; choose another --out"
            )
        write_atomically(file, to_json(content).encode())
        for trial in trials:
            if trial.state == TrialState.RUNNING:  # of a process that is gone
                self.study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def work(self, quiet: bool, silent: bool) -> None:
        """Train trial after trial, until there are enough.

        Args:
            quiet: no progress of a run.
            silent: no line of a trial.
        """
        with on_signals(_end):
            while (trial := self._next()) is not None:
                self._train(trial, quiet)
                if not silent:
                    print(_line(self._trials()[trial.number]), file=sys.stderr)

    def _next(self) -> optuna.Trial | None:
        """One that was interrupted, or another; None if there are enough.

        Draws depend on the seed, the number of the trial, and the trials before it.
        """
        with FileLock(self.out / ".next.lock"):
            trials = self.study.get_trials(deepcopy=False)
            waiting = any(trial.state == TrialState.WAITING for trial in trials)
            if len(trials) >= self.trials and not waiting:
                return None
            key = Rng(self.seed).child("trial", len(trials)).key
            self.study.sampler = optuna.samplers.TPESampler(seed=key % 2**32)
            return self.study.ask(dict(self.space.distributions))

    def _train(self, trial: optuna.Trial, quiet: bool) -> None:
        """Its run, to its end or until it is pruned; an error is kept, whatever it is."""
        folder = RunFolder(self.out / f"trial-{trial.number:04d}")
        try:
            config = self.space.config(trial.params)
            reported = len(self.study.get_trials(deepcopy=False)[trial.number].intermediate_values)
            judge = _Judge(trial, config, reported)
            result: dict[str, Any] = {}
            if not judge.pruned:
                result = train(
                    config, folder.path, resume=True, callbacks=[judge], quiet=quiet, test=False
                )
            if not judge.pruned and not math.isfinite(result["validation"]):
                raise MetaRLError(f"score: {config.score} is not finite on validation tasks")
        except DiskError:  # no fault of what was drawn: it goes on when the command is repeated
            raise
        except Exception as error:  # such as too little memory for what was drawn
            known = isinstance(error, MetaRLError)
            trial.set_user_attr("error", " ".join(str(error).split()) if known else one_line(error))
            if not known:
                folder.path.mkdir(exist_ok=True)
                write_atomically(folder.traceback, traceback.format_exc().encode())
            self.study.tell(trial, state=TrialState.FAIL)
            return
        if judge.pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, result["validation"])

    def _trials(self) -> list[Trial]:
        return [
            Trial(
                trial.number,
                _STATES.get(trial.state, "interrupted"),
                trial.value,
                trial.params,
                trial.user_attrs.get("error", ""),
            )
            for trial in self.study.get_trials(deepcopy=False)
        ]

    @property
    def _best(self) -> Trial | None:
        """The first of the best ones, if any has finished."""
        finished = [trial for trial in self._trials() if trial.state == "finished"]
        return max(finished, key=lambda trial: trial.value or 0.0, default=None)

    def write(self) -> None:
        """trials.csv, and best.yaml where there is a best one."""
        text = io.StringIO()
        keys = list(self.space.distributions)
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["number", "state", "value", *keys, "error"])
        for trial in self._trials():
            drawn = [trial.params.get(key) for key in keys]
            table.writerow([trial.number, trial.state, trial.value, *drawn, trial.error])
        write_atomically(self.out / "trials.csv", text.getvalue().encode())
        if (best := self._best) is not None:
            config = self.space.config(best.params)
            write_atomically(self.out / "best.yaml", to_yaml(config).encode())

    def result(self) -> Tuned:
        """What was found.

        Raises:
            MetaRLError: all trials failed.
        """
        trials, best = self._trials(), self._best
        if best is None:
            raise MetaRLError(
                f"all {len(trials)} trials failed, the first of them so: {trials[0].error}"
            )
        return Tuned(
            trials,
            best,
            self.space.config(best.params),
            self.out / "best.yaml",
            self._importances(),
        )

    def _importances(self) -> dict[str, float]:
        finished = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(finished) < _FEW:
            return {}
        with warnings.catch_warnings(action="ignore"):  # that it is experimental in Optuna 4
            return get_param_importances(self.study, evaluator=PedAnovaImportanceEvaluator())


class _Judge:
    """A callback of `train` that reports the best score so far, and asks whether to go on.

    The best so far is what a trial is judged by in the end. It is reported at every mark that was
    passed, so that each trial has a value at each mark that it came to.
    """

    def __init__(self, trial: optuna.Trial, config: Config, reported: int):
        """`reported` marks are in the storage: the run was interrupted after them."""
        self.trial, self.reported = trial, reported
        self.limits = config.model_dump(include=set(LIMITS))
        self.pruned = self._prune()

    def __call__(self, update: Update) -> bool:
        best = update.best
        if update.validation is None or best is None or not math.isfinite(best):
            return False
        passed = int(_MARKS * min(update.counters.progress(**self.limits), 1.0))
        for mark in range(self.reported + 1, passed + 1):
            self.trial.report(best, mark)
        self.reported = max(self.reported, passed)
        self.pruned = self._prune()
        return self.pruned

    def _prune(self) -> bool:
        """At its end nothing is gained by it."""
        return 0 < self.reported < _MARKS and self.trial.should_prune()


def _end(number: int, _: FrameType | None) -> None:
    raise ending(number)


def _line(trial: Trial) -> str:
    """What became of a trial, for whoever waits."""
    drawn = ", ".join(f"{key}={digits(value)}" for key, value in trial.params.items())
    reached = "" if trial.value is None else f" {digits(trial.value)}"
    return f"trial {trial.number} {trial.state}{reached}: {trial.error or drawn}"
