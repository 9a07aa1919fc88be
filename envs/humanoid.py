"""A humanoid that walks in an unseen direction."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from metarl.adapters.mujoco import (
    Array,
    MujocoEnv,
    Physics,
    add_com,
    add_contact_forces,
    contact_forces,
    load_model,
)
from metarl.core.rng import Rng, Streams
from metarl.core.types import Spec, Tasks
from metarl_envs.locomotion import ASSETS, directions, effort, noisy_start, summed
from metarl_envs.robot_config import HumanoidDirConfig

_PHYSICS_SECONDS = 0.003  # of a physics step, five of which are a control step
_START = np.array([0.0, 0.0, 1.4, 1.0, *[0.0] * 20])


class HumanoidDir:
    """¼ ⟨d, Δ⟩ / 0.003 − 0.1 ‖a‖² − min(5·10⁻⁷ ‖contact forces‖², 10) + 5, for Δ the way of the centre of mass.

    ============  =====================================================================================
    observation   [22] height, orientation (a quaternion), joint angles; [23] velocities. The published [376] also
                  hold inertias, body velocities and forces, which the simulator computes from these
    action        [17] torques of the joints, in units of 0.4
    Δ             metres over one control step of five physics steps of 0.003 s, although the published formula divides
                  by one; seen, like the contact forces, at the start of the last physics step
    episode       terminates where the torso's height leaves [1, 2] m, truncated after H steps of 0.015 s
    start         standing; positions and velocities ± 0.01
    task row      [2] d, a unit vector, uniform on the circle
    ============  =====================================================================================
    """

    frame_skip = 5

    def __init__(self, config: HumanoidDirConfig) -> None:
        self.config = config
        self.threads = config.threads
        self.spec = Spec(
            "humanoid-dir",
            {"pose": 22, "velocity": 23},
            17,
            False,
            config.horizon,
            task_width=2,
            goal_width=2,
            splits=("train", "validation", "test"),
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` directions."""
        return directions(split, count, rng)

    def make(self, lanes: int) -> MujocoEnv:
        """N tasks × `lanes` humanoids."""
        return MujocoEnv(self, lanes)

    def model(self) -> mujoco.MjModel:
        """Gymnasium's model."""
        return load_model(
            ASSETS / "humanoid.xml", add_contact_forces if self.config.contacts else add_com
        )

    def start(self, noise: Streams, counter: int) -> tuple[Array, Array]:
        """Standing."""
        return noisy_start(noise, counter, _START, 23, 0.01, normal=False)

    def observe(self, now: Physics) -> Array:
        """[N, M, 45]."""
        return np.concatenate([now.qpos[..., 2:], now.qvel], axis=-1)

    def reward(self, before: Physics, after: Physics, control: Array, params: Array) -> Array:
        """[N, M]."""
        way = after.sensors["com"][..., :2] - before.sensors["com"][..., :2]
        forward = 0.25 * summed(way * params) / _PHYSICS_SECONDS
        return forward - 0.1 * effort(control) - self._contact(after) + 5

    def terminated(self, after: Physics) -> NDArray[np.bool_]:
        """[N, M] bool: fallen."""
        height = after.qpos[..., 2]
        return (height < 1) | (height > 2)

    def _contact(self, after: Physics) -> Array | float:
        if not self.config.contacts:
            return 0.0
        return np.minimum(5e-7 * summed(summed(np.square(contact_forces(after)))), 10)
