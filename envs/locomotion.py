"""What the families of walking robots share: Gymnasium's model files, rows and how episodes start."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metarl.adapters.mujoco import Array
from metarl.core.rng import Rng, Streams
from metarl.core.types import Tasks

ASSETS = Path(str(files("gymnasium.envs.mujoco"))) / "assets"
"""The model files that come with Gymnasium."""


def noisy_start(
    noise: Streams, counter: int, position: Array, velocities: int, spread: float, *, normal: bool
) -> tuple[Array, Array]:
    """`position` [nq] ± `spread`, and velocities: normal with this deviation, or uniform within it → [N, M, nq and nv]."""
    uniform = noise.uniform(counter, len(position) + velocities).double()
    around, speed = 2 * uniform[..., : len(position)] - 1, uniform[..., len(position) :]
    speed = torch.special.ndtri(speed) if normal else 2 * speed - 1
    return position + spread * around.numpy(), spread * speed.numpy()


def direction(angle: Tensor) -> Tensor:
    """[...] radians → [..., 2] unit vectors."""
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def directions(split: str, count: int, rng: Rng) -> Tasks:
    """`count` unit vectors, uniform on the circle."""
    angle = 2 * math.pi * rng.child(split).rows(count, 1).squeeze(1)
    return Tasks(direction(angle), torch.arange(count), split)


def speeds(split: str, count: int, rng: Rng, fastest: float) -> Tasks:
    """`count` speeds, uniform up to `fastest`; in the split ood from there to 1.5 × as fast."""
    uniform = rng.child(split).rows(count, 1)
    return Tasks(
        fastest * (1 + uniform / 2 if split == "ood" else uniform), torch.arange(count), split
    )


def effort(control: Array) -> Array:
    """‖a‖², [N, M, nu] → [N, M]."""
    return summed(np.square(control))


def summed(parts: Array) -> Array:
    """[..., X] → [...]."""
    total: Array = parts.sum(-1)
    return total
