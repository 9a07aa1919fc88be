"""A humanoid that walks in a hidden direction."""

import mujoco
import numpy as np
from torch import Tensor

from metarl.adapters.mujoco import (
    Array,
    Flags,
    Physics,
    add_com,
    add_contact_forces,
    contact_forces,
)
from metarl.core.rng import Rng
from metarl.core.types import SPLITS, Tasks
from metarl_envs.locomotion import Robot, directions, effort, heading_caption, outside
from metarl_envs.robot_config import HumanoidDirConfig

_OBSERVATION = {"pose": 22, "velocity": 23}
_PHYSICS_SECONDS = 0.003  # of a physics step, five of which are a control step


class HumanoidDir(Robot):
    """¼ ⟨d, Δ⟩ / 0.003 − 0.1 ‖a‖² − min(5·10⁻⁷ ‖contact forces‖², 10) + 5.

    ============  ==================================================================================
    observation   [22] height, orientation (a quaternion), joint angles; [23] velocities. The
                  published [376] also hold inertias, body velocities and forces, which the
                  simulator computes from these
    action        [17] torques of the joints, in units of 0.4
    Δ             displacement of the center of mass, in meters, over one control step of five
                  physics steps of 0.003 s, although the published formula divides by one; taken,
                  like the contact forces, at the start of the last physics step
    episode       terminates where the torso's height leaves [1, 2] m, truncated after H steps of
                  0.015 s
    start         standing; positions and velocities ± 0.01
    task row      [2] d, a unit vector, uniform on the circle
    ============  ==================================================================================
    """

    Settings = HumanoidDirConfig
    config: HumanoidDirConfig
    file = "humanoid.xml"
    joints = 17
    seconds = 5 * _PHYSICS_SECONDS
    name = "humanoid-dir"
    observation = _OBSERVATION
    start_position = np.array([0.0, 0.0, 1.4, 1.0, *[0.0] * 20])
    start_spread = 0.01
    task_width = 2
    splits = SPLITS[:3]

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` directions."""
        return directions(split, count, rng)

    def caption(self, params: Tensor) -> str:
        """The task of a row in words."""
        return heading_caption(params)

    def add_sensors(self, spec: mujoco.MjSpec) -> None:
        """The center of mass, and contact forces where they cost."""
        if self.config.contacts:
            add_contact_forces(spec)
        else:
            add_com(spec)

    def reward(
        self,
        before: Physics,
        after: Physics,
        control: Array,
        params: Array,
    ) -> Array:
        """[N, M]: see above."""
        displacement = after.sensors["com"][..., :2] - before.sensors["com"][..., :2]
        forward = 0.25 * (displacement * params).sum(-1) / _PHYSICS_SECONDS
        return forward - 0.1 * effort(control) - self._contact(after) + 5

    def terminated(self, after: Physics) -> Flags:
        """[N, M]: fallen."""
        return outside(after.qpos[..., 2], 1, 2)

    def _contact(self, after: Physics) -> Array | float:
        if not self.config.contacts:
            return 0.0
        return np.minimum(5e-7 * np.square(contact_forces(after)).sum(-1).sum(-1), 10)
