"""Gymnasium environments as strangers have them, and the families that they become."""

import os
import sys

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from pydantic import Field

from metarl import Settings
from metarl.adapters.gymnasium import GymnasiumFamily, GymnasiumVectorFamily

HORIZON = 6


class Drift(gymnasium.Env):
    """A position that drifts by wind, action and noise; episodes end at random.

    Every kind of observation that can be flattened; the wind is the task, which resets keep.
    """

    observation_space = spaces.Dict(
        {
            "position": spaces.Box(-np.inf, np.inf, (2,), np.float64),
            "wind": spaces.Box(-np.inf, np.inf, (2,), np.float64),
            "gait": spaces.Discrete(3, start=-1),
            "inner": spaces.Tuple(
                [spaces.MultiBinary(2), spaces.Dict(dial=spaces.MultiDiscrete([2, 3]))]
            ),
            "image": spaces.Box(0, 255, (2, 1, 3), np.uint8),
        }
    )
    action_space = spaces.Box(
        np.array([[-2.0], [0.0]], np.float32), np.array([[2.0], [1.0]], np.float32)
    )
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  (as Gymnasium has it)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.wind = np.zeros(2)
        self.unpicklable = lambda: None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.normal(size=2)
        return self.see(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.position = (
            self.position + self.wind + action[:, 0] + 0.1 * self.np_random.normal(size=2)
        )
        ended = bool(self.np_random.random() < 0.2)
        info = {"height": self.position[1], "is_success": ended, "gait": self.see()["gait"]}
        return self.see(), float(self.position.sum()), ended, ended, info

    def see(self):
        number = int(abs(self.position[0]) * 100)
        return {
            "position": self.position,
            "wind": self.wind,
            "gait": number % 3 - 1,
            "inner": (
                np.array([number % 2, 1], np.int8),
                {"dial": np.array([number % 2, number % 3])},
            ),
            "image": np.full((2, 1, 3), number % 256, np.uint8),
        }

    def render(self):
        return np.full((4, 5, 3), int(abs(self.wind[0]) * 100) % 256, np.uint8)


def limited():
    return TimeLimit(Drift(render_mode="rgb_array"), HORIZON)


class Wind(GymnasiumFamily):
    """Drifts of unknown wind."""

    hidden = ("wind",)
    metrics = ("gait", "height")

    class Settings(Settings):
        """How hard it blows."""

        strongest: float = Field(
            1.0, gt=0, description="the wind is uniform up to this along both axes"
        )

    def build(self):
        return limited()

    def row(self, split, rng):
        return rng.uniform(-self.options.strongest, self.options.strongest, 2)

    def apply(self, env, row):
        env.unwrapped.wind = row


class WindInWorkers(Wind):
    """The same, stepped by two processes."""

    workers = 2


class _Winds(GymnasiumVectorFamily):
    hidden = ("wind",)
    metrics = Wind.metrics
    row = Wind.row

    class Settings(Wind.Settings):
        """The same."""

    def apply(self, env, rows):
        env.set_attr("wind", list(rows))


class WindsReset(_Winds):
    """Environments that wait to be reset."""

    def build(self, num_envs):
        return SyncVectorEnv([limited] * num_envs, autoreset_mode=AutoresetMode.DISABLED)


class WindsSameStep(_Winds):
    """Environments that reset themselves at once."""

    def build(self, num_envs):
        return SyncVectorEnv([limited] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


class WindsNextStep(_Winds):
    """Environments that reset themselves a step late."""

    def build(self, num_envs):
        return SyncVectorEnv([limited] * num_envs)


class WindsAsync(_Winds):
    """Environments in processes of their own, that reset themselves a step late."""

    horizon = HORIZON

    def build(self, num_envs):
        return AsyncVectorEnv([limited] * num_envs, context="spawn")


class Fragile(gymnasium.Env):
    """Choose one of the last two of seven. On demand it raises, dies or never returns."""

    observation_space = spaces.Discrete(2, start=3)
    action_space = spaces.Discrete(2, start=5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return 3, {}

    def step(self, action):
        self.steps += 1
        assert action in (5, 6)
        if self.steps == 3:
            self.happen()
        return 3 + action - 5, float(action), False, False, {}

    def happen(self):
        if self.what == 1:
            raise ValueError("it broke")  # the line that the test looks for
        if self.what == 2:
            os.abort()
        while self.what == 3:
            pass
        if self.what == 4:
            raise RuntimeError(
                f"torch {'torch' in sys.modules}, threads {os.environ['OMP_NUM_THREADS']}"
            )


class Accident(GymnasiumFamily):
    """What may happen in a worker."""

    horizon = 4
    workers = 2

    def build(self):
        return Fragile()

    def rows(self, split):
        return [0, 1, 2, 3, 4]

    def apply(self, env, row):
        env.unwrapped.what = int(row[0])
