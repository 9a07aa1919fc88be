"""Recurrent memories against torch's own, and gradients against finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import CPU
from other_device import OTHER, OtherDevice
from torch import Tensor

from metarl.core.types import Params
from metarl.nn import recurrent

KINDS = ["gru", "lstm"]
T, N, M, W, D = 7, 3, 2, 4, 5  # W: width of the inputs


def random_params(kind: str, *copies: int) -> Params:
    gates = recurrent.GATES[kind] * D
    shapes = {"w_ih": (gates, W), "w_hh": (gates, D), "b_ih": (gates,), "b_hh": (gates,)}
    return {
        name: torch.randn(*copies, *shape, dtype=torch.float64) for name, shape in shapes.items()
    }


def random_inputs(kind: str) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A sequence [T, N, M, W] and a memory that is not empty."""
    torch.manual_seed(0)
    state = recurrent.start(kind, D, N, M, CPU)
    return torch.randn(T, N, M, W, dtype=torch.float64), tuple(
        torch.randn_like(s, dtype=torch.float64) for s in state
    )


def by_steps(kind: str, params: Params, x: Tensor, state: tuple[Tensor, ...]) -> Tensor:
    outputs = []
    for x_t in x:
        state = recurrent.step(kind, params, x_t, state)
        outputs.append(state[0])
    return torch.stack(outputs)


@pytest.mark.parametrize("kind", KINDS)
def test_the_empty_memory_is_zero(kind: str):
    state = recurrent.start(kind, D, N, M, CPU)
    assert [part.shape for part in state] == [(N, M, D)] * (1 if kind == "gru" else 2)
    assert all(part.eq(0).all() for part in state)


@pytest.mark.parametrize("kind", KINDS)
def test_unroll_steps_and_torch_agree(kind: str):
    x, state = random_inputs(kind)
    params = random_params(kind)
    library = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[kind](W, D).double()
    names = {
        "w_ih": "weight_ih_l0",
        "w_hh": "weight_hh_l0",
        "b_ih": "bias_ih_l0",
        "b_hh": "bias_hh_l0",
    }
    library.load_state_dict({names[name]: value for name, value in params.items()})
    flat = tuple(part.view(1, N * M, D) for part in state)
    expected = library(x.view(T, N * M, W), flat[0] if kind == "gru" else flat)[0].view(T, N, M, D)

    torch.testing.assert_close(
        recurrent.unroll(kind, params, x, state), expected, rtol=1e-12, atol=1e-12
    )
    torch.testing.assert_close(by_steps(kind, params, x, state), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_unroll_are_those_of_steps(kind: str):
    x, state = random_inputs(kind)
    params = random_params(kind)
    leaves = [leaf.requires_grad_() for leaf in (x, *state, *params.values())]
    weight = torch.randn(T, N, M, D, dtype=torch.float64)
    by_unroll = torch.autograd.grad(
        (weight * recurrent.unroll(kind, params, x, state)).sum(), leaves
    )
    expected = torch.autograd.grad((weight * by_steps(kind, params, x, state)).sum(), leaves)
    torch.testing.assert_close(by_unroll, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("block_rows", "batch"),
    [(1024, 2), (6, 3), (2, 3)],
    ids=["one block", "uneven blocks", "batch wider than a block"],
)
def test_the_hand_written_backward_pass_equals_finite_differences(
    block_rows: int, batch: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recurrent, "_BLOCK_ROWS", block_rows)
    torch.manual_seed(1)
    x, h = torch.randn(5, batch, W, dtype=torch.float64), torch.randn(batch, D, dtype=torch.float64)
    leaves = [leaf.requires_grad_() for leaf in (x, h, *random_params("gru").values())]
    assert torch.autograd.gradcheck(recurrent._GRUSequence.apply, leaves)


def test_weights_learn_when_inputs_need_no_gradient():
    """Observations need none; leaving it out must not change the others."""
    x, state = random_inputs("gru")
    weights = [value.requires_grad_() for value in random_params("gru").values()]
    params = dict(zip(("w_ih", "w_hh", "b_ih", "b_hh"), weights, strict=True))
    without = torch.autograd.grad(recurrent.unroll("gru", params, x, state).square().sum(), weights)
    with_x = torch.autograd.grad(
        recurrent.unroll("gru", params, x.requires_grad_(), state).square().sum(), weights
    )
    torch.testing.assert_close(without, with_x, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_one_copy_a_task_equals_the_loop_over_tasks(kind: str):
    x, state = random_inputs(kind)
    params = random_params(kind, N)
    for batched in (recurrent.unroll(kind, params, x, state), by_steps(kind, params, x, state)):
        for i in range(N):
            own = {name: value[i] for name, value in params.items()}
            row = slice(i, i + 1)
            alone = recurrent.unroll(kind, own, x[:, row], tuple(part[row] for part in state))
            torch.testing.assert_close(batched[:, row], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_one_copy_a_task_has_second_derivatives(kind: str):
    """MAML differentiates through a gradient step."""
    x, state = random_inputs(kind)
    x, state = x[:2, :2, :1], tuple(part[:2, :1] for part in state)
    params = random_params(kind, 2)
    names, values = list(params), [value.requires_grad_() for value in params.values()]

    def unroll(*weights: Tensor) -> Tensor:
        return recurrent.unroll(kind, dict(zip(names, weights, strict=True)), x, state)

    assert torch.autograd.gradgradcheck(unroll, values)


# -------------------------------------------------------------------------------------------------
# On a GPU


@pytest.mark.parametrize("learns", [True, False], ids=["with gradients", "without"])
@pytest.mark.parametrize("kind", KINDS)
def test_cudnn_is_called_as_it_wants(kind: str, learns: bool, monkeypatch: pytest.MonkeyPatch):
    """For a backward pass it must be told to train; weights side by side it does not copy."""
    calls, kernel = [], getattr(torch, kind)

    def watched(*given: Any) -> Any:
        calls.append(given)
        return kernel(*given)

    monkeypatch.setattr(torch, kind, watched)
    x, state = random_inputs(kind)
    params = random_params(kind)
    expected = recurrent.unroll(kind, params, x, state)
    calls.clear()
    with OtherDevice(), torch.set_grad_enabled(learns):
        there = {name: value.to(OTHER).requires_grad_() for name, value in params.items()}
        strided = tuple(part.to(OTHER).mT.contiguous().mT for part in state)
        output = recurrent.unroll(kind, there, x.to(OTHER), strided)
        _, start, weights, *_, train, _, _ = calls.pop()
        starts = start if kind == "lstm" else (start,)
        assert train is learns
        assert all(part.is_contiguous() for part in starts)
        first = weights[0].here.data_ptr()
        for weight in weights:
            assert weight.is_contiguous()
            assert weight.here.data_ptr() == first
            first += weight.here.nbytes
        torch.testing.assert_close(output.detach().cpu(), expected)
        if learns:
            output.sum().backward()
            assert all(value.grad is not None for value in there.values())
