"""What the families of walking robots share: Gymnasium's model files, rows and how episodes start."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from metarl.rng import Streams

ASSETS = Path(str(files("gymnasium.envs.mujoco"))) / "assets"
"""The model files that come with Gymnasium."""


def noisy_start(
    noise: Streams, counter: int, position: Tensor, velocities: int, spread: float, *, normal: bool
) -> tuple[Tensor, Tensor]:
    """`position` [nq] ± `spread`, and velocities: normal with this deviation, or uniform within it → [N, M, nq and nv]."""
    uniform = noise.uniform(counter, len(position) + velocities).double()
    qpos, qvel = uniform[..., : len(position)], uniform[..., len(position) :]
    return position + spread * (2 * qpos - 1), spread * (torch.special.ndtri(qvel) if normal else 2 * qvel - 1)


def direction(angle: Tensor) -> Tensor:
    """[...] radians → [..., 2] unit vectors."""
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def effort(control: Tensor) -> Tensor:
    """‖a‖², [N, M, nu] → [N, M]."""
    return control.square().sum(-1)
