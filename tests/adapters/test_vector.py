"""Families as Gymnasium's environments: its checkers, and vector beside separate environments."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tracemalloc
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from families.drift import HORIZON, Drift, Wind
from families.reach import Reach
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from helpers import FAMILIES, Ragged

import metarl.adapters.registration
from metarl import evaluate, make_agent
from metarl.adapters.vector import FamilyEnv, FamilyVectorEnv
from metarl.config.registry import names
from metarl.core.errors import MetaRLError
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.types import Step, Tasks, replace
from metarl.experiments.building import make_family

IS_INFINITE = "ignore:.*A Box observation space m.* value is -?infinity"
"""No family says how large its observations may be, and Gymnasium's checker minds it."""

SHORT = {
    "point": {"horizon": 3, "goal_range": 0.2},
    "tabular-mdp": {"states": 4, "horizon": 3},
    "bernoulli-bandit": {},
}


def short(name: str) -> Family:
    return Ragged() if name == "ragged" else make_family(name, **SHORT[name])


class Shaped(Ragged):
    """Tells of success, of a reward for the critic, and how many steps an episode has."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(self.spec, metrics=("final_steps",))

    def make(self, lanes: int) -> Any:
        return ShapedEnv(super().make(lanes))


class ShapedEnv:
    def __init__(self, env: Any) -> None:
        self.reset, self.inner = env.reset, env

    def step(self, action: torch.Tensor) -> Step:
        step = self.inner.step(action)
        return replace(
            step,
            success=step.next_obs[..., 2] == 2,
            training_reward=2 * step.reward,
            metrics={"final_steps": step.next_obs[..., 2].clone()},
        )


# -------------------------------------------------------------------------------------------------
# Gymnasium's own checks


@pytest.mark.filterwarnings(IS_INFINITE)
@pytest.mark.parametrize("name", FAMILIES)
def test_gymnasium_finds_nothing_wrong_with_any_family(name: str):
    for task_input in ["none", *["goal"] * bool(make_family(name).spec.goal_width)]:
        check_env(gymnasium.make(f"metarl/{name}-v0", task_input=task_input).unwrapped)
    envs = gymnasium.make_vec(f"metarl/{name}-v0", num_envs=4, lanes=2, split="validation")
    envs.action_space.seed(0)
    obs, _ = envs.reset(seed=0)
    for _ in range(3):
        assert obs in envs.observation_space
        obs, reward, *_ = envs.step(envs.action_space.sample())
        assert (reward.shape, reward.dtype) == ((4,), np.float64)
    envs.close()


@pytest.mark.filterwarnings(IS_INFINITE)
@pytest.mark.parametrize(
    "env",
    [
        FamilyEnv(
            make_family("point"),
            make_family("point").tasks("test", 3, Rng(0)),
            task_input="row",
            task=2,
        ),
        FamilyEnv(
            Ragged(discrete=False), Ragged().tasks("test", 3, Rng(0)), task_input="onehot", task=1
        ),
        FamilyEnv(Shaped(), Ragged().tasks("test", 5, Rng(0)), task=3),
        FamilyEnv(Reach(), Reach().tasks("test", 3, Rng(0)), task_input="goal"),
        FamilyEnv(Wind(), Wind().tasks("test", 3, Rng(0)), render_mode="rgb_array"),
    ],
    ids=["row", "onehot", "infos", "goal", "pictures"],
)
def test_gymnasium_finds_nothing_wrong_with_what_is_shown(env: FamilyEnv):
    env.spec = gymnasium.envs.registration.EnvSpec("metarl/any-v0", lambda render_mode=None: env)
    check_env(env)


# -------------------------------------------------------------------------------------------------
# One and many


@pytest.mark.parametrize("task_input", ["none", "row", "onehot"])
@pytest.mark.parametrize("name", ["point", "tabular-mdp", "bernoulli-bandit", "ragged"])
def test_the_vector_environment_is_the_separate_ones(name: str, task_input: str):
    """Observations, rewards, endings and infos, over many episodes of different lengths."""
    family = short(name)
    compare(family, family.tasks("test", 5, Rng(0)), task_input)


def test_goals_and_infos_are_those_of_the_separate_ones():
    compare(Reach(), Reach().tasks("test", 4, Rng(0)), "goal")
    compare(Shaped(), Ragged().tasks("test", 5, Rng(0)), "none")


def compare(family: Family, tasks: Tasks, task_input: Any) -> None:
    def one(task: int) -> Any:
        return lambda: FamilyEnv(family, tasks, task=task, task_input=task_input)

    together = FamilyVectorEnv(family, tasks, task_input=task_input)
    apart = SyncVectorEnv(
        [one(task) for task in range(len(tasks))], autoreset_mode=AutoresetMode.SAME_STEP
    )
    assert together.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    for name in (
        "observation_space",
        "action_space",
        "single_observation_space",
        "single_action_space",
        "num_envs",
    ):
        assert getattr(together, name) == getattr(apart, name)
    together.action_space.seed(0)
    obs, infos = together.reset(seed=7)
    assert data_equivalence((obs, infos), apart.reset(seed=[7] * len(tasks)), exact=True)
    ends = np.zeros(len(tasks), int)
    for _ in range(20):
        action = together.action_space.sample()
        ours, theirs = together.step(action), apart.step(action)
        assert data_equivalence(ours, theirs, exact=True), f"{ours}\n{theirs}"
        ends += ours[2] | ours[3]
    assert (ends > 1).all()


def test_lanes_of_a_task_stand_side_by_side_and_have_their_own_chance():
    family = short("tabular-mdp")
    tasks = family.tasks("test", 3, Rng(0))
    envs = FamilyVectorEnv(family, tasks, lanes=4, task_input="row")
    obs, _ = envs.reset(seed=0)
    np.testing.assert_array_equal(obs[:, 4:], tasks.params.repeat_interleave(4, dim=0))
    reward = np.array([envs.step(np.zeros(12, np.int64))[1] for _ in range(3)])
    assert len(np.unique(reward)) == reward.size
    narrow = FamilyVectorEnv(family, tasks)
    narrow.reset(seed=0)
    np.testing.assert_array_equal(
        reward[:, ::4],
        np.array([narrow.step(np.zeros(3, np.int64))[1] for _ in range(3)]),
        "the first lanes",
    )


# -------------------------------------------------------------------------------------------------
# Chance and tasks


def steps_of(env: gymnasium.Env, count: int = 4) -> list[Any]:
    return [env.step(0)[:2] for _ in range(count)]


def test_a_seed_determines_everything_until_the_next():
    family = short("tabular-mdp")
    env = FamilyEnv(family, family.tasks("test", 2, Rng(0)))

    def episodes(seed: int) -> list[Any]:
        env.reset(seed=seed)
        seen = [steps_of(env, 2)]
        env.reset()  # in mid-episode
        seen.append(steps_of(env, 3))
        env.reset()  # at the end of one
        return [*seen, steps_of(env, 3)]

    first = episodes(1)
    assert data_equivalence(first, episodes(1), exact=True)
    assert not data_equivalence(first, episodes(2))
    assert not data_equivalence(first[1], first[2])


def test_a_task_stays_until_another_is_chosen():
    tasks = Reach().tasks("test", 3, Rng(0))
    env = FamilyEnv(Reach(), tasks, task=1, task_input="row")

    def shown() -> list[float]:
        return env.reset()[0][3:].tolist()

    assert shown() == shown() == tasks.params[1].tolist()
    obs, _ = env.reset(options={"task": 2})
    assert obs[3:].tolist() == shown() == tasks.params[2].tolist()

    envs = FamilyVectorEnv(Reach(), tasks, task=[2, 0], task_input="row", lanes=2)
    assert envs.num_envs == 4
    np.testing.assert_array_equal(envs.reset()[0][:, 3:], tasks.params[[2, 2, 0, 0]])
    np.testing.assert_array_equal(
        envs.reset(options={"task": [0, 1]})[0][:, 3:], tasks.params[[0, 0, 1, 1]]
    )
    np.testing.assert_array_equal(envs.reset()[0][:, 3:], tasks.params[[0, 0, 1, 1]])


def test_goals_are_shown_in_the_form_of_hindsight():
    tasks = Reach().tasks("test", 3, Rng(0))
    envs = FamilyVectorEnv(Reach(), tasks, task_input="goal")
    envs.reset(seed=0)
    obs, reward, *_, infos = envs.step(np.full((3, 2), 0.5, np.float32))
    np.testing.assert_array_equal(obs["desired_goal"], tasks.params[:, :2])
    np.testing.assert_array_equal(obs["achieved_goal"], obs["observation"][:, 1:])
    np.testing.assert_array_equal(
        envs.compute_reward(obs["achieved_goal"], obs["desired_goal"], infos), reward
    )
    np.testing.assert_array_equal(
        envs.compute_reward(obs["achieved_goal"], obs["achieved_goal"], infos), [0, 0, 0]
    )
    one = FamilyEnv(Reach(), tasks, task_input="goal")
    assert one.compute_reward(np.zeros(2), np.ones(2), {}) == -1.0


def test_a_goal_without_what_was_achieved_stands_beside_the_observation():
    class Aim(Ragged):
        def __init__(self) -> None:
            super().__init__()
            self.spec = replace(self.spec, goal_width=1)

    env = FamilyEnv(Aim(), Aim().tasks("test", 3, Rng(0)), task=2, task_input="goal")
    assert env.observation_space == spaces.Box(-np.inf, np.inf, (5,), np.float32)
    assert env.reset()[0][-1] == 2
    reach = FamilyEnv(Reach(), Reach().tasks("test", 3, Rng(0)), task_input="row")
    for other in (env, reach):
        assert not hasattr(other, "compute_reward"), (
            "libraries would take it for an environment with a Dict of goals"
        )


def test_what_is_handed_out_may_be_written_on():
    """Nothing of the environment lies beneath it."""
    family = short("tabular-mdp")
    tasks = family.tasks("test", 3, Rng(0))
    clean, spoiled = FamilyVectorEnv(family, tasks), FamilyVectorEnv(family, tasks)
    spoiled.reset(seed=0)[0][:] = 9
    clean.reset(seed=0)
    for _ in range(9):
        action = np.ones(3, np.int64)
        expected, given = clean.step(action), spoiled.step(action)
        assert data_equivalence(expected, given, exact=True)
        for array in given[:4]:
            array[:] = 1
        action[:] = 0


def test_pictures_are_those_of_the_environment():
    family = Wind()
    tasks = family.tasks("test", 3, Rng(0))
    envs = FamilyVectorEnv(family, tasks, lanes=2, render_mode="rgb_array")
    envs.reset(seed=0)
    shade = (tasks.params[:, 0].double().abs() * 100).long() % 256
    assert [int(frame[0, 0, 0]) for frame in envs.render()] == shade.repeat_interleave(2).tolist()
    env = FamilyEnv(family, tasks, task=2, render_mode="rgb_array")
    env.reset(seed=0)
    assert (env.render() == int(shade[2])).all()
    assert FamilyEnv(family, tasks).render() is None


class Blind(Wind):
    """Its environments were built without pictures."""

    def build(self):
        return TimeLimit(Drift(), HORIZON)


def test_environments_that_were_built_without_pictures_have_none():
    tasks = Blind().tasks("test", 2, Rng(0))
    assert FamilyEnv(Blind(), tasks).metadata["render_modes"] == []
    with pytest.raises(TypeError, match="has no pictures"):
        FamilyVectorEnv(Blind(), tasks, render_mode="rgb_array")


# -------------------------------------------------------------------------------------------------
# Names


def test_every_family_is_registered_without_torch():
    script = """
import sys, gymnasium, metarl.adapters.registration
assert "torch" not in sys.modules
print(*(name for name in gymnasium.registry if name.startswith("metarl/")))
"""
    told = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert told.split() == [f"metarl/{name}-v0" for name in names("family")]


def test_a_strangers_family_is_registered_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("metarl.config.registry.names", lambda kind: ["stranger"])
    monkeypatch.setattr(gymnasium.envs.registration, "registry", registry := {})
    importlib.reload(metarl.adapters.registration)
    assert registry["metarl/stranger-v0"].kwargs == {"family": "stranger"}


def test_a_name_with_its_module_is_enough_and_takes_the_familys_options():
    env = gymnasium.make(
        "metarl.adapters.registration:metarl/point-v0", task=1, horizon=2, task_input="row"
    )
    env.reset(seed=0)
    ends = [env.step(np.zeros(2, np.float32))[3] for _ in range(2)]
    assert ends == [False, True]
    with pytest.raises(MetaRLError, match="did you mean 'horizon'"):
        gymnasium.make("metarl/point-v0", horizn=2)


def test_tasks_are_those_of_an_evaluation():
    """Task i of a split is the i-th that `evaluate` meets with the same seed."""
    family = make_family("point")
    envs = gymnasium.make_vec(
        "metarl/point-v0", num_envs=4, split="test", task_input="row", task_seed=3
    )
    one = gymnasium.make("metarl/point-v0", task=2, split="test", task_input="row", task_seed=3)
    goals = envs.reset(seed=0)[0][:, 2:]
    np.testing.assert_array_equal(one.reset(seed=0)[0][2:], goals[2])
    scores = evaluate(make_agent("random", family.spec), family, episodes=1, tasks=4, seed=3)
    optimum = family.optimum(Tasks(torch.from_numpy(goals), torch.arange(4), "test"))
    np.testing.assert_array_equal(scores.optimum, optimum.double())


def test_environments_share_tasks_as_they_are_told():
    def shown(num_envs: int, **choices: Any) -> list[list[float]]:
        envs = gymnasium.make_vec(
            "metarl/point-v0", num_envs=num_envs, task_input="onehot", **choices
        )
        return envs.reset()[0][:, 2:].argmax(1).tolist()

    assert shown(4) == [0, 1, 2, 3]
    assert shown(4, lanes=2) == [0, 0, 1, 1]
    assert shown(3, task=2) == [2, 2, 2]
    assert gymnasium.make(
        "metarl/point-v0", task_input="onehot", tasks=7
    ).observation_space.shape == (9,)


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"num_envs": 3, "lanes": 2}, "num_envs 3 is no multiple of lanes 2"),
        ({"split": "tset"}, "bernoulli-bandit has no split 'tset': did you mean 'test'"),
        ({"task_input": "rows"}, "task_input 'rows': did you mean 'row'"),
        ({"task_input": "goal"}, "task_input goal: the tasks of bernoulli-bandit have no goal"),
        ({"render_mode": "human"}, "render_mode 'human': bernoulli-bandit has no pictures"),
        ({"task": -1}, "task -1: there are the tasks 0 to"),
    ],
)
def test_mistakes_are_told_in_a_line(choices: dict[str, Any], says: str):
    with pytest.raises(MetaRLError, match=says):
        gymnasium.make_vec("metarl/bernoulli-bandit-v0", **choices)


def test_resets_that_cannot_be_are_refused():
    tasks = Reach().tasks("test", 3, Rng(0))
    env, envs = FamilyEnv(Reach(), tasks), FamilyVectorEnv(Reach(), tasks)
    with pytest.raises(MetaRLError, match="task 3: there are the tasks 0 to 2; draw more"):
        env.reset(options={"task": 3})
    with pytest.raises(MetaRLError, match="give 3 different tasks"):
        envs.reset(options={"task": [0, 1]})
    with pytest.raises(MetaRLError, match="give 3 different tasks"):
        envs.reset(options={"task": [0, 1, 1]})
    with pytest.raises(MetaRLError, match="reset_mask"):
        envs.reset(options={"reset_mask": np.ones(3, bool)})
    env.reset(seed=0)
    for _ in range(5):
        env.step(np.zeros(2, np.float32))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(2, np.float32))


# -------------------------------------------------------------------------------------------------
# Actions


@pytest.mark.parametrize(
    ("discrete", "action", "says"),
    [
        (True, 2, r"action 2 is not in Discrete\(2\)"),
        (True, -1, r"action -1 is not in Discrete\(2\)"),
        (True, 1.0, r"actions of type float64: give some of Discrete\(2\)"),
        (True, [1], r"actions of shape \[1, 1\]: give 1, each one of Discrete\(2\)"),
        (False, [0.5, 1.5], r"action \[0.5, 1.5\] is not in Box\(-1.0, 1.0"),
        (False, [float("nan"), 0], r"action \[nan, 0.0\] is not in Box"),
        (False, [1e300, 0], r"action \[1e\+300, 0.0\] is not in Box"),
        (False, 0.5, r"actions of shape \[1\]: give 1, each one of Box"),
    ],
)
def test_actions_outside_their_space_are_refused(discrete: bool, action: Any, says: str):
    family = Ragged(discrete)
    env = FamilyEnv(family, family.tasks("test", 3, Rng(0)), task=2)
    env.reset(seed=0)
    with pytest.raises(MetaRLError, match=says):
        env.step(action)
    assert env.step(np.ones(2, np.float64) if not discrete else np.int32(1))[1] == 1


def test_of_many_environments_the_one_is_named_whose_action_is_outside():
    envs = FamilyVectorEnv(Ragged(), Ragged().tasks("test", 3, Rng(0)))
    envs.reset(seed=0)
    with pytest.raises(MetaRLError, match="action 7 of environment 1 is not in"):
        envs.step([0, 7, 9])


def test_memory_grows_with_the_tasks_and_not_with_their_square():
    """A one-hot of every task among all tasks would take 1.6 GB."""
    tasks = Reach().tasks("train", 20_000, Rng(0))
    tracemalloc.start()
    try:
        env = FamilyEnv(Reach(), tasks, task=19_999, task_input="onehot")
        assert env.reset(seed=0)[0][-1] == 1
        envs = FamilyVectorEnv(Reach(), tasks, task_input="row")
        assert envs.reset(seed=0)[0].shape == (20_000, 6)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 100e6
