"""PEARL's belief: z, its chance, and the posterior that it is drawn from (SPECS 1.4, item 9)."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CPU, same
from pearl_by_hand import SPACES, ByHand, Dense, begin, held, lived, make, steps_of
from torch import Tensor

from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Belief, TaskInfo, replace, tree_map
from metarl.data.recording import Recording, recorded
from metarl.evaluation.session import Session
from metarl.experiments.building import make_agent
from metarl.nn.gaussian_product import Posterior

ROWS = 6


def known(belief: Belief, mean: float, variance: float, episodes: int) -> Belief:
    """As if the task had been inferred to be about `mean`."""
    precision = torch.full_like(belief.row.posterior.precision, 1 / variance)
    row = replace(belief.row, posterior=Posterior(precision, mean * precision))
    return replace(belief, row=replace(row, episodes=torch.full_like(row.episodes, episodes)))


# -------------------------------------------------------------------------------------------------
# 9. z is drawn, once an episode


@SPACES
@pytest.mark.parametrize("mode", ["sample", "greedy"])
@pytest.mark.parametrize("lanes", [1, 2])
def test_z_is_drawn_where_an_episode_starts_and_nowhere_else(discrete: bool, mode: str, lanes: int):
    """Several episodes of different lengths in a collect; actions that are not drawn change nothing
    of it.
    """
    agent, family = make(Dense(discrete)), Dense(discrete)
    rollout, belief = lived(agent, family, lanes=lanes, mode=mode)
    seen, number = [], rollout.episode()
    for row in range(ROWS):
        for lane in range(lanes):
            for k in range(3):
                mine = rollout.valid[:, row, lane] & (number[:, row, lane] == k)
                drawn = rollout.inputs.latent[mine, row, lane].unique(dim=0)
                assert len(drawn) == 1
                seen += drawn.tolist()
    assert len({tuple(z) for z in seen}) == len(seen)
    after, _ = lived(agent, family, episodes=1, lanes=lanes, seed=1, belief=belief, mode=mode)
    assert not any(z in seen for z in after.inputs.latent[0].flatten(0, 1).tolist())


def test_first_episodes_explore_by_the_prior_and_later_ones_by_the_posterior():
    """Both are samples: as many rows, as many z, spread as they should be; whatever is known
    already.
    """
    rows, agent, family = 4000, make(Dense(), exploration_episodes=2), Dense()
    tasks = family.tasks("test", rows, Rng(0))
    for episodes, mean, deviation in ((0, 0.0, 1.0), (1, 0.0, 1.0), (2, 5.0, 0.5), (7, 5.0, 0.5)):
        for mode in ("sample", "greedy"):
            belief = known(begin(agent, tasks), 5.0, 0.25, episodes)
            rollout, _ = lived(agent, family, tasks=tasks, belief=belief, episodes=1, mode=mode)
            z = rollout.inputs.latent[0, :, 0]
            assert float((z.mean(0) - mean).abs().max()) < 4 * deviation / rows**0.5
            assert float((z.std(0) - deviation).abs().max()) < 4 * deviation / (2 * rows) ** 0.5


@SPACES
def test_first_episodes_are_sampled_if_they_are_to_be(discrete: bool):
    """In greedy evaluation, until the posterior counts; every row by its own number of episodes.
    Otherwise the mode is what was asked for.
    """
    family = Dense(discrete)
    tasks = family.tasks("test", ROWS, Rng(0))

    def lives(episodes: Tensor, mode: str, **options: Any) -> Rollout:
        agent = make(family, exploration_episodes=2, **options)
        belief = known(begin(agent, tasks), 5.0, 0.25, 0)
        belief = replace(belief, row=replace(belief.row, episodes=episodes))
        return lived(agent, family, tasks=tasks, belief=belief, episodes=1, mode=mode)[0]

    mixed = torch.tensor([0, 1, 2, 3, 1, 2])
    sampled, greedy = (lives(mixed, mode) for mode in ("sample", "greedy"))
    exploring = [0, 1, 4]
    steps = min(len(sampled.action), len(greedy.action))
    assert not same(sampled.action[:steps, exploring], greedy.action[:steps, exploring])
    options = {"exploration_mode": "sample"}
    assert same(lives(mixed, "sample", **options), sampled)
    both = lives(mixed, "greedy", **options)
    for row, expected in enumerate([sampled, sampled, greedy, greedy, sampled, greedy]):
        there = both.valid[:, row]
        assert same(both.action[:, row][there], expected.action[: len(there), row][there])
        assert same(both.log_prob[:, row][there], expected.log_prob[: len(there), row][there])
    for number, expected in ((0, sampled), (1, sampled), (2, greedy)):
        episodes = torch.full((ROWS,), number)
        found = lives(episodes, "greedy", **options)
        assert same(found, lives(episodes, "sample" if expected is sampled else "greedy"))


def test_the_mean_stands_for_z_where_it_is_known_well_enough():
    """Where every deviation is below the bound, never in the first episodes, in either mode; z is
    drawn elsewhere as if there were no bound.
    """
    family = Dense()
    tasks = family.tasks("test", ROWS, Rng(0))
    for bound, number, mode in itertools.product(
        (0.0, 0.4, 0.6, 9.0), (0, 1), ("sample", "greedy")
    ):
        drawn, found = [], []
        for below, z in ((0.0, drawn), (bound, found)):
            agent = make(family, mean_below=below)
            belief = known(begin(agent, tasks), 5.0, 0.25, number)
            belief.row.posterior.precision[0, 1] = 1.0  # wide in one entry: std 1
            rollout, _ = lived(agent, family, tasks=tasks, belief=belief, episodes=1, mode=mode)
            z.append(rollout.inputs.latent[0, :, 0])
            mean = agent.inferred(belief)[0]
        certain = torch.full((ROWS,), bool(number) and bound > 0.5)
        certain[0] &= bound > 1
        expected = torch.where(certain.unsqueeze(1), mean, drawn[0])
        assert same(found[0], expected)
        assert not same(drawn[0], mean)


@pytest.mark.parametrize("exploration", [0, 1, 3])
def test_episodes_are_counted_as_they_are_lived_through(exploration: int):
    """One by one or several at once; z is the posterior's from the first one on that does not
    explore.
    """
    agent, family = make(Dense(), exploration_episodes=exploration, prior_episodes=3), Dense()
    belief = begin(agent, family.tasks("test", ROWS, Rng(0)))
    for k, count in enumerate((1, 2, 1)):
        before = [0, 1, 3][k]
        assert belief.row.episodes.tolist() == [before] * ROWS
        told = known(belief, 1e3, 1e-4, before)
        rollout, after = lived(agent, family, episodes=count, belief=told, seed=k)
        explored = rollout.inputs.latent[rollout.valid].abs().amax(-1) < 10
        assert explored.unique().tolist() == [before < exploration]
        belief = agent.adapt(replace(after, row=belief.row), rollout)
    assert belief.row.episodes.tolist() == [4] * ROWS


def test_the_chance_of_z_is_not_that_of_the_action():
    """Over many rows, at any step: no correlation with the normal numbers that actions are made of,
    nor among themselves.
    """
    rows, family = 4000, Dense(discrete=False)
    agent = make_agent("pearl", family.spec, latent_width=2, hidden_sizes=(4,))
    for name, value in agent.params.items():
        if name.startswith("policy"):
            value.data.zero_()
    tasks = family.tasks("test", rows, Rng(0))
    noise, belief = tasks.streams(Rng(3), 1), begin(agent, tasks)
    columns = []
    for counter in (0, 1, 7):
        acted, after = agent.act(belief, torch.zeros(rows, 1, 4), noise, counter, "sample")
        columns += [after.lane[:, 0], acted.action[:, 0].atanh()]
    correlation = torch.cat(columns, dim=1).T.corrcoef() - torch.eye(12)
    assert float(correlation.abs().max()) < 4.5 / rows**0.5
    squares = torch.cat(columns, dim=1).square().T.corrcoef() - torch.eye(12)
    assert float(squares.abs().max()) < 4.5 / rows**0.5


@SPACES
def test_a_row_meets_the_same_whatever_stands_beside_it(discrete: bool):
    agent, family = make(Dense(discrete)), Dense(discrete)
    tasks = family.tasks("test", ROWS, Rng(0))
    together, believed = lived(agent, family, tasks=tasks)
    believed = agent.adapt(believed, together)
    for row in (0, 3):
        alone, belief = lived(agent, family, tasks=tasks[row : row + 1])
        mine = alone.valid[:, 0]
        for name in ("action", "reward", "log_prob"):
            x, y = getattr(alone, name)[:, 0][mine], getattr(together, name)[: len(mine), row][mine]
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)
        assert same(alone.inputs.latent[:, 0][mine], together.inputs.latent[: len(mine), row][mine])
        x, y = agent.inferred(agent.adapt(belief, alone)), agent.inferred(believed)
        torch.testing.assert_close(
            x, tuple(part[row : row + 1] for part in y), rtol=1e-4, atol=1e-5
        )


@SPACES
def test_actions_are_those_of_the_policy_at_z(discrete: bool):
    agent, family = make(Dense(discrete)), Dense(discrete)
    rollout, _ = lived(agent, family, mode="greedy")
    policy = ByHand(agent).policy
    heads = policy(torch.cat([rollout.inputs.obs, rollout.inputs.latent], dim=-1).double())
    expected = heads.argmax(-1) if discrete else heads[..., :2].tanh().float()
    torch.testing.assert_close(rollout.action, expected, rtol=0, atol=1e-5)
    other = replace(rollout.inputs, latent=rollout.inputs.latent + 3)
    assert not torch.allclose(policy(other.flat().double()), heads)


# -------------------------------------------------------------------------------------------------
# 9. All of the context, in any order


@SPACES
@pytest.mark.parametrize("lanes", [1, 2])
def test_the_posterior_is_the_product_over_all_that_was_lived_through(discrete: bool, lanes: int):
    """After every round of a trial; what stands in waiting lanes does not count."""
    agent, family = make(Dense(discrete)), Dense(discrete)
    belief = begin(agent, family.tasks("test", ROWS, Rng(0)), lanes)
    steps: list[list[tuple[Tensor, ...]]] = [[] for _ in range(ROWS)]
    for k, count in enumerate((1, 3, 1)):
        rollout, after = lived(agent, family, episodes=count, lanes=lanes, seed=k, belief=belief)
        assert not rollout.valid.all()
        noise = torch.where(rollout.valid, 0.0, 99.0)
        spoilt = replace(
            rollout, reward=rollout.reward + noise, next_obs=rollout.next_obs + noise.unsqueeze(-1)
        )
        spoilt = replace(spoilt, terminated=rollout.terminated | ~rollout.valid)
        belief = agent.adapt(after, spoilt)
        for row in range(ROWS):
            steps[row] += steps_of(rollout, row)
            held(agent, row, steps[row], belief)
        assert same((belief.cue, belief.lane), (after.cue, after.lane))
    assert belief.row.episodes.tolist() == [5 * lanes] * ROWS


def test_what_is_believed_does_not_depend_on_the_order_or_the_pieces():
    agent, family = make(Dense()), Dense()
    rollout, belief = lived(agent, family)
    once, rounds = agent.adapt(belief, rollout), list(rollout.rounds())
    assert len(rounds) == 3
    for order in ((0, 1, 2), (2, 0, 1)):
        other = belief
        for k in order:
            other = agent.adapt(other, rounds[k])
        torch.testing.assert_close(
            agent.inferred(other), agent.inferred(once), rtol=1e-4, atol=1e-5
        )
        assert same(other.row.episodes, once.row.episodes)


def test_nothing_is_believed_before_anything_was_seen():
    agent = make(Dense())
    belief = agent.begin(TaskInfo(ROWS, 3, CPU), lanes=2)
    mean, deviation = agent.inferred(belief)
    assert same(mean, torch.zeros(ROWS, 3))
    assert same(deviation, torch.ones(ROWS, 3))
    assert belief.lane.shape == (ROWS, 2, 3)


def test_tensors_of_a_belief_are_never_changed_in_place():
    agent, family = make(Dense()), Dense()
    rollout, belief = lived(agent, family)
    before = tree_map(Tensor.clone, belief)
    agent.adapt(belief, rollout)
    agent.act(
        belief,
        rollout.inputs.obs[0],
        family.tasks("test", ROWS, Rng(0)).streams(Rng(0), 1),
        0,
        "sample",
    )
    assert same(before, belief)


# -------------------------------------------------------------------------------------------------
# Replaying


def episodes_of(family: Family, rollout: Rollout, row: int) -> list[Recording]:
    """What a row lived through in its only lane."""
    found, number = [], rollout.episode()[:, row, 0]
    for k in range(int(number[rollout.valid[:, row, 0]].max()) + 1):
        at = rollout.valid[:, row, 0] & (number == k)
        obs = torch.cat([rollout.inputs.obs[at, row, 0], rollout.next_obs[at, row, 0][-1:]])
        over = bool(rollout.terminated[at, row, 0].any())
        found.append(
            Recording(
                obs.numpy(),
                rollout.action[at, row, 0].numpy(),
                rollout.reward[at, row, 0].numpy(),
                over,
            )
        )
    return found


@SPACES
@pytest.mark.parametrize("lanes", [1, 2])
def test_what_was_replayed_counts_as_what_was_lived_through(discrete: bool, lanes: int):
    """By `replay` and in a session; then an episode starts, and z is drawn from what is believed
    now.
    """
    agent, family = make(Dense(discrete)), Dense(discrete)
    rollout, after = lived(agent, family, episodes=4)
    own = agent.adapt(after, rollout)
    told = agent.replay(begin(agent, family.tasks("test", ROWS, Rng(0))), rollout)
    assert same(told.row, own.row)
    assert same(told.cue, own.cue)
    episodes = episodes_of(family, rollout, row=2)
    session = Session(agent, family.spec, mode="greedy")
    first = session.belief.lane.clone()
    session.replay(episodes)
    held(agent, 0, steps_of(rollout, 2), session.belief)
    assert session.belief.row.episodes.tolist() == [4]
    assert session.belief.cue[0, 0, -1] == 1
    session.act(np.zeros(4))
    assert not same(session.belief.lane, first)
    belief = agent.begin(TaskInfo(1, 3, CPU), lanes)
    for both in (recorded(family.spec, episodes, 2), recorded(family.spec, episodes[:2], 2)):
        belief = agent.replay(belief, both)
    assert belief.cue[..., -1].tolist() == [[1] * lanes]
    held(
        agent,
        0,
        steps_of(rollout, 2) + [s for e in (0, 1) for s in steps_of(list(rollout.rounds())[e], 2)],
        belief,
    )
    assert belief.row.episodes.tolist() == [6]
