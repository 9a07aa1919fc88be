"""A trained agent beside others, all on the same tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metarl.config.registry import names
from metarl.config.schema import Config
from metarl.core.agent import Agent
from metarl.core.errors import CheckpointError, ConfigError
from metarl.core.protocol import EvalProtocol
from metarl.evaluation import stats
from metarl.evaluation.meta_test import evaluate
from metarl.evaluation.scores import ARRAYS, Scores, combine
from metarl.experiments.building import Loaded, load, make_agent, train_set

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
        """Differences of `score` between splits, of the same runs."""
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
    path: str | Path, against: Sequence[str] = (), baselines: bool = True, **given: Any
) -> Comparison:
    """The run at `path` (all its seeds as one) beside others on the same tasks.

    Args:
        against: agents by name, made with their defaults, and other runs by path (a folder that is
            called like an agent is: ``./random``).
        baselines: also the run without adaptation, random actions, and the run on other splits.
        given: of the protocol: split, tasks, episodes, mode, seed; where None as `path` says.

    Raises:
        MetaRLError: no run there, a run of another family or training set, or an agent that cannot
            act in this one.
    """
    loaded = [load(run) for run in runs(path)]
    first, family = loaded[0], loaded[0].family()
    protocol = first.protocol(**given)

    def score(agent: Agent, config: Config, protocol: EvalProtocol) -> Scores:
        tasks = train_set(config, family)
        return evaluate(agent, family, protocol, train_set=tasks, device=config.device)

    def score_runs(seeds: Sequence[Loaded], protocol: EvalProtocol = protocol) -> Scores:
        return combine([score(seed.agent, seed.config, protocol) for seed in seeds])

    own = score_runs(loaded)
    name = label_of(first.config.agent.name, first.agent)
    scores, trained = {name: own}, {name}
    if baselines:
        scores[f"{name}, no adaptation"] = score_runs(loaded, replace(protocol, adapt=False))
        against = [*against, *({RANDOM} - set(against))]
    for other in against:
        if other in names("agent") or not Path(other).exists():
            agent = make_agent(other, family.spec, device=first.config.device)
            label = f"{other} (untrained)" if other in scores else other
            scores[label] = score(agent, first.config, protocol)
            continue
        others = [load(run) for run in runs(other)]
        if others[0].spec != first.spec:
            raise ConfigError(
                f"{other} was trained on {others[0].config.family.name} of another shape than "
                f"{path}"
            )
        theirs = score_runs(others)
        if theirs.task_hash != own.task_hash:
            raise ConfigError(
                f"{other} was trained on other tasks than {path}: compare other splits"
            )
        label = label_of(Path(other).name, others[0].agent)
        label = other if label in scores else label
        scores[label] = theirs
        trained.add(label)

    elsewhere: dict[str, Scores] = {}
    if baselines and own.split == "test" and not own.closed and isinstance(protocol.tasks, int):
        for split in ("train", "ood"):
            if split in family.spec.splits:
                elsewhere[split] = score_runs(loaded, replace(protocol, split=split))
    return Comparison(
        scores,
        first.config.score,
        first.config.episodes,
        frozenset(trained),
        elsewhere,
    )


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
