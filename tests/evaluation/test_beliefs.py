"""Beliefs beside Bayes: who predicts as Bayes' rule does is 0 nats from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Counting, figure_of, same
from test_cli import metarl, mistake
from torch import Tensor
from torch.distributions import Categorical, Normal, kl_divergence

from metarl.config.schema import parse
from metarl.core.errors import ConfigError
from metarl.core.predictions import KnowsPosterior, Predictions, Predicts, Questions
from metarl.core.protocol import EvalProtocol
from metarl.core.rollout import Rollout
from metarl.core.types import Belief, one_hot, replace
from metarl.evaluation.beliefs import Beliefs, categorical_kl, compare_beliefs, reward_kl
from metarl.experiments.building import make_agent, make_family
from metarl.experiments.runs import train
from metarl.viz import beliefs

ARMS, EPISODES = 3, 12
BANDIT = make_family("bernoulli-bandit", arms=ARMS)
PROTOCOL = EvalProtocol(EPISODES, tasks=40)


class Exact(Counting):
    """Counts wins and pulls of every arm, and predicts by Bayes' rule."""

    predicts = True

    def begin(self, info, lanes):
        none = torch.zeros(info.rows, ARMS)
        return replace(super().begin(info, lanes), row=(none, none))

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        wins, pulls = belief.row
        pulled = one_hot(rollout.action, ARMS) * rollout.valid.unsqueeze(-1)
        won = pulled * rollout.reward.unsqueeze(-1)
        return replace(belief, row=(wins + won.sum((0, 2)), pulls + pulled.sum((0, 2))))

    replay = adapt

    def predict(self, belief: Belief, obs: Tensor, questions: Questions) -> Predictions:
        wins, pulls = (x.unsqueeze(1) for x in belief.row)
        mean = (wins + 1) / (pulls + 2)
        return Predictions(mean, mean * (1 - mean))


class Untrained(Exact):
    predicts = False


class Prior(Exact):
    """Learns nothing."""

    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        return belief


def test_the_bandit_and_the_agent_say_what_they_can():
    assert isinstance(BANDIT, KnowsPosterior)
    assert isinstance(Exact(BANDIT.spec), Predicts)
    assert isinstance(make_agent("varibad", BANDIT.spec), Predicts)
    assert not isinstance(make_agent("rl2", BANDIT.spec), Predicts)


def test_bayes_rule_is_no_nats_from_itself():
    found = compare_beliefs(Exact(BANDIT.spec), BANDIT, PROTOCOL, [0, 1, 5, 12])
    assert found.times == (0, 1, 5, 12)
    assert found.reward["agent"].shape == (4, 40)
    np.testing.assert_allclose(found.reward["agent"], 0.0, atol=1e-6)
    prior = found.reward["prior"].mean(1)
    assert prior[0] == 0.0
    assert (np.diff(prior) > 0.01).all()
    assert (found.reward["another task's"].mean(1) > prior)[1:].all()
    assert found.successor == {}


def test_who_learns_nothing_is_the_prior():
    found = compare_beliefs(Prior(BANDIT.spec), BANDIT, PROTOCOL)
    assert found.times == (0, 2, 6, 12)
    np.testing.assert_allclose(found.reward["agent"], found.reward["prior"], atol=1e-6)
    np.testing.assert_allclose(found.reward["another task's"], found.reward["prior"], atol=1e-6)


def test_rewards_of_any_size_are_compared_as_normal():
    torch.manual_seed(0)
    exact, model = (Predictions(torch.randn(4, 5), 0.1 + torch.rand(4, 5)) for _ in range(2))
    asked = Questions(torch.zeros(5, 1), torch.zeros(5).long(), torch.zeros(5, 1))
    expected = kl_divergence(
        Normal(exact.reward, exact.variance.sqrt()), Normal(model.reward, model.variance.sqrt())
    )
    torch.testing.assert_close(reward_kl(exact, model, asked), expected)


def test_two_rewards_are_compared_by_their_probabilities():
    asked = Questions(torch.zeros(1, 1), torch.zeros(1).long(), torch.zeros(1, 1), None, (-1.0, 3))
    exact, model = (Predictions(torch.tensor([x]), torch.ones(1)) for x in (0.0, 2.0))
    p, q = (Categorical(torch.tensor(x)) for x in ([0.25, 0.75], [0.75, 0.25]))
    torch.testing.assert_close(reward_kl(exact, model, asked), kl_divergence(p, q).view(1))


def test_what_lies_beyond_two_rewards_is_no_better_than_the_nearer_one():
    """Nor is a certain one that rounding puts beyond it an error."""
    asked = Questions(torch.zeros(1, 1), torch.zeros(1).long(), torch.zeros(1, 1), None, (0.0, 1.0))

    def nats(exact: float, model: float) -> float:
        both = (Predictions(torch.tensor([x]), torch.ones(1)) for x in (exact, model))
        return float(reward_kl(*both, asked))

    assert nats(1.0, 1.3) == nats(1.0, 1.0) == pytest.approx(0, abs=1e-5)
    assert nats(0.5, 1.3) > 5
    assert nats(1 + 1e-7, 0.5) == pytest.approx(np.log(2), abs=1e-5)
    assert nats(-1e-7, 0.5) == pytest.approx(np.log(2), abs=1e-5)


def test_small_rewards_count_as_large_ones_do():
    torch.manual_seed(0)
    exact, model = (Predictions(torch.randn(4, 5), 0.1 + torch.rand(4, 5)) for _ in range(2))
    asked = Questions(torch.zeros(5, 1), torch.zeros(5).long(), torch.zeros(5, 1))
    small = [Predictions(1e-4 * x.reward, 1e-8 * x.variance) for x in (exact, model)]
    torch.testing.assert_close(reward_kl(*small, asked), reward_kl(exact, model, asked))


def test_an_impossible_outcome_that_happens_costs_many_nats_and_not_infinitely_many():
    exact, model = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    assert 5 < float(categorical_kl(exact, model)) < 20


@pytest.mark.parametrize(
    ("agent", "family", "times", "message"),
    [
        (Counting(BANDIT.spec), BANDIT, None, "Counting predicts no outcomes"),
        (Exact(BANDIT.spec), make_family("point"), None, "point knows no exact posterior"),
        (Exact(BANDIT.spec), BANDIT, [13], "13 is not in a trial of 12 steps"),
        (Exact(BANDIT.spec), BANDIT, [], "times: none is given"),
        (Untrained(BANDIT.spec), BANDIT, None, "Untrained predicts no outcomes"),
    ],
)
def test_what_cannot_be_compared_is_told(agent, family, times, message):
    with pytest.raises(ConfigError, match=message):
        compare_beliefs(agent, family, PROTOCOL, times)


def test_one_task_has_no_other_to_compare():
    with pytest.raises(ConfigError, match="another task's belief is compared, too; ask for 2"):
        compare_beliefs(Exact(BANDIT.spec), BANDIT, EvalProtocol(EPISODES, tasks=1))


class Watched(Counting):
    """Notes where it is asked, and expects nothing."""

    predicts = True

    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        return belief

    def predict(self, belief: Belief, obs: Tensor, questions: Questions) -> Predictions:
        self.places = [*getattr(self, "places", []), obs]
        nothing = torch.zeros(*obs.shape[:2], len(questions.obs))
        return Predictions(nothing, nothing)


def test_an_agent_is_asked_where_it_would_act_next():
    """After the last step of a trial that is where another episode would begin."""
    family = make_family("gridnavi", horizon=5)
    agent = Watched(family.spec)
    compare_beliefs(agent, family, EvalProtocol(2, tasks=8), times=(0, 4, 10))
    begin, _, later, _, end, _ = agent.places
    assert same(end, begin)
    assert begin.flatten(0, 1).unique(dim=0).shape[0] == 1
    assert later.flatten(0, 1).unique(dim=0).shape[0] > 1


# -------------------------------------------------------------------------------------------------
# The command

SMALL: dict[str, Any] = {"name": "varibad", "trials": 4, "memory_width": 6, "latent_width": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """VariBAD on the bandit, for one iteration."""
    folder: Path = tmp_path_factory.mktemp("run")
    family = {"name": "bernoulli-bandit", "arms": ARMS}
    short = {"episodes": 6, "iterations": 1, "validation_tasks": 2, "test_tasks": 3}
    train(parse({"agent": SMALL, "family": family, **short}), folder, quiet=True)
    return folder


def test_a_table_is_printed_and_both_pictures_are_drawn(run, tmp_path):
    code, out, err = metarl("infer", run, "--tasks", 5, "--times", "6,2", "--out", tmp_path)
    assert code == 0, err
    lines = [line.split() for line in out.splitlines() if line.strip()]
    assert "KL(Bayes ‖ …) of rewards, in nats a prediction" in out
    assert ["belief", "step", "2", "step", "6"] in lines
    assert [line[0] for line in lines].count("agent") == 1
    assert lines[-2:] == [[str(tmp_path / "beliefs.png")], [str(tmp_path / "inferred.png")]]
    for name in ("beliefs.png", "inferred.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--times", "soon"), "--times: 'soon' names no steps"),
        (("--times", "7"), "7 is not in a trial of 6 steps"),
        (("--task", 100), "task 100: there are 100 tasks, and the first is task 0"),
    ],
)
def test_a_mistake_is_told_in_one_line(run, arguments, message):
    (line,) = mistake("infer", run, *arguments)
    assert message in line


@pytest.mark.parametrize("teacher", ["none", "task"])
def test_who_predicts_nothing_is_drawn_as_ever(tmp_path, teacher):
    """On a family that knows its posterior, too: unless that is asked for."""
    agent = {"name": "pearl", "teacher": teacher, "encoder_sizes": [6], "hidden_sizes": [6]}
    agent |= {"tasks": 2, "initial_episodes": 1, "updates": 1, "batch_size": 4}
    short = {"train_tasks": 2, "episodes": 2, "iterations": 1}
    few = {"validation_tasks": 2, "test_tasks": 2}
    config = {"agent": agent, "family": "sparse-point", **short, **few}
    train(parse(config), tmp_path / "run", quiet=True)
    code, out, err = metarl("infer", tmp_path / "run", "--tasks", 3)
    assert code == 0, err
    assert out.split() == [str(tmp_path / "run" / "inferred.png")]
    (line,) = mistake("infer", tmp_path / "run", "--tasks", 3, "--times", "20")
    assert "PEARL predicts no outcomes; choose an agent that does" in line


@pytest.mark.parametrize("family", ["bernoulli-bandit", "gridnavi"])
def test_bars_and_maps_show_both_beliefs(monkeypatch, family):
    """Wide bars of Bayes' rule before which the agent's stand; or two rows of maps."""
    made = make_family(family)
    agent = make_agent("varibad", made.spec, memory_width=6)
    found = compare_beliefs(agent, made, EvalProtocol(2, tasks=3), [0, 1, 2])

    def draw(given: Beliefs, out: Path) -> Path:
        return beliefs.draw_beliefs(given, out)

    figure = figure_of(monkeypatch, beliefs, draw, found)
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    if family == "gridnavi":
        assert len(panels) == 6
        assert all(len(axes.collections[0].get_offsets()) == 25 for axes in panels)
        return
    assert len(panels) == 3
    heights = [bar.get_height() for bar in panels[2].patches]
    exact, own = (x.reward[2, 0, 0] for x in (found.exact, found.agent))
    np.testing.assert_allclose(heights, torch.cat([exact, own]), rtol=1e-6)


def test_another_task_is_drawn_and_questions_at_one_place_as_bars(monkeypatch):
    """Two states with three actions each: a map would hide all but the last of each."""
    made = make_family("tabular-mdp", states=2, actions=3)
    agent = make_agent("varibad", made.spec, 0, memory_width=6, latent_width=2)
    found = compare_beliefs(agent, made, EvalProtocol(2, tasks=4), times=(0, 20))

    def draw(given: Beliefs, out: Path) -> Path:
        return beliefs.draw_beliefs(given, out, task=2)

    panels = figure_of(monkeypatch, beliefs, draw, found).axes
    heights = [bar.get_height() for bar in panels[1].patches]
    exact, own = (x.reward[1, 2, 0] for x in (found.exact, found.agent))
    np.testing.assert_allclose(heights, torch.cat([exact, own]), rtol=1e-6)
