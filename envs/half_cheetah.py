"""A planar robot with six joints that runs: at a hidden speed, or in a hidden direction."""

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from metarl.adapters.mujoco import Array, Physics
from metarl.core.rng import Rng
from metarl.core.types import SPLITS, Tasks
from metarl_envs.locomotion import Robot, effort, speed_caption, speeds
from metarl_envs.robot_config import HalfCheetahConfig, HalfCheetahDirConfig, HalfCheetahVelConfig

_TORSO_HEIGHT = 0.7  # meters: of the torso where its vertical slider is at 0


class HalfCheetah(Robot):
    """What both families share.

    ============  ==================================================================================
    observation   [8] positions but for x, [9] velocities; in the variants `pearl` and `maml` also
                  [3] the torso's place (x, y, z)
    action        [6] torques of hind thigh, shin and foot, front thigh, shin and foot
    reward        `task_reward` − 0.05 ‖a‖²
    episode       H steps of 0.05 s, then truncated; never terminates
    metrics       velocity: of the torso along x in m/s, the mean over the step
    start         positions ± 0.1, velocities normal with deviation 0.1, as in Gymnasium
    ============  ==================================================================================
    """

    config: HalfCheetahConfig
    file = "half_cheetah.xml"
    joints = 6
    seconds = 0.05
    hidden_positions = 1
    start_position = np.zeros(9)
    start_spread = 0.1
    start_normal = True
    task_width = 1
    metrics = ("velocity",)

    def __init__(self, config: HalfCheetahConfig):
        self.observation = {"position": 8, "velocity": 9}
        if config.show_torso:
            self.observation["torso"] = 3
        super().__init__(config)

    @abstractmethod
    def task_reward(self, speed: Array, task: Array) -> Array:
        """[N, M]: the reward for `speed` [N, M] in m/s, in tasks [N, 1]."""

    def observe(self, now: Physics) -> Array:
        """[N, M, O]."""
        observed = super().observe(now)
        if not self.config.show_torso:
            return observed
        x, z = now.qpos[..., 0], now.qpos[..., 1]
        torso = np.stack([x, np.zeros_like(x), z + _TORSO_HEIGHT], axis=-1)
        return np.concatenate([observed, torso], axis=-1)

    def reward(
        self,
        before: Physics,
        after: Physics,
        control: Array,
        params: Array,
    ) -> Array:
        """[N, M]: see above."""
        speed = self.velocity(before, after)[..., 0]
        return self.task_reward(speed, params[..., 0]) - self.config.effort_cost * effort(control)

    def measure(
        self,
        before: Physics,
        after: Physics,
        control: Array,
        params: Array,
    ) -> dict[str, Array]:
        """[N, M]: see above."""
        return {"velocity": self.velocity(before, after)[..., 0]}


class HalfCheetahVel(HalfCheetah):
    """−|v − v*| − 0.05 ‖a‖².

    Task row [1] v*, uniform up to `fastest` m/s; in the split ood from there to 1.5 × as fast.
    """

    Settings = HalfCheetahVelConfig
    config: HalfCheetahVelConfig
    name = "half-cheetah-vel"

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` speeds."""
        return speeds(split, count, rng, self.config.fastest)

    def caption(self, params: Tensor) -> str:
        """The task of a row in words."""
        return speed_caption(params)

    def task_reward(self, speed: Array, task: Array) -> Array:
        """−|v − v*|."""
        return -np.abs(speed - task)


class HalfCheetahDir(HalfCheetah):
    """d · v − 0.05 ‖a‖².

    Task row [1] d, forward (+1) or backward (−1): closed, for there are no other tasks.
    """

    Settings = HalfCheetahDirConfig
    name = "half-cheetah-dir"
    splits = SPLITS[:3]
    closed = True

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` times one of both directions."""
        return Tasks.listed(torch.tensor([[1.0], [-1.0]]), split, count, rng)

    def caption(self, params: Tensor) -> str:
        """The task of a row in words."""
        return f"target direction {'forward' if params.item() > 0 else 'backward'}"

    def task_reward(self, speed: Array, task: Array) -> Array:
        """d · v."""
        return task * speed
