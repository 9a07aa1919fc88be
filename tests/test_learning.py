"""RL² must learn, and a broken RL² must not: the 5-armed bandit with 10 pulls tells them apart.

The Bayes optimum is 6.660. Who never explores (credit cut at the end of every pull) reaches at most greedy's 6.56; who
forgets or hears nothing of the last pull stays below that.
"""

from __future__ import annotations

import pytest
import torch

from metarl.agents import rl2
from metarl.config import load_config
from metarl.evaluation import evaluate
from metarl.rng import Rng
from metarl.rollout import TrainingWorld
from metarl.training import build, learn
from metarl.types import replace

THRESHOLD = 6.61  # between greedy's 6.56 ± .01 and the optimum; the standard error of a score is .01

pytestmark = pytest.mark.learning


def trained_score(change=lambda agent: None):
    config = load_config("rl2/bernoulli-bandit-k5-n10")
    family, agent = build(config)
    change(agent)
    world = TrainingWorld(family, config.episodes, None, torch.device("cpu"))
    for _ in learn(agent, world, Rng(0), env_steps=config.env_steps):
        pass
    return evaluate(agent, family, episodes=config.episodes, tasks=20_000).totals.mean()


def test_rl2_explores_and_remembers():
    assert trained_score() >= THRESHOLD


def test_without_memory_between_episodes_it_fails():
    def forget(agent):
        """A feed-forward policy of the same width: a memory that is zero at the start of every one-step episode."""
        agent.policy = replace(agent.policy, memory="none", body=(agent.policy.memory_width,))
        agent._optimise(agent.policy.init(torch.Generator().manual_seed(0)))

    assert trained_score(forget) < THRESHOLD


def test_without_the_cue_it_fails():
    def deafen(agent):
        agent._scaled = lambda inputs: replace(inputs, cue=torch.zeros_like(inputs.cue))

    assert trained_score(deafen) < THRESHOLD


def test_with_credit_cut_at_episode_ends_it_fails(monkeypatch):
    gae = rl2.gae

    def cut_at_every_episode(reward, value, next_value, cut, discount, trace):
        return gae(reward, value, torch.zeros_like(next_value), torch.ones_like(cut), discount, trace)

    monkeypatch.setattr(rl2, "gae", cut_at_every_episode)
    assert trained_score() < THRESHOLD
