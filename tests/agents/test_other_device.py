"""Every agent learns and acts on another device as on the CPU: the same draws, the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import CPU
from other_device import OTHER, OtherDevice
from torch import Tensor
from torch.utils._pytree import tree_map_only

from metarl.agents.learning_agent import LearningAgent
from metarl.collect.world import LocalWorld
from metarl.core.rng import Rng
from metarl.core.types import replace
from metarl.evaluation.meta_test import evaluate
from metarl.evaluation.session import Session
from metarl.experiments.building import make_agent, make_family

TASKS, EPISODES = 3, 4
POINT = {"name": "point", "horizon": 4}
BANDIT: dict[str, Any] = {"name": "bernoulli-bandit"}
MDP: dict[str, Any] = {"name": "tabular-mdp", "horizon": 4}

PPO = {"trials": 4, "minibatches": 2, "epochs": 2, "normalize_obs": True}
MEMORY = PPO | {"memory_width": 6, "normalize_reward": True}
KEYED = MEMORY | {"normalize_obs": False}
MAML = {"tasks": 2, "episodes_per_task": 2, "hidden_sizes": (6,), "cg_iterations": 3}
SAC = {
    "hidden_sizes": (6,),
    "encoder_sizes": (5,),
    "tasks": 2,
    "updates": 3,
    "meta_batch_size": 2,
    "batch_size": 6,
    "context_size": 5,
    "initial_episodes": 1,
    "capacity": 40,
    "learn_temperature": True,
}
VARIBAD = MEMORY | {"latent_width": 2, "novelty_coef": 0.1, "hidden_sizes": (6,)}
TAUGHT = MEMORY | {"teacher": "random"}

RUNS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "rl2, gru": ("rl2", MEMORY, POINT),
    "rl2, lstm": ("rl2", MEMORY | {"memory": "lstm"}, POINT),
    "rl2, keyed": ("rl2", KEYED | {"memory": "keyed"}, MDP),
    "rl2, gru+keyed": ("rl2", KEYED | {"memory": "gru+keyed"}, MDP),
    "rl2, slots": ("rl2", KEYED | {"memory": "slots"}, BANDIT),
    "rl2, set": ("rl2", MEMORY | {"memory": "set"}, BANDIT),
    "rl2, transformer": (
        "rl2",
        MEMORY | {"memory": "transformer", "memory_width": 8, "attention_heads": 2},
        POINT,
    ),
    "ppo": ("ppo", PPO, POINT),
    "dac": ("dac", PPO | {"options": 2}, POINT),
    "maml": ("maml", MAML, POINT),
    "promp": ("promp", MAML, POINT),
    "meta-sgd": ("meta-sgd", MAML, POINT),
    "reptile": ("reptile", MAML, POINT),
    "famp": ("famp", MAML | {"options": 2}, POINT),
    "mlsh": ("mlsh", MAML, POINT),
    "pearl": ("pearl", SAC | {"latent_width": 2}, POINT),
    "pearl, prefixes": (
        "pearl",
        SAC | {"latent_width": 2, "context_sampling": "prefixes", "context_dropout": 0.5},
        POINT,
    ),
    "pearl, outcomes": ("pearl", SAC | {"latent_width": 2, "teacher": "outcomes"}, POINT),
    "sac": ("sac", SAC | {"task_input": "goal"}, POINT),
    "mtsac": ("mtsac", SAC, POINT),
    "distill": ("distill", TAUGHT, POINT),
    "dpt": ("dpt", TAUGHT, POINT),
    "dagger": ("dagger", TAUGHT, POINT),
    "varibad": ("varibad", VARIBAD, POINT),
    "four-rooms": ("ppo", PPO, {"name": "four-rooms", "horizon": 6}),
    "taxi": ("ppo", PPO, {"name": "taxi", "horizon": 6}),
    "half-cheetah-vel": ("ppo", PPO, {"name": "half-cheetah-vel", "horizon": 4}),
}

WAITLESS = (
    "rl2, gru",
    "rl2, keyed",
    "rl2, slots",
    "rl2, set",
    "dac",
    "maml",
    "famp",
    "pearl",
    "varibad",
    "four-rooms",
    "taxi",
)
"""Ways to act, but for a transformer, which waits for the age of its cache, and in a simulator."""


def world_of(name: str, device: torch.device) -> tuple[LearningAgent, LocalWorld]:
    """An agent, and what it is trained on."""
    agent_name, options, given = RUNS[name]
    family = make_family(**given)
    spec = replace(family.spec, task_width=TASKS) if agent_name == "mtsac" else family.spec
    agent = make_agent(agent_name, spec, 1, device, **options)
    assert isinstance(agent, LearningAgent)
    tasks = replace(family.tasks("train", TASKS, Rng(3)), index=torch.arange(TASKS), copy=None)
    return agent, LocalWorld(family, EPISODES, tasks, device)


def life(name: str, device: torch.device) -> dict[str, Any]:
    """Two iterations, the state after them, an evaluation, and the actions of a session."""
    agent, world = world_of(name, device)
    family, known = world.family, world.train_set
    logged = [agent.iterate(world, Rng(4).child(i)) for i in range(2)]
    fixed = {"train_set": known, "split": "train"} if agent.task_input == "onehot" else {}
    scores = evaluate(agent, family, episodes=EPISODES, tasks=TASKS, **fixed)

    shown = world.task_info(agent, known).shown
    task = None if shown is None else shown[0].cpu().numpy()
    session = Session(agent, family.spec, task=task)
    actions = []
    length = min(3, family.spec.horizon)
    for step in range(length * agent.lanes):
        obs = np.ones(family.spec.obs_width, np.float32)
        actions.append(session.act(obs))
        session.observe(1.0, obs, terminated=step % length == length - 1, truncated=False)
    state = tree_map_only(Tensor, Tensor.cpu, agent.state_dict())
    return {"logged": logged, "state": state, "scores": scores.returns, "actions": actions}


@pytest.mark.parametrize("name", RUNS)
def test_an_agent_learns_and_acts_there_as_here(name: str) -> None:
    expected = life(name, CPU)
    with OtherDevice() as device:
        found = life(name, OTHER)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not device.unordered


@pytest.mark.parametrize("name", WAITLESS)
def test_collecting_there_does_not_wait_for_every_step(name: str) -> None:
    waits, lengths = [], []
    with OtherDevice() as device:
        agent, world = world_of(name, OTHER)
        for episodes in (4, 12):
            belief = agent.begin(world.task_info(agent, world.train_set), agent.lanes)
            device.waits.clear()
            rollout, _ = world.collect(agent, belief, world.train_set, episodes, Rng(5))
            waits.append(device.waits.total())
            lengths.append(len(rollout.valid))
    looks = -(-(lengths[1] - lengths[0]) // 16)
    assert waits[1] - waits[0] <= 2 * looks + 2  # at the actions, and for lanes that go on
