"""PPO as an engine: for agents of one's own, and the same that RL² computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import CPU, Ragged
from pearl_by_hand import Dense, spy, world_of
from torch import Tensor

from metarl.agents.learning_agent import LearningAgent, expand_to_lanes
from metarl.algorithms.config import PPOConfig
from metarl.algorithms.ppo import PPO
from metarl.collect.world import LocalWorld
from metarl.core.agent import Mode
from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout, join_rows
from metarl.core.types import Acted, Belief, Inputs, Spec, TaskInfo, Tasks, first_cue, tree_map
from metarl.experiments.building import make_agent
from metarl.nn.policy import Policy


class Plain(LearningAgent):
    """What somebody else would write: a policy that is shown the task, in as many lanes as one
    likes.
    """

    task_input = "row"
    lanes = 3

    def __init__(self, spec: Spec, **options: Any) -> None:
        self.spec = spec
        self.policy = Policy(
            input_width=Policy.width(spec, task=spec.task_width),
            action_width=spec.action_width,
            discrete=spec.discrete,
            hidden_sizes=(16,),
        )
        self.learner = PPO(self.policy, PPOConfig(**options), spec, Rng(0), CPU)

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        return Belief(first_cue(self.spec, info.rows, lanes, info.device), row=info.shown)

    def act(
        self, belief: Belief, obs: Tensor, noise: Streams, counter: int, mode: Mode
    ) -> tuple[Acted, Belief]:
        inputs = Inputs(obs, task=expand_to_lanes(belief.row, obs))
        begins = belief.cue[..., -1] == 1
        acted, _ = self.learner.act(inputs, (), begins, noise, counter, mode)
        return acted, belief

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        return belief

    def iterate(self, world: LocalWorld, rng: Rng) -> dict[str, float]:
        tasks = world.tasks(20, rng)
        belief = self.begin(world.task_info(self, tasks), self.lanes)
        trials, _ = world.collect(self, belief, tasks, 2, rng)
        metrics = self.learner.update(trials, world.progress, rng.child("order").generator())
        return {"paid": float((trials.reward * trials.valid).sum() / trials.valid.sum())} | metrics


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])
def test_an_agent_of_ones_own_improves(discrete: bool, normalized: bool):
    """It is paid for acting oppositely in two tasks, which it is shown."""
    family = Dense(discrete)
    agent = Plain(family.spec, minibatches=4, learning_rate=1e-2, normalize_obs=normalized)
    world = world_of(family, 2)
    paid = []
    for i in range(12):
        metrics = agent.iterate(world, Rng(1).child(i))
        paid.append(metrics.pop("paid"))
        assert set(metrics) == {
            "policy_loss",
            "value_loss",
            "entropy",
            "kl",
            "clipped",
            "grad_norm",
        }
    # what the rewards of the family have in common changes nothing
    assert paid[-1] > paid[0] + (0.35 if discrete else 0.6)
    assert set(agent.acting_state()) == {"params", "moments"}


@pytest.mark.parametrize("options", [{}, {"options": 2}], ids=["flat", "options"])
@pytest.mark.parametrize("memory", ["gru", "none"])
def test_it_computes_what_rl2_does(memory: str, options: dict[str, Any]):
    """Bit for bit, from settings of its own: the first weights, and two updates on what an agent
    lived through.
    """
    family = Ragged()
    settings = {"epochs": 3, "minibatches": 4, "learning_rate": (1e-2, 1e-3), "gamma": 0.9}
    settings |= {"normalize_obs": True, "normalize_reward": True}
    agent = make_agent(
        "rl2", family.spec, 3, trials=6, memory=memory, memory_width=5, **settings, **options
    )
    engine = PPO(agent.policy, PPOConfig(**settings), family.spec, Rng(3).child("agent"), CPU)
    world = LocalWorld(family, 3, None, CPU)
    lived = spy(world, "collect", lambda *given: given[-1][0])
    for i in range(2):
        world.progress = i / 2
        rng = Rng(9).child(i)
        logged = agent.iterate(world, rng)
        order = rng.child("minibatches").generator()
        metrics = engine.update(lived[-1], world.progress, order)
        assert metrics == {name: logged[name] for name in metrics}
        torch.testing.assert_close(engine.state_dict(), agent.state_dict(), rtol=0, atol=0)
    assert len(metrics) == (11 if options else 6)


# -------------------------------------------------------------------------------------------------
# Rows that were lived through apart


class Apart(LocalWorld):
    """Collects two rows of tasks at a time, as workers do, and joins what they lived through."""

    longest: set[int]

    def collect(
        self, agent: Any, belief: Belief, tasks: Tasks, episodes: int, rng: Rng
    ) -> tuple[Rollout, Belief]:
        rollouts, beliefs = [], []
        for first in range(0, len(tasks), 2):
            rows = slice(first, first + 2)
            part = tree_map(lambda x, rows=rows: x[rows], belief)
            rollout, after = super().collect(agent, part, tasks[rows], episodes, rng)
            rollouts.append(rollout)
            beliefs.append(after)
        self.longest = {len(rollout.valid) for rollout in rollouts}
        return join_rows(rollouts), tree_map(lambda *x: torch.cat(x), *beliefs)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rl2", {"trials": 5, "memory_width": 6, "minibatches": 3, "learning_rate": 1e-2}),
        ("dac", {"trials": 5, "options": 2, "minibatches": 3, "learning_rate": 1e-2}),
        ("maml", {"tasks": 5, "episodes_per_task": 3, "hidden_sizes": (6,), "damping": 0.1}),
        ("promp", {"tasks": 5, "episodes_per_task": 3, "hidden_sizes": (6,), "inner_steps": 2}),
    ],
)
def test_joined_parts_teach_what_the_whole_teaches(name: str, options: dict[str, Any]):
    """Up to rounding, whatever the lengths of the parts."""
    family, agents, logged = Ragged(), [], []
    for kind in (LocalWorld, Apart):
        agent = make_agent(name, family.spec, **options)
        before = tree_map(lambda x: x.detach().clone(), agent.params)
        world = kind(family, 3, None, CPU)
        logged.append([agent.iterate(world, Rng(9).child(i)) for i in range(2)])
        agents.append(agent)
        moved = [(agent.params[key].detach() - before[key]).abs().max() for key in before]
        assert float(torch.stack(moved).max()) > 1e-3
    assert len(world.longest) > 1
    torch.testing.assert_close(agents[0].params, agents[1].params, rtol=1e-3, atol=1e-4)
    for whole, parts in zip(*logged, strict=True):
        assert parts == pytest.approx(whole, rel=1e-2, abs=1e-4)
