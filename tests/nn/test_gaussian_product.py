"""The posterior over a latent variable: products of normal densities, from their definition."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import CPU
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from metarl.nn.gaussian_product import Factors, Posterior

N, F, Z = 3, 5, 2  # tasks, factors of each, entries of z
EXACT = {"rtol": 1e-10, "atol": 1e-12}
DRAWS = 100_000


@pytest.fixture
def factors() -> Tensor:
    """[N, F, 2, Z]: means, and variances from 0.2 to 2.2."""
    torch.manual_seed(0)
    mean, variance = torch.randn(2, N, F, Z, dtype=torch.float64)
    return torch.stack([2 * mean, 0.2 + 2 * variance.sigmoid()], dim=-2)


def nothing(*axes: int) -> Posterior:
    return Posterior.prior(*axes, device=CPU)


def normal(factors: Tensor) -> Factors:
    """Those of means and variances [..., F, 2, Z]."""
    return Factors.normal(*factors.unbind(-2))


def check_equal(found: Posterior, expected: Posterior) -> None:
    torch.testing.assert_close(
        (found.mean, found.variance), (expected.mean, expected.variance), **EXACT
    )


def test_factors_are_fused_as_if_two_at_a_time(factors: Tensor):
    """Two estimates of one number, each weighed by how sure the other is not."""
    mean, variance = factors[:, 0].unbind(1)
    for k in range(1, F):
        more, spread = factors[:, k].unbind(1)
        mean = (mean * spread + more * variance) / (variance + spread)
        variance = variance * spread / (variance + spread)
    found = nothing(N, Z).update(normal(factors))
    torch.testing.assert_close((found.mean, found.variance), (mean, variance), **EXACT)


def test_the_density_is_the_normalized_product_of_the_densities(factors: Tensor):
    """On a grid."""
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64).view(-1, 1, 1)
    mean, variance = factors.unbind(-2)
    product = sum(Normal(mean[:, k], variance[:, k].sqrt()).log_prob(grid) for k in range(F)).exp()
    expected = product / torch.trapezoid(product, dx=16 / 4000, dim=0)
    found = nothing(N, Z).update(normal(factors))
    torch.testing.assert_close(
        Normal(found.mean, found.variance.sqrt()).log_prob(grid).exp(), expected, **EXACT
    )


def test_neither_order_nor_portions_matter(factors: Tensor):
    whole = nothing(N, Z).update(normal(factors))
    check_equal(nothing(N, Z).update(normal(factors[:, torch.randperm(F)])), whole)
    check_equal(nothing(N, Z).update(normal(factors[:, :2])).update(normal(factors[:, 2:])), whole)
    check_equal(
        nothing(N, Z)
        .update(normal(factors[:, 2:]))
        .update(normal(factors[:, :0]))
        .update(normal(factors[:, :2])),
        whole,
    )


def test_only_valid_factors_count(factors: Tensor):
    """Every task has its own; what stands in the other places does not matter."""
    valid = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]) > 0
    factors[~valid] *= 30
    found = nothing(N, Z).update(normal(factors), valid)
    for i in range(N):
        alone = nothing(Z).update(normal(factors[i, valid[i]]))
        check_equal(Posterior(found.precision[i], found.shift[i]), alone)


def test_the_prior_stands_where_nothing_was_seen_and_is_no_factor_elsewhere():
    """The only factor is the posterior, however wide; many normal ones are narrower than one by
    their number, not one more.
    """
    assert nothing(N, Z).mean.tolist() == [[0] * Z] * N
    assert nothing(N, Z).variance.tolist() == [[1] * Z] * N
    assert nothing(N, Z).kl().tolist() == [0] * N
    one = torch.tensor([[[5.0, -3.0], [4.0, 100.0]]])
    seen = nothing(Z).update(normal(one))
    torch.testing.assert_close((seen.mean, seen.variance), (one[0, 0], one[0, 1]))
    many = nothing(Z).update(normal(torch.tensor([[1.0] * Z] * 2).expand(F, 2, Z)))
    torch.testing.assert_close((many.mean, many.variance), (torch.ones(Z), torch.full((Z,), 1 / F)))


def test_draws_have_its_mean_and_variance(factors: Tensor):
    """Within four standard errors, σ / √n and σ² √(2 / n)."""
    posterior = nothing(N, Z).update(normal(factors))
    z = posterior.draw(torch.randn(DRAWS, N, Z, dtype=torch.float64))
    assert ((z.mean(0) - posterior.mean).abs() < 4 * (posterior.variance / DRAWS).sqrt()).all()
    assert (
        (z.var(0) - posterior.variance).abs() < 4 * posterior.variance * math.sqrt(2 / DRAWS)
    ).all()


def test_draws_are_differentiated_by_what_they_are_made_of(factors: Tensor):
    """∂z/∂μ = 1 and ∂z/∂σ = ε for the only factor; for many, and for their divergence, as finite
    differences say.
    """
    noise = torch.randn(N, Z, dtype=torch.float64)
    mean, std = (x.requires_grad_() for x in (factors[:, 0, 0].clone(), factors[:, 0, 1].sqrt()))
    z = (
        nothing(N, Z)
        .update(Factors.normal(mean.unsqueeze(1), std.square().unsqueeze(1)))
        .draw(noise)
    )
    torch.testing.assert_close(
        torch.autograd.grad(z.sum(), (mean, std)), (torch.ones_like(mean), noise), **EXACT
    )

    def draw_and_kl(factors: Tensor) -> tuple[Tensor, Tensor]:
        posterior = nothing(N, Z).update(normal(factors))
        return posterior.draw(noise), posterior.kl()

    assert torch.autograd.gradcheck(draw_and_kl, factors.requires_grad_())


def test_the_divergence_from_the_prior_is_torchs_and_that_of_draws(factors: Tensor):
    """Summed over the entries of z, and not the divergence the other way."""
    posterior = nothing(N, Z).update(normal(factors))
    q, prior = (
        Normal(posterior.mean, posterior.variance.sqrt()),
        Normal(torch.zeros(Z).double(), 1.0),
    )
    torch.testing.assert_close(posterior.kl(), kl_divergence(q, prior).sum(-1), **EXACT)
    z = posterior.draw(torch.randn(DRAWS, N, Z, dtype=torch.float64))
    estimate = (q.log_prob(z) - prior.log_prob(z)).sum(-1)
    assert (
        (estimate.mean(0) - posterior.kl()).abs() < 4 * estimate.std(0) / math.sqrt(DRAWS)
    ).all()


def test_gradients_are_finite_where_nothing_was_seen(factors: Tensor):
    """And zero at what does not count."""
    valid = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]) > 0
    start = (torch.zeros(N, Z, dtype=torch.float64, requires_grad=True) for _ in range(2))
    leaves = (factors.requires_grad_(), *start)
    posterior = Posterior(*leaves[1:]).update(normal(factors), valid)
    loss = posterior.draw(torch.randn(N, Z)).sum() + posterior.kl().sum()
    by_factor, *by_start = torch.autograd.grad(loss, leaves)
    assert all(x.isfinite().all() for x in (by_factor, *by_start))
    assert by_factor[~valid].eq(0).all()
    assert by_factor[valid].ne(0).all()


# -------------------------------------------------------------------------------------------------
# Natural parameters, and the prior as a factor


def test_a_density_is_held_by_its_natural_parameters(factors: Tensor):
    """A factor and a density of the same mean and variance; one that says nothing, too."""
    mean, variance = factors.unbind(-2)
    density = Posterior.normal(mean, variance)
    torch.testing.assert_close((density.mean, density.variance), (mean, variance), **EXACT)
    torch.testing.assert_close(density.std, variance.sqrt(), **EXACT)
    given = normal(factors)
    torch.testing.assert_close(
        (given.precision, given.shift), (1 / variance, mean / variance), **EXACT
    )
    none = torch.zeros(N, 2, Z, dtype=torch.float64)
    whole = nothing(N, Z).update(given)
    check_equal(whole.update(Factors(none, none)), whole)


@pytest.mark.parametrize("precision", [0.0, 1.0], ids=["no factor", "a factor"])
def test_the_prior_is_a_factor_where_it_has_a_precision(factors: Tensor, precision: float):
    """The same as one more factor N(0, 1) before the others; alone it is the posterior."""
    prior = Posterior.prior(N, Z, device=CPU, precision=precision)
    assert prior.mean.eq(0).all()
    assert prior.variance.eq(1).all()
    one_more = torch.zeros(N, 1, 2, Z, dtype=torch.float64)
    one_more[:, :, 1] = 1
    every = torch.cat([one_more, factors], dim=1) if precision else factors
    check_equal(prior.update(normal(factors)), nothing(N, Z).update(normal(every)))


def test_with_the_prior_the_product_is_bayes_rule():
    """y = A z + ε with ε ~ N(0, σ²) and z ~ N(0, I), an entry of z a measurement: the conjugate
    posterior, by the formula for any A (Bishop 2006, equations 2.116 and 2.117).
    """
    torch.manual_seed(1)
    entry = torch.randint(Z, (F,))
    slope, noise, measured = torch.randn(3, F, dtype=torch.float64)
    variance = 0.1 + noise.square()
    design = torch.zeros(F, Z, dtype=torch.float64)
    design[torch.arange(F), entry] = slope
    covariance = (torch.eye(Z).double() + design.T @ (design / variance.unsqueeze(1))).inverse()
    mean = covariance @ (design.T @ (measured / variance))
    factors = Factors(
        design.square() / variance.unsqueeze(1), design * (measured / variance).unsqueeze(1)
    )
    found = Posterior.prior(Z, device=CPU, precision=1.0).update(factors)
    torch.testing.assert_close((found.mean, found.variance), (mean, covariance.diag()), **EXACT)


def test_the_divergence_from_another_is_torchs(factors: Tensor):
    """In that direction; from itself it is nothing, from the prior what `kl` says."""
    q, p = (Posterior.normal(*factors[:, k].unbind(1)) for k in (0, 1))
    expected = kl_divergence(Normal(q.mean, q.std), Normal(p.mean, p.std)).sum(-1)
    torch.testing.assert_close(q.kl_to(p), expected, **EXACT)
    assert not torch.allclose(p.kl_to(q), expected)
    torch.testing.assert_close(q.kl_to(q), torch.zeros(N).double(), **EXACT)
    for precision in (0.0, 1.0):
        prior = Posterior.prior(N, Z, device=CPU, precision=precision)
        torch.testing.assert_close(q.kl_to(prior), q.kl(), **EXACT)
