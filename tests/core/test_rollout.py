"""The rollout buffer, on ragged episodes written by hand."""

from __future__ import annotations

import pytest
import torch
from helpers import CPU, Ragged, live, same
from torch.utils._pytree import tree_leaves

from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng
from metarl.core.rollout import Recorder, Rollout, join_rows, stack_lanes
from metarl.core.types import Acted, Inputs, Spec, Step, Tasks, replace, tree_map

# Two episodes a row: row 0 lives 1 + 2 steps and waits for two, row 1 lives 2 + 3.
TERMINATED = [
    [1, 0],
    [0, 1],
    [1, 0],
    [1, 0],
    [0, 0],
]  # what a waiting lane reports (row 0, step 3) means nothing
TRUNCATED = [[0, 0], [0, 0], [0, 0], [0, 0], [0, 1]]
VALID = [[1, 1], [1, 1], [1, 1], [0, 1], [0, 1]]
REWARD = [[1, 10], [2, 20], [3, 30], [99, 40], [99, 50]]


@pytest.fixture
def ragged() -> Rollout:
    def array(rows: list[list[int]]) -> torch.Tensor:
        return torch.tensor(rows).unsqueeze(-1)

    obs = torch.randn(5, 2, 1, 3)
    return Rollout(
        inputs=Inputs(obs),
        action=torch.zeros(5, 2, 1, dtype=torch.long),
        log_prob=torch.randn(5, 2, 1),
        reward=array(REWARD).float(),
        next_obs=obs,
        terminated=array(TERMINATED).bool(),
        truncated=array(TRUNCATED).bool(),
        valid=array(VALID).bool(),
        index=torch.tensor([4, 7]),
        extras={"value": torch.randn(5, 2, 1)},
        metrics={"distance": array(REWARD).float(), "steps": torch.ones(5, 2, 1)},
    )


def test_episodes_are_numbered_from_zero(ragged: Rollout):
    episode = ragged.episode().squeeze(-1)
    assert episode[:3, 0].tolist() == [0, 1, 1]
    assert episode[:, 1].tolist() == [0, 0, 1, 1, 1]


def test_returns_are_sums_over_episodes_without_the_waiting(ragged: Rollout):
    assert ragged.episode_returns().squeeze(-1).tolist() == [[1, 30], [5, 120]]
    assert ragged.episode_returns(torch.ones_like(ragged.reward)).squeeze(-1).tolist() == [
        [1, 2],
        [2, 3],
    ]


def distances(rollout: Rollout) -> list[object]:
    return rollout.episode_metrics()["distance"].tolist()


def test_the_metrics_of_an_episode_are_those_of_its_last_step(ragged: Rollout):
    """Not of the waiting after it, whose values and ends mean nothing; [K, N, M]."""
    assert ragged.episode_metrics().keys() == {"distance", "steps"}
    assert distances(ragged) == [[[1], [20]], [[3], [50]]]
    assert ragged.episode_metrics()["steps"].eq(1).all()
    assert distances(ragged.rows(torch.tensor([1]))) == [[[20]], [[50]]]
    assert replace(ragged, metrics={}).episode_metrics() == {}


def test_metrics_are_carried_wherever_a_rollout_goes(ragged: Rollout, lanes: Rollout):
    assert distances(lanes) == [[[0, 4, 8]], [[6, 13, 11]]]
    assert [distances(part) for part in lanes.rounds()] == [[[[0, 4, 8]]], [[[6, 13, 11]]]]
    assert distances(lanes.one_episode_per_lane()) == [[[0, 4, 8, 6, 13, 11]]]
    assert distances(lanes.reshape_lanes(1)) == [[[x]] for x in (0, 6, 4, 13, 8, 11)]
    assert distances(stack_lanes([lanes, lanes]))[1] == [[6, 13, 11, 6, 13, 11]]
    joined = join_rows([ragged.rows(torch.tensor([0])), ragged])
    assert distances(joined) == [[[1], [1], [20]], [[3], [3], [50]]]


def test_an_episode_that_a_lane_does_not_have_has_no_metric(ragged: Rollout):
    """Never a zero, which might be taken for one."""
    first = next(ragged.rows(torch.tensor([0])).rounds())
    joined = join_rows([first, ragged]).episode_metrics()["distance"]
    assert joined[0].tolist() == [[1], [1], [20]]
    assert joined[1].isnan().flatten().tolist() == [True, False, False]


def test_the_recorder_keeps_metrics_by_name_in_whatever_order_they_are_given():
    recorder, x = Recorder(capacity=2), torch.zeros(2, 1)
    never = torch.zeros(2, 1, dtype=torch.bool)
    for metrics in ({"a": x + 1, "b": x + 2}, {"b": x + 4, "a": x + 3}):
        step = Step(x.unsqueeze(-1), x.unsqueeze(-1), x, never, never, metrics=metrics)
        recorder.write(Acted(Inputs(x.unsqueeze(-1)), x.long(), x), step, ~never)
    rollout = recorder.rollout(Tasks(torch.zeros(2, 1), torch.arange(2), "train"))
    assert rollout.metrics["a"][:, 0, 0].tolist() == [1, 3]
    assert rollout.metrics["b"][:, 0, 0].tolist() == [2, 4]


def test_steps_lived_through_are_counted(ragged: Rollout):
    assert ragged.env_steps == 3 + 5
    assert ragged.done.squeeze(-1).int().tolist() == [[1, 0], [0, 1], [1, 0], [1, 0], [0, 1]]


def test_rows_choose_from_every_array(ragged: Rollout):
    swapped = ragged.rows(torch.tensor([1, 0]))
    assert swapped.index.tolist() == [7, 4]
    assert torch.equal(swapped.extras["value"], ragged.extras["value"].flip(1))
    assert torch.equal(swapped.inputs.obs, ragged.inputs.obs.flip(1))
    assert same(swapped.rows(torch.tensor([1, 0])), ragged)
    assert swapped.success is None


def test_returns_of_what_was_collected_are_those_by_hand():
    """Episode e of task i pays Σ_{s=1}^{L} (10 e + s) = 10 e L + L (L + 1) / 2, L its length."""
    family = Ragged()
    rollout, _ = live(family, family.tasks("test", 5, Rng(0)), episodes=4)
    index, episode = torch.meshgrid(torch.arange(5), torch.arange(4), indexing="ij")
    length = family.length(index, episode).clamp(max=4)
    expected = 10 * episode * length + length * (length + 1) // 2
    assert torch.equal(rollout.episode_returns().squeeze(-1).t(), expected.float())
    assert rollout.env_steps == length.sum()


def test_the_recorder_keeps_what_was_written():
    """Copies, so that a family may hand out the same array at every step."""
    recorder, shared = Recorder(capacity=5), torch.zeros(2, 1)
    never = torch.zeros(2, 1, dtype=torch.bool)
    for t in range(3):
        shared.fill_(t)
        step = Step(shared.unsqueeze(-1), shared.unsqueeze(-1), shared, never, never, success=never)
        recorder.write(
            Acted(Inputs(shared.unsqueeze(-1)), shared.long(), shared, {"value": shared}),
            step,
            ~never,
        )
    rollout = recorder.rollout(Tasks(torch.zeros(2, 1), torch.arange(2), "train"))
    expected = torch.arange(3.0).view(3, 1, 1).expand(3, 2, 1)
    for array in (
        rollout.reward,
        rollout.extras["value"],
        rollout.inputs.obs.squeeze(-1),
        rollout.action.float(),
    ):
        assert torch.equal(array, expected)
    assert rollout.success.shape == (3, 2, 1)
    assert rollout.training_reward is None
    assert same(tree_map(lambda x: x.to(CPU), rollout), rollout)


def test_rows_that_were_lived_through_apart_are_those_of_all_together():
    """In their order, though the parts end at different times; what is added waits, and is zero."""
    family = Ragged()
    tasks = family.tasks("train", 5, Rng(0))
    whole, _ = live(family, tasks, 3, lanes=2)
    places = [slice(0, 2), slice(2, 3), slice(3, 5)]
    parts = [live(family, tasks[rows], 3, lanes=2)[0] for rows in places]
    assert len({len(part.valid) for part in parts}) > 1
    joined = join_rows(parts)
    assert torch.equal(joined.index, whole.index)
    assert torch.equal(joined.valid, whole.valid)
    assert same(joined._map(lambda x: x[joined.valid]), whole._map(lambda x: x[whole.valid]))
    for rows, part in zip(places, parts, strict=True):
        mine, end = joined.rows(torch.arange(5)[rows]), len(part.valid)
        assert same(mine._map(lambda x, end=end: x[:end]), part)
        rest = mine._map(lambda x, end=end: x[end:])
        assert not any(x.any() for x in tree_leaves(replace(rest, index=rest.valid)))
    assert joined.success is None


@pytest.mark.parametrize("success", [True, False])
def test_a_rollout_joined_with_a_longer_one_keeps_all_its_arrays(ragged: Rollout, success: bool):
    """Types too; alone, it is what it was."""
    if success:
        ragged = replace(ragged, success=ragged.valid, training_reward=ragged.reward + 1)
    short = ragged.rows(torch.tensor([0]))._map(lambda x: x[:3])
    joined = join_rows([short, ragged])
    assert joined.index.tolist() == [4, 4, 7]
    assert joined.valid.shape == (5, 3, 1)
    assert same(joined.rows(torch.tensor([1, 2])), ragged)
    assert joined.action.dtype == torch.long
    assert joined.env_steps == 3 + ragged.env_steps
    assert same(joined.episode_returns()[:, 0], short.episode_returns()[:, 0])
    assert (joined.success is not None) == (joined.training_reward is not None) == success
    assert same(join_rows([ragged]), ragged)


# -------------------------------------------------------------------------------------------------
# Lanes and rounds


@pytest.fixture
def lanes() -> Rollout:
    """Lanes of different lengths: lane 0 has 1 + 2 steps, lane 1 has 2 + 3, lane 2 has 3 + 1."""
    flags = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 1], [1, 0, 1], [0, 1, 1]]).bool()
    valid = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 1, 0]]).bool()
    reward = torch.arange(15.0).view(5, 1, 3)
    return Rollout(
        inputs=Inputs(reward.unsqueeze(-1) + 100),
        action=torch.arange(15).view(5, 1, 3) % 2,
        log_prob=reward,
        reward=reward,
        next_obs=reward.unsqueeze(-1),
        terminated=flags.unsqueeze(1),
        truncated=torch.zeros(5, 1, 3, dtype=torch.bool),
        valid=valid.unsqueeze(1),
        index=torch.tensor([7]),
        extras={"value": reward},
        metrics={"distance": reward},
    )


def test_the_kth_episodes_of_all_lanes_are_a_round(lanes: Rollout):
    first, second = lanes.rounds()
    for rollout, expected in (
        (first, [[0], [1, 4], [2, 5, 8]]),
        (second, [[3, 6], [7, 10, 13], [11]]),
    ):
        assert len(rollout.valid) == 3
        assert rollout.index.tolist() == [7]
        for lane, steps in enumerate(expected):
            mine = rollout.valid[:, 0, lane]
            assert mine.tolist() == [True] * len(steps) + [False] * (3 - len(steps))
            assert rollout.reward[mine, 0, lane].tolist() == steps
            assert rollout.inputs.obs[mine, 0, lane, 0].tolist() == [100 + step for step in steps]
            assert rollout.extras["value"][mine, 0, lane].tolist() == steps
            assert rollout.done[mine, 0, lane].tolist() == [False] * (len(steps) - 1) + [True]
    returns = torch.cat([part.episode_returns() for part in (first, second)])
    assert torch.equal(returns, lanes.episode_returns())


def test_lanes_can_be_taken_apart_and_put_together(lanes: Rollout):
    """Each as long as it lived; what waits is empty."""
    parts = []
    for lane, steps in enumerate((3, 5, 4)):
        parts.append(lanes._map(lambda x, lane=lane, steps=steps: x[:steps, :, lane : lane + 1]))
    joined = stack_lanes(parts)
    assert torch.equal(joined.valid, lanes.valid)
    assert joined.index.tolist() == [7]
    for array, original in (
        (joined.reward, lanes.reward),
        (joined.inputs.obs[..., 0], lanes.inputs.obs[..., 0]),
    ):
        assert torch.equal(array, original * lanes.valid)
    assert torch.equal(joined.done, lanes.done & lanes.valid)
    assert same(
        stack_lanes([lanes.rows(torch.tensor([0]))._map(lambda x: x[:, :, :1])]),
        lanes._map(lambda x: x[:, :, :1]),
    )


def test_lanes_follow_one_another_in_a_belief_of_one(lanes: Rollout):
    stream = lanes.reshape_lanes(1)
    assert stream.valid.shape == (15, 1, 1)
    assert stream.reward[stream.valid].tolist() == [0, 3, 6, 1, 4, 7, 10, 13, 2, 5, 8, 11]
    assert stream.index.tolist() == [7]
    assert torch.equal(
        stream.episode_returns().flatten(), lanes.episode_returns().movedim(2, 0).flatten()
    )
    assert lanes.reshape_lanes(3) is lanes
    with pytest.raises(
        MetaRLError, match="a rollout of 3 lanes fits a belief of 3 lanes or 1, not 2"
    ):
        lanes.reshape_lanes(2)


def test_the_last_cue_of_a_lane_is_that_before_it_waits(lanes: Rollout):
    spec = Spec("x", {"x": 1}, action_width=2, discrete=True, horizon=3, task_width=1)
    assert lanes.last_cue(spec)[0].tolist() == [[1, 0, 6, 1], [0, 1, 13, 1], [0, 1, 11, 1]]
    assert lanes.reshape_lanes(1).last_cue(spec)[0].tolist() == [[0, 1, 11, 1]]
    assert lanes.cues(spec).shape == (5, 1, 3, 4)


# -------------------------------------------------------------------------------------------------
# Episodes apart


def test_episodes_apart_are_those_of_a_loop():
    """Episode after episode, lane after lane: the same steps, from time 0."""
    family, episodes = Ragged(), 3
    rollout, _ = live(family, family.tasks("test", 4, Rng(0)), episodes, lanes=2)
    alone, number = rollout.one_episode_per_lane(), rollout.episode()
    lengths = torch.stack(
        [(rollout.valid & (number == k)).sum(0) for k in range(episodes)]
    )  # [K, N, M]
    assert len(lengths.unique()) == 4
    assert alone.valid.shape == (int(lengths.max()), 4, episodes * 2)
    assert torch.equal(alone.index, rollout.index)
    arrays = (
        lambda x: x.inputs.obs, lambda x: x.inputs.cue, lambda x: x.action, lambda x: x.reward,
        lambda x: x.next_obs, lambda x: x.terminated, lambda x: x.truncated,
        lambda x: x.extras["count"],
    )  # fmt: skip
    for i in range(4):
        for lane in range(2):
            for k in range(episodes):
                here, length = (
                    rollout.valid[:, i, lane] & (number[:, i, lane] == k),
                    int(lengths[k, i, lane]),
                )
                there = alone.valid[:, i, k * 2 + lane]
                assert there.tolist() == [True] * length + [False] * (len(there) - length)
                for array in arrays:
                    assert torch.equal(
                        array(alone)[there, i, k * 2 + lane], array(rollout)[here, i, lane]
                    )
                assert alone.done[:, i, k * 2 + lane][there].tolist() == [False] * (length - 1) + [
                    True
                ]


def test_apart_nothing_is_lost(ragged: Rollout, lanes: Rollout):
    """Steps and returns: [K, N, M] of a lane's episodes are [1, N, K · M] of one each."""
    for rollout in (ragged, lanes):
        alone = rollout.one_episode_per_lane()
        assert alone.env_steps == rollout.env_steps
        together = rollout.episode_returns()
        assert torch.equal(alone.episode_returns(), together.movedim(1, 0).flatten(1).unsqueeze(0))
        assert alone.one_episode_per_lane() is alone
        assert alone.success is None
    assert alone.reward[alone.valid[:, 0, 5], 0, 5].tolist() == [11]


def test_one_episode_a_lane_is_apart_already():
    family = Ragged()
    rollout, _ = live(family, family.tasks("test", 4, Rng(0)), 1, lanes=2)
    assert rollout.one_episode_per_lane() is rollout
