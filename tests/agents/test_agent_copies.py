"""Copies of every registered agent act and learn like the original: by pickle in another process,
by `copy.deepcopy`, and by the state that acting needs.
"""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import CPU, same

from metarl.agents.learning_agent import LearningAgent
from metarl.collect.collector import collect
from metarl.collect.world import LocalWorld
from metarl.config.registry import names
from metarl.config.schema import parse
from metarl.core.agent import Agent, Mode
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import replace
from metarl.experiments.building import make_agent, make_family
from metarl.experiments.runs import train

POINT = {"name": "point", "horizon": 4}
BANDIT: dict[str, Any] = {"name": "bernoulli-bandit"}
MDP: dict[str, Any] = {"name": "tabular-mdp", "horizon": 4}
EPISODES, TASKS = 4, 3

BY_PPO = {"trials": 4, "minibatches": 2, "epochs": 2, "normalize_obs": True}
MEMORY = {"memory_width": 6, "normalize_reward": True}
BY_STEPS = {"tasks": 2, "episodes_per_task": 2, "hidden_sizes": (6,), "cg_iterations": 3}
BY_SAC = {
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
LEARNERS: dict[str, dict[str, Any]] = {
    "rl2": BY_PPO | MEMORY,
    "ppo": BY_PPO,
    "dac": BY_PPO | {"options": 2},
    "maml": BY_STEPS,
    "fomaml": BY_STEPS,
    "e-maml": BY_STEPS,
    "promp": BY_STEPS,
    "meta-sgd": BY_STEPS,
    "reptile": BY_STEPS,
    "famp": BY_STEPS | {"options": 2},
    "mlsh": BY_STEPS,
    "pearl": BY_SAC | {"latent_width": 2},
    "sac": BY_SAC | {"task_input": "goal"},
    "mtsac": BY_SAC,
    **dict.fromkeys(
        ("distill", "ad", "dpt", "dagger"), MEMORY | {"teacher": "random", "trials": 4}
    ),
    "varibad": BY_PPO | MEMORY | {"latent_width": 2, "novelty_coef": 0.1, "hidden_sizes": (6,)},
    "sb3": {
        "algorithm": "sac",
        "tasks": 2,
        "iteration_steps": 24,
        "arguments": {
            "buffer_size": 100,
            "learning_starts": 10,
            "batch_size": 8,
            "policy_kwargs": {"net_arch": [6]},
        },
    },
}
BANDIT_RULES = ("greedy", "epsilon-greedy", "thompson", "ucb1", "gittins", "best-arm")
MDP_RULES = ("psrl", "opsrl", "beb", "certainty-equivalence", "value-iteration")
OPTIONS = ("options of rl2", "options of maml", "options of my own")
AGENTS = [*names("agent"), *OPTIONS]


def family_of(name: str) -> dict[str, Any]:
    """A family that suits the agent."""
    if name in BANDIT_RULES:
        return BANDIT
    return MDP if name in MDP_RULES else POINT


def make(name: str, seed: int, folder: Path) -> Agent:
    """An agent, its weights so large that what it does depends on them."""
    given = family_of(name)
    spec = make_family(**given).spec
    if name == "mtsac":
        spec = replace(spec, task_width=TASKS)
    if name not in OPTIONS:
        agent = make_agent(name, spec, seed, **LEARNERS.get(name, {}))
    elif name == "options of my own":
        mine = ["signpost:Right", "signpost:Left"]
        agent = make_agent("rl2", spec, seed, **MEMORY, trials=4, pretrained_options=mine)
    else:
        runs = [str(folder / name), "signpost:Right"]
        agent = make_agent("maml", spec, seed, **BY_STEPS, pretrained_options=runs)
    generator = torch.Generator().manual_seed(seed)
    for value in getattr(agent, "params", {}).values():
        value.data += 0.3 * torch.randn(value.shape, generator=generator)
    return agent


def make_runs(folder: Path) -> None:
    """Runs whose policies are options for others."""
    agents = {
        OPTIONS[0]: {"name": "ppo", **BY_PPO, "options": 2, "sub_hidden_sizes": [5]},
        OPTIONS[1]: {"name": "maml", **BY_STEPS},
    }
    for name, agent in agents.items():
        config = {"agent": agent, "family": POINT, "episodes": EPISODES, "iterations": 1}
        train(parse(config | {"validation_tasks": 2, "test_tasks": 2}), folder / name, quiet=True)


# -------------------------------------------------------------------------------------------------
# What may not differ


def world_of(name: str) -> LocalWorld:
    family = make_family(**family_of(name))
    tasks = family.tasks("train", TASKS, Rng(3))
    return LocalWorld(family, EPISODES, replace(tasks, index=torch.arange(TASKS), copy=None), CPU)


def lives(name: str, agent: Agent) -> list[Rollout]:
    """What it does on three tasks, adapting in between: by chance, and at its best."""
    world = world_of(name)
    family, tasks = world.family, world.train_set
    info = world.task_info(agent, tasks)
    rollouts = []
    modes: tuple[Mode, ...] = ("sample", "greedy")
    for mode in modes:
        belief = agent.begin(info, agent.lanes)
        env = family.make(agent.lanes)
        for k in range(2):
            rollout, belief = collect(
                agent, env, family.spec, belief, tasks, 1, Rng(2).child(k), mode
            )
            belief = agent.adapt(belief, rollout)
            rollouts.append(rollout)
    return rollouts


def learns(name: str, agent: Agent, iterations: range) -> list[dict[str, float]]:
    """Trained on; each time in a world of its own."""
    if not isinstance(agent, LearningAgent):
        return []
    world = world_of(name)
    logged = []
    for i in iterations:
        world.progress = i / 10
        logged.append(agent.iterate(world, Rng(4).child(i)))
    return logged


def goes_on(name: str, agent: Agent) -> tuple[Any, ...]:
    """How it acts, two more iterations, all that it is after them, and how it acts then."""
    before = [vars(rollout) for rollout in lives(name, agent)]
    logged = learns(name, agent, range(1, 3))
    return before, logged, agent.state_dict(), [vars(rollout) for rollout in lives(name, agent)]


# -------------------------------------------------------------------------------------------------
# Another process


def other_process(folder: Path) -> None:
    """What the other process does: see `elsewhere`."""
    torch.set_num_threads(1)
    continued = {}
    started = {}
    acting = torch.load(folder / "acting.pt", weights_only=True)
    for name in AGENTS:
        agent = pickle.loads((folder / f"{name}.pkl").read_bytes())
        continued[name] = plain(goes_on(name, agent))
        fresh = make(name, 1, folder)
        other = plain([vars(rollout) for rollout in lives(name, fresh)])
        fresh.warm_start(acting[name])
        alike = plain([vars(rollout) for rollout in lives(name, fresh)])
        started[name] = (other, alike, learns(name, fresh, range(1)))
    torch.save((continued, started), folder / "done.pt")


def plain(value: Any) -> Any:
    """Dataclasses as dicts, so that the file holds nothing but numbers."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return plain(vars(value)) if hasattr(value, "__dataclass_fields__") else value


@dataclass
class Elsewhere:
    """The originals, trained for one iteration, and what became of their copies."""

    agents: dict[str, Agent]
    states: dict[str, Any]  # of the originals before they were copied
    acting: dict[str, Any]
    continued: dict[str, Any]
    started: dict[str, Any]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    """Every agent continued from its pickle, and one of another seed that takes its acting state,
    both in another process.
    """
    folder = tmp_path_factory.mktemp("copies")
    make_runs(folder)
    agents = {name: make(name, 0, folder) for name in AGENTS}
    for name, agent in agents.items():
        learns(name, agent, range(1))
    states = {name: copy.deepcopy(agent.state_dict()) for name, agent in agents.items()}
    acting = {name: agent.acting_state() for name, agent in agents.items()}
    for name, agent in agents.items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(agent))
    torch.save(acting, folder / "acting.pt")
    work = (
        "import pathlib, test_agent_copies\n"
        f"test_agent_copies.other_process(pathlib.Path({str(folder)!r}))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", work],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    continued, started = torch.load(folder / "done.pt", weights_only=True)
    return Elsewhere(agents, states, acting, continued, started)


def test_every_agent_is_here() -> None:
    assert {*LEARNERS, *BANDIT_RULES, *MDP_RULES, "random"} == set(names("agent"))


@pytest.mark.parametrize("name", AGENTS)
def test_agent_copies_act_and_learn_alike_and_leave_the_original_as_it_is(
    name: str, elsewhere: Elsewhere
) -> None:
    """Bit for bit: a copy in another process, a deep copy, and then the original itself."""
    agent = elsewhere.agents[name]
    twin = copy.deepcopy(agent)
    deep = goes_on(name, twin)
    assert same(agent.state_dict(), elsewhere.states[name])
    own = goes_on(name, agent)
    assert same(deep, own)
    assert same(elsewhere.continued[name], plain(own))
    if isinstance(agent, LearningAgent):
        assert len(own[1]) == 2
        assert not same(own[2], elsewhere.states[name])
        assert not same(plain(own[0]), plain(own[3]))


def keys(tree: Any) -> set[str]:
    """All keys of nested dicts."""
    if isinstance(tree, (list, tuple)):
        return set().union(*map(keys, tree))
    if not isinstance(tree, dict):
        return set()
    return {str(key) for key in tree} | set().union(*map(keys, tree.values()))


@pytest.mark.parametrize("name", AGENTS)
def test_what_acting_needs_is_little_and_enough(name: str, elsewhere: Elsewhere) -> None:
    """An agent of another seed that takes it over acts alike, in another process, and then learns
    as if it had never been trained.
    """
    state, acting = elsewhere.states[name], elsewhere.acting[name]
    assert set(acting) <= {"params", "moments", "belief"}
    assert not any(
        word in key for key in keys(acting) for word in ("optimi", "replay", "rows", "exp_avg")
    )
    assert same(acting, {key: state[key] for key in acting})
    other, alike, logged = elsewhere.started[name]
    assert same(alike, elsewhere.continued[name][0])
    if name in LEARNERS or name in OPTIONS:
        assert acting["params"]
        assert not same(other, alike)
        assert len(logged) == 1


@pytest.mark.parametrize("name", [*LEARNERS, *OPTIONS])
def test_an_acting_state_is_a_copy(name: str, elsewhere: Elsewhere) -> None:
    """Training goes on, and it stays what it was."""
    agent = copy.deepcopy(elsewhere.agents[name])
    acting = agent.acting_state()
    kept = copy.deepcopy(acting)
    learns(name, agent, range(5, 6))
    assert same(acting, kept)
    assert not same(agent.acting_state(), kept)
