"""Returns and advantages: pure functions on arrays whose first axis is time."""

from __future__ import annotations

import torch
from torch import Tensor


def discounted_returns(reward: Tensor, cut: Tensor, discount: float) -> Tensor:
    """G_t = r_t + γ G_{t+1}, with G_{t+1} = 0 where `cut` holds.

    Args:
        reward: [T, ...].
        cut: [T, ...] bool: nothing that follows step t belongs to the same sequence.
        discount: γ.

    Returns:
        [T, ...].
    """
    zero = torch.zeros_like(reward)
    return gae(reward, zero, zero, cut, discount, trace=1.0)


def gae(
    reward: Tensor, value: Tensor, next_value: Tensor, cut: Tensor, discount: float, trace: float
) -> Tensor:  # fmt: skip
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, equation 16).

    A_t = δ_t + γ λ A_{t+1}, with δ_t = r_t + γ V(s_{t+1}) − V(s_t), and A_{t+1} = 0 where `cut` holds.

    Args:
        reward, value: [T, ...].
        next_value: [T, ...] V(s_{t+1}): zero where s_t ended for good, the bootstrap value where it was only cut off.
        cut: [T, ...] bool: credit does not flow back over the end of step t.
        discount: γ.
        trace: λ.

    Returns:
        [T, ...].
    """
    delta = reward + discount * next_value - value
    keep = discount * trace * (~cut).to(delta.dtype)
    advantage = torch.empty_like(delta)
    following = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        following = torch.addcmul(delta[t], keep[t], following, out=advantage[t])
    return advantage
