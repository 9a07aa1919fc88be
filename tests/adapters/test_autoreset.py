"""What follows an episode's end in a vector environment, and the wrappers that rely on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from families.drift import Wind
from families.reach import Reach
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TransformObservation
from gymnasium.wrappers import vector as wrappers
from helpers import FAMILIES, Ragged

from metarl.adapters.vector import FamilyEnv, FamilyVectorEnv
from metarl.core.errors import MetaRLError
from metarl.core.family import Family
from metarl.core.rng import Rng

WRAPPERS: dict[str, Callable[[VectorEnv], VectorEnv]] = {
    "RecordEpisodeStatistics": wrappers.RecordEpisodeStatistics,
    "NormalizeObservation": wrappers.NormalizeObservation,
    "FlattenObservation": wrappers.FlattenObservation,
    "DtypeObservation": lambda envs: wrappers.DtypeObservation(envs, np.float64),
    "ReshapeObservation": lambda envs: wrappers.ReshapeObservation(
        envs, (1, *envs.single_observation_space.shape)
    ),
    "TransformObservation": lambda envs: wrappers.TransformObservation(envs, np.tanh),
    "VectorizeTransformObservation": lambda envs: wrappers.VectorizeTransformObservation(
        envs, TransformObservation, func=np.tanh, observation_space=None
    ),
    "NormalizeReward": wrappers.NormalizeReward,
    "ClipReward": lambda envs: wrappers.ClipReward(envs, -1, 1),
    "DictInfoToList": wrappers.DictInfoToList,
}
FOR_BOXES: dict[str, Callable[[VectorEnv], VectorEnv]] = {
    "ClipAction": wrappers.ClipAction,
    "RescaleAction": lambda envs: wrappers.RescaleAction(envs, np.float32(0), np.float32(1)),
}


@pytest.mark.filterwarnings("ignore:.*A Box observation space m.* value is -?infinity")
@pytest.mark.parametrize("name", FAMILIES)
def test_gymnasiums_wrappers_work_around_every_family(name: str):
    for wrap in WRAPPERS.values():
        envs = gymnasium.make_vec(
            f"metarl.adapters.registration:metarl/{name}-v0", num_envs=2, autoreset_mode="NextStep"
        )
        if isinstance(envs.single_action_space, gymnasium.spaces.Box):
            envs = FOR_BOXES["ClipAction"](FOR_BOXES["RescaleAction"](envs))
        envs = wrap(envs)
        envs.action_space.seed(0)
        obs, _ = envs.reset(seed=0)
        for _ in range(3):
            assert obs in envs.observation_space
            obs, *_ = envs.step(envs.action_space.sample())
        envs.close()


# -------------------------------------------------------------------------------------------------
# Beside separate environments


def sync(family: Family, count: int, mode: AutoresetMode, task_input: Any) -> SyncVectorEnv:
    tasks = family.tasks("test", count, Rng(0))
    return SyncVectorEnv(
        [lambda i=i: FamilyEnv(family, tasks, task=i, task_input=task_input) for i in range(count)],
        autoreset_mode=mode,
    )


@pytest.mark.parametrize(
    ("family", "task_input"),
    [(Ragged(), "none"), (Ragged(discrete=False), "onehot"), (Reach(), "goal"), (Wind(), "row")],
    ids=["discrete", "continuous", "goal", "gymnasium"],
)
def test_a_lane_waits_for_the_next_step_as_a_separate_environment_does(
    family: Family, task_input: Any
):
    tasks = family.tasks("test", 5, Rng(0))
    ours = FamilyVectorEnv(family, tasks, task_input=task_input, autoreset_mode="NextStep")
    theirs = sync(family, 5, AutoresetMode.NEXT_STEP, task_input)
    assert ours.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    ours.action_space.seed(0)
    assert data_equivalence(ours.reset(seed=7), theirs.reset(seed=[7] * 5), exact=True)
    ends = np.zeros(5, int)
    for _ in range(30):
        action = ours.action_space.sample()
        step, their_step = ours.step(action), theirs.step(action)
        assert data_equivalence(step[:4], their_step[:4], exact=True)
        for name in set(step[4]) & {"is_success", "height"}:
            np.testing.assert_array_equal(step[4][f"_{name}"], their_step[4][f"_{name}"])
            np.testing.assert_array_equal(step[4][name], their_step[4][name])
        ends += step[2] | step[3]
    assert (ends > 1).all()


def test_lanes_are_reset_by_hand_where_that_is_wanted():
    family = Ragged()
    tasks = family.tasks("test", 5, Rng(0))
    ours = FamilyVectorEnv(family, tasks, autoreset_mode=AutoresetMode.DISABLED)
    theirs = sync(family, 5, AutoresetMode.DISABLED, "none")
    assert data_equivalence(ours.reset(seed=7), theirs.reset(seed=[7] * 5), exact=True)
    ends = 0
    for _ in range(20):
        action = np.ones(5, np.int64)
        step, their_step = ours.step(action), theirs.step(action)
        assert data_equivalence(step[:4], their_step[:4], exact=True)
        done = step[2] | step[3]
        if done.any():
            ends += 1
            with pytest.raises(gymnasium.error.ResetNeeded, match=r"environments \[.*\] are over"):
                ours.step(action)
            obs, _ = ours.reset(options={"reset_mask": done})
            their_obs, _ = theirs.reset(options={"reset_mask": done.copy()})
            np.testing.assert_array_equal(obs, their_obs)
    assert ends > 10


def test_a_reset_in_mid_episode_begins_another_one():
    family = Ragged()
    envs = FamilyVectorEnv(family, family.tasks("test", 5, Rng(0)), autoreset_mode="Disabled")
    begun, _ = envs.reset(seed=0)
    mask = np.array([False, False, True, False, True])
    envs.step(np.zeros(5, np.int64))  # the episode of the first task is over
    obs, _ = envs.reset(options={"reset_mask": mask})
    assert obs[:, 2].tolist() == [1, 1, 0, 1, 0], "steps of the episode"
    assert (obs[mask, 3] != begun[mask, 3]).all(), "another chance"
    obs, _ = envs.reset()
    assert obs[:, 1].tolist() == [1, 0, 0, 0, 0], "the first goes on to its second episode"


def test_lanes_of_a_task_have_a_chance_of_their_own():
    family = Ragged()
    tasks = family.tasks("test", 2, Rng(0))
    envs = FamilyVectorEnv(family, tasks, lanes=3, autoreset_mode="NextStep")
    obs, _ = envs.reset(seed=0)
    assert len(np.unique(obs[:, 3])) == 6
    assert obs[:, 0].tolist() == [0, 0, 0, 1, 1, 1]
    together, _ = FamilyVectorEnv(family, tasks, lanes=3).reset(seed=0)
    np.testing.assert_array_equal(obs[::3], together[::3], "the first lanes")


@pytest.mark.parametrize(
    ("mode", "options", "says"),
    [
        ("SameStep", {"reset_mask": np.ones(3, bool)}, "autoreset_mode='Disabled'"),
        ("Disabled", {"reset_mask": np.zeros(3, bool)}, "give 3 booleans, one of them True"),
        ("Disabled", {"reset_mask": np.ones(2, bool)}, "give 3 booleans"),
        ("Disabled", {"reset_mask": np.arange(3)}, "give 3 booleans"),
        (
            "Disabled",
            {"reset_mask": np.arange(3) == 1, "task": [0, 1, 2]},
            "task: reset all environments",
        ),
    ],
)
def test_resets_that_cannot_be_are_told_in_a_line(mode: str, options: dict[str, Any], says: str):
    family = Ragged()
    envs = FamilyVectorEnv(family, family.tasks("test", 3, Rng(0)), autoreset_mode=mode)
    envs.reset(seed=0)
    with pytest.raises(MetaRLError, match=says):
        envs.reset(options=options)


def test_all_are_reset_before_some_are():
    envs = FamilyVectorEnv(Reach(), Reach().tasks("test", 2, Rng(0)), autoreset_mode="Disabled")
    with pytest.raises(MetaRLError, match="reset all environments first"):
        envs.reset(options={"reset_mask": np.array([True, False])})


def test_an_unknown_mode_is_told_in_a_line():
    with pytest.raises(MetaRLError, match="autoreset_mode 'NextStp': did you mean 'NextStep'"):
        gymnasium.make_vec(
            "metarl.adapters.registration:metarl/point-v0", num_envs=2, autoreset_mode="NextStp"
        )
