"""How agents are evaluated, as a value."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import Counting, Ragged

from metarl.core.errors import ConfigError
from metarl.core.protocol import EvalProtocol
from metarl.core.rng import Rng
from metarl.core.types import Tasks
from metarl.evaluation.meta_test import evaluate
from metarl.evaluation.scores import combine
from metarl.experiments.building import make_agent, make_family


class Moody(Counting):
    """Remembers in which mode it acted at each call."""

    def __init__(self, spec, lanes=1):
        super().__init__(spec)
        self.lanes = lanes
        self.modes: list[str] = []

    def act(self, belief, obs, noise, counter, mode):
        self.modes.append(mode)
        return super().act(belief, obs, noise, counter, mode)


BANDIT = make_family("bernoulli-bandit", arms=3)


def rows(*values: float) -> Tasks:
    return Tasks.numbered(torch.tensor([[v, 0.5, 0.1] for v in values]), "test")


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ({}, ["sample", "sample", "sample"]),
        ({"mode": "greedy"}, ["greedy", "greedy", "greedy"]),
        ({"test_mode": "greedy"}, ["sample", "sample", "greedy"]),
        ({"mode": "greedy", "test_mode": "sample"}, ["greedy", "greedy", "sample"]),
    ],
)
@pytest.mark.parametrize("lanes", [1, 2])
def test_the_last_round_may_have_a_mode_of_its_own(modes, expected, lanes):
    agent = Moody(BANDIT.spec, lanes)
    scores = evaluate(agent, BANDIT, EvalProtocol(3 * lanes, tasks=2, **modes))
    assert agent.modes == expected
    assert (scores.mode, scores.test_mode) == (expected[0], expected[-1])


def test_scores_of_another_test_mode_are_not_combined():
    agent = Counting(BANDIT.spec)
    one, other = (
        evaluate(agent, BANDIT, EvalProtocol(2, tasks=2, test_mode=mode))
        for mode in (None, "greedy")
    )
    combine([one, one])
    with pytest.raises(ConfigError, match="modes cannot be combined"):
        combine([one, other])


def test_what_is_changed_and_what_is_kept():
    protocol = EvalProtocol(4, tasks=7, mode="sample", test_mode="greedy")
    assert protocol.changed(tasks=None, seed=3) == EvalProtocol(
        4, tasks=7, mode="sample", test_mode="greedy", seed=3
    )
    assert protocol.changed(mode="greedy").mode_of(testing=True) == "greedy"
    assert protocol.changed(mode="sample").mode_of(testing=True) == "sample"  # of all rounds
    both = protocol.changed(mode="sample", test_mode="greedy")
    assert (both.mode_of(False), both.mode_of(True)) == ("sample", "greedy")


def test_given_tasks_are_met_and_no_others():
    given = rows(0.9, 0.0, 0.4)
    scores = evaluate(make_agent("greedy", BANDIT.spec), BANDIT, EvalProtocol(1, given))
    assert scores.returns.shape == (1, 1, 3)
    assert set(np.round(scores.returns[0, 0], 6)) <= {0.9, 0.0, 0.4, 0.5, 0.1}
    assert scores.optimum == pytest.approx([0.9, 0.5, 0.5])
    # the exact mean optimum is that of the family's own tasks
    assert scores.mean_optimum is None
    assert scores.totals == pytest.approx(scores.returns.sum(1))


def test_the_tasks_of_a_split_are_the_same_when_they_are_given():
    agent = make_agent("rl2", BANDIT.spec)
    protocol = EvalProtocol(5, tasks=20, seed=4)
    drawn = evaluate(agent, BANDIT, protocol)
    given = evaluate(agent, BANDIT, protocol, tasks=protocol.rows(BANDIT))
    assert given.task_hash == drawn.task_hash
    assert given.returns == pytest.approx(drawn.returns)


def test_a_single_row_is_that_of_all_rows():
    protocol = EvalProtocol(1, tasks=9)
    many = protocol.rows(BANDIT)
    assert torch.equal(protocol.row(BANDIT, 4).params, many.params[4:5])
    given = protocol.changed(tasks=many[:3])
    assert torch.equal(given.row(BANDIT, 2).params, many.params[2:3])
    with pytest.raises(ConfigError, match="task 3: there are 3 test tasks"):
        given.row(BANDIT, 3)


def test_rows_of_another_width_are_refused():
    with pytest.raises(ConfigError, match=r"rows of shape \[2, 3\]; ragged has rows of 1 numbers"):
        EvalProtocol(1, rows(0.1, 0.2)).rows(Ragged())


def test_rows_that_are_not_finite_are_refused():
    with pytest.raises(ConfigError, match="not finite"):
        EvalProtocol(1, rows(0.1, float("nan"))).rows(BANDIT)


def test_the_total_of_a_fixed_training_set_is_its_own():
    """Its tasks are few: the mean optimum of all tasks is not theirs."""
    few = rows(0.9, 0.8, 0.7)
    train_set = Tasks.numbered(few.params, "train")
    agent = make_agent("greedy", BANDIT.spec)
    scores = evaluate(agent, BANDIT, EvalProtocol(4, 3, split="train", train_set=train_set))
    assert scores.totals == pytest.approx(scores.returns.sum(1))
    drawn = evaluate(agent, BANDIT, EvalProtocol(4, 3, split="train"))
    assert drawn.totals != pytest.approx(drawn.returns.sum(1))


def test_an_agent_that_is_shown_a_one_hot_meets_no_given_tasks():
    agent = Counting(BANDIT.spec)
    agent.task_input = "onehot"
    train_set = Tasks.numbered(rows(0.1, 0.2).params, "train")
    with pytest.raises(ConfigError, match="knows only its training tasks"):
        evaluate(agent, BANDIT, EvalProtocol(1, train_set, train_set=train_set))


def test_given_tasks_are_of_no_closed_family():
    family = make_family("gridnavi", variant="all")
    agent = make_agent("random", family.spec)
    assert evaluate(agent, family, EvalProtocol(1, 4)).closed
    assert not evaluate(agent, family, EvalProtocol(1, family.tasks("test", 4, Rng(0)))).closed
