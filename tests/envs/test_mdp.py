"""Random finite processes follow their task rows, and their optimum is the best of all policies."""

from __future__ import annotations

import itertools
import math

import torch
from helpers import live
from scipy import stats

from metarl.core.rng import Rng
from metarl.experiments.building import make_family


def test_transitions_follow_p_and_rewards_m():
    family = make_family("tabular-mdp", states=3, actions=2, horizon=4)
    tasks = family.tasks("test", 2, Rng(0))
    mean, transition = family.unpack(tasks.params)
    rollout, _ = live(family, tasks, 2, lanes=10_000)  # [8, 2, 10000, …]
    state, successor, action = (
        rollout.inputs.obs.argmax(-1),
        rollout.next_obs.argmax(-1),
        rollout.action,
    )
    for n, s, a in itertools.product(range(2), range(3), range(2)):
        met = (state[:, n] == s) & (action[:, n] == a)
        counts = torch.bincount(successor[:, n][met], minlength=3)
        expected = counts.sum() * transition[n, s, a].double()
        assert stats.chisquare(counts.numpy(), expected.numpy(), sum_check=False).pvalue > 1e-3
        for following in range(3):  # and the noise tells nothing of the move
            noise = rollout.reward[:, n][met & (successor[:, n] == following)] - mean[n, s, a]
            assert stats.kstest(noise[:2000].numpy(), "norm").pvalue > 1e-3
    assert state[[0, 4]].eq(0).all()
    assert rollout.truncated[[3, 7]].all()


def test_tasks_have_the_published_prior():
    """m ~ N(1, 1), P ~ Dirichlet(1, …, 1), whose entries are Beta(1, S − 1)."""
    family = make_family("tabular-mdp")
    mean, transition = family.unpack(family.tasks("test", 200, Rng(0)).params)
    assert stats.kstest(mean.flatten().numpy(), "norm", (1, 1)).pvalue > 1e-3
    assert stats.kstest(transition[..., 0].flatten().numpy(), "beta", (1, 9)).pvalue > 1e-3
    torch.testing.assert_close(transition.sum(-1), torch.ones_like(transition[..., 0]))
    _, ood = family.unpack(family.tasks("ood", 200, Rng(0)).params)
    torch.testing.assert_close(ood.sum(-1), torch.ones_like(ood[..., 0]))
    assert float(ood.square().sum(-1).mean()) > 1.3 * float(transition.square().sum(-1).mean())


def test_the_optimum_is_the_best_of_all_policies():
    """Every deterministic policy of a tiny process, evaluated one by one."""
    family = make_family("tabular-mdp", states=2, actions=2, horizon=3)
    tasks = family.tasks("test", 4, Rng(0))
    mean, transition = (x.double() for x in family.unpack(tasks.params))
    states = torch.arange(2)
    best = torch.full((4,), -float("inf"), dtype=torch.float64)
    for policy in itertools.product(range(2), repeat=3 * 2):  # an action for every time and state
        chance, total = (
            torch.tensor([[1.0, 0.0]] * 4, dtype=torch.float64),
            torch.zeros(4, dtype=torch.float64),
        )
        for action in torch.tensor(policy).view(3, 2):
            total += (chance * mean[:, states, action]).sum(1)
            chance = torch.einsum("ns,nst->nt", chance, transition[:, states, action])
        best = torch.maximum(best, total)
    torch.testing.assert_close(family.optimum(tasks).double(), best, rtol=1e-5, atol=1e-5)


def test_the_oracle_has_the_published_mean():
    """219.2 ± 1.6 (two standard errors) over ten episodes, simulated elsewhere on 1,000 MDPs."""
    family = make_family("tabular-mdp")
    optimum = 10 * family.optimum(family.tasks("test", 4000, Rng(0)))
    error = float(optimum.std()) / math.sqrt(len(optimum))
    assert abs(float(optimum.mean()) - 219.2) < 2 * math.hypot(0.8, error)
