"""The taxi against a search through its streets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metarl.core.rng import Rng
from metarl.core.types import Step, Tasks
from metarl.experiments.building import make_family

STAY, LEFT, RIGHT, DOWN, UP, SERVE = range(6)
MOVES = {LEFT: (-1, 0), RIGHT: (1, 0), DOWN: (0, -1), UP: (0, 1)}
WALLS = {(2, 5), (2, 4), (1, 1), (1, 0), (3, 1), (3, 0)}
LANDMARKS = [(0, 5), (0, 0), (4, 0), (5, 5)]
ABOARD = 4


def task(goal: int, passenger: int, start: int) -> Tasks:
    row = [
        float(place == wanted)
        for wanted, width in ((goal, 4), (passenger, 5), (start, 4))
        for place in range(width)
    ]
    return Tasks(torch.tensor([row]), torch.arange(1), "test")


def every_task(split: str) -> Tasks:
    tasks = make_family("taxi").tasks(split, 60, Rng(0))
    return tasks[tasks.copy == 0]


def places(params: Tensor) -> tuple[int, int, int]:
    """Goal, passenger and start of one row."""
    goal, passenger, start = params.split((4, 5, 4))
    return int(goal.argmax()), int(passenger.argmax()), int(start.argmax())


def drive(tasks: Tasks, actions: list[int], **options: int) -> list[Step]:
    env = make_family("taxi", **options).make(1)
    env.reset(tasks, Rng(0))
    return [env.step(torch.tensor([[action]])) for action in actions]


def observed(obs: Tensor) -> tuple[tuple[int, int], bool]:
    """Cell and whether the passenger is aboard, of the one-hot [1, 1, 72]."""
    assert obs.sum() == 1
    state = int(obs.argmax())
    return (state % 6, state % 36 // 6), state >= 36


def way(start: tuple[int, int], end: tuple[int, int]) -> list[int]:
    """The moves of a shortest way, breadth first."""
    ways, queue = {start: []}, [start]
    for cell in queue:
        for action, (dx, dy) in MOVES.items():
            after = (cell[0] + dx, cell[1] + dy)
            if after not in WALLS and 0 <= after[0] < 6 and 0 <= after[1] < 6 and after not in ways:
                ways[after] = [*ways[cell], action]
                queue.append(after)
    return ways[end]


def shortest(goal: int, passenger: int, start: int) -> list[int]:
    if passenger == ABOARD:
        return [*way(LANDMARKS[start], LANDMARKS[goal]), SERVE]
    fetch = [*way(LANDMARKS[start], LANDMARKS[passenger]), SERVE]
    return [*fetch, *way(LANDMARKS[passenger], LANDMARKS[goal]), SERVE]


@pytest.mark.parametrize("aboard", [False, True])
def test_moves_follow_the_streets(aboard: bool):
    """From every reachable cell, every move leads where the map says, passenger or not."""
    tasks = task(1, ABOARD if aboard else 3, 0)
    for column in range(6):
        for row in range(6):
            if (column, row) in WALLS:
                continue
            there = way(LANDMARKS[0], (column, row))
            for action, (dx, dy) in {STAY: (0, 0), **MOVES}.items():
                after = (column + dx, row + dy)
                blocked = after in WALLS or not (0 <= after[0] < 6 and 0 <= after[1] < 6)
                step = drive(tasks, [*there, action])[-1]
                assert observed(step.next_obs) == ((column, row) if blocked else after, aboard)


def test_a_passenger_is_picked_up_and_dropped_off_at_the_right_places_alone():
    goal, passenger, start = 1, 2, 0
    fetch, bring = (
        way(LANDMARKS[start], LANDMARKS[passenger]),
        way(LANDMARKS[passenger], LANDMARKS[goal]),
    )
    steps = drive(task(goal, passenger, start), [SERVE, *fetch, SERVE, SERVE, *bring, SERVE])
    aboard = [observed(step.next_obs)[1] for step in steps]
    assert aboard == [False] * (1 + len(fetch)) + [True] * (3 + len(bring))
    assert [step.reward.item() for step in steps] == pytest.approx(
        [-0.1] * (len(steps) - 1) + [2.0]
    )
    assert [bool(step.terminated) for step in steps] == [False] * (len(steps) - 1) + [True]
    assert [bool(step.success) for step in steps] == [False] * (len(steps) - 1) + [True]
    assert observed(steps[-1].obs) == (LANDMARKS[start], False)


def test_the_goal_does_not_take_an_empty_taxi():
    steps = drive(task(0, 2, 0), [SERVE, SERVE])
    assert not any(step.terminated for step in steps)


def test_a_passenger_aboard_is_there_again_in_the_next_episode():
    steps = drive(task(1, ABOARD, 0), shortest(1, ABOARD, 0))
    assert steps[-1].terminated
    assert observed(steps[-1].obs) == (LANDMARKS[0], True)


def test_the_horizon_ends_an_episode_with_a_penalty():
    steps = drive(task(1, 2, 0), [STAY] * 10, horizon=5)
    assert [bool(step.truncated) for step in steps] == [False, False, False, False, True] * 2
    assert [step.reward.item() for step in steps] == pytest.approx(
        [-0.1, -0.1, -0.1, -0.1, -2.0] * 2
    )
    actions = shortest(1, ABOARD, 0)
    last = drive(task(1, ABOARD, 0), actions, horizon=len(actions))[-1]
    assert last.terminated
    assert not last.truncated
    assert last.reward.item() == 2


@pytest.mark.parametrize("horizon", [1500, 14])
def test_the_shortest_way_earns_the_optimum_in_every_task(horizon: int):
    family, late = make_family("taxi", horizon=horizon), 0
    for split in family.spec.splits:
        tasks = every_task(split)
        for row, optimum in enumerate(family.optimum(tasks).tolist()):
            actions = shortest(*places(tasks.params[row]))
            late += len(actions) > horizon
            steps = drive(tasks[row : row + 1], actions[:horizon], horizon=horizon)
            assert steps[-1].done
            assert sum(step.reward.item() for step in steps) == pytest.approx(optimum, abs=1e-5)
    assert (late > 0) == (horizon == 14)


def test_sixty_tasks_of_which_twelve_start_at_the_goal():
    rows = {
        split: [places(row) for row in every_task(split).params]
        for split in ("train", "validation", "test")
    }
    assert {split: len(tasks) for split, tasks in rows.items()} == {
        "train": 40,
        "validation": 8,
        "test": 12,
    }
    every = [row for tasks in rows.values() for row in tasks]
    assert len(set(every)) == 60
    assert all(goal != passenger for goal, passenger, _ in every)
    assert all(goal != start for goal, passenger, start in every if passenger == ABOARD)
    at_goal = {
        (goal, passenger, goal) for goal in range(4) for passenger in range(4) if passenger != goal
    }
    assert set(rows["test"]) == at_goal
    assert all(
        start == (goal + 1) % 4 and passenger not in (start, ABOARD)
        for goal, passenger, start in rows["validation"]
    )


def test_a_scene_shows_streets_and_landmarks():
    family, tasks = make_family("taxi"), task(2, 3, 0)
    steps = drive(tasks, shortest(2, 3, 0))
    scene = family.scene(tasks.params[0], torch.stack([step.next_obs[0, 0] for step in steps]))
    assert scene.path.tolist() == [list(observed(step.next_obs)[0]) for step in steps]
    assert scene.goal.tolist() == [list(LANDMARKS[2])]
    assert sorted(scene.others.tolist()) == sorted(list(LANDMARKS[place]) for place in (0, 1, 3))
    assert {(left + 0.5, bottom + 0.5) for left, bottom, _, _ in scene.walls.tolist()} == WALLS
