"""What must learn, and what must not when it is broken: families that tell them apart by calculation.

RL² meets the vault (see its docstring), MAML goals in the plane that nothing but an adaptation can tell it of.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from helpers import CPU

from metarl.agents import rl2
from metarl.config import parse
from metarl.evaluation import evaluate
from metarl.rng import Rng
from metarl.rollout import TrainingWorld
from metarl.run import build
from metarl.training import learn
from metarl.types import replace

CONFIG = parse(
    {
        "agent": {"name": "rl2", "memory_width": 32, "trials": 500, "trace": [0.5, 0.98], "learning_rate": [8e-3, 0.0]},
        "family": f"{Path(__file__).parent / 'families' / 'vault.py'}:Vault",
        "episodes": 20,
        "env_steps": 1_500_000,
    }
)
FORGETFUL = 4.0  # the most that a policy of the last pull alone can earn
EXPLORING = 7.8  # what trying the arms in turn earns

pytestmark = pytest.mark.learning


def trained_score(change=lambda agent: None):
    family, agent = build(CONFIG)
    change(agent)
    world = TrainingWorld(family, CONFIG.episodes, None, CPU)
    for _ in learn(agent, world, Rng(0), env_steps=CONFIG.env_steps):
        pass
    return evaluate(agent, family, episodes=CONFIG.episodes, tasks=4000).totals.mean()


def test_rl2_explores_hears_and_remembers():
    assert trained_score() > EXPLORING - 0.5


def test_without_memory_between_episodes_it_fails():
    def forget(agent):
        """A feed-forward policy of the same width: a memory that is zero at the start of every one-step episode."""
        agent.policy = replace(agent.policy, memory="none", body=(agent.policy.memory_width,))
        agent._optimise(agent.policy.init(torch.Generator().manual_seed(0)))

    assert trained_score(forget) < FORGETFUL + 0.2


def test_without_the_cue_it_fails():
    def deafen(agent):
        agent._scaled = lambda inputs: replace(inputs, cue=torch.zeros_like(inputs.cue))

    assert trained_score(deafen) < FORGETFUL + 0.2


def test_with_credit_cut_at_episode_ends_it_fails(monkeypatch):
    gae = rl2.gae

    def cut_at_every_episode(reward, value, next_value, cut, discount, trace):
        return gae(reward, value, torch.zeros_like(next_value), torch.ones_like(cut), discount, trace)

    monkeypatch.setattr(rl2, "gae", cut_at_every_episode)
    assert trained_score() < FORGETFUL + 0.2


# ---------------------------------------------------------------------------------------------------------------------
# MAML

NAVIGATION = {
    "agent": {"name": "maml", "body": [32, 32], "step_sizes": [0.5]},
    "family": {"name": "point", "horizon": 10, "arrival": 0},
    "episodes": 40,
    "env_steps": 320_000,
}
BLIND = -10 * (math.sqrt(2) + math.log(1 + math.sqrt(2))) / 6
"""The most that a policy can earn which does not know the goal: it stays in the middle, at the mean distance of goals that
are uniform on a square of side 1, for ten steps. Who knows the goal earns −0.5."""


def navigated(change=lambda agent: None, **options):
    """Return of an episode before and after one step on twenty, on unseen goals."""
    config = parse({**NAVIGATION, "agent": {**NAVIGATION["agent"], **options}})
    family, agent = build(config)
    change(agent)
    world = TrainingWorld(family, config.episodes, None, CPU)
    for _ in learn(agent, world, Rng(0), env_steps=config.env_steps):
        pass
    return evaluate(agent, family, episodes=config.episodes).returns.mean((0, 2))


@pytest.mark.parametrize("variant", ["maml", "fomaml", "e-maml", "promp", "meta-sgd"])
def test_one_step_of_maml_finds_the_goal(variant):
    before, after = navigated(variant=variant)
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
