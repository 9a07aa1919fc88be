"""Meta-World's benchmarks beside the package itself."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Sequence
from typing import Any

import metaworld
import numpy as np
import pytest
import torch
from beside import lived, same_by_hand

from metarl import cli
from metarl.checker.check import check_family
from metarl.core.errors import MetaRLError
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.types import Tasks
from metarl.experiments.building import make_family

ALL = metaworld.ALL_V3_ENVIRONMENTS
GOAL = slice(36, 39)  # of an observation
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def ml10() -> metaworld.ML10:
    return metaworld.ML10(seed=0)


def rows(tasks: Sequence[Any]) -> list[tuple[float, ...]]:
    """The random vectors of the package's tasks, as float32."""
    return [
        tuple(pickle.loads(task.data)["rand_vec"].astype(np.float32).tolist()) for task in tasks
    ]


def beside(family: Family, tasks: Tasks, official: Sequence[Any], version: str = "v2") -> int:
    """Assert that `tasks` step as the package's own tasks; how many episodes ended."""

    def begin(task, seed):
        own = official[int(task.index)]
        env = ALL[own.env_name](reward_function_version=version)
        env.set_task(own)
        return env, env.reset()[0]

    flat = lambda seen: seen.astype(np.float32)  # noqa: E731
    return same_by_hand(family, tasks, 16, begin, flat, told="success", lanes=1)


# -------------------------------------------------------------------------------------------------
# Tasks


def test_the_tasks_of_ml1_are_the_packages_own_and_the_splits_disjoint():
    """`gymnasium.make_vec("Meta-World/ML1-train")` would give those of test."""
    family, official = (
        make_family("ml1", env="push-v3", goals_seed=3),
        metaworld.ML1("push-v3", seed=3),
    )
    drawn = {split: family.tasks(split, 50, Rng(0)) for split in SPLITS}
    for split, tasks in (("train", official.train_tasks), ("test", official.test_tasks)):
        by_index = dict(
            zip(drawn[split].index.tolist(), map(tuple, drawn[split].params.tolist()), strict=True)
        )
        assert [by_index[i] for i in range(50)] == rows(tasks)
    assert len(torch.cat([tasks.params for tasks in drawn.values()]).unique(dim=0)) == 150
    assert not family.spec.closed


def test_another_seed_of_goals_gives_other_goals():
    one, other = (
        make_family("ml1", goals_seed=seed).tasks("train", 50, Rng(0)).params for seed in (0, 5)
    )
    assert len(torch.cat([one, other]).unique(dim=0)) == 100


def test_ml10_holds_out_classes_for_test_and_goals_for_validation(ml10):
    family = make_family("ml10")
    drawn = {split: family.tasks(split, 500, Rng(0)) for split in SPLITS}
    for split, official in (("train", ml10.train_tasks), ("test", ml10.test_tasks)):
        names = [*ml10.train_classes, *ml10.test_classes]
        expected = {
            (float(names.index(task.env_name)), *row, *[0.0] * (6 - len(row)))
            for task, row in zip(official, rows(official), strict=True)
        }
        assert set(map(tuple, drawn[split].params.tolist())) == expected
    classes = {split: set(tasks.params[:, 0].tolist()) for split, tasks in drawn.items()}
    assert classes["train"] == classes["validation"] == set(range(10))
    assert [[*ml10.test_classes][int(number) - 10] for number in sorted(classes["test"])] == [
        "drawer-open-v3",
        "door-close-v3",
        "shelf-place-v3",
        "sweep-into-v3",
        "lever-pull-v3",
    ]
    found = torch.cat(
        [
            drawn[split].params[:n]
            for split, n in (("train", 500), ("validation", 500), ("test", 250))
        ]
    )
    assert len(found.unique(dim=0)) == 1250


def test_mt10_is_closed():
    family = make_family("mt10")
    assert family.spec.closed
    drawn = [family.tasks(split, 500, Rng(0)).params for split in SPLITS]
    assert all(
        {*map(tuple, drawn[0].tolist())} == {*map(tuple, params.tolist())} for params in drawn[1:]
    )
    assert torch.bincount(drawn[0][:, 0].long()).tolist() == [50] * 10


def test_rows_and_names_that_are_not_the_benchmarks_are_mistakes():
    family = make_family("ml1")
    with pytest.raises(MetaRLError, match="is no task of the benchmark"):
        family.make(1).reset(Tasks(torch.zeros(1, 6), torch.arange(1), "train"), Rng(0))
    with pytest.raises(MetaRLError, match="did you mean 'reach-v3'"):
        make_family("ml1", env="reach-v2").tasks("train", 1, Rng(0))


# -------------------------------------------------------------------------------------------------
# Episodes


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_ml1_is_the_packages_environment(version: str):
    official = metaworld.ML1("pick-place-v3", seed=0)
    family = make_family("ml1", env="pick-place-v3", horizon=8, reward_function_version=version)
    for split, tasks in (("train", official.train_tasks), ("test", official.test_tasks)):
        assert beside(family, family.tasks(split, 2, Rng(0)), tasks, version) == 4


def test_ml10_is_the_packages_environments(ml10):
    """Lanes of several classes beside each other, and an environment that goes on to others."""
    family = make_family("ml10", horizon=8)
    for split, tasks in (("train", ml10.train_tasks), ("test", ml10.test_tasks)):
        beside(family, family.tasks(split, 4, Rng(0)), tasks)


def test_the_versions_of_the_reward_pay_the_same_steps_differently():
    """v2 pays between 0 and 10."""
    families = {
        version: make_family("ml1", reward_function_version=version, horizon=50)
        for version in ("v1", "v2")
    }
    steps = {
        version: lived(family, family.tasks("train", 4, Rng(0)), 50)[2]
        for version, family in families.items()
    }
    assert torch.equal(steps["v1"].next_obs, steps["v2"].next_obs)
    assert (steps["v1"].reward != steps["v2"].reward).all()
    assert float(steps["v2"].reward.min()) >= 0
    assert float(steps["v2"].reward.max()) <= 10 < float(steps["v1"].reward.max())


def test_goals_are_hidden_in_ml_and_in_sight_in_mt():
    family = make_family("ml1", horizon=5)
    first, _, step = lived(family, family.tasks("train", 2, Rng(0)), 10)
    assert first.shape[-1] == 39
    assert not first[..., GOAL].any()
    assert not step.next_obs[..., GOAL].any()

    shown = make_family("mt10", horizon=5, show_class=True)
    tasks = shown.tasks("train", 500, Rng(0))
    tasks = tasks[tasks.params[:, 0] < 2][
        :3
    ]  # reach and push, whose vectors end with the goal (push: on the table)
    first, _, step = lived(shown, tasks, 10)
    goal, one_hot = (
        tasks.params[:, None, 4:6],
        torch.eye(10)[tasks.params[:, 0].long()].unsqueeze(1),
    )
    for seen in (first, *step.obs, *step.next_obs):
        torch.testing.assert_close(seen[..., 10:][..., GOAL][..., :2], goal.expand(-1, 2, -1))
        assert torch.equal(seen[..., :10], one_hot.expand(-1, 2, -1))


def approach(family: Family, tasks: Tasks, steps: int):
    """The steps [N, 1] of a hand that goes straight to the goal, which is the end of the row."""
    env = family.make(1)
    obs = env.reset(tasks, Rng(0))
    for _ in range(steps):
        shift = (10 * (tasks.params[:, None, 3:] - obs[..., :3])).clamp(-1, 1)
        step = env.step(torch.cat([shift, torch.zeros_like(shift[..., :1])], dim=-1))
        yield step
        obs = step.obs


@pytest.mark.parametrize("ends", [False, True])
def test_reaching_the_goal_is_a_success_and_ends_only_if_asked(ends: bool):
    """Within 5 cm of the place between the fingers, less than 6 cm from the observed hand."""
    family = make_family("ml1", horizon=100, terminate_on_success=ends)
    tasks = family.tasks("test", 3, Rng(0))
    reached = torch.zeros(3, dtype=torch.bool)
    for step in approach(family, tasks, 60):
        distance = (step.next_obs[..., :3] - tasks.params[:, None, 3:]).norm(dim=-1)
        assert not (step.success & (distance > 0.11)).any()
        assert torch.equal(
            step.terminated, step.success if ends else torch.zeros_like(step.success)
        )
        assert not step.truncated.any()
        reached |= step.success.squeeze(1)
    assert reached.all()


def test_episodes_are_truncated_after_500_steps_and_others_follow():
    family = make_family("ml1")
    assert family.spec.horizon == 500
    first, _, step = lived(family, family.tasks("train", 1, Rng(0)), 503, lanes=1)
    assert step.truncated.flatten().nonzero().tolist() == [[499]]
    assert torch.equal(step.obs[499], first)


def test_simulators_are_handed_on_between_lanes():
    """Two lanes of a class more than ever needed it at once are never built."""
    family = make_family("mt10", horizon=5)
    every = family.tasks("train", 500, Rng(0))
    of = [every[every.params[:, 0] == number][:3] for number in range(3)]
    env = family.make(1)
    for tasks in (of[0], of[1], of[0], of[2], of[1]):
        env.reset(tasks, Rng(0))
    lanes = env._lanes._envs
    kept = family._shelf._simulators
    assert {name: len(simulators) for name, simulators in kept.items()} == {
        "reach-v3": 3,
        "push-v3": 0,
        "pick-place-v3": 3,
    }
    assert [lane.unwrapped._name for lane in lanes] == ["push-v3"] * 3


def test_workers_give_the_same():
    alone, shared = (make_family("ml10", horizon=5, workers=workers) for workers in (0, 2))
    assert alone.spec == shared.spec
    tasks = alone.tasks("test", 3, Rng(0))
    _, _, one = lived(alone, tasks, 7, lanes=1)
    _, _, other = lived(shared, tasks, 7, lanes=1)
    assert torch.equal(one.next_obs, other.next_obs)
    assert torch.equal(one.reward, other.reward)


# -------------------------------------------------------------------------------------------------
# As a family


@pytest.mark.parametrize("name", ["ml1", "ml10", "mt10"])
def test_the_contract_is_kept(name: str):
    report = check_family(make_family(name, horizon=65))
    assert report.ok, report


@pytest.mark.parametrize(
    "options",
    ["rl2/ml1-reach episodes=2 agent.trials=4 agent.minibatches=2", "maml/ml1-reach agent.tasks=2"],
)
def test_agents_train_as_their_configurations_say(options: str, tmp_path, monkeypatch):
    words = f"train {options} iterations=2 family.horizon=20"
    words += f" validation_tasks=2 test_tasks=2 validate_every=1 --out {tmp_path / 'run'} --quiet"
    monkeypatch.setattr(sys, "argv", ["metarl", *words.split()])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert set(result["scores"]) == {"train", "test"}
    assert 0 <= result["scores"]["test"]["summary"]["success"]["mean"]["value"] <= 1
