"""Running moments: batches equal one pass over everything."""

from __future__ import annotations

import pytest
import torch
from helpers import CPU, same
from hypothesis import given
from hypothesis import strategies as st

from metarl.core.rollout import Rollout
from metarl.core.types import Inputs, Spec
from metarl.nn.normalizer import InputNormalizer, Normalizer


def all_valid(x: torch.Tensor) -> torch.Tensor:
    return torch.ones(*x.shape[:-1], 1, dtype=torch.bool)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 100))
def test_batches_equal_one_pass(sizes: list[int], seed: int):
    x = 5 + 3 * torch.randn(sum(sizes), 2, generator=torch.Generator().manual_seed(seed))
    moments = Normalizer.initial(2, CPU)
    for part in x.split(sizes):
        moments = moments.update(part, all_valid(part))
    torch.testing.assert_close(moments.mean, x.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moments.var, x.double().var(0, unbiased=False), rtol=1e-3, atol=1e-4)
    assert moments.count.eq(len(x)).all()


def test_only_valid_samples_count():
    x, valid = torch.randn(40, 5, 3), torch.rand(40, 5) < 0.5
    corrupted = torch.where(valid.unsqueeze(-1), x, 1e6)
    moments = Normalizer.initial(3, CPU).update(corrupted, valid.unsqueeze(-1))
    torch.testing.assert_close(moments.mean, x[valid].mean(0))
    torch.testing.assert_close(moments.var, x[valid].double().var(0, unbiased=False))
    assert moments.count.eq(valid.sum()).all()


def test_each_column_may_have_its_own_valid_samples():
    x, valid = torch.randn(40, 5, 3), torch.rand(40, 5, 3) < 0.5
    moments = Normalizer.initial(3, CPU).update(x[:20], valid[:20]).update(x[20:], valid[20:])
    for column in range(3):
        chosen = x[..., column][valid[..., column]]
        torch.testing.assert_close(moments.mean[column], chosen.mean())
        torch.testing.assert_close(moments.var[column], chosen.double().var(unbiased=False))
        assert moments.count[column] == len(chosen)


def test_nothing_new_changes_nothing():
    x = torch.randn(7, 1)
    before = Normalizer.initial(1, CPU).update(x, all_valid(x))
    for window in (3.0, float("inf")):
        assert same(before.update(torch.randn(7, 1), ~all_valid(x), window), before)


def test_nothing_seen_scales_nothing():
    x = torch.randn(4, 3)
    assert torch.equal(Normalizer.initial(3, CPU).normalize(x), x)


def test_the_window_bounds_the_weight_of_the_past():
    """With a window of w, a batch has the share 1 / (1 + w), so old moments fade geometrically."""
    old, new, moments = torch.zeros(100, 1), torch.ones(100, 1), Normalizer.initial(1, CPU)
    for _ in range(50):
        moments = moments.update(old, all_valid(old), window=3)
    for n in range(1, 6):
        moments = moments.update(new, all_valid(new), window=3)
        torch.testing.assert_close(moments.mean, torch.tensor([1 - 0.75**n]))
        torch.testing.assert_close(moments.std.square(), moments.mean * (1 - moments.mean))


def test_standardized_data_have_mean_zero_and_deviation_one():
    x = 7 + 0.1 * torch.randn(1000, 2)
    z = Normalizer.initial(2, CPU).update(x, all_valid(x)).normalize(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(2), rtol=0, atol=1e-3)
    torch.testing.assert_close(z.std(0, unbiased=False), torch.ones(2), rtol=0, atol=1e-3)


def test_a_constant_stays_finite_and_outliers_are_limited():
    x = torch.full((10, 1), 3.0)
    moments = Normalizer.initial(1, CPU).update(x, all_valid(x))
    assert moments.normalize(torch.tensor([3.0, 4.0, -1e9])).tolist() == [0.0, 10.0, -10.0]
    assert moments.normalize(torch.tensor([4.0]), limit=2.0).item() == 2.0


def test_restoring_undoes_standardizing():
    x = 5 + torch.randn(10, 2)
    moments = Normalizer.initial(2, CPU).update(x, all_valid(x))
    torch.testing.assert_close(moments.denormalize(moments.normalize(x)), x)


def test_state_returns():
    x = torch.randn(10, 2)
    moments = Normalizer.initial(2, CPU).update(x, all_valid(x))
    assert same(Normalizer.from_state_dict(moments.state_dict(), CPU), moments)


SCALES = [1e-8, 1e-6, 1.0, 1e6, 1e8, 1e25]


def seen(*parts: torch.Tensor) -> Normalizer:
    """Statistics of one batch after another, each [S]."""
    moments = Normalizer.initial(1, CPU)
    for part in parts:
        moments = moments.update(part.unsqueeze(-1), torch.ones(1, 1, dtype=torch.bool))
    return moments


def normal(count: int) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scale", SCALES)
def test_units_do_not_matter(scale: float):
    """Squares of what float32 holds overflow in float32, and so do sums of many."""
    x = 2 + normal(1000)
    own, scaled = seen(*x.split(100)), seen(*(scale * x).split(100))
    torch.testing.assert_close(scaled.normalize(scale * x), own.normalize(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scaled.scale(scale * x), own.scale(x), rtol=1e-4, atol=1e-4)
    back = scaled.denormalize(own.normalize(x))
    torch.testing.assert_close(back, scale * x, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e-8, 1e8, -1e25])
def test_a_constant_is_zero_whatever_it_is(value: float):
    """Also after 30,000 samples, whose float32 sum would be inexact; noise of its last digit is
    not unit noise.
    """
    x = torch.full((10_000,), value)
    moments = seen(x, x, x)
    assert moments.normalize(x).eq(0).all()
    noisy = x * (1 + 6e-8 * normal(10_000))
    assert seen(noisy).normalize(noisy).abs().max() < 1


@pytest.mark.parametrize("step", [1e-3, 1.0, 1e8])
def test_the_first_move_of_a_constant_is_limited_and_not_for_ever(step: float):
    """Once it has moved in a tenth of all samples it is within 3 deviations: √((1 − p) / p)."""
    constant, moving = torch.full((9000,), 3.0), 3.0 + step * torch.ones(1000)
    assert seen(constant).normalize(moving).eq(10).all()
    assert seen(constant, moving).normalize(moving).max() <= 3.01


@pytest.mark.parametrize("scale", SCALES)
def test_rare_rewards_do_not_drown_the_memory(scale: float):
    """One step in 10,000 pays: 100 deviations."""
    x = torch.zeros(10_000)
    x[17] = scale
    for moments in (seen(x), seen(torch.zeros(10_000))):  # after its statistics, and before
        z = moments.scale(x)
        assert z[17] == 10
        assert z.count_nonzero() == 1


@pytest.mark.parametrize("shift", [0.0, 2.0, -2.0, 10.0, -100.0, 1e4])
def test_a_shift_of_rewards_leaves_their_differences(shift: float):
    """Zero stays zero as long as that is not far away; a reward of 100 or 101 still is two."""
    x = shift + normal(1000).sign()
    z = seen(x).scale(x)
    assert z.max() - z.min() == pytest.approx(2 / float(x.std(unbiased=False)), rel=1e-2)
    assert z.abs().max() < 4.1
    if abs(shift) < 3:
        torch.testing.assert_close(z, x / x.std(unbiased=False))


@pytest.mark.parametrize("reward", [1.0, -0.25, 1e-6, 0.0])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_a_reward_that_hardly_changes_is_not_blown_up(reward: float, noise: float):
    """Divided by its deviation alone, a reward of 1 a step would become 1,000 and saturate
    whatever reads it.
    """
    x = reward + noise * reward * normal(5000)
    assert seen(x).scale(x).abs().max() <= 8


def test_images_and_masks_stay_as_they_are():
    """And pixels have no statistics; what stands beside them is scaled as it is alone."""
    parts = {"image": 12, "speed": 2, "mask": 3}
    seen = Spec("seen", parts, 3, True, 5, 1, images={"image": (2, 2, 3)}, action_mask="mask")
    alone = Spec("alone", {"speed": 2}, 3, discrete=True, horizon=5, task_width=1)
    obs = torch.rand(5, 4, 2, 17) * 200
    obs[..., 14:] = torch.tensor([1.0, 0.0, 1.0])
    normalized = {}
    for spec, x in ((seen, obs), (alone, obs[..., 12:14])):
        own = InputNormalizer(spec, CPU, obs=True, reward=False)
        flat = torch.zeros(5, 4, 2)
        never = flat > 0
        index = torch.arange(4)
        own.update(Rollout(Inputs(x), flat, flat, flat, x, never, never, ~never, index))
        normalized[spec.name] = own.normalize(Inputs(x)).obs
        assert (own.obs.count > 0).tolist() == [name == "speed" for name in _columns(spec)]
    assert same(normalized["seen"][..., :12], obs[..., :12])
    assert same(normalized["seen"][..., 14:], obs[..., 14:])
    assert same(normalized["seen"][..., 12:14], normalized["alone"])
    assert not same(normalized["alone"], obs[..., 12:14])


def _columns(spec: Spec) -> list[str]:
    """The name of the part that each number belongs to."""
    return [name for name, width in spec.observation.items() for _ in range(width)]
