"""What families offer besides tasks and environments is what it says."""

from __future__ import annotations

import math

import pytest
from helpers import FAMILIES, live
from torch import Tensor

from metarl.core.rng import Rng
from metarl.experiments.building import make_family


def error_of(x: Tensor) -> float:
    """Four standard errors of the mean of independent x."""
    return 4 * float(x.std()) / math.sqrt(x.numel())


def offering(name: str) -> list[str]:
    return [family for family in FAMILIES if hasattr(make_family(family), name)]


@pytest.mark.parametrize("name", offering("expected_reward"))
def test_expected_rewards_are_the_mean_of_rewards(name: str):
    family = make_family(name)
    rollout, _ = live(family, tasks := family.tasks("test", 200, Rng(0)), 20, lanes=5)
    gap = rollout.reward - family.expected_reward(tasks, rollout)
    for action in range(family.spec.action_width):  # the noise must not depend on the action
        chosen = gap[rollout.valid & (rollout.action == action)]
        assert abs(float(chosen.mean())) < error_of(chosen)


@pytest.mark.parametrize("name", offering("optimum"))
def test_nobody_beats_the_optimum(name: str):
    """A random agent, on average over its returns, is no better in any task."""
    family = make_family(name)
    tasks, lanes = family.tasks("test", 50, Rng(0)), 200 if family.spec.horizon <= 200 else 20
    returns = live(family, tasks, 1, lanes=lanes)[0].episode_returns()[0]
    assert (returns.mean(1) <= family.optimum(tasks) + 4 * returns.std(1) / math.sqrt(lanes)).all()


@pytest.mark.parametrize("name", offering("mean_optimum"))
def test_the_mean_optimum_is_the_mean_of_optima(name: str):
    family = make_family(name)
    optimum = family.optimum(family.tasks("test", 50_000, Rng(0)))
    assert abs(float(optimum.mean()) - family.mean_optimum) < error_of(optimum)
