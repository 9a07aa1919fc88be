"""Random numbers are addressed: a draw is a pure function of its place; places are independent."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from helpers import same
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from metarl.core import rng as rng_module
from metarl.core.rng import Rng, Streams, seeding_globals

SIGNIFICANT = 1e-3
"""Seeds are fixed, so a test that passes once passes always; a generator with a flaw misses this by
orders of magnitude."""


# -------------------------------------------------------------------------------------------------
# Places


def test_same_address_same_number():
    assert Rng(3).child("env", 7) == Rng(3).child("env", 7)
    assert same(*(torch.rand(5, generator=Rng(3).child("env").generator()) for _ in range(2)))


def test_code_of_others_is_seeded_and_the_global_generators_stay_as_they_were():
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), np.random.rand(), random.random()

    with seeding_globals(0):
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        first, then = draw(), draw()
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        assert draw() == first
        with seeding_globals(7):
            inner = draw()
        assert draw() == then
        with seeding_globals(7):
            assert draw() == inner != then


def test_different_addresses_differ():
    """Ten thousand names below two hundred neighboring seeds: no key twice."""
    names = [
        ("a",),
        ("b",),
        ("ab",),
        ("a", "b"),
        ("b", "a"),
        ("", "a"),
        *((i,) for i in range(-22, 22)),
    ]
    keys = [Rng(seed).child(*name).key for seed in range(-100, 100) for name in names]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("one", "other"),
    [(("a/b",), ("a", "b")), (("a", ""), ("a",)), (("1/2",), (1, 2)), (("a', 'b",), ("a", "b"))],
)
def test_no_name_can_pose_as_another(one: tuple[str | int, ...], other: tuple[str | int, ...]):
    """A separator in a name is no path."""
    assert Rng(0).child(*one) != Rng(0).child(*other)


def test_a_path_is_walked_name_by_name():
    assert Rng(0).child("a", 1) == Rng(0).child("a").child(1)


def test_drawing_leaves_torchs_global_generator_alone():
    before = torch.get_rng_state()
    Rng(0).child("a").streams(torch.arange(3)).normal(0, 5)
    torch.rand(3, generator=Rng(0).generator())
    assert torch.equal(torch.get_rng_state(), before)


# -------------------------------------------------------------------------------------------------
# Streams


def test_the_hash_is_splitmix64():
    """The published sequence of seed 1234567: state s + i·γ at the i-th output."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    state = torch.tensor(1234567) + torch.arange(1, 5) * rng_module._GOLDEN
    assert [int(x) % 2**64 for x in rng_module._hash(state)] == expected


def test_what_a_row_meets_does_not_depend_on_its_neighbors():
    index, rows = torch.arange(20), torch.tensor([17, 3, 4])
    together, apart = Rng(5).streams(index, 3), Rng(5).streams(index[rows], 3)
    assert torch.equal(together.uniform(9, 4)[rows], apart.uniform(9, 4))
    assert torch.equal(together.uniform(9, 4)[:, :2], Rng(5).streams(index, 2).uniform(9, 4))


def test_a_wider_draw_begins_with_the_narrower_one():
    streams = [Rng(5).streams(torch.arange(3)) for _ in range(2)]
    assert torch.equal(streams[0].uniform(2, 7)[..., :3], streams[1].uniform(2, 3))


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 3)), min_size=1, max_size=12))
def test_drawing_ahead_is_invisible(places: list[tuple[int, int]]):
    """Any order of counters and widths gives what fresh streams give."""
    streams = Rng(1).streams(torch.arange(2), 2)
    for counter, width in places:
        assert torch.equal(
            streams.uniform(counter, width), Streams(streams.keys).uniform(counter, width)
        )


@given(
    st.lists(
        st.tuples(st.integers(0, 200), st.sampled_from([1, 2, 36, 103])), min_size=1, max_size=12
    )
)
def test_integers_are_those_of_the_uniform_draw(places: list[tuple[int, int]]):
    """In any order of counters and bounds, and beside wider draws."""
    streams = Rng(1).streams(torch.arange(2), 2)
    for counter, number in places:
        drawn = streams.below(number, counter)
        assert torch.equal(drawn, (number * streams.uniform(counter, 1).squeeze(-1)).long())
        assert drawn.max() < number
        streams.uniform(counter, 3)


def test_streams_too_large_for_a_block_draw_the_same(monkeypatch: pytest.MonkeyPatch):
    ample = Rng(1).streams(torch.arange(5)).uniform(3, 2)
    monkeypatch.setattr(rng_module, "_BLOCK_ELEMENTS", 1)
    assert torch.equal(Rng(1).streams(torch.arange(5)).uniform(3, 2), ample)


@pytest.mark.parametrize(
    ("bits", "expected"), [(0, 2.0**-24), (-1, 1 - 2.0**-24)], ids=["lowest", "highest"]
)
def test_uniform_is_on_the_open_interval_and_normal_finite(
    bits: int, expected: float, monkeypatch: pytest.MonkeyPatch
):
    """log(u), log(1 − u) and the normal quantile must exist for the extreme hashes too."""
    streams = Rng(0).streams(torch.arange(1))
    monkeypatch.setattr(rng_module, "_hash", lambda x: torch.full_like(x, bits))
    assert streams.uniform(0, 1).item() == expected
    assert abs(streams.normal(0, 1).item()) == pytest.approx(-stats.norm.ppf(2.0**-24), abs=0.01)


def test_what_is_drawn_aside_has_places_of_its_own():
    """A function of the place, too; other draws and other rows do not change it."""
    index, rows = torch.arange(20), torch.tensor([17, 3, 4])
    streams, untouched = (Rng(5).streams(index, 3) for _ in range(2))
    for counter in (0, 9, 4):
        drawn = streams.substream.uniform(counter, 4)
        assert torch.equal(drawn, Rng(5).streams(index, 3).substream.uniform(counter, 4))
        assert torch.equal(
            drawn[rows][:, :2], Rng(5).streams(index[rows], 2).substream.uniform(counter, 4)
        )
        assert torch.equal(streams.uniform(counter, 4), untouched.uniform(counter, 4))


def test_what_is_drawn_aside_is_independent_of_what_is_not():
    """Pairs at the same place fill the square evenly; and among all, chance repeats 1 in 20."""
    streams = Rng(5).streams(torch.arange(300), 3)
    draws = [
        torch.cat([s.uniform(t, 3) for t in range(100)]).flatten()
        for s in (streams, streams.substream, streams.substream.substream)
    ]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        cells = torch.bincount((16 * draws[a]).long() * 16 + (16 * draws[b]).long(), minlength=256)
        assert stats.chisquare(cells.numpy()).pvalue > SIGNIFICANT
    everything = torch.cat(draws)
    assert len(everything.unique()) > 0.95 * len(everything)


# -------------------------------------------------------------------------------------------------
# Statistics, along each way in which two draws can be neighbors

WAYS = ["counter", "width", "lane", "index", "seed", "child"]


def neighbors(way: str, count: int = 300) -> Tensor:
    """[count, count]: rows are independent places, columns neighbors along `way`."""
    index = torch.arange(count)
    if way == "counter":
        streams = Rng(11).streams(index)
        return torch.cat([streams.uniform(t, 1).squeeze(1) for t in range(count)], dim=1)
    if way == "width":
        return Rng(11).streams(index).uniform(0, count).squeeze(1)
    if way == "lane":
        return Rng(11).streams(index, count).uniform(0, 1).squeeze(2)
    if way == "index":
        return Rng(11).streams(index).uniform(0, count).squeeze(1).t()
    roots = [
        Rng(seed) if way == "seed" else Rng(0).child("iteration", seed) for seed in range(count)
    ]
    return torch.stack([root.streams(index).uniform(0, 1).flatten() for root in roots], dim=1)


@pytest.mark.parametrize("way", WAYS)
def test_draws_are_uniform(way: str):
    x = neighbors(way).flatten()
    assert stats.kstest(x.numpy(), "uniform").pvalue > SIGNIFICANT
    assert stats.chisquare(torch.histc(x, 64, 0, 1).numpy()).pvalue > SIGNIFICANT


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("gap", [1, 2, 64])
def test_neighboring_draws_are_independent(way: str, gap: int):
    """Pairs fill the square evenly (chi-square on a 16 × 16 grid) and have no correlation."""
    x = neighbors(way)
    a, b = x[:, :-gap].flatten(), x[:, gap:].flatten()
    cells = torch.bincount((16 * a).long() * 16 + (16 * b).long(), minlength=256)
    assert stats.chisquare(cells.numpy()).pvalue > SIGNIFICANT
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 4 / math.sqrt(len(a))


def test_no_place_repeats_another():
    """Neither of another lane, row, counter nor seed: of 10⁵ draws, about 600 repeat by chance."""
    draws = [
        Rng(seed).streams(torch.arange(10), 10).uniform(t, 10)
        for seed in range(-5, 5)
        for t in range(10)
    ]
    assert len(torch.stack(draws).unique()) > 0.99 * 10**5


def test_low_bits_of_draws_are_even_too():
    """The 23 bits of a draw are all used: each is a fair coin."""
    integers = (neighbors("counter").flatten().double() * 2**23).floor().long()
    for bit in range(23):
        assert abs(float(((integers >> bit) & 1).double().mean()) - 0.5) < 4 * 0.5 / math.sqrt(
            len(integers)
        )


def test_normal_is_the_quantile_of_uniform():
    streams = Rng(2).streams(torch.arange(1000))
    u, z = streams.uniform(0, 100).double().numpy(), streams.normal(0, 100).numpy()
    np.testing.assert_allclose(z, stats.norm.ppf(u), atol=2e-4)


def test_normal_has_the_moments_and_tails_of_the_normal_distribution():
    z = Rng(2).streams(torch.arange(1000)).normal(0, 1000).flatten().double()
    error = 4 / math.sqrt(len(z))  # times the standard deviation of what is averaged
    assert stats.kstest(z[:100_000].numpy(), "norm").pvalue > SIGNIFICANT
    for power, moment, spread in ((1, 0, 1), (2, 1, 2**0.5), (3, 0, 15**0.5), (4, 3, 96**0.5)):
        assert abs(float((z**power).mean()) - moment) < error * spread
    for threshold in (1.0, 2.0, 3.0, 4.0):
        share = 2 * stats.norm.sf(threshold)
        assert abs(float((z.abs() > threshold).double().mean()) - share) < error * math.sqrt(share)
