"""Families in Stable-Baselines3: beside its own vector environment, and in its algorithms."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from families.drift import Wind
from families.reach import Reach
from gymnasium.utils.env_checker import data_equivalence
from helpers import Ragged, live
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor
from stable_baselines3.her import HerReplayBuffer

from metarl.adapters.sb3 import FamilyVecEnv, to_vec_env
from metarl.adapters.vector import FamilyEnv
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.experiments.building import make_family

FAMILIES: dict[str, tuple[Family, Any]] = {
    "continuous": (make_family("point", horizon=3, goal_range=0.2), "row"),
    "discrete": (make_family("tabular-mdp", states=4, horizon=3), "none"),
    "ragged": (Ragged(), "onehot"),
    "goals": (Reach(), "goal"),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_it_does_what_their_own_does_with_separate_environments(name: str):
    family, task_input = FAMILIES[name]
    tasks = family.tasks("train", 5, Rng(0))
    ours = to_vec_env(family, tasks, task_input=task_input)
    theirs = DummyVecEnv(
        [lambda i=i: FamilyEnv(family, tasks, task=i, task_input=task_input) for i in range(5)]
    )
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    ours.seed(7)
    theirs._seeds = [7] * 5
    assert data_equivalence([ours.reset()], [dict_of(theirs.reset())], exact=True)
    theirs.action_space.seed(0)
    ends = 0
    for _ in range(20):
        action = np.array([theirs.action_space.sample() for _ in range(5)])
        (obs, *rest, infos), (their_obs, *their_rest, their_infos) = (
            ours.step(action),
            theirs.step(action),
        )
        assert data_equivalence([obs, *rest], [dict_of(their_obs), *their_rest], exact=True)
        assert data_equivalence(infos, their_infos, exact=True), f"{infos}\n{their_infos}"
        ends += int(rest[1].sum())
    assert ends > 10


def dict_of(observation: Any) -> Any:
    """Theirs is an OrderedDict."""
    return dict(observation) if isinstance(observation, dict) else observation


def test_time_limits_are_told_from_endings():
    """`Ragged` cuts the episode of its second task that lasts five steps after four.

    The other episodes end.
    """
    tasks = Ragged().tasks("train", 5, Rng(0))
    envs = to_vec_env(Ragged(), tasks)
    envs.reset()
    told: list[list[bool]] = [[] for _ in range(5)]
    for _ in range(9):
        _, _, done, infos = envs.step(np.zeros(5, np.int64))
        for lane in np.flatnonzero(done):
            told[lane].append(infos[lane]["TimeLimit.truncated"])
            assert infos[lane]["terminal_observation"][2] > 0
    rollout, _ = live(Ragged(), tasks, 2)
    for lane in range(5):
        ends = rollout.done[:, lane, 0] & rollout.valid[:, lane, 0]
        assert told[lane][:2] == rollout.truncated[ends, lane, 0].tolist()[: len(told[lane][:2])]


def test_their_monitors_read_our_metrics():
    """Of every episode the value at its last step, which is where `episode_metrics` has it."""
    family = make_family("point", horizon=3, goal_range=0.2)
    tasks = family.tasks("train", 3, Rng(0))
    envs = VecMonitor(to_vec_env(family, tasks), info_keywords=("distance",))
    single = Monitor(FamilyEnv(family, tasks, task=1), info_keywords=("distance",))
    envs.reset()
    single.reset()
    for k in range(6):
        action = np.array([[1.0, 0.5], [-0.3, k % 3], [0.0, 0.0]], np.float32)
        *_, infos = envs.step(action)
        _, _, terminated, truncated, info = single.step(action[1])
        ended = np.flatnonzero(["episode" in told for told in infos])
        for lane in ended:
            place = infos[lane]["terminal_observation"]
            expected = np.linalg.norm(place - tasks.params[lane].numpy())
            assert infos[lane]["episode"]["distance"] == pytest.approx(expected, abs=1e-6)
        assert (1 in ended) == (terminated or truncated)
        if 1 in ended:
            assert info["episode"]["distance"] == infos[1]["episode"]["distance"]
            single.reset()
        if k % 3 == 2:
            assert ended.tolist() == [0, 1, 2], "all at the horizon"


def test_options_choose_tasks_and_last_for_a_reset():
    tasks = Reach().tasks("train", 3, Rng(0))
    envs = to_vec_env(Reach(), tasks[:2], task_input="row")
    envs.set_options({"task": [1, 0]})
    np.testing.assert_array_equal(envs.reset()[:, 3:], tasks.params[[1, 0]])
    assert envs._options == [{}, {}]


def test_attributes_and_methods_are_those_of_the_environments():
    envs = to_vec_env(Reach(), Reach().tasks("train", 3, Rng(0)), task_input="goal")
    assert envs.get_attr("num_envs") == [3, 3, 3]
    assert not envs.has_attr("nothing")
    envs.set_attr("label", "x")
    assert envs.get_attr("label", indices=1) == ["x"]
    assert envs.env_method("compute_reward", np.zeros((2, 2)), np.ones((2, 2)), {}, indices=[0])[
        0
    ].tolist() == [-1, -1]
    assert envs.env_is_wrapped(VecMonitor) == [False] * 3
    envs.close()


def test_pictures_are_put_side_by_side():
    from metarl.adapters.vector import FamilyVectorEnv

    family = Wind()
    envs = FamilyVecEnv(
        FamilyVectorEnv(family, family.tasks("train", 4, Rng(0)), render_mode="rgb_array")
    )
    envs.reset()
    assert envs.render().shape == (2 * 4, 2 * 5, 3)


@pytest.mark.parametrize("name", FAMILIES)
def test_stable_baselines_finds_nothing_wrong_with_one_environment(name: str):
    family, task_input = FAMILIES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(FamilyEnv(family, family.tasks("train", 3, Rng(0)), task_input=task_input))


@pytest.mark.parametrize("name", ["continuous", "discrete"])
def test_ppo_learns_from_all_tasks(name: str):
    family, task_input = FAMILIES[name]
    envs = VecMonitor(
        to_vec_env(family, family.tasks("train", 4, Rng(0)), lanes=2, task_input=task_input)
    )
    model = PPO("MlpPolicy", envs, n_steps=16, batch_size=64, n_epochs=2, seed=0, device="cpu")
    before = [x.clone() for x in model.policy.parameters()]
    model.learn(384)
    assert model.num_timesteps == 384
    assert len(model.ep_info_buffer) == 100
    assert all(info["l"] <= family.spec.horizon for info in model.ep_info_buffer)
    assert any(not (x == y).all() for x, y in zip(before, model.policy.parameters(), strict=True))
    mean, _ = evaluate_policy(model, envs, n_eval_episodes=8)
    assert np.isfinite(mean)


def test_hindsight_relabels_goals():
    """Rewards of the replayed steps are those of the family for the goals that they are given."""
    envs = to_vec_env(Reach(), Reach().tasks("train", 4, Rng(0)), task_input="goal")
    model = SAC(
        "MultiInputPolicy",
        envs,
        replay_buffer_class=HerReplayBuffer,
        learning_starts=80,
        batch_size=32,
        seed=0,
        device="cpu",
    )
    model.learn(160)
    assert len(model.ep_success_buffer) > 0
    replay = model.replay_buffer.sample(256)
    achieved = replay.next_observations["achieved_goal"]
    desired = replay.next_observations["desired_goal"]
    assert (replay.rewards[:, 0] == Reach().goal_reward(achieved, desired)).all()
    given = {tuple(row) for row in Reach().tasks("train", 4, Rng(0)).params[:, :2].tolist()}
    assert sum(tuple(row) not in given for row in desired.tolist()) > 128
    assert not replay.dones.any(), "a time limit is no ending"
