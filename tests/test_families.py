"""The contract of every registered family, and the theory of those that come with metarl.

A family is tested by being registered.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from helpers import live, random_action, same
from scipy import stats
from torch import Tensor

from metarl.env import BatchEnv, Family, make_family
from metarl.find import names
from metarl.rng import Rng
from metarl.types import SPLITS, Step, Tasks, replace

DETERMINISTIC = {"point"}
"""Families in which the same actions always lead to the same episode."""

ROWS, LANES = 5, 3


@pytest.fixture(params=names("family"))
def family(request: pytest.FixtureRequest) -> Family:
    return make_family(request.param)


@pytest.fixture
def tasks(family: Family) -> Tasks:
    return family.tasks("train", ROWS, Rng(0))


def drive(family: Family, tasks: Tasks, steps: int, *, seed: int = 0, lanes: int = LANES, env: BatchEnv | None = None):
    """obs [T, N, M, O] acted on, actions [T, N, M, …] that do not depend on the seed, and the steps [T, N, M, …]."""
    env = env or family.make(lanes)
    noise = Rng(99).streams(tasks.index, lanes)
    obs, seen = env.reset(tasks, Rng(seed)).clone(), []
    for t in range(steps):
        action = random_action(family.spec, noise, t)
        step = env.step(action)
        seen.append((obs, action, *(x.clone() for x in (step.next_obs, step.reward, step.terminated, step.truncated))))
        obs = step.obs.clone()
    obs, action, next_obs, reward, terminated, truncated = (torch.stack(part) for part in zip(*seen, strict=True))
    return obs, action, Step(obs[1:], next_obs, reward, terminated, truncated)


def error_of(x: Tensor) -> float:
    """Four standard errors of the mean of independent x."""
    return 4 * float(x.std()) / math.sqrt(x.numel())


# ---------------------------------------------------------------------------------------------------------------------
# Tasks


@pytest.mark.parametrize("split", SPLITS)
def test_tasks_are_rows_of_the_spec(family: Family, split: str):
    tasks = family.tasks(split, ROWS, Rng(0))
    assert tasks.params.shape == (ROWS, family.spec.task_width)
    assert tasks.params.dtype == torch.float32
    assert tasks.params.isfinite().all()
    assert torch.equal(tasks.index, torch.arange(ROWS))
    assert tasks.split == split


@pytest.mark.parametrize("split", SPLITS)
def test_asking_for_more_tasks_keeps_the_first(family: Family, split: str):
    assert same(family.tasks(split, 9, Rng(1))[:4], family.tasks(split, 4, Rng(1)))


def test_splits_share_no_task(family: Family):
    rows = torch.cat([family.tasks(split, 50, Rng(0)).params for split in SPLITS])
    assert len(rows.unique(dim=0)) == 50 * len(SPLITS)


def test_another_seed_gives_other_tasks(family: Family):
    assert not same(family.tasks("train", ROWS, Rng(0)), family.tasks("train", ROWS, Rng(1)))


# ---------------------------------------------------------------------------------------------------------------------
# Environments


def test_steps_have_the_shapes_of_the_spec(family: Family, tasks: Tasks):
    """`collect` checks them, so living through an episode is the test."""
    rollout, _ = live(family, tasks, 2, lanes=LANES)
    assert rollout.reward.shape[1:] == (ROWS, LANES)
    assert rollout.inputs.obs.shape[-1] == family.spec.obs_width
    assert not (rollout.terminated & rollout.truncated).any()
    assert rollout.success is None or rollout.success.dtype == torch.bool


def test_the_same_seed_gives_the_same_trajectory(family: Family, tasks: Tasks):
    assert same(drive(family, tasks, 6), drive(family, tasks, 6))


def test_chance_depends_on_the_seed(family: Family, tasks: Tasks):
    one, other = drive(family, tasks, 6), drive(family, tasks, 6, seed=1)
    assert same(one, other) == (family.spec.name in DETERMINISTIC)


def test_rows_are_independent_of_their_company(family: Family, tasks: Tasks):
    rows = torch.tensor([3, 1])
    together, apart = drive(family, tasks, 6), drive(family, tasks[rows], 6)
    assert torch.equal(together[0][:, rows], apart[0])
    assert torch.equal(together[2].reward[:, rows], apart[2].reward)


def test_lanes_are_independent(family: Family, tasks: Tasks):
    """More lanes leave the first as they are, and each has its own chance."""
    wide, narrow = drive(family, tasks, 6), drive(family, tasks, 6, lanes=2)
    assert torch.equal(wide[2].reward[:, :, :2], narrow[2].reward)

    env, generator = family.make(8), torch.Generator().manual_seed(0)
    shape = (ROWS, 1) if family.spec.discrete else (ROWS, 1, family.spec.action_width)
    env.reset(tasks, Rng(0))
    rewards = []
    for _ in range(6):  # the same action in every lane
        action = torch.randint(family.spec.action_width, shape, generator=generator)
        action = action if family.spec.discrete else torch.rand(shape, generator=generator)
        rewards.append(env.step(action.expand(ROWS, 8, *shape[2:])).reward)
    paid = torch.stack(rewards)
    assert bool(paid.eq(paid[:, :, :1]).all()) == (family.spec.name in DETERMINISTIC)


def test_a_reset_forgets_the_past_and_takes_other_rows(family: Family, tasks: Tasks):
    env = family.make(LANES)
    fresh = drive(family, tasks, 6, env=env)
    drive(family, tasks[:2], 3, env=env)
    assert same(drive(family, tasks, 6, env=env), fresh)


def test_no_episode_outlives_its_horizon(family: Family, tasks: Tasks):
    horizon = family.spec.horizon
    _, _, step = drive(family, tasks, 2 * horizon + 1)
    age = torch.zeros(ROWS, LANES, dtype=torch.long)
    for done, truncated in zip(step.done, step.truncated, strict=True):
        age = age + 1
        assert done[age == horizon].all()
        assert (age[truncated] == horizon).all()
        age[done] = 0


def test_observations_go_on_within_an_episode(family: Family, tasks: Tasks):
    """Where no episode ended, what is acted on next is the true successor."""
    obs, _, step = drive(family, tasks, family.spec.horizon + 2)
    within = ~step.done[:-1]
    assert torch.equal(obs[1:][within], step.next_obs[:-1][within])


# ---------------------------------------------------------------------------------------------------------------------
# What a family may offer


def offering(name: str) -> list[str]:
    return [family for family in names("family") if hasattr(make_family(family), name)]


@pytest.mark.parametrize("name", offering("expected_reward"))
def test_expected_rewards_are_the_mean_of_rewards(name: str):
    family = make_family(name)
    rollout, _ = live(family, tasks := family.tasks("test", 200, Rng(0)), 20, lanes=5)
    gap = rollout.reward - family.expected_reward(tasks, rollout)
    for action in range(family.spec.action_width):  # whatever was done: chance must not know the action
        chosen = gap[rollout.valid & (rollout.action == action)]
        assert abs(float(chosen.mean())) < error_of(chosen)


@pytest.mark.parametrize("name", offering("optimum"))
def test_nobody_beats_the_optimum(name: str):
    """A random agent, on average over its luck, is worse in every task."""
    family = make_family(name)
    tasks = family.tasks("test", 50, Rng(0))
    returns = live(family, tasks, 1, lanes=200)[0].episode_returns()[0]
    assert (returns.mean(1) < family.optimum(tasks) + 4 * returns.std(1) / math.sqrt(200)).all()


@pytest.mark.parametrize("name", offering("mean_optimum"))
def test_the_mean_optimum_is_the_mean_of_optima(name: str):
    family = make_family(name)
    optimum = family.optimum(family.tasks("test", 50_000, Rng(0)))
    assert abs(float(optimum.mean()) - family.mean_optimum) < error_of(optimum)


# ---------------------------------------------------------------------------------------------------------------------
# Bandits


@pytest.mark.parametrize(("name", "variance"), [("bernoulli-bandit", None), ("gaussian-bandit", 1.0)])
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
    draw = {split: family.tasks(split, 2000, Rng(0)).params.flatten().numpy() for split in ("test", "ood")}
    assert stats.kstest(draw["test"], "uniform").pvalue > 1e-3
    assert stats.kstest(draw["ood"], "uniform").pvalue < 1e-12


# ---------------------------------------------------------------------------------------------------------------------
# Tabular MDPs


def test_transitions_follow_p_and_rewards_m():
    family = make_family("tabular-mdp", states=3, actions=2, horizon=4)
    tasks = family.tasks("test", 2, Rng(0))
    mean, transition = family.unpack(tasks.params)
    obs, action, step = drive(family, tasks, 8, lanes=10_000)
    state, successor = obs.argmax(-1), step.next_obs.argmax(-1)
    for n, s, a in itertools.product(range(2), range(3), range(2)):
        met = (state[:, n] == s) & (action[:, n] == a)
        counts = torch.bincount(successor[:, n][met], minlength=3)
        expected = counts.sum() * transition[n, s, a].double()
        assert stats.chisquare(counts.numpy(), expected.numpy(), sum_check=False).pvalue > 1e-3
        for following in range(3):  # and the noise tells nothing of the move
            noise = step.reward[:, n][met & (successor[:, n] == following)] - mean[n, s, a]
            assert stats.kstest(noise[:2000].numpy(), "norm").pvalue > 1e-3
    assert state[[0, 4]].eq(0).all()
    assert step.truncated[[3, 7]].all()


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
        chance, total = torch.tensor([[1.0, 0.0]] * 4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
        for action in torch.tensor(policy).view(3, 2):
            total += (chance * mean[:, states, action]).sum(1)
            chance = torch.einsum("ns,nst->nt", chance, transition[:, states, action])
        best = torch.maximum(best, total)
    torch.testing.assert_close(family.optimum(tasks).double(), best, rtol=1e-5, atol=1e-5)


def test_the_oracle_has_the_published_mean():
    """219.2 over ten episodes, simulated elsewhere on 1,000 processes with an error of 1.6 (two standard errors)."""
    family = make_family("tabular-mdp")
    optimum = 10 * family.optimum(family.tasks("test", 4000, Rng(0)))
    assert abs(float(optimum.mean()) - 219.2) < math.hypot(2 * 0.8, error_of(optimum) / 2)


# ---------------------------------------------------------------------------------------------------------------------
# Point


def step_point(goal: list[float], moves: list[list[float]], **options: float) -> list[Step]:
    family = make_family("point", **options)
    env = family.make(1)
    env.reset(Tasks(torch.tensor([goal]), torch.arange(1), "test"), Rng(0))
    return [env.step(torch.tensor([[move]])) for move in moves]


def test_moves_are_clipped_and_paid_by_distance():
    steps = step_point([0.3, 0.4], [[0.0, 0.0], [5.0, -0.5]])
    assert steps[0].reward.item() == pytest.approx(-0.5)
    torch.testing.assert_close(steps[1].next_obs.flatten(), torch.tensor([0.1, -0.05]))
    assert steps[1].reward.item() == pytest.approx(-math.hypot(0.2, 0.45))


def test_arriving_terminates_and_starts_again_at_the_origin():
    """Both gaps must be below the arrival distance; the other lanes' clocks go on."""
    steps = step_point([0.105, 0.1], [[1.0, 0.8], [0.0, 0.2], [0.0, 0.0]])
    assert [bool(step.terminated) for step in steps] == [False, True, False]
    assert steps[1].success.item()
    assert steps[1].obs.eq(0).all()
    torch.testing.assert_close(steps[1].next_obs.flatten(), torch.tensor([0.1, 0.1]))
    assert steps[2].next_obs.eq(0).all()


def test_the_horizon_truncates():
    steps = step_point([0.5, 0.5], [[0.0, 0.0]] * 6, horizon=3)
    assert [bool(step.truncated) for step in steps] == [False, False, True] * 2
    assert not any(step.terminated for step in steps)


def test_goals_are_in_the_square_and_ood_goals_outside():
    family = make_family("point", goal_range=0.5)
    inside, outside = (family.tasks(split, 5000, Rng(0)).params for split in ("test", "ood"))
    assert stats.kstest(inside[:, 0].numpy(), "uniform", (-0.5, 1)).pvalue > 1e-3
    half_width = outside.abs().max(-1).values
    assert stats.kstest(half_width.numpy(), "uniform", (0.5, 0.5)).pvalue > 1e-3
    assert float(half_width.min()) > 0.5


def test_the_optimum_has_the_published_mean():
    """−0.507: clip to the goal, the goal uniform on [−½, ½]²."""
    family = make_family("point")
    optimum = family.optimum(family.tasks("test", 50_000, Rng(0)))
    assert abs(float(optimum.mean()) + 0.507) < 0.0005 + error_of(optimum)


def test_the_optimum_is_a_return_and_no_detour_beats_it():
    family = make_family("point")
    tasks = replace(family.tasks("test", 3, Rng(0)), params=torch.tensor([[0.25, 0.1], [0.0, 0.0], [-0.05, 0.3]]))
    by_hand = [-math.hypot(0.15, 0.0) - 0.05, 0.0, -0.2 - 0.1]
    torch.testing.assert_close(family.optimum(tasks), torch.tensor(by_hand))
