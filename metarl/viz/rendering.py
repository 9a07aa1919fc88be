"""A rollout as a picture or a video, of a run's agent or of any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metarl.config.overrides import read_options
from metarl.config.registry import names
from metarl.core.agent import Agent, Mode
from metarl.core.errors import MetaRLError, suggest
from metarl.core.family import Family
from metarl.core.types import Tasks
from metarl.evaluation.episodes import film
from metarl.experiments.building import load, make_agent, make_family, train_set
from metarl.viz import curves, video


def render(
    source: str,
    out: Path,
    options: Sequence[str] = (),
    *,
    agent: str | None = None,
    task: int = 0,
    split: str = "test",
    episodes: int | None = None,
    mode: Mode | None = None,
    seed: int = 0,
    lane: int = 0,
    fps: int | None = None,
) -> Path:
    """Film what happens on one task (see `film`) and write it to `out`: .png, .gif or .mp4.

    `source` is a run, whose best checkpoint acts unless another `agent` is named; or a family, where the agent is random
    unless one is named, and `options` such as ``family.horizon=20`` are for both. What is None is taken from the run.
    Without `fps` the longest episode lasts five seconds, at 4 to 20 pictures a second.

    Raises:
        MetaRLError: nothing to film there, or no way to write `out`.
    """
    still = out.suffix == ".png"
    if still and fps is not None:
        raise MetaRLError("fps: a picture does not move; write a .gif or an .mp4")
    if not still:
        video.encoder(out)
    if not out.parent.is_dir():
        raise MetaRLError(f"{out} cannot be written: there is no folder {out.parent}")
    cast = (
        _of_run(source, agent, options)
        if _is_run(source)
        else _of_family(source, agent or "random", options)
    )
    shot = film(
        cast.agent,
        cast.family,
        task=task,
        split=split,
        episodes=episodes or cast.episodes or cast.agent.lanes,
        mode=mode or cast.mode,
        seed=seed,
        lane=lane,
        train_set=cast.train_set,
        device=cast.device,
    )
    if still:
        return curves.storyboard(shot, out)
    fps = fps or min(max(cast.family.spec.horizon // 5, 4), 20)
    return video.write(out, curves.moving(shot, hold=fps), fps)


@dataclass(frozen=True)
class _Cast:
    """Who acts where."""

    agent: Agent
    family: Family
    episodes: int | None = None  # None: as many as the agent has lanes
    mode: Mode = "sample"
    train_set: Tasks | None = None
    device: str = "cpu"


def _is_run(source: str) -> bool:
    return Path(source).is_file() or (Path(source) / "checkpoints").is_dir()


def _of_run(path: str, agent: str | None, options: Sequence[str]) -> _Cast:
    if options:
        raise MetaRLError(f"{options[0]!r}: {path} is a run, and its options are fixed")
    loaded = load(path)
    config, family = loaded.config, loaded.family()
    acting = loaded.agent if agent is None else make_agent(agent, family.spec, device=config.device)
    return _Cast(
        acting, family, config.episodes, config.mode, train_set(config, family), config.device
    )


def _of_family(name: str, agent: str, options: Sequence[str]) -> _Cast:
    if ":" not in name and name not in names("family"):
        raise MetaRLError(
            f"{name!r} is neither a run folder nor a family: {suggest(name, names('family'))}"
        )
    chosen = read_options(options, "family", "agent")
    family = make_family(name, **chosen["family"])
    return _Cast(make_agent(agent, family.spec, **chosen["agent"]), family)
