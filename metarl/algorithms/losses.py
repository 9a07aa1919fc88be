"""Losses and updates: pure functions that return a loss and what to log of it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from metarl.nn.distributions import Categorical, Distribution, SquashedGaussian
from metarl.nn.policy import Decision


def masked_mean(x: Tensor, valid: Tensor, axes: tuple[int, ...] = ()) -> Tensor:
    """Mean of x [...] over the steps that were lived through: over all `axes`, or these, which then have length 1."""
    return (x * valid).sum(axes, keepdim=bool(axes)) / valid.sum(axes, keepdim=bool(axes))


def standardize(x: Tensor, valid: Tensor, axes: tuple[int, ...] = ()) -> Tensor:
    """x [...] with mean 0 and standard deviation 1 over the valid steps, along all `axes` or these."""
    mean = masked_mean(x, valid, axes)
    return (x - mean) / (masked_mean((x - mean).square(), valid, axes).sqrt() + 1e-8)


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
    """[...]: min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) (Schulman et al. 2017, arXiv:1707.06347, equation 7)."""
    return (ratio * advantage).minimum(ratio.clamp(1 - clip_range, 1 + clip_range) * advantage)


def ppo_loss(
    decision: Decision,
    action: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    value_target: Tensor,
    valid: Tensor,
    *,
    clip_range: float,
    value_coef: float,
    entropy_coef: float,
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
    policy_loss = -masked_mean(clipped_surrogate(ratio, advantage, clip_range), valid)
    value_loss = 0.5 * masked_mean((decision.value - value_target).square(), valid)
    entropy = masked_mean(decision.actions.entropy(), valid)
    metrics = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "kl": masked_mean(
            ratio - 1 - log_ratio, valid
        ),  # Schulman's low-variance estimate of KL(old, new)
        "clipped": masked_mean(((ratio - 1).abs() > clip_range).float(), valid),
    }
    loss = policy_loss + value_coef * value_loss - entropy_coef * entropy
    return loss, {name: value.detach() for name, value in metrics.items()}


def soft_value(
    actions: Distribution,
    q_values: Callable[[Tensor | None], Tensor],
    temperature: Tensor,
    normal: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """What a state is worth to a policy that also likes to stay random: V = E_a[Q(s, a) − α log π(a|s)].

    Haarnoja et al. 2018, arXiv:1812.05905, equation 3; for discrete actions the sum over them (Christodoulou 2019,
    arXiv:1910.07207, equation 10). The critics' target is r + γ V(s'), and the policy is improved by ascending on V.

    Args:
        actions: the policy's at the states [...].
        q_values: Q of an action [..., A] → [...]; for discrete actions it is asked without one → [..., A], one for each.
        temperature: α [].
        normal: [..., A] standard normal numbers that a continuous action is made of.

    Returns:
        V [...] and the policy's entropy [...], of continuous actions an estimate from this one.
    """
    if isinstance(actions, Categorical):
        entropy = actions.entropy()
        return (actions.logits.softmax(-1) * q_values(None)).sum(
            -1
        ) + temperature * entropy, entropy
    assert isinstance(actions, SquashedGaussian)
    assert normal is not None
    action, log_prob = actions.draw(normal)
    return q_values(action) - temperature * log_prob, -log_prob
