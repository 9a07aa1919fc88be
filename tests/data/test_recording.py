"""Episodes recorded elsewhere, laid out as if they had been collected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import Ragged, live, same

from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import replace
from metarl.data.recording import Recording, recorded

SPACES = pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])


def cut(rollout: Rollout, lane: int = 0) -> list[Recording]:
    """The episodes of a lane of the first row, as plain arrays."""
    valid, episode = rollout.valid[:, 0, lane], rollout.episode()[:, 0, lane]
    parts = []
    for k in range(int(episode[valid].max()) + 1):
        mine = valid & (episode == k)
        obs = torch.cat([rollout.inputs.obs[mine, 0, lane], rollout.next_obs[mine, 0, lane][-1:]])
        action, reward = (
            rollout.action[mine, 0, lane].numpy(),
            rollout.reward[mine, 0, lane].tolist(),
        )
        parts.append(
            Recording(obs.numpy(), action, reward, bool(rollout.terminated[mine, 0, lane][-1]))
        )
    return parts


def lived(discrete: bool, episodes: int, lanes: int = 1) -> Rollout:
    """The third task of `Ragged`: its first four episodes last 3, 4 (truncated), 2 and 4 steps."""
    rollout, _ = live(Ragged(discrete), Ragged().tasks("test", 3, Rng(0)), episodes, lanes=lanes)
    return replace(
        rollout.rows(torch.tensor([2])), index=torch.zeros(1, dtype=torch.long), extras={}
    )


def tidy(rollout: Rollout) -> Rollout:
    """With zeros in waiting lanes and for log-probabilities, as in what is recorded."""
    clean = rollout._map(
        lambda x: x * rollout.valid.reshape(*rollout.valid.shape, *[1] * (x.dim() - 3))
    )
    return replace(clean, log_prob=torch.zeros_like(rollout.log_prob))


@SPACES
def test_what_was_collected_comes_back(discrete: bool):
    """Cut into plain arrays and laid out again, obs, cues, actions, rewards and ends are equal."""
    rollout = lived(discrete, 4)
    assert rollout.truncated.any()
    assert rollout.terminated.any()
    assert same(recorded(Ragged(discrete).spec, cut(rollout)), tidy(rollout))


@SPACES
@pytest.mark.parametrize("rounds", [1, 2])
def test_lanes_stand_side_by_side_and_the_shorter_ones_wait(discrete: bool, rounds: int):
    """Episode i is in lane i mod 3; each lane has its own cues, from the first on."""
    singles = [cut(lived(discrete, k + 1))[k] for k in range(3 * rounds)]
    rollout = recorded(Ragged(discrete).spec, singles, lanes=3)
    lengths = [len(single.reward) for single in singles]
    assert rollout.valid.sum((0, 1)).tolist() == [sum(lengths[lane::3]) for lane in range(3)]
    assert len(rollout.valid) == max(sum(lengths[lane::3]) for lane in range(3))
    for lane in range(3):
        alone = recorded(Ragged(discrete).spec, singles[lane::3])
        steps = len(alone.valid)
        assert same(
            rollout._map(lambda x, lane=lane, steps=steps: x[:steps, :, lane : lane + 1]), alone
        )
        assert not rollout.valid[steps:, :, lane].any()
    assert rollout.inputs.cue[0, 0, :, -1].tolist() == [1.0] * 3
    assert rollout.inputs.cue[0, 0, :, :-1].eq(0).all()


def test_what_only_the_actor_knew_is_not_there():
    rollout = recorded(Ragged().spec, cut(lived(True, 2)))
    assert rollout.log_prob.eq(0).all()
    assert rollout.extras == {}
    assert (
        rollout.success
        is rollout.training_reward
        is rollout.inputs.task
        is rollout.inputs.latent
        is None
    )


def test_lists_tuples_and_tensors_are_arrays_too():
    """And what is recorded is not changed when the arrays are, later."""
    (one,) = cut(lived(True, 1))
    obs = np.array(one.obs)
    rollout = recorded(Ragged().spec, [Recording(obs, one.action, one.reward, one.terminated)])
    obs[:] = 0
    for kind in (
        lambda x: np.asarray(x).tolist(),
        torch.as_tensor,
        lambda x: np.asarray(x, np.float64),
    ):
        again = Recording(
            kind(one.obs), tuple(kind(one.action)), kind(one.reward), np.bool_(one.terminated)
        )
        assert same(recorded(Ragged().spec, [again]), rollout)
        assert recorded(Ragged().spec, [again]).action.dtype == torch.int64


GOOD: dict[str, Any] = {
    "obs": np.zeros((3, 4)),
    "action": [0, 1],
    "reward": [1.0, 2.0],
    "terminated": True,
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"obs": np.zeros((3, 5))}, r"obs is of shape \[3, 5\]; beside 2 rewards give \[3, 4\]"),
        ({"obs": np.zeros((2, 4))}, r"obs is of shape \[2, 4\]; beside 2 rewards give \[3, 4\]"),
        ({"obs": np.full((3, 4), np.nan)}, "obs is not finite"),
        (
            {"obs": [[0, 0, 0, 0], [0]]},
            r"obs is \[\[0, 0, 0, 0\], \[0\]\], not an array of numbers",
        ),
        ({"action": [[0], [1]]}, r"action is of shape \[2, 1\]; beside 2 rewards give \[2\]"),
        ({"action": [0, 2]}, "actions must be integers from 0 to 1"),
        ({"action": [-1, 0]}, "actions must be integers from 0 to 1"),
        ({"action": [0, 0.5]}, "actions must be integers from 0 to 1"),
        ({"reward": [1.0, np.inf]}, "reward is not finite"),
        ({"reward": [[1.0], [2.0]]}, r"reward is of shape \[2, 1\]; beside 2 rewards give \[2\]"),
        ({"obs": None}, "obs is None"),
        ({"obs": np.full((3, 4), "1")}, "obs is array.*not real numbers"),
        ({"obs": np.full((3, 4), 1j)}, r"complex128\), not real numbers"),
        ({"reward": ["1", "2"]}, "reward is"),
        ({"reward": [10**400, 0]}, "reward is"),
        ({"reward": [1e300, 0]}, "reward is not finite"),
        ({"action": [None, 0]}, "action is"),
        ({"action": object()}, "action is"),
        ({"terminated": None}, r"terminated is None \(object\)"),
        ({"terminated": "no"}, "terminated is 'no'"),
        ({"terminated": [True, False]}, "terminated is .*neither True nor False"),
        ({"reward": 3.0}, "it has 0 steps, and those of ragged have 1 to 4"),
        ({"obs": np.zeros((1, 4)), "action": [], "reward": []}, "it has 0 steps"),
        (
            {"obs": np.zeros((6, 4)), "action": [0] * 5, "reward": [0] * 5},
            "it has 5 steps, and those of ragged",
        ),
    ],
)
def test_an_episode_that_cannot_be_of_the_family_is_named(changes: dict[str, Any], says: str):
    with pytest.raises(MetaRLError, match=f"^episode 1: .*{says}") as told:
        recorded(Ragged().spec, [Recording(**GOOD), Recording(**GOOD | changes)])
    assert "\n" not in str(told.value)


def test_continuous_actions_have_a_width_and_no_limits():
    """Policies draw from normal distributions; the family clips."""
    far = GOOD | {"action": [[3.0, -4.0], [0.0, 0.0]]}
    assert recorded(Ragged(discrete=False).spec, [Recording(**far)]).action[0, 0, 0].tolist() == [
        3.0,
        -4.0,
    ]
    with pytest.raises(
        MetaRLError, match=r"action is of shape \[2\]; beside 2 rewards give \[2, 2\]"
    ):
        recorded(Ragged(discrete=False).spec, [Recording(**GOOD)])


@pytest.mark.parametrize("episodes", [None, 3, "ab", Recording(**GOOD), [None], [GOOD], {}])
def test_what_is_no_list_of_recordings_is_told(episodes: Any):
    with pytest.raises(MetaRLError, match=r"^episodes: .*give a list of Recordings, not"):
        recorded(Ragged().spec, episodes)


def test_every_lane_needs_as_many_episodes():
    for count, lanes, says in (
        (0, 1, "0 were recorded; give at least one"),
        (0, 3, "0 .* give at least one, .* a multiple of 3"),
        (4, 3, "4 .* of 3"),
    ):
        with pytest.raises(MetaRLError, match=f"^episodes: {says}"):
            recorded(Ragged().spec, [Recording(**GOOD)] * count, lanes)
