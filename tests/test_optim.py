"""Losses: their values by hand, and the points where their gradients are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metarl.distribution import Categorical
from metarl.optim import masked_mean, ppo_loss, standardised
from metarl.policy import Decision

WEIGHTS = {"clip": 0.2, "value_weight": 0.0, "entropy_weight": 0.0}


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Sixty decisions among three actions, on the policy that drew them."""
    torch.manual_seed(0)
    logits = torch.randn(60, 3, dtype=torch.float64)
    action = torch.distributions.Categorical(logits=logits).sample()
    batch = {"logits": logits, "value": torch.randn(60), "action": action, "advantage": torch.randn(60)}
    old_log_prob = Categorical(logits).log_prob(action)
    return batch | {"old_log_prob": old_log_prob, "value_target": torch.randn(60), "valid": torch.ones(60) > 0}


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
def test_the_gradient_vanishes_where_the_ratio_has_gone_far_enough(batch, sign: float, ratio: float):
    """A good action's ratio is pushed up to 1 + ε, a bad one's down to 1 − ε, and never further; the way back is free."""
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
    weights = {"value_weight": 0.5, "entropy_weight": 0.01}
    (loss, metrics), (padded_loss, padded_metrics) = loss_of(batch, **weights), loss_of(padded, **weights)
    torch.testing.assert_close(loss, padded_loss)
    torch.testing.assert_close(metrics, padded_metrics)
    gradient = grad_of(padded, **weights)
    torch.testing.assert_close(gradient[:60], grad_of(batch, **weights))
    assert gradient[60:].eq(0).all()


def test_the_loss_is_the_weighted_sum_of_its_parts(batch):
    loss, metrics = loss_of(batch, value_weight=0.7, entropy_weight=0.3)
    torch.testing.assert_close(metrics["value_loss"], 0.5 * (batch["value"] - batch["value_target"]).square().mean())
    entropy = torch.distributions.Categorical(logits=batch["logits"]).entropy().mean()
    torch.testing.assert_close(metrics["entropy"], entropy)
    torch.testing.assert_close(loss, metrics["policy_loss"] + 0.7 * metrics["value_loss"] - 0.3 * metrics["entropy"])
    assert not any(part.requires_grad for part in metrics.values())


def test_the_divergence_is_estimated_without_bias():
    """Averaged over every action by its old probability, the estimate is KL(old, new) exactly."""
    old, new = torch.randn(3).log_softmax(-1), torch.randn(3).log_softmax(-1)
    total = 0.0
    for a in range(3):
        decision = Decision({"action": new.unsqueeze(0)}, torch.zeros(1))
        _, metrics = ppo_loss(decision, torch.tensor([a]), old[a : a + 1], *torch.zeros(2, 1), torch.ones(1), **WEIGHTS)
        total += float(old[a].exp() * metrics["kl"])
    assert total == pytest.approx(float((old.exp() * (old - new)).sum()), rel=1e-4)


def test_masked_mean_is_the_mean_of_the_valid():
    x, valid = torch.randn(4, 5), torch.rand(4, 5) < 0.5
    torch.testing.assert_close(masked_mean(x, valid), x[valid].mean())


def test_standardised_over_the_valid_whatever_the_scale():
    x, valid = 3 + 7 * torch.randn(40, 5), torch.rand(40, 5) < 0.5
    z = standardised(x, valid)
    torch.testing.assert_close(z[valid].mean(), torch.tensor(0.0), rtol=0, atol=1e-5)
    torch.testing.assert_close(z[valid].std(unbiased=False), torch.tensor(1.0))
    torch.testing.assert_close(standardised(100 * x - 5, valid)[valid], z[valid], rtol=1e-4, atol=1e-4)
    assert standardised(torch.ones(3), torch.ones(3)).eq(0).all()
