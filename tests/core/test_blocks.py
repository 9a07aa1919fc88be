"""Memory of large arrays: used again, but never while anything can still read it."""

from __future__ import annotations

import gc

import pytest
import torch
from helpers import live

from metarl.core import blocks as blocks_module
from metarl.core import rollout as rollout_module
from metarl.core.blocks import SMALLEST, Blocks
from metarl.core.rng import Rng
from metarl_envs.config import FourRoomsConfig
from metarl_envs.four_rooms import FourRooms

LARGE = (SMALLEST // 4, 1)  # of float32
FLOAT, BOOL = torch.zeros(()), torch.zeros((), dtype=torch.bool)


def test_memory_is_lent_again_when_nothing_uses_it():
    """What it held tells it from fresh memory, which is zero."""
    blocks = Blocks()
    array = blocks.empty(LARGE, FLOAT).fill_(7.0)
    part = array[5:7].unsqueeze(0)
    del array
    other = blocks.empty(LARGE, FLOAT).fill_(8.0)
    assert part.eq(7).all()  # a view reads it still
    del part
    gc.collect()
    assert blocks.empty(LARGE, FLOAT).eq(7).all()
    assert blocks.empty((SMALLEST,), BOOL).view(torch.uint8)[:4].tolist() == [0, 0, 0xE0, 0x40]
    assert other.eq(8).all()


def test_what_does_not_fit_is_given_back_to_the_system():
    """Else arrays of many sizes would add up."""
    blocks = Blocks()
    blocks.empty(LARGE, FLOAT)
    blocks.empty((3 * SMALLEST,), BOOL)
    assert [len(block) for block in blocks._free] == [3 * SMALLEST]
    blocks.empty(LARGE, FLOAT)  # not a third of a block that is kept for it
    assert [len(block) for block in blocks._free] == [SMALLEST]


@pytest.mark.parametrize("shape", [LARGE, (3, 2), (0, 4)])
def test_shape_and_type_are_those_that_were_asked_for(shape: tuple[int, ...]):
    for like in (FLOAT, FLOAT.double(), BOOL):
        array = Blocks().empty(shape, like)
        assert (array.shape, array.dtype) == (shape, like.dtype)
        assert array.is_contiguous()


def test_a_rollout_has_the_memory_of_the_last_one_unless_that_is_kept(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(blocks_module, "SMALLEST", 1)
    blocks = Blocks()
    monkeypatch.setattr(rollout_module, "BLOCKS", blocks)
    family = FourRooms(FourRoomsConfig(horizon=5))
    tasks = family.tasks("train", 3, Rng(0))

    def free_after_rollout() -> set[int]:
        live(family, tasks, 1)
        gc.collect()
        return {id(block) for block in blocks._free}

    first = free_after_rollout()
    assert first
    assert free_after_rollout() == first
    kept = live(family, tasks, 1)
    obs = kept[0].inputs.obs.clone()
    assert not free_after_rollout() & first
    assert torch.equal(kept[0].inputs.obs, obs)
