"""RL² must learn, and a broken RL² must not: the vault tells them apart by calculation (see its docstring)."""

from __future__ import annotations

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
