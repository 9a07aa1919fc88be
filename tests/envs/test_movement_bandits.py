"""MovementBandits: observations, rewards, and the oracle that is known."""

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

STAY, RIGHT, LEFT, UP, DOWN = range(5)


def both(rows: int = 1) -> Tasks:
    """The first goal pays in half of the rows, the second in the others."""
    return Tasks(torch.eye(2).repeat_interleave(rows, 0), torch.arange(2 * rows), "test")


def parts(family: Family, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Position and both goals, each [..., 2], in the units of the square."""
    position, first, second = (
        400 * obs[..., family.spec.part(name)] for name in family.spec.observation
    )
    return position, first, second


def test_episodes_start_in_the_middle_before_goals_of_their_own():
    family = make_family("movement-bandits")
    rollout, _ = live(family, both(100), 2, lanes=10)
    assert rollout.truncated.all(-1).all(-1).nonzero().flatten().tolist() == [49, 99]
    assert not rollout.terminated.any()
    position, first, second = parts(family, rollout.inputs.obs)
    assert position[[0, 50]].eq(200).all()
    assert first[:50].eq(first[0]).all()
    drawn = torch.stack([first[0], second[0], first[50], second[50]]).flatten(1, 2)
    for goals in drawn.unbind(0):
        for axis in range(2):
            assert stats.kstest(goals[:, axis].numpy(), "uniform", (0, 400)).pvalue > 1e-3
    assert (drawn.flatten(1).corrcoef() - torch.eye(4)).abs().max() < 4 / 2000**0.5


def test_moves_are_of_twenty():
    family = make_family("movement-bandits")
    env = family.make(1)
    env.reset(both(), Rng(0))
    way = [(STAY, 0, 0), (RIGHT, 20, 0), (LEFT, 0, 0), (UP, 0, 20), (DOWN, 0, 0), (DOWN, 0, -20)]
    for action, x, y in way:
        position, _, _ = parts(family, env.step(torch.full((2, 1), action)).next_obs)
        torch.testing.assert_close(position, torch.tensor([200.0 + x, 200.0 + y]).expand(2, 1, 2))


def test_the_goal_of_the_task_pays_within_its_circle():
    family, tasks = make_family("movement-bandits"), both(300)
    rollout, _ = live(family, tasks, 2, lanes=2)
    position, first, second = parts(family, rollout.next_obs)
    goal = torch.where(tasks.params[:, :1].bool().unsqueeze(1), first, second)
    distance = (position - goal).norm(dim=-1)
    clear = (distance - 50).abs() > 1e-3
    assert rollout.reward[clear].equal((distance < 50)[clear].float())
    assert rollout.reward.mean() > 0.02
    assert rollout.success.equal(rollout.reward.bool())


@pytest.mark.parametrize("horizon", [50, 4])
def test_the_oracle_walks_as_the_optimum_says(horizon: int):
    """Along the axis with the longer way left; 43.82 in 50 steps by a simulation elsewhere."""
    family, tasks = make_family("movement-bandits", horizon=horizon), both(4000)
    env = family.make(1)
    obs, total = env.reset(tasks, Rng(0)), torch.zeros(len(tasks))
    for _ in range(horizon):
        position, first, second = parts(family, obs.squeeze(1))
        gap = torch.where(tasks.params[:, :1].bool(), first, second) - position
        sideways = gap[:, 0].abs() > gap[:, 1].abs()
        towards = torch.where(
            sideways, torch.where(gap[:, 0] > 0, RIGHT, LEFT), torch.where(gap[:, 1] > 0, UP, DOWN)
        )
        towards = towards.where(gap.norm(dim=-1) >= 50, STAY)
        step = env.step(towards.unsqueeze(1))
        total += step.reward.squeeze(1)
        obs = step.next_obs
    error = 4 * float(total.std()) / len(total) ** 0.5
    assert float(total.mean()) == pytest.approx(float(family.optimum(tasks)[0]), abs=error)
    if horizon == 50:
        assert float(family.optimum(tasks)[0]) == pytest.approx(43.82, abs=0.02)


def test_every_split_has_both_tasks_alike():
    family = make_family("movement-bandits")
    assert family.spec.closed
    for split in family.spec.splits:
        params = family.tasks(split, 6, Rng(1)).params
        assert [params[first : first + 2].sum(0).tolist() for first in (0, 2, 4)] == [
            [1.0, 1.0]
        ] * 3


def test_a_scene_tells_the_goals_apart():
    family, tasks = make_family("movement-bandits"), both()
    rollout, _ = live(family, tasks, 1)
    for row in range(2):
        obs = rollout.inputs.obs[:, row, 0]
        scene = family.scene(tasks.params[row], obs)
        assert scene.path.equal(obs[:, :2])
        assert scene.goal.flatten().equal(
            obs[0, family.spec.part(("first_goal", "second_goal")[row])]
        )
        assert scene.others.flatten().equal(
            obs[0, family.spec.part(("second_goal", "first_goal")[row])]
        )
        assert scene.goal_radius == 50 / 400
