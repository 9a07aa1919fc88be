"""The classical strategies against theory, dynamic programming and published scores."""

from __future__ import annotations

import math
from functools import cache
from itertools import product
from operator import itemgetter
from typing import Any

import pytest
import torch
from helpers import Ragged, same
from torch import Tensor
from torch.utils._pytree import tree_leaves

from metarl.agents.strategies import config as strategy_settings
from metarl.agents.strategies.bandits import Arms, gittins, gittins_indices
from metarl.agents.strategies.mdps import Experience, plan, q_values
from metarl.agents.strategies.strategy import random_argmax, sample_dirichlet, sample_gamma
from metarl.collect.collector import collect, task_info
from metarl.core.agent import Agent
from metarl.core.errors import MetaRLError
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Belief, Spec, Tasks, replace, tree_map
from metarl.evaluation.meta_test import evaluate
from metarl.experiments.building import make_agent, make_family

BANDIT_RULES = ("Greedy", "EpsilonGreedy", "Thompson", "UCB1", "Gittins")
MDP_RULES = ("PSRL", "OPSRL", "BEB", "CertaintyEquivalence", "ValueIteration")
PLAYERS = (
    [("bernoulli-bandit", rule, {}) for rule in ("Random", *BANDIT_RULES)]
    + [("gaussian-bandit", rule, {"rewards": "gaussian"}) for rule in BANDIT_RULES[:-1]]
    + [("tabular-mdp", rule, {}) for rule in ("Random", *MDP_RULES)]
    + [("point", "Random", {})]
)


def strategy(name: str, spec: Spec, **options: Any) -> Agent:
    return make_agent(f"metarl.agents.strategies.config:{name}Config", spec, **options)


def play(
    agent: Agent, family: Family, tasks: Tasks, episodes: int, lanes: int = 1
) -> tuple[list[Rollout], Belief]:
    """What the agent lives through, adapting after every episode."""
    env, rollouts = family.make(lanes), []
    belief = agent.begin(task_info(agent, agent.spec, tasks, episodes), lanes)
    for k in range(episodes):
        rollout, belief = collect(
            agent, env, family.spec, belief, tasks, 1, Rng(0).child("episode", k)
        )
        belief = agent.adapt(belief, rollout)
        rollouts.append(rollout)
    return rollouts, belief


# -------------------------------------------------------------------------------------------------
# Random numbers


@pytest.mark.parametrize("shape", [1.0, 1.7, 3.0, 60.0])
def test_gamma_has_its_distribution(shape: float) -> None:
    streams = Rng(1).streams(torch.arange(20_000)).split(0, 2)
    drawn = sample_gamma(torch.full(streams.keys.shape, shape), streams).double()
    level = (
        torch.special.gammainc(torch.tensor(shape, dtype=torch.double), drawn)
        .flatten()
        .sort()
        .values
    )
    steps = torch.arange(len(level), dtype=torch.double) / len(level)
    assert (level - steps).abs().max() < 1.95 / math.sqrt(
        len(level)
    )  # Kolmogorov-Smirnov, one in a thousand


def test_dirichlet_has_its_moments() -> None:
    concentration = torch.tensor([1.0, 2.0, 7.0])
    drawn = sample_dirichlet(
        concentration.expand(40_000, 1, 3), Rng(2).streams(torch.arange(40_000))
    ).squeeze(1)
    mean = concentration / 10
    torch.testing.assert_close(drawn.sum(-1), torch.ones(40_000))
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.004, rtol=0)
    torch.testing.assert_close(drawn.var(0), mean * (1 - mean) / 11, atol=0.001, rtol=0)


def test_ties_are_broken_evenly_and_only_ties() -> None:
    score = torch.tensor([0.0, 3.0, 3.0, 1.0, 3.0]).expand(30_000, 1, 5)
    chosen = torch.bincount(
        random_argmax(score, Rng(3).streams(torch.arange(30_000)), 4).flatten(), minlength=5
    )
    assert chosen[0] == chosen[3] == 0
    assert all(
        abs(n - 10_000) < 330 for n in chosen[[1, 2, 4]].tolist()
    )  # four standard deviations


def test_a_truncated_normal_posterior_agrees_with_quadrature_and_with_its_own_draws() -> None:
    pulls, average = torch.tensor([0.0, 1.0, 4.0, 100.0]), torch.tensor([0.0, -2.0, 0.9, 0.3])
    arms = Arms(pulls, pulls * average, "gaussian", horizon=200)
    m = (torch.arange(20_000, dtype=torch.double).unsqueeze(1) + 0.5) / 20_000
    weight = torch.exp(-pulls * (average - m).square() / 2)
    mean, square = (m * weight).sum(0) / weight.sum(0), (m**2 * weight).sum(0) / weight.sum(0)
    torch.testing.assert_close(arms.mean(), mean, atol=1e-5, rtol=0)
    lanes = tree_map(lambda x: x.expand(20_000, 1, -1), arms)
    drawn = lanes.sample(Rng(4).streams(torch.arange(20_000)))
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    torch.testing.assert_close(drawn.mean((0, 1)), mean, atol=0.008, rtol=0)
    torch.testing.assert_close(drawn.square().mean((0, 1)), square, atol=0.008, rtol=0)


def test_a_truncated_normal_posterior_survives_averages_far_outside() -> None:
    pulls = torch.full((2,), 500.0)
    mean = Arms(pulls, pulls * torch.tensor([-3.0, 3.0]), "gaussian", horizon=500).mean()
    assert 0 <= mean[0] < 0.01
    assert 0.99 < mean[1] <= 1


# -------------------------------------------------------------------------------------------------
# The Gittins index and the Bayes optimum


def two_armed_value(pulls: int, index: Tensor | None = None) -> float:
    """Expected total reward of the best policy for two Bernoulli arms, or of the one that follows
    `index`, exactly.
    """
    value = torch.zeros(
        pulls + 2, pulls + 2, pulls + 2, dtype=torch.double
    )  # [pulls of arm 0, wins 0, wins 1]
    for time in range(pulls - 1, -1, -1):
        n = time + 1
        m = [torch.arange(n).view(-1, 1, 1), time - torch.arange(n).view(-1, 1, 1)]
        s = [torch.arange(n).view(1, -1, 1), torch.arange(n).view(1, 1, -1)]
        p = [(s[a] + 1) / (m[a] + 2).double() for a in (0, 1)]
        pull_0 = (
            p[0] * (1 + value[1 : n + 1, 1 : n + 1, :n]) + (1 - p[0]) * value[1 : n + 1, :n, :n]
        )
        pull_1 = p[1] * (1 + value[:n, :n, 1 : n + 1]) + (1 - p[1]) * value[:n, :n, :n]
        better = pull_0 >= pull_1
        if index is not None:
            reach = [x + pulls - time for x in m]
            look = [
                index[(L - 1) * L * (L + 1) // 6 + x * (x + 1) // 2 + torch.minimum(w, x)]
                for L, x, w in zip(reach, m, s, strict=True)
            ]
            better = look[0] >= look[1]
        value[:n, :n, :n] = torch.where(better, pull_0, pull_1)
    return float(value[0, 0, 0])


def bayes_value(arms: int, pulls: int) -> float:
    """Expected total reward of the best policy for Bernoulli arms, whose order does not matter."""

    @cache
    def value(state: tuple[tuple[int, int], ...], left: int) -> float:
        if left == 0:
            return 0.0
        best = 0.0
        for a, (won, lost) in enumerate(state):
            if a and state[a] == state[a - 1]:
                continue
            p = (won + 1) / (won + lost + 2)
            after = [
                tuple(sorted((*state[:a], x, *state[a + 1 :])))
                for x in ((won + 1, lost), (won, lost + 1))
            ]
            best = max(
                best, p * (1 + value(after[0], left - 1)) + (1 - p) * value(after[1], left - 1)
            )
        return best

    return value(((0, 0),) * arms, pulls)


def test_dynamic_programming_gives_the_published_bayes_optima() -> None:
    assert two_armed_value(10) == pytest.approx(6.021786, abs=1e-6)
    assert two_armed_value(100) == pytest.approx(64.918421, abs=1e-6)
    assert bayes_value(2, 10) == pytest.approx(6.021786, abs=1e-6)
    assert bayes_value(5, 10) == pytest.approx(6.659988, abs=1e-6)


def test_gittins_indices_of_the_last_pulls_are_those_found_by_hand() -> None:
    index = gittins_indices(3)
    assert len(index) == 1 + 3 + 6
    # One pull left: the mean. Two left, nothing known: λ = p + p (2/3 − λ) with p = 1/2.
    torch.testing.assert_close(
        index[[0, 2, 3]], torch.tensor([1 / 2, 1 / 3, 2 / 3]), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(index[1], torch.tensor(5 / 9), atol=1e-4, rtol=0)


def test_gittins_looks_up_the_pulls_that_are_left() -> None:
    """One of three pulls has been used and won: two are left, and by hand λ = p + p (p′ − λ), p′
    after another win.
    """
    arms = Arms(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[0.0, 1.0]]]), "bernoulli", horizon=3)
    index = gittins(arms)
    torch.testing.assert_close(index, torch.tensor([[[5 / 9, 7 / 10]]]), atol=1e-4, rtol=0)


def test_gittins_falls_short_of_the_optimum_by_next_to_nothing() -> None:
    """Computed exactly: 0.0003 of 6.02 and 0.006 of 64.9."""
    assert 6.0215 < two_armed_value(10, gittins_indices(10)) < 6.0218
    assert 64.912 < two_armed_value(100, gittins_indices(100)) < 64.918


def test_gittins_is_greedy_once_its_pulls_are_used_up() -> None:
    family = make_family("bernoulli-bandit", arms=3)
    tasks = family.tasks("test", 50, Rng(0))
    agents = [strategy(name, family.spec) for name in ("Gittins", "Greedy")]
    _, after = play(agents[0], family, tasks, 8)
    actions = []
    for agent in agents:
        rollout, _ = collect(agent, family.make(1), family.spec, after, tasks, 1, Rng(9))
        actions.append(rollout.action)
    assert torch.equal(*actions)


# -------------------------------------------------------------------------------------------------
# Published scores


@pytest.mark.learning
@pytest.mark.parametrize(
    ("rule", "options", "arms", "pulls", "tasks", "published", "interval"),
    [
        ("Random", {}, 5, 10, 10_000, 5.0, 0.014),
        ("Greedy", {}, 5, 10, 10_000, 6.563, 0.015),
        ("Thompson", {}, 5, 10, 10_000, 5.819, 0.011),
        ("UCB1", {}, 5, 10, 10_000, 6.644, 0.012),
        ("Gittins", {}, 5, 10, 10_000, 6.654, 0.013),
        ("Greedy", {}, 5, 100, 4000, 74.961, 0.231),
        ("Thompson", {}, 5, 100, 4000, 75.037, 0.087),
        ("UCB1", {}, 5, 100, 4000, 78.382, 0.109),
        ("Gittins", {}, 5, 100, 4000, 78.668, 0.109),
        ("Thompson", {}, 10, 100, 2000, 77.035, 0.109),
        ("Gittins", {}, 10, 100, 2000, 83.689, 0.134),
        ("EpsilonGreedy", {}, 5, 500, 1500, 391.898, 0.952),
    ],
)
def test_bandit_rules_score_as_published(
    rule: str,
    options: dict[str, Any],
    arms: int,
    pulls: int,
    tasks: int,
    published: float,
    interval: float,
) -> None:
    """Mean total reward and its 95 % interval as computed independently; ours within 3 standard
    errors of the gap.
    """
    family = make_family("bernoulli-bandit", arms=arms)
    totals = evaluate(
        strategy(rule, family.spec, **options), family, episodes=pulls, tasks=tasks
    ).totals[0]
    error = math.hypot(totals.std() / math.sqrt(tasks), interval / 1.96)
    assert abs(totals.mean() - published) < 3 * error


@pytest.mark.learning
@pytest.mark.parametrize(
    ("rule", "episodes", "tasks", "published", "interval"),
    [
        ("Random", 10, 1000, 219.2 - 100.3, 1.3),
        ("CertaintyEquivalence", 25, 1000, 548.0 - 436.7, 3.6),
        ("BEB", 25, 1000, 548.0 - 454.0, 3.6),
        ("PSRL", 25, 500, 548.0 - 406.0, 3.5),
        ("OPSRL", 25, 250, 548.0 - 412.3, 3.5),
    ],
)
def test_mdp_rules_regret_as_published(
    rule: str, episodes: int, tasks: int, published: float, interval: float
) -> None:
    """Regret, to which task sampling adds little noise, within the published score's interval."""
    family = make_family("tabular-mdp")
    regrets = evaluate(strategy(rule, family.spec), family, episodes=episodes, tasks=tasks).regrets[
        0
    ]
    assert abs(regrets.mean() - published) < interval


def test_posterior_sampling_with_gaussian_rewards_approaches_the_best_arm() -> None:
    family = make_family("gaussian-bandit", arms=5)
    agent = strategy("Thompson", family.spec, rewards="gaussian")
    scores = evaluate(agent, family, episodes=300, tasks=200)
    first, last = scores.returns[0, :20].mean(), scores.returns[0, -20:].mean()
    assert abs(scores.returns[0, 0].mean() - 0.5) < 0.08
    assert first < last - 0.15
    assert last > scores.optimum.mean() - 0.13  # type: ignore[union-attr]


# -------------------------------------------------------------------------------------------------
# Planning


def test_backward_induction_agrees_with_a_process_solved_by_hand() -> None:
    """Waiting in state 0 pays 1; leaving it pays nothing but leads to state 1, where every step
    pays 3.
    """
    reward = torch.tensor([[1.0, 0.0], [3.0, 3.0]])
    transition = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    values = q_values(reward, transition, 3)
    assert values[:, 0].tolist() == [[4.0, 6.0], [2.0, 3.0], [1.0, 0.0]]
    assert values[:, 1].tolist() == [[9.0, 9.0], [6.0, 6.0], [3.0, 3.0]]
    bonus = q_values(reward, transition, 3, bonus=torch.ones(2, 2))
    assert bonus[2].equal(values[2])
    assert bonus[0, 0].tolist() == [7.0, 9.0]  # two steps are left, then one


def test_value_iteration_reaches_the_optimum() -> None:
    family = make_family("tabular-mdp")
    agent = strategy("ValueIteration", family.spec)
    tasks = family.tasks("test", 500, Rng(0))
    _, belief = play(agent, family, tasks, 1)
    promised = belief.lane.values[:, 0, 0, 0].amax(-1)
    torch.testing.assert_close(promised, family.optimum(tasks))  # type: ignore[attr-defined]
    regrets = evaluate(agent, family, episodes=5, tasks=1000).regrets[0]
    assert abs(regrets.mean()) < 3 * regrets.std() / math.sqrt(1000)


def test_psrl_believes_the_truth_in_the_end() -> None:
    family = make_family("tabular-mdp", states=4, actions=3)
    tasks = family.tasks("test", 5, Rng(0))
    _, lived = play(strategy("Random", family.spec), family, tasks, 1, lanes=4000)
    rollout, _ = collect(
        strategy("Random", family.spec), family.make(4000), family.spec, lived, tasks, 1, Rng(1)
    )
    agent = strategy("PSRL", family.spec)
    belief = agent.adapt(agent.begin(task_info(agent, agent.spec, tasks, 1), 1), rollout)
    mean, transition = family.unpack(tasks.params)  # type: ignore[attr-defined]
    torch.testing.assert_close(belief.row.mean_reward(1.0), mean, atol=0.1, rtol=0)
    counts = belief.row.transitions
    frequency = counts / counts.sum(-1, keepdim=True)
    torch.testing.assert_close(frequency, transition, atol=0.05, rtol=0)
    _, after = collect(agent, family.make(1), family.spec, belief, tasks, 1, Rng(2))
    promised = after.lane.values[:, 0, 0, 0].amax(-1)
    torch.testing.assert_close(promised, family.optimum(tasks), atol=0.6, rtol=0)  # type: ignore[attr-defined]


def test_a_plan_is_kept_through_an_episode_and_drawn_anew_for_the_next() -> None:
    family = make_family("tabular-mdp")
    agent, tasks = strategy("PSRL", family.spec), family.tasks("test", 3, Rng(0))
    env, noise = family.make(2), Rng(0).streams(torch.arange(3), 2)
    belief, obs = agent.begin(task_info(agent, agent.spec, tasks, 2), 2), env.reset(tasks, Rng(1))
    plans = []
    for time in range(6):
        acted, belief = agent.act(belief, obs, noise, time, "sample")
        plans.append(belief.lane.values)
        belief.cue[..., -1] = 0.0
        if time == 4:  # the episode of one lane ends
            belief.cue[1, 0, -1] = 1.0
        if time < 5:  # every lane follows its own plan
            assert torch.equal(acted.action, belief.lane.values[:, :, time, 0].argmax(-1))
    assert all(same(plan, plans[0]) for plan in plans[:5])
    assert not same(plans[0][:, 0], plans[0][:, 1])
    changed = (plans[5] != plans[0]).flatten(2).any(-1)
    assert changed.tolist() == [[False, False], [True, False], [False, False]]
    assert belief.lane.time.tolist() == [[6, 6], [1, 6], [6, 6]]


def test_psrl_draws_rewards_and_transitions_from_their_posteriors() -> None:
    """Four lessons of action 0 in state 0, three of which led to state 1; rewards of state 1 are
    known to be 1.
    """
    visits = torch.tensor([[[4.0, 0.0], [1e8, 1e8]]])
    transitions = torch.zeros(1, 2, 2, 2)
    transitions[0, 0, 0] = torch.tensor([1.0, 3.0])
    reward_sum = torch.tensor([[[-400.0, 0.0], [1e8, 1e8]]])
    experience = Experience(visits, reward_sum, transitions)
    noise = Rng(0).streams(torch.arange(1), 40_000)
    config = strategy_settings.PSRLConfig(prior_mean=-100.0)
    values = plan(config, experience, noise, 2)[0, :, :, 0]  # [lanes, H, A] in state 0
    last, future = values[:, 1], values[:, 0] - values[:, 1]
    torch.testing.assert_close(last.mean(0), torch.tensor([-100.0, -100.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(last.var(0), torch.tensor([1 / 5, 1.0]), atol=0.03, rtol=0)
    # What follows is worth 1 in state 1 and last.max in state 0, so it gives away the probability
    # of state 1.
    best = last.amax(-1, keepdim=True)
    probability = (future - best) / (1 - best)
    torch.testing.assert_close(
        probability.mean(0), torch.tensor([4 / 6, 1 / 2]), atol=0.005, rtol=0
    )
    torch.testing.assert_close(
        probability.var(0), torch.tensor([8 / 252, 1 / 12]), atol=0.002, rtol=0
    )


def test_the_posterior_and_its_bonus_are_those_of_a_sum_by_hand() -> None:
    """State 0 was left once by action 0, for 4 and for state 1; nothing else was tried. Episodes of
    two steps.
    """
    visits = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    transitions = torch.zeros(1, 2, 2, 2)
    transitions[0, 0, 0, 1] = 1.0
    experience = Experience(visits, 4 * visits, transitions)
    noise = Rng(0).streams(torch.arange(1))
    # Means: (4 + 2) / 2 = 3 where tried, else 2. Transitions: 1/3 and 2/3 where tried, else 1/2 and
    # 1/2.
    config = strategy_settings.CertaintyEquivalenceConfig(prior_mean=2.0)
    plain = plan(config, experience, noise, 2)[0, 0]
    torch.testing.assert_close(plain[1], torch.tensor([[3.0, 2.0], [2.0, 2.0]]))
    torch.testing.assert_close(
        plain[0, 0], torch.tensor([3 + 1 / 3 * 3 + 2 / 3 * 2, 2 + 1 / 2 * 3 + 1 / 2 * 2])
    )
    # Bonus: 1/3 where tried, else 1/2; and with one step left 2 · 2³ · 0.1 / (1 + 3) = 0.4, else
    # 1.6 / 3.
    config = strategy_settings.BEBConfig(prior_mean=2.0, scaling=0.1)
    bold = plan(config, experience, noise, 2)[0, 0]
    torch.testing.assert_close(bold[1], torch.tensor([[3 + 1 / 3, 2.5], [2.5, 2.5]]))
    expected = [
        3 + 1 / 3 + 1 / 3 * (10 / 3) + 2 / 3 * 2.5 + 0.4,
        2.5 + 1 / 2 * (10 / 3) + 1 / 2 * 2.5 + 1.6 / 3,
    ]
    torch.testing.assert_close(bold[0, 0], torch.tensor(expected))


def test_experience_counts_every_step_and_every_move_but_those_that_end_an_episode() -> None:
    family = make_family("tabular-mdp", states=3, actions=2, horizon=4)
    tasks = family.tasks("test", 6, Rng(0))
    rollouts, belief = play(strategy("PSRL", family.spec), family, tasks, 5)
    state, after = (
        torch.cat(x).argmax(-1)
        for x in ([r.inputs.obs for r in rollouts], [r.next_obs for r in rollouts])
    )
    action, reward = (
        torch.cat(x) for x in ([r.action for r in rollouts], [r.reward for r in rollouts])
    )
    for n in range(6):
        visits, reward_sum = torch.zeros(3, 2), torch.zeros(3, 2)
        transitions = torch.zeros(3, 2, 3)
        for t in range(20):
            s, a = int(state[t, n]), int(action[t, n])
            visits[s, a] += 1
            reward_sum[s, a] += reward[t, n, 0]
            transitions[s, a, after[t, n]] += float(t % 4 != 3)
        counts = (belief.row.visits[n], belief.row.transitions[n])
        assert same(counts, (visits, transitions))
        torch.testing.assert_close(belief.row.reward_sum[n], reward_sum)


def test_where_nothing_is_known_a_plan_begins_anyhow() -> None:
    family = make_family("tabular-mdp")
    tasks = family.tasks("test", 2000, Rng(0))
    for rule in ("CertaintyEquivalence", "BEB"):
        rollouts, _ = play(strategy(rule, family.spec), family, tasks, 1)
        first = torch.bincount(rollouts[0].action[0].flatten(), minlength=5)
        assert all(abs(n - 400) < 72 for n in first.tolist())  # four standard deviations


# -------------------------------------------------------------------------------------------------
# What every strategy owes to the protocol


@pytest.mark.parametrize(("name", "rule", "options"), PLAYERS)
def test_rows_do_not_depend_on_their_neighbors(
    name: str, rule: str, options: dict[str, Any]
) -> None:
    family = make_family(name)
    agent, tasks = strategy(rule, family.spec, **options), family.tasks("test", 13, Rng(0))
    together, belief = play(agent, family, tasks, 6, lanes=2)
    apart = [play(agent, family, tasks[rows], 6, lanes=2) for rows in (slice(0, 5), slice(5, 13))]
    for k, whole in enumerate(together):
        parts = torch.cat([rollouts[k].action for rollouts, _ in apart], dim=1)
        assert torch.equal(whole.action, parts)
    assert same(belief.row, tree_map(lambda *x: torch.cat(x), *(b.row for _, b in apart)))


@pytest.mark.parametrize(("name", "rule", "options"), PLAYERS)
def test_lanes_and_episodes_count_one_by_one_and_what_is_not_valid_does_not(
    name: str, rule: str, options: dict[str, Any]
) -> None:
    family = make_family(name)
    agent, tasks = strategy(rule, family.spec, **options), family.tasks("test", 4, Rng(0))
    begun = agent.begin(task_info(agent, agent.spec, tasks, 2), 3)
    rollout, lived = collect(agent, family.make(3), family.spec, begun, tasks, 2, Rng(1))
    whole, stepwise = agent.adapt(lived, rollout), lived
    indexed = replace(rollout, index=rollout.index.expand(1, 1, -1))
    for t, lane in product(range(len(rollout.reward)), range(3)):
        step = itemgetter((slice(t, t + 1), slice(None), slice(lane, lane + 1)))
        part = tree_map(step, indexed)
        nonsense = replace(part, reward=part.reward * math.nan, valid=torch.zeros_like(part.valid))
        stepwise = agent.adapt(agent.adapt(stepwise, part), nonsense)
    torch.testing.assert_close(tree_leaves(whole.row), tree_leaves(stepwise.row))
    assert same(whole.lane, lived.lane)
    assert rule in ("Random", "ValueIteration") or not same(whole.row, lived.row)


@pytest.mark.parametrize(("name", "rule", "options"), PLAYERS)
def test_nothing_is_learned_and_nothing_kept(name: str, rule: str, options: dict[str, Any]) -> None:
    agent = strategy(rule, make_family(name).spec, **options)
    with pytest.raises(MetaRLError, match="learns nothing"):
        agent.iterate(None, Rng(0))  # type: ignore[arg-type]
    assert agent.state_dict() == {}
    agent.load_state_dict({})
    agent.warm_start({})


def test_random_knows_its_log_probability() -> None:
    for name, expected in (("point", -2 * math.log(2)), ("bernoulli-bandit", -math.log(5))):
        family = make_family(name)
        rollouts, _ = play(
            strategy("Random", family.spec), family, family.tasks("test", 300, Rng(0)), 1, lanes=2
        )
        action = rollouts[0].action.double()
        torch.testing.assert_close(
            rollouts[0].log_prob, torch.full_like(rollouts[0].log_prob, expected)
        )
        low, high = (-1, 1) if name == "point" else (0, 4)
        assert low <= action.min() < low + 0.01
        assert high - 0.01 < action.max() <= high
        assert abs(action.mean() - (low + high) / 2) < 0.2


@pytest.mark.parametrize(
    ("name", "rule"),
    [(name, rule) for name in ("tabular-mdp", "point") for rule in BANDIT_RULES]
    + [("point", rule) for rule in MDP_RULES]
    + [("bernoulli-bandit", "ValueIteration")],
)
def test_a_family_that_does_not_suit_a_rule_is_refused(name: str, rule: str) -> None:
    with pytest.raises(
        MetaRLError, match=rf"^{rule} needs .*, which {name} is not: choose another agent$"
    ):
        strategy(rule, make_family(name).spec)


def test_rewards_and_observations_of_another_kind_are_refused() -> None:
    family = make_family("gaussian-bandit")
    tasks = family.tasks("test", 3, Rng(0))
    with pytest.raises(MetaRLError, match=r"set agent\.rewards to gaussian"):
        play(strategy("Thompson", family.spec), family, tasks, 2)
    with pytest.raises(MetaRLError, match="rewards"):
        strategy("Gittins", family.spec, rewards="gaussian")
    ragged = Ragged()
    with pytest.raises(MetaRLError, match="not one-hot states"):
        play(strategy("PSRL", ragged.spec), ragged, ragged.tasks("test", 3, Rng(0)), 1)


@pytest.mark.parametrize(("name", "rule", "options"), PLAYERS)
def test_a_recorded_episode_counts_like_one_that_was_lived_through(
    name: str, rule: str, options: dict[str, Any]
) -> None:
    """In as many lanes, or in one where they follow one another; and the next episode begins a new
    plan.
    """
    family = make_family(name)
    agent, tasks = strategy(rule, family.spec, **options), family.tasks("test", 4, Rng(0))
    begun = agent.begin(task_info(agent, agent.spec, tasks, 2), 3)
    rollout, lived = collect(agent, family.make(3), family.spec, begun, tasks, 2, Rng(1))
    replayed = agent.replay(begun, rollout)
    assert same(replayed.row, agent.adapt(lived, rollout).row)
    assert same(replayed.cue, lived.cue)
    single = agent.replay(agent.begin(task_info(agent, agent.spec, tasks, 2), 1), rollout)
    counts = [
        [x.float() for x in tree_leaves(belief.row) if isinstance(x, Tensor)]
        for belief in (single, replayed)
    ]
    torch.testing.assert_close(counts[0], counts[1])
    assert same(single.cue, lived.cue[:, -1:])
    later, _ = collect(agent, family.make(1), family.spec, single, tasks, 1, Rng(2))
    assert later.inputs.cue[0, ..., -1].eq(1).all()  # type: ignore[union-attr]
