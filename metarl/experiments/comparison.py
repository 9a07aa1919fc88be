"""A trained agent beside others, all on the same tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metarl.collect.pool import Pool
from metarl.config.registry import find, names
from metarl.config.schema import Config
from metarl.core.agent import Agent
from metarl.core.errors import CheckpointError, ConfigError
from metarl.core.progress import part
from metarl.core.rng import Rng
from metarl.evaluation import stats
from metarl.evaluation.meta_test import evaluate
from metarl.evaluation.scores import ARRAYS, Scores, combine
from metarl.experiments.archive import is_sb3_model
from metarl.experiments.building import Loaded, make_agent, open_run, train_set
from metarl.experiments.loading import OPENING, Opening
from metarl.experiments.workers import LocalWorkers, Workers, workers_of

RANDOM = "random"


@dataclass(frozen=True)
class Comparison:
    """Scores by name on the same tasks, that of the run first."""

    scores: dict[str, Scores]
    score: str
    """What the checkpoint of the run was chosen by: agents are compared by it, too."""
    trained_episodes: int
    """Episodes of a trial in the run's training."""
    trained: frozenset[str]
    """Names of those that are runs: others, such as strategies, have no seeds to differ by."""
    elsewhere: dict[str, Scores]
    """The run's by split, where it was evaluated on other splits."""

    def differences(self) -> dict[str, dict[str, Any]]:
        """The run against each of the others: paired differences of `score`, share of tasks won."""
        name, own = next(iter(self.scores.items()))
        differences = {}
        for other, scores in self.scores.items():
            if other != name:
                trained = other in self.trained
                differences[f"{name} − {other}"] = _difference(own, scores, self.score, trained)
        return differences

    def gaps(self) -> dict[str, stats.Estimate]:
        """Differences of the mean score between splits, of the same runs."""
        own = next(iter(self.scores.values()))
        splits = {own.split: own, **self.elsewhere}
        return generalization_gaps(splits, self.score)

    def to_dict(self, arrays: bool = True) -> dict[str, Any]:
        """As plain values; without `arrays` no number of a single task."""
        content: dict[str, Any] = {}
        for name, scores in self.scores.items():
            content[name] = scores.to_dict() | {"trained_episodes": self.trained_episodes}
            for array in () if arrays else ARRAYS:
                del content[name][array]
        return {
            "scores": content,
            "score": self.score,
            "differences": self.differences(),
            "gaps": {name: vars(gap) for name, gap in self.gaps().items()},
        }


def compare(
    path: str | Path,
    against: Sequence[str] = (),
    baselines: bool = True,
    opening: Opening = OPENING,
    **given: Any,
) -> Comparison:
    """The run at `path` (all its seeds as one) beside others on the same tasks.

    Args:
        against: agents by name, made with their defaults, and other runs by path (a folder that is
            called like an agent is: ``./random``), or files that Stable-Baselines3 has saved, which
            `opening` must trust.
        opening: how runs are opened.
        baselines: also the run without adaptation, random actions, and the run on other splits.
        given: of the protocol: split, tasks, episodes, test_episodes, mode, test_mode, seed; where
            None as `path` says.

    Raises:
        MetaRLError: no run there, a run of another family or training set, or an agent that cannot
            act in this one.
    """
    if baselines:
        against = [*against, *({RANDOM} - set(against))]
    for other in against:
        if _is_agent(other):
            find("agent", other)
    meeting = _Meeting(path, opening, given)
    with workers_of(meeting.first.config) as meeting.workers:
        rivals = [meeting.rival(other) for other in against]
        elsewhere = meeting.elsewhere() if baselines else []
        name = label_of(meeting.first.config.agent.name, meeting.first.agent)
        count = 1 + baselines + len(rivals) + len(elsewhere)
        with part(name, 0, count):
            own = meeting.score_runs(meeting.runs)
        scores, trained = {name: own}, {name}
        if baselines and own.returns.shape[1] > 1:  # one is before any adaptation
            label = f"{name}, no adaptation"
            with part(label, 1, count):
                scores[label] = meeting.score_runs(meeting.runs, adapt=False)
        for number, rival in enumerate(rivals, 1 + baselines):
            label = rival.label
            if label in scores:
                label = rival.name if rival.trained else f"{rival.name} (untrained)"
            with part(label, number, count):
                scores[label] = meeting.score_rival(rival, own)
            if rival.trained:
                trained.add(label)
        splits: dict[str, Scores] = {}
        for number, split in enumerate(elsewhere, count - len(elsewhere)):
            with part(f"{name}, {split} tasks", number, count):
                splits[split] = meeting.score_split(split)
    return Comparison(
        scores,
        meeting.first.config.score,
        meeting.first.config.episodes,
        frozenset(trained),
        splits,
    )


def _is_agent(name: str) -> bool:
    """Whether that is an agent's name, not the path of a run."""
    return name in names("agent") or not Path(name).exists()


@dataclass(frozen=True)
class _Rival:
    """Another agent or other runs, which can act on the family."""

    name: str  # as it was given
    label: str
    seeds: list[tuple[Agent, Config]]
    """Agents, and how they were trained."""
    trained: bool = True
    run: bool = True
    """Whether they are runs of ours, which met tasks of their own."""


class _Meeting:
    """The runs at a path, and the tasks that they and others meet."""

    def __init__(self, path: str | Path, opening: Opening, given: dict[str, Any]):
        self.path, self.opening = path, opening
        self.runs = [open_run(run, opening) for run in runs(path)]
        self.first = self.runs[0]
        self.family = self.first.family()
        self.protocol = self.first.protocol(**given)
        self.workers: Workers = LocalWorkers()

    def score(
        self, agent: Agent, config: Config, pool: Pool | None = None, **changes: Any
    ) -> Scores:
        """Of an agent that was trained as `config` says, by the protocol with `changes`."""
        tasks = train_set(config, self.family)
        changes |= {"train_set": tasks, "device": config.device}
        return evaluate(agent, self.family, self.protocol, pool, **changes)

    def pool(self, config: Config) -> Pool:
        """The workers with the agent of `config`, on the family that all meet."""
        config = config.model_copy(update={"family": self.first.config.family})
        return self.workers.pool(config, self.family)

    def score_runs(
        self, seeds: Sequence[Loaded], same_tasks: bool = True, **changes: Any
    ) -> Scores:
        scores = [self.score(x.agent, x.config, self.pool(x.config), **changes) for x in seeds]
        return combine(scores, same_tasks)

    def rival(self, name: str) -> _Rival:
        """The agent called `name`, with its defaults, or what was trained at this path."""
        config = self.first.config
        if _is_agent(name):
            agent = make_agent(name, self.family.spec, device=config.device)
            return _Rival(name, name, [(agent, config)], trained=False, run=False)
        if is_sb3_model(Path(name)):
            return self._sb3_model(Path(name))
        rivals = [open_run(run, self.opening) for run in runs(name)]
        if rivals[0].spec != self.first.spec:
            raise ConfigError(
                f"{name} was trained on {rivals[0].config.family.name} of another shape than "
                f"{self.path}"
            )
        label = label_of(Path(name).name, rivals[0].agent)
        return _Rival(name, label, [(x.agent, x.config) for x in rivals])

    def score_rival(self, rival: _Rival, own: Scores) -> Scores:
        """Its scores on the tasks of `own`."""
        of_seeds = []
        for agent, config in rival.seeds:
            pool = self.pool(config) if rival.run else None
            of_seeds.append(self.score(agent, config, pool))
        scores = combine(of_seeds)
        if rival.run and scores.task_hash != own.task_hash:
            raise ConfigError(
                f"{rival.name} was trained on other tasks than {self.path}: compare other splits"
            )
        return scores

    def _sb3_model(self, path: Path) -> _Rival:
        from metarl.agents.sb3.agent import SB3  # takes seconds to import
        from metarl.agents.sb3.model import read_model

        config, spec = self.first.config, self.family.spec
        device = torch.device(config.device)
        settings, model = read_model(path, spec, device, self.opening.trust)
        agent = SB3(settings, spec, Rng(0), device, model)
        return _Rival(str(path), label_of(path.name, agent), [(agent, config)], run=False)

    def elsewhere(self) -> list[str]:
        """Splits to evaluate the runs on beside test tasks."""
        spec, protocol = self.family.spec, self.protocol
        if protocol.split != "test" or spec.closed or not isinstance(protocol.tasks, int):
            return []
        return [split for split in ("train", "ood") if split in spec.splits]

    def score_split(self, split: str) -> Scores:
        """Of the runs on tasks of another split."""
        # Runs with fixed training tasks have each drawn their own.
        shared = split != "train" or self.protocol.train_set is None
        return self.score_runs(self.runs, shared, split=split)


def runs(path: str | Path) -> list[Path]:
    """The run folders at `path`: itself, or those right below it (several seeds of one run).

    Raises:
        CheckpointError: there are none.
    """
    path = Path(path)
    if path.is_file() or (path / "checkpoints").is_dir():
        return [path]
    found = sorted(folder.parent for folder in path.glob("*/checkpoints"))
    if not found:
        raise CheckpointError(f"{path} is no run folder and holds none")
    return found


def label_of(name: str, agent: Agent) -> str:
    """How tables call an agent: whoever is shown the task is no rival of who must find it out."""
    return name if agent.task_input == "none" else f"{name} (shown the task)"


def generalization_gaps(splits: dict[str, Scores], score: str) -> dict[str, stats.Estimate]:
    """train − test and test − ood of the same runs, where there are both."""
    gaps = {}
    for better, worse in (("train", "test"), ("test", "ood")):
        if better in splits and worse in splits and not splits[better].closed:
            first, second = splits[better], splits[worse]
            gaps[f"{better} − {worse}"] = stats.gap(
                first.by_task(first.figure(score)),
                second.by_task(second.figure(score)),
                (first.tasks_fixed, second.tasks_fixed),
            )
    return gaps


def _difference(own: Scores, other: Scores, score: str, trained: bool) -> dict[str, Any]:
    """Of a single run nothing is known about other seeds: neither are those of the other asked."""
    first, second = (scores.by_task(scores.figure(score)) for scores in (own, other))
    won = stats.tasks_won(first, second)
    if not other.adapt:  # the same runs
        difference = stats.mean(first - second, own.tasks_fixed)
    else:
        if trained and min(own.runs, other.runs) == 1:
            first, second = first.mean(0, keepdims=True), second.mean(0, keepdims=True)
        difference = stats.difference(first, second, own.tasks_fixed)
    return {**vars(difference), "tasks_won": won}
