"""Soft values: sums over all choices, the policies that are known to be best, and expectations that
have a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, TanhTransform, TransformedDistribution, kl_divergence

from metarl.algorithms.losses import soft_value
from metarl.nn.distributions import Categorical, Gaussian, SquashedGaussian

S, A = 4, 3  # states, choices or entries of an action
EXACT = {"rtol": 1e-9, "atol": 1e-9}
ALPHA = torch.tensor(0.7, dtype=torch.float64)
DRAWS = 100_000


def randn(*axes: int, seed: int) -> Tensor:
    return torch.randn(axes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -------------------------------------------------------------------------------------------------
# Discrete actions


def value_of_choices(
    logits: Tensor, q_values: Tensor, temperature: Tensor = ALPHA
) -> tuple[Tensor, Tensor]:
    def ask(action: Tensor | None) -> Tensor:
        assert action is None
        return q_values

    return soft_value(Categorical(logits), ask, temperature, None)


def test_choices_are_summed_over():
    """Σ π (Q − α log π), and −Σ π log π."""
    logits, q_values = randn(S, A, seed=0), 3 * randn(S, A, seed=1)
    value, entropy = value_of_choices(logits, q_values)
    assert value.shape == entropy.shape == (S,)
    for s in range(S):
        odds = [math.exp(x) for x in logits[s].tolist()]
        probs = [x / sum(odds) for x in odds]
        surprise = [-math.log(p) for p in probs]
        expected = sum(
            p * (q + 0.7 * i) for p, q, i in zip(probs, q_values[s].tolist(), surprise, strict=True)
        )
        assert float(value[s]) == pytest.approx(expected, abs=1e-12)
        assert float(entropy[s]) == pytest.approx(
            sum(p * i for p, i in zip(probs, surprise, strict=True)), abs=1e-12
        )


def test_the_best_choices_are_the_softmax_of_worth_by_temperature():
    """Worth α log Σ exp Q / α, where the slope is zero; other policies are worth less, by α times
    their divergence.
    """
    q_values = randn(S, A, seed=1)
    best = q_values / ALPHA
    top = ALPHA * best.logsumexp(-1)
    logits = best.clone().requires_grad_()
    value, _ = value_of_choices(logits, q_values)
    torch.testing.assert_close(value, top, **EXACT)
    (slope,) = torch.autograd.grad(value.sum(), logits)
    torch.testing.assert_close(slope, torch.zeros(S, A).double(), **EXACT)
    for seed, size in enumerate((0.01, 0.1, 1.0, 10.0)):
        other = best + size * randn(100, S, A, seed=seed)
        value, _ = value_of_choices(other, q_values.expand(100, S, A))
        assert (value < top).all()
        torch.testing.assert_close(
            value, top - ALPHA * Categorical(other).kl(Categorical(best)), **EXACT
        )


def test_ascending_on_the_value_finds_the_best_choices():
    """From anywhere, never downwards, by the gradient of what is returned."""
    q_values, logits = randn(S, A, seed=1), randn(S, A, seed=2).requires_grad_()
    last = torch.full((S,), -math.inf)
    for _ in range(300):
        value, _ = value_of_choices(logits, q_values)
        assert (value >= last - 1e-12).all()
        last = value.detach()
        (slope,) = torch.autograd.grad(value.sum(), logits)
        logits = (logits + slope).detach().requires_grad_()
    torch.testing.assert_close(
        logits.softmax(-1), (q_values / ALPHA).softmax(-1), rtol=0, atol=1e-6
    )


def test_choices_that_cost_nothing_to_know_are_worth_their_mean():
    """At temperature 0. By worth the slope is π, by temperature the entropy."""
    logits, q_values = randn(S, A, seed=0), randn(S, A, seed=1).requires_grad_()
    probs = logits.softmax(-1)
    value, entropy = value_of_choices(logits, q_values, torch.tensor(0.0))
    torch.testing.assert_close(value, (probs * q_values).sum(-1), **EXACT)
    temperature = ALPHA.clone().requires_grad_()
    value, _ = value_of_choices(logits, q_values, temperature)
    by_worth, by_temperature = torch.autograd.grad(value.sum(), (q_values, temperature))
    torch.testing.assert_close((by_worth, by_temperature), (probs, entropy.sum()), **EXACT)


# -------------------------------------------------------------------------------------------------
# Continuous actions


@pytest.fixture
def actions() -> SquashedGaussian:
    return SquashedGaussian(0.5 * randn(S, A, seed=0), 0.3 * randn(S, A, seed=1) - 1)


def hilly(action: Tensor) -> Tensor:
    """[...]: a worth whose entries depend on one another."""
    return (3 * action).sin().sum(-1) + 2 * action.prod(-1)


def linear_before_tanh(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """w · atanh a − α Σ log (1 − a²): what the tanh does to the density is taken away again, and
    the rest is known.
    """
    return lambda action: (weight * action.atanh() - ALPHA * (1 - action.square()).log()).sum(-1)


def mean_log_slope(actions: SquashedGaussian) -> Tensor:
    """[S]: E log (1 − tanh²) over the normals, by an integral of fine steps."""
    normal = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    before = actions.mean.unsqueeze(-1) + actions.log_std.exp().unsqueeze(-1) * normal
    density = Normal(0.0, 1.0).log_prob(normal).exp()
    return torch.trapezoid(density * (1 - before.tanh().square()).log(), normal).sum(-1)


def test_one_draw_is_its_worth_and_its_surprise(actions: SquashedGaussian):
    """Q(a) − α log π(a), and −log π(a), for the action that is made of these normals."""
    normal = randn(S, A, seed=2)
    value, entropy = soft_value(actions, hilly, ALPHA, normal)
    action = (actions.mean + actions.log_std.exp() * normal).tanh()
    theirs = TransformedDistribution(Normal(actions.mean, actions.log_std.exp()), TanhTransform())
    log_prob = theirs.log_prob(action).sum(-1)
    assert value.shape == entropy.shape == (S,)
    torch.testing.assert_close(
        (value, entropy), (hilly(action) - ALPHA * log_prob, -log_prob), **EXACT
    )


def test_the_mean_over_draws_is_the_expectation(actions: SquashedGaussian):
    """The value's is w · μ + α H(N(μ, σ²)), so the slopes are w by μ and α by log σ. Within four
    standard errors.
    """
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    leaves = [
        x.expand(DRAWS, S, A).clone().requires_grad_() for x in (actions.mean, actions.log_std)
    ]
    value, entropy = soft_value(
        SquashedGaussian(*leaves), linear_before_tanh(weight), ALPHA, randn(DRAWS, S, A, seed=2)
    )
    by_mean, by_log_std = torch.autograd.grad(value.sum(), leaves)
    normal = Normal(actions.mean, actions.log_std.exp())
    torch.testing.assert_close(by_mean, weight.expand(DRAWS, S, A), **EXACT)
    for found, expected in (
        (value, (weight * actions.mean + ALPHA * normal.entropy()).sum(-1)),
        (entropy, normal.entropy().sum(-1) + mean_log_slope(actions)),
        (by_log_std, ALPHA),
    ):
        assert ((found.mean(0) - expected).abs() < 4 * found.std(0) / math.sqrt(DRAWS)).all()


def test_the_best_policy_is_the_exponential_of_worth_by_temperature(actions: SquashedGaussian):
    """If Q = 1 + α log π*, then π* is worth 1 in every draw, and π that less α KL(π ‖ π*) in the
    mean.
    """

    def q_values(action: Tensor) -> Tensor:
        return 1 + ALPHA * actions.log_prob(action)

    value, _ = soft_value(actions, q_values, ALPHA, randn(S, A, seed=2))
    torch.testing.assert_close(value, torch.ones(S).double(), **EXACT)
    for size in (0.1, 0.5):
        other = SquashedGaussian(
            actions.mean + size * randn(S, A, seed=3), actions.log_std + size * randn(S, A, seed=4)
        )
        value, _ = soft_value(other, q_values, ALPHA, randn(DRAWS, S, A, seed=2))
        before = [Normal(pi.mean, pi.log_std.exp()) for pi in (other, actions)]
        expected = 1 - ALPHA * kl_divergence(*before).sum(-1)
        assert ((value.mean(0) - expected).abs() < 4 * value.std(0) / math.sqrt(DRAWS)).all()


def test_slopes_are_those_of_finite_differences_with_the_same_normals(actions: SquashedGaussian):
    """By mean, deviation, temperature, and what worth depends on."""
    normal = randn(S, A, seed=2)

    def value(
        mean: Tensor, log_std: Tensor, temperature: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        return soft_value(
            SquashedGaussian(mean, log_std),
            lambda action: hilly(weight * action),
            temperature,
            normal,
        )

    leaves = (actions.mean, actions.log_std, ALPHA.clone(), randn(A, seed=3))
    assert torch.autograd.gradcheck(value, [x.requires_grad_() for x in leaves])


def test_actions_that_cost_nothing_to_know_are_worth_what_the_critic_says(
    actions: SquashedGaussian,
):
    """At temperature 0."""
    normal = randn(S, A, seed=2)
    value, _ = soft_value(actions, hilly, torch.tensor(0.0), normal)
    torch.testing.assert_close(value, hilly(actions.draw(normal)[0]), **EXACT)


def test_only_policies_with_a_known_draw_have_a_soft_value():
    """A clipped normal has no density that could be differentiated; and no normal, no draw."""
    with pytest.raises(AssertionError):
        soft_value(Gaussian(torch.zeros(S, A), torch.zeros(A)), hilly, ALPHA, torch.zeros(S, A))
    with pytest.raises(AssertionError):
        soft_value(SquashedGaussian(torch.zeros(S, A), torch.zeros(S, A)), hilly, ALPHA, None)
