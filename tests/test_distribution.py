"""Divergences between action distributions, and what heads mean (the rest of distributions is in tests/test_policy.py)."""

from __future__ import annotations

import math

import pytest
import torch
from looped import as_torch
from torch import Tensor
from torch.distributions import kl_divergence

from metarl.distribution import Categorical, Gaussian, from_heads
from metarl.types import Params

T, N, M, A = 4, 3, 2, 3
EXACT = {"rtol": 1e-10, "atol": 1e-12}
DISCRETE = pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])


def random_heads(discrete: bool, seed: int) -> Params:
    """With a deviation a task."""
    generator = torch.Generator().manual_seed(seed)
    heads = {"action": torch.randn(T, N, M, A, generator=generator, dtype=torch.float64)}
    return heads if discrete else heads | {"log_std": torch.randn(N, A, generator=generator, dtype=torch.float64)}


def alone(heads: Params, i: int) -> Params:
    """Task i's: [T, 1, M, A] and [A]."""
    return {name: value[:, i : i + 1] if name == "action" else value[i] for name, value in heads.items()}


@DISCRETE
def test_the_divergence_is_torchs(discrete: bool):
    """Task by task, summed over the entries of an action, and not the divergence the other way."""
    here, there = random_heads(discrete, 0), random_heads(discrete, 1)
    found = from_heads(here).kl(from_heads(there))
    assert found.shape == (T, N, M)
    for i in range(N):
        expected = kl_divergence(as_torch(alone(here, i)), as_torch(alone(there, i)))
        torch.testing.assert_close(found[:, i : i + 1], expected, **EXACT)
    assert (found > 0).all()
    assert not torch.allclose(found, from_heads(there).kl(from_heads(here)), rtol=0.01)


@DISCRETE
def test_nothing_diverges_from_itself(discrete: bool):
    heads = random_heads(discrete, 0)
    torch.testing.assert_close(from_heads(heads).kl(from_heads(heads)), torch.zeros(T, N, M).double(), **EXACT)
    shifted = heads | {"action": heads["action"] + 5}
    if discrete:  # logits are known up to a constant
        torch.testing.assert_close(from_heads(heads).kl(from_heads(shifted)), torch.zeros(T, N, M).double(), **EXACT)


def test_by_hand():
    """½ log (½ / ⅕) + ½ log (½ / ⅘); (μ − μ′)² / 2σ² between equal deviations; log σ′ / σ + σ² / 2σ′² − ½ of equal means."""
    fair, bent = Categorical(torch.zeros(2)), Categorical(torch.tensor([0.2, 0.8]).log())
    assert float(fair.kl(bent)) == pytest.approx(math.log(5 / 4))
    normal = Gaussian(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0]).log())
    assert float(normal.kl(Gaussian(torch.tensor([4.0, 0.0]), normal.log_std))) == pytest.approx(9 / 8)
    wide = Gaussian(normal.mean, torch.tensor([2.0, 3.0]).log())
    assert float(normal.kl(wide)) == pytest.approx(math.log(3) + 1 / 18 - 1 / 2)


@DISCRETE
@pytest.mark.parametrize("now_first", [True, False])
def test_the_hessian_of_the_divergence_is_the_fisher_information(now_first: bool, discrete: bool):
    """E ∇ log π ∇ log πᵀ, whichever way round: over all choices; for a Gaussian diag(1 / σ², 2) in (μ, log σ)."""
    old = {name: value[0, 0, 0] if name == "action" else value[0] for name, value in random_heads(discrete, 0).items()}
    flat = torch.cat(list(old.values()))

    def distribution(x: Tensor) -> Categorical | Gaussian:
        return from_heads(dict(zip(old, x.split(A), strict=True)))

    def divergence(x: Tensor) -> Tensor:
        pair = (distribution(x), distribution(flat))
        return pair[0].kl(pair[1]) if now_first else pair[1].kl(pair[0])

    found = torch.autograd.functional.hessian(divergence, flat)
    if discrete:
        scores = torch.autograd.functional.jacobian(lambda x: x.log_softmax(0), flat)
        expected = scores.T @ (flat.softmax(0).unsqueeze(1) * scores)
    else:
        expected = torch.cat([(-2 * old["log_std"]).exp(), torch.full((A,), 2.0).double()]).diag()
    torch.testing.assert_close(found, expected, **EXACT)
    slope = torch.autograd.functional.jacobian(divergence, flat)
    torch.testing.assert_close(slope, torch.zeros_like(flat), **EXACT)


@pytest.mark.parametrize("axes", [(A,), (N, A)], ids=["shared", "of each task"])
def test_a_deviation_is_shared_or_of_each_task(axes: tuple[int, ...]):
    mean, action = torch.randn(2, T, N, M, A)
    actions = from_heads({"action": mean, "log_std": torch.randn(axes)})
    assert isinstance(actions, Gaussian)
    for i in range(N):
        own = actions.log_std.expand(N, M, A)[i, 0]
        expected = torch.distributions.Normal(mean[:, i], own.exp()).log_prob(action[:, i]).sum(-1)
        torch.testing.assert_close(actions.log_prob(action)[:, i], expected)
    assert isinstance(from_heads({"action": mean}), Categorical)


def test_deviations_end_at_the_smallest():
    """Below 1e-6 they count as 1e-6 and have no derivative; above, they are what they are."""
    log_std = torch.tensor([-20.0, math.log(1e-6), -1.0], requires_grad=True)
    actions = from_heads({"action": torch.zeros(A), "log_std": log_std})
    torch.testing.assert_close(actions.log_std.exp(), torch.tensor([1e-6, 1e-6, math.exp(-1)]), rtol=1e-5, atol=0)
    (slope,) = torch.autograd.grad(actions.entropy(), log_std)
    assert slope[[0, 2]].tolist() == [0, 1]
