"""SAC as an engine: for agents of one's own, and the same that PEARL computes without a latent."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from helpers import CPU, same
from pearl_by_hand import Dense, world_of
from torch import Tensor

from metarl.agents.learning_agent import LearningAgent, expand_to_lanes
from metarl.algorithms.adam import Adam
from metarl.algorithms.config import SACConfig
from metarl.algorithms.learner import load_optimizer
from metarl.algorithms.sac import SAC, Batch
from metarl.collect.world import LocalWorld
from metarl.core.agent import Mode
from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Acted, Belief, Inputs, Spec, TaskInfo, first_cue
from metarl.data.replay import Column, Replay
from metarl.experiments.building import make_agent
from metarl.nn.mlp import MLP, named
from metarl.nn.policy import Policy

SPACES = pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])


class Plain(LearningAgent):
    """What somebody else would write: shown the task, with a replay that has it as a column."""

    task_input = "row"
    lanes = 3

    def __init__(self, spec: Spec, **options: Any) -> None:
        self.spec = spec
        width = Policy.width(spec, task=spec.task_width)
        self.learner = SAC(SACConfig(hidden_sizes=(16,), **options), spec, width, Rng(0), CPU)
        action = Column(dtype=torch.long) if spec.discrete else Column(spec.action_width)
        obs = Column(spec.obs_width)
        columns = {"obs": obs, "action": action, "reward": Column(), "next_obs": obs}
        columns |= {"terminated": Column(dtype=torch.bool), "task": Column(spec.task_width)}
        self.replay_buffer = Replay(columns, 1000, CPU)

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        return Belief(first_cue(self.spec, info.rows, lanes, info.device), row=info.shown)

    def act(
        self, belief: Belief, obs: Tensor, noise: Streams, counter: int, mode: Mode
    ) -> tuple[Acted, Belief]:
        inputs = Inputs(obs, task=expand_to_lanes(belief.row, obs))
        begins = belief.cue[..., -1] == 1
        return self.learner.act(inputs, begins, noise, counter, mode), belief

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        return belief

    def iterate(self, world: LocalWorld, rng: Rng) -> dict[str, float]:
        tasks = world.tasks(4, rng)
        belief = self.begin(world.task_info(self, tasks), self.lanes)
        rollout, _ = world.collect(self, belief, tasks, 2, rng)
        self.replay_buffer.add(rollout)
        self.learner.set_progress(world.progress)
        generator = rng.child("updates").generator()
        for _ in range(30):
            columns = self.replay_buffer.sample(torch.arange(2), 32, generator)
            obs, action, reward, after, terminated, task = (
                x.flatten(0, 1) for x in columns.values()
            )
            batch = Batch(
                Inputs(obs, task=task), action, reward, Inputs(after, task=task), terminated
            )
            metrics = self.learner.update(batch, generator)
        paid = (rollout.reward * rollout.valid).sum() / rollout.valid.sum()
        return {"paid": float(paid)} | {name: float(value) for name, value in metrics.items()}


@pytest.mark.learning
@SPACES
def test_an_agent_of_ones_own_improves(discrete: bool):
    """It is paid for acting oppositely in two tasks, which it is shown."""
    family = Dense(discrete)
    agent = Plain(family.spec, learning_rate=1e-2, gamma=0.5, reward_scale=10.0, tau=0.05)
    world = world_of(family, 2)
    paid = []
    for i in range(10):
        metrics = agent.iterate(world, Rng(1).child(i))
        paid.append(metrics.pop("paid"))
        assert set(metrics) == {"critic_loss", "q", "policy_loss", "entropy", "temperature"}
    # what the rewards of the family have in common changes nothing
    assert sum(paid[-3:]) / 3 > paid[0] + (0.35 if discrete else 0.6)
    assert set(agent.acting_state()) == {"params"}


@SPACES
@pytest.mark.parametrize("learn_temperature", [False, True])
def test_it_computes_what_pearl_without_a_latent_does(discrete: bool, learn_temperature: bool):
    """Bit for bit, from settings of its own: the first weights, and every update of two iterations
    on the transitions that the agent drew.
    """
    family = Dense(discrete)
    settings = {"hidden_sizes": (6,), "gamma": 0.9, "tau": 0.1, "learning_rate": (1e-2, 1e-3)}
    settings |= {"learn_temperature": learn_temperature}
    agent = make_agent(
        "sac",
        family.spec,
        3,
        task_input="row",
        tasks=2,
        updates=5,
        meta_batch_size=3,
        batch_size=7,
        initial_episodes=1,
        **settings,
    )
    width = Policy.width(family.spec, task=family.spec.task_width)
    rng = Rng(3).child("agent")
    engine = SAC(SACConfig(**settings), family.spec, width, rng, CPU)
    update, logged = agent._update, []

    def both(
        batch: Any, context: Any, kl_coef: float, generator: torch.Generator, rows: None
    ) -> Any:
        engine.set_progress(world.progress)
        again = torch.Generator()
        again.set_state(generator.get_state())
        metrics = update(batch, context, kl_coef, generator, rows)
        task = batch.task.flatten(0, 1)
        own = engine.update(
            Batch(
                Inputs(batch.obs.flatten(0, 1), task=task),
                batch.action.flatten(0, 1),
                batch.training_reward.flatten(),
                Inputs(batch.next_obs.flatten(0, 1), task=task),
                batch.terminated.flatten(),
            ),
            again,
        )
        assert same(own, {name: metrics[name] for name in own})
        assert float(metrics["kl"]) == 0
        logged.append(own)
        return metrics

    agent._update = both
    world = world_of(family)
    for i in range(2):
        world.progress = i / 2
        agent.iterate(world, Rng(9).child(i))
    state = agent.state_dict()
    assert same(engine.state_dict(), {name: state[name] for name in engine.state_dict()})
    assert len(logged) == 10


def test_networks_that_make_the_inputs_learn_from_the_critics_alone():
    """And from what is added to their loss: not from the policy's."""
    spec, config = Dense(False).spec, SACConfig(hidden_sizes=(6,), regularization=0.5)
    encoder = MLP(spec.obs_width, (), 3)
    weights = named(encoder.init(Rng(1).generator()), "encoder")
    noise = torch.Generator().manual_seed(0)
    obs, after = torch.randn(2, 9, spec.obs_width, generator=noise)
    action, reward = torch.rand(9, 2, generator=noise) - 0.5, torch.randn(9, generator=noise)
    found = []
    for added in (0.0, 2.0):
        engine = SAC(config, spec, 3, Rng(0), CPU, weights)
        own = engine.networks["encoder"]
        made = encoder(own, obs)
        never = torch.zeros(9, dtype=torch.bool)
        batch = Batch(Inputs(made), action, reward, Inputs(encoder(own, after).detach()), never)
        q1, q2 = engine._q_values(engine.networks, batch.inputs, action)
        with torch.no_grad():
            chance = torch.Generator().manual_seed(1)
            _, value, _ = engine._soft_value(batch.next_inputs, engine._target_networks, chance)
            target = config.reward_scale * reward + config.gamma * value
        size = made.square().sum()
        loss = (q1 - target).square().mean() + (q2 - target).square().mean() + added * size
        expected = torch.autograd.grad(loss, list(own.values()), retain_graph=True)
        more = added * size if added else None
        engine.update(batch, torch.Generator().manual_seed(1), more)
        grads = [value.grad for value in own.values()]
        torch.testing.assert_close(grads, list(expected))
        found.append(grads)
        for name, value in named(own, "encoder").items():
            assert not torch.equal(value, weights[name])
    assert not torch.allclose(found[0][0], found[1][0])


def test_adam_descends_as_torch_has_it():
    """Bit for bit, also after a checkpoint; a parameter without a gradient stays as it is."""
    torch.manual_seed(0)
    values = [torch.randn(3, 4), torch.randn(4), torch.randn(())]
    own, theirs = ([x.clone().requires_grad_() for x in values] for _ in range(2))
    ours, torchs = Adam(own, lr=0.1, fused=True), torch.optim.Adam(theirs, lr=0.1, fused=True)
    for step in range(4):
        gradients = [torch.randn_like(x) for x in values[:2]] + [None]
        for x, y, gradient in zip(own, theirs, gradients, strict=True):
            x.grad, y.grad = gradient, gradient
        torchs.step()
        ours.descend()
        if step == 1:
            state = copy.deepcopy(torchs.state_dict())
            ours = Adam(own, lr=0.1, fused=True)
            load_optimizer(ours, state)
        assert same(own, theirs)
        assert same(ours.state_dict()["state"], torchs.state_dict()["state"])
    assert torch.equal(own[2], values[2])
