"""GridNavi against the arithmetic of its grid and the values that are known of it."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers import live
from torch import Tensor

from metarl.core.rng import Rng
from metarl.core.types import Step, Tasks
from metarl.experiments.building import make_family

CELLS = list(itertools.product(range(5), range(5)))
GOALS = [cell for cell in CELLS if max(cell) > 1]
STAY, UP, RIGHT, DOWN, LEFT = range(5)


def every_goal(split: str = "test", **options: str) -> Tasks:
    """Each of the split's goals once."""
    tasks = make_family("gridnavi", **options).tasks(split, 21, Rng(0))
    return tasks if options.get("variant", "all") == "all" else tasks[tasks.copy == 0]


def walk(tasks: Tasks, actions: list[int] | Tensor, **options: int) -> tuple[Tensor, Step]:
    """First observation [N, 1, 2] and what `actions` [T] or [T, N] led to: steps [T, N, 1, …]."""
    env = make_family("gridnavi", **options).make(1)
    obs = env.reset(tasks, Rng(0))
    chosen = torch.as_tensor(actions).view(len(actions), -1, 1).expand(-1, len(tasks), 1)
    steps = [env.step(action) for action in chosen]
    parts = ("obs", "next_obs", "reward", "terminated", "truncated", "success")
    return obs, Step(
        **{part: torch.stack([getattr(step, part) for step in steps]) for part in parts}
    )


def test_moves_lead_to_neighbours_and_the_border_holds():
    way = [
        (UP, (0, 1)),
        (RIGHT, (1, 1)),
        (STAY, (1, 1)),
        (DOWN, (1, 0)),
        (DOWN, (1, 0)),
        (LEFT, (0, 0)),
        (LEFT, (0, 0)),
    ]
    obs, step = walk(every_goal(), [action for action, _ in way])
    assert obs.eq(0).all()
    for position, (_, cell) in zip(step.next_obs, way, strict=True):
        assert position.eq(torch.tensor(cell)).all()
    far = walk(every_goal(), [UP] * 6 + [RIGHT] * 6)[1].next_obs[-1]
    assert far.eq(4).all()


def test_the_reward_is_one_on_the_goal_alone_and_the_episode_goes_on():
    """A way over the whole grid, row after row, meets every cell once."""
    snake = ([RIGHT] * 4 + [UP] + [LEFT] * 4 + [UP]) * 2 + [RIGHT] * 4
    tasks = every_goal()
    _, step = walk(tasks, snake, horizon=30)
    there = (step.next_obs == tasks.params.unsqueeze(1)).all(-1)
    assert there.sum(0).eq(1).all()
    torch.testing.assert_close(step.reward, torch.where(there, 1.0, -0.1))
    assert step.success.equal(there)
    assert not step.done.any()
    family = make_family("gridnavi")
    desired = tasks.params.unsqueeze(1).expand_as(step.next_obs)
    assert step.reward.equal(family.goal_reward(step.next_obs, desired))


def test_episodes_are_truncated_at_the_horizon_and_start_in_the_corner():
    _, step = walk(every_goal(), [UP] * 31)
    assert step.truncated.squeeze(-1).all(-1).nonzero().flatten().tolist() == [14, 29]
    assert not step.terminated.any()
    assert step.obs[[14, 29]].eq(0).all()
    assert step.next_obs[14, ..., 1].eq(4).all()
    assert step.next_obs[15, ..., 1].eq(1).all()


def test_the_oracle_has_the_published_mean_and_its_way_realises_it():
    """44.286 over four episodes: right until the goal's column, up until its row, then stay."""
    family, tasks = make_family("gridnavi"), every_goal()
    column, row = tasks.params.long().T
    time = torch.arange(15).unsqueeze(1)
    way = torch.where(time < column, RIGHT, torch.where(time < column + row, UP, STAY))
    returns = walk(tasks, way)[1].reward.sum(0).squeeze(-1)
    torch.testing.assert_close(returns, family.optimum(tasks))
    assert 4 * float(family.optimum(tasks).mean()) == pytest.approx(44.286, abs=5e-4)
    assert 4 * family.mean_optimum == pytest.approx(44.286, abs=5e-4)
    assert not hasattr(make_family("gridnavi", variant="held-out"), "mean_optimum")


def test_a_short_horizon_leaves_the_oracle_on_its_way():
    family, tasks = make_family("gridnavi", horizon=3), every_goal()
    near = tasks.params.sum(-1)
    torch.testing.assert_close(
        family.optimum(tasks), torch.where(near == 2, 1.9, torch.where(near == 3, 0.8, -0.3))
    )


def test_a_random_walker_earns_the_published_return():
    """−4.67 over four episodes: the distribution of the walker's cell, in every step and task."""
    family, tasks = make_family("gridnavi"), every_goal()
    transition = torch.zeros(25, 25, dtype=torch.float64)
    for place, (column, row) in enumerate(CELLS):
        for dx, dy in [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)]:
            after = (column + dx, row + dy)
            transition[place, CELLS.index(after if after in CELLS else (column, row))] += 0.2
    chance, on_goal = torch.eye(25, dtype=torch.float64)[0], 0.0
    for _ in range(15):
        chance = chance @ transition
        on_goal += float(sum(chance[CELLS.index(goal)] for goal in GOALS)) / len(GOALS)
    expected = 4 * (1.1 * on_goal - 0.1 * 15)
    assert expected == pytest.approx(-4.67, abs=0.02)
    rollout, _ = live(family, tasks, 4, lanes=1000)
    assert float(rollout.episode_returns().sum(0).mean()) == pytest.approx(expected, abs=0.1)


def test_the_bayes_optimum_is_realised_by_one_search():
    """37.214 = 4.0 + 3 · 11.071.

    No search can meet more than one new goal cell a step, from step 2 on: this one does, and
    stays at the goal. The seven cells that it misses lie on one shortest path, so that walking
    there after a search in vain loses nothing.
    """
    search = [RIGHT] * 4 + [UP, LEFT, LEFT, UP, LEFT, UP, RIGHT, RIGHT, DOWN, RIGHT, UP]
    family, tasks = make_family("gridnavi"), every_goal()
    met = walk(tasks, search)[1].success.squeeze(-1)
    unpaid = torch.where(met.any(0), met.long().argmax(0), 15)
    assert sorted(unpaid.tolist()) == [*range(1, 15), *[15] * 7]
    searching = float((15 - 1.1 * unpaid).mean())
    assert searching == pytest.approx(4.0)

    missed = tasks[~met.any(0)]
    returns = walk(missed, [UP] * 4 + [RIGHT] * 4 + [STAY] * 7)[1]
    first = returns.success.long().argmax(0)
    torch.testing.assert_close((15 - 1.1 * first).squeeze(-1), family.optimum(missed))
    assert searching + 3 * float(family.optimum(tasks).mean()) == pytest.approx(37.214, abs=5e-4)


def test_posterior_sampling_earns_what_is_known_of_it():
    """0.55, 2.36, 3.87, 5.23 in four episodes.

    Each walks to a goal drawn from those that are not ruled out, and stays where it is rewarded on
    the way.
    """
    rows, generator = 6000, torch.Generator().manual_seed(0)
    family, goals = make_family("gridnavi"), torch.tensor(GOALS).float()
    env, possible, means = family.make(1), torch.ones(rows, len(GOALS)), []
    position = env.reset(family.tasks("test", rows, Rng(0)), Rng(0)).squeeze(1)
    for _ in range(4):
        aim, total = (
            goals[possible.multinomial(1, generator=generator).squeeze(1)],
            torch.zeros(rows),
        )
        for _ in range(15):
            gap = aim - position
            sideways = (gap[:, 0] != 0) & (
                (gap[:, 1] == 0) | (torch.rand(rows, generator=generator) < 0.5)
            )
            along = torch.where(sideways, gap[:, 0], gap[:, 1])
            action = torch.where(
                sideways, torch.where(along > 0, RIGHT, LEFT), torch.where(along > 0, UP, DOWN)
            )
            step = env.step(action.where(along != 0, STAY).unsqueeze(1))
            total += step.reward.squeeze(1)
            met = (goals == step.next_obs).all(-1)
            possible = torch.where(step.success, met.float(), possible * ~met)
            position = step.obs.squeeze(1)
            aim = torch.where(step.success, position, aim)
        means.append(float(total.mean()))
    assert means == pytest.approx([0.55, 2.36, 3.87, 5.23], abs=0.3)


def test_goals_are_all_but_the_start_corner_or_held_out():
    assert sorted(map(tuple, every_goal().params.int().tolist())) == GOALS
    assert make_family("gridnavi").spec.closed
    assert not make_family("gridnavi", variant="held-out").spec.closed
    held = [every_goal(split, variant="held-out") for split in ("train", "validation", "test")]
    assert [len(tasks) for tasks in held] == [15, 3, 3]
    assert sorted(tuple(goal) for tasks in held for goal in tasks.params.int().tolist()) == GOALS


def test_every_goal_returns_before_any_does_so_twice():
    params = make_family("gridnavi").tasks("train", 43, Rng(3)).params
    assert len(params[:21].unique(dim=0)) == len(params[21:42].unique(dim=0)) == 21


def test_a_scene_shows_the_way_and_the_goal():
    family, tasks = make_family("gridnavi"), every_goal()[:1]
    _, step = walk(tasks, [UP, RIGHT])
    scene = family.scene(tasks.params[0], step.next_obs[:, 0, 0])
    assert scene.path.tolist() == [[0.0, 1.0], [1.0, 1.0]]
    assert scene.goal.equal(tasks.params)
