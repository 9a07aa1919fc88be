"""A trained agent beside others, all on the same tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metarl.config.registry import names
from metarl.config.schema import Config
from metarl.core.agent import Agent, Mode
from metarl.core.errors import MetaRLError
from metarl.evaluation.meta_test import Scores, combine
from metarl.experiments.building import Loaded, load, make_agent
from metarl.experiments.runs import score


def runs(path: str | Path) -> list[Path]:
    """The run folders at `path`: itself, or those right below it (several seeds of one configuration).

    Raises:
        MetaRLError: there are none.
    """
    path = Path(path)
    if path.is_file() or (path / "checkpoints").is_dir():
        return [path]
    found = sorted(child for child in path.glob("*") if (child / "checkpoints").is_dir())
    if not found:
        raise MetaRLError(f"{path} is no run folder and holds none")
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
    """Scores by name of the run at `path` (all its seeds as one) and of those `beside` it, all on the tasks of `path`.

    Beside it may stand agents by name, made with their defaults, and other runs by path (a folder that is called as an
    agent is: ``./random``). What is None is taken from the configuration of the run at `path`.

    Raises:
        MetaRLError: no run there, a run of another family, or an agent that cannot play this one.
    """
    loaded = [load(run) for run in runs(path)]
    first, family = loaded[0].config, loaded[0].family()

    def scored(agent: Agent, config: Config) -> Scores:
        budget = {"episodes": episodes or first.episodes, "mode": mode or first.mode}
        return score(
            config.model_copy(update=budget),
            family,
            agent,
            split,
            tasks or first.test_tasks,
            seed=seed,
        )

    def together(ones: Sequence[Loaded]) -> Scores:
        return combine([scored(one.agent, one.config) for one in ones])

    scores = {first.agent.name: together(loaded)}
    for name in beside:
        if name not in names("agent") and Path(name).exists():
            others = [load(run) for run in runs(name)]
            if others[0].spec != loaded[0].spec:
                raise MetaRLError(
                    f"{name} was trained on {others[0].config.family.name} of another shape than {path}"
                )
            scores[Path(name).name if Path(name).name not in scores else name] = together(others)
        else:
            scores[name] = scored(make_agent(name, family.spec, device=first.device), first)
    return scores
