"""What a spec says of observations and actions, and which specs there cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metarl.core.errors import FamilyError
from metarl.core.rng import Rng
from metarl.core.types import Spec

PARTS = {"image": 12, "speed": 2, "mask": 5}


def spec(**changes: Any) -> Spec:
    shape: dict[str, Any] = {"action_width": 5, "discrete": True, "horizon": 3, "task_width": 1}
    return Spec("family", PARTS, **(shape | changes))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"images": {"picture": (2, 2, 3)}}, "image 'picture' is of shape"),
        ({"images": {"image": (2, 2, 2)}}, "image 'image' is of shape"),
        ({"images": {"image": (4, 3)}}, "give height, width and channels"),
        ({"obs_dtype": "float64"}, "set float32 or uint8"),
        ({"obs_dtype": "uint8"}, "uint8 is for images"),
        ({"nvec": (3, 3)}, "action_width=6"),
        ({"nvec": (3, 2), "discrete": False}, "needs discrete=True"),
        ({"action_mask": "speed"}, "action_mask 'speed' must be a part"),
        ({"action_mask": "missing"}, "action_mask 'missing' must be a part"),
        ({"action_mask": "mask", "discrete": False}, "action_mask 'mask' must be a part"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(changes: dict[str, Any], line: str):
    with pytest.raises(FamilyError, match=line):
        spec(**changes)


def test_the_shape_of_an_action_is_gymnasiums():
    assert spec().action_shape == ()
    assert spec(nvec=(3, 2)).action_shape == (2,)
    assert spec(discrete=False).action_shape == (5,)


def test_choices_become_one_hots_side_by_side():
    encoded = spec(nvec=(3, 2)).encode_action(torch.tensor([[2, 0], [0, 1]]))
    assert encoded.tolist() == [[0, 0, 1, 1, 0], [1, 0, 0, 0, 1]]
    assert spec().encode_action(torch.tensor(3)).tolist() == [0, 0, 0, 1, 0]


def test_images_are_left_out_of_what_a_baseline_sees():
    obs = torch.arange(19, dtype=torch.uint8).expand(4, 19)
    seen = spec(images={"image": (2, 2, 3)}).without_images(obs)
    assert seen.dtype == torch.float32
    assert seen[0].tolist() == [12, 13, 14, 15, 16, 17, 18]


@pytest.mark.parametrize("nvec", [(), (3, 2)], ids=["one choice", "two choices"])
def test_random_actions_are_uniform_over_the_valid_ones(nvec: tuple[int, ...]):
    masked = spec(nvec=nvec, action_mask="mask")
    obs = torch.zeros(1, 1, 19)
    obs[..., 14:] = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])
    uniform = Rng(0).streams(torch.arange(4000), 1).uniform(0, 5)
    action = masked.random_action(uniform, obs)
    taken = masked.encode_action(action).mean((0, 1))
    expected = [1 / 2, 0, 1 / 2, 0, 1] if nvec else [1 / 3, 0, 1 / 3, 0, 1 / 3]
    assert taken.tolist() == pytest.approx(expected, abs=0.03)
