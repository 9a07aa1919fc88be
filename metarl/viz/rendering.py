"""Pictures and videos of an agent on one task, from a run or by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarl.config.overrides import read_options
from metarl.config.registry import names
from metarl.core.agent import Agent
from metarl.core.errors import ConfigError, suggest
from metarl.core.family import Family
from metarl.core.protocol import EvalProtocol
from metarl.evaluation.episodes import record_episodes
from metarl.experiments.building import load, make_agent, make_family
from metarl.viz.film import animate, draw_storyboard
from metarl.viz.style import check_path
from metarl.viz.video import check_ffmpeg, write_video


def render(
    source: str,
    out: Path,
    options: Sequence[str] = (),
    *,
    agent: str | None = None,
    task: int = 0,
    lane: int = 0,
    fps: int | None = None,
    **given: Any,
) -> Path:
    """Draw the episodes of `record_episodes` to `out`: .png, .gif or .mp4.

    `source` is a run, whose best checkpoint acts unless another `agent` is named, or a family, in
    which that agent or a random one acts; `options` such as ``family.horizon=20`` are for both.
    `given` of the protocol are split, episodes, mode, test_mode and seed; what is None is as in the
    run. By default the longest episode lasts about five seconds.

    Raises:
        MetaRLError: an error of `record_episodes`, or no way to write `out`.
    """
    check_path(out, ".png", ".gif", ".mp4")
    still = out.suffix == ".png"
    if still and fps is not None:
        raise ConfigError("fps: a picture does not move; write a .gif or an .mp4")
    if out.suffix == ".mp4":
        check_ffmpeg()
    acting, family, protocol = _cast(source, agent, options)
    film = record_episodes(
        acting,
        family,
        protocol.changed(**given),
        task=task,
        lane=lane,
    )
    if still:
        return draw_storyboard(film, out)
    fps = fps or min(max(family.spec.horizon // 5, 4), 20)
    return write_video(out, animate(film, hold=fps), fps)


def _cast(
    source: str, agent: str | None, options: Sequence[str]
) -> tuple[Agent, Family, EvalProtocol]:
    """Who acts, in which family, and by which protocol."""
    if Path(source).is_file() or (Path(source) / "checkpoints").is_dir():
        if options:
            raise ConfigError(f"{options[0]!r}: {source} is a run, and its options are fixed")
        loaded = load(source)
        family, acting = loaded.family(), loaded.agent
        if agent is not None:
            acting = make_agent(agent, family.spec, device=loaded.config.device)
        return acting, family, loaded.protocol()

    if ":" not in source and source not in names("family"):
        raise ConfigError(
            f"{source!r} is neither a run folder nor a family: {suggest(source, names('family'))}"
        )
    chosen = read_options(options, "family", "agent")
    family = make_family(source, **chosen["family"])
    acting = make_agent(agent or "random", family.spec, **chosen["agent"])
    return acting, family, EvalProtocol(acting.lanes)
