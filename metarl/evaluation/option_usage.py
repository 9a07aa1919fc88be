"""What a run's agent does with its options: how often and how long each runs, what follows it, and where it acts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.core.agent import Agent, Mode
from metarl.core.errors import MetaRLError
from metarl.core.family import Family
from metarl.core.rollout import Rollout, stack_lanes
from metarl.core.types import Inputs, Scene, Tasks, replace
from metarl.evaluation.episodes import observations, single_episode
from metarl.evaluation.meta_test import evaluation_rng, sample_tasks, trial
from metarl.evaluation.stats import Array
from metarl.options.option_policy import option_count
from metarl.options.segments import segments
from metarl.options.segments import usage as summary


@dataclass(frozen=True)
class Moves:
    """S steps seen from above, of all episodes."""

    ground: Scene  # what is the same in all of them, and every place as its path
    before: Array  # [S, 2] where the agent was
    after: Array  # [S, 2] where it came to
    option: NDArray[np.int64]  # [S] what ran
    begins: NDArray[np.bool_]  # [S] whether it was begun there


@dataclass(frozen=True)
class Usage:
    """How L options were used."""

    title: str
    steps: int  # that were lived through
    shares: Array  # [L] of these steps
    begun: NDArray[np.int64]  # [L] how often
    durations: Array  # [L] mean steps of a stretch; NaN of an option that never ran
    followed: NDArray[
        np.int64
    ]  # [L, L] how often one of the row was followed by one of the column, within an episode
    entropy: float  # of the shares, in nats
    duration: float  # mean steps of all stretches
    switch_rate: (
        float  # how often one option followed another, a step at which an episode does not begin
    )
    moves: Moves | None = None  # where the family offers a scene

    def to_dict(self) -> dict[str, Any]:
        """Everything but the moves, as plain values with six decimals."""
        options = [
            {
                "share": round(float(self.shares[o]), 6),
                "begun": int(self.begun[o]),
                "duration": round(float(self.durations[o]), 6) if self.begun[o] else None,
                "followed_by": self.followed[o].tolist(),
            }
            for o in range(len(self.shares))
        ]
        means = {
            name: round(getattr(self, name), 6) for name in ("entropy", "duration", "switch_rate")
        }
        return {"title": self.title, "steps": self.steps, **means, "options": options}


def observe(
    agent: Agent,
    family: Family,
    *,
    episodes: int,
    tasks: int = 50,
    split: str = "test",
    mode: Mode = "sample",
    seed: int = 0,
    train_set: Tasks | None = None,
    device: str | torch.device = "cpu",
) -> Usage:
    """Let `agent` meet what `evaluate` lets it meet with the same arguments, and look at what its options do.

    Raises:
        MetaRLError: the agent has none, or whatever `evaluate` objects to.
    """
    count = option_count(agent)
    if not count:
        raise MetaRLError(
            f"{type(agent).__name__} acts without options; train one that has some, such as rl2 with agent.options=4"
        )
    rng = evaluation_rng(seed)
    rows = sample_tasks(family, split, tasks, rng, train_set).to(torch.device(device))
    env, lanes, scene = family.make(agent.lanes), agent.lanes, getattr(family, "scene", None)
    rounds: list[Rollout] = []
    parts: list[tuple[Scene, Rollout]] = []
    for rollout, _ in trial(
        agent, env, family.spec, rows, episodes, mode, rng, lanes=lanes, train_set=train_set
    ):
        rounds.append(_light(rollout))
        if scene is not None:
            lived = [
                (row, single_episode(rollout, row, lane))
                for row in range(len(rows))
                for lane in range(lanes)
            ]
            parts += [
                (scene(rows.params[row].cpu(), observations(episode)), _light(episode))
                for row, episode in lived
            ]
    title = f"What the options of {type(agent).__name__} do on {len(rows)} {split} tasks of {family.spec.name}"
    return _counted(title, stack_lanes(rounds), count, _moves(parts) if parts else None)


def _light(rollout: Rollout) -> Rollout:
    """Without what is wide, and is not needed any more."""
    nothing = rollout.next_obs[..., :0]
    return replace(
        rollout, inputs=Inputs(nothing, option=rollout.inputs.option), next_obs=nothing, extras={}
    )


def _counted(title: str, rollout: Rollout, count: int, moves: Moves | None) -> Usage:
    """Of a rollout [T, N, M] of one episode a lane."""
    overall, stretches = summary(rollout, count), segments(rollout)
    real = stretches.duration > 0
    begun = torch.bincount(stretches.option[real], minlength=count)
    steps = torch.bincount(
        stretches.option[real], weights=stretches.duration[real].double(), minlength=count
    )
    more = real[1:]
    pairs = count * stretches.option[:-1][more] + stretches.option[1:][more]
    return Usage(
        title=title,
        steps=rollout.env_steps,
        shares=np.array([overall[f"usage_{o}"] for o in range(count)]),
        begun=begun.cpu().numpy(),
        durations=(steps / begun).cpu().numpy(),
        followed=torch.bincount(pairs, minlength=count * count).view(count, count).cpu().numpy(),
        entropy=overall["usage_entropy"],
        duration=overall["option_duration"],
        switch_rate=overall["switch_rate"],
        moves=moves,
    )


def _moves(parts: list[tuple[Scene, Rollout]]) -> Moves:
    """Episodes and how they look, one after another."""
    paths = [scene.path.double().numpy() for scene, _ in parts]
    before, after = (
        np.concatenate([path[some] for path in paths]) for some in (slice(-1), slice(1, None))
    )
    options, begins = [], []
    for _, episode in parts:
        running = episode.inputs.option
        assert running is not None
        options.append(running.current.numpy())
        begins.append(running.begins.numpy())
    return Moves(
        _shared([scene for scene, _ in parts]),
        before,
        after,
        np.concatenate(options),
        np.concatenate(begins),
    )


def _shared(scenes: list[Scene]) -> Scene:
    """What is the same in all `scenes`, with every place as its path."""
    first, kept = scenes[0], dict[str, Any]()
    for name in ("goal", "walls", "others"):
        whole = getattr(first, name)
        same = whole is not None and all(_equal(getattr(scene, name), whole) for scene in scenes)
        kept[name] = whole if same else None
    edges = np.array([scene.limits for scene in scenes])
    (left, bottom), (right, top) = edges[:, ::2].min(0).tolist(), edges[:, 1::2].max(0).tolist()
    return replace(
        first,
        path=torch.cat([scene.path for scene in scenes]),
        limits=(left, right, bottom, top),
        **kept,
    )


def _equal(one: torch.Tensor | None, other: torch.Tensor) -> bool:
    return one is not None and torch.equal(one, other)
