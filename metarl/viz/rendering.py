"""Pictures and videos of an agent on one task, from a run or by name."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from metarl.config.overrides import read_options
from metarl.config.registry import names
from metarl.core.agent import Agent
from metarl.core.errors import ConfigError, suggest
from metarl.core.family import Captioned, Drawable, Family, Timed
from metarl.core.protocol import EvalProtocol
from metarl.evaluation.episodes import Film, record_episodes
from metarl.experiments.building import make_agent, make_family, open_run
from metarl.experiments.loading import OPENING, Opening
from metarl.viz.film import animate, draw_storyboard, frames_apart
from metarl.viz.style import check_path
from metarl.viz.video import check_ffmpeg, speed, write_video

_FEW = 4  # numbers of a task row that a title can hold


def render(
    source: str,
    out: Path,
    options: Sequence[str] = (),
    *,
    agent: str | None = None,
    task: int = 0,
    lane: int = 0,
    fps: int | None = None,
    opening: Opening = OPENING,
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
    acting, family, protocol = _cast(source, agent, options, opening)
    protocol = protocol.changed(**given)
    every = frames_apart(family.spec.horizon) if still else 1
    film = record_episodes(acting, family, protocol, task=task, lane=lane, every=every)
    params = protocol.row(family, task).params[0].cpu()
    if still:
        return draw_storyboard(_captioned(film, describe(family, params)), out)
    fps = fps or min(max(family.spec.horizon // 5, 4), 20)
    words = describe(family, params, speed(out, fps))
    return write_video(out, animate(_captioned(film, words), hold=fps), fps)


def describe(family: Family, params: Tensor, fps: float | None = None) -> str:
    """What is known of a task row [P], and how fast a video of `fps` steps a second shows it.

    A row of few numbers stands for itself where the family has no words for it and no scene in
    which it is seen.
    """
    words = []
    if isinstance(family, Captioned):
        words.append(family.caption(params))
    elif not isinstance(family, Drawable):
        goal = family.spec.goal_width
        shown = [f"{value:.2f}" for value in params[: goal or len(params)].tolist()]
        if 1 <= len(shown) <= _FEW:
            words.append(f"{'goal' if goal else 'task row'} ({', '.join(shown)})")
    if fps is not None:
        pace = f": × {fps * family.seconds:.2g} real time" if isinstance(family, Timed) else ""
        words.append(f"{fps:.3g} steps/s{pace}")
    elif isinstance(family, Timed):
        words.append(f"{family.seconds:g} s a step")
    return ", ".join(words).replace("-", "−")


def _captioned(film: Film, words: str) -> Film:
    return replace(film, title=f"{film.title}\n{words}" if words else film.title)


def _cast(
    source: str,
    agent: str | None,
    options: Sequence[str],
    opening: Opening,
) -> tuple[Agent, Family, EvalProtocol]:
    """Who acts, in which family, and by which protocol."""
    if Path(source).is_file() or (Path(source) / "checkpoints").is_dir():
        if options:
            raise ConfigError(f"{options[0]!r}: {source} is a run, and its options are fixed")
        loaded = open_run(source, opening)
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
