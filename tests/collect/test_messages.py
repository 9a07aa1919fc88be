"""What travels between processes arrives as it was."""

from __future__ import annotations

import pickle

import pytest
import torch
from helpers import Ragged, live, same

from metarl.collect.messages import Message, pack, unpack
from metarl.core.errors import ConfigError
from metarl.core.rng import Rng


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).view(2, 3).T,  # not contiguous
        torch.tensor(2.5),
        torch.empty(0, 3, dtype=torch.long),
        torch.tensor([True, False]),
        torch.arange(5, dtype=torch.uint8),
        torch.ones(2, requires_grad=True),
    ],
    ids=["transposed", "scalar", "empty", "flags", "bytes", "with gradient"],
)
def test_tensors_keep_values_shape_and_type(tensor: torch.Tensor):
    arrived = unpack(pack({"x": tensor}))["x"]
    assert arrived.shape == tensor.shape
    assert arrived.dtype == tensor.dtype
    assert torch.equal(arrived, tensor)


def test_rollouts_and_beliefs_arrive_as_they_were():
    family = Ragged(discrete=False)
    rollout, belief = live(family, family.tasks("test", 5, Rng(0)), episodes=2, lanes=2)
    arrived = unpack(pack((rollout, belief, Rng(3))))
    assert same(arrived, (rollout, belief, Rng(3)))
    assert type(arrived[0]) is type(rollout)


def test_what_arrives_has_memory_of_its_own():
    message = pack(torch.zeros(3))
    for array in message.arrays:
        array.flags.writeable = False  # as shared memory is
    arrived = unpack(message)
    arrived += 1
    assert torch.equal(unpack(message), torch.zeros(3))


def test_arrays_travel_beside_the_bytes():
    message = pack(torch.zeros(10_000))
    assert len(message.content) < 1000
    assert message.size == len(message.content) + 40_000
    assert isinstance(pickle.loads(pickle.dumps(message)), Message)


def test_errors_arrive_as_themselves():
    error = unpack(pack(ConfigError("x: set y")))
    assert type(error) is ConfigError
    assert str(error) == "x: set y"
