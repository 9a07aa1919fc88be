"""A pole on a cart whose motor has an unknown force, and which may be wired the wrong way round."""

from __future__ import annotations

import gymnasium
import numpy as np

from metarl.adapters.gymnasium import GymnasiumFamily


class SwappedCart(GymnasiumFamily):
    """CartPole of unknown force; its sign is the wiring, which decides where an action pushes."""

    horizon = 200

    def build(self) -> gymnasium.Env:
        return gymnasium.make("CartPole-v1").unwrapped

    def row(self, split: str, rng: np.random.Generator) -> list[float]:
        return [rng.choice([-1, 1]) * rng.uniform(5, 15)]

    def apply(self, env: gymnasium.Env, row: np.ndarray) -> None:
        env.unwrapped.force_mag = float(row[0])
