"""Evaluation: one protocol for every agent, on common tasks."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from helpers import CPU, Adapting, Counting, Ragged

from metarl.collect.collector import collect
from metarl.collect.world import LocalWorld
from metarl.core.errors import CheckpointError, MetaRLError
from metarl.core.protocol import EvalProtocol
from metarl.core.rng import Rng
from metarl.core.texts import to_json
from metarl.core.types import TaskInfo, Tasks, replace
from metarl.evaluation import meta_test as module
from metarl.evaluation import stats
from metarl.evaluation.meta_test import evaluate
from metarl.evaluation.scores import Scores, combine
from metarl.experiments.building import make_agent, make_family


class FirstArm(Counting):
    """Pulls one arm for ever, and counts the episodes that it adapted to."""

    def __init__(self, spec, lanes=1):
        super().__init__(spec)
        self.lanes = lanes

    def begin(self, info, lanes):
        belief = super().begin(info, lanes)
        return replace(belief, row=torch.zeros(info.rows))

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
    tasks = (
        family.tasks("test", 50, Rng(3).child("evaluate", "test", "tasks")).params.double().numpy()
    )
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
    with pytest.raises(MetaRLError, match="optimum"):
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
    assert (
        first.task_hash != evaluate(agents[0], family, episodes=2, tasks=10, split="ood").task_hash
    )


# -------------------------------------------------------------------------------------------------
# Splits share nothing


@pytest.mark.parametrize(
    ("name", "options", "episodes"),
    [
        ("half-cheetah-dir", {"horizon": 20}, 2),
        ("movement-bandits", {}, 2),
        ("gridnavi", {"variant": "all"}, 2),
    ],
)
def test_splits_of_a_closed_family_share_no_randomness(name, options, episodes):
    """Training, validation and test tasks are the same; what happens in them is not."""
    family = make_family(name, **options)
    agent = make_agent("random", family.spec)
    seen = {}
    for split in [s for s in family.spec.splits if s != "ood"]:
        protocol = EvalProtocol(episodes, tasks=42, split=split)
        rows = protocol.rows(family)
        rows = rows[np.lexsort((rows.copy, rows.index))]  # every split has its own order
        rollouts = [rollout for rollout, _ in module.trial(agent, family, rows, protocol)]
        seen[split] = rollouts
    assert set(seen) == {"train", "validation", "test"}
    for one, other in itertools.combinations(seen.values(), 2):
        for first, second in zip(one, other, strict=True):
            length = min(len(first.valid), len(second.valid))
            same = (first.action[:length] == second.action[:length]).double().mean()
            assert same < 1 / family.spec.action_width + 0.2
            if name == "half-cheetah-dir":  # starts and returns are continuous: none is shared
                assert not (first.inputs.obs[0] == second.inputs.obs[0]).all(-1).any()
                assert not np.isin(first.episode_returns(), second.episode_returns()).any()


@pytest.mark.parametrize("name", ["movement-bandits", "gridnavi"])
def test_noise_of_splits_of_a_closed_family_differs(name):
    family = make_family(name)
    agent = make_agent("random", family.spec)
    returns = []
    for split in ("validation", "test"):
        scores = evaluate(agent, family, episodes=2, tasks=84, split=split)
        returns.append(scores.by_task(scores.returns))  # every split has its own order
    assert not np.allclose(*returns)


def test_fixed_training_tasks_are_validated_and_reported_on_other_episodes():
    family = make_family("point")
    agent = make_agent("random", family.spec)
    train_set = family.tasks("train", 5, Rng(0))
    protocol = EvalProtocol(1, 5, "train", train_set=train_set)
    report = evaluate(agent, family, protocol)
    validation = evaluate(agent, family, protocol, purpose="validation")
    assert report.task_hash == validation.task_hash
    assert not np.isin(report.returns, validation.returns).any()


def test_given_tasks_share_no_randomness_between_their_splits():
    family = make_family("point")
    rows = torch.tensor([[0.1, 0.2], [0.3, -0.4]])
    agent = make_agent("random", family.spec)
    first, second = (
        evaluate(agent, family, episodes=1, tasks=Tasks.numbered(rows, split)).returns
        for split in ("validation", "test")
    )
    assert not np.isin(first, second).any()


# -------------------------------------------------------------------------------------------------
# What scores say


def test_without_adaptation_every_round_begins_with_the_prior():
    family = Ragged()
    agent = Adapting(family.spec)
    scores = evaluate(agent, family, episodes=3, tasks=4, adapt=False)
    assert not agent.rollouts
    assert not scores.adapt
    learner = make_agent("rl2", make_family("bernoulli-bandit").spec, memory_width=8)
    bandit = make_family("bernoulli-bandit")
    first = evaluate(learner, bandit, episodes=1, tasks=200, mode="greedy").returns[0, 0]
    reset = evaluate(learner, bandit, episodes=4, tasks=200, mode="greedy", adapt=False).returns[0]
    np.testing.assert_allclose(reset, np.tile(first, (4, 1)))  # memory is empty in every pull


def test_rows_of_the_same_task_count_once():
    """Twelve rows of three goals are three tasks: their interval is that of three means."""
    family = make_family("gridnavi", variant="held-out")
    scores = evaluate(make_agent("random", family.spec), family, episodes=2, tasks=12)
    index = scores.task_index
    assert len(set(index)) == 3
    rows = scores.figure("total")
    means = np.array([[rows[0, index == i].mean() for i in np.unique(index)]])
    assert scores.by_task(rows) == pytest.approx(means)
    assert scores.estimate(rows) == stats.mean(scores.by_task(rows))
    assert scores.estimate(rows).over_tasks is not None


def test_tasks_that_are_all_there_are_stay_fixed():
    closed = make_family("gridnavi", variant="all")
    agent = make_agent("random", closed.spec)
    one = evaluate(agent, closed, episodes=1, tasks=42)
    assert one.tasks_fixed
    assert one.estimate(one.totals).kind is None
    assert one.to_dict()["summary"]["curve"]["low"] is None
    other = evaluate(make_agent("random", closed.spec), closed, episodes=1, tasks=42)
    both = combine([one, replace(other, returns=other.returns + 1)])
    assert both.estimate(both.totals).kind == "over_runs"
    point = make_family("point")
    train_set = point.tasks("train", 5, Rng(0))
    agent = make_agent("random", point.spec)
    fixed = evaluate(agent, point, episodes=1, tasks=5, split="train", train_set=train_set)
    assert fixed.tasks_fixed
    some = evaluate(agent, point, episodes=1, tasks=4, split="train", train_set=train_set)
    assert not some.tasks_fixed
    assert not evaluate(agent, point, episodes=1, tasks=5, train_set=train_set).tasks_fixed


def test_metrics_of_a_family_are_scores_by_name():
    """The distance to the goal at the end of an episode, by the last observation."""
    family = make_family("point", horizon=6, arrival=0.0)
    agent = make_agent("random", family.spec)
    scores = evaluate(agent, family, episodes=2, tasks=5)
    protocol = EvalProtocol(2, 5)
    rows = protocol.rows(family)
    *_, (last, _) = module.trial(agent, family, rows, protocol)
    distance = (last.next_obs[-1, :, 0] - rows.params).norm(dim=-1)
    assert scores.figure("distance")[0] == pytest.approx(distance.double().numpy(), abs=1e-6)
    assert scores.figure("-distance") == pytest.approx(-scores.figure("distance"))
    assert set(scores.summary()["metrics"]) == {"distance"}
    with pytest.raises(MetaRLError, match=r"no 'distanse': did you mean 'distance'"):
        scores.figure("distanse")


def test_summaries_give_the_interquartile_mean_from_five_runs_on():
    family = make_family("bernoulli-bandit")
    one = evaluate(FirstArm(family.spec), family, episodes=2, tasks=10)
    four = combine([one] * 4).summary()["total"]
    assert "iqm" not in four
    assert len(four["runs"]) == 4
    assert combine([one] * 5).summary()["total"]["iqm"]["value"] == pytest.approx(four["runs"][0])


def test_success_is_reported_per_episode():
    family = make_family(
        "point", horizon=5, arrival=10.0
    )  # everybody has arrived after the first step
    scores = evaluate(make_agent("rl2", family.spec), family, episodes=2, tasks=6)
    assert scores.success.shape == (1, 2, 6)
    assert scores.success.all()


def test_combine_joins_runs_on_the_same_tasks_only():
    family = make_family("bernoulli-bandit")
    agent = FirstArm(family.spec)
    one = evaluate(agent, family, episodes=2, tasks=10)
    assert combine([one, one, one]).returns.shape == (3, 2, 10)
    with pytest.raises(MetaRLError, match="cannot be combined"):
        combine([one, evaluate(agent, family, episodes=2, tasks=10, seed=9)])


def test_unknown_split_names_the_nearest():
    family = make_family("bernoulli-bandit")
    with pytest.raises(MetaRLError, match="did you mean 'test'"):
        evaluate(FirstArm(family.spec), family, episodes=1, tasks=2, split="tets")


# -------------------------------------------------------------------------------------------------
# Agents that live through several episodes side by side


LANES, ROUNDS = 3, 2


class Lucky(Ragged):
    """A lane is paid the noise of what it observes next, and succeeds where that exceeds 0.8."""

    def make(self, lanes):
        env = super().make(lanes)
        step = env.step

        def paid(action):
            after = step(action)
            noise = after.next_obs[..., -1]
            return replace(after, reward=noise, success=noise > 0.8)

        env.step = paid
        return env


def test_a_round_has_an_episode_in_every_lane_and_one_adaptation():
    """The same as to collect with so many lanes; all episodes together are as many as an agent of
    one lane has."""
    family = Lucky()
    agent = Adapting(family.spec, LANES)
    scores = evaluate(agent, family, episodes=ROUNDS * LANES, tasks=5, seed=3)
    rng, belief = EvalProtocol(1, seed=3).rng, agent.begin(TaskInfo(5, ROUNDS, CPU), LANES)
    tasks = family.tasks("test", 5, rng.child("tasks"))
    for k in range(ROUNDS):
        rollout, belief = collect(
            agent, family.make(LANES), family.spec, belief, tasks, 1, rng.child("episode", k)
        )
        assert agent.rollouts[k].extras["adapted"].eq(k).all()
        assert agent.rollouts[k].reward.shape[1:] == (5, LANES)
        assert scores.returns[0, k] == pytest.approx(rollout.episode_returns()[0].mean(-1).numpy())
        share = (rollout.success & rollout.valid).any(0).float().mean(-1)
        assert scores.success[0, k] == pytest.approx(share.numpy())
        assert ((share > 0) & (share < 1)).any(), "no luck: choose another seed"
    assert len(agent.rollouts) == ROUNDS
    assert agent.infos[0].episodes == ROUNDS
    assert (scores.lanes, scores.episodes, list(scores.episodes_consumed)) == (LANES, 6, [3, 6])
    assert scores.totals[0] == pytest.approx(LANES * scores.returns[0].sum(0))


def test_agents_of_other_lanes_are_measured_by_the_same_number_of_episodes():
    """Who pulls one arm six times is paid six times its mean, however the pulls are laid out."""
    family = make_family("bernoulli-bandit", arms=3)
    one, three, six = (
        evaluate(FirstArm(family.spec, m), family, episodes=6, tasks=50) for m in (1, 3, 6)
    )
    for scores, consumed in ((one, range(1, 7)), (three, range(3, 7, 3)), (six, range(6, 7))):
        assert scores.episodes_consumed == consumed
        assert scores.totals == pytest.approx(one.totals, abs=1e-6)
        assert scores.regrets == pytest.approx(6 * (one.optimum - one.returns[:, 0]), abs=1e-6)
        assert scores.figure("last") == pytest.approx(one.returns[:, 0])
        told = scores.to_dict()
        assert (told["lanes"], told["episodes_consumed"]) == (scores.lanes, list(consumed))
        assert len(told["summary"]["curve"]["mean"]) == len(consumed)


def test_lanes_count_among_the_rows_that_are_evaluated_together(monkeypatch):
    family, agent = Ragged(), Adapting(Ragged().spec, LANES)
    together = evaluate(agent, family, episodes=LANES, tasks=5)
    monkeypatch.setattr(module, "_CHUNK", 7)
    agent.rollouts.clear()
    assert evaluate(agent, family, episodes=LANES, tasks=5).returns == pytest.approx(
        together.returns
    )
    assert [rollout.reward.shape[1] for rollout in agent.rollouts] == [2, 2, 1]
    monkeypatch.setattr(module, "_CHUNK", 1)
    assert evaluate(agent, family, episodes=LANES, tasks=5).returns == pytest.approx(
        together.returns
    )


def test_episodes_that_cannot_be_shared_out_are_a_mistake():
    family, agent = Ragged(), Adapting(Ragged().spec, LANES)
    says = r"^episodes: 7 cannot be shared out among the 3 lanes of Adapting; .*, such as 9$"
    with pytest.raises(MetaRLError, match=says):
        evaluate(agent, family, episodes=7, tasks=2)
    world = LocalWorld(family, 7, None, CPU)
    with pytest.raises(MetaRLError, match=says):
        world.task_info(agent, family.tasks("train", 2, Rng(0)))
    world.episodes = 9
    assert world.task_info(agent, family.tasks("train", 2, Rng(0))).episodes == 3


def test_runs_of_other_lanes_are_not_combined():
    """Not even where they have as many rounds, or as many episodes."""
    family = make_family("bernoulli-bandit")

    def scores(lanes: int, episodes: int) -> Scores:
        return evaluate(FirstArm(family.spec, lanes), family, episodes=episodes, tasks=10)

    assert combine([scores(2, 4), scores(2, 4)]).returns.shape == (2, 2, 10)
    for other in (scores(1, 2), scores(1, 4), scores(4, 4)):
        with pytest.raises(MetaRLError, match="lanes or modes cannot be combined"):
            combine([scores(2, 4), other])


# -------------------------------------------------------------------------------------------------
# Test episodes


def test_an_agent_does_not_adapt_to_test_episodes():
    """Ten adaptation episodes and three of test, as Meta-World's authors evaluate."""
    family = make_family("bernoulli-bandit", arms=3)
    agent = FirstArm(family.spec)
    scores = evaluate(
        agent, family, episodes=10, test_episodes=3, tasks=20, mode="sample", test_mode="greedy"
    )
    assert agent.adapted.tolist() == [10.0] * 20
    assert (scores.returns.shape[1], scores.test_rounds, scores.test_mode) == (13, 3, "greedy")
    assert scores.figure("last") == pytest.approx(scores.returns[:, 10:].mean(1))


def test_the_modes_of_adaptation_and_test(monkeypatch):
    family = make_family("bernoulli-bandit", arms=3)
    agent, modes = FirstArm(family.spec, lanes=2), []
    act = agent.act

    def record(belief, obs, noise, counter, mode):
        modes.append(mode)
        return act(belief, obs, noise, counter, mode)

    monkeypatch.setattr(agent, "act", record)
    given = {"tasks": 2, "mode": "sample", "test_mode": "greedy"}
    evaluate(agent, family, episodes=6, **given)
    assert modes == ["sample", "sample", "greedy"]
    modes.clear()
    evaluate(agent, family, episodes=4, test_episodes=4, **given)
    assert modes == ["sample", "sample", "greedy", "greedy"]
    with pytest.raises(MetaRLError, match="set a multiple, such as 4"):
        evaluate(agent, family, episodes=4, test_episodes=3, **given)


def test_scores_are_read_back():
    family = make_family("bernoulli-bandit", arms=3)
    scores = evaluate(FirstArm(family.spec), family, episodes=4, tasks=20)
    plain = json.loads(to_json(scores.to_dict()))
    read = Scores.from_dict(plain)
    again = json.loads(to_json(read.to_dict()))
    assert again | {"summary": None} == plain | {"summary": None}  # which is not rounded
    assert read.totals == pytest.approx(scores.totals, abs=1e-5)
    del plain["returns"]
    with pytest.raises(CheckpointError, match="returns"):
        Scores.from_dict(plain)
