"""Units of rewards, and what is paid in any case, change nothing that is learned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import CPU, Affine
from torch import Tensor

from metarl.agents.maml.agent import MAML
from metarl.agents.rl2.agent import RL2
from metarl.algorithms.losses import standardize
from metarl.collect.world import LocalWorld
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Params
from metarl.experiments.building import make_agent, make_family

FACTORS = [2.0**-27, 2.0**-20, 2.0**20, 2.0**27, 2.0**83]
"""About 1e-8, 1e-6, 1e6, 1e8 and 1e25: powers of two, which round nothing."""
EPISODES = 5


def normal(count: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


def iterated(family: Family, iterations: int, **options: Any) -> RL2:
    """After some iterations, 20 trials each."""
    agent = make_agent("rl2", family.spec, trials=20, minibatches=2, **options)
    world = LocalWorld(family, EPISODES, None, CPU)
    for i in range(iterations):
        agent.iterate(world, Rng(1).child(i))
    return agent


def lived(agent: RL2 | MAML, family: Family, episodes: int = EPISODES) -> Rollout:
    """What 20 tasks paid."""
    world = LocalWorld(family, episodes * agent.lanes, None, CPU)
    tasks = world.tasks(20, Rng(1))
    belief = agent.begin(world.task_info(agent, tasks), agent.lanes)
    return world.collect(agent, belief, tasks, episodes, Rng(2))[0]


def advantages(agent: RL2, family: Family) -> Tensor:
    return agent.ppo._prepare_batch(lived(agent, family), 0.9).levels["action"].advantage


# -------------------------------------------------------------------------------------------------
# Standardizing


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_standardizing_knows_no_units(factor: float, shift: float):
    x, valid = normal(1000), normal(1000).sign() > -2
    z = standardize(factor * (x + shift), valid)
    torch.testing.assert_close(z, standardize(x, valid), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e-8, 1e8, 1e25])
@pytest.mark.parametrize("noise", [0.0, 6e-8])
def test_what_is_equal_becomes_zero_and_no_noise(value: float, noise: float):
    x = value * (1 + noise * normal(10_000))
    assert standardize(x, torch.ones_like(x)).abs().max() < 0.05


def test_rounding_errors_of_a_difference_are_those_of_its_summands():
    """x is what cancellation left of numbers of 1e4; alone, it looks like anything else."""
    x, valid = 1e-3 * normal(1000), torch.ones(1000)
    assert standardize(x, valid).std() == pytest.approx(1, rel=1e-2)
    assert standardize(x, valid, summands=torch.full_like(x, 1e4)).abs().max() < 0.05
    padded = torch.cat([torch.zeros(999), torch.tensor([1e30])])
    assert standardize(x, padded < 1, summands=padded).std() > 0.9


@pytest.mark.parametrize("factor", [1e-8, 1.0, 1e25])
def test_one_in_ten_thousand_stays_finite(factor: float):
    """Its standardized size is √n."""
    x = torch.zeros(10_000)
    x[17] = factor
    z = standardize(x, torch.ones_like(x))
    assert z.max() == pytest.approx(100, rel=1e-3)
    assert z.isfinite().all()


# -------------------------------------------------------------------------------------------------
# PPO


def trained_params(family: Family) -> Params:
    """After three iterations of PPO that sees no reward."""
    return iterated(family, 3, memory="none", hidden_sizes=(8,)).params


@pytest.fixture(scope="module")
def plain_params() -> Params:
    return trained_params(make_family("point", horizon=6))


@pytest.mark.parametrize("factor", FACTORS)
def test_units_of_the_reward_change_no_parameter(factor: float, plain_params: Params):
    """Not one bit."""
    found = trained_params(Affine(make_family("point", horizon=6), factor))
    torch.testing.assert_close(found, plain_params, rtol=0, atol=0)


@pytest.mark.parametrize(("shift", "atol"), [(1.0, 1e-4), (-100.0, 1e-2), (1e4, 0.2)])
def test_what_every_step_pays_is_no_advantage(shift: float, atol: float):
    """From the first iteration on, in trials of one length: the values' first guess holds it."""
    family = make_family("bernoulli-bandit", arms=3)
    agent = iterated(family, 0, memory_width=8)
    expected = advantages(agent, family)
    assert expected.std() > 0.9
    agent.ppo.values = agent.ppo.values.columns(0)
    found = advantages(agent, Affine(family, 1.0, shift))
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("reward", [0.0, 0.1, -1.0, 1e8, 1e25])
@pytest.mark.parametrize("iterations", [0, 3])
@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_a_constant_reward_gives_no_advantage(reward: float, iterations: int, memory: str):
    """Neither rounding errors nor those of the values become advantages of ±1."""
    family = Affine(make_family("bernoulli-bandit", arms=3), 0.0, reward)
    options = {"memory": memory, "memory_width": 8, "normalize_reward": True}
    agent = iterated(family, iterations, **options)
    assert advantages(agent, family).abs().max() < 0.1


def test_after_a_long_constant_a_reward_is_learned_from():
    """Ten iterations without one leave neither the policy nor the scales in a corner."""
    options = {"memory_width": 8, "normalize_reward": True, "normalize_obs": True}
    family = make_family("bernoulli-bandit", arms=3)
    agent = iterated(Affine(family, 0.0, 1.0), 10, **options)
    found = advantages(agent, Affine(family, 1.0, 0.0))
    assert found.std() == pytest.approx(1, abs=0.1)
    world = LocalWorld(family, EPISODES, None, CPU)
    for i in range(3):
        metrics = agent.iterate(world, Rng(3).child(i))
    assert 0.001 < metrics["value_loss"] < 3
    assert metrics["entropy"] > 0.8


# -------------------------------------------------------------------------------------------------
# MAML


@pytest.mark.parametrize("factor", FACTORS[:-1])
def test_units_of_the_reward_change_no_inner_step(factor: float):
    family = make_family("point", horizon=6)
    agent = make_agent("maml", family.spec, episodes_per_task=4)
    expected = agent._episodes(lived(agent, family, 1)).advantage
    found = agent._episodes(lived(agent, Affine(family, factor), 1)).advantage
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reward", [0.0, 0.1, -1.0, 1e8, 1e25])
def test_a_constant_reward_gives_no_inner_step(reward: float):
    """Without discount its return is linear in time: the baseline knows it, but for its ridge."""
    family = Affine(make_family("tabular-mdp", horizon=100), 0.0, reward)
    agent = make_agent("maml", family.spec, episodes_per_task=4, gamma=1.0)
    assert agent._episodes(lived(agent, family, 1)).advantage.abs().max() < 0.5
