"""Gradients in shards sum up to the gradient of the minibatch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import same
from pools import CopyPool

from metarl.algorithms.gradients import GradientShards, Shard, gradients_of
from metarl.collect.pool import LocalPool
from metarl.config.schema import parse
from metarl.core.errors import ConfigError
from metarl.core.rng import Rng
from metarl.experiments.building import build, world_of

RL2 = {"name": "rl2", "trials": 11, "memory_width": 8, "minibatches": 2, "epochs": 2}

PEARL = {
    "name": "pearl",
    "tasks": 3,
    "updates": 3,
    "meta_batch_size": 5,
    "batch_size": 16,
    "hidden_sizes": [8],
    "initial_episodes": 1,
}

AGENTS: dict[str, dict[str, Any]] = {
    "gru": RL2,
    "no memory": RL2 | {"memory": "none"},
    "privileged critic": RL2 | {"critic": "privileged"},
    "options": RL2 | {"options": 2},
    "pearl": PEARL,
    "sac": PEARL | {"name": "mtsac"},
    "pearl with a teacher": PEARL | {"teacher": "task"},
    "varibad": RL2 | {"name": "varibad", "elbo_epochs": 1, "elbo_minibatches": 1},
}


def trained(agent: str, workers: int = 0, **changes: Any) -> tuple[dict[str, Any], list[Any]]:
    """The state after two iterations, and their metrics."""
    tree = {
        "agent": AGENTS[agent],
        "family": {"name": "four-rooms", "horizon": 9},
        "episodes": 2,
        "iterations": 2,
    }
    if AGENTS[agent]["name"] in ("pearl", "mtsac"):  # continuous actions, and a fixed set
        tree |= {"family": {"name": "point", "horizon": 8}, "train_tasks": 6}
    config = parse(tree | changes)
    family, made = build(config)
    pool = CopyPool(config, workers) if workers else LocalPool(family)
    world = world_of(config, family, pool)
    world.progress = 0.0
    metrics = [made.iterate(world, Rng(0).child(number)) for number in range(2)]
    return made.state_dict(), metrics


@pytest.mark.parametrize("agent", AGENTS)
def test_shards_give_the_minibatch_but_for_rounding(agent: str):
    """11 trials of unlike lengths, whose valid steps differ from shard to shard."""
    whole, metrics = trained(agent)
    state, other_metrics = trained(agent, gradient_shards=3)
    for name, value in whole["params"].items():
        torch.testing.assert_close(state["params"][name], value, rtol=1e-3, atol=2e-5)
    for before, after in zip(metrics, other_metrics, strict=True):
        for name in ("row_error", "inferred_row_error"):  # roots of means: each shard has its own
            before.pop(name, None), after.pop(name, None)
        assert after == pytest.approx(before, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("agent", AGENTS)
def test_any_number_of_workers_gives_the_same_bytes(agent: str):
    state, metrics = trained(agent, gradient_shards=3)
    other, other_metrics = trained(agent, 2, gradient_shards=3)
    assert same(other, state)
    assert other_metrics == metrics


def test_who_computes_gradients_at_once_says_so():
    config = parse(
        {
            "agent": {"name": "maml"},
            "family": {"name": "point"},
            "episodes": 40,
            "iterations": 1,
            "gradient_shards": 2,
        }
    )
    with pytest.raises(ConfigError, match="maml computes its gradients at once"):
        build(config)


def test_one_shard_is_the_minibatch():
    assert same(trained("gru", gradient_shards=1), trained("gru"))


def test_more_shards_than_trials_are_one_a_trial():
    state, _ = trained("gru", gradient_shards=100)
    assert same(state, trained("gru", gradient_shards=6)[0])  # minibatches of 6 and 5 trials


def test_parameters_that_a_loss_does_not_depend_on_have_no_gradient():
    params = {"a": torch.tensor(2.0, requires_grad=True), "b": torch.ones(2, requires_grad=True)}

    class Job:
        steps_envs = False

        def __init__(self, of: str):
            self.of = of

        def run(self, agent: object, worker: object) -> Any:
            return Shard(gradients_of(params[self.of].sum() * 3, params), {"m": torch.tensor(1.0)})

    shards = GradientShards(None, LocalPool(None), 2)  # type: ignore[arg-type]
    gradients, metrics, _ = shards.sum([Job("a"), Job("a")])
    assert gradients == {"a": torch.tensor(6.0), "b": None}
    assert metrics == {"m": torch.tensor(2.0)}
    gradients, *_ = shards.sum([Job("a"), Job("b")])
    assert torch.equal(gradients["b"], torch.full((2,), 3.0))
