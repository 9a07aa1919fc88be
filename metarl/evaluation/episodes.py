"""Films: the episodes of one rollout as they can be drawn, from above or through the environment's own camera."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.collect.collector import rounds
from metarl.core.agent import Agent, Mode
from metarl.core.errors import MetaRLError
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Scene, Step, Tasks, replace, tree_map
from metarl.evaluation.meta_test import evaluation_rng, sample_tasks, trial
from metarl.options.option_policy import option_count

Picture = NDArray[np.uint8]
"""[height, width, 3], red, green, blue."""


@dataclass(frozen=True)
class Episode:
    """One episode of T steps: what was paid, and how it looked."""

    rewards: NDArray[np.float64]  # [T] as they fell
    scene: Scene | None = None  # its path has T + 1 places: the last is where the episode ended
    frames: tuple[
        Picture, ...
    ] = ()  # [T] before each step; what it ended in is not seen: the next has begun by then
    options: NDArray[np.int64] | None = (
        None  # [T] which one ran, where the agent acts through options
    )

    @property
    def steps(self) -> int:
        return len(self.rewards)

    def return_after(self, steps: int | None = None) -> float:
        """The return so far, after `steps` steps; of the whole episode without."""
        return float(self.rewards[:steps].sum())


@dataclass(frozen=True)
class Film:
    """The episodes of one lane, lived through one by one as they are asked for: pictures are large."""

    title: str
    length: int  # episodes of that lane, K
    episodes: Iterator[Episode]
    options: int = 0  # how many the agent has


def film(
    agent: Agent,
    family: Family,
    *,
    task: int = 0,
    split: str = "test",
    episodes: int = 1,
    mode: Mode = "sample",
    seed: int = 0,
    lane: int = 0,
    train_set: Tasks | None = None,
    device: str | torch.device = "cpu",
) -> Film:
    """Let `agent` meet row `task` of `split`: its lanes live through what `evaluate` finds there with the same seed.

    One `lane` is shown, K of the `episodes` that all have. Beside an agent of a single lane others may be shown: lane j
    has its own chance; the j lanes before it stand beside it, and the agent adapts by all of them. A family that offers a
    scene is drawn from above, any other by what its environment's camera sees.

    Raises:
        MetaRLError: no such split, task or lane, episodes that cannot be shared out among the lanes, a family that cannot be
            drawn, or an agent that must be shown what cannot be.
    """
    if 1 < agent.lanes <= lane:
        raise MetaRLError(
            f"lane {lane}: {type(agent).__name__} has {agent.lanes} lanes, and the first is lane 0"
        )
    rng = evaluation_rng(seed)
    row = sample_tasks(family, split, task + 1, rng, train_set)[task:].to(torch.device(device))
    if not len(row) and train_set is not None:
        raise MetaRLError(
            f"task {task}: there are {len(train_set)} training tasks, and the first is task 0"
        )
    lanes = max(agent.lanes, lane + 1)
    env: Any = family.make(lanes)
    scene = getattr(family, "scene", None)
    if scene is None:
        env = _Camera(env, lane, family.spec.name)
    lived = trial(
        agent, env, family.spec, row, episodes, mode, rng, lanes=lanes, train_set=train_set
    )

    def watched() -> Iterator[Episode]:
        for rollout, _ in lived:
            shown = single_episode(rollout, 0, lane)
            rewards, running = shown.reward.double().numpy(), shown.inputs.option
            options = None if running is None else running.current.numpy()
            if scene is not None:
                yield Episode(
                    rewards, scene=scene(row.params[0].cpu(), observations(shown)), options=options
                )
            else:
                yield Episode(rewards, frames=tuple(env.frames[: len(rewards)]), options=options)

    title = f"{type(agent).__name__} on {split} task {task} of {family.spec.name}"
    if agent.lanes > 1:
        title += f", lane {lane} of {agent.lanes}"
    return Film(title, rounds(agent, episodes), watched(), option_count(agent))


def single_episode(rollout: Rollout, row: int, lane: int) -> Rollout:
    """A lane's one episode, which may be over before those of other lanes, without the axes N and M: [T, …]."""
    lived = rollout.valid[:, row, lane]
    episode: Rollout = tree_map(
        lambda x: x[lived, row, lane].cpu(), replace(rollout, index=rollout.valid)
    )
    return replace(episode, index=rollout.index[row].cpu())


def observations(episode: Rollout) -> Tensor:
    """[T + 1, O]: what was observed in an episode, its end included."""
    return torch.cat([episode.inputs.obs[:1], episode.next_obs])


class _Camera:
    """An environment that takes a picture of one lane after every reset and step."""

    def __init__(self, env: Any, lane: int, name: str) -> None:
        if not hasattr(env, "frame"):
            raise MetaRLError(
                f"{name} offers neither scene nor frame: give the family scene(params, obs), "
                "or its environment frame(row, lane)"
            )
        self._env, self._lane, self._name = env, lane, name
        self.frames: list[Picture] = []  # since the last reset

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        obs: Tensor = self._env.reset(tasks, rng)
        self.frames = [self._take()]
        return obs

    def step(self, action: Tensor) -> Step:
        step: Step = self._env.step(action)
        self.frames.append(self._take())
        return step

    def _take(self) -> Picture:
        picture = np.array(self._env.frame(0, self._lane))
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise MetaRLError(
                f"{self._name}: frame is {picture.dtype} of shape {list(picture.shape)}; "
                "give uint8 of shape [height, width, 3]"
            )
        return picture
