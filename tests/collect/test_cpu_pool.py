"""An agent on another device leaves its episodes in a simulator to a copy on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from helpers import CPU, FILES
from other_device import OTHER, OtherDevice
from torch import Tensor
from torch.utils._pytree import tree_map_only

from metarl.agents.learning_agent import LearningAgent
from metarl.collect.cpu_pool import CPUPool
from metarl.collect.pool import LocalPool, Worker
from metarl.collect.world import LocalWorld
from metarl.config.schema import Config, parse
from metarl.core.rng import Rng
from metarl.core.types import replace
from metarl.evaluation.meta_test import evaluate
from metarl.experiments.building import family_of, make_agent
from metarl.experiments.workers import LocalWorkers

TASKS = 3
SHORT = {"trials": TASKS, "minibatches": 2, "epochs": 1, "memory_width": 6}
CHEETAH = {"name": "half-cheetah-vel", "horizon": 4}

RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rl2": ({"name": "rl2", "normalize_obs": True, **SHORT}, CHEETAH),
    "varibad": ({"name": "varibad", "latent_width": 2, "hidden_sizes": [6], **SHORT}, CHEETAH),
    "maml, whose beliefs hold parameters": (
        {"name": "maml", "tasks": 2, "episodes_per_task": 2, "hidden_sizes": [6]},
        CHEETAH,
    ),
    "pearl": (
        {
            "name": "pearl",
            "tasks": 2,
            "updates": 2,
            "meta_batch_size": 2,
            "batch_size": 6,
            "hidden_sizes": [6],
            "initial_episodes": 1,
        },
        CHEETAH,
    ),
    "a Gymnasium family": (
        {"name": "rl2", **SHORT},
        {"name": f"{FILES / 'pendulum.py'}:Gravity"},
    ),
}


def config_of(name: str, **changes: Any) -> Config:
    agent, family = RUNS[name]
    tree = {"agent": agent, "family": family, "episodes": 2, "iterations": 1, "device": "cuda"}
    return parse(tree | {"train_tasks": TASKS} | changes)


def world_of(name: str, device: torch.device) -> tuple[LearningAgent, LocalWorld]:
    """An agent on `device`, and a world whose pool is that of a run with device=cuda."""
    config = config_of(name)
    family = family_of(config)
    options = {key: value for key, value in RUNS[name][0].items() if key != "name"}
    agent = make_agent(config.agent.name, family.spec, 1, device, **options)
    assert isinstance(agent, LearningAgent)
    tasks = replace(family.tasks("train", TASKS, Rng(3)), index=torch.arange(TASKS), copy=None)
    world = LocalWorld(family, config.episodes, tasks, device)
    world.pool = LocalWorkers().pool(config, family)
    return agent, world


def life(agent: LearningAgent, world: LocalWorld) -> dict[str, Any]:
    """Two iterations, the state after them, and an evaluation."""
    logged = [agent.iterate(world, Rng(4).child(i)) for i in range(2)]
    scores = evaluate(agent, world.family, None, world.pool, episodes=agent.lanes, tasks=TASKS)
    state = tree_map_only(Tensor, Tensor.cpu, agent.state_dict())
    return {"logged": logged, "state": state, "scores": scores.returns}


@pytest.mark.parametrize("name", RUNS)
def test_an_agent_learns_beside_a_simulator_as_on_the_cpu(name: str) -> None:
    agent, world = world_of(name, CPU)
    world.pool = LocalPool(world.family)
    expected = life(agent, world)
    with OtherDevice():
        found = life(*world_of(name, OTHER))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_no_step_of_a_simulator_waits_for_the_device(name: str) -> None:
    waits, lengths = [], []
    with OtherDevice() as device:
        agent, world = world_of(name, OTHER)
        for episodes in (1, 3):
            belief = agent.begin(world.task_info(agent, world.train_set), agent.lanes)
            device.waits.clear()
            rollout, after = world.collect(agent, belief, world.train_set, episodes, Rng(5))
            waits.append(device.waits.total())
            lengths.append(len(rollout.valid))
            assert rollout.reward.device == after.cue.device == OTHER
    assert lengths[1] == 3 * lengths[0]
    assert waits[1] == waits[0]


@dataclass(frozen=True)
class WhereJob:
    """Tells where it is done."""

    steps_envs: ClassVar[bool] = False

    def run(self, agent: LearningAgent, worker: Worker) -> torch.device:
        return next(iter(agent.params.values())).device


class EpisodesJob(WhereJob):
    """The same, among environments."""

    steps_envs = True


def test_only_what_steps_environments_leaves_the_device() -> None:
    """Gradients are for the agent itself."""
    with OtherDevice():
        agent, world = world_of("rl2", OTHER)
        jobs = [EpisodesJob(), WhereJob(), EpisodesJob()]
        assert world.pool.run(agent, jobs) == [CPU, OTHER, CPU]


def test_environments_that_are_tensors_stay_on_the_device() -> None:
    config = config_of("rl2", family="point")
    with OtherDevice():
        family = family_of(config)
        agent = make_agent("rl2", family.spec, 1, OTHER, **SHORT)
        assert LocalWorkers().pool(config, family).run(agent, [EpisodesJob()]) == [OTHER]


def test_the_copy_follows_the_agent_and_is_made_once() -> None:
    agent, world = world_of("rl2", CPU)
    made = []

    def make_copy(agent: LearningAgent) -> LearningAgent:
        made.append(world_of("rl2", CPU)[0])
        return made[-1]

    pool = CPUPool(world.family, make_copy)  # type: ignore[arg-type]
    for change in (1.0, 2.0):
        agent.learner.set_params({k: v.detach() * change for k, v in agent.params.items()})
        pool.run(agent, [EpisodesJob()])
        assert all(torch.equal(v, made[0].params[k]) for k, v in agent.params.items())
    assert len(made) == 1
