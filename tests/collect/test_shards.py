"""Shards: the numbers depend on their size, and not on who computes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import FILES, Counting, Ragged, same
from pools import CopyPool

from metarl.collect.collector import collect
from metarl.collect.pool import LocalPool, Pool
from metarl.collect.shards import collect_in_shards, shards
from metarl.config.schema import Config, parse
from metarl.core.agent import Agent
from metarl.core.errors import FamilyError
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.types import TaskInfo
from metarl.evaluation.meta_test import evaluate
from metarl.experiments.building import build, eval_protocol, world_of

QUICK = {"epochs": 1, "minibatches": 2}

SMALL: dict[str, dict[str, Any]] = {
    "rl2 on a bandit": {
        "agent": {"name": "rl2", "trials": 11, "memory_width": 8, **QUICK},
        "family": {"name": "bernoulli-bandit", "arms": 3},
    },
    "rl2 on half-cheetah": {
        "agent": {"name": "rl2", "trials": 7, "memory": "lstm", "memory_width": 128, **QUICK},
        "family": {"name": "half-cheetah-vel", "horizon": 15},
        "episodes": 1,
    },
    "maml with two inner steps": {
        "agent": {
            "name": "maml",
            "tasks": 5,
            "episodes_per_task": 3,
            "inner_steps": 2,
            "hidden_sizes": [8],
        },
        "family": {"name": "point", "horizon": 8},
        "episodes": 9,
    },
    "pearl": {
        "agent": {
            "name": "pearl",
            "tasks": 5,
            "updates": 2,
            "meta_batch_size": 3,
            "batch_size": 16,
            "hidden_sizes": [16],
            "initial_episodes": 1,
        },
        "family": {"name": "point", "horizon": 8},
        "train_tasks": 7,
    },
    "options": {
        "agent": {"name": "rl2", "trials": 7, "options": 2, "memory_width": 8, **QUICK},
        "family": {"name": "four-rooms", "horizon": 12},
    },
    "varibad": {
        "agent": {
            "name": "varibad",
            "trials": 7,
            "memory_width": 8,
            "targets": "replayed",
            "elbo_epochs": 1,
            "elbo_minibatches": 2,
            **QUICK,
        },
        "family": {"name": "gridnavi", "horizon": 8},
    },
    "a Gymnasium family of a user's file": {
        "agent": {"name": "rl2", "trials": 5, "memory_width": 8, **QUICK},
        "family": {"name": f"{FILES / 'pendulum.py'}:Gravity"},
        "episodes": 1,
    },
}


def config(name: str, **changes: Any) -> Config:
    tree = {"iterations": 2, "episodes": 2, "validation_tasks": 10, "test_tasks": 7}
    return parse(tree | SMALL[name] | changes)


def trained(config: Config, workers: int) -> tuple[Agent, Family, Pool, list[dict[str, float]]]:
    """Two iterations; 0 workers: in this process."""
    family, agent = build(config)
    pool: Pool = CopyPool(config, workers) if workers else LocalPool(family)
    world = world_of(config, family, pool)
    world.progress = 0.0
    metrics = [agent.iterate(world, Rng(0).child(number)) for number in range(2)]
    return agent, family, pool, metrics


@pytest.mark.parametrize("name", SMALL)
def test_any_number_of_workers_gives_the_same_bytes(name: str):
    chosen = config(name, shard_rows=3)
    agent, family, _, metrics = trained(chosen, 0)
    scores = evaluate(agent, family, eval_protocol(chosen, family))
    other, _, pool, other_metrics = trained(chosen, 3)
    assert pool.jobs > 2  # they were asked
    assert same(other.state_dict(), agent.state_dict())
    assert other_metrics == metrics
    other_scores = evaluate(other, family, eval_protocol(chosen, family), pool)
    assert (other_scores.returns == scores.returns).all()


@pytest.mark.parametrize("name", ["rl2 on a bandit", "maml with two inner steps", "pearl"])
def test_shards_of_all_rows_give_the_numbers_without_shards(name: str):
    agent, *_, metrics = trained(config(name), 0)
    other, *_, other_metrics = trained(config(name, shard_rows=1000), 2)
    assert same(other.state_dict(), agent.state_dict())
    assert other_metrics == metrics


def test_shards_that_follow_the_number_of_workers_give_other_numbers():
    """Why shards are fixed: matrix products of another size round otherwise."""
    chosen = config("rl2 on half-cheetah")
    family, agent = build(chosen)
    tasks = family.tasks("train", 16, Rng(0))
    belief = agent.begin(TaskInfo(16, 1, torch.device("cpu")), 1)

    def rolled_out(workers: int) -> torch.Tensor:
        rollout, _ = collect_in_shards(
            LocalPool(family), agent, belief, tasks, 1, Rng(1), 16 // workers
        )
        return rollout.inputs.obs

    whole = rolled_out(1)
    parts = [rolled_out(workers) for workers in (2, 4, 8, 16)]
    assert all(torch.allclose(part[:3], whole[:3], atol=1e-4) for part in parts)
    assert not all(torch.equal(part, whole) for part in parts)


@pytest.mark.parametrize("shard_rows", [1, 2, 3, 100, None])
def test_rows_of_unlike_length_are_joined_in_their_order(shard_rows: int | None):
    family = Ragged(discrete=True)
    tasks = family.tasks("test", 7, Rng(0))
    agent = Counting(family.spec)
    belief = agent.begin(TaskInfo(7, 3, torch.device("cpu")), 2)
    whole, after = collect(agent, family.make(2), family.spec, belief, tasks, 3, Rng(5))
    rollout, sharded = collect_in_shards(
        LocalPool(family), agent, belief, tasks, 3, Rng(5), shard_rows
    )
    assert torch.equal(rollout.valid, whole.valid)
    assert torch.equal(rollout.index, tasks.index)
    assert torch.equal(rollout.reward * rollout.valid, whole.reward * whole.valid)
    assert same(sharded, after)


def test_shards_have_one_size_and_a_rest():
    assert [(x.start, x.stop) for x in shards(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    assert [(x.start, x.stop) for x in shards(7, None)] == [(0, 7)]
    assert [(x.start, x.stop) for x in shards(6, 3)] == [(0, 3), (3, 6)]


def test_the_first_mistake_is_told(monkeypatch: pytest.MonkeyPatch):
    family = Ragged(discrete=True)
    tasks = family.tasks("test", 4, Rng(0))
    agent = Counting(family.spec)
    belief = agent.begin(TaskInfo(4, 1, torch.device("cpu")), 1)
    look = type(family.make(1)).look

    def spoiled(env: Any, episode: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        seen = look(env, episode, moved)
        return seen / 0 if env.index.min() >= tasks.index[2] else seen

    monkeypatch.setattr(type(family.make(1)), "look", spoiled)
    with pytest.raises(FamilyError, match=f"of task {int(tasks.index[2])} is not finite"):
        collect_in_shards(LocalPool(family), agent, belief, tasks, 1, Rng(0), 2)


def test_actors_that_cannot_be_copied_act_here():
    """VariBAD repeats recorded actions on second trials; no worker has them."""
    chosen = config("varibad", shard_rows=2)
    assert chosen.agent.settings.targets == "replayed"
    _, _, pool, _ = trained(chosen, 2)
    assert pool.jobs == 2 * 4  # of each iteration the first trials alone
