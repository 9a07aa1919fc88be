"""MiniGrid's rooms beside the package itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from beside import lived, same_by_hand
from minigrid.core.constants import COLOR_TO_IDX, IDX_TO_COLOR, OBJECT_TO_IDX
from minigrid.envs import FetchEnv, FourRoomsEnv
from minigrid.wrappers import OneHotPartialObsWrapper, RGBImgPartialObsWrapper

from metarl.checker.check import check_family
from metarl.core.rng import Rng
from metarl.core.types import Tasks
from metarl.experiments.building import make_family

FAMILIES = ["minigrid-four-rooms", "minigrid-fetch"]
KINDS = {
    "minigrid-four-rooms": ["unseen", "empty", "wall", "goal"],
    "minigrid-fetch": ["unseen", "empty", "wall", "key", "ball"],
}


def kind_of(row: torch.Tensor) -> tuple[str, str]:
    """Colour and type of what pays."""
    return IDX_TO_COLOR[int(row[0])], ("key", "ball")[int(row[1])]


def rows(family) -> dict[str, list[tuple[float, ...]]]:
    """Every row of every split."""
    drawn = {
        split: family.tasks(split, 300, Rng(0)).params.unique(dim=0) for split in family.spec.splits
    }
    return {split: [tuple(row) for row in params.tolist()] for split, params in drawn.items()}


# -------------------------------------------------------------------------------------------------
# Tasks


def test_goals_are_the_cells_of_the_rooms_shared_out():
    found = rows(make_family("minigrid-four-rooms"))
    assert {split: len(cells) for split, cells in found.items()} == {
        "train": 192,
        "validation": 32,
        "test": 32,
    }
    inside = {*range(1, 9), *range(10, 18)}
    assert {cell for cells in found.values() for cell in cells} == {
        (x, y) for x in inside for y in inside
    }


def test_every_colour_and_type_is_learned_from_but_not_every_kind():
    found = rows(make_family("minigrid-fetch"))
    assert {split: len(kinds) for split, kinds in found.items()} == {
        "train": 6,
        "validation": 2,
        "test": 4,
    }
    assert {colour for colour, _ in found["train"]} == set(range(6))
    assert {kind for _, kind in found["train"]} == {0, 1}
    assert {kind for kinds in found.values() for kind in kinds} == {
        (c, t) for c in range(6) for t in (0, 1)
    }


# -------------------------------------------------------------------------------------------------
# Episodes


def flat(name: str, seen: dict[str, Any]) -> np.ndarray:
    """What the package's own one-hots say of the kinds that occur."""
    hot = seen["image"].reshape(-1, 20)  # kinds, colours, states
    kinds = hot[:, [OBJECT_TO_IDX[kind] for kind in KINDS[name]]]
    assert (kinds.sum(1) == 1).all()
    colours = [hot[:, 11:17].ravel()] if name == "minigrid-fetch" else []
    return np.concatenate([kinds.ravel(), *colours, np.eye(4)[seen["direction"]]]).astype(
        np.float32
    )


@pytest.mark.parametrize("view", [7, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_episodes_are_the_packages(name: str, view: int):
    """Its starts, drawn again where the agent is on the goal or the rewarded thing is missing."""
    family = make_family(name, view=view, horizon=40)

    def begin(task: Tasks, seed: int):
        row = task.params[0]
        if name == "minigrid-four-rooms":
            goal = tuple(row.int().tolist())
            inner: Any = FourRoomsEnv(goal_pos=goal, max_steps=40, agent_view_size=view)
            fits = lambda: tuple(inner.agent_pos) != goal  # noqa: E731
        else:
            inner = FetchEnv(size=5, numObjs=2, max_steps=40, agent_view_size=view)
            fits = lambda: kind_of(row) in [(o.color, o.type) for o in inner.grid.grid if o]  # noqa: E731
        env = OneHotPartialObsWrapper(inner)
        seen, _ = env.reset(seed=seed)
        while not fits():
            seen, _ = env.reset()
        if name == "minigrid-fetch":
            inner.targetColor, inner.targetType = kind_of(row)
        return env, seen

    ends = same_by_hand(
        family,
        family.tasks("train", 4, Rng(0)),
        100,
        begin,
        lambda seen: flat(name, seen),
        "",
        lanes=2,
    )
    assert ends > 16


def test_only_what_pays_pays_and_picking_up_anything_ends_the_episode():
    """1 − 0.9 t / H after t steps, and the colour and the type are those of the row."""
    family = make_family("minigrid-fetch", horizon=50)
    tasks = family.tasks("train", 6, Rng(0))
    env, noise, age = family.make(4), tasks.streams(Rng(5), 4), torch.zeros(6, 4)
    env.reset(tasks, Rng(0))
    rooms = env._lanes._envs
    paid = spoiled = 0
    for time in range(200):
        ages = age + 1
        carried = [None] * len(rooms)
        for lane, room in enumerate(
            rooms
        ):  # what is picked up is forgotten by the reset that follows at once
            inner = room.unwrapped
            ahead = inner.grid.get(*inner.front_pos)
            carried[lane] = (
                (ahead.color, ahead.type) if ahead is not None and ahead.can_pickup() else None
            )
        action = (noise.uniform(time, 1).squeeze(-1) * 4).long()
        step = env.step(action)
        for lane, thing in enumerate(carried):
            row, column = divmod(lane, 4)
            took = thing is not None and int(action[row, column]) == 3
            right = took and thing == kind_of(tasks.params[row])
            assert bool(step.terminated[row, column]) == took
            assert bool(step.success[row, column]) == right
            assert float(step.reward[row, column]) == pytest.approx(
                right * (1 - 0.9 * float(ages[row, column]) / 50)
            )
            paid, spoiled = paid + right, spoiled + (took and not right)
        age = ages.masked_fill(step.done, 0)
    assert paid > 20
    assert spoiled > 10


def test_no_episode_starts_on_its_goal():
    """The goal is put where the package would put the agent."""
    family = make_family("minigrid-four-rooms")
    env = family.build()
    for seed in range(20):
        family.apply(env, np.array([1.0, 1.0]))
        env.reset(seed=seed)
        goal = env.unwrapped.agent_pos
        family.apply(env, np.array(goal, float))
        env.reset(seed=seed)
        assert tuple(env.unwrapped.agent_pos) != tuple(goal)
        assert env.unwrapped.grid.get(*goal).type == "goal"


def test_trials_are_of_episodes_of_unequal_length():
    family = make_family("minigrid-fetch")
    _, _, step = lived(family, family.tasks("train", 6, Rng(0)), 300)
    ends = [step.done[:, row, 0].nonzero().flatten().diff().tolist() for row in range(6)]
    assert len({length for lengths in ends for length in lengths}) > 6
    assert step.terminated.any()
    assert step.truncated.any()


def test_more_things_lie_in_a_larger_room():
    family = make_family("minigrid-fetch", size=8, things=3)
    env = family.build()
    family.apply(env, np.array([COLOR_TO_IDX["red"], 0]))
    env.reset(seed=0)
    things = [
        (thing.color, thing.type)
        for thing in env.unwrapped.grid.grid
        if thing is not None and thing.can_pickup()
    ]
    assert env.unwrapped.grid.width == 8
    assert len(things) == 3
    assert ("red", "key") in things


@pytest.mark.parametrize("name", [*FAMILIES, "minigrid-balls"])
def test_the_contract_is_kept(name: str):
    report = check_family(make_family(name))
    assert report.ok, report


# -------------------------------------------------------------------------------------------------
# Pixels


@pytest.mark.parametrize("view", [7, 5])
def test_pixels_are_those_of_the_packages_wrapper(view: int):
    """In every step of random episodes, the last ones too, where a thing is carried."""
    family = make_family("minigrid-fetch", observation="pixels", view=view, horizon=30)
    assert family.spec.images == {"observation": (4 * view, 4 * view, 3)}
    assert family.spec.obs_dtype == "uint8"
    env = family.build()
    family.apply(env, np.array([0, 0]))
    theirs = RGBImgPartialObsWrapper(env.unwrapped, tile_size=4)
    rng = np.random.default_rng(0)
    for episode in range(6):
        obs, _ = env.reset(seed=episode)
        over = False
        while not over:
            np.testing.assert_array_equal(obs, theirs.observation({})["image"])
            obs, _, terminated, truncated, _ = env.step(int(rng.integers(4)))
            over = terminated or truncated
        np.testing.assert_array_equal(obs, theirs.observation({})["image"])


def test_a_ball_pays_what_its_place_is_worth():
    """Two of the places left, right and ahead hold one, each pair about equally often."""
    family = make_family("minigrid-balls")
    env = family.build()
    room = env.unwrapped
    values = np.array([0.25, 0.5, 0.75])
    family.apply(env, values)
    places = {(1, 2): 0, (3, 2): 1, (2, 1): 2}
    pairs = Counter()
    for seed in range(150):
        obs, _ = env.reset(seed=seed)
        theirs = RGBImgPartialObsWrapper(room, tile_size=4)
        np.testing.assert_array_equal(obs, theirs.observation({})["image"])
        things = [(cell, x) for cell, x in enumerate(room.grid.grid) if x and x.type != "wall"]
        assert {x.type for _, x in things} == {"ball"}
        held = tuple(sorted(places[cell % 5, cell // 5] for cell, _ in things))
        pairs[held] += 1
        action = seed % 3
        _, reward, terminated, truncated, _ = env.step(action)
        assert reward == (values[action] if action in held else 0)
        assert terminated
        assert not truncated
    assert set(pairs) == {(0, 1), (0, 2), (1, 2)}
    assert min(pairs.values()) > 30
    row = torch.tensor(values).unsqueeze(0)
    optimum = family.optimum(Tasks.numbered(row, "test"))
    assert optimum.tolist() == pytest.approx([(0.5 + 0.75 + 0.75) / 3])
