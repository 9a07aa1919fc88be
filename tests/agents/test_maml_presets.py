"""MAML's presets by their papers' formulas; what training keeps; runs, sessions, recordings and
mistakes.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import maml_by_hand as by_hand
import pytest
import torch
from helpers import same
from maml_by_hand import MEMORIES, SMALL, SPACES, Uneven, begin, episodes_of, make, spy, world_of
from torch import Tensor

from metarl.agents.maml.agent import MAML
from metarl.agents.maml.config import MAMLConfig
from metarl.collect.collector import collect
from metarl.collect.world import LocalWorld
from metarl.config.schema import parse
from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import replace
from metarl.data.recording import Recording, recorded
from metarl.evaluation.session import Session
from metarl.experiments import checkpoints
from metarl.experiments.building import build, make_agent, make_family
from metarl.experiments.runs import train

ROWS = SMALL["tasks"]
RUN = {
    "agent": {"name": "maml", "tasks": 3, "episodes_per_task": 4, "hidden_sizes": [5]},
    "family": {"name": "point", "horizon": 4},
    "episodes": 8,
    "iterations": 4,
    "validate_every": 2,
    "validation_tasks": 5,
    "test_tasks": 5,
    "checkpoint_every": 1,
}

PRESETS = pytest.mark.parametrize("preset", MAMLConfig.variants)


def iterated(agent: MAML, world: LocalWorld, iterations: range) -> list[dict[str, float]]:
    return [agent.iterate(world, Rng(9).child("iteration", i)) for i in iterations]


def update(**options: Any) -> Tensor:
    """[D]: how the policy's part of θ moves in the first iteration."""
    agent = make(Uneven(False), **options)
    before = {name: value.clone() for name, value in agent.params.items()}
    iterated(agent, world_of(Uneven(False)), range(1))
    return torch.cat(
        [
            (agent.params[name] - value).flatten()
            for name, value in before.items()
            if "step" not in name
        ]
    )


# -------------------------------------------------------------------------------------------------
# The presets


@pytest.mark.parametrize("family", ["bernoulli-bandit", "tabular-mdp", "point"])
@PRESETS
def test_every_preset_trains(preset: str, family: str):
    """As its name says: θ moves and stays finite, and tasks go on adapting from there."""
    options = {} if family == "bernoulli-bandit" else {"horizon": 4}
    agent = make(found := make_family(family, **options), preset=preset)
    old = agent.state_dict()["params"]
    for metrics in iterated(agent, world_of(found), range(2)):
        assert torch.tensor(list(metrics.values())).isfinite().all()
        assert metrics["return"] == metrics["last_return"] != metrics["first_return"]
    fixed = set() if agent.config.learn_master else agent.policy.master_parameters(agent.params)
    if found.spec.horizon == 1:  # no option runs into a second step, where it could end
        fixed |= {name for name in agent.params if "termination" in name}
    for name, value in agent.params.items():
        assert value.isfinite().all()
        assert not value.requires_grad, "a graph that grows with every iteration"
        assert same(value, old[name]) == (name in fixed), name
    tasks = found.tasks("test", 3, Rng(0))
    rollout, belief = collect(
        agent, found.make(2), found.spec, begin(agent, tasks, 2), tasks, 1, Rng(0)
    )
    assert not same(agent.adapt(belief, rollout).row.params, belief.row.params)


def test_presets_are_what_sets_them_apart():
    """One option makes each of another; without it, it is the same to the bit."""
    maml = update()
    assert same(update(preset="fomaml", first_order=False), maml)
    assert same(update(preset="e-maml", exploration_credit=0.0), maml)
    assert same(update(preset="meta-sgd", learn_step_sizes=False), maml)
    assert same(update(preset="promp", outer="trpo", inner_loss="log_likelihood"), maml)
    flat = {"options": 0, "learn_master": True}
    assert same(update(preset="famp", inner_loss="log_likelihood", **flat), maml)
    assert same(update(preset="mlsh", outer="trpo", first_order=False, **flat), maml)
    for preset in ("fomaml", "e-maml", "promp", "meta-sgd", "reptile"):
        assert float((update(preset=preset) - maml).abs().max()) > 1e-5, preset


@SPACES
@MEMORIES
def test_the_first_gradient_of_promp_is_that_of_the_trust_region(memory: str, discrete: bool):
    """No ratio is clipped there and no policy has moved, so that neither ε nor the weight of the
    divergence matter.
    """
    found: list[dict[str, Tensor]] = []
    for options in (
        {},
        {"outer": "ppo", "kl_coef": 0.0},
        {"outer": "ppo", "kl_coef": 50.0, "clip_range": 1e-3},
    ):
        agent = make(Uneven(discrete), memory=memory, inner_loss="likelihood_ratio", **options)
        agent._trust_region = agent._proximal = lambda chain, query, progress, agent=agent: (
            found.append(agent._gradient(chain, query.policy, query)[1]) or {}
        )
        iterated(agent, world_of(Uneven(discrete)), range(1))
    trust_region, *promp = found
    for gradient in promp:
        torch.testing.assert_close(gradient, trust_region, rtol=1e-4, atol=1e-5)


@SPACES
@MEMORIES
@pytest.mark.parametrize("kl_coef", [0.0, 2.0])
def test_promp_is_adam_on_clipped_ratios_near_the_policies_before(
    memory: str, discrete: bool, kl_coef: float
):
    """Several passes over the same episodes, all measured against the policies that lived through
    them.
    """
    family = Uneven(discrete)
    options = {
        "learning_rate": 0.05,
        "epochs": 3,
        "clip_range": 0.05,
        "kl_coef": kl_coef,
        "inner_steps": 2,
    }
    agent, world = make(family, memory=memory, preset="promp", **options), world_of(family)
    old, seen = agent._vector(agent.params).double().requires_grad_(), spy(world)
    metrics = agent.iterate(world, Rng(0))
    *before, after = (rollout for _, rollout in seen)
    trial = by_hand.Trial(agent, before, after)
    theta = old.detach().clone().requires_grad_()
    adam = torch.optim.Adam([theta], lr=0.05, eps=1e-5)
    for _ in range(3):
        (theta.grad,) = torch.autograd.grad(trial.proximal(theta, old), theta)
        adam.step()
    torch.testing.assert_close(
        agent._vector(agent.params).double(), theta.detach(), rtol=0, atol=1e-3
    )
    assert metrics["kl"] == pytest.approx(float(trial.divergence(theta, old).detach()), rel=1e-2)


@SPACES
def test_reptile_goes_a_share_of_the_way_to_the_adapted_parameters(discrete: bool):
    """Those after the step before the query and one more on it, with the α of a second step."""
    family = Uneven(discrete)
    agent = make(family, preset="reptile", step_sizes=(0.4, 0.1), outer_step_size=(1.0, 0.0))
    world = world_of(family)
    world.progress = 0.75
    old, seen = agent._vector(agent.params).double().requires_grad_(), spy(world)
    agent.iterate(world, Rng(0))
    (_, before), (_, after) = seen
    trial, adapted = by_hand.Trial(agent, [before], after), []
    for row in range(ROWS):
        (_, last) = by_hand.trail(agent, {}, trial.trail(old, row)[-1], [trial.after[row]], first=1)
        adapted.append(torch.cat([value.flatten() for value in last.values()]))
    expected = old + 0.25 * (torch.stack(adapted).mean(0) - old)
    torch.testing.assert_close(agent._vector(agent.params).double(), expected, rtol=0, atol=1e-5)


def test_step_sizes_are_learned_from_the_given_ones():
    """One for every parameter, by the trust region as everything else."""
    agent = make(Uneven(False), preset="meta-sgd")
    sizes = {name: value for name, value in agent.params.items() if name.startswith("step_size.")}
    assert {name.removeprefix("step_size.") for name in sizes} == set(agent.params) - set(sizes)
    assert all(value.eq(SMALL["step_sizes"][0]).all() for value in sizes.values())
    iterated(agent, world_of(Uneven(False)), range(2))
    learned = torch.cat([agent.params[name].flatten() for name in sizes])
    assert float(learned.std()) > 1e-4


# -------------------------------------------------------------------------------------------------
# State


@pytest.mark.parametrize(
    ("preset", "memory"), [*((name, "none") for name in MAMLConfig.variants), ("promp", "gru")]
)
def test_two_iterations_saved_and_two_more_equal_four(preset: str, memory: str, tmp_path: Path):
    """Bit for bit, through a checkpoint, in an agent that was something else before."""
    family, options = Uneven(False), {"preset": preset, "memory": memory}
    straight, interrupted, resumed = (make(family, seed, **options) for seed in (0, 0, 1))
    logged = iterated(straight, world_of(family), range(4))
    assert iterated(interrupted, world_of(family), range(2)) == logged[:2]
    checkpoints.save(tmp_path / "agent.pt", interrupted.state_dict())
    assert not same(resumed.params, interrupted.params)
    resumed.load_state_dict(checkpoints.load(tmp_path / "agent.pt"))
    assert same(resumed.state_dict(), interrupted.state_dict())
    assert iterated(resumed, world_of(family), range(2, 4)) == logged[2:]
    assert same(resumed.state_dict(), straight.state_dict())
    assert bool(straight.state_dict()["optimiser"]["state"]) == (straight.config.outer == "ppo")


def test_two_agents_of_one_state_go_their_own_ways():
    family = Uneven()
    first, second = make(family, preset="promp"), make(family, 1, preset="promp")
    iterated(first, world_of(family), range(1))
    state = first.state_dict()
    kept = copy.deepcopy(state)
    second.load_state_dict(state)
    iterated(first, world_of(family), range(1, 2))
    assert same(second.state_dict(), state)
    iterated(second, world_of(family), range(1, 2))
    assert same(second.state_dict(), first.state_dict())
    assert same(state, kept)
    assert not same(first.params, state["params"])


def test_the_same_seed_gives_the_same_agent():
    family = Uneven(False)
    first, again, other = (make(family, seed) for seed in (0, 0, 1))
    assert iterated(first, world_of(family), range(2)) == iterated(
        again, world_of(family), range(2)
    )
    assert same(first.state_dict(), again.state_dict())
    assert iterated(other, world_of(family), range(2)) != iterated(
        again, world_of(family), range(2)
    )


def test_pretraining_is_a_beginning():
    """Its parameters, whichever variant goes on from them, and a fresh optimizer; an architecture
    is not changed.
    """
    family = Uneven()
    pretrained = make(family, inner_steps=0, preset="promp")
    iterated(pretrained, world_of(family), range(1))
    for preset in ("maml", "promp", "reptile"):
        agent = make(family, 1, preset=preset)
        agent.warm_start(pretrained.state_dict())
        assert same(agent.params, pretrained.params)
        assert not agent.state_dict()["optimiser"]["state"]
        iterated(agent, world_of(family), range(1))
        assert not same(agent.params, pretrained.params)
    for options in (
        {"hidden_sizes": (7,)},
        {"hidden_sizes": (6, 6)},
        {"memory": "gru"},
        {"preset": "meta-sgd"},
    ):
        other = make(family, **options)
        state = other.state_dict()
        with pytest.raises(
            MetaRLError,
            match=r"^state\.params\.\S+ is .* in the checkpoint and .* in this agent; use",
        ):
            other.warm_start(pretrained.state_dict())
        assert same(other.state_dict(), state)


# -------------------------------------------------------------------------------------------------
# Runs


@pytest.mark.parametrize("preset", ["maml", "promp"])
def test_a_run_stops_and_goes_on_as_if_it_had_not(preset: str, tmp_path: Path):
    config = parse({**RUN, "agent": {**RUN["agent"], "preset": preset}})
    result = train(config, tmp_path / "whole", quiet=True)
    train(
        config,
        tmp_path / "parts",
        quiet=True,
        callbacks=[lambda update: update.counters.iterations == 2],
    )
    train(config, tmp_path / "parts", resume=True, quiet=True)
    whole, parts = (
        checkpoints.load(tmp_path / name / "checkpoints" / "latest.pt")
        for name in ("whole", "parts")
    )
    assert whole["counters"]["iterations"] == 4
    assert same(whole["agent"], parts["agent"])
    assert [score["episodes_consumed"] for score in result["scores"].values()] == [[4, 8]] * 3
    warm = parse(
        {**RUN, "agent": {**RUN["agent"], "inner_steps": 2}, "warm_start": str(tmp_path / "whole")}
    )
    best = checkpoints.load(tmp_path / "whole" / "checkpoints" / "best.pt")
    assert same(build(warm)[1].state_dict()["params"], best["agent"]["params"])


def test_a_run_may_show_which_of_its_tasks_it_is(tmp_path: Path):
    shown = {**RUN, "agent": {**RUN["agent"], "task_input": "onehot"}, "iterations": 1}
    with pytest.raises(MetaRLError, match="set train_tasks"):
        train(parse(shown), tmp_path / "a", quiet=True)
    assert set(train(parse({**shown, "train_tasks": 5}), tmp_path / "b", quiet=True)["scores"]) == {
        "train"
    }


@pytest.mark.parametrize("task_input", ["row", "goal", "onehot"])
def test_a_task_that_is_shown_is_seen_before_and_after_adaptation(task_input: str):
    family = make_family("point", horizon=3)
    if task_input == "onehot":
        family.spec = replace(family.spec, task_width=5)
    agent, world = make(family, task_input=task_input), world_of(family, train_tasks=5)
    seen = spy(world)
    agent.iterate(world, Rng(0))
    assert len(seen) == 2
    for belief, rollout in seen:
        known = (
            torch.eye(5)[rollout.index]
            if task_input == "onehot"
            else world.train_set.params[rollout.index]
        )
        assert same(
            rollout.inputs.task, known.view(1, ROWS, 1, -1).expand(*rollout.valid.shape, -1)
        )
        noise = world.train_set[: len(known)].streams(Rng(0), SMALL["episodes_per_task"])
        acted, _ = agent.act(belief, rollout.inputs.obs[0], noise, 0, "greedy")
        blind = replace(belief, row=replace(belief.row, shown=torch.zeros_like(known)))
        assert not same(
            agent.act(blind, rollout.inputs.obs[0], noise, 0, "greedy")[0].action, acted.action
        )


# -------------------------------------------------------------------------------------------------
# Sessions and recordings


def recordings(rollout: Rollout, row: int) -> list[Recording]:
    return [
        Recording(
            obs=torch.cat([episode.inputs.obs, episode.next_obs[-1:]])[:, 0, 0].numpy(),
            action=episode.action[:, 0, 0].numpy(),
            reward=episode.reward[:, 0, 0].numpy(),
            terminated=bool(episode.terminated[-1]),
        )
        for episode in episodes_of(rollout, row)
    ]


@SPACES
@MEMORIES
@pytest.mark.parametrize("task_input", ["none", "goal"])
def test_what_was_recorded_elsewhere_teaches_the_same(memory: str, discrete: bool, task_input: str):
    """From arrays alone, side by side or one episode after the other, where each has an empty
    memory at its start.
    """
    family, lanes = Uneven(discrete), SMALL["episodes_per_task"]
    agent, tasks = (
        make(family, memory=memory, task_input=task_input),
        family.tasks("train", ROWS, Rng(0)),
    )
    rollout, belief = collect(
        agent, family.make(lanes), family.spec, begin(agent, tasks), tasks, 1, Rng(0)
    )
    expected = agent.adapt(belief, rollout)
    for row in range(ROWS):
        for beside in (lanes, 3, 1):
            arrays = recorded(family.spec, recordings(rollout, row), beside)
            told = agent.replay(begin(agent, tasks[row : row + 1], lanes=1), arrays).row
            assert told.steps.tolist() == [1]
            for name, value in expected.row.params.items():
                torch.testing.assert_close(told.params[name][0], value[row], rtol=0, atol=1e-5)


@MEMORIES
def test_a_session_adapts_as_one_of_many_tasks_does(memory: str):
    """Its lanes one after the other; so does one that is told of the same episodes."""
    family, lanes = Uneven(), 10
    agent = make(family, memory=memory, episodes_per_task=lanes)
    tasks = family.tasks("train", 3, Rng(0))[2:]
    rollout, belief = collect(
        agent, family.make(lanes), family.spec, begin(agent, tasks, lanes), tasks, 1, Rng(0)
    )
    expected = agent.adapt(belief, rollout).row.params
    told, own = (Session(agent, family.spec, episodes=2 * lanes) for _ in range(2))
    own.agent = _Puppet(agent, rollout)
    for lane in range(lanes):
        for t in range(int(rollout.valid[:, 0, lane].sum())):
            assert own.act(rollout.inputs.obs[t, 0, lane]) == int(rollout.action[t, 0, lane])
            ended = (bool(flag[t, 0, lane]) for flag in (rollout.terminated, rollout.truncated))
            own.observe(float(rollout.reward[t, 0, lane]), rollout.next_obs[t, 0, lane], *ended)
    own.agent = agent
    told.replay(recordings(rollout, 0))
    for session in (own, told):
        assert session.belief.row.steps.tolist() == [1]
        torch.testing.assert_close(session.belief.row.params, expected, rtol=0, atol=1e-5)
    assert own.act(torch.ones(4)) == told.act(torch.ones(4))
    assert same(own.belief.lane, told.belief.lane)


class _Puppet:
    """Acts as the agent would with the randomness of a rollout [T, 1, M], lane by lane."""

    def __init__(self, agent: MAML, rollout: Rollout) -> None:
        self.agent, self.lanes, self.adapt = agent, agent.lanes, agent.adapt
        self.actions = iter(
            torch.cat([episode.action[:, 0, 0] for episode in episodes_of(rollout, 0)])
        )

    def act(self, belief: Any, *given: Any) -> Any:
        acted, belief = self.agent.act(belief, *given)
        return replace(acted, action=next(self.actions).view(1, 1)), belief


# -------------------------------------------------------------------------------------------------
# Mistakes


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"step_sizes": []}, "step_sizes"),
        ({"step_sizes": [0.1, 0.0]}, "step_sizes"),
        ({"step_sizes": [-0.1]}, "step_sizes"),
        ({"max_kl": 0.0}, "max_kl"),
        ({"episodes_per_task": 0}, "episodes_per_task"),
        ({"inner_steps": -1}, "inner_steps"),
        ({"preset": "promb"}, "promp"),
        ({"outer": "sgd"}, "outer"),
        ({"preset": "reptile", "options": 2}, "adapted to all"),
        ({"preset": "reptile", "pretrained_options": ["runs/a"]}, "adapted to all"),
        (
            {"preset": "famp", "options": 0, "pretrained_options": ["runs/a"]},
            "learn_master to true",
        ),
        ({"task_input": "goal"}, "no goal"),
    ],
)
def test_wrong_options_are_told_in_one_line(options: dict[str, Any], says: str):
    with pytest.raises(MetaRLError, match=says) as told:
        make_agent("maml", make_family("bernoulli-bandit").spec, **options)
    assert "\n" not in str(told.value)


def test_episodes_are_shared_out_evenly_among_the_lanes(tmp_path: Path):
    with pytest.raises(
        MetaRLError,
        match=r"^episodes: 6 cannot be shared out among the 4 lanes of MAML; .* such as 8$",
    ):
        train(parse({**RUN, "episodes": 6}), tmp_path, quiet=True)
    assert not (tmp_path / "config.yaml").exists()
