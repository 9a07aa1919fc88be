"""A planar robot with six joints that runs: at an unseen speed, or in an unseen direction."""

from __future__ import annotations

from abc import ABC, abstractmethod

import mujoco
import numpy as np
import torch

from metarl.adapters.mujoco import Array, MujocoEnv, Physics, load_model
from metarl.core.rng import Rng, Streams
from metarl.core.types import Spec, Tasks
from metarl_envs.locomotion import ASSETS, effort, noisy_start, speeds
from metarl_envs.robot_config import HalfCheetahConfig, HalfCheetahDirConfig, HalfCheetahVelConfig

_SECONDS = 0.05  # of a control step: five physics steps of 0.01
_TORSO_HEIGHT = 0.7  # metres: of the torso where its vertical slider is at 0


class HalfCheetah(ABC):
    """What both families share.

    ============  =====================================================================================
    observation   [8] positions but for x, [9] velocities; in the variants `pearl` and `maml` also [3] the
                  torso's place (x, y, z), so that x is seen
    action        [6] torques of hind thigh, shin and foot, front thigh, shin and foot
    episode       H steps of 0.05 s, then truncated; never terminates
    start         positions ± 0.1, velocities normal with deviation 0.1, as in Gymnasium
    ============  =====================================================================================
    """

    frame_skip = 5
    spec: Spec

    def __init__(self, config: HalfCheetahConfig) -> None:
        self.config = config
        self.threads = config.threads
        self.observation = {"position": 8, "velocity": 9} | (
            {"torso": 3} if config.show_torso else {}
        )

    @abstractmethod
    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` rows of `split`."""

    @abstractmethod
    def pay(self, speed: Array, task: Array) -> Array:
        """[N, M] for running at `speed` [N, M] in m/s, in tasks [N, 1]."""

    def make(self, lanes: int) -> MujocoEnv:
        """N tasks × `lanes` robots."""
        return MujocoEnv(self, lanes)

    def model(self) -> mujoco.MjModel:
        """Gymnasium's model."""
        return load_model(ASSETS / "half_cheetah.xml")

    def start(self, noise: Streams, counter: int) -> tuple[Array, Array]:
        """Lying on its feet."""
        return noisy_start(noise, counter, np.zeros(9), 9, 0.1, normal=True)

    def observe(self, now: Physics) -> Array:
        """[N, M, O]."""
        parts = [now.qpos[..., 1:], now.qvel]
        if self.config.show_torso:
            x, z = now.qpos[..., 0], now.qpos[..., 1]
            parts.append(np.stack([x, np.zeros_like(x), z + _TORSO_HEIGHT], axis=-1))
        return np.concatenate(parts, axis=-1)

    def reward(self, before: Physics, after: Physics, control: Array, params: Array) -> Array:
        """`pay` − 0.05 ‖a‖²."""
        speed = (after.qpos[..., 0] - before.qpos[..., 0]) / _SECONDS
        return self.pay(speed, params[..., 0]) - self.config.effort_cost * effort(control)


class HalfCheetahVel(HalfCheetah):
    """−|v − v*| − 0.05 ‖a‖²; task row [1] v*, uniform up to `fastest` m/s, in the split ood from there to 1.5 × as fast."""

    def __init__(self, config: HalfCheetahVelConfig) -> None:
        super().__init__(config)
        self.fastest = config.fastest
        self.spec = _spec("half-cheetah-vel", self.observation, config.horizon)

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` speeds."""
        return speeds(split, count, rng, self.fastest)

    def pay(self, speed: Array, task: Array) -> Array:
        """−|v − v*|."""
        return -np.abs(speed - task)


class HalfCheetahDir(HalfCheetah):
    """d · v − 0.05 ‖a‖²; task row [1] d, forward (+1) or backward (−1): closed, for there are no other tasks."""

    def __init__(self, config: HalfCheetahDirConfig) -> None:
        super().__init__(config)
        self.spec = _spec("half-cheetah-dir", self.observation, config.horizon, closed=True)

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """Both directions, as often as asked for."""
        return Tasks(torch.tensor([[1.0], [-1.0]]), torch.arange(2), split).draw(
            count, rng.child(split)
        )

    def pay(self, speed: Array, task: Array) -> Array:
        """d · v."""
        return task * speed


def _spec(name: str, observation: dict[str, int], horizon: int, *, closed: bool = False) -> Spec:
    splits = ("train", "validation", "test") if closed else ("train", "validation", "test", "ood")
    return Spec(
        name,
        observation,
        6,
        False,
        horizon,
        task_width=1,
        goal_width=1,
        splits=splits,
        closed=closed,
    )
