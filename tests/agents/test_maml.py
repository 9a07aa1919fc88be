"""MAML: the mistakes that published implementations make (SPECS 1.4, items 12 to 20)."""

from __future__ import annotations

from typing import Any

import maml_by_hand as by_hand
import pytest
import torch
from helpers import CPU, same
from maml_by_hand import (
    MEMORIES,
    SMALL,
    SPACES,
    Uneven,
    begin,
    episodes_of,
    make,
    own,
    spy,
    world_of,
)
from torch import Tensor

from metarl.agents.maml import agent as maml
from metarl.agents.maml.agent import MAML
from metarl.collect.collector import collect
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Belief, Params, first_cue, replace, tree_map
from metarl.evaluation.meta_test import evaluate
from metarl.experiments.building import make_family

ROWS = SMALL["tasks"]


def lived(
    agent: MAML,
    family: Family,
    *,
    episodes: int = 1,
    lanes: int = SMALL["episodes_per_task"],
    rows: int = ROWS,
    seed: int = 0,
) -> tuple[Rollout, Belief]:
    """What the agent lives through before any adaptation, and its belief then."""
    tasks = family.tasks("train", rows, Rng(0))
    return collect(
        agent,
        family.make(lanes),
        family.spec,
        begin(agent, tasks, lanes),
        tasks,
        episodes,
        Rng(seed),
    )


def spoilt(rollout: Rollout, discrete: bool) -> Rollout:
    """With garbage where lanes wait."""

    def waiting(x: Tensor, value: float | bool) -> Tensor:
        return torch.where(
            rollout.valid.view(*rollout.valid.shape, *(1,) * (x.dim() - 3)), x, value
        )

    return replace(
        rollout,
        inputs=tree_map(lambda x: waiting(x, 1e3), rollout.inputs),
        action=waiting(rollout.action, 1 if discrete else 1e3),
        log_prob=waiting(rollout.log_prob, -1e3),
        reward=waiting(rollout.reward, 1e3),
        next_obs=waiting(rollout.next_obs, 1e3),
        terminated=waiting(rollout.terminated, True),
    )


def direction(like: Tensor, seed: int = 0) -> Tensor:
    return torch.randn(len(like), generator=torch.Generator().manual_seed(seed))


# -------------------------------------------------------------------------------------------------
# 12, 13. Advantages


@pytest.mark.parametrize("gae_lambda", [1.0, 0.7])
@SPACES
def test_advantages_are_each_tasks_own(discrete: bool, gae_lambda: float):
    """Baseline, mean and deviation from one task's steps alone; time counts from the start of each
    episode of a lane.
    """
    family = Uneven(discrete)
    agent = make(family, gae_lambda=gae_lambda, gamma=0.9)
    rollout, _ = lived(agent, family, episodes=3)
    episodes, lanes = agent._episodes(rollout), SMALL["episodes_per_task"]
    for row in range(ROWS):
        columns = [episode * lanes + lane for lane in range(lanes) for episode in range(3)]
        found = [
            episodes.advantage[:, row, at][episodes.valid[:, row, at]].double() for at in columns
        ]
        expected = by_hand.advantages(agent, episodes_of(rollout, row))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_what_another_task_is_paid_changes_nothing():
    """Nor is anything left of the rollout before; the unit of a task's reward does not matter."""
    family = Uneven()
    agent = make(family)
    rollout, _ = lived(agent, family)
    advantage, valid = agent._episodes(rollout).advantage, rollout.valid
    other = replace(
        rollout,
        reward=rollout.reward + 100 * direction(rollout.reward.flatten()).view_as(rollout.reward),
    )
    agent._episodes(other)
    assert same(agent._episodes(rollout).advantage, advantage)
    row_1 = torch.arange(ROWS).view(1, -1, 1) == 1
    mixed = agent._episodes(
        replace(rollout, reward=torch.where(row_1, other.reward, rollout.reward))
    ).advantage
    assert same(mixed[:, [0, 2, 3]], advantage[:, [0, 2, 3]])
    assert float((mixed - advantage)[:, 1].abs().max()) > 0.1
    units = torch.tensor([1.0, 1e-2, 30.0, 1e3]).view(1, -1, 1)
    scaled = agent._episodes(replace(rollout, reward=units * rollout.reward)).advantage
    torch.testing.assert_close(scaled[valid], advantage[valid], rtol=0, atol=1e-3)


def test_advantages_have_mean_0_and_deviation_1_in_every_task():
    family = Uneven()
    agent = make(family)
    episodes = agent._episodes(lived(agent, family)[0])
    for row in range(ROWS):
        steps = episodes.advantage[:, row][episodes.valid[:, row]]
        torch.testing.assert_close(steps.mean(), torch.tensor(0.0), rtol=0, atol=1e-5)
        torch.testing.assert_close(steps.std(unbiased=False), torch.tensor(1.0), rtol=0, atol=1e-5)


# -------------------------------------------------------------------------------------------------
# 13, 14, 16. The inner step


@SPACES
@MEMORIES
@pytest.mark.parametrize("options", [{}, {"learn_step_sizes": True}], ids=["fixed", "learned"])
def test_adapting_is_a_gradient_step_of_each_task(
    memory: str, discrete: bool, options: dict[str, Any]
):
    """The k-th by its own α, the last α for all that follow; the deviation adapts too; several
    episodes in a lane.
    """
    family = Uneven(discrete)
    agent = make(family, memory=memory, step_sizes=(0.4, 0.1), **options)
    for name, value in agent.params.items():
        if name.startswith("step_size."):
            value *= torch.rand(value.shape, generator=torch.Generator().manual_seed(1))
    theta = tree_map(Tensor.double, agent.params)
    tasks, env = family.tasks("train", ROWS, Rng(0)), family.make(SMALL["episodes_per_task"])
    belief = begin(agent, tasks)
    for k, count in enumerate((1, 2, 1)):
        rollout, belief = collect(agent, env, family.spec, belief, tasks, count, Rng(k))
        after = agent.adapt(belief, rollout)
        for row in range(ROWS):
            leaf, episodes = own(belief.row.params, row), by_hand.lived(agent, rollout, row)
            expected = by_hand.trail(agent, theta, leaf, [episodes], first=k)[-1]
            for name, value in expected.items():
                torch.testing.assert_close(
                    after.row.params[name][row].double(), value, rtol=0, atol=2e-5
                )
                assert float((value - leaf[name]).detach().abs().max()) > 1e-4
        belief = after


@SPACES
@MEMORIES
def test_a_tasks_step_does_not_depend_on_how_many_there_are(memory: str, discrete: bool):
    family = Uneven(discrete)
    agent = make(family, memory=memory)
    rollout, belief = lived(agent, family)
    together = agent.adapt(belief, rollout).row.params
    for row in torch.arange(ROWS):
        alone = agent.adapt(
            tree_map(lambda x, i=row: x[i : i + 1], belief), rollout.rows(row.view(1))
        ).row.params
        torch.testing.assert_close(
            alone, {name: value[row : row + 1] for name, value in together.items()}
        )


@SPACES
@MEMORIES
def test_log_probs_of_acting_are_those_of_learning(memory: str, discrete: bool):
    """Summed over the entries of an action; memory begins anew with every episode of a lane."""
    family = Uneven(discrete)
    agent = make(family, memory=memory)
    rollout, _ = lived(agent, family, episodes=3)
    for row in range(ROWS):
        episodes = by_hand.lived(agent, rollout, row)
        actions = by_hand.decisions(agent, tree_map(Tensor.double, agent.params), episodes)
        again, stored = (
            actions.log_prob(episodes.action)[episodes.valid],
            episodes.log_prob[episodes.valid],
        )
        torch.testing.assert_close(again, stored, rtol=0, atol=1e-5)


def test_an_episode_begins_without_a_past():
    """Not the memory alone: the cue tells how the step before ended, and there was none in this
    episode.
    """
    family = Uneven()
    agent = make(family, memory="gru")
    rollout, belief = lived(agent, family, episodes=3)
    again, _ = collect(
        agent,
        family.make(SMALL["episodes_per_task"]),
        family.spec,
        belief,
        family.tasks("train", ROWS, Rng(0)),
        1,
        Rng(1),
    )
    for row in range(ROWS):
        for episode in (*episodes_of(rollout, row), *episodes_of(again, row)):
            assert same(episode.inputs.cue[0], first_cue(family.spec, 1, 1, CPU))


def test_every_inner_step_has_episodes_of_its_own():
    """And each is lived through by the policy that the steps before led to."""
    family = Uneven()
    agent, world = make(family, inner_steps=2, step_sizes=(0.4, 0.2)), world_of(family)
    theta, seen = agent._vector(agent.params), spy(world)
    agent.iterate(world, Rng(0))
    assert [belief.row.steps.tolist() for belief, _ in seen] == [[k] * ROWS for k in range(3)]
    beliefs, rollouts = zip(*seen, strict=True)
    for left, right in ((0, 1), (1, 2), (0, 2)):
        assert not same(rollouts[left].inputs.obs, rollouts[right].inputs.obs)
    assert len({tuple(rollout.index.tolist()) for rollout in rollouts}) == 1
    trial = by_hand.Trial(agent, list(rollouts[:2]), rollouts[2])
    for row in range(ROWS):
        chain = trial.trail(theta.double().requires_grad_(), row)
        for belief, expected in zip(beliefs[1:], chain[1:], strict=True):
            torch.testing.assert_close(own(belief.row.params, row), expected, rtol=0, atol=2e-5)


def test_a_task_of_which_nothing_was_learned_stays_where_it_is():
    """All episodes went alike: no advantage, and no division by zero."""
    family = make_family("bernoulli-bandit", arms=2)
    agent = make(family)
    rollout, belief = lived(agent, family)
    after = agent.adapt(belief, replace(rollout, reward=torch.ones_like(rollout.reward)))
    torch.testing.assert_close(after.row.params, belief.row.params, rtol=0, atol=1e-3)


# -------------------------------------------------------------------------------------------------
# 15. The outer step


@SPACES
@MEMORIES
def test_the_old_policy_is_the_one_that_lived_through_the_query(
    memory: str, discrete: bool, monkeypatch: pytest.MonkeyPatch
):
    family = Uneven(discrete)
    agent, queries = make(family, memory=memory), []
    monkeypatch.setattr(
        agent, "_trust_region", lambda chain, query, progress: queries.append(query) or {}
    )
    agent.iterate(world_of(family), Rng(0))
    (query,) = queries
    old = maml.from_heads(query.policy.heads).log_prob(query.episodes.action)
    valid = query.episodes.valid
    torch.testing.assert_close(old[valid], query.episodes.log_prob[valid], rtol=0, atol=1e-5)
    before = maml.linearize(
        agent.policy,
        begin(agent, family.tasks("train", ROWS, Rng(0))).row.params,
        query.episodes.inputs,
    )
    unadapted = maml.from_heads(before.heads).log_prob(query.episodes.action)
    assert float((unadapted - old)[valid].abs().max()) > 1e-2


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_where_no_try_is_accepted_nothing_changes(memory: str, monkeypatch: pytest.MonkeyPatch):
    """Bit for bit, be it that all are too far, or that none is better."""
    family = Uneven(False)
    agent, tries = make(family, memory=memory, max_kl=(0.01, 1e-30)), []
    state, world = agent.state_dict(), world_of(family)
    world.progress = 1.0
    assert agent.iterate(world, Rng(0))["accepted"] == 0
    assert same(agent.state_dict(), state)
    agent, step = make(family, memory=memory, line_search_steps=7), maml.trust_region_step

    def worse(
        start: Tensor, loss: float, gradient: Tensor, product: Any, evaluate: Any, **options: Any
    ) -> Any:
        def never(there: Tensor) -> tuple[float, float]:
            tries.append(evaluate(there))
            return loss, 0.0

        return step(start, loss, gradient, product, never, **options)

    monkeypatch.setattr(maml, "trust_region_step", worse)
    metrics = agent.iterate(world_of(family), Rng(0))
    assert (metrics["accepted"], metrics["kl"], metrics["improvement"], len(tries)) == (0, 0, 0, 7)
    assert len(set(tries)) == 7
    assert same(agent.state_dict(), state)


OUTER = {
    "one step": {},
    "two steps": {"inner_steps": 2, "step_sizes": (0.4, 0.2)},
    "no step": {"inner_steps": 0},
    "credit": {"exploration_credit": 0.7},
    "learned": {"learn_step_sizes": True},
    "memory": {"memory": "gru"},
}


@SPACES
@pytest.mark.parametrize("options", OUTER.values(), ids=OUTER.keys())
def test_the_accepted_step_is_better_and_near(discrete: bool, options: dict[str, Any]):
    """As measured on what was lived through, by policies that adapt anew, from the new θ, on the
    same episodes.
    """
    family = Uneven(discrete)
    agent, world = make(family, **options), world_of(family)
    seen, old = spy(world), agent._vector(agent.params).double().requires_grad_()
    metrics = agent.iterate(world, Rng(0))
    *before, after = (rollout for _, rollout in seen)
    assert len(before) == agent.config.inner_steps
    trial, new = (
        by_hand.Trial(agent, before, after),
        agent._vector(agent.params).double().requires_grad_(),
    )
    improvement = float((trial.loss(old) - trial.loss(new)).detach())
    kl = float(trial.divergence(new, old).detach())
    assert metrics["accepted"] == 1
    assert metrics["improvement"] == pytest.approx(improvement, abs=1e-4)
    assert improvement > 1e-3
    assert metrics["kl"] == pytest.approx(kl, rel=1e-2)
    assert 1e-3 < kl < 1.01 * agent.config.max_kl


# -------------------------------------------------------------------------------------------------
# 17. Nothing is shared that changes


@SPACES
@MEMORIES
def test_adapting_leaves_everything_else_as_it_was(memory: str, discrete: bool):
    """θ, the belief before, and how that belief acts."""
    family = Uneven(discrete)
    agent = make(family, memory=memory)
    rollout, belief = lived(agent, family)
    before = tree_map(torch.clone, (agent.params, belief, rollout))
    noise, obs = (
        family.tasks("train", ROWS, Rng(0)).streams(Rng(4), SMALL["episodes_per_task"]),
        rollout.inputs.obs[0],
    )
    acted = agent.act(belief, obs, noise, 0, "sample")
    after = agent.adapt(belief, rollout)
    assert same((agent.params, belief, rollout), before)
    assert same(agent.act(belief, obs, noise, 0, "sample"), acted)
    assert not same(agent.act(after, obs, noise, 0, "sample")[0].log_prob, acted[0].log_prob)
    assert same((after.cue, after.lane), (belief.cue, belief.lane))
    assert not any(value.requires_grad for value in after.row.params.values())
    with torch.no_grad():
        assert same(agent.adapt(belief, rollout), after)


@pytest.mark.parametrize("preset", ["maml", "promp", "reptile"])
def test_training_goes_on_without_changing_what_is_believed(preset: str):
    """Before and after an adaptation: a deployed agent's policy does not move while its θ is
    trained.
    """
    family = Uneven(False)
    agent = make(family, preset=preset)
    rollout, belief = lived(agent, family)
    believed = (belief, agent.adapt(belief, rollout))
    before = tree_map(torch.clone, believed)
    agent.iterate(world_of(family), Rng(0))
    assert same(believed[1], before[1])
    assert same(believed[0], before[0])


# -------------------------------------------------------------------------------------------------
# 19, 20. Steps that wait, and neighbors


@SPACES
@MEMORIES
def test_what_stands_in_waiting_steps_means_nothing(memory: str, discrete: bool):
    """Neither to the inner step nor to the outer one; nor do more of them."""
    family = Uneven(discrete)
    agent = make(family, memory=memory)
    rollout, belief = lived(agent, family, episodes=2)
    assert not rollout.valid.all()
    longer = rollout._map(lambda x: torch.cat([x, x[-1:], x[-1:]]))
    longer = replace(longer, valid=torch.cat([rollout.valid, torch.zeros_like(rollout.valid[:2])]))
    expected = agent.adapt(belief, rollout)
    for same_to_the_agent in (spoilt(rollout, discrete), longer, spoilt(longer, discrete)):
        torch.testing.assert_close(
            agent.adapt(belief, same_to_the_agent).row.params, expected.row.params
        )
    trained: list[Params] = []
    for change in (lambda x: x, lambda x: spoilt(x, discrete)):
        agent, world = make(family, memory=memory, exploration_credit=0.5), world_of(family)
        spy(world, change)
        agent.iterate(world, Rng(0))
        trained.append(agent.params)
    torch.testing.assert_close(*trained, rtol=1e-4, atol=1e-6)


@MEMORIES
def test_tasks_are_evaluated_as_if_they_were_alone(memory: str):
    """Five of eight tasks score what they score among eight, after adaptation too."""
    family = make_family("point", horizon=5)
    agent = make(family, memory=memory)
    few, many = (
        evaluate(agent, family, episodes=3 * SMALL["episodes_per_task"], tasks=tasks).returns
        for tasks in (5, 8)
    )
    assert few.shape == (1, 3, 5)
    assert few == pytest.approx(many[..., :5], abs=1e-4)


def test_without_inner_steps_all_tasks_share_one_policy_that_can_adapt_still():
    """Pretraining: one collection an iteration, by θ; at test every round ends in a step."""
    family = make_family("tabular-mdp", states=3, actions=2, horizon=4)
    agent, world = make(family, inner_steps=0), world_of(family)
    seen = spy(world)
    metrics = agent.iterate(world, Rng(0))
    ((belief, rollout),) = seen
    assert belief.row.steps.eq(0).all()
    assert (
        metrics["return"]
        == metrics["first_return"]
        == pytest.approx(float(rollout.reward.sum(0).mean()), rel=1e-5)
    )
    rollout, belief = lived(agent, family)
    after = agent.adapt(belief, rollout)
    assert after.row.steps.eq(1).all()
    assert not same(after.row.params, belief.row.params)
