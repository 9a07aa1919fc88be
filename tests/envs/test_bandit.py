"""Bandits pay what their rows say, and their arms are drawn as published."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from metarl.core.rng import Rng
from metarl.experiments.building import make_family


@pytest.mark.parametrize(
    ("name", "variance"), [("bernoulli-bandit", None), ("gaussian-bandit", 1.0)]
)
def test_pulls_pay_the_arms_mean(name: str, variance: float | None):
    family = make_family(name, arms=3)
    tasks, lanes = family.tasks("test", 4, Rng(0)), 20_000
    env = family.make(lanes)
    env.reset(tasks, Rng(1))
    for arm in range(3):
        step = env.step(torch.full((4, lanes), arm))
        mean = tasks.params[:, arm]
        expected = mean * (1 - mean) if variance is None else torch.full((4,), variance)
        assert ((step.reward.mean(1) - mean).abs() < 4 * (expected / lanes).sqrt()).all()
        torch.testing.assert_close(step.reward.var(1), expected, rtol=0.05, atol=0.01)
        assert step.terminated.all()


@pytest.mark.parametrize("name", ["bernoulli-bandit", "gaussian-bandit"])
def test_arms_are_uniform_and_ood_is_another_distribution(name: str):
    family = make_family(name)
    draw = {
        split: family.tasks(split, 2000, Rng(0)).params.flatten().numpy()
        for split in ("test", "ood")
    }
    assert stats.kstest(draw["test"], "uniform").pvalue > 1e-3
    assert stats.kstest(draw["ood"], "uniform").pvalue < 1e-12
