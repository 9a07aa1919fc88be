"""Returns and advantages: pure functions on arrays whose first axis is time."""

from __future__ import annotations

import torch
from torch import Tensor

_RIDGES = 30
"""How many ridges are tried: the last is beyond every finite feature."""


def discounted_returns(reward: Tensor, cut: Tensor, gamma: float) -> Tensor:
    """G_t = r_t + γ G_{t+1}, with G_{t+1} = 0 where `cut` holds.

    Args:
        reward: [T, ...].
        cut: [T, ...] bool: nothing that follows step t belongs to the same sequence.
        gamma: γ.

    Returns:
        [T, ...].
    """
    zero = torch.zeros_like(reward)
    return gae(reward, zero, zero, cut, gamma, gae_lambda=1.0)


def gae(
    reward: Tensor, value: Tensor, next_value: Tensor, cut: Tensor, gamma: float, gae_lambda: float
) -> Tensor:  # fmt: skip
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, equation 16).

    A_t = δ_t + γ λ A_{t+1}, with δ_t = r_t + γ V(s_{t+1}) − V(s_t), and A_{t+1} = 0 where `cut` holds.

    Args:
        reward, value: [T, ...].
        next_value: [T, ...] V(s_{t+1}): zero where s_t ended for good, the bootstrap value where it was only cut off.
        cut: [T, ...] bool: credit does not flow back over the end of step t.
        gamma: γ.
        gae_lambda: λ.

    Returns:
        [T, ...].
    """
    delta = reward + gamma * next_value - value
    keep = gamma * gae_lambda * (~cut).to(delta.dtype)
    advantage = torch.empty_like(delta)
    following = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        following = torch.addcmul(delta[t], keep[t], following, out=advantage[t])
    return advantage


def linear_baseline(
    obs: Tensor, time: Tensor, returns: Tensor, valid: Tensor, ridge: float = 1e-5
) -> Tensor:
    """The return to come, as a linear function of simple features of observation and time, of each task on its own.

    Least squares on [s, s², t/100, (t/100)², (t/100)³, 1] with s clipped to ±10, fitted to the steps that it is asked for
    (Duan et al. 2016, arXiv:1604.06778, section 3.1), by Cholesky factors. Where they do not exist in double precision, the
    ridge grows tenfold until they do.

    Args:
        obs: [T, N, M, O].
        time: [T, N, M] steps since the episode began.
        returns: [T, N, M] discounted return from each step on.
        valid: [T, N, M] bool: which steps are fitted.
        ridge: weight of the squared coefficients beside the sum of squared errors.

    Returns:
        [T, N, M]; what stands where `valid` is False means nothing.
    """
    s, t = obs.clamp(-10, 10), (time / 100).to(obs.dtype).unsqueeze(-1)
    features = torch.cat([s, s.square(), t, t.square(), t**3, torch.ones_like(t)], dim=-1)
    rows = features.movedim(1, 0).flatten(1, 2).double()  # [N, T·M, F]
    weighted = rows * valid.movedim(1, 0).flatten(1).unsqueeze(-1)
    target = returns.movedim(1, 0).flatten(1).unsqueeze(-1).double()
    fitted = rows @ _ridge_solution(weighted.mT @ rows, weighted.mT @ target, ridge)
    return fitted.to(returns.dtype).view(returns.movedim(1, 0).shape).movedim(0, 1)


def _ridge_solution(gram: Tensor, moment: Tensor, ridge: float) -> Tensor:
    """[N, F, 1]: x with (gram [N, F, F] + ridge I) x = moment [N, F, 1], gram positive semidefinite."""
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    added = torch.full((len(gram), 1, 1), ridge, dtype=gram.dtype, device=gram.device)
    for _ in range(_RIDGES):
        factor, info = torch.linalg.cholesky_ex(gram + added * identity)
        failed = (info > 0).view(-1, 1, 1)
        if not failed.any():
            return torch.cholesky_solve(moment, factor)
        added = torch.where(failed, 10 * added, added)
    raise FloatingPointError(
        "the baseline has no solution: an observation or a return is not finite"
    )
