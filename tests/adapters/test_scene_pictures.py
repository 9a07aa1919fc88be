"""Scenes painted for libraries that film environments."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from metarl.adapters.scene_pictures import paint
from metarl.core.types import Scene

WALL, GOAL, NEAR, END = (89, 89, 89), (44, 160, 44), (213, 236, 213), (8, 48, 107)
PATH = torch.tensor([[0.0, 0.0], [0.0, 4.0], [4.0, 4.0]])


def where(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """[count, 2]: pixels of this color, right and up of the middle."""
    down, right = np.nonzero((picture == color).all(-1))
    return np.stack([right - 127.5, 127.5 - down], axis=1)


def test_everything_stands_where_the_scene_has_it():
    """The scene is ten wide, so that a length is 24 pixels."""
    picture = paint(
        Scene(
            PATH,
            limits=(-5, 5, -5, 5),
            goal=torch.tensor([[-3.0, 2.0]]),
            goal_radius=1.0,
            walls=torch.tensor([[-5.0, -5.0, 10.0, 1.0]]),
        )
    )
    assert (picture.shape, picture.dtype) == ((256, 256, 3), np.uint8)
    np.testing.assert_allclose(where(picture, GOAL).mean(0), [-72, 48], atol=0.5)
    np.testing.assert_allclose(where(picture, NEAR).max(0), [-72 + 24, 48 + 24], atol=1)
    np.testing.assert_allclose(where(picture, END).mean(0), [96, 96], atol=1)
    wall = where(picture, WALL)
    np.testing.assert_allclose(wall.min(0), [-120, -120], atol=1)
    np.testing.assert_allclose(wall.max(0), [120, -96], atol=1)
    drawn = (where(picture, (255, 255, 255)),)
    assert not ((np.abs(drawn[0] - [0, 60]) < 0.6).all(1)).any(), "half up the first move"
    assert ((np.abs(drawn[0] - [60, 0]) < 0.6).all(1)).any(), "where it never was"


def test_what_lies_outside_the_limits_is_seen_too():
    far = paint(Scene(PATH, limits=(-1, 1, -1, 1), goal=torch.tensor([[9.0, 0.0]])))
    assert len(where(far, GOAL)) > 50
    assert len(where(far, END)) > 10


def test_an_environment_shows_its_running_episode():
    """Which grows with every step, stands still at its end, and begins anew with the next one."""
    env = gymnasium.make(
        "metarl.adapters.registration:metarl/point-v0",
        render_mode="rgb_array",
        horizon=3,
        goal_range=0.3,
    )
    env.reset(seed=0)

    def drawn() -> int:
        return int((env.render() != 255).any(-1).sum())

    sizes = [drawn()]
    for _ in range(3):
        env.step(np.ones(2, np.float32))
        sizes.append(drawn())
    assert sizes == sorted(set(sizes)), "a longer path every step, at the episode's end too"
    env.reset()
    assert drawn() == sizes[0]


@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
def test_every_lane_has_its_own_picture(mode: str):
    envs = gymnasium.make_vec(
        "metarl.adapters.registration:metarl/point-v0",
        num_envs=4,
        lanes=2,
        render_mode="rgb_array",
        autoreset_mode=mode,
        horizon=2,
        goal_range=0.3,
    )
    action: Any = np.array([[1, 0], [0, 1], [0, 0], [-1, -1]], np.float32)
    seen = [envs.reset(seed=0), *(envs.step(action) for _ in range(4))]
    assert [bool(step[3].all()) for step in seen[1:]] == {
        "SameStep": [False, True, False, True],
        "NextStep": [False, True, False, False],
    }[mode]
    goals = [where(picture, GOAL).mean(0).tolist() for picture in envs.render()]
    assert goals[0] == goals[1]
    assert goals[2] == goals[3] != goals[0]
    ends = [where(picture, END).mean(0).tolist() for picture in envs.render()]
    assert len({tuple(end) for end in ends}) == (4 if mode == "NextStep" else 1)
