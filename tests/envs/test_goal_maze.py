"""The maze: its walls hold, its goals can be reached, and random walks hardly ever do."""

from __future__ import annotations

import pytest
import torch
from helpers import live
from scipy import stats
from torch import Tensor

from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.types import Tasks
from metarl.experiments.building import make_family

PLANS = {
    "u": ("...", "##.", "..."),
    "medium": ("..##..", "..#...", "#...##", "..#...", ".#..#.", "...#.."),
}
STARTS = {"u": ((1, 1), (1, 3)), "medium": ((1, 1), (6, 6))}
VARIANTS = sorted(PLANS)


def free(variant: str) -> set[tuple[int, int]]:
    """The cells, from the lower left corner of the wall around them."""
    lines = PLANS[variant][::-1]
    return {
        (x + 1, y + 1) for y, line in enumerate(lines) for x, mark in enumerate(line) if mark == "."
    }


def distances(variant: str, start: tuple[int, int]) -> dict[tuple[int, int], int]:
    """Cells from the start, breadth first."""
    reached, queue = {start: 0}, [start]
    for x, y in queue:
        for other in ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)):
            if other in free(variant) and other not in reached:
                reached[other] = reached[x, y] + 1
                queue.append(other)
    return reached


def in_a_free_cell(variant: str, position: Tensor) -> Tensor:
    table = torch.zeros(9, 9, dtype=torch.bool)
    for cell in free(variant):
        table[cell] = True
    x, y = position.floor().long().unbind(-1)
    return table[x, y]


def rows(goal: tuple[float, float], start: tuple[float, float], count: int = 1) -> Tasks:
    return Tasks(torch.tensor([[*goal, *start]]).expand(count, -1), torch.arange(count), "test")


def inertial(family: Family, tasks: Tasks, lanes: int, steps: int) -> Tensor:
    """Positions [T, N, M, 2], before and after each step, of walkers that keep a direction."""
    env, generator = family.make(lanes), torch.Generator().manual_seed(0)
    way = [env.reset(tasks, Rng(0))]
    action = torch.zeros(len(tasks), lanes, 2)
    for _ in range(steps):
        turn = torch.rand(len(tasks), lanes, 1, generator=generator) < 0.15
        action = torch.where(
            turn, 3 * torch.rand(len(tasks), lanes, 2, generator=generator) - 1.5, action
        )
        way.append(env.step(action).next_obs)
    return torch.stack(way)


@pytest.mark.parametrize("step_size", [0.2, 0.5])
@pytest.mark.parametrize("variant", VARIANTS)
def test_walls_hold_and_nobody_tunnels(variant: str, step_size: float):
    """Every position is in a free cell, and so is the corner of every move, along x, then y."""
    family = make_family("goal-maze", variant=variant, step_size=step_size, horizon=400)
    way = inertial(family, family.tasks("train", 50, Rng(0)), 20, 399)
    assert in_a_free_cell(variant, way).all()
    corner = torch.stack([way[1:, ..., 0], way[:-1, ..., 1]], dim=-1)
    assert in_a_free_cell(variant, corner).all()
    assert (way[1:] - way[:-1]).abs().max() <= step_size + 2e-3
    reached = set(map(tuple, way.floor().long().flatten(0, 2).unique(dim=0).tolist()))
    assert reached == free(variant)


def test_free_moves_are_exact_and_walls_stop_them_along_their_axis_alone():
    family = make_family("goal-maze", radius=0.01)
    env = family.make(1)
    first = env.reset(rows((3.5, 3.5), (1.5, 1.5)), Rng(0))
    step = env.step(torch.tensor([[[0.5, -0.25]]]))
    torch.testing.assert_close(step.next_obs, first + torch.tensor([0.1, -0.05]))
    for _ in range(4):
        step = env.step(torch.tensor([[[0.5, -3.0]]]))
    torch.testing.assert_close(step.next_obs[..., 0], first[..., 0] + 0.5)
    assert step.next_obs[..., 1].item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_goal_can_be_reached_from_both_starts(variant: str):
    """From cell middle to cell middle along a shortest way, then to the goal."""
    family = make_family("goal-maze", variant=variant)
    for split, start in zip(("test", "ood"), STARTS[variant], strict=True):
        tasks = family.tasks(split, 200, Rng(0))
        away = [
            distances(variant, tuple(goal)) for goal in tasks.params[:, :2].floor().int().tolist()
        ]
        assert max(table[start] for table in away) == max(distances(variant, start).values())
        env = family.make(1)
        obs, met = env.reset(tasks, Rng(0)).squeeze(1), torch.zeros(200, dtype=torch.bool)
        aims = [start] * 200
        for _ in range(family.spec.horizon):
            targets = []
            for row in range(200):
                middle = torch.tensor(aims[row]) + 0.5
                if away[row][aims[row]] and (obs[row] - middle).abs().max() < 0.05:
                    x, y = aims[row]
                    around = [
                        cell
                        for cell in ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1))
                        if cell in away[row]
                    ]
                    aims[row] = min(around, key=away[row].__getitem__)
                    middle = torch.tensor(aims[row]) + 0.5
                targets.append(middle if away[row][aims[row]] else tasks.params[row, :2])
            step = env.step(((torch.stack(targets) - obs) / 0.2).unsqueeze(1))
            obs, met = step.next_obs.squeeze(1), met | step.success.squeeze(1)
        assert met.all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_chance_hardly_ever_reaches_far_goals(variant: str):
    family = make_family("goal-maze", variant=variant)
    start = STARTS[variant][0]
    tasks = family.tasks("test", 300, Rng(0))
    cells = map(tuple, tasks.params[:, :2].floor().int().tolist())
    far = torch.tensor([distances(variant, start)[cell] >= 4 for cell in cells])
    rollout, _ = live(family, tasks, 1, lanes=10)
    met = rollout.success.any(0)
    assert far.float().mean() > 0.4
    assert met[far].float().mean() < 0.03
    assert met[~far].float().mean() > 0.05


def test_rewards_are_those_of_hindsight():
    """−1 but within the radius, where the step succeeds; the episode goes on."""
    family = make_family("goal-maze")
    tasks = rows((1.6, 1.5), (1.5, 1.5), 50)
    rollout, _ = live(family, tasks, 2, lanes=4)
    distance = (rollout.next_obs - tasks.params[:, :2].unsqueeze(1)).norm(dim=-1)
    assert rollout.reward.equal((distance <= 0.3).float() - 1)
    assert rollout.success.equal(distance <= 0.3)
    assert 0.1 < rollout.success.float().mean() < 0.9
    assert rollout.truncated.all(-1).all(-1).nonzero().flatten().tolist() == [49, 99]
    assert not rollout.terminated.any()
    desired = tasks.params[:, : family.spec.goal_width].unsqueeze(1).expand_as(rollout.next_obs)
    achieved = rollout.next_obs[..., family.spec.part(family.spec.achieved_goal)]
    assert family.goal_reward(achieved, desired).equal(rollout.reward)


@pytest.mark.parametrize("split", ["train", "ood"])
def test_episodes_start_around_the_middle_of_the_start_cell(split: str):
    family = make_family("goal-maze", variant="medium", horizon=3)
    tasks = family.tasks(split, 500, Rng(0))
    middle = torch.tensor(STARTS["medium"][split == "ood"]) + 0.5
    assert tasks.params[:, 2:].eq(middle).all()
    rollout, _ = live(family, tasks, 2)
    first, second = rollout.inputs.obs[0], rollout.inputs.obs[3]
    for obs in (first, second):
        for axis in range(2):
            offset = (obs[..., axis] - middle[axis]).flatten()
            assert stats.kstest(offset.numpy(), "uniform", (-0.1, 0.2)).pvalue > 1e-3
    assert not first.equal(second)


@pytest.mark.parametrize("variant", VARIANTS)
def test_goals_are_uniform_on_the_free_cells(variant: str):
    goal = make_family("goal-maze", variant=variant).tasks("test", 5000, Rng(0)).params[:, :2]
    cells, counts = goal.floor().int().unique(dim=0, return_counts=True)
    assert set(map(tuple, cells.tolist())) == free(variant)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    for axis in range(2):
        assert stats.kstest(goal[:, axis].frac().numpy(), "uniform").pvalue > 1e-3


def test_a_scene_shows_the_walls():
    family = make_family("goal-maze")
    tasks = family.tasks("test", 1, Rng(0))
    rollout, _ = live(family, tasks, 1)
    scene = family.scene(tasks.params[0], rollout.inputs.obs[:, 0, 0])
    walls = {(left, bottom) for left, bottom, _, _ in scene.walls.tolist()}
    assert walls == {(x, y) for x in range(5) for y in range(5)} - free("u")
    assert scene.limits == (0, 5, 0, 5)
    assert scene.goal.equal(tasks.params[:, :2])
