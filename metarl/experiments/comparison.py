"""A trained agent beside others, all on the same tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarl.config.registry import names
from metarl.config.schema import Config
from metarl.core.agent import Agent
from metarl.core.errors import CheckpointError, ConfigError
from metarl.evaluation.meta_test import Scores, combine, evaluate
from metarl.experiments.building import Loaded, load, make_agent, train_set


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


def compare(path: str | Path, against: Sequence[str] = (), **given: Any) -> dict[str, Scores]:
    """Scores by name of the run at `path` (all its seeds as one) and of others on the same tasks.

    Args:
        against: agents by name, made with their defaults, and other runs by path (a folder that is
            called like an agent is: ``./random``).
        given: of the protocol: split, tasks, episodes, mode, seed; where None as `path` says.

    Raises:
        MetaRLError: no run there, a run of another family or training set, or an agent that cannot
            act in this one.
    """
    loaded = [load(run) for run in runs(path)]
    first, family = loaded[0], loaded[0].family()
    protocol = first.protocol(**given)

    def score(agent: Agent, config: Config) -> Scores:
        tasks = train_set(config, family)
        return evaluate(agent, family, protocol, train_set=tasks, device=config.device)

    def score_runs(seeds: Sequence[Loaded]) -> Scores:
        return combine([score(seed.agent, seed.config) for seed in seeds])

    own = score_runs(loaded)
    scores = {first.config.agent.name: own}
    for name in against:
        if name in names("agent") or not Path(name).exists():
            agent = make_agent(name, family.spec, device=first.config.device)
            label = f"{name} (untrained)" if name in scores else name
            scores[label] = score(agent, first.config)
            continue
        others = [load(run) for run in runs(name)]
        if others[0].spec != first.spec:
            raise ConfigError(
                f"{name} was trained on {others[0].config.family.name} of another shape than {path}"
            )
        label = Path(name).name
        theirs = score_runs(others)
        if theirs.task_hash != own.task_hash:
            raise ConfigError(
                f"{name} was trained on other tasks than {path}: compare other splits"
            )
        scores[name if label in scores else label] = theirs
    return scores
