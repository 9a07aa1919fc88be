"""Gymnasium-Robotics' goals beside the package itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gymnasium
import gymnasium_robotics
import numpy as np
import pytest
import torch
from beside import lived, same_by_hand

from metarl.checker.check import check_family
from metarl.config.files import load_config
from metarl.core.rng import Rng
from metarl.experiments.building import make_family
from metarl.experiments.runs import train

gymnasium.register_envs(gymnasium_robotics)
OFFICIAL = {
    "fetch-reach": "FetchReach-v4",
    "fetch-push": "FetchPush-v4",
    "point-maze": "PointMaze_UMaze-v3",
}
HORIZON = 12


def official(name: str, reward: str = "sparse") -> Any:
    return gymnasium.make(OFFICIAL[name], reward_type=reward, max_episode_steps=HORIZON)


def flat(seen: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([seen["achieved_goal"], seen["observation"]]).astype(np.float32)


# -------------------------------------------------------------------------------------------------
# Tasks


@pytest.mark.parametrize("name", OFFICIAL)
def test_goals_are_drawn_as_the_package_draws_them(name: str):
    """With the same generator, the same goals."""
    env, family = official(name).unwrapped, make_family(name)
    for seed in range(20):
        env._np_random = np.random.default_rng(seed)
        goal = (
            env._sample_goal()
            if name != "point-maze"
            else env.add_xy_position_noise(env.generate_target_goal())
        )
        np.testing.assert_array_equal(family.row("train", np.random.default_rng(seed)), goal)


@pytest.mark.parametrize("name", OFFICIAL)
def test_goals_are_shown_to_nobody_who_is_not_shown_the_row(name: str):
    spec = make_family(name).spec
    assert list(spec.observation) == ["achieved_goal", "observation"]
    assert spec.goal_width == spec.task_width == spec.observation["achieved_goal"]


# -------------------------------------------------------------------------------------------------
# Episodes


@pytest.mark.parametrize("reward", ["sparse", "dense"])
@pytest.mark.parametrize("name", OFFICIAL)
def test_episodes_are_the_packages_with_this_goal(name: str, reward: str):
    """The maze is told the goal's cell, so that the ball starts in another."""
    family = make_family(name, reward=reward, horizon=HORIZON)
    kept: list[Any] = []

    def begin(task, seed):
        env, goal = official(name, reward), task.params[0].double().numpy()
        cell = (
            {"goal_cell": env.unwrapped.maze.cell_xy_to_rowcol(goal)}
            if name == "point-maze"
            else None
        )
        seen, _ = env.reset(seed=seed, options=cell)
        env.unwrapped.goal = goal
        kept.append(env)
        return env, seen

    told = "success" if name == "point-maze" else "is_success"
    ends = same_by_hand(family, family.tasks("test", 2, Rng(0)), HORIZON + 3, begin, flat, told)
    assert ends == 4


@pytest.mark.parametrize("reward", ["sparse", "dense"])
@pytest.mark.parametrize("name", OFFICIAL)
def test_rewards_for_other_goals_are_the_packages(name: str, reward: str):
    family, env = make_family(name, reward=reward), official(name, reward).unwrapped
    generator = np.random.default_rng(0)
    desired = generator.normal(size=(500, family.spec.goal_width)).astype(np.float32)
    achieved = desired + generator.normal(size=desired.shape).astype(np.float32) * generator.choice(
        [0.02, 0.3], (500, 1)
    )
    ours = family.goal_reward(torch.from_numpy(achieved).float(), torch.from_numpy(desired))
    theirs = env.compute_reward(achieved.astype(np.float32), desired, {})
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-6)
    assert len(np.unique(ours.numpy())) == 2 or reward == "dense"


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_reward_is_that_for_what_was_achieved(name: str):
    family = make_family(name, reward="dense", horizon=HORIZON)
    tasks = family.tasks("test", 3, Rng(0))
    _, _, step = lived(family, tasks, 2 * HORIZON)
    achieved = step.next_obs[..., family.spec.part("achieved_goal")]
    expected = family.goal_reward(achieved, tasks.params.unsqueeze(1).expand_as(achieved))
    torch.testing.assert_close(step.reward, expected, rtol=1e-4, atol=1e-5)


def test_going_to_the_goal_succeeds():
    family = make_family("fetch-reach")
    tasks, env = family.tasks("test", 4, Rng(0)), family.make(1)
    obs = env.reset(tasks, Rng(0))
    for _ in range(30):
        shift = (10 * (tasks.params.unsqueeze(1) - obs[..., :3])).clamp(-1, 1)
        step = env.step(torch.cat([shift, torch.zeros_like(shift[..., :1])], dim=-1))
        distance = (step.next_obs[..., :3] - tasks.params.unsqueeze(1)).norm(dim=-1)
        assert torch.equal(step.success, distance < 0.05)
        assert torch.equal(step.reward, step.success.float() - 1)
        obs = step.obs
    assert step.success.all()


def test_the_ball_never_starts_in_the_goals_cell_but_in_every_other():
    family = make_family("point-maze")
    tasks = family.tasks("train", 1, Rng(0))
    cells = torch.from_numpy(family._cells[0]).float()
    start = family.make(60).reset(tasks, Rng(0))[0, :, :2]
    gap, cell = (start.unsqueeze(1) - cells).abs().amax(-1).min(1)
    assert float(gap.max()) <= 0.25
    assert set(cell.tolist()) == set(range(7)) - {int((tasks.params - cells).norm(dim=-1).argmin())}


@pytest.mark.parametrize(("variant", "free"), [("u", 7), ("medium", 26), ("large", 46)])
def test_mazes_have_their_cells_and_leave_no_file_behind(variant: str, free: int):
    before = set(Path(tempfile.gettempdir()).glob("ant_maze*"))
    family = make_family("point-maze", variant=variant)
    assert len(family._cells[0]) == free
    assert family.spec.horizon == {"u": 300, "medium": 600, "large": 800}[variant]
    assert set(Path(tempfile.gettempdir()).glob("ant_maze*")) <= before


@pytest.mark.parametrize(
    ("name", "reward", "horizon"),
    [("fetch-reach", "sparse", 10), ("fetch-push", "dense", 65), ("point-maze", "sparse", 60)],
)
def test_the_contract_is_kept(name: str, reward: str, horizon: int):
    report = check_family(make_family(name, reward=reward, horizon=horizon))
    assert report.ok, report


def test_goals_in_sight_are_trained_on_with_hindsight(tmp_path):
    """A few updates of the shipped configuration; its learning is measured, not tested."""
    config = load_config(
        "pearl/fetch-reach",
        ["env_steps=1200", "agent.updates=3", "validation_tasks=2", "test_tasks=2"],
    )
    scores = train(config, tmp_path / "run", quiet=True)["scores"]["test"]
    assert np.shape(scores["returns"]) == np.shape(scores["success"]) == (1, 1, 2)
