"""What an agent does with its options: how often and how long each runs, what follows, where."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.core.agent import Agent
from metarl.core.errors import ConfigError
from metarl.core.family import Drawable, Family
from metarl.core.protocol import EvalProtocol
from metarl.core.rollout import Rollout, stack_lanes
from metarl.core.types import Inputs, Scene, replace
from metarl.evaluation.episodes import observations, single_episode
from metarl.evaluation.meta_test import trial
from metarl.evaluation.stats import Array
from metarl.options.option_policy import option_count
from metarl.options.segments import segments
from metarl.options.segments import usage as summarize


@dataclass(frozen=True)
class Moves:
    """S steps seen from above, of all episodes."""

    ground: Scene
    """What all episodes have in common; its path holds every place."""
    before: Array
    """[S, 2] where the agent was."""
    after: Array
    """[S, 2] where it came to."""
    option: NDArray[np.int64]
    """[S] the option that ran."""
    begins: NDArray[np.bool_]
    """[S] whether it began at this step."""


@dataclass(frozen=True)
class Usage:
    """How L options were used; a stretch is a run of steps of one option."""

    title: str
    steps: int
    """Steps of all episodes."""
    shares: Array
    """[L] of these steps."""
    begun: NDArray[np.int64]
    """[L] number of stretches."""
    durations: Array
    """[L] mean steps of a stretch; NaN of an option that never ran."""
    followed: NDArray[np.int64]
    """[L, L] how often the option of the row was followed by that of the column in an episode."""
    entropy: float
    """Of the shares, in nats."""
    duration: float
    """Mean steps of all stretches."""
    switch_rate: float
    """Share of steps, the first of each episode apart, at which one option followed another."""
    moves: Moves | None = None
    """None: the family cannot be drawn from above."""

    def to_dict(self) -> dict[str, Any]:
        """Everything but the moves, as plain values with six decimals."""
        options = []
        for o, begun in enumerate(self.begun.tolist()):
            option = {
                "share": round(float(self.shares[o]), 6),
                "begun": begun,
                "duration": round(float(self.durations[o]), 6) if begun else None,
                "followed_by": self.followed[o].tolist(),
            }
            options.append(option)
        return {
            "title": self.title,
            "steps": self.steps,
            "entropy": round(self.entropy, 6),
            "duration": round(self.duration, 6),
            "switch_rate": round(self.switch_rate, 6),
            "options": options,
        }


def measure_option_usage(
    agent: Agent,
    family: Family,
    protocol: EvalProtocol,
) -> Usage:
    """How `agent` uses its options in the rollouts of `evaluate`.

    Raises:
        MetaRLError: an agent without options, or an error of `evaluate`.
    """
    name = type(agent).__name__
    count = option_count(agent)
    if not count:
        raise ConfigError(
            f"{name} acts without options; train one that has some, "
            "such as rl2 with agent.options=4"
        )
    rows, lanes = protocol.rows(family, agent), agent.lanes
    rounds, moves = [], []
    for rollout, _ in trial(agent, family, rows, protocol):
        rounds.append(_without_observations(rollout))
        if isinstance(family, Drawable):
            for row, lane in np.ndindex(len(rows), lanes):
                episode = single_episode(rollout, row, lane)
                moves.append(_moves(family, rows.params[row].cpu(), episode))
    title = f"What the options of {name} do on {len(rows)} {rows.split} tasks of {family.spec.name}"
    return _usage(title, stack_lanes(rounds), count, _join(moves) if moves else None)


def _without_observations(rollout: Rollout) -> Rollout:
    """Only what options need: observations and extras are large."""
    nothing = rollout.next_obs[..., :0]
    inputs = Inputs(nothing, option=rollout.inputs.option)
    return replace(rollout, inputs=inputs, next_obs=nothing, extras={})


def _usage(
    title: str,
    rollout: Rollout,
    count: int,
    moves: Moves | None,
) -> Usage:
    """Of a rollout [T, N, M] of one episode a lane."""
    summary = summarize(rollout, count)
    shares = [summary[f"usage_{o}"] for o in range(count)]

    stretches = segments(rollout)
    option = stretches.option  # [S, N, M]
    ran = stretches.duration > 0
    steps = stretches.duration[ran].double()
    begun = torch.bincount(option[ran], minlength=count)
    durations = torch.bincount(option[ran], weights=steps, minlength=count) / begun

    pairs = count * option[:-1] + option[1:]
    followed = torch.bincount(pairs[ran[1:]], minlength=count * count).view(count, count)
    return Usage(
        title=title,
        steps=rollout.env_steps,
        shares=np.array(shares),
        begun=begun.cpu().numpy(),
        durations=durations.cpu().numpy(),
        followed=followed.cpu().numpy(),
        entropy=summary["usage_entropy"],
        duration=summary["option_duration"],
        switch_rate=summary["switch_rate"],
        moves=moves,
    )


def _moves(family: Drawable, params: Tensor, episode: Rollout) -> Moves:
    """The steps of one episode [T, …]."""
    scene = family.scene(params, observations(episode))
    path = scene.path.double().numpy()
    option = episode.inputs.option
    assert option is not None
    return Moves(scene, path[:-1], path[1:], option.current.numpy(), option.begins.numpy())


def _join(parts: Sequence[Moves]) -> Moves:
    """The steps of all episodes, one after another."""
    grounds, *arrays = zip(*[vars(part).values() for part in parts], strict=True)
    return Moves(_common_ground(grounds), *map(np.concatenate, arrays))


def _common_ground(scenes: Sequence[Scene]) -> Scene:
    """What is the same in all `scenes`, with every place as its path."""
    first = scenes[0]
    goal, walls, others = first.goal, first.walls, first.others
    for scene in scenes:
        goal = _if_equal(goal, scene.goal)
        walls = _if_equal(walls, scene.walls)
        others = _if_equal(others, scene.others)
    left, right, bottom, top = zip(*[scene.limits for scene in scenes], strict=True)
    return replace(
        first,
        path=torch.cat([scene.path for scene in scenes]),
        limits=(min(left), max(right), min(bottom), max(top)),
        goal=goal,
        walls=walls,
        others=others,
    )


def _if_equal(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None or not torch.equal(one, other):
        return None
    return one
