"""Planar robots of hidden dynamics: the task is their masses, inertias, frictions and damping."""

import copy

import mujoco
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarl.adapters.mujoco import Array, Flags, Physics
from metarl.core.rng import Rng
from metarl.core.types import Tasks
from metarl_envs.locomotion import Robot, effort
from metarl_envs.robot_config import HopperParamsConfig, RandomParamsConfig, WalkerParamsConfig

_FASTEST = 10.0  # velocities are clipped to ± this where they are observed
_BASES = {"mass": 1.5, "inertia": 1.5, "friction": 1.5, "damping": 1.3}


class RandomParams(Robot):
    """What walker and hopper share: v + 1 − 10⁻³ ‖a‖².

    ============  ==================================================================================
    observation   positions but for x; velocities, clipped to ± 10
    action        torques of the joints
    episode       terminates where the robot falls, truncated after H steps of 0.008 s
    start         standing; positions and velocities ± 0.005, as in Gymnasium
    task row      u, an exponent for each number that is changed, uniform on ± `scale`: masses and
                  inertias of all bodies and frictions of all geoms × 1.5ᵘ, dampings × 1.3ᵘ, one
                  independent of the other; in the split ood ± between `scale` and 4/3 of it
    ============  ==================================================================================

    Rakelly et al. 2019 (arXiv:1903.08254), appendix A, on Gymnasium's models.
    """

    config: RandomParamsConfig
    frame_skip = 4
    seconds = 0.008
    has_goal = False
    start_spread = 0.005
    lowest: float
    highest = np.inf
    """Meters: where its height leaves this interval, the robot has fallen."""
    steepest: float
    """Radians, to either side: so much inclined, it has fallen as well."""

    def __init__(self, config: RandomParamsConfig):
        self.observation = {"position": self.joints + 2, "velocity": self.joints + 3}
        self.start_position = np.array([0.0, 1.25, *[0.0] * (self.joints + 1)])
        self.task_width = sum(part.size for part in _changed(self.model()))
        super().__init__(config)

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` rows of exponents."""
        exponent = 2 * rng.child(split).rows(count, self.spec.task_width) - 1
        if split == "ood":
            exponent = exponent.sign() + exponent / 3
        return Tasks.numbered(self.config.scale * exponent, split)

    def task_model(self, model: mujoco.MjModel, row: NDArray[np.float32]) -> mujoco.MjModel:
        """The model with what `row` [P] changes, and what MuJoCo derives from that."""
        own = copy.copy(model)
        first = 0
        for part, base in zip(_changed(own), _BASES.values(), strict=True):
            exponent = row[first : first + part.size].reshape(part.shape).astype(np.float64)
            part *= base**exponent
            first += part.size
        mujoco.mj_setConst(own, mujoco.MjData(own))
        return own

    def caption(self, params: Tensor) -> str:
        """By what the task multiplies the model's numbers, from the least to the most."""
        widths = [part.size for part in _changed(self.model())]
        words = []
        for (name, base), exponents in zip(_BASES.items(), params.split(widths), strict=True):
            least, most = (base ** float(end) for end in exponents.aminmax())
            words.append(f"{name} × {least:.2g} to {most:.2g}")
        return ", ".join(words)

    def observe(self, now: Physics) -> Array:
        """[N, M, O]."""
        return np.concatenate([now.qpos[..., 1:], now.qvel.clip(-_FASTEST, _FASTEST)], axis=-1)

    def reward(
        self,
        before: Physics,
        after: Physics,
        control: Array,
        params: Array,
    ) -> Array:
        """[N, M]: v + 1 − 10⁻³ ‖a‖²."""
        return self.velocity(before, after)[..., 0] + 1 - 1e-3 * effort(control)

    def terminated(self, after: Physics) -> Flags:
        """[N, M]: fallen."""
        height, angle = after.qpos[..., 1], after.qpos[..., 2]
        outside = (height <= self.lowest) | (height >= self.highest)
        return outside | (np.abs(angle) >= self.steepest)


class WalkerParams(RandomParams):
    """A walker, which has fallen where its height leaves (0.8, 2) m or its angle (−1, 1) rad."""

    Settings = WalkerParamsConfig
    file = "walker2d_v5.xml"
    name = "walker-params"
    joints = 6
    lowest = 0.8
    highest = 2.0
    steepest = 1.0


class HopperParams(RandomParams):
    """A hopper, which has fallen at a height of at most 0.7 m or an angle of at least 0.2 rad.

    An episode also ends where anything but x and height reaches ± 100.
    """

    Settings = HopperParamsConfig
    file = "hopper.xml"
    name = "hopper-params"
    joints = 3
    lowest = 0.7
    steepest = 0.2

    def terminated(self, after: Physics) -> Flags:
        """[N, M]: fallen, or far away."""
        state = np.concatenate([after.qpos[..., 2:], after.qvel], axis=-1)
        return super().terminated(after) | (np.abs(state) >= 100).any(-1)


def _changed(model: mujoco.MjModel) -> list[Array]:
    """The arrays that a task changes, without the world's own mass and inertia."""
    return [model.body_mass[1:], model.body_inertia[1:], model.geom_friction, model.dof_damping]
