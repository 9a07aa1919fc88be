"""What the families of walking robots share: specs, task rows, starts and costs."""

import math
from importlib.resources import files
from pathlib import Path

import mujoco
import numpy as np
import torch
from torch import Tensor

from metarl.adapters.mujoco import Array, Flags, MujocoEnv, Physics, Simulated, load_model
from metarl.core.rng import Rng, Streams
from metarl.core.types import SPLITS, Spec, Tasks
from metarl_envs.robot_config import RobotConfig

_ASSETS = Path(str(files("gymnasium.envs.mujoco"))) / "assets"


class Robot(Simulated):
    """A family of tasks for one of Gymnasium's robots; a subclass sets what describes it."""

    file: str
    """The model that comes with Gymnasium."""
    joints: int
    """Actuated ones: the width of an action."""
    frame_skip = 5
    seconds: float
    """Of one control step, which is `frame_skip` physics steps."""

    name: str
    observation: dict[str, int]
    hidden_positions = 2
    """Of the generalized positions, the first few that are not observed: x and y."""
    start_position: Array
    """[nq] around which episodes start, `start_spread` to either side."""
    start_spread: float
    start_normal = False
    """Velocities start normal with deviation `start_spread`; or uniform on ± `start_spread`."""
    task_width: int
    has_goal = True
    """The whole task row is its goal."""
    splits: tuple[str, ...] = SPLITS
    closed = False
    metrics: tuple[str, ...] = ()
    """What `measure` gives, if the family has that method."""

    def __init__(self, config: RobotConfig):
        self.config = config
        self.threads = config.threads
        self.spec = Spec(
            self.name,
            self.observation,
            action_width=self.joints,
            discrete=False,
            horizon=config.horizon,
            task_width=self.task_width,
            goal_width=self.task_width if self.has_goal else 0,
            splits=self.splits,
            closed=self.closed,
            metrics=self.metrics,
        )

    def model(self) -> mujoco.MjModel:
        """Gymnasium's model with the sensors of this family."""
        return load_model(_ASSETS / self.file, self.add_sensors)

    def add_sensors(self, spec: mujoco.MjSpec) -> None:
        """Add what `observe` and `reward` look up in `Physics.sensors`: here nothing."""

    def start(self, noise: Streams, counter: int) -> tuple[Array, Array]:
        """qpos [N, M, nq] and qvel [N, M, nv] at random about `start_position`, at rest."""
        split = len(self.start_position)
        uniform = noise.uniform(counter, split + self.observation["velocity"]).double()
        shift = 2 * uniform[..., :split] - 1
        velocity = uniform[..., split:]
        velocity = torch.special.ndtri(velocity) if self.start_normal else 2 * velocity - 1
        position = self.start_position + self.start_spread * shift.numpy()
        return position, self.start_spread * velocity.numpy()

    def observe(self, now: Physics) -> Array:
        """[N, M, O]: positions and velocities."""
        return np.concatenate([now.qpos[..., self.hidden_positions :], now.qvel], axis=-1)

    def make(self, lanes: int) -> MujocoEnv:
        """N tasks × `lanes` robots."""
        return MujocoEnv(self, lanes)

    def velocity(self, before: Physics, after: Physics) -> Array:
        """[N, M, 2] m/s: the mean over a control step along the first two axes, x and y (or z)."""
        return (after.qpos[..., :2] - before.qpos[..., :2]) / self.seconds


# -------------------------------------------------------------------------------------------------
# Task rows


def direction(angle: Tensor) -> Tensor:
    """[...] radians → [..., 2] unit vectors."""
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def directions(split: str, count: int, rng: Rng) -> Tasks:
    """`count` unit vectors, uniform on the circle."""
    angle = 2 * math.pi * rng.child(split).rows(count, 1).squeeze(1)
    return Tasks.numbered(direction(angle), split)


def speeds(
    split: str,
    count: int,
    rng: Rng,
    fastest: float,
) -> Tasks:
    """`count` speeds, uniform up to `fastest`; in the split ood from there to 1.5 × as fast."""
    uniform = rng.child(split).rows(count, 1)
    if split == "ood":
        uniform = 1 + uniform / 2
    return Tasks.numbered(fastest * uniform, split)


def heading_caption(params: Tensor) -> str:
    """A unit vector [2] in words; forward is along x, and y is to the left."""
    angle = round(math.degrees(math.atan2(params[1], params[0])))
    if angle in (-180, 0, 180):
        return f"target direction {'backward' if angle else 'forward'}"
    return f"target direction {abs(angle)}° {'left' if angle > 0 else 'right'} of forward"


def speed_caption(params: Tensor) -> str:
    """A speed [1] in words."""
    return f"target velocity {params.item():.2f} m/s"


# -------------------------------------------------------------------------------------------------
# Physics


def effort(control: Array) -> Array:
    """‖a‖², [N, M, nu] → [N, M]."""
    return np.square(control).sum(-1)


def outside(height: Array, low: float, high: float) -> Flags:
    """[N, M]: whether `height` [N, M] has left [`low`, `high`]."""
    return (height < low) | (height > high)
