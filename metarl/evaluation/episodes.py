"""The episodes of one lane as they can be drawn: a scene seen from above, or camera frames."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.collect.collector import adaptation_rounds
from metarl.core.agent import Agent
from metarl.core.errors import ConfigError, FamilyError
from metarl.core.family import BatchEnv, Drawable, Family, HasFrames, make_env
from metarl.core.protocol import EvalProtocol
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Belief, Scene, Step, Tasks, replace, tree_map
from metarl.evaluation.meta_test import trial
from metarl.options.option_policy import option_count

Picture = NDArray[np.uint8]
"""[height, width, 3], red, green, blue."""


@dataclass(frozen=True)
class Episode:
    """One episode of T steps: its rewards, and how it looked."""

    rewards: NDArray[np.float64]
    """[T]"""
    scene: Scene | None = None
    """Its path has T + 1 places: the last is where the episode ended."""
    frames: tuple[Picture, ...] = ()
    """[⌈T / every⌉] before steps 0, `every`, …; there is none of the last state: the next episode
    has begun by then."""
    every: int = 1
    options: NDArray[np.int64] | None = None
    """[T] the option that ran, if the agent acts through options."""

    @property
    def steps(self) -> int:
        return len(self.rewards)

    def return_after(self, steps: int | None = None) -> float:
        """The return of the first `steps` steps, or of the whole episode."""
        return float(self.rewards[:steps].sum())


@dataclass(frozen=True)
class Film:
    """The episodes of one lane, rolled out one by one as they are asked for: frames are large."""

    title: str
    length: int  # episodes of that lane, K
    episodes: Iterator[Episode]
    num_options: int = 0  # of the agent


def record_episodes(
    agent: Agent,
    family: Family,
    protocol: EvalProtocol,
    task: int = 0,
    lane: int = 0,
    every: int = 1,
) -> Film:
    """Roll out `agent` on row `task` of a protocol, as `evaluate` does, and film a lane.

    The agent adapts to all of its lanes; the film has the K rounds of one. An agent of a single
    lane can be filmed in any: lane j has its own random stream, and lanes 0 to j run side by side.
    A frame is taken before every so many-th step, as `every` says: robots take a while to be drawn.

    Raises:
        MetaRLError: no such split, task or lane, a number of episodes that is no multiple of the
            lanes, a family that cannot be drawn, or an agent that cannot be shown this task.
    """
    if 1 < agent.lanes <= lane:
        raise ConfigError(
            f"lane {lane}: {type(agent).__name__} has {agent.lanes} lanes, and the first is lane 0"
        )
    row = protocol.row(family, task, agent)
    lanes = max(agent.lanes, lane + 1)
    env = make_env(family, lanes)
    if not isinstance(family, Drawable):
        env = _Camera(env, lane, family.spec.name, every)
    rollouts = trial(
        agent,
        family,
        row,
        protocol,
        env,
        lanes,
    )
    title = f"{type(agent).__name__} on {row.split} task {task} of {family.spec.name}"
    if agent.lanes > 1:
        title += f", lane {lane} of {agent.lanes}"
    recorded = _record(rollouts, family, env, row.params[0].cpu(), lane)
    rounds = adaptation_rounds(agent, protocol.episodes + protocol.test_episodes)
    return Film(title, rounds, recorded, option_count(agent))


def _record(
    rollouts: Iterator[tuple[Rollout, Belief]],
    family: Family,
    env: BatchEnv,
    params: Tensor,
    lane: int,
) -> Iterator[Episode]:
    """The episode of `lane` in each rollout."""
    for rollout, _ in rollouts:
        episode = single_episode(rollout, 0, lane)
        rewards = episode.reward.double().numpy()
        option = episode.inputs.option
        options = None if option is None else option.current.numpy()
        if isinstance(env, _Camera):
            frames = env.frames[: ceil(len(rewards) / env.every)]
            yield Episode(rewards, None, tuple(frames), env.every, options)
        elif isinstance(family, Drawable):
            scene = family.scene(params, observations(episode))
            yield Episode(rewards, scene, options=options)


def single_episode(rollout: Rollout, row: int, lane: int) -> Rollout:
    """The one episode of a lane without padding, and without the axes N and M: [T, …]."""
    steps = rollout.valid[:, row, lane]
    episode = tree_map(lambda x: x[steps, row, lane].cpu(), replace(rollout, index=rollout.valid))
    return replace(episode, index=rollout.index[row].cpu())


def observations(episode: Rollout) -> Tensor:
    """[T + 1, O]: the observations of one episode, its last one included."""
    return torch.cat([episode.inputs.obs[:1], episode.next_obs])


class _Camera:
    """An environment that takes pictures of one lane: after a reset and `every` steps from it."""

    def __init__(self, env: BatchEnv, lane: int, name: str, every: int):
        if not isinstance(env, HasFrames):
            raise FamilyError(
                f"{name} offers neither scene nor frame: give the family scene(params, obs), "
                "or its environment frame(row, lane)"
            )
        self._env, self._lane, self._name, self.every = env, lane, name, every
        self.frames: list[Picture] = []  # since the last reset
        self._steps = 0

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        obs = self._env.reset(tasks, rng)
        self.frames.clear()
        self._steps = 0
        self._shoot()
        return obs

    def step(self, action: Tensor) -> Step:
        step = self._env.step(action)
        self._steps += 1
        if self._steps % self.every == 0:
            self._shoot()
        return step

    def _shoot(self) -> None:
        picture = np.array(self._env.frame(0, self._lane))
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise FamilyError(
                f"{self._name}: frame is {picture.dtype} of shape {list(picture.shape)}; "
                "give uint8 of shape [height, width, 3]"
            )
        self.frames.append(picture)
