"""Agents in families of images: bytes stay bytes, and what should learn of them does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families.pictures import Framed, Lights, Masked, MaskedSeen, Steered
from helpers import CPU

from metarl.collect.world import LocalWorld
from metarl.core.errors import ConfigError
from metarl.core.rng import Rng
from metarl.core.types import tree_map
from metarl.experiments.building import make_agent

SMALL = {
    "rl2": {"trials": 6, "epochs": 1, "minibatches": 2, "conv_channels": (4,)},
    "maml": {"tasks": 2, "episodes_per_task": 2, "conv_channels": (4,), "hidden_sizes": (8,)},
    "pearl": {
        "tasks": 2,
        "updates": 2,
        "batch_size": 4,
        "meta_batch_size": 2,
        "context_size": 4,
        "hidden_sizes": (8,),
        "encoder_sizes": (8,),
        "conv_channels": (4,),
    },
}


class Small(Framed):
    def build(self):
        return Lights(mask=None)


POLICIES = {Framed: "ActorCriticCnnPolicy", Small: "ActorCriticPolicy"}


def train(name: str, family: Any, **options: Any) -> tuple[Any, dict[str, float], dict[str, Any]]:
    """An agent after an iteration, its metrics, and its parameters before."""
    agent = make_agent(name, family.spec, **(SMALL[name] | options))
    tasks = family.tasks("train", 4, Rng(0)) if name == "pearl" else None
    world = LocalWorld(family, 2, tasks, CPU)
    before = tree_map(torch.clone, dict(agent.params))
    return agent, agent.iterate(world, Rng(1)), before


@pytest.mark.parametrize("family", [Masked, MaskedSeen])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rl2", {}),
        ("rl2", {"memory": "transformer", "normalize_obs": True}),
        ("rl2", {"memory": "none", "conv_channels": ()}),
        ("rl2", {"memory": "keyed", "memory_keys": 3}),
        ("rl2", {"critic": "privileged", "readout": "hypernetwork", "hidden_sizes": (8,)}),
        ("maml", {}),
        ("maml", {"memory": "gru"}),
    ],
)
def test_choices_from_images_learn_and_keep_to_the_mask(name, options, family):
    """The environment refuses what its mask rules out."""
    agent, metrics, before = train(name, family(), **options)
    assert all(value == value for value in metrics.values())
    changed = {key for key, x in agent.params.items() if not torch.equal(x, before[key])}
    assert changed == set(before)


def test_a_rollout_keeps_bytes():
    family = Masked()
    agent = make_agent("random", family.spec)
    world = LocalWorld(family, 2, None, CPU)
    tasks = world.tasks(3, Rng(0))
    trials, _ = world.collect(
        agent, agent.begin(world.task_info(agent, tasks), 1), tasks, 2, Rng(0)
    )
    assert trials.inputs.obs.dtype == trials.next_obs.dtype == torch.uint8
    assert trials.action.shape == (10, 3, 1, 2)
    assert trials.log_prob.exp().unique().tolist() == pytest.approx([1 / 4])


def test_pearl_sees_images_by_what_its_critics_learn():
    """The replay buffer keeps bytes, a batch gives the very images that were seen."""
    family = Steered()
    agent, metrics, before = train("pearl", family, next_obs_input=True)
    assert all(value == value for value in metrics.values())
    changed = {name for name, x in agent.params.items() if not torch.equal(x, before[name])}
    assert changed == before.keys() - {"log_temperature"}
    tasks = torch.arange(2)
    batch = agent.buffer.sample(tasks, 50, torch.Generator().manual_seed(0))
    assert batch["obs"].dtype == batch["next_obs"].dtype == torch.uint8
    phase = batch["obs"][..., family.spec.part("phase")].long()
    after = batch["next_obs"][..., family.spec.part("phase")].long()
    assert torch.equal((phase.argmax(-1) + 1) % 3, after.argmax(-1))


def test_a_replay_buffer_of_images_resumes():
    family = Steered()
    agent, _, _ = train("pearl", family)
    state = agent.state_dict()
    other = make_agent("pearl", family.spec, **SMALL["pearl"])
    other.load_state_dict(state)
    one, another = (
        each.buffer.sample(torch.arange(2), 9, torch.Generator().manual_seed(0))
        for each in (agent, other)
    )
    assert one.keys() == another.keys()
    for name, column in one.items():
        assert torch.equal(column, another[name])


@pytest.mark.parametrize(
    ("name", "family", "options", "line"),
    [
        ("varibad", Steered, {}, "decoders predict no images"),
        ("pearl", Masked, {}, "MultiDiscrete"),
        ("pearl", Steered, {"teacher": "outcomes"}, "predicts no images"),
        ("rl2", Masked, {"options": 2}, "options: they read no images"),
        ("rl2", Masked, {"memory": "keyed"}, r"set agent\.memory_keys"),
        ("rl2", Masked, {"memory": "slots"}, r"set agent\.memory_keys"),
    ],
)
def test_what_reads_no_images_says_so(name, family, options, line):
    with pytest.raises(ConfigError, match=line):
        make_agent(name, family().spec, **options)


@pytest.mark.parametrize("family", [Framed, Small], ids=["convolutions", "flattened"])
def test_stable_baselines3_sees_the_picture_and_makes_several_choices(family):
    """By its own convolutions, where the picture is large enough; it acts as its model predicts."""
    made = family()
    options = {"arguments": {"n_steps": 10, "batch_size": 20, "n_epochs": 1}, "tasks": 2}
    agent = make_agent("sb3", made.spec, **options)
    world = LocalWorld(made, 2, None, CPU)
    agent.iterate(world, Rng(0))
    assert type(agent.model.policy).__name__ == POLICIES[family]
    tasks = world.tasks(2, Rng(0))
    obs = made.make(2).reset(tasks, Rng(1))
    belief = agent.begin(world.task_info(agent, tasks), 2)
    acted, _ = agent.act(belief, obs, tasks.streams(Rng(2), 2), 0, "greedy")
    image = obs.flatten(0, 1).unflatten(-1, made.spec.images["image"]).numpy()
    expected, _ = agent.model.predict(image.transpose(0, 3, 1, 2), deterministic=True)
    assert acted.action.flatten(0, 1).tolist() == expected.tolist()
    assert acted.inputs.obs.dtype == torch.uint8


def test_pictures_too_small_for_stable_baselines3_are_told():
    with pytest.raises(ConfigError, match=r"agent\.arguments: .*Kernel size"):
        make_agent("sb3", Steered().spec)
