"""A four-legged robot that walks in a hidden direction, to a hidden place or at a hidden speed."""

import math
from abc import abstractmethod

import mujoco
import numpy as np
import torch
from torch import Tensor

from metarl.adapters.mujoco import Array, Flags, Physics, add_contact_forces, contact_forces
from metarl.core.rng import Rng
from metarl.core.types import SPLITS, Tasks
from metarl_envs.locomotion import (
    Robot,
    direction,
    directions,
    effort,
    heading_caption,
    outside,
    speed_caption,
    speeds,
)
from metarl_envs.robot_config import AntDirConfig, AntGoalConfig, AntVelConfig

_BODIES = 13
_HIGHEST = 1.0  # meters: an ant whose torso is higher has jumped, and its episode ends
_PROPRIOCEPTION = {"pose": 13, "velocity": 14}


class Ant(Robot):
    """What all three families share.

    ============  ==================================================================================
    observation   [13] height, orientation (a quaternion), joint angles; [14] velocities
    action        [8] torques of the hips and ankles
    contact cost  ``contact_cost`` · ‖contact forces on all bodies, each entry clipped to ±1‖², the
                  forces being those of the last physics step's start
    episode       H steps of 0.05 s, then truncated
    start         positions ± 0.1, velocities normal with deviation 0.1, as in Gymnasium
    ============  ==================================================================================
    """

    config: AntDirConfig | AntGoalConfig | AntVelConfig
    file = "ant.xml"
    joints = 8
    seconds = 0.05
    observation = _PROPRIOCEPTION
    start_position = np.array([0.0, 0.0, 0.75, 1.0, *[0.0] * 11])
    start_spread = 0.1
    start_normal = True
    observes_contacts = False

    def add_sensors(self, spec: mujoco.MjSpec) -> None:
        """Those of contacts, where they are used."""
        if self.observes_contacts or self.config.contact_cost > 0:
            add_contact_forces(spec)

    @abstractmethod
    def task_reward(self, before: Physics, after: Physics, params: Array) -> Array:
        """[N, M]: the reward without costs and survival."""

    def reward(
        self,
        before: Physics,
        after: Physics,
        control: Array,
        params: Array,
    ) -> Array:
        """[N, M]: see above."""
        cost = self.config.effort_cost * effort(control)
        gain = self.task_reward(before, after, params) - cost - self._contact(after)
        return gain + self.config.survival

    def _contact(self, after: Physics) -> Array | float:
        """[N, M]: the contact cost."""
        if not self.config.contact_cost:
            return 0.0
        squares = np.square(contact_forces(after).clip(-1, 1))
        return self.config.contact_cost * squares.sum(-1).sum(-1)


class AntDir(Ant):
    """⟨d, v⟩ − 0.5 ‖a‖² − contact cost + 1; terminates where the torso's height leaves [0.2, 1] m.

    Task row [2] d, a unit vector: (±1, 0), closed, for there are no other tasks; or in the variant
    `plane` uniform on the circle. Variant `maml`: 0.005 ‖a‖² and + 0.05.
    """

    Settings = AntDirConfig
    config: AntDirConfig
    name = "ant-dir"
    task_width = 2
    splits = SPLITS[:3]

    def __init__(self, config: AntDirConfig):
        self.closed = config.directions == "forward-backward"
        super().__init__(config)

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` directions."""
        if self.spec.closed:
            return Tasks.listed(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), split, count, rng)
        return directions(split, count, rng)

    def caption(self, params: Tensor) -> str:
        """The task of a row in words."""
        return heading_caption(params)

    def task_reward(self, before: Physics, after: Physics, params: Array) -> Array:
        """⟨d, v⟩."""
        return (self.velocity(before, after) * params).sum(-1)

    def terminated(self, after: Physics) -> Flags:
        """[N, M]: lying or jumping."""
        return outside(after.qpos[..., 2], self.config.lowest, _HIGHEST)


class AntGoal(Ant):
    """−‖xy − g‖₁ − 0.1 ‖a‖² − contact cost; never terminates.

    Also observed: [2] the place (x, y), in front, and [78] the contact forces (PEARL's six zeros of
    the world body are left out). Task row [2] g, uniform on a disc (radius 3 √U, angle 2π U); in
    the split ood on the ring around it, up to 4/3 of its radius.
    """

    Settings = AntGoalConfig
    config: AntGoalConfig
    name = "ant-goal"
    task_width = 2
    observation = {"place": 2} | _PROPRIOCEPTION | {"contact": 6 * _BODIES}
    observes_contacts = True

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` places."""
        radius, turn = rng.child(split).rows(count, 2).split(1, dim=1)
        radius = 1 + radius / 3 if split == "ood" else radius.sqrt()
        goal = self.config.farthest * radius * direction(2 * math.pi * turn.squeeze(1))
        return Tasks.numbered(goal, split)

    def observe(self, now: Physics) -> Array:
        """[N, M, 107]: positions, velocities and contact forces."""
        forces = contact_forces(now).clip(-1, 1)
        return np.concatenate([now.qpos, now.qvel, forces.reshape(*forces.shape[:2], -1)], axis=-1)

    def caption(self, params: Tensor) -> str:
        """The task of a row in words."""
        return f"goal at x {params[0]:.2f} m, y {params[1]:.2f} m"

    def task_reward(self, before: Physics, after: Physics, params: Array) -> Array:
        """−‖xy − g‖₁."""
        return -np.abs(after.qpos[..., :2] - params).sum(-1)


class AntVel(Ant):
    """−|v_x − v*| − 0.005 ‖a‖² − contact cost + 1.05; terminates like `AntDir`.

    Task row [1] v*, uniform up to `fastest` m/s; in the split ood from there to 1.5 × as fast.
    """

    Settings = AntVelConfig
    config: AntVelConfig
    name = "ant-vel"
    task_width = 1

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` speeds."""
        return speeds(split, count, rng, self.config.fastest)

    def caption(self, params: Tensor) -> str:
        """The task of a row in words."""
        return speed_caption(params)

    def task_reward(self, before: Physics, after: Physics, params: Array) -> Array:
        """−|v_x − v*|."""
        return -np.abs(self.velocity(before, after)[..., 0] - params[..., 0])

    def terminated(self, after: Physics) -> Flags:
        """[N, M]: lying or jumping."""
        return outside(after.qpos[..., 2], 0.2, _HIGHEST)
