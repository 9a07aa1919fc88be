"""Layers that are made: against a matrix for every lane built by hand, and what they start from."""

from __future__ import annotations

import pytest
import torch
from helpers import CPU, same
from torch import Tensor

from metarl.core.rng import Rng
from metarl.core.types import Inputs, Params, replace, tree_map
from metarl.nn.hypernetwork import generated, init_generated
from metarl.nn.mlp import linear, named
from metarl.nn.policy import Policy

T, N, M, O, A, P, F, W = 5, 3, 2, 4, 3, 2, 6, 7  # noqa: E741  (letters of metarl.core.types)
WIDTHS = pytest.mark.parametrize("shown", [0, P], ids=["hidden", "shown"])


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def make(shown: int = 0) -> tuple[Policy, Params]:
    """As it starts, but with heads that show what goes into them; it sees a task of this width."""
    policy = Policy(
        O + A + 2 + shown,
        A,
        True,
        "gru",
        F,
        hidden_sizes=(W, 5),
        initial_gain=1.0,
        obs_width=O,
        readout="hypernetwork",
    )
    params = policy.init(Rng(0).generator())
    return policy, params | {"value.weight": torch.randn(1, 5)}


def given(shown: int) -> Inputs:
    task = torch.randn(T, N, M, shown) if shown else None
    return Inputs(torch.randn(T, N, M, O), cue=torch.randn(T, N, M, A + 2), task=task)


def outputs(policy: Policy, params: Params, inputs: Inputs) -> tuple[Tensor, Tensor]:
    decision = policy.unroll(params, inputs, policy.start(N, M, CPU))
    return decision.heads["action"], decision.value


def test_every_lane_has_a_layer_of_its_own():
    params = {"made.weight": torch.randn((1 + O) * W, F), "made.bias": torch.randn((1 + O) * W)}
    features, x = torch.randn(T, N, M, F), torch.randn(T, N, M, O)
    params, features, x = tree_map(torch.Tensor.double, (params, features, x))
    together = generated(params, "made", features, x)
    for place in torch.cartesian_prod(torch.arange(T), torch.arange(N), torch.arange(M)).tolist():
        m, seen = features[*place], x[*place]
        expected = torch.zeros(W, dtype=torch.float64)
        for row in range(W):
            for column in range(1 + O):  # of (1, x)
                entry = column * W + row
                weight = params["made.weight"][entry] @ m + params["made.bias"][entry]
                expected[row] += weight * (seen[column - 1] if column else 1.0)
        torch.testing.assert_close(together[*place], expected, rtol=0, atol=1e-10)


@WIDTHS
def test_without_its_matrix_it_is_an_mlp_of_the_present_step(shown: int):
    """Whatever came before; weights and biases are those of the bias a."""
    policy, params = make(shown)
    params["generated.weight"] = torch.zeros_like(params["generated.weight"])
    params["generated.bias"] += 0.3 * torch.randn_like(params["generated.bias"])
    inputs = given(shown)
    logits, value = outputs(policy, params, inputs)

    bias, *columns = params["generated.bias"].view(1 + O + shown, W)
    seen = torch.cat([inputs.obs, inputs.task], -1) if shown else inputs.obs
    hidden = torch.tanh(seen @ torch.stack(columns) + bias)
    hidden = torch.tanh(linear(params, "body.0", hidden))
    torch.testing.assert_close(logits, linear(params, "action", hidden))
    torch.testing.assert_close(value, linear(params, "value", hidden).squeeze(-1))

    other = replace(inputs, cue=torch.randn_like(inputs.cue), obs=torch.randn_like(inputs.obs))
    other.obs[-1] = inputs.obs[-1]
    again, _ = outputs(policy, params, other)
    assert same(again[-1], logits[-1])
    assert not same(again[0], logits[0])


@WIDTHS
def test_the_first_layer_is_an_ordinary_one_that_features_hardly_change(shown: int):
    """|y(m) − y(m′)| ≤ 0.01 |m − m′| (1 + |x|₁), as the matrix is orthogonal block by block."""
    width = O + shown
    params = named(init_generated(F, width, W, Rng(0).generator()), "made")
    bias, *columns = params["made.bias"].view(1 + width, W)
    weight = torch.stack(columns)
    assert not bias.any()
    torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(width))

    one, other, x = torch.randn(99, F), torch.randn(99, F), torch.randn(99, width)
    moved = generated(params, "made", one, x) - generated(params, "made", other, x)
    bound = 0.01 * (one - other).norm(dim=-1) * (1 + x.abs().sum(-1))
    assert (moved.norm(dim=-1) <= bound).all()
    assert (moved.norm(dim=-1) > 0.05 * bound).all()


def test_the_first_gradient_reaches_the_memory():
    policy, params = make()
    params = {name: x.requires_grad_() for name, x in params.items()}
    logits, value = outputs(policy, params, given(0))
    (logits.square().sum() + value.sum()).backward()
    for name, x in params.items():
        assert x.grad is not None, name
        assert x.grad.abs().max() > 0, name
