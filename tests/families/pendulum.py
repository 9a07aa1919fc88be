"""A pendulum to be swung up and held, under an unknown gravity."""

from __future__ import annotations

import gymnasium
import numpy as np

from metarl.adapters.gymnasium import GymnasiumFamily


class Gravity(GymnasiumFamily):
    """Pendulums of unknown gravity."""

    def build(self) -> gymnasium.Env:
        return gymnasium.make("Pendulum-v1")

    def row(self, split: str, rng: np.random.Generator) -> list[float]:
        return [rng.uniform(5, 15)]

    def apply(self, env: gymnasium.Env, row: np.ndarray) -> None:
        env.unwrapped.g = float(row[0])
