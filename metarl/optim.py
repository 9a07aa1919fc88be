"""Losses and updates: pure functions that return a loss and what to log of it."""

from __future__ import annotations

from torch import Tensor

from metarl.policy import Decision


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """[]: mean of x [...] over the steps that were lived through."""
    return (x * valid).sum() / valid.sum()


def standardised(x: Tensor, valid: Tensor) -> Tensor:
    """x [...] with mean 0 and standard deviation 1 over the valid steps."""
    mean = masked_mean(x, valid)
    return (x - mean) / (masked_mean((x - mean).square(), valid).sqrt() + 1e-8)


def ppo_loss(
    decision: Decision,
    action: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    value_target: Tensor,
    valid: Tensor,
    *,
    clip: float,
    value_weight: float,
    entropy_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347, equations 7 and 9).

    L = −mean min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) + c_v ½ mean (V − V_target)² − c_e mean entropy,  ρ = π(a|·) / π_old(a|·)

    Args:
        decision: of the current parameters, at every step [...].
        action: [...] int64 or [..., A].
        old_log_prob, advantage, value_target, valid: [...]; targets in the units of `decision.value`.

    Returns:
        The loss [] and its parts, detached.
    """
    log_ratio = decision.actions.log_prob(action) - old_log_prob
    ratio = log_ratio.exp()
    surrogate = -((ratio * advantage).minimum(ratio.clamp(1 - clip, 1 + clip) * advantage))
    policy_loss = masked_mean(surrogate, valid)
    value_loss = 0.5 * masked_mean((decision.value - value_target).square(), valid)
    entropy = masked_mean(decision.actions.entropy(), valid)
    metrics = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "kl": masked_mean(ratio - 1 - log_ratio, valid),  # Schulman's low-variance estimate of KL(old, new)
        "clipped": masked_mean(((ratio - 1).abs() > clip).float(), valid),
    }
    loss = policy_loss + value_weight * value_loss - entropy_weight * entropy
    return loss, {name: value.detach() for name, value in metrics.items()}
