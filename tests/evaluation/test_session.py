"""A deployed agent does what the same agent does in `collect`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import Adapting, Ragged, same

from metarl.collect.collector import collect
from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng
from metarl.core.types import TaskInfo
from metarl.data.recording import Recording, recorded
from metarl.evaluation.session import Session
from metarl.experiments.building import make_agent, make_family


@pytest.mark.parametrize("discrete", [True, False])
def test_a_session_acts_as_collect_does(discrete):
    """Greedy actions, so that the same observations must give the same ones."""
    family = Ragged(discrete)
    agent = make_agent("rl2", family.spec, memory_width=16)
    tasks = family.tasks("test", 3, Rng(0))[2:]
    belief = agent.begin(TaskInfo(1, 3, torch.device("cpu")), lanes=1)
    rollout, _ = collect(
        agent, family.make(1), family.spec, belief, tasks, 3, Rng(0), mode="greedy"
    )
    session = Session(agent, family.spec, episodes=3, mode="greedy")
    for t in range(len(rollout.valid)):
        action = session.act(rollout.inputs.obs[t, 0, 0].numpy())
        assert np.allclose(action, rollout.action[t, 0, 0].numpy(), atol=1e-6)
        ended = [bool(flag[t, 0, 0]) for flag in (rollout.terminated, rollout.truncated)]
        session.observe(float(rollout.reward[t, 0, 0]), rollout.next_obs[t, 0, 0].numpy(), *ended)
    assert rollout.done.sum() == 3


def test_adapt_sees_every_finished_episode():
    agent = Adapting(Ragged().spec)
    session = Session(agent, agent.spec)
    live_through(session, 2, 1)
    assert [rollout.reward.flatten().tolist() for rollout in agent.rollouts] == [[1.0, 2.0], [1.0]]
    assert all(rollout.terminated[-1].all() for rollout in agent.rollouts)


def live_through(session, *lengths):
    """Episodes of so many steps; step s pays s + 1 and is seen as an observation of so many."""
    for length in lengths:
        for step in range(length):
            session.act(np.full(4, step))
            session.observe(
                step + 1.0, np.full(4, step + 1), terminated=step == length - 1, truncated=False
            )


def recording_of(length, action):
    """What `live_through` does."""
    obs, reward = np.arange(length + 1).repeat(4).reshape(-1, 4), np.arange(length) + 1
    return Recording(obs, [action] * length, reward, terminated=True)


def test_an_agent_of_several_lanes_adapts_after_as_many_episodes():
    """They lie side by side, as if they had been lived through together; so do those that somebody
    recorded."""
    agent = Adapting(Ragged().spec, lanes=3)
    session = Session(agent, agent.spec, episodes=7)
    assert agent.infos[0].episodes == 3, "the last round is not full"
    live_through(session, 2, 1)
    assert not agent.rollouts
    assert session.belief.row[0].tolist() == [0]
    live_through(session, 4)
    (rollout,) = agent.rollouts
    assert session.belief.row[0].tolist() == [1]
    assert rollout.reward[:, 0].T.tolist() == [[1, 2, 0, 0], [1, 0, 0, 0], [1, 2, 3, 4]]
    assert rollout.valid.sum(0).tolist() == [[2, 1, 4]]
    assert rollout.extras["adapted"].eq(0).all()
    live_through(session, 1, 2, 3, 1)
    assert len(agent.rollouts) == 2
    expected = recorded(agent.spec, [recording_of(length, 0) for length in (1, 2, 3)], lanes=3)
    for name in ("reward", "next_obs", "terminated", "truncated", "valid"):
        assert same(getattr(agent.rollouts[1], name), getattr(expected, name))
    assert same(agent.rollouts[1].inputs.obs, expected.inputs.obs)
    assert agent.rollouts[1].extras["adapted"][agent.rollouts[1].valid].eq(1).all()


def test_what_others_lived_through_is_replayed_round_by_round():
    agent = Adapting(Ragged().spec, lanes=2)
    session = Session(agent, agent.spec, episodes=8)
    session.replay([recording_of(length, 1) for length in (1, 2, 3, 1)])
    assert session.belief.row[0].tolist() == [2]
    paid = [(rollout.reward * rollout.valid)[:, 0].T.tolist() for rollout in agent.rollouts]
    assert paid == [[[1, 0], [1, 2]], [[1, 2, 3], [1, 0, 0]]]
    session.replay([recording_of(1, 1), recording_of(1, 1)])
    assert session.belief.row[0].tolist() == [3]


def test_what_is_replayed_must_be_whole():
    """Nothing is learned of a list with a mistake in it, nor in the middle of an own episode."""
    agent = Adapting(Ragged().spec, lanes=2)
    session = Session(agent, agent.spec)
    good, bad = recording_of(2, 1), recording_of(9, 1)
    for episodes, says in (
        ([good, good, good, bad], "episode 3: it has 9 steps"),
        ([good], "a multiple of 2"),
        ([], "0"),
    ):
        with pytest.raises(MetaRLError, match=says):
            session.replay(episodes)
    for step in range(2):
        session.act(np.zeros(4))
        with pytest.raises(MetaRLError, match="finish the round of 2 episodes first"):
            session.replay([good, good])
        session.observe(1.0, np.zeros(4), terminated=step == 1, truncated=False)
        with pytest.raises(MetaRLError, match="finish the round of 2 episodes first"):
            session.replay([good, good])
    assert not agent.rollouts
    live_through(session, 1)
    session.replay([good, good])
    assert len(agent.rollouts) == 2
    alone = Session(Adapting(Ragged().spec), Ragged().spec)
    alone.act(np.zeros(4))
    with pytest.raises(MetaRLError, match="finish the round of 1 episodes first"):
        alone.replay([good])


@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("memory", ["gru", "lstm", "keyed", "gru+keyed", "slots", "transformer"])
def test_a_replayed_episode_is_remembered_like_one_of_ones_own(discrete, memory):
    """An agent that replayed three episodes acts in the fourth as one that collected them."""
    if memory == "slots" and not discrete:
        pytest.skip("slots are of discrete actions")
    spec = Ragged(discrete).spec
    options = {"memory": memory, "memory_keys": 3}
    own, told = (Session(make_agent("rl2", spec, **options), spec, mode="greedy") for _ in range(2))
    first = told.belief
    episodes = []
    for length in (3, 1, 4):
        obs, reward = (
            np.random.default_rng(length).normal(size=(length + 1, 4)),
            np.arange(length) + 0.5,
        )
        actions = []
        for step in range(length):
            actions.append(own.act(obs[step]))
            last = step == length - 1
            own.observe(
                reward[step],
                obs[step + 1],
                terminated=last and length == 1,
                truncated=last and length > 1,
            )
        episodes.append(Recording(obs, actions, reward, terminated=length == 1))
    told.replay(episodes)
    assert same(told.belief, own.belief)
    assert not same(told.belief.lane, first.lane)
    assert np.array_equal(told.act(np.ones(4)), own.act(np.ones(4)))


def test_actions_are_plain_python_or_numpy():
    bandit = make_family("bernoulli-bandit")
    assert type(Session(make_agent("rl2", bandit.spec), bandit.spec).act([1.0])) is int
    point = make_family("point")
    action = Session(make_agent("rl2", point.spec), point.spec).act([0.0, 0.0])
    assert isinstance(action, np.ndarray)
    assert action.shape == (2,)


def test_misuse_is_told_in_one_line():
    family = make_family("bernoulli-bandit")
    agent = make_agent("rl2", family.spec)
    session = Session(agent, family.spec)
    with pytest.raises(MetaRLError, match="call act first"):
        session.observe(1.0, [1.0], True, False)
    with pytest.raises(MetaRLError, match="1 numbers are expected"):
        session.act([1.0, 2.0])
    with pytest.raises(MetaRLError, match="obs is not finite"):
        session.act([float("nan")])
    session.act([1.0])
    with pytest.raises(MetaRLError, match="with observe"):
        session.act([1.0])
    with pytest.raises(MetaRLError, match="reward is nan, not one finite number"):
        session.observe(float("nan"), [1.0], True, False)
    with pytest.raises(MetaRLError, match="longer than the horizon of 1 steps"):
        session.observe(1.0, [1.0], False, False)
    with pytest.raises(MetaRLError, match="task_input is none"):
        Session(agent, family.spec, task=[0.1] * 5)


@pytest.mark.parametrize(
    "rubbish", [None, "1", [[1], [2, 3]], 1j, object(), 10**400, [None] * 4, b"1", {}]
)
def test_values_of_other_types_are_told_in_one_line(rubbish):
    """And the session goes on as if they had not been given."""
    spec = Ragged().spec
    session = Session(Adapting(spec), spec)

    def refused(call, *given):
        with pytest.raises(MetaRLError) as caught:
            call(*given)
        assert "\n" not in str(caught.value)

    good = np.zeros(4)
    refused(session.act, rubbish)
    session.act(good)
    refused(session.observe, rubbish, good, False, False)
    refused(session.observe, 1.0, rubbish, False, False)
    refused(session.observe, 1.0, good, rubbish, False)
    refused(session.observe, 1.0, good, False, rubbish)
    session.observe(1.0, good, True, False)
    refused(session.replay, rubbish)
    refused(session.replay, [rubbish])
    session.act(good)


def test_arrays_of_one_entry_are_numbers_and_flags():
    spec = Ragged().spec
    agent = Adapting(spec)
    session = Session(agent, spec)
    session.act(np.zeros(4))
    session.observe(np.array([2.5]), np.ones(4), np.array([True]), torch.tensor([False]))
    assert agent.rollouts[0].reward.flatten().tolist() == [2.5]
    assert agent.rollouts[0].terminated.all()


def test_an_oracle_is_told_its_task():
    family = make_family("bernoulli-bandit", arms=2)
    oracle = make_agent("rl2", family.spec, task_input="row")
    with pytest.raises(MetaRLError, match="task_input is row"):
        Session(oracle, family.spec)
    assert Session(oracle, family.spec, task=[0.2, 0.9]).act([1.0]) in (0, 1)
    for task, says in (([0.2], "2 numbers are expected, not 1"), (["a", "b"], "not real numbers")):
        with pytest.raises(MetaRLError, match=f"^task.*{says}"):
            Session(oracle, family.spec, task=task)
