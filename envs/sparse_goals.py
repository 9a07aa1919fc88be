"""Which goals of a half circle explain the sparse rewards of a trial.

Rewards have no noise. A step either rules a goal out or tells nothing of it, so the posterior
of sparse-point is its prior on the goals that explain all steps.
"""

import math

import torch
from torch import Tensor
from torch.linalg import vector_norm

from metarl.core.rollout import Rollout, gather_times
from metarl_envs.posteriors import sums_by_place

ROUNDING = 1e-6
"""A goal explains a step if its distance is right up to this."""

COARSE_ROUNDING = 1e-4
"""For the goals that are computed from a reward: rounding grows where the two nearly coincide."""

GRID = 512
"""Arcs of the half circle, each represented by its middle.

What a step rules out ends up to half an arc, 0.003, from where it should."""


def on_circle(angle: Tensor) -> Tensor:
    """[...] radians → [..., 2] float32."""
    return torch.stack([angle.cos(), angle.sin()], dim=-1).float()


def grid() -> Tensor:
    """[GRID, 2]: the middles of equal arcs of the half circle."""
    return on_circle((torch.arange(GRID) + 0.5) * math.pi / GRID)


def weights(
    goals: Tensor,
    rollout: Rollout,
    times: Tensor,
    radius: float,
    rounding: float = ROUNDING,
) -> Tensor:
    """[K, N, M, G] float64: equal on those of `goals` [..., G, 2] that explain a trial, sum 1.

    If no goal explains the first `times` [K] steps, those that are least wrong about them stand
    for the posterior: it exists for the goals of other splits, too.
    """
    error = _errors(goals, rollout, radius)
    error = torch.cat([torch.zeros_like(error[:1]), error])  # of no step yet
    found: list[Tensor] = []
    for time in times.tolist():
        largest = error[: time + 1].amax(0)
        allowed = largest.amin(-1, keepdim=True).clamp(min=rounding)
        explains = (largest <= allowed).double()
        found.append(explains / explains.sum(-1, keepdim=True))
    return torch.stack(found)


def _errors(goals: Tensor, rollout: Rollout, radius: float) -> Tensor:
    """[T, N, M, G]: by how much `goals` [..., G, 2] are too far or too near to explain a step.

    A reward r tells the distance, 1 − r; no reward tells that it is more than `radius`. Goals below
    the half circle are wrong by as much as they lie below it.
    """
    x, y = rollout.next_obs.unsqueeze(-1).unbind(-2)  # [T, N, M, 1] each
    distance = ((x - goals[..., 0]).square() + (y - goals[..., 1]).square()).sqrt()
    reward = rollout.reward.unsqueeze(-1)
    of_reward = (distance - (1 - reward)).abs()
    of_none = (radius - distance).clamp(min=0)
    error = torch.where(reward != 0, of_reward, of_none)
    below = (-goals[..., 1]).clamp(min=0)
    return (error + below).where(rollout.valid.unsqueeze(-1), 0.0)


def rewarded(rollout: Rollout, times: Tensor) -> Tensor:
    """[K, N, M, 1] bool: whether any of the first `times` [K] steps had a reward."""
    anywhere = torch.zeros_like(rollout.valid, dtype=torch.long)
    return sums_by_place(rollout, anywhere, rollout.reward != 0, 1, times) > 0


def goals_at_distance(rollout: Rollout) -> Tensor:
    """[N, M, 2, 2]: the two goals on the circle that explain a lane's first reward, else zeros.

    Center, position x and goal are a triangle of sides ‖x‖, d = 1 − r and 1, so the goals lie at
    the angle arccos((‖x‖² + 1 − d²) / (2 ‖x‖)) on either side of x. Both are as likely: by symmetry
    the distance changes equally fast with the goal's angle.
    """
    has_reward = rollout.valid & (rollout.reward != 0)
    first = has_reward.long().argmax(0, keepdim=True)  # [1, N, M]
    position = gather_times(rollout.next_obs, first).squeeze(0).double()
    distance = 1 - gather_times(rollout.reward, first).squeeze(0).double()

    length = vector_norm(position, dim=-1)
    cosine = (length.square() + 1 - distance.square()) / (2 * length)
    apart = cosine.clamp(-1, 1).acos()
    toward = torch.atan2(position[..., 1], position[..., 0])
    goals = on_circle(torch.stack([toward - apart, toward + apart], dim=-1))
    return goals.where(has_reward.any(0)[..., None, None], 0.0)
