"""Families in Stable-Baselines3: beside its own vector environment, and in its algorithms."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from families.drift import Wind
from families.reach import Reach
from gymnasium.utils.env_checker import data_equivalence
from helpers import FAMILIES as CORE
from helpers import Ragged, live
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor
from stable_baselines3.her import HerReplayBuffer

from metarl.adapters.sb3 import FamilyVecEnv, to_vec_env
from metarl.adapters.vector import FamilyEnv
from metarl.collect.collector import collect
from metarl.core.errors import ConfigError
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.types import Acted, Belief, Inputs, Spec, Tasks, first_cue
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
        action = np.array([[1.0, 0.5], [-0.3, k % 3 / 2], [0.0, 0.0]], np.float32)
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


@pytest.mark.filterwarnings("ignore:.*A Box observation space m.* value is -?infinity")
@pytest.mark.parametrize("name", CORE)
def test_every_family_is_made_by_its_name(name: str):
    """Stable-Baselines3 asks for pictures first, and goes on without them at a TypeError alone."""
    found = f"metarl.adapters.registration:metarl/{name}-v0"
    fast: dict[str, Any] = {"n_steps": 4, "batch_size": 4, "n_epochs": 1, "device": "cpu"}
    one = PPO("MlpPolicy", found, **fast).learn(4)
    four = PPO("MlpPolicy", make_vec_env(found, n_envs=4), **fast).learn(16)
    assert (one.num_timesteps, four.num_timesteps) == (4, 16)
    has_pictures = "rgb_array" in gymnasium.make(found).metadata["render_modes"]
    assert one.env.render_mode == ("rgb_array" if has_pictures else None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(found).unwrapped)


def test_a_family_without_pictures_says_so():
    with pytest.raises(ConfigError, match="'rgb_array': bernoulli-bandit has no pictures"):
        gymnasium.make(
            "metarl.adapters.registration:metarl/bernoulli-bandit-v0", render_mode="rgb_array"
        )


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


# -------------------------------------------------------------------------------------------------
# Trials


class Scripted:
    """An agent whose action depends on the time and on the environment that its row stands for."""

    task_input, lanes = "none", 1

    def __init__(self, family: Family, first: int, members: list[int]) -> None:
        self.spec, self.first, self.members = family.spec, first, members

    def act(self, belief: Belief, obs: Any, noise: Any, time: int, mode: str) -> Any:
        scripts = [script(self.spec, self.first + time, member) for member in self.members]
        action = torch.tensor(np.array(scripts)).unsqueeze(1)
        return Acted(Inputs(obs, cue=belief.cue), action, torch.zeros(obs.shape[:2])), belief


def script(spec: Spec, time: int, member: int) -> Any:
    if spec.discrete:
        return (time // 2 + member) % spec.action_width
    return np.float32([np.sin(time + member), np.cos(time * member)])


class Seeded:
    """An environment whose randomness is `rng`, whatever it is given."""

    def __init__(self, env: Any, rng: Rng) -> None:
        self.step, self.env, self.rng = env.step, env, rng

    def reset(self, tasks: Tasks, rng: Rng) -> Any:
        return self.env.reset(tasks, self.rng)


@pytest.mark.parametrize("discrete", [True, False])
def test_a_trial_is_what_our_own_loop_collects(discrete: bool):
    """Environments that begin a trial together are a batch, on tasks and with randomness of its
    own: the same as `collect` has, with the same actions."""
    family, episodes, steps = Ragged(discrete), 3, 60
    tasks = family.tasks("train", 7, Rng(0))
    envs = to_vec_env(family, tasks, lanes=4, task_input="row", trial_episodes=episodes)
    assert envs.observation_space.shape == (family.spec.obs_width + 1 + family.spec.cue_width,)
    envs.seed(5)
    seen, rewards, over, last = [envs.reset()], [], [], {}
    for time in range(steps):
        actions = np.array([script(family.spec, time, member) for member in range(4)])
        obs, reward, done, infos = envs.step(actions)
        seen.append(obs)
        rewards.append(reward)
        over.append(done)
        assert all(info["TimeLimit.truncated"] is False for info in infos)
        assert [("terminal_observation" in info) for info in infos] == done.tolist()
        last |= {(time, m): infos[m]["terminal_observation"] for m in np.flatnonzero(done)}

    random, begun = np.random.default_rng(5), 0
    beginnings = [np.full(4, True), *over]
    for first, members in enumerate(np.flatnonzero(x).tolist() for x in beginnings[:-20]):
        if not members:
            continue
        places = random.permutation(7)[: len(members)]
        seed = int(random.integers(1 << 31))
        rng = Rng(int(gymnasium.utils.seeding.np_random(seed)[0].integers(1 << 63)))
        agent = Scripted(family, first, members)
        rollout, _ = collect(
            agent,
            Seeded(family.make(1), rng),
            family.spec,
            Belief(first_cue(family.spec, len(members), 1, torch.device("cpu"))),
            tasks[torch.tensor(places)],
            episodes,
            Rng(0),
        )
        for row, member in enumerate(members):
            length = int(rollout.valid[:, row].sum())
            begun += 1
            for time in range(length):
                found = seen[first + time][member]
                np.testing.assert_array_equal(found[:4], rollout.inputs.obs[time, row, 0])
                assert found[4] == tasks.params[places[row], 0]
                np.testing.assert_array_equal(found[5:], rollout.inputs.cue[time, row, 0])
                assert rewards[first + time][member] == rollout.reward[time, row, 0]
                assert over[first + time][member] == (time == length - 1)
            final = last[first + length - 1, member]
            np.testing.assert_array_equal(final[:4], rollout.next_obs[length - 1, row, 0])
            cues = rollout.cues(family.spec)
            np.testing.assert_array_equal(final[5:], cues[length - 1, row, 0])
    assert begun > 15
    assert len({int(np.flatnonzero(x).size) for x in over}) > 2, "they do not end together"


def test_trials_of_equal_length_are_one_batch_on_new_tasks():
    family = make_family("bernoulli-bandit", arms=3)
    tasks = family.tasks("train", 50, Rng(0))
    envs = to_vec_env(family, tasks, lanes=5, task_input="row", trial_episodes=4)
    envs.seed(0)
    met = [envs.reset()[:, family.spec.obs_width :][:, :3]]
    for _ in range(5):
        for _ in range(4):
            obs, *_ = envs.step(np.zeros(5, np.int64))
            assert len(envs._cohorts) == 1
        met.append(obs[:, family.spec.obs_width :][:, :3])
        assert (obs[:, -5:] == [0, 0, 0, 0, 1]).all(), "the first cue of a trial"
    assert len(np.unique(np.concatenate(met), axis=0)) > 20
    envs.close()


def test_trials_need_a_task_each_and_no_dict_of_goals():
    tasks = Reach().tasks("train", 3, Rng(0))
    with pytest.raises(ConfigError, match="there are 3: draw more tasks"):
        to_vec_env(Reach(), tasks, lanes=4, trial_episodes=2)
    with pytest.raises(ConfigError, match="show the row"):
        to_vec_env(Reach(), tasks, lanes=2, task_input="goal", trial_episodes=2)
