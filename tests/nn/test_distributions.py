"""Divergences between action distributions, what heads mean, and all that a normal becomes under
tanh.

The rest of distributions is in tests/test_policy.py.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import same
from looped import as_torch
from scipy import stats
from torch import Tensor
from torch.distributions import Normal, TanhTransform, TransformedDistribution, kl_divergence

from metarl.core.rng import Rng
from metarl.core.types import Params
from metarl.nn.distributions import (
    Categorical,
    Gaussian,
    Pair,
    SquashedGaussian,
    from_heads,
    from_squashed_head,
)

T, N, M, A = 4, 3, 2, 3
EXACT = {"rtol": 1e-10, "atol": 1e-12}
DISCRETE = pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])


def random_heads(discrete: bool, seed: int) -> Params:
    """With a deviation a task."""
    generator = torch.Generator().manual_seed(seed)
    heads = {"action": torch.randn(T, N, M, A, generator=generator, dtype=torch.float64)}
    return (
        heads
        if discrete
        else heads | {"log_std": torch.randn(N, A, generator=generator, dtype=torch.float64)}
    )


def alone(heads: Params, i: int) -> Params:
    """Task i's: [T, 1, M, A] and [A]."""
    return {
        name: value[:, i : i + 1] if name == "action" else value[i] for name, value in heads.items()
    }


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
    torch.testing.assert_close(
        from_heads(heads).kl(from_heads(heads)), torch.zeros(T, N, M).double(), **EXACT
    )
    shifted = heads | {"action": heads["action"] + 5}
    if discrete:  # logits are known up to a constant
        torch.testing.assert_close(
            from_heads(heads).kl(from_heads(shifted)), torch.zeros(T, N, M).double(), **EXACT
        )


def test_by_hand():
    """½ log (½ / ⅕) + ½ log (½ / ⅘); (μ − μ′)² / 2σ² between equal deviations; log σ′ / σ + σ² /
    2σ′² − ½ of equal means.
    """
    fair, bent = Categorical(torch.zeros(2)), Categorical(torch.tensor([0.2, 0.8]).log())
    assert float(fair.kl(bent)) == pytest.approx(math.log(5 / 4))
    normal = Gaussian(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0]).log())
    assert float(normal.kl(Gaussian(torch.tensor([4.0, 0.0]), normal.log_std))) == pytest.approx(
        9 / 8
    )
    wide = Gaussian(normal.mean, torch.tensor([2.0, 3.0]).log())
    assert float(normal.kl(wide)) == pytest.approx(math.log(3) + 1 / 18 - 1 / 2)


@DISCRETE
@pytest.mark.parametrize("now_first", [True, False])
def test_the_hessian_of_the_divergence_is_the_fisher_information(now_first: bool, discrete: bool):
    """E ∇ log π ∇ log πᵀ, whichever way round: over all choices; for a Gaussian diag(1 / σ², 2) in
    (μ, log σ).
    """
    old = {
        name: value[0, 0, 0] if name == "action" else value[0]
        for name, value in random_heads(discrete, 0).items()
    }
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
    torch.testing.assert_close(
        actions.log_std.exp(), torch.tensor([1e-6, 1e-6, math.exp(-1)]), rtol=1e-5, atol=0
    )
    (slope,) = torch.autograd.grad(actions.entropy(), log_std)
    assert slope[[0, 2]].tolist() == [0, 1]


# -------------------------------------------------------------------------------------------------
# tanh of a normal


def random_squashed(seed: int) -> SquashedGaussian:
    generator = torch.Generator().manual_seed(seed)
    mean, log_std = torch.randn(2, N, M, A, generator=generator, dtype=torch.float64)
    return SquashedGaussian(mean, 0.5 * log_std - 0.5)


def normals(*axes: int) -> Tensor:
    """[*axes, N, M, A], always the same."""
    return torch.randn(
        *axes, N, M, A, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )


def log_slope(x: Tensor) -> Tensor:
    """log (1 − tanh² x) = log 4 − 2 |x| − 2 log (1 + exp −2 |x|): no term overflows."""
    return math.log(4) - 2 * x.abs() - 2 * torch.log1p((-2 * x.abs()).exp())


def test_a_squashed_density_is_torchs_and_that_of_its_draws():
    """Summed over the entries of an action."""
    actions, normal = random_squashed(0), normals()
    action, log_prob = actions.draw(normal)
    torch.testing.assert_close(
        action, (actions.mean + actions.log_std.exp() * normal).tanh(), **EXACT
    )
    theirs = TransformedDistribution(Normal(actions.mean, actions.log_std.exp()), TanhTransform())
    expected = theirs.log_prob(action).sum(-1)
    torch.testing.assert_close(log_prob, expected, **EXACT)
    torch.testing.assert_close(actions.log_prob(action), expected, **EXACT)


def test_a_squashed_density_integrates_to_one():
    """Over all pairs of entries from −1 to 1."""
    x, weight = (torch.tensor(part) for part in np.polynomial.legendre.leggauss(400))
    pairs = torch.cartesian_prod(x, x)
    for mean, std in (((0.0, 0.5), (1.0, 0.5)), ((-1.0, 0.0), (0.3, 0.1))):
        actions = SquashedGaussian(torch.tensor(mean).double(), torch.tensor(std).double().log())
        density = actions.log_prob(pairs).exp().view(400, 400)
        assert float(weight @ density @ weight) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_density_is_exact_where_tanh_rounds_to_one(dtype: torch.dtype):
    """The density, and its slope by the mean: −∂ log (1 − tanh² x) / ∂x = 2 tanh x."""
    before = torch.linspace(-60, 60, 81, dtype=dtype)
    normal = torch.linspace(-3, 3, 81, dtype=dtype).flip(0)
    mean, log_std = before - 2 * normal, torch.full_like(before, math.log(2))
    mean.requires_grad_()
    action, log_prob = SquashedGaussian(mean.unsqueeze(-1), log_std.unsqueeze(-1)).draw(
        normal.unsqueeze(-1)
    )
    assert action[0] == -1
    assert action[-1] == 1
    exact = before.double()
    expected = Normal(0.0, 1.0).log_prob(normal.double()) - math.log(2) - log_slope(exact)
    tolerance = (
        {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0, "atol": 1e-8}
    )
    torch.testing.assert_close(log_prob.double(), expected, **tolerance)
    (slope,) = torch.autograd.grad(log_prob.sum(), mean)
    torch.testing.assert_close(slope.double(), 2 * exact.tanh(), **tolerance)


def test_the_ends_count_as_the_nearest_numbers_within():
    actions = SquashedGaussian(torch.tensor([0.5]), torch.tensor([0.2]))
    for end in (-1.0, 1.0):
        at_end = actions.log_prob(torch.tensor([end]))
        within = torch.nextafter(torch.tensor([end]), torch.zeros(1))
        assert at_end.isfinite()
        assert torch.equal(at_end, actions.log_prob(within))
        assert not torch.equal(at_end, actions.log_prob(torch.nextafter(within, torch.zeros(1))))


def test_the_mode_of_a_squashed_normal_is_its_median():
    actions = random_squashed(0)
    torch.testing.assert_close(
        actions.mode(), actions.draw(torch.zeros(N, M, A).double())[0], **EXACT
    )
    below = actions.draw(normals(10_000))[0] < actions.mode()
    assert ((below.double().mean(0) - 0.5).abs() < 4 * 0.5 / 100).all()


def test_squashed_actions_are_within_bounds_and_functions_of_their_place():
    noise = Rng(0).streams(torch.arange(20_000))
    wide = SquashedGaussian(
        torch.tensor([0.0, 3.0]).expand(20_000, 1, 2), torch.full((20_000, 1, 2), 2.0)
    )
    action = wide.sample(noise, 3)
    assert action.shape == (20_000, 1, 2)
    assert action.abs().max() <= 1
    assert same(action, wide.sample(Rng(0).streams(torch.arange(20_000)), 3))
    assert not same(action, wide.sample(noise, 4))
    narrow = SquashedGaussian(wide.mean / 3, wide.log_std - 3)
    before = narrow.sample(noise, 3).double().atanh().squeeze(1)
    for i in range(2):
        assert stats.kstest(before[:, i].numpy(), "norm", (i, math.exp(-1))).pvalue > 1e-3
    assert abs(torch.corrcoef(before.T)[0, 1]) < 4 / math.sqrt(20_000)


def test_squashed_heads_are_means_then_deviations_within_limits():
    heads = torch.tensor([[-30.0, 0.3, 30.0, -30.0, 0.5, 30.0], [1.0, 2.0, 3.0, -20.0, 2.0, -1.0]])
    actions = from_squashed_head(heads)
    assert torch.equal(actions.mean, heads[:, :3])
    assert actions.log_std.tolist() == [[-20, 0.5, 2], [-20, 2, -1]]


# -------------------------------------------------------------------------------------------------
# An option, and an action given it


L = 4


def random_pair(discrete: bool, seed: int) -> Pair:
    """One for each option [L] that may be drawn, side by side: the action is given that one."""
    generator = torch.Generator().manual_seed(seed)
    option = torch.randn(L, generator=generator, dtype=torch.float64).expand(L, L)
    action, log_std = torch.randn(2, L, A, generator=generator, dtype=torch.float64)
    heads = {"option": option, "action": action} | ({} if discrete else {"log_std": log_std})
    pair = from_heads(heads)
    assert isinstance(pair, Pair)
    return pair


def test_what_a_pair_is_is_the_joint_distribution():
    """Of all options and actions, one by one: probability, and by the chain rule entropy and
    divergence, the right way.
    """
    here, there = random_pair(True, 0), random_pair(True, 1)
    option, joint = torch.arange(L), []
    for pair in (here, there):
        log_probs = torch.stack(
            [pair.log_prob((option, torch.full((L,), a))) for a in range(A)], -1
        )  # [L, A]
        torch.testing.assert_close(log_probs.exp().sum(), torch.tensor(1.0).double(), **EXACT)
        joint.append(torch.distributions.Categorical(logits=log_probs.flatten()))
    drawn = here.option.logits[0].softmax(-1)
    torch.testing.assert_close((drawn * here.entropy()).sum(), joint[0].entropy(), **EXACT)
    torch.testing.assert_close((drawn * here.kl(there)).sum(), kl_divergence(*joint), **EXACT)
    assert not torch.allclose(kl_divergence(*joint), kl_divergence(*reversed(joint)), rtol=0.01)


def test_a_pair_with_a_continuous_action():
    """Where the joint distribution has a density: the option's part, and the mean of the normals'
    over options.
    """
    here, there = random_pair(False, 0), random_pair(False, 1)
    option, action = (
        torch.arange(L),
        torch.randn(L, A, generator=torch.Generator().manual_seed(2)).double(),
    )
    choice, other = (
        torch.distributions.Categorical(logits=pair.option.logits[0]) for pair in (here, there)
    )
    normals, others = (
        as_torch({"action": p.action.mean, "log_std": p.action.log_std}) for p in (here, there)
    )
    torch.testing.assert_close(
        here.log_prob((option, action)), choice.log_prob(option) + normals.log_prob(action), **EXACT
    )
    entropy = choice.entropy() + choice.probs @ normals.entropy()
    torch.testing.assert_close(choice.probs @ here.entropy(), entropy, **EXACT)
    divergence = kl_divergence(choice, other) + choice.probs @ kl_divergence(normals, others)
    torch.testing.assert_close(choice.probs @ here.kl(there), divergence, **EXACT)


def test_an_option_that_cannot_be_drawn_counts_nothing():
    """Its log-probability is finite, so that neither entropy, nor divergence, nor their gradients
    are lost.
    """
    never = torch.tensor([0.0, -1e9, -1e9]).requires_grad_()
    for certain in (
        from_heads({"option": never}),
        from_heads({"option": never, "action": torch.zeros(A)}),
    ):
        alone = isinstance(certain, Categorical)
        entropy, divergence = certain.entropy(), certain.kl(certain)
        assert entropy.item() == pytest.approx(0 if alone else math.log(A))
        assert divergence.item() == 0
        (slope,) = torch.autograd.grad(entropy + divergence, never)
        assert slope.eq(0).all()
