"""An environment that does one thing wrong, and the family that says which."""

from __future__ import annotations

import time

import gymnasium
import numpy as np
from gymnasium import spaces

from metarl import Settings
from metarl.adapters.gymnasium import GymnasiumFamily


class Env(gymnasium.Env):
    """Two buttons for four steps; the wrong thing happens in the third, or where it can at all."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)
    render_mode = "rgb_array"

    def __init__(self, fault):
        self.fault, self.steps, self.resets = fault, 0, 0
        if fault == "build":
            raise ValueError("build broke")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        self.resets += 1
        if self.fault == "reset" or (self.fault == "second reset" and self.resets > 2):
            raise ValueError("reset broke")
        if self.fault == "reset hangs":
            hang()
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        late = self.steps == 3
        if late and self.fault == "step":
            raise ValueError("step\nbroke")
        if late and self.fault == "step hangs":
            hang()
        if late and self.fault == "interrupt":
            raise KeyboardInterrupt
        return np.zeros(2, np.float32), 0.0, False, False, {}

    def render(self):
        if self.fault == "render":
            raise ValueError("render broke")
        return np.zeros((2, 3, 3)) if self.fault == "render floats" else np.zeros((2, 3, 3), int)


def hang():
    while True:
        time.sleep(0.01)


class Faulty(GymnasiumFamily):
    """A family of it."""

    horizon = 4

    class Settings(Settings):
        """What it does wrong."""

        fault: str
        """Which method."""

    def build(self):
        return Env(self.config.fault)

    def row(self, split, rng):
        if self.config.fault == "row":
            raise ValueError("row broke")
        return [0.5]

    def rows(self, split):
        if self.config.fault == "rows":
            raise ValueError("rows broke")

    def apply(self, env, row):
        if self.config.fault == "apply":
            raise ValueError("apply broke")

    def success(self, info):
        if self.config.fault == "success":
            raise ValueError("success broke")
        return False


class FaultyInWorkers(Faulty):
    """The same in another process, with little patience."""

    workers = 1
    call_seconds = 1.5
