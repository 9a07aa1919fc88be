"""A deployed agent does what the same agent does in `collect`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import Counting, Ragged

from metarl.agent import make_agent
from metarl.env import make_family
from metarl.errors import Mistake
from metarl.rng import Rng
from metarl.rollout import collect
from metarl.session import Session
from metarl.types import View


@pytest.mark.parametrize("discrete", [True, False])
def test_a_session_acts_as_collect_does(discrete):
    """Greedy actions, so that the same observations must give the same ones."""
    family = Ragged(discrete)
    agent = make_agent("rl2", family.spec, memory_width=16)
    tasks = family.tasks("test", 3, Rng(0))[2:]
    belief = agent.begin(View(1, 3, torch.device("cpu")), lanes=1)
    rollout, _ = collect(agent, family.make(1), family.spec, belief, tasks, 3, Rng(0), mode="greedy")
    session = Session(agent, family.spec, episodes=3, mode="greedy")
    for t in range(len(rollout.valid)):
        action = session.act(rollout.inputs.obs[t, 0, 0].numpy())
        assert np.allclose(action, rollout.action[t, 0, 0].numpy(), atol=1e-6)
        ended = [bool(flag[t, 0, 0]) for flag in (rollout.terminated, rollout.truncated)]
        session.observe(float(rollout.reward[t, 0, 0]), rollout.next_obs[t, 0, 0].numpy(), *ended)
    assert rollout.done.sum() == 3


def test_adapt_sees_every_finished_episode():
    family = Ragged()
    seen = []

    class Adapting(Counting):
        def adapt(self, belief, rollout):
            seen.append(rollout)
            return belief

    session = Session(Adapting(family.spec), family.spec)
    for length in (2, 1):
        for step in range(length):
            session.act(np.zeros(4))
            session.observe(step + 1.0, np.ones(4), terminated=step == length - 1, truncated=False)
    assert [rollout.reward.flatten().tolist() for rollout in seen] == [[1.0, 2.0], [1.0]]
    assert all(rollout.terminated[-1].all() for rollout in seen)


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
    with pytest.raises(Mistake, match="call act first"):
        session.observe(1.0, [1.0], True, False)
    with pytest.raises(Mistake, match="1 finite numbers are expected"):
        session.act([1.0, 2.0])
    with pytest.raises(Mistake, match="1 finite numbers are expected"):
        session.act([float("nan")])
    session.act([1.0])
    with pytest.raises(Mistake, match="with observe"):
        session.act([1.0])
    with pytest.raises(Mistake, match="is not finite"):
        session.observe(float("nan"), [1.0], True, False)
    with pytest.raises(Mistake, match="longer than the 1 steps"):
        session.observe(1.0, [1.0], False, False)
    with pytest.raises(Mistake, match="task_input is none"):
        Session(agent, family.spec, task=[0.1] * 5)


def test_an_oracle_is_told_its_task():
    family = make_family("bernoulli-bandit", arms=2)
    oracle = make_agent("rl2", family.spec, task_input="row")
    with pytest.raises(Mistake, match="task_input is row"):
        Session(oracle, family.spec)
    assert Session(oracle, family.spec, task=[0.2, 0.9]).act([1.0]) in (0, 1)
