"""Four rooms against a map and a value iteration of the test's own."""

from __future__ import annotations

import functools

import pytest
import torch
from helpers import live
from scipy import stats
from torch import Tensor

from metarl.core.rng import Rng
from metarl.core.types import Step, Tasks
from metarl.experiments.building import make_family

UP, DOWN, LEFT, RIGHT = range(4)
DIRECTIONS = [(0, 1), (0, -1), (-1, 0), (1, 0)]
EAST_DOORWAY = (9, 5)


def inside(column: int, row: int) -> bool:
    """Rooms of 5 × 5 cells left, 5 × 6 and 5 × 4 cells right, and four doorways."""
    room = column not in (0, 6, 12) and row not in (0, 12, 6 if column < 6 else 5)
    return room or (column, row) in ((6, 9), (6, 2), (2, 6), EAST_DOORWAY)


CELLS = [
    (column, row) for row in range(12, -1, -1) for column in range(13) if inside(column, row)
]  # as one reads
NUMBER = {cell: place for place, cell in enumerate(CELLS)}


def neighbours(cell: tuple[int, int]) -> list[int]:
    around = ((cell[0] + dx, cell[1] + dy) for dx, dy in DIRECTIONS)
    return [NUMBER[other] for other in around if other in NUMBER]


@functools.cache
def transitions() -> Tensor:
    """P [S, A, S]: with probability ⅓ a successful move slips on to a random neighbor."""
    probability = torch.zeros(len(CELLS), 4, len(CELLS), dtype=torch.float64)
    for place, (column, row) in enumerate(CELLS):
        for action, (dx, dy) in enumerate(DIRECTIONS):
            after = (column + dx, row + dy)
            if after not in NUMBER:
                probability[place, action, place] = 1
                continue
            probability[place, action, NUMBER[after]] = 2 / 3
            for other in neighbours(after):
                probability[place, action, other] += 1 / 3 / len(neighbours(after))
    return probability


def steps_to(goal: tuple[int, int]) -> Tensor:
    """[S] float64: expected steps to the goal."""
    probability, steps = transitions(), torch.zeros(len(CELLS), dtype=torch.float64)
    for _ in range(1000):
        after = 1 + (probability @ steps).amin(1)
        after[NUMBER[goal]] = 0
        if (after - steps).abs().max() < 1e-9:
            return after
        steps = after
    raise AssertionError("value iteration did not converge")


def goal_tasks(goal: tuple[int, int], rows: int = 1) -> Tasks:
    return Tasks(
        torch.tensor([goal], dtype=torch.float32).expand(rows, -1), torch.arange(rows), "test"
    )


def follow(policy: Tensor, goal: tuple[int, int], rows: int, horizon: int) -> Step:
    """Steps [T, N, 1, …] of lanes that act by `policy` [S]."""
    env = make_family("four-rooms", horizon=horizon).make(1)
    obs, steps = env.reset(goal_tasks(goal, rows), Rng(0)), []
    for _ in range(horizon):
        steps.append(env.step(policy[obs.argmax(-1)]))
        obs = steps[-1].obs
    parts = ("obs", "next_obs", "reward", "terminated", "truncated")
    return Step(**{part: torch.stack([getattr(step, part) for step in steps]) for part in parts})


# -------------------------------------------------------------------------------------------------


def test_the_map_has_104_cells_numbered_as_one_reads():
    assert len(CELLS) == 104
    assert NUMBER[EAST_DOORWAY] == 62
    family = make_family("four-rooms")
    every = torch.eye(104)
    assert family.scene(torch.tensor(EAST_DOORWAY).float(), every).path.tolist() == [
        list(cell) for cell in CELLS
    ]


def test_moves_follow_the_map_and_slip():
    """χ² of the successors of every cell and action under a random policy."""
    family, expected = make_family("four-rooms", horizon=50), transitions()
    tasks = goal_tasks(EAST_DOORWAY, 4000)
    rollout, _ = live(family, tasks, 1)
    valid = rollout.valid.flatten()
    place = (rollout.inputs.obs.argmax(-1) * 4 + rollout.action).flatten()[valid]
    successor = rollout.next_obs.argmax(-1).flatten()[valid]
    counts = torch.zeros(104 * 4, 104).index_put_(
        (place, successor), torch.tensor(1.0), accumulate=True
    )
    counts = counts.view(104, 4, 104).double()
    assert counts[expected == 0].eq(0).all()
    p_values = []
    for place in range(104):
        for action in range(4):
            possible, met = expected[place, action] > 0, counts[place, action]
            if possible.sum() > 1 and met.sum() > 100:
                wanted = met.sum() * expected[place, action][possible]
                p_values.append(stats.chisquare(met[possible].numpy(), wanted.numpy()).pvalue)
    assert len(p_values) > 250
    assert min(p_values) * len(p_values) > 1e-3
    assert stats.kstest(p_values, "uniform").pvalue > 1e-4


def test_the_optimal_policy_needs_the_published_steps():
    """8.39 to the east doorway from a uniform start, by value iteration and by walking."""
    steps = steps_to(EAST_DOORWAY)
    mean = float(steps.sum()) / 103
    assert mean == pytest.approx(8.392, abs=1e-3)

    policy = (transitions() @ steps).argmin(1)
    walked = (
        follow(policy, EAST_DOORWAY, 5000, horizon=100).terminated.squeeze(-1).long().argmax(0)
        + 1.0
    )
    assert float(walked.mean()) == pytest.approx(mean, abs=4 * float(walked.std()) / 5000**0.5)


def test_after_the_goal_has_moved_the_published_steps_are_needed():
    """9.50 on average, 8.36 to 11.43.

    The authors' starts still leave out the east doorway and not the new goal.
    """
    goals = (
        make_family("four-rooms", variant="option-critic-moved")
        .tasks("test", 21, Rng(0))
        .params.int()
        .tolist()
    )
    means = []
    for goal in {tuple(goal) for goal in goals}:
        steps = steps_to(goal)
        means.append(float(steps.sum() - steps[62]) / 103)
    assert len(means) == 21
    assert sum(means) / 21 == pytest.approx(9.499, abs=1e-3)
    assert (min(means), max(means)) == pytest.approx((8.36, 11.43), abs=5e-3)


def test_a_random_walker_needs_the_published_steps():
    """The sum of the probabilities to be under way, cut at 1000; 382 by a simulation elsewhere."""
    probability = transitions().mean(1)
    goal = NUMBER[EAST_DOORWAY]
    probability[goal] = 0
    under_way = torch.full((104,), 1 / 103, dtype=torch.float64)
    under_way[goal] = 0
    total = 0.0
    for _ in range(1000):
        total += float(under_way.sum())
        under_way = under_way @ probability
        under_way[goal] = 0
    assert total == pytest.approx(382, abs=5)
    family = make_family("four-rooms")
    rollout, _ = live(family, goal_tasks(EAST_DOORWAY, 400), 1)
    walked = rollout.valid.sum(0).double()
    assert float(walked.mean()) == pytest.approx(total, abs=4 * float(walked.std()) / 20)


def test_the_goal_pays_once_and_ends_the_episode():
    policy = (transitions() @ steps_to(EAST_DOORWAY)).argmin(1)
    step = follow(policy, EAST_DOORWAY, 200, horizon=40)
    there = step.next_obs.argmax(-1) == NUMBER[EAST_DOORWAY]
    assert step.terminated.equal(there)
    assert step.reward.equal(there.float())
    assert step.obs.argmax(-1).ne(NUMBER[EAST_DOORWAY]).all()


def test_episodes_start_anywhere_but_on_the_goal():
    goal = (3, 3)
    env = make_family("four-rooms", horizon=1).make(1)
    first = env.reset(goal_tasks(goal, 5000), Rng(0))
    second = env.step(torch.zeros(5000, 1, dtype=torch.long)).obs
    others = [place for place in range(104) if place != NUMBER[goal]]
    for obs in (first, second):
        counts = torch.bincount(obs.argmax(-1).flatten(), minlength=104)
        assert counts[NUMBER[goal]] == 0
        assert stats.chisquare(counts[others].numpy()).pvalue > 1e-3
    assert not first.equal(second)


@pytest.mark.parametrize("horizon", [1, 6, 1000])
def test_the_optimum_is_the_chance_to_arrive_in_time(horizon: int):
    """By recursion over the steps that are left; with many of them, sure."""
    family = make_family("four-rooms", horizon=horizon)
    tasks = Tasks(torch.tensor([EAST_DOORWAY, (3, 3)]).float(), torch.arange(2), "test")
    for goal, optimum in zip((EAST_DOORWAY, (3, 3)), family.optimum(tasks).tolist(), strict=True):
        arrives = torch.zeros(104, dtype=torch.float64)
        arrives[NUMBER[goal]] = 1
        for _ in range(min(horizon, 300)):
            arrives = (transitions() @ arrives).amax(1)
            arrives[NUMBER[goal]] = 1
        assert optimum == pytest.approx(float(arrives.sum() - 1) / 103, abs=1e-6)


def test_goals_are_held_out_in_three_rooms_and_ood_ones_lie_in_the_fourth():
    family = make_family("four-rooms")
    goals = {}
    for split in family.spec.splits:
        tasks = family.tasks(split, 200, Rng(0))
        goals[split] = set(map(tuple, tasks.params[tasks.copy == 0].int().tolist()))
    assert {split: len(cells) for split, cells in goals.items()} == {
        "train": 52,
        "validation": 16,
        "test": 16,
        "ood": 20,
    }
    assert set().union(*goals.values()) == set(CELLS)
    assert all(column > 6 and row < 5 for column, row in goals["ood"])
    rooms = [
        {cell for cell in CELLS if (cell[0] < 6, cell[1] > 6) == place}
        for place in ((True, True), (True, False))
    ]
    for room in rooms:
        assert len(goals["test"] & room) == len(goals["validation"] & room) == 5


def test_option_critic_has_one_goal_and_then_those_of_the_lower_right_room():
    for variant, size in (("option-critic", 1), ("option-critic-moved", 21)):
        family = make_family("four-rooms", variant=variant)
        assert family.spec.closed
        rows = [
            family.tasks(split, 21, Rng(0)).params.unique(dim=0) for split in family.spec.splits
        ]
        assert len(rows) == 3
        assert all(len(row) == size and row.equal(rows[0]) for row in rows)


def test_a_scene_shows_walls_where_no_cell_is():
    family = make_family("four-rooms")
    scene = family.scene(torch.tensor(EAST_DOORWAY).float(), torch.eye(104)[:3])
    middles = {
        (left + width / 2, bottom + height / 2)
        for left, bottom, width, height in scene.walls.tolist()
    }
    assert middles == {(column, row) for column in range(13) for row in range(13)} - set(CELLS)
    assert scene.goal.tolist() == [list(EAST_DOORWAY)]
