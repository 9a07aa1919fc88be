"""A four-legged robot that walks: in an unseen direction, to an unseen place, or at an unseen speed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from metarl.adapters.mujoco import (
    Array,
    MujocoEnv,
    Physics,
    add_contact_forces,
    contact_forces,
    load_model,
)
from metarl.core.rng import Rng, Streams
from metarl.core.types import Spec, Tasks
from metarl_envs.locomotion import (
    ASSETS,
    direction,
    directions,
    effort,
    noisy_start,
    speeds,
    summed,
)
from metarl_envs.robot_config import AntConfig, AntDirConfig, AntGoalConfig, AntVelConfig

_SECONDS = 0.05  # of a control step: five physics steps of 0.01
_HIGHEST = 1.0  # metres: an ant whose torso is higher has jumped, and its episode ends
_START = np.array([0.0, 0.0, 0.75, 1.0, *[0.0] * 11])
_BODIES = 13

_PROPRIOCEPTION = {"pose": 13, "velocity": 14}


class Ant(ABC):
    """What all three families share.

    ============  =====================================================================================
    observation   [13] height, orientation (a quaternion), joint angles; [14] velocities
    action        [8] torques of the hips and ankles
    contact cost  ``contact_cost`` · ‖contact forces on all bodies, each entry clipped to ±1‖², the forces being those of
                  the last physics step's start
    episode       H steps of 0.05 s, then truncated
    start         positions ± 0.1, velocities normal with deviation 0.1, as in Gymnasium
    ============  =====================================================================================
    """

    frame_skip = 5
    spec: Spec

    def __init__(self, config: AntConfig, *, observe_contacts: bool = False) -> None:
        self.threads = config.threads
        self.contact_cost = config.contact_cost
        self._senses = observe_contacts or config.contact_cost > 0

    @abstractmethod
    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` rows of `split`."""

    @abstractmethod
    def observe(self, now: Physics) -> Array:
        """[N, M, O]."""

    @abstractmethod
    def reward(self, before: Physics, after: Physics, control: Array, params: Array) -> Array:
        """[N, M]."""

    def make(self, lanes: int) -> MujocoEnv:
        """N tasks × `lanes` ants."""
        return MujocoEnv(self, lanes)

    def model(self) -> mujoco.MjModel:
        """Gymnasium's model, with sensors of contact where they are asked for."""
        return load_model(ASSETS / "ant.xml", add_contact_forces if self._senses else None)

    def start(self, noise: Streams, counter: int) -> tuple[Array, Array]:
        """Standing in the air, about to fall on its feet."""
        return noisy_start(noise, counter, _START, 14, 0.1, normal=True)

    def contact(self, after: Physics) -> Array | float:
        """[N, M]: what contacts cost."""
        if not self.contact_cost:
            return 0.0
        return self.contact_cost * summed(summed(np.square(contact_forces(after).clip(-1, 1))))


class AntDir(Ant):
    """⟨d, v⟩ − 0.5 ‖a‖² − contact cost + 1, and the end where the torso's height leaves [0.2, 1] m.

    Task row [2] d, a unit vector: (±1, 0), closed, for there are no other tasks; or in the variant `plane` uniform on the
    circle. Variant `maml`: 0.005 ‖a‖² and + 0.05.
    """

    def __init__(self, config: AntDirConfig) -> None:
        super().__init__(config)
        self.config = config
        self.spec = Spec(
            "ant-dir",
            _PROPRIOCEPTION,
            8,
            False,
            config.horizon,
            task_width=2,
            goal_width=2,
            splits=("train", "validation", "test"),
            closed=config.directions == "forward-backward",
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` directions."""
        if self.spec.closed:
            return Tasks(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.arange(2), split).draw(
                count, rng.child(split)
            )
        return directions(split, count, rng)

    def observe(self, now: Physics) -> Array:
        """[N, M, 27]: x and y are not seen."""
        return _proprioception(now)

    def reward(self, before: Physics, after: Physics, control: Array, params: Array) -> Array:
        """[N, M]."""
        velocity = (after.qpos[..., :2] - before.qpos[..., :2]) / _SECONDS
        forward = summed(velocity * params)
        return (
            forward
            - self.config.effort_cost * effort(control)
            - self.contact(after)
            + self.config.survival
        )

    def terminated(self, after: Physics) -> NDArray[np.bool_]:
        """[N, M] bool: lying or jumping."""
        return _fallen(after, self.config.lowest)


class AntGoal(Ant):
    """−‖xy − g‖₁ − 0.1 ‖a‖² − contact cost; never terminates.

    Also observed: [2] the place (x, y), in front, and [78] the contact forces (PEARL's six zeros of the world body are
    left out). Task row [2] g, uniform on a disc (radius 3 √U, angle 2π U); in the split ood on the ring around it, up to
    4/3 of its radius.
    """

    def __init__(self, config: AntGoalConfig) -> None:
        super().__init__(config, observe_contacts=True)
        self.config = config
        self.spec = Spec(
            "ant-goal",
            {"place": 2} | _PROPRIOCEPTION | {"contact": 6 * _BODIES},
            8,
            False,
            config.horizon,
            task_width=2,
            goal_width=2,
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` places."""
        radius, turn = rng.child(split).rows(count, 2).split(1, dim=1)
        radius = (1 + radius / 3) if split == "ood" else radius.sqrt()
        goal = self.config.farthest * radius * direction(2 * math.pi * turn.squeeze(1))
        return Tasks(goal, torch.arange(count), split)

    def observe(self, now: Physics) -> Array:
        """[N, M, 107]."""
        return np.concatenate(
            [now.qpos, now.qvel, contact_forces(now).clip(-1, 1).reshape(*now.qpos.shape[:2], -1)],
            axis=-1,
        )

    def reward(self, before: Physics, after: Physics, control: Array, params: Array) -> Array:
        """[N, M]."""
        gap = summed(np.abs(after.qpos[..., :2] - params))
        return -gap - self.config.effort_cost * effort(control) - self.contact(after)


class AntVel(Ant):
    """−|v_x − v*| − 0.005 ‖a‖² − contact cost + 1.05, and the end where the torso's height leaves [0.2, 1] m.

    Task row [1] v*, uniform up to `fastest` m/s; in the split ood from there to 1.5 × as fast.
    """

    def __init__(self, config: AntVelConfig) -> None:
        super().__init__(config)
        self.config = config
        self.spec = Spec(
            "ant-vel", _PROPRIOCEPTION, 8, False, config.horizon, task_width=1, goal_width=1
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` speeds."""
        return speeds(split, count, rng, self.config.fastest)

    def observe(self, now: Physics) -> Array:
        """[N, M, 27]: x and y are not seen."""
        return _proprioception(now)

    def reward(self, before: Physics, after: Physics, control: Array, params: Array) -> Array:
        """[N, M]."""
        speed = (after.qpos[..., 0] - before.qpos[..., 0]) / _SECONDS
        missed = np.abs(speed - params[..., 0])
        return (
            -missed
            - self.config.effort_cost * effort(control)
            - self.contact(after)
            + self.config.survival
        )

    def terminated(self, after: Physics) -> NDArray[np.bool_]:
        """[N, M] bool: lying or jumping."""
        return _fallen(after, lowest=0.2)


def _proprioception(now: Physics) -> Array:
    """[N, M, 27]: all but x and y."""
    return np.concatenate([now.qpos[..., 2:], now.qvel], axis=-1)


def _fallen(after: Physics, lowest: float) -> NDArray[np.bool_]:
    """[N, M]: where the torso's height has left [`lowest`, 1] m."""
    height = after.qpos[..., 2]
    return (height < lowest) | (height > _HIGHEST)
