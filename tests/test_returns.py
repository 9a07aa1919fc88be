"""Advantages against their definition as a sum, and by hand."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from metarl.returns import discounted_returns, gae

SHARES = st.floats(0, 1)


def random_sequence(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Reward, value, next value [T, 2, 3] and cuts in about every third place."""
    generator = torch.Generator().manual_seed(seed)
    arrays = torch.randn(3, 9, 2, 3, generator=generator, dtype=torch.float64)
    return *arrays, torch.rand(9, 2, 3, generator=generator) < 0.3


def test_by_hand():
    """γ = ½, λ = ½, values 1, 2, 3, the last bootstrapped with 4."""
    reward, value = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, 2.0, 3.0])
    next_value, cut = torch.tensor([2.0, 3.0, 4.0]), torch.tensor([False, False, True])
    assert gae(reward, value, next_value, cut, 0.5, 0.5).tolist() == [1 + 0.125, 0.5, 0.0]
    assert gae(reward, value, next_value, torch.tensor([True] * 3), 0.5, 0.5).tolist() == [1.0, 0.5, 0.0]
    assert discounted_returns(reward, torch.tensor([False, True, False]), 0.5).tolist() == [1.5, 1.0, 1.0]


@given(st.integers(0, 1000), SHARES, SHARES)
def test_gae_is_the_sum_of_later_errors_up_to_the_cut(seed: int, discount: float, trace: float):
    """A_t = Σ_l (γ λ)^l δ_{t+l}, over the steps up to and including the one that is cut (equation 16)."""
    reward, value, next_value, cut = random_sequence(seed)
    delta = reward + discount * next_value - value
    expected = torch.zeros_like(delta)
    for t in range(len(delta)):
        alive = torch.ones_like(delta[0])
        for later in range(t, len(delta)):
            expected[t] += alive * (discount * trace) ** (later - t) * delta[later]
            alive = alive * ~cut[later]
    torch.testing.assert_close(gae(reward, value, next_value, cut, discount, trace), expected)


@given(st.integers(0, 1000), SHARES)
def test_with_full_trace_advantages_are_returns_minus_values(seed: int, discount: float):
    """λ = 1, with consistent next values: zero where cut, the next step's value elsewhere."""
    reward, value, _, cut = random_sequence(seed)
    cut[-1] = True
    next_value = torch.cat([value[1:], value[:1]]) * ~cut
    expected = discounted_returns(reward, cut, discount) - value
    torch.testing.assert_close(gae(reward, value, next_value, cut, discount, 1.0), expected)


@given(st.integers(0, 1000), SHARES)
def test_without_trace_advantages_are_one_step_errors(seed: int, discount: float):
    reward, value, next_value, cut = random_sequence(seed)
    expected = reward + discount * next_value - value
    torch.testing.assert_close(gae(reward, value, next_value, cut, discount, 0.0), expected)


@given(st.integers(0, 1000), st.integers(0, 8))
def test_nothing_flows_back_over_a_cut(seed: int, place: int):
    reward, value, next_value, cut = random_sequence(seed)
    cut[place] = True
    before = gae(reward, value, next_value, cut, 0.9, 0.9)
    after = gae(reward + 100 * (torch.arange(9) > place)[:, None, None], value, next_value, cut, 0.9, 0.9)
    assert torch.equal(before[: place + 1], after[: place + 1])
    assert not torch.equal(before, after) or place == 8


def test_a_constant_reward_has_the_geometric_return():
    reward = torch.ones(50, dtype=torch.float64)
    expected = (1 - 0.9 ** torch.arange(50, 0, -1, dtype=torch.float64)) / (1 - 0.9)
    torch.testing.assert_close(discounted_returns(reward, torch.zeros(50, dtype=torch.bool), 0.9), expected)
