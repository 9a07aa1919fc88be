"""A trained agent beside others, all on the same tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metarl.agent import Agent, Mode, make_agent
from metarl.config import Config
from metarl.errors import Mistake
from metarl.evaluation import Scores, combine
from metarl.run import load, score


def runs(path: str | Path) -> list[Path]:
    """The run folders at `path`: itself, or those right below it (several seeds of one configuration).

    Raises:
        Mistake: there are none.
    """
    path = Path(path)
    if path.is_file() or (path / "checkpoints").is_dir():
        return [path]
    found = sorted(child for child in path.glob("*") if (child / "checkpoints").is_dir())
    if not found:
        raise Mistake(f"{path} is no run folder and holds none")
    return found


def compare(
    path: str | Path,
    *,
    beside: Sequence[str] = (),
    split: str = "test",
    tasks: int | None = None,
    episodes: int | None = None,
    mode: Mode | None = None,
    seed: int = 0,
) -> dict[str, Scores]:
    """Scores by name of the run at `path` (all its seeds as one) and of the agents `beside` it, made with their defaults.

    What is None is taken from the run's configuration.

    Raises:
        Mistake: no run there, or an agent that cannot play its family.
    """
    loaded = [load(run) for run in runs(path)]
    first = loaded[0].config
    family = loaded[0].family()

    def scored(agent: Agent, config: Config) -> Scores:
        config = config.model_copy(update={"episodes": episodes or config.episodes})
        return score(config, family, agent, split, tasks or config.test_tasks, mode=mode, seed=seed)

    others = {name: make_agent(name, family.spec, device=first.device) for name in beside}
    scores = {first.agent.name: combine([scored(one.agent, one.config) for one in loaded])}
    return scores | {name: scored(agent, first) for name, agent in others.items()}
