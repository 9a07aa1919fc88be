"""What must learn, and what must not when it is broken: families with a known border between both.

RL² meets the vault (see its docstring), MAML and PEARL goals in the plane that only adaptation can
find, a master of options the goals that they lead to, and agents that are shown the task a maze and
a grid.
"""

from __future__ import annotations

import math

import pytest
import torch
from helpers import CPU, FILES, Affine

from metarl.agents.pearl.config import PEARLConfig
from metarl.agents.pearl.teacher import TaskTeacher, standardized
from metarl.algorithms import ppo
from metarl.collect.world import LocalWorld
from metarl.config.files import load_config
from metarl.config.schema import parse
from metarl.core.protocol import EvalProtocol
from metarl.core.rng import Rng
from metarl.core.types import replace
from metarl.evaluation.beliefs import compare_beliefs
from metarl.evaluation.meta_test import evaluate
from metarl.experiments.building import build, make_family, train_set
from metarl.experiments.loop import learn
from metarl.nn.gaussian_product import Posterior
from metarl.nn.mlp import part

CONFIG = parse(
    {
        "agent": {
            "name": "rl2",
            "memory_width": 32,
            "trials": 500,
            "gae_lambda": [0.5, 0.98],
            "learning_rate": [8e-3, 0.0],
        },
        "family": f"{FILES / 'vault.py'}:Vault",
        "episodes": 20,
        "env_steps": 1_500_000,
    }
)
FORGETFUL = 4.0  # the most that a policy of the last pull alone can earn
EXPLORING = 7.8  # what trying the arms in turn earns

pytestmark = pytest.mark.learning


def trained(config, change=lambda agent: None):
    """The family, and the agent after all its training."""
    family, agent = build(config)
    change(agent)
    world = LocalWorld(family, config.episodes, train_set(config, family), CPU)
    for _ in learn(agent, world, Rng(0), env_steps=config.env_steps, iterations=config.iterations):
        pass
    return family, agent


def trained_score(change=lambda agent: None):
    family, agent = trained(CONFIG, change)
    return evaluate(agent, family, episodes=CONFIG.episodes, tasks=4000).totals.mean()


def test_rl2_explores_hears_and_remembers():
    assert trained_score() > EXPLORING - 0.5


def test_without_memory_between_episodes_it_fails():
    def forget(agent):
        """A feed-forward policy of the same width: a memory that is zero at the start of every
        one-step episode."""
        agent.policy = agent.ppo.policy = replace(
            agent.policy, memory="none", hidden_sizes=(agent.policy.memory_width,)
        )
        agent.ppo.set_params(agent.policy.init(torch.Generator().manual_seed(0)))

    assert trained_score(forget) < FORGETFUL + 0.2


def test_without_the_cue_it_fails():
    def deafen(agent):
        agent.ppo.normalize = lambda inputs: replace(inputs, cue=torch.zeros_like(inputs.cue))

    assert trained_score(deafen) < FORGETFUL + 0.2


def test_with_credit_cut_at_episode_ends_it_fails(monkeypatch):
    gae = ppo.gae

    def cut_at_every_episode(reward, value, next_value, cut, gamma, gae_lambda):
        return gae(
            reward, value, torch.zeros_like(next_value), torch.ones_like(cut), gamma, gae_lambda
        )

    monkeypatch.setattr(ppo, "gae", cut_at_every_episode)
    assert trained_score() < FORGETFUL + 0.2


# -------------------------------------------------------------------------------------------------
# MAML

NAVIGATION = {
    "agent": {"name": "maml", "hidden_sizes": [32, 32], "step_sizes": [0.5]},
    "family": {"name": "point", "horizon": 10, "arrival": 0},
    "episodes": 40,
    "env_steps": 320_000,
}
FROM_THE_MIDDLE = (math.sqrt(2) + math.log(1 + math.sqrt(2))) / 6
"""Mean distance of points of a square of side 1 from its middle."""
BLIND = -10 * FROM_THE_MIDDLE
"""The largest return of a policy that does not know the goal: it stays in the middle for ten steps,
at the mean distance of goals that are uniform on a square of side 1. An oracle reaches −0.5."""


def navigated(change=lambda agent: None, **options):
    """Return of an episode before and after one step on twenty, on unseen goals."""
    config = parse({**NAVIGATION, "agent": {**NAVIGATION["agent"], **options}})
    family, agent = trained(config, change)
    return evaluate(agent, family, episodes=config.episodes).returns.mean((0, 2))


@pytest.mark.parametrize(
    "preset",
    [
        "maml",
        "promp",
        pytest.param("fomaml", marks=pytest.mark.long),
        pytest.param("e-maml", marks=pytest.mark.long),
        pytest.param("meta-sgd", marks=pytest.mark.long),
    ],
)
def test_one_step_of_maml_finds_the_goal(preset):
    before, after = navigated(preset=preset)
    assert before < BLIND + 0.2
    assert after > -2.2


def test_without_its_step_it_knows_no_goal():
    def stay(agent):
        agent.adapt = lambda belief, rollout: belief

    _, after = navigated(stay)
    assert after < BLIND + 0.2


def test_a_step_from_pretrained_parameters_finds_none():
    """Trained on as many environment steps to be the best one policy for all goals, which it is."""
    before, after = navigated(inner_steps=0)
    assert before == pytest.approx(BLIND, abs=0.2)
    assert after < BLIND + 0.2


# -------------------------------------------------------------------------------------------------
# Options

ORACLE = 43.82
"""Steps of fifty on the goal, of who knows which of the two it is and walks straight to it."""
UNDECIDED = ORACLE / 2
"""The most of who does not know it."""


def test_a_fresh_master_finds_which_sub_policy_leads_to_the_goal():
    """Both ways are common knowledge by now; the master begins as it began before any training."""
    family, agent = trained(load_config("maml/movement-bandits", ["iterations=75"]))
    returns = evaluate(agent, family, episodes=250, tasks=40).returns.mean((0, 2))
    assert returns[0] < UNDECIDED + 2
    assert returns[-1] > 0.9 * ORACLE


# -------------------------------------------------------------------------------------------------
# PEARL


def inferred(change=lambda agent: None):
    """Return of the first to fourth episode on unseen goals and from any start, the first of them
    explored."""
    family, agent = trained(load_config("pearl/point-short", ["iterations=4"]), change)
    return evaluate(agent, family, episodes=4, mode="greedy").returns.mean((0, 2))


MIDDLE = -20 * 2 * FROM_THE_MIDDLE
"""The most that a policy can earn which does not know the goal, on a square of side 2 and if it
starts in the middle."""


def test_pearl_infers_the_goal():
    explored, *known = inferred()
    assert explored < MIDDLE
    assert known == sorted(known)
    assert known[-1] > -12


def test_pearl_infers_nothing_where_no_reward_is_in_the_context():
    def blind(agent):
        factors = agent._factors
        agent._factors = lambda obs, action, reward, next_obs: factors(
            obs, action, 0 * reward, next_obs
        )

    assert inferred(blind).max() < MIDDLE


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_the_teacher_does_not_tear_the_half_circle(seed: int):
    """Goals side by side have z side by side, or contexts that confuse them could not say so.

    With a scale for each entry of the goal more than half of all seeds tear it, these among them.
    """
    family = make_family("sparse-point")
    config = PEARLConfig(latent_width=1, teacher="task")
    teacher = TaskTeacher(config, family.spec)
    params = teacher.init(Rng(seed))
    for x in params.values():
        x.requires_grad_()
    networks = {name: part(params, name) for name in ("teacher", "decoder")}
    goals = family.tasks("train", 80, Rng(0)).params
    rows = standardized(goals[torch.atan2(goals[:, 1], goals[:, 0]).argsort()], 2)
    known = Posterior.prior(80, 1, device=CPU, precision=1.0)
    optimizer = torch.optim.Adam(params.values(), lr=3e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(1000):
        normal = torch.randn(80, 1, generator=generator)
        loss = teacher.lesson(networks, known, normal, batch=None, rows=rows).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    z = teacher.posterior(networks["teacher"], rows).mean.squeeze(1)
    steps = z.diff() * (z[-1] - z[0]).sign()
    assert (steps > 0).all()


# -------------------------------------------------------------------------------------------------
# VariBAD


def test_varibads_belief_comes_close_to_that_of_bayes():
    """On unseen bandits; and what it believes of another one is wrong of this one."""
    config = load_config("varibad/bernoulli-bandit", ["env_steps=500_000"])
    family, agent = trained(config)
    protocol = EvalProtocol(episodes=config.episodes, tasks=500)
    nats = compare_beliefs(agent, family, protocol, times=(0, 20, 100)).reward
    start, early, late = nats["agent"].mean(1)
    assert start < 0.01
    assert early < 0.25 * nats["prior"][1].mean()
    assert late < 0.25 * nats["prior"][2].mean()
    assert nats["another task's"][2].mean() > 1.5 * nats["prior"][2].mean()


# -------------------------------------------------------------------------------------------------
# Tasks in sight


def arrived(**options):
    """Share of unseen goals in a maze that are reached."""
    family, agent = trained(
        load_config(
            "pearl/goal-maze", ["iterations=40", *(f"agent.{k}={v}" for k, v in options.items())]
        )
    )
    return evaluate(agent, family, episodes=1, mode="greedy").success.mean()


def test_hindsight_reaches_the_end_of_the_maze():
    assert arrived() > 0.9


def test_without_hindsight_its_second_half_stays_unknown():
    assert arrived(hindsight=0) < 0.75


def test_soft_actor_critic_of_discrete_actions_reaches_the_optimum():
    config = parse(
        {
            "agent": {
                "name": "pearl",
                "preset": "sac",
                "task_input": "row",
                "hidden_sizes": [64, 64],
                "tasks": 30,
                "initial_episodes": 5,
                "prior_episodes": 1,
                "updates": 150,
                "meta_batch_size": 20,
                "batch_size": 12,
                "learning_rate": 1e-3,
                "gamma": 0.9,
                "tau": 0.02,
                "reward_scale": 1.0,
                "temperature": 0.02,
            },
            "family": "gridnavi",
            "train_tasks": 21,
            "episodes": 1,
            "iterations": 16,
        }
    )
    family, agent = trained(config)
    scores = evaluate(agent, family, episodes=1, mode="greedy")
    assert scores.returns.mean() == pytest.approx(scores.optimum.mean(), abs=0.3)


def test_a_reward_that_never_changes_leaves_the_memory_useful(tmp_path):
    """A cart on a pole pays 1 a step: divided by its deviation, the reward in the cue would drown
    everything else."""
    file = FILES / "cart.py"
    chosen = {
        "agent": {
            "name": "rl2",
            "memory_width": 32,
            "trials": 20,
            "minibatches": 4,
            "normalize_reward": True,
            "normalize_obs": True,
            "gae_lambda": 0.95,
            "learning_rate": 3e-3,
            "entropy_coef": 0.01,
        },
        "family": f"{file}:Cart",
        "episodes": 1,
        "iterations": 40,
    }
    family, agent = trained(parse(chosen))
    assert evaluate(agent, family, episodes=1, tasks=100, split="validation").totals.mean() > 150


@pytest.mark.parametrize(
    ("factor", "shift"),
    [
        (1.0, 0.0),
        (1e6, 0.0),
        (1.0, 100.0),
        pytest.param(1e-6, 0.0, marks=pytest.mark.long),
        pytest.param(1e25, 0.0, marks=pytest.mark.long),
        pytest.param(1.0, -100.0, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_a_bandit_is_learned_in_whatever_units_it_pays(factor: float, shift: float):
    """Random pulls earn 5.0 of 10, the best arm 7.5: neither a millionth nor a shift of a hundred
    deviations changes what can be learned.
    """
    chosen = {
        "agent": {
            "name": "rl2",
            "memory_width": 32,
            "trials": 200,
            "minibatches": 4,
            "learning_rate": 5e-3,
            "gae_lambda": 0.9,
            "entropy_coef": 0.01,
            "normalize_reward": True,
        },
        "family": {"name": "bernoulli-bandit", "arms": 3},
        "episodes": 10,
        "iterations": 60,
    }
    config = parse(chosen)
    bandit, agent = build(config)
    family = Affine(bandit, factor, shift)
    world = LocalWorld(family, 10, None, CPU)
    for _ in learn(agent, world, Rng(0), iterations=config.iterations):
        pass
    returns = evaluate(agent, family, episodes=10, tasks=2000).totals.mean()
    assert (returns / factor - 10 * shift / factor) > 5.7


@pytest.mark.parametrize("memory", ["slots", pytest.param("keyed", marks=pytest.mark.long)])
def test_what_is_looked_up_is_found(memory: str):
    """On random MDPs a GRU that looks nothing up ends near 125, and the paper's RL² at 156.2."""
    config = load_config(f"rl2/tabular-mdp-{memory}", ["env_steps=500_000"])
    family, agent = trained(config)
    scores = evaluate(agent, family, episodes=config.episodes, tasks=2000)
    assert scores.totals.mean() > 152
