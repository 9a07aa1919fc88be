"""Navigation with a dense and with a sparse reward, against geometry and known oracles."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers import live
from scipy import stats
from torch import Tensor

from metarl.core.rng import Rng
from metarl.core.types import Step, Tasks
from metarl.experiments.building import make_family


def goals(*places: tuple[float, float]) -> Tasks:
    return Tasks(torch.tensor(places), torch.arange(len(places)), "test")


def step_point(
    goal: tuple[float, float], moves: list[list[float]], name: str = "point", **options: Any
) -> list[Step]:
    env = make_family(name, **options).make(1)
    env.reset(goals(goal), Rng(0))
    return [env.step(torch.tensor([[move]])) for move in moves]


def straight(name: str, tasks: Tasks, lanes: int, **options: Any) -> tuple[Tensor, Tensor]:
    """An episode straight towards the goal: rewards and whether it goes on [H, N, M]."""
    family = make_family(name, **options)
    env, goal = family.make(lanes), tasks.params.unsqueeze(1)
    obs, rewards, running = (
        env.reset(tasks, Rng(0)),
        [],
        [torch.ones(len(tasks), lanes, dtype=torch.bool)],
    )
    for _ in range(family.spec.horizon):
        step = env.step((goal - obs) / family.config.step_size)
        rewards.append(step.reward)
        running.append(running[-1] & ~step.done)
        obs = step.next_obs
    return torch.stack(rewards), torch.stack(running[:-1])


def error_of(x: Tensor) -> float:
    """Four standard errors of the mean of independent x."""
    return 4 * float(x.std()) / math.sqrt(x.numel())


# -------------------------------------------------------------------------------------------------
# Dense reward


def test_moves_are_clipped_and_paid_by_distance():
    steps = step_point((0.3, 0.4), [[0.0, 0.0], [5.0, -0.5]])
    assert steps[0].reward.item() == pytest.approx(-0.5)
    torch.testing.assert_close(steps[1].next_obs.flatten(), torch.tensor([0.1, -0.05]))
    assert steps[1].reward.item() == pytest.approx(-math.hypot(0.2, 0.45))
    assert steps[1].metrics["distance"].item() == pytest.approx(math.hypot(0.2, 0.45))


def test_arriving_terminates_and_starts_again_at_the_origin():
    """Both gaps must be below the arrival distance; the other lanes' clocks go on."""
    steps = step_point((0.105, 0.1), [[1.0, 0.8], [0.0, 0.2], [0.0, 0.0]])
    assert [bool(step.terminated) for step in steps] == [False, True, False]
    assert steps[1].success.item()
    assert steps[1].obs.eq(0).all()
    torch.testing.assert_close(steps[1].next_obs.flatten(), torch.tensor([0.1, 0.1]))
    assert steps[2].next_obs.eq(0).all()


def test_the_horizon_truncates():
    steps = step_point((0.5, 0.5), [[0.0, 0.0]] * 6, horizon=3)
    assert [bool(step.truncated) for step in steps] == [False, False, True] * 2
    assert not any(step.terminated for step in steps)


def test_each_lane_has_its_own_clock():
    """The first lane arrives at its fourth step, the second is truncated at its fifth."""
    env = make_family("point", horizon=5).make(2)
    env.reset(goals((0.4, 0.0)), Rng(0))
    move = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    ended = [env.step(move if time < 4 else -move) for time in range(9)]
    assert [step.terminated[0].tolist() for step in ended].index([True, False]) == 3
    assert [step.truncated[0].tolist() for step in ended] == [
        [False, time == 4] for time in range(8)
    ] + [[True, False]]


def test_goals_are_in_the_square_and_ood_goals_outside():
    family = make_family("point", goal_range=0.5)
    inside, outside = (family.tasks(split, 5000, Rng(0)).params for split in ("test", "ood"))
    assert stats.kstest(inside[:, 0].numpy(), "uniform", (-0.5, 1)).pvalue > 1e-3
    half_width = outside.abs().max(-1).values
    assert stats.kstest(half_width.numpy(), "uniform", (0.5, 0.5)).pvalue > 1e-3
    assert float(half_width.min()) > 0.5


@pytest.mark.parametrize(("variant", "mean"), [("maml", -0.507), ("pearl", -5.18)])
def test_the_optimum_has_the_published_mean(variant: str, mean: float):
    """Clip to the goal; goals, and with PEARL starts, uniform."""
    family = make_family("point", variant=variant)
    optimum = family.optimum(family.tasks("test", 20_000 if variant == "maml" else 4_000, Rng(0)))
    assert abs(float(optimum.mean()) - mean) < 0.005 + error_of(optimum)


def test_the_optimum_is_a_return_and_no_detour_beats_it():
    family = make_family("point")
    by_hand = [-math.hypot(0.15, 0.0) - 0.05, 0.0, -0.2 - 0.1]
    torch.testing.assert_close(
        family.optimum(goals((0.25, 0.1), (0.0, 0.0), (-0.05, 0.3))), torch.tensor(by_hand)
    )


@pytest.mark.parametrize("variant", ["maml", "pearl"])
def test_the_straight_way_earns_the_optimum_from_every_start(variant: str):
    family = make_family("point", variant=variant)
    tasks = family.tasks("test", 10, Rng(0))
    reward, running = straight("point", tasks, 4000, variant=variant)
    returns = (reward * running).sum(0)
    gap = (returns.mean(1) - family.optimum(tasks)).abs()
    assert (gap < 2e-3 + 4 * returns.std(1) / math.sqrt(4000)).all()


def test_pearl_starts_anywhere_and_ends_with_the_horizon_alone():
    family = make_family("point", variant="pearl")
    rollout, _ = live(family, family.tasks("train", 100, Rng(0)), 3, lanes=20)
    assert rollout.truncated.nonzero()[:, 0].unique().tolist() == [19, 39, 59]
    assert not rollout.terminated.any()
    assert rollout.success is None
    starts = rollout.inputs.obs[[0, 20, 40]]
    for axis in range(2):
        for episode in starts:
            assert (
                stats.kstest(episode[..., axis].flatten().numpy(), "uniform", (-1, 2)).pvalue > 1e-3
            )
    pair = torch.stack([starts[0].flatten(), starts[1].flatten()])
    assert abs(float(pair.corrcoef()[0, 1])) < 4 / math.sqrt(pair.shape[1])


# -------------------------------------------------------------------------------------------------
# Sparse reward


def test_the_reward_is_sparse_and_the_training_reward_dense():
    """Towards a goal at distance 1: nothing until 0.8, then 1 − d; beyond the goal it falls."""
    steps = step_point((0.0, 1.0), [[0.0, 1.0]] * 13, "sparse-point")
    paid = {9: 0.9, 10: 1.0, 11: 0.9}
    for time, step in enumerate(steps, start=1):
        distance = abs(1 - 0.1 * time)
        if abs(distance - 0.2) > 1e-6:  # on the rim, rounding decides
            assert step.reward.item() == pytest.approx(paid.get(time, 0.0), abs=1e-6)
            assert bool(step.success) == (time in paid)
        assert step.training_reward.item() == pytest.approx(-distance, abs=1e-6)
    assert (
        step_point((0.0, 1.0), [[0.0, 1.0]], "sparse-point", variant="varibad")[0].training_reward
        is None
    )


@pytest.mark.parametrize(("variant", "horizon"), [("pearl", 20), ("varibad", 100)])
def test_sparse_episodes_last_their_horizon_and_start_at_the_origin(variant: str, horizon: int):
    steps = step_point((0.0, 1.0), [[0.3, 0.0]] * (horizon + 1), "sparse-point", variant=variant)
    assert [time for time, step in enumerate(steps, start=1) if step.truncated] == [horizon]
    assert not any(step.terminated for step in steps)
    assert steps[horizon - 1].obs.eq(0).all()
    assert steps[horizon - 1].next_obs[0, 0, 0].item() == pytest.approx(0.03 * horizon, rel=1e-5)
    assert steps[horizon].next_obs[0, 0, 0].item() == pytest.approx(0.03)


def test_sparse_goals_lie_evenly_on_the_half_circle_and_a_fifth_is_for_test():
    family = make_family("sparse-point")
    rows = {split: family.tasks(split, 500, Rng(0)) for split in family.spec.splits}
    every = {split: tasks.params[tasks.copy == 0] for split, tasks in rows.items()}
    angle = {
        split: torch.atan2(goal[:, 1], goal[:, 0]).sort().values for split, goal in every.items()
    }
    assert {split: len(goal) for split, goal in every.items()} == {
        "train": 80,
        "validation": 99,
        "test": 20,
        "ood": 99,
    }
    spaced = torch.linspace(0, math.pi, 100)
    torch.testing.assert_close(
        torch.cat([angle["train"], angle["test"]]).sort().values, spaced, atol=1e-6, rtol=0
    )
    torch.testing.assert_close(angle["validation"], (spaced[1:] + spaced[:-1]) / 2)
    assert (angle["ood"] < 0).all()
    again = family.tasks("test", 20, Rng(7)).params
    assert sorted(map(tuple, again.tolist())) == sorted(map(tuple, every["test"].tolist()))


def test_varibad_goals_are_uniform_on_the_half_circle():
    family = make_family("sparse-point", variant="varibad")
    for split, sign in (("train", 1), ("test", 1), ("ood", -1)):
        goal = family.tasks(split, 5000, Rng(0)).params
        torch.testing.assert_close(goal.norm(dim=-1), torch.ones(5000))
        angle = sign * torch.atan2(goal[:, 1], goal[:, 0])
        assert stats.kstest(angle.numpy(), "uniform", (0, math.pi)).pvalue > 1e-3


def test_the_sparse_oracle_has_the_published_mean():
    """13.36 over PEARL's hundred goals.

    The two ends meet the rim of the circle after eight whole moves. There rounding decides over 0.8
    of reward: 0.016 of the mean.
    """
    family = make_family("sparse-point")
    optimum = torch.cat(
        [
            family.optimum(family.tasks(split, size, Rng(0)))
            for split, size in (("train", 80), ("test", 20))
        ]
    )
    assert 13.358 < float(optimum.mean()) < 13.376


def test_the_sparse_optimum_is_the_sum_over_the_straight_way():
    """d after t steps is ‖max(|goal| − t/10, 0)‖, whichever order the axes are served in."""
    family = make_family("sparse-point", variant="varibad")
    tasks = family.tasks("test", 200, Rng(0))
    time = torch.arange(1, 101).view(-1, 1, 1) / 10
    distance = (tasks.params.double().abs() - time).clamp(min=0).norm(dim=-1)
    expected = torch.where(distance <= 0.2, 1 - distance, 0.0).sum(0)
    torch.testing.assert_close(family.optimum(tasks).double(), expected, atol=1e-4, rtol=0)
    reward, _ = straight("sparse-point", tasks, 1, variant="varibad")
    torch.testing.assert_close(family.optimum(tasks), reward.sum(0).squeeze(1))


# -------------------------------------------------------------------------------------------------
# Both


@pytest.mark.parametrize(
    ("name", "variant"),
    [("point", "maml"), ("point", "pearl"), ("sparse-point", "pearl"), ("sparse-point", "varibad")],
)
def test_goal_rewards_are_the_rewards_of_the_goal(name: str, variant: str):
    family = make_family(name, variant=variant)
    tasks = family.tasks("train", 20, Rng(0))
    rollout, _ = live(family, tasks, 1, lanes=3)
    achieved = rollout.next_obs[..., family.spec.part(family.spec.achieved_goal)]
    desired = tasks.params[:, : family.spec.goal_width].unsqueeze(1).expand_as(achieved)
    torch.testing.assert_close(family.goal_reward(achieved, desired), rollout.reward)


@pytest.mark.parametrize("name", ["point", "sparse-point"])
def test_a_scene_shows_the_way_and_the_goal(name: str):
    family = make_family(name)
    tasks = family.tasks("ood", 1, Rng(0))
    rollout, _ = live(family, tasks, 1)
    scene = family.scene(tasks.params[0], rollout.inputs.obs[:, 0, 0])
    assert scene.path.equal(rollout.inputs.obs[:, 0, 0])
    left, right, bottom, top = scene.limits
    assert (scene.goal >= torch.tensor([left, bottom])).all()
    assert (scene.goal <= torch.tensor([right, top])).all()
    if scene.others is not None:
        assert (scene.others - scene.goal).norm(dim=-1).min() < 0.12
