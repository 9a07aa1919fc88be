"""Layers against torch's own, one matrix a task against the loop over tasks, and what they start
from.
"""

from __future__ import annotations

import pytest
import torch
from helpers import same
from torch import Tensor

from metarl.core.rng import Rng
from metarl.core.types import Params
from metarl.nn.mlp import MLP, affine, named, orthogonal, part

T, N, B, I, W = 4, 3, 2, 5, 3  # noqa: E741  (widths: I of what comes in, W of what comes out)
EXACT = {"rtol": 1e-10, "atol": 1e-12}
ACTIVATIONS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}
ACTIVATION = pytest.mark.parametrize("activation", ACTIVATIONS)
HIDDEN = pytest.mark.parametrize("hidden", [(), (7,), (7, 4)], ids=str)


def random_params(network: MLP, *copies: int) -> Params:
    """Not close to any special point."""
    torch.manual_seed(0)
    start = network.init(Rng(0).generator())
    return {
        name: value + 0.3 * torch.randn(*copies, *value.shape).double()
        for name, value in start.items()
    }


def as_torch(network: MLP, params: Params) -> torch.nn.Sequential:
    """Built from the names alone."""
    modules: list[torch.nn.Module] = []
    for name in (*(f"hidden.{i}" for i in range(len(network.hidden_sizes))), "head"):
        weight = params[f"{name}.weight"]
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0]).double()
        linear.load_state_dict(part(params, name))
        modules += [linear, ACTIVATIONS[network.activation]()]
    return torch.nn.Sequential(*modules[:-1])


@HIDDEN
@ACTIVATION
def test_it_is_torchs(activation: str, hidden: tuple[int, ...]):
    """Whatever the leading axes; what goes in stays as it was, though activations work in place."""
    network = MLP(I, hidden, W, activation)
    params = random_params(network)
    x = torch.randn(T, N, B, I, dtype=torch.float64)
    before = x.clone()
    for inputs in (x, x[0], x[0, 0], x[0, 0, 0]):
        torch.testing.assert_close(
            network(params, inputs), as_torch(network, params)(inputs), **EXACT
        )
    assert same(x, before)


@HIDDEN
@ACTIVATION
def test_one_copy_a_task_equals_the_loop_over_tasks(activation: str, hidden: tuple[int, ...]):
    network = MLP(I, hidden, W, activation)
    params = random_params(network, N)
    x = torch.randn(T, N, B, I, dtype=torch.float64)
    alone = [network({name: value[i] for name, value in params.items()}, x[:, i]) for i in range(N)]
    torch.testing.assert_close(network(params, x), torch.stack(alone, dim=1), **EXACT)
    torch.testing.assert_close(network(params, x[0]), torch.stack(alone, dim=1)[0], **EXACT)


def test_a_matrix_for_each_task():
    x, weight, bias = torch.randn(T, N, B, I), torch.randn(N, W, I), torch.randn(N, W)
    expected = torch.einsum("tnbi,nwi->tnbw", x, weight) + bias[:, None]
    torch.testing.assert_close(affine(x, weight, bias), expected)
    torch.testing.assert_close(affine(x[0], weight, bias), expected[0])
    torch.testing.assert_close(affine(x, weight[0], bias[0])[:, 0], expected[:, 0])


@pytest.mark.parametrize("copies", [(), (2,)], ids=["shared", "per task"])
@ACTIVATION
def test_gradients_are_those_of_finite_differences(activation: str, copies: tuple[int, ...]):
    """By parameters and by what goes in; in-place activations must leave what the backward pass
    needs.
    """
    network = MLP(3, (4, 3), 2, activation)
    params = random_params(network, *copies)
    leaves = [
        x.requires_grad_() for x in (torch.randn(2, 2, 2, 3, dtype=torch.float64), *params.values())
    ]

    def outputs(x: Tensor, *values: Tensor) -> Tensor:
        return network(dict(zip(params, values, strict=True)), x)

    assert torch.autograd.gradcheck(outputs, leaves)


def test_parameters_have_names_and_shapes():
    params = MLP(I, (7, 4), W).init(Rng(0).generator())
    assert {name: tuple(value.shape) for name, value in params.items()} == {
        "hidden.0.weight": (7, I),
        "hidden.0.bias": (7,),
        "hidden.1.weight": (4, 7),
        "hidden.1.bias": (4,),
        "head.weight": (W, 4),
        "head.bias": (W,),
    }


def test_hidden_layers_start_orthogonal_and_the_head_small():
    """√2 and 0.01 times matrices whose rows, or columns where they are fewer, are orthonormal; all
    from the generator.
    """
    network = MLP(I, (7, 4), W)
    params = network.init(Rng(0).generator())
    for name, scale in (("hidden.0", 2.0), ("hidden.1", 2.0), ("head", 1e-4)):
        weight = params[f"{name}.weight"]
        products = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
        torch.testing.assert_close(products / scale, torch.eye(len(products)), rtol=1e-5, atol=1e-5)
        assert params[f"{name}.bias"].eq(0).all()
    assert same(network.init(Rng(0).generator()), params)
    assert not same(network.init(Rng(1).generator()), params)


def test_blocks_are_orthogonal_each():
    """And not copies of one another."""
    first, second, third = orthogonal(3, 4, 6, Rng(0).generator()).split(4)
    for block in (first, second, third):
        torch.testing.assert_close(block @ block.T, torch.eye(4))
    assert not torch.allclose(first, second)


def test_a_part_has_its_name_in_front():
    """Each network gets its own back; names that begin alike, stand further back or stand there
    twice are not mixed up.
    """
    one, other, inner = (MLP(I, (4,), W).init(Rng(seed).generator()) for seed in range(3))
    assert set(named(one, "q")) == {
        f"q.{layer}.{kind}" for layer in ("hidden.0", "head") for kind in ("weight", "bias")
    }
    twice = named(inner, "q")
    together = named(one, "q") | named(other, "q1") | named(twice, "p")
    for name, expected in (("q", one), ("q1", other), ("p", twice)):
        assert list(part(together, name)) == list(expected)
        assert same(part(together, name), expected)
    assert list(part(named(twice, "q"), "q")) == list(twice)
    assert part(together, "hidden") == {}
