"""Returns and advantages: pure functions on arrays whose first axis is time."""

import torch
from torch import Tensor

from metarl.nn.mlp import flatten_steps, unflatten_steps

_RIDGES = 30
"""How many ridges are tried: the last exceeds every finite feature."""


def discounted_returns(reward: Tensor, cut: Tensor, gamma: float) -> Tensor:
    """G_t = r_t + γ G_{t+1}, with G_{t+1} = 0 after a `cut`.

    Args:
        reward: [T, ...].
        cut: [T, ...] bool: step t is the last of its sequence.
        gamma: γ.

    Returns:
        [T, ...].
    """
    zero = torch.zeros_like(reward)
    return gae(reward, zero, zero, cut, gamma, gae_lambda=1.0)


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    cut: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Generalized advantage estimation (Schulman et al. 2016, arXiv:1506.02438, equation 16).

    A_t = δ_t + γ λ A_{t+1}, with δ_t = r_t + γ V(s_{t+1}) − V(s_t), and A_{t+1} = 0 after a `cut`.

    Args:
        reward, value: [T, ...].
        next_value: [T, ...] V(s_{t+1}): zero at a termination, the bootstrap value at a truncation.
        cut: [T, ...] bool: step t is the last of its sequence.
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


def next_step(x: Tensor) -> Tensor:
    """x_{t+1} of x [T, ...]; zero, or False, after the last step."""
    return torch.cat([x[1:], torch.zeros_like(x[:1])])


def linear_baseline(
    obs: Tensor,
    time: Tensor,
    returns: Tensor,
    valid: Tensor,
    ridge: float = 1e-5,
) -> Tensor:
    """Values that are linear in features of observation and time, for each task by itself.

    Least squares on [s, s², t/100, (t/100)², (t/100)³, 1] with s clipped to ±10, fitted to the same
    steps (Duan et al. 2016, arXiv:1604.06778, section 3.1), by Cholesky factors. Where they do not
    exist in double precision, the ridge grows tenfold until they do.

    Args:
        obs: [T, N, M, O].
        time: [T, N, M] steps since the episode began.
        returns: [T, N, M] discounted return from each step on.
        valid: [T, N, M] bool: which steps are fitted.
        ridge: weight of the squared coefficients against the sum of squared errors.

    Returns:
        [T, N, M]; undefined where `valid` is False.
    """
    s = obs.clamp(-10, 10)
    t = (time / 100).to(obs.dtype).unsqueeze(-1)
    one = torch.ones_like(t)
    features = torch.cat([s, s.square(), t, t.square(), t**3, one], dim=-1)

    x = flatten_steps(features).double()  # [N, T·M, F]
    y = flatten_steps(returns.unsqueeze(-1)).double()  # [N, T·M, 1]
    weighted = x * flatten_steps(valid.unsqueeze(-1))
    coefficients = _ridge_solution(weighted.mT @ x, weighted.mT @ y, ridge)
    fitted = (x @ coefficients).to(returns.dtype)
    return unflatten_steps(fitted, len(returns)).squeeze(-1)


def _ridge_solution(gram: Tensor, moment: Tensor, ridge: float) -> Tensor:
    """[N, F, 1]: the solution of (gram [N, F, F] + ridge I) x = moment [N, F, 1]."""
    identity = torch.eye(gram.shape[-1]).to(gram)
    added = gram.new_full((len(gram), 1, 1), ridge)
    for _ in range(_RIDGES):
        factor, info = torch.linalg.cholesky_ex(gram + added * identity)
        failed = (info > 0).view(-1, 1, 1)
        if not failed.any():
            return torch.cholesky_solve(moment, factor)
        added = torch.where(failed, 10 * added, added)
    raise FloatingPointError("linear_baseline: an observation or a return is not finite")
