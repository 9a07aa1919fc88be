"""Losses: pure functions that return a loss and what to log of it."""

from collections.abc import Callable

from torch import Tensor

from metarl.nn.decision import Decision
from metarl.nn.distributions import Categorical, Distribution, SquashedGaussian

_ROUNDING = 1e-5
"""A deviation of so small a share of the numbers is that of float32's rounding errors."""


def masked_mean(
    x: Tensor,
    valid: Tensor,
    axes: tuple[int, ...] = (),
    count: Tensor | None = None,
) -> Tensor:
    """Mean of x [...] over the valid steps along all axes, or along `axes`, keeping them.

    Where there are none it is 0. `count`, if given, is the number of valid steps of a whole that x
    is a part of: the means of all parts sum up to that of the whole.
    """
    keepdim = bool(axes)
    if count is None:
        count = valid.sum(axes, keepdim)
    return (x * valid).sum(axes, keepdim) / count.clamp(min=1)


def standardize(
    x: Tensor,
    valid: Tensor,
    axes: tuple[int, ...] = (),
    summands: Tensor | None = None,
) -> Tensor:
    """x [...] with mean 0 and deviation 1 over the valid steps, along all axes or `axes`.

    What is equal but for rounding errors becomes about 0, not noise of deviation 1: errors of x,
    or of the `summands` [...] that x is a difference of.
    """
    exact = x.double()  # squares of what float32 holds
    mean = masked_mean(exact, valid, axes)
    centered = exact - mean
    std = masked_mean(centered.square(), valid, axes).sqrt()
    size = mean.abs()
    if summands is not None:
        size = size.maximum((summands * valid).abs().amax(axes, keepdim=bool(axes)))
    return (centered / std.maximum(_ROUNDING * size).clamp(min=1e-30)).to(x.dtype)


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
    """[...]: min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) (Schulman et al. 2017, arXiv:1707.06347, eq. 7)."""
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return (ratio * advantage).minimum(clipped * advantage)


def ppo_loss(
    decision: Decision,
    action: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    value_target: Tensor,
    valid: Tensor,
    *,
    count: Tensor | None = None,
    clip_range: float,
    value_coef: float,
    entropy_coef: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347, equations 7 and 9).

    L = −mean min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) + c_v ½ mean (V − V_target)² − c_e mean entropy,
    ρ = π(a|s) / π_old(a|s)

    Args:
        decision: of the current parameters, at every step [...].
        action: [...] int64 or [..., A].
        old_log_prob, advantage, valid: [...].
        value_target: [...] in the units of `decision.value`.
        count: [] valid steps of the minibatch, if this is a shard of it; see `masked_mean`.
        clip_range, value_coef, entropy_coef: ε, c_v, c_e.

    Returns:
        The loss [] and its parts, detached.
    """
    actions = decision.actions
    assert not isinstance(actions, SquashedGaussian), "no entropy in closed form"

    def mean(x: Tensor) -> Tensor:
        return masked_mean(x, valid, count=count)

    log_ratio = actions.log_prob(action) - old_log_prob
    ratio = log_ratio.exp()
    policy_loss = -mean(clipped_surrogate(ratio, advantage, clip_range))
    value_loss = 0.5 * mean((decision.value - value_target).square())
    entropy = mean(actions.entropy())
    clipped = (ratio - 1).abs() > clip_range
    metrics = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        # Schulman's low-variance estimate of KL(old, new)
        "kl": mean(ratio - 1 - log_ratio),
        "clipped": mean(clipped.float()),
    }
    loss = policy_loss + value_coef * value_loss - entropy_coef * entropy
    return loss, {name: value.detach() for name, value in metrics.items()}


def soft_value(
    actions: Distribution,
    q_values: Callable[[Tensor | None], Tensor],
    temperature: Tensor,
    normal: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The soft value V(s) = E_a[Q(s, a) − α log π(a|s)] of soft actor-critic.

    Haarnoja et al. 2018, arXiv:1812.05905, equation 3; for discrete actions the sum over them
    (Christodoulou 2019, arXiv:1910.07207, equation 10). The critics' target is r + γ V(s'); the
    policy ascends on V.

    Args:
        actions: the policy's distribution at the states [...].
        q_values: Q of an action [..., A] → [...]; of all discrete actions, None → [..., A].
        temperature: α [].
        normal: [..., A] standard normal numbers that a continuous action is made of.

    Returns:
        V [...] and the policy's entropy [...], of continuous actions estimated from the drawn one.
    """
    if isinstance(actions, Categorical):
        entropy = actions.entropy()
        probs = actions.logits.softmax(-1)
        expected = (probs * q_values(None)).sum(-1)
        return expected + temperature * entropy, entropy
    assert isinstance(actions, SquashedGaussian)
    assert normal is not None
    action, log_prob = actions.draw(normal)
    return q_values(action) - temperature * log_prob, -log_prob
