"""A trained agent beside others, all on the same tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metarl.agent import make_agent
from metarl.errors import Mistake
from metarl.evaluate import Scores, combine, evaluate
from metarl.train import Loaded, load


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
    mode: str | None = None,
    seed: int = 0,
) -> dict[str, Scores]:
    """Scores by name of the run at `path` (all its seeds as one) and of the agents `beside` it, made with their defaults.

    What is None is taken from the run's configuration.

    Raises:
        Mistake: no run there, or an agent that cannot play its family.
    """
    loaded = [load(run) for run in runs(path)]
    first = loaded[0]
    config = first.config
    family = first.family()

    def score(agent_of: Loaded) -> Scores:
        return evaluate(
            agent_of.agent,
            family,
            episodes=episodes or config.episodes,
            tasks=tasks or config.test_tasks,
            split=split,
            mode=mode or config.mode,  # type: ignore[arg-type]
            seed=seed,
            train_tasks=config.train_tasks,
            device=config.device,
        )

    others = {name: make_agent(name, family.spec, device=config.device) for name in beside}
    scores = {config.agent.name: combine([score(one) for one in loaded])}
    for name, agent in others.items():
        scores[name] = score(Loaded(agent, family.spec, config, first.counters))
    return scores
