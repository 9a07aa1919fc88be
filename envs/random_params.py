"""Planar robots of unknown build: every body's mass and inertia, every friction and damping is drawn for the task."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from metarl.adapters.mujoco import Array, MujocoEnv, Physics, load_model
from metarl.core.rng import Rng, Streams
from metarl.core.types import Spec, Tasks
from metarl_envs.locomotion import ASSETS, effort, noisy_start
from metarl_envs.robot_config import HopperParamsConfig, RandomParamsConfig, WalkerParamsConfig

_SECONDS = 0.008  # of a control step: four physics steps of 0.002
_FASTEST = 10.0  # velocities are clipped to ± this where they are observed
_BASES = {"body_mass": 1.5, "body_inertia": 1.5, "geom_friction": 1.5, "dof_damping": 1.3}


class RandomParams(ABC):
    """What walker and hopper share: v + 1 − 10⁻³ ‖a‖².

    ============  =====================================================================================
    observation   positions but for x; velocities, clipped to ± 10
    action        torques of the joints
    episode       terminates where the robot falls, truncated after H steps of 0.008 s
    start         standing; positions and velocities ± 0.005, as in Gymnasium
    task row      u, an exponent for each number that is changed, uniform on ± `scale`: masses and inertias of all bodies
                  and frictions of all geoms × 1.5ᵘ, dampings × 1.3ᵘ, one independent of the other; in the split ood
                  ± between `scale` and 4/3 of it
    ============  =====================================================================================

    Rakelly et al. 2019 (arXiv:1903.08254), appendix A, on Gymnasium's models.
    """

    frame_skip = 4
    spec: Spec

    def __init__(self, name: str, file: str, joints: int, config: RandomParamsConfig) -> None:
        self.config = config
        self.threads = config.threads
        self._file = file
        self._position = np.array([0.0, 1.25, *[0.0] * (joints + 1)])
        self._velocities = joints + 3
        self.spec = Spec(
            name,
            {"position": joints + 2, "velocity": joints + 3},
            joints,
            False,
            config.horizon,
            task_width=sum(np.size(part) for part in _changed(self.model())),
        )

    @abstractmethod
    def terminated(self, after: Physics) -> NDArray[np.bool_]:
        """[N, M] bool: fallen."""

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` rows of exponents."""
        exponent = 2 * rng.child(split).rows(count, self.spec.task_width) - 1
        if split == "ood":
            exponent = exponent.sign() + exponent / 3
        return Tasks(self.config.scale * exponent, torch.arange(count), split)

    def make(self, lanes: int) -> MujocoEnv:
        """N tasks × `lanes` robots, one model a task."""
        return MujocoEnv(self, lanes)

    def model(self) -> mujoco.MjModel:
        """Gymnasium's model."""
        return load_model(ASSETS / self._file)

    def task_model(self, model: mujoco.MjModel, row: NDArray[np.float32]) -> mujoco.MjModel:
        """The model with what `row` [P] changes, and what MuJoCo derives from that."""
        own, first = copy.copy(model), 0
        for part, base in zip(_changed(own), _BASES.values(), strict=True):
            part *= base ** row[first : first + part.size].reshape(part.shape).astype(np.float64)
            first += part.size
        mujoco.mj_setConst(own, mujoco.MjData(own))
        return own

    def start(self, noise: Streams, counter: int) -> tuple[Array, Array]:
        """Standing."""
        return noisy_start(noise, counter, self._position, self._velocities, 0.005, normal=False)

    def observe(self, now: Physics) -> Array:
        """[N, M, O]."""
        return np.concatenate([now.qpos[..., 1:], now.qvel.clip(-_FASTEST, _FASTEST)], axis=-1)

    def reward(self, before: Physics, after: Physics, control: Array, params: Array) -> Array:
        """[N, M]."""
        speed = (after.qpos[..., 0] - before.qpos[..., 0]) / _SECONDS
        return speed + 1 - 1e-3 * effort(control)


class WalkerParams(RandomParams):
    """A walker, which has fallen where its height leaves (0.8, 2) m or its angle (−1, 1) radians."""

    def __init__(self, config: WalkerParamsConfig) -> None:
        super().__init__("walker-params", "walker2d_v5.xml", 6, config)

    def terminated(self, after: Physics) -> NDArray[np.bool_]:
        """[N, M] bool: fallen."""
        height, angle = after.qpos[..., 1], after.qpos[..., 2]
        return (height <= 0.8) | (height >= 2) | (np.abs(angle) >= 1)


class HopperParams(RandomParams):
    """A hopper, which has fallen at a height of at most 0.7 m or an angle of at least 0.2 radians.

    An episode also ends where anything but x and height reaches ± 100.
    """

    def __init__(self, config: HopperParamsConfig) -> None:
        super().__init__("hopper-params", "hopper.xml", 3, config)

    def terminated(self, after: Physics) -> NDArray[np.bool_]:
        """[N, M] bool: fallen."""
        height, angle = after.qpos[..., 1], after.qpos[..., 2]
        state = np.concatenate([after.qpos[..., 2:], after.qvel], axis=-1)
        far: NDArray[np.bool_] = (np.abs(state) >= 100).any(-1)
        return (height <= 0.7) | (np.abs(angle) >= 0.2) | far


def _changed(model: mujoco.MjModel) -> list[Array]:
    """The arrays that a task changes, without the world's own mass and inertia."""
    return [model.body_mass[1:], model.body_inertia[1:], model.geom_friction, model.dof_damping]
