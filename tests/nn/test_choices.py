"""Several choices at once, and choices that are ruled out, beside torch's distributions."""

from __future__ import annotations

import torch
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import kl_divergence

from metarl.core.rng import Rng
from metarl.core.types import Inputs, Spec
from metarl.nn.distributions import Categorical, MultiCategorical, choice_heads, from_heads
from metarl.nn.policy import Policy

NVEC = (3, 2, 4)
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def logits(seed: int, *size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, sum(NVEC), generator=generator, dtype=torch.float64)


def factored(x: torch.Tensor) -> MultiCategorical:
    made = from_heads(choice_heads(x, NVEC, None))
    assert isinstance(made, MultiCategorical)
    return made


def torchs(x: torch.Tensor) -> list[TorchCategorical]:
    return [TorchCategorical(logits=part) for part in x.split(list(NVEC), -1)]


def test_probability_entropy_and_divergence_are_sums_of_torchs():
    here, there = logits(0, 5, 4), logits(1, 5, 4)
    action = torch.stack([one.sample() for one in torchs(here)], -1)
    each = list(zip(torchs(here), torchs(there), strict=True))
    log_prob = sum(one.log_prob(a) for one, a in zip(torchs(here), action.unbind(-1), strict=True))
    torch.testing.assert_close(factored(here).log_prob(action), log_prob, **EXACT)
    entropy = sum(one.entropy() for one, _ in each)
    torch.testing.assert_close(factored(here).entropy(), entropy, **EXACT)
    divergence = sum(kl_divergence(one, other) for one, other in each)
    torch.testing.assert_close(factored(here).kl(factored(there)), divergence, **EXACT)


def test_samples_are_independent_with_the_right_frequencies():
    x = logits(2, 1, 1).expand(20_000, 1, -1)
    action = factored(x).sample(Rng(0).streams(torch.arange(20_000)), 0)
    assert action.shape == (20_000, 1, len(NVEC))
    joint = torch.zeros(NVEC, dtype=torch.float64)
    joint.index_put_(tuple(action[:, 0].T), torch.ones(20_000).double(), accumulate=True)
    p, q, r = (one.probs[0, 0] for one in torchs(x[:1]))
    expected = torch.einsum("i,j,k->ijk", p, q, r)
    torch.testing.assert_close(joint / 20_000, expected, rtol=0, atol=0.01)


def test_the_mode_is_that_of_each_choice():
    x = logits(3, 6)
    best = [part.argmax(-1) for part in x.split(list(NVEC), -1)]
    assert torch.equal(factored(x).mode(), torch.stack(best, -1))


def test_what_is_ruled_out_never_happens_and_costs_nothing():
    """Entropy and divergence are those of the distribution on what is valid, gradients finite."""
    x = logits(4, 200, 1).requires_grad_()
    valid = torch.tensor([True, False, True, True, True, True, False, False, True])
    made = from_heads(choice_heads(x, NVEC, valid.expand_as(x)))
    assert isinstance(made, MultiCategorical)
    parts = x.split(list(NVEC), -1)
    each = zip(parts, valid.split(NVEC), strict=True)
    kept = [TorchCategorical(logits=part[..., v]) for part, v in each]
    torch.testing.assert_close(made.entropy(), sum(one.entropy() for one in kept), **EXACT)
    action = made.sample(Rng(0).streams(torch.arange(200)), 0)
    assert valid[action + torch.tensor([0, 3, 5])].all()
    loss = made.kl(factored(logits(5, 200, 1))).sum() + made.log_prob(action).sum()
    (gradient,) = torch.autograd.grad(loss, x)
    assert gradient.isfinite().all()
    assert not gradient[..., ~valid].any()


def test_a_policy_reads_the_mask_in_its_observation():
    spec = Spec("f", {"x": 2, "mask": 3}, 3, True, 5, 1, action_mask="mask")
    policy = Policy.for_spec(spec, hidden_sizes=(8,))
    params = policy.init(Rng(0).generator())
    obs = torch.cat([torch.randn(50, 4, 2), torch.tensor([0.0, 1.0, 0.0]).expand(50, 4, 3)], -1)
    decision, _ = policy.step(params, Inputs(obs), ())
    assert isinstance(decision.actions, Categorical)
    assert (decision.actions.sample(Rng(1).streams(torch.arange(50), 4), 0) == 1).all()
