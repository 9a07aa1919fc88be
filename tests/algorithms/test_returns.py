"""Advantages against their definition as a sum, and by hand; the baseline against least squares."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from metarl.algorithms.returns import discounted_returns, gae, linear_baseline

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
    assert gae(reward, value, next_value, torch.tensor([True] * 3), 0.5, 0.5).tolist() == [
        1.0,
        0.5,
        0.0,
    ]
    assert discounted_returns(reward, torch.tensor([False, True, False]), 0.5).tolist() == [
        1.5,
        1.0,
        1.0,
    ]


@given(st.integers(0, 1000), SHARES, SHARES)
def test_gae_is_the_sum_of_later_errors_up_to_the_cut(seed: int, gamma: float, gae_lambda: float):
    """A_t = Σ_l (γ λ)^l δ_{t+l}, over the steps up to and including the one that is cut (equation
    16).
    """
    reward, value, next_value, cut = random_sequence(seed)
    delta = reward + gamma * next_value - value
    expected = torch.zeros_like(delta)
    for t in range(len(delta)):
        alive = torch.ones_like(delta[0])
        for later in range(t, len(delta)):
            expected[t] += alive * (gamma * gae_lambda) ** (later - t) * delta[later]
            alive = alive * ~cut[later]
    torch.testing.assert_close(gae(reward, value, next_value, cut, gamma, gae_lambda), expected)


@given(st.integers(0, 1000), SHARES)
def test_with_full_trace_advantages_are_returns_minus_values(seed: int, gamma: float):
    """λ = 1, with consistent next values: zero where cut, the next step's value elsewhere."""
    reward, value, _, cut = random_sequence(seed)
    cut[-1] = True
    next_value = torch.cat([value[1:], value[:1]]) * ~cut
    expected = discounted_returns(reward, cut, gamma) - value
    torch.testing.assert_close(gae(reward, value, next_value, cut, gamma, 1.0), expected)


@given(st.integers(0, 1000), SHARES)
def test_without_trace_advantages_are_one_step_errors(seed: int, gamma: float):
    reward, value, next_value, cut = random_sequence(seed)
    expected = reward + gamma * next_value - value
    torch.testing.assert_close(gae(reward, value, next_value, cut, gamma, 0.0), expected)


@given(st.integers(0, 1000), st.integers(0, 8))
def test_nothing_flows_back_over_a_cut(seed: int, place: int):
    reward, value, next_value, cut = random_sequence(seed)
    cut[place] = True
    before = gae(reward, value, next_value, cut, 0.9, 0.9)
    after = gae(
        reward + 100 * (torch.arange(9) > place)[:, None, None], value, next_value, cut, 0.9, 0.9
    )
    assert torch.equal(before[: place + 1], after[: place + 1])
    assert not torch.equal(before, after) or place == 8


def test_a_constant_reward_has_the_geometric_return():
    reward = torch.ones(50, dtype=torch.float64)
    expected = (1 - 0.9 ** torch.arange(50, 0, -1, dtype=torch.float64)) / (1 - 0.9)
    torch.testing.assert_close(
        discounted_returns(reward, torch.zeros(50, dtype=torch.bool), 0.9), expected
    )


# -------------------------------------------------------------------------------------------------
# The baseline: T steps, N tasks, M lanes, O observed numbers

T, N, M, O = 40, 3, 4, 2  # noqa: E741  (letters of metarl.core.types)


class Lives:
    """Observations beyond ±10 among them, ragged lanes, returns of noise."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.obs = 6 * torch.randn(T, N, M, O, generator=generator, dtype=torch.float64)
        self.time = torch.arange(T).view(T, 1, 1).expand(T, N, M)
        self.returns = torch.randn(T, N, M, generator=generator, dtype=torch.float64)
        self.valid = self.time < torch.randint(T // 2, T, (N, M), generator=generator)

    def features(self) -> Tensor:
        """[T, N, M, F] of section 3.1."""
        s, t = self.obs.clamp(-10, 10), self.time.unsqueeze(-1) / 100
        return torch.cat([s, s**2, t, t**2, t**3, torch.ones_like(t)], dim=-1)


@pytest.fixture
def lives() -> Lives:
    return Lives()


def test_the_baseline_is_exact_where_returns_are_linear_in_the_features(lives: Lives):
    """Each task with coefficients of its own, though its steps are ragged; almost no ridge."""
    coefficients = torch.randn(
        N, 2 * O + 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    returns = torch.einsum("tnmf,nf->tnm", lives.features(), coefficients)
    fitted = linear_baseline(lives.obs, lives.time, returns, lives.valid, ridge=1e-12)
    torch.testing.assert_close(
        fitted, returns, rtol=1e-6, atol=1e-6
    )  # also where it was not fitted
    assert (lives.obs.abs() > 10).any()


@pytest.mark.parametrize("ridge", [1e-5, 0.1])
def test_the_baseline_is_least_squares_with_a_ridge_of_each_task(ridge: float, lives: Lives):
    """As numpy solves it, with √ridge · I as further rows whose targets are 0."""
    fitted = linear_baseline(lives.obs, lives.time, lives.returns, lives.valid, ridge)
    for i in range(N):
        mine, features = lives.valid[:, i], lives.features()[:, i]
        rows = np.concatenate([features[mine].numpy(), np.sqrt(ridge) * np.eye(2 * O + 4)])
        target = np.concatenate([lives.returns[:, i][mine].numpy(), np.zeros(2 * O + 4)])
        coefficients = np.linalg.lstsq(rows, target, rcond=None)[0]
        torch.testing.assert_close(
            fitted[:, i], features @ torch.from_numpy(coefficients), rtol=1e-6, atol=1e-6
        )


def test_what_was_not_lived_through_is_not_fitted(lives: Lives):
    """Not even where it is huge, as in lanes that wait (SPECS 1.4, item 19)."""
    before = linear_baseline(lives.obs, lives.time, lives.returns, lives.valid)[lives.valid]
    for array in (lives.obs, lives.returns):
        array[~lives.valid] = 1e8
    after = linear_baseline(lives.obs, lives.time, lives.returns, lives.valid)[lives.valid]
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)


def test_the_baseline_of_a_task_is_its_own(lives: Lives):
    """Fitted once for all, it would tell every task of the others (SPECS 1.4, item 12)."""
    together = linear_baseline(lives.obs, lives.time, lives.returns, lives.valid)
    for i in range(N):
        part = slice(i, i + 1)
        alone = linear_baseline(
            lives.obs[:, part], lives.time[:, part], lives.returns[:, part], lives.valid[:, part]
        )
        torch.testing.assert_close(together[:, part], alone, rtol=1e-9, atol=1e-9)
    elsewhere = lives.returns + torch.tensor([0.0, 5.0, 0.0]).view(1, N, 1) * lives.time
    moved = linear_baseline(lives.obs, lives.time, elsewhere, lives.valid)
    torch.testing.assert_close(moved[:, [0, 2]], together[:, [0, 2]], rtol=0, atol=0)
    assert not torch.allclose(moved[:, 1], together[:, 1])


def test_time_is_that_of_the_episode(lives: Lives):
    """A return that falls with the episode's time is found whichever way episodes stand in the
    batch.
    """
    returns = 3 - 0.7 * (lives.time / 100) ** 3
    zero, every = torch.zeros_like(lives.obs), torch.ones(T, N, M, dtype=torch.bool)
    apart = linear_baseline(zero, lives.time, returns, every)
    torch.testing.assert_close(apart, returns, rtol=0, atol=1e-4)

    def in_one_lane(x: Tensor) -> Tensor:
        return x.movedim(2, 0).flatten(0, 1).unsqueeze(2)

    chained = linear_baseline(*(in_one_lane(x) for x in (zero, lives.time, returns, every)))
    torch.testing.assert_close(chained, in_one_lane(apart), rtol=0, atol=1e-9)


def test_the_baseline_is_stable_in_single_precision(lives: Lives):
    """Features that say the same twice, an observation that never changes, lanes of one step:
    solved all the same.
    """
    obs = torch.cat(
        [lives.obs[..., :1], lives.obs[..., :1], torch.ones(T, N, M, 1)], dim=-1
    ).float()
    fitted = linear_baseline(obs, lives.time, 1e3 + lives.returns.float(), lives.valid)
    assert fitted.dtype == torch.float32
    error = (fitted - 1e3)[lives.valid]
    assert float(error.abs().max()) < 5
    single = linear_baseline(
        obs[:1], lives.time[:1], torch.ones(1, N, M), torch.ones(1, N, M, dtype=torch.bool)
    )
    torch.testing.assert_close(single, torch.ones(1, N, M), rtol=0, atol=1e-3)


def test_wide_observations_are_fitted_by_any_number_of_threads():
    """More than 160 columns in a batch: a general solver of the library hangs there with two
    threads.
    """
    program = """
import torch
from metarl.algorithms.returns import linear_baseline
obs = torch.randn(60, 8, 4, 100, generator=torch.Generator().manual_seed(0))
time = torch.arange(60).view(-1, 1, 1).expand(60, 8, 4)
returns = obs[..., 0]
for threads in (2, 1):
    torch.set_num_threads(threads)
    fitted = linear_baseline(obs, time, returns, torch.ones(60, 8, 4, dtype=torch.bool))
    torch.testing.assert_close(fitted, returns, rtol=0, atol=1e-3)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], timeout=60, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_where_columns_depend_on_each_other_the_ridge_grows_until_there_is_a_solution():
    """Without a ridge the first of these has no Cholesky factors; the other task keeps the ridge it
    was given.
    """
    obs = torch.randn(50, 2, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    obs[:, 0, :, 1] = obs[:, 0, :, 0]
    time = torch.arange(50).view(-1, 1, 1).expand(50, 2, 1)
    returns, every = obs[..., 0], torch.ones(50, 2, 1, dtype=torch.bool)
    fitted = linear_baseline(obs, time, returns, every, ridge=1e-18)
    torch.testing.assert_close(fitted, returns, rtol=0, atol=1e-4)
    alone = linear_baseline(obs[:, 1:], time[:, 1:], returns[:, 1:], every[:, 1:], ridge=1e-18)
    torch.testing.assert_close(fitted[:, 1:], alone, rtol=0, atol=1e-9)


def test_a_return_that_is_not_finite_ends_in_an_error(lives: Lives):
    lives.obs[0, 0, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite"):
        linear_baseline(lives.obs, lives.time, lives.returns, torch.ones_like(lives.valid))
