"""Evaluation: one protocol for every agent, on common tasks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import Counting, Ragged

from metarl import evaluation as module
from metarl.agent import make_agent
from metarl.env import make_family
from metarl.errors import Mistake
from metarl.evaluation import combine, evaluate
from metarl.types import replace


class FirstArm(Counting):
    """Pulls one arm for ever, and counts the episodes that it adapted to."""

    def begin(self, view, lanes):
        belief = super().begin(view, lanes)
        return replace(belief, row=torch.zeros(view.rows))

    def act(self, belief, obs, noise, counter, mode):
        acted, belief = super().act(belief, obs, noise, counter, mode)
        return replace(acted, action=torch.zeros_like(acted.action)), belief

    def adapt(self, belief, rollout):
        self.adapted = belief.row + rollout.done.sum((0, 2))
        return replace(belief, row=self.adapted)


def test_scores_of_an_agent_that_can_be_computed_by_hand():
    family = make_family("bernoulli-bandit", arms=3)
    agent = FirstArm(family.spec)
    scores = evaluate(agent, family, episodes=4, tasks=50, seed=3)
    tasks = family.tasks("test", 50, module.Rng(3).child("evaluate", "tasks")).params.double().numpy()
    assert scores.returns.shape == (1, 4, 50)
    assert scores.returns[0] == pytest.approx(np.tile(tasks[:, 0], (4, 1)))
    assert scores.regrets[0] == pytest.approx(4 * (tasks.max(1) - tasks[:, 0]))
    assert scores.totals[0] == pytest.approx(4 * 3 / 4 - scores.regrets[0])
    assert agent.adapted.tolist() == [4.0] * 50


def test_returns_are_those_that_fell_where_no_mean_is_known():
    """Episode e of task i pays 10 e + 1, 10 e + 2, … for as many steps as it lasts."""
    family = Ragged()
    scores = evaluate(Counting(family.spec), family, episodes=1, tasks=5)
    assert scores.returns[0, 0].tolist() == [1, 3, 6, 10, 10]
    assert scores.optimum is None
    assert scores.success is None
    with pytest.raises(Mistake, match="optimum"):
        _ = scores.regrets


def test_rows_do_not_depend_on_how_many_are_evaluated_together(monkeypatch):
    family = make_family("tabular-mdp", states=3, actions=2)
    agent = make_agent("rl2", family.spec)
    together = evaluate(agent, family, episodes=3, tasks=20)
    monkeypatch.setattr(module, "_CHUNK", 7)
    apart = evaluate(agent, family, episodes=3, tasks=20)
    assert apart.returns == pytest.approx(together.returns, abs=1e-5)
    assert apart.task_hash == together.task_hash


def test_seed_and_split_choose_the_tasks_and_the_agent_does_not():
    family = make_family("bernoulli-bandit")
    agents = [make_agent("rl2", family.spec, seed=seed) for seed in (0, 1)]
    first, second = (evaluate(agent, family, episodes=2, tasks=10) for agent in agents)
    assert first.task_hash == second.task_hash
    assert first.task_hash != evaluate(agents[0], family, episodes=2, tasks=10, seed=1).task_hash
    assert first.task_hash != evaluate(agents[0], family, episodes=2, tasks=10, split="ood").task_hash


def test_success_is_reported_per_episode():
    family = make_family("point", horizon=5, arrival=10.0)  # everybody has arrived after the first step
    scores = evaluate(make_agent("rl2", family.spec), family, episodes=2, tasks=6)
    assert scores.success.shape == (1, 2, 6)
    assert scores.success.all()


def test_combine_joins_runs_on_the_same_tasks_only():
    family = make_family("bernoulli-bandit")
    agent = FirstArm(family.spec)
    one = evaluate(agent, family, episodes=2, tasks=10)
    assert combine([one, one, one]).returns.shape == (3, 2, 10)
    with pytest.raises(Mistake, match="cannot be combined"):
        combine([one, evaluate(agent, family, episodes=2, tasks=10, seed=9)])


def test_unknown_split_names_the_nearest():
    family = make_family("bernoulli-bandit")
    with pytest.raises(Mistake, match="did you mean 'test'"):
        evaluate(FirstArm(family.spec), family, episodes=1, tasks=2, split="tets")
