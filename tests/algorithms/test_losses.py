"""Losses and updates: values by hand, the points where gradients are known, steps that have a
closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from metarl.algorithms.losses import masked_mean, ppo_loss, standardize
from metarl.algorithms.trust_region import conjugate_gradient, trust_region_step
from metarl.nn.decision import Decision
from metarl.nn.distributions import Categorical

WEIGHTS = {"clip_range": 0.2, "value_coef": 0.0, "entropy_coef": 0.0}


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Sixty decisions among three actions, on the policy that drew them."""
    torch.manual_seed(0)
    logits = torch.randn(60, 3, dtype=torch.float64)
    action = torch.distributions.Categorical(logits=logits).sample()
    batch = {
        "logits": logits,
        "value": torch.randn(60),
        "action": action,
        "advantage": torch.randn(60),
    }
    old_log_prob = Categorical(logits).log_prob(action)
    return batch | {
        "old_log_prob": old_log_prob,
        "value_target": torch.randn(60),
        "valid": torch.ones(60) > 0,
    }


def loss_of(batch: dict[str, Tensor], **weights: float) -> tuple[Tensor, dict[str, Tensor]]:
    rest = dict(batch)
    decision = Decision({"action": rest.pop("logits")}, rest.pop("value"))
    return ppo_loss(decision, **rest, **WEIGHTS | weights)


def grad_of(batch: dict[str, Tensor], **weights: float) -> Tensor:
    logits = batch["logits"].clone().requires_grad_()
    loss, _ = loss_of(batch | {"logits": logits}, **weights)
    return torch.autograd.grad(loss, logits)[0]


def test_the_first_gradient_is_the_policy_gradient(batch):
    """At ratio 1, ∇L = −mean A ∇log π(a)."""
    logits = batch["logits"].clone().requires_grad_()
    expected = -(batch["advantage"] * Categorical(logits).log_prob(batch["action"])).mean()
    torch.testing.assert_close(grad_of(batch), torch.autograd.grad(expected, logits)[0])


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["good action", "bad action"])
@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.1, 1.5])
def test_the_gradient_vanishes_where_the_ratio_has_gone_far_enough(
    batch, sign: float, ratio: float
):
    """A good action's ratio is pushed up to 1 + ε, a bad one's down to 1 − ε, and never further;
    the way back is free.
    """
    spent = (sign > 0 and ratio > 1.2) or (sign < 0 and ratio < 0.8)
    moved = batch | {"old_log_prob": batch["old_log_prob"] - torch.tensor(ratio).log()}
    moved["advantage"] = sign * batch["advantage"].abs()
    gradient = grad_of(moved)
    assert bool(gradient.eq(0).all()) == spent
    loss, metrics = loss_of(moved)
    limited = min(ratio * sign, min(max(ratio, 0.8), 1.2) * sign)
    assert float(loss) == pytest.approx(-limited * float(batch["advantage"].abs().mean()), rel=1e-5)
    assert metrics["clipped"] == (abs(ratio - 1) > 0.2)


def test_padding_changes_nothing(batch):
    """Ragged episodes: what was not lived through has no part in any mean (SPECS 1.4, item 19)."""
    batch["old_log_prob"] = batch["old_log_prob"] + 0.1 * torch.randn(60)
    padded = {name: torch.cat([x, 50 * torch.ones_like(x[:20])]) for name, x in batch.items()}
    padded["action"][60:], padded["valid"][60:] = 0, False
    weights = {"value_coef": 0.5, "entropy_coef": 0.01}
    (loss, metrics), (padded_loss, padded_metrics) = (
        loss_of(batch, **weights),
        loss_of(padded, **weights),
    )
    torch.testing.assert_close(loss, padded_loss)
    torch.testing.assert_close(metrics, padded_metrics)
    gradient = grad_of(padded, **weights)
    torch.testing.assert_close(gradient[:60], grad_of(batch, **weights))
    assert gradient[60:].eq(0).all()


def test_the_loss_is_the_weighted_sum_of_its_parts(batch):
    loss, metrics = loss_of(batch, value_coef=0.7, entropy_coef=0.3)
    torch.testing.assert_close(
        metrics["value_loss"], 0.5 * (batch["value"] - batch["value_target"]).square().mean()
    )
    entropy = torch.distributions.Categorical(logits=batch["logits"]).entropy().mean()
    torch.testing.assert_close(metrics["entropy"], entropy)
    torch.testing.assert_close(
        loss, metrics["policy_loss"] + 0.7 * metrics["value_loss"] - 0.3 * metrics["entropy"]
    )
    assert not any(part.requires_grad for part in metrics.values())


def test_the_divergence_is_estimated_without_bias():
    """Averaged over every action by its old probability, the estimate is KL(old, new) exactly."""
    old, new = torch.randn(3).log_softmax(-1), torch.randn(3).log_softmax(-1)
    total = 0.0
    for a in range(3):
        decision = Decision({"action": new.unsqueeze(0)}, torch.zeros(1))
        _, metrics = ppo_loss(
            decision,
            torch.tensor([a]),
            old[a : a + 1],
            *torch.zeros(2, 1),
            torch.ones(1),
            **WEIGHTS,
        )
        total += float(old[a].exp() * metrics["kl"])
    assert total == pytest.approx(float((old.exp() * (old - new)).sum()), rel=1e-4)


def test_masked_mean_is_the_mean_of_the_valid():
    x, valid = torch.randn(4, 5), torch.rand(4, 5) < 0.5
    torch.testing.assert_close(masked_mean(x, valid), x[valid].mean())


def test_standardized_over_the_valid_whatever_the_scale():
    x, valid = 3 + 7 * torch.randn(40, 5), torch.rand(40, 5) < 0.5
    z = standardize(x, valid)
    torch.testing.assert_close(z[valid].mean(), torch.tensor(0.0), rtol=0, atol=1e-5)
    torch.testing.assert_close(z[valid].std(unbiased=False), torch.tensor(1.0))
    torch.testing.assert_close(
        standardize(100 * x - 5, valid)[valid], z[valid], rtol=1e-4, atol=1e-4
    )
    assert standardize(torch.ones(3), torch.ones(3)).eq(0).all()


def test_along_some_axes_each_row_is_by_itself():
    """What the valid steps of one task are has no say in another's (SPECS 1.4, item 13); others may
    hold anything.
    """
    x, valid = 3 + 7 * torch.randn(30, 4, 5), torch.rand(30, 4, 5) < 0.5
    x[~valid] = 1e6
    mean, z = masked_mean(x, valid, (0, 2)), standardize(x, valid, (0, 2))
    assert mean.shape == (1, 4, 1)
    for i in range(4):
        torch.testing.assert_close(mean[0, i, 0], x[:, i][valid[:, i]].mean())
        torch.testing.assert_close(
            z[:, i][valid[:, i]], standardize(x[:, i], valid[:, i])[valid[:, i]]
        )


# -------------------------------------------------------------------------------------------------
# Conjugate gradients and the trust region

D = 6


@pytest.fixture
def matrix() -> Tensor:
    """Symmetric and positive definite, eigenvalues from 0.1 to 10."""
    torch.manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64))
    return basis @ torch.logspace(-1, 1, D, dtype=torch.float64).diag() @ basis.T


@pytest.fixture
def target() -> Tensor:
    return torch.randn(D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def counted(matrix: Tensor) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """v ↦ A v, and every v that it was asked about."""
    asked: list[Tensor] = []

    def product(v: Tensor) -> Tensor:
        asked.append(v)
        return matrix @ v

    return product, asked


def test_conjugate_gradients_are_exact_after_as_many_products_as_dimensions(
    matrix: Tensor, target: Tensor
):
    product, asked = counted(matrix)
    x, image = conjugate_gradient(product, target, 100)
    assert len(asked) <= D
    torch.testing.assert_close(x, torch.linalg.solve(matrix, target), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(image, matrix @ x)
    for i, v in enumerate(asked):
        for u in asked[:i]:
            assert float(u @ matrix @ v) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_after_fewer_they_are_the_best_that_these_products_can_tell(
    iterations: int, matrix: Tensor, target: Tensor
):
    """The minimizer of ½ xᵀA x − bᵀx among combinations of b, A b, A² b, …"""
    x, image = conjugate_gradient(lambda v: matrix @ v, target, iterations)
    span = torch.linalg.qr(
        torch.stack([torch.linalg.matrix_power(matrix, k) @ target for k in range(iterations)], 1)
    )[0]
    best = span @ torch.linalg.solve(span.T @ matrix @ span, span.T @ target)
    torch.testing.assert_close(x, best)
    torch.testing.assert_close(image, matrix @ x)


def test_conjugate_gradients_end_when_they_are_there(matrix: Tensor):
    """Along an eigenvector at once, for nothing without a product."""
    values, vectors = torch.linalg.eigh(matrix)
    product, asked = counted(matrix)
    x, _ = conjugate_gradient(product, vectors[:, 2], 10)
    torch.testing.assert_close(x, vectors[:, 2] / values[2])
    assert len(asked) == 1
    x, image = conjugate_gradient(product, torch.zeros(D).double(), 10)
    assert x.eq(0).all()
    assert image.eq(0).all()
    assert len(asked) == 1


class Quadratic:
    """Loss gᵀd + ½ c dᵀd and divergence ½ w dᵀF d at start + d; every place that it was asked
    about.
    """

    def __init__(
        self, matrix: Tensor, gradient: Tensor, bend: float = 0.0, weight: float = 1.0
    ) -> None:
        self.matrix, self.gradient, self.bend, self.weight = matrix, gradient, bend, weight
        self.start = torch.linspace(-1, 1, D, dtype=torch.float64)
        self.asked: list[Tensor] = []

    def evaluate(self, there: Tensor) -> tuple[float, float]:
        self.asked.append(there)
        d = there - self.start
        return float(self.gradient @ d + 0.5 * self.bend * d @ d), float(
            0.5 * self.weight * d @ self.matrix @ d
        )

    def step(
        self, evaluate: Callable[[Tensor], tuple[float, float]] | None = None, **options: float
    ):
        return trust_region_step(
            self.start,
            0.0,
            self.gradient,
            lambda v: self.matrix @ v,
            evaluate or self.evaluate,
            max_kl=0.02,
            **options,
        )

    @property
    def longest(self) -> Tensor:
        """−√(2 δ / gᵀF⁻¹g) F⁻¹g."""
        natural = torch.linalg.solve(self.matrix, self.gradient)
        return -(2 * 0.02 / (self.gradient @ natural)).sqrt() * natural


def test_the_step_has_its_closed_form(matrix: Tensor, target: Tensor):
    """Where the loss is linear and the divergence quadratic it is the best within the trust region,
    at its edge.
    """
    problem = Quadratic(matrix, target)
    there, metrics = problem.step(damping=1e-9)
    torch.testing.assert_close(there, problem.start + problem.longest, rtol=1e-6, atol=1e-8)
    assert metrics["kl"] == pytest.approx(0.02)
    assert metrics["kl"] <= 0.02
    assert metrics["improvement"] == pytest.approx(
        math.sqrt(2 * 0.02 * float(target @ torch.linalg.solve(matrix, target)))
    )
    assert (metrics["accepted"], metrics["line_search_steps"]) == (1, 0)


def test_damping_is_added_to_the_diagonal(matrix: Tensor, target: Tensor):
    damped = matrix + 0.5 * torch.eye(D)
    there, metrics = Quadratic(matrix, target).step(damping=0.5)
    problem = Quadratic(damped, target)
    torch.testing.assert_close(there, problem.start + problem.longest, rtol=1e-6, atol=1e-8)
    assert metrics["kl"] < 0.02


def test_a_step_that_goes_too_far_is_shrunk_until_the_loss_falls(matrix: Tensor, target: Tensor):
    """Along d the loss falls as long as the share of d is below −2 gᵀd / (c dᵀd)."""
    d = Quadratic(matrix, target).longest
    for tries in range(1, 6):
        bend = float(-2 * target @ d / (d @ d)) / 0.8 ** (tries - 0.5)
        problem = Quadratic(matrix, target, bend)
        there, metrics = problem.step(damping=1e-9)
        assert (metrics["accepted"], metrics["line_search_steps"]) == (1, tries)
        torch.testing.assert_close(there, problem.start + 0.8**tries * d, rtol=1e-6, atol=1e-8)
        assert metrics["improvement"] == pytest.approx(-problem.evaluate(there)[0])
        assert metrics["improvement"] > 0


def test_a_step_that_diverges_too_far_is_shrunk_until_it_does_not(matrix: Tensor, target: Tensor):
    """Where the divergence is w times what the matrix told, to a share of at most 1 / √w."""
    for tries in range(1, 6):
        problem = Quadratic(matrix, target, weight=0.64 ** -(tries - 0.5))
        there, metrics = problem.step(damping=1e-9)
        assert (metrics["accepted"], metrics["line_search_steps"]) == (1, tries)
        torch.testing.assert_close(
            there, problem.start + 0.8**tries * problem.longest, rtol=1e-6, atol=1e-8
        )
        assert metrics["kl"] <= 0.02


@pytest.mark.parametrize(("bend", "weight"), [(1e6, 1.0), (0.0, 1e6)], ids=["loss", "divergence"])
def test_where_no_try_is_good_nothing_moves(
    bend: float, weight: float, matrix: Tensor, target: Tensor
):
    problem = Quadratic(matrix, target, bend, weight)
    before = problem.start.clone()
    there, metrics = problem.step(tries=4)
    assert torch.equal(there, before)
    assert metrics == {"accepted": 0, "improvement": 0, "kl": 0, "line_search_steps": 4}
    assert len(problem.asked) == 4
    assert torch.equal(problem.start, before)


def test_without_a_gradient_there_is_no_step(matrix: Tensor):
    problem = Quadratic(matrix, torch.zeros(D).double())
    there, metrics = problem.step()
    assert torch.equal(there, problem.start)
    assert metrics["accepted"] == 0


@pytest.mark.parametrize(
    "told",
    [(math.nan, 0.0), (math.inf, 0.0), (-math.inf, 0.0), (-1e3, math.nan), (-1e3, math.inf)],
    ids=str,
)
def test_what_is_not_finite_is_never_accepted(
    told: tuple[float, float], matrix: Tensor, target: Tensor
):
    """Three tries that overflow, then one that does not."""
    problem = Quadratic(matrix, target)

    def overflowing(there: Tensor) -> tuple[float, float]:
        found = problem.evaluate(there)
        return told if len(problem.asked) <= 3 else found

    there, metrics = problem.step(overflowing)
    assert metrics["line_search_steps"] == 3
    torch.testing.assert_close(
        there, problem.start + 0.8**3 * problem.longest, rtol=1e-4, atol=1e-6
    )
    there, metrics = problem.step(lambda x: told)
    assert torch.equal(there, problem.start)
    assert metrics["accepted"] == 0
