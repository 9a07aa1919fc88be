"""PEARL's iterations: recent context, everything else, tasks that are shown, and runs (SPECS 1.4,
items 7, 11).
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from helpers import Ragged, same
from pearl_by_hand import ROWS, SPACES, ByHand, Dense, held, lived, make, spy, steps_of, world_of
from torch import Tensor

from metarl.config.files import load_config
from metarl.config.schema import parse
from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Inputs, replace
from metarl.evaluation.meta_test import evaluate
from metarl.experiments import checkpoints
from metarl.experiments.building import build, load, make_agent, make_family, train_set
from metarl.experiments.logs import read_metrics
from metarl.experiments.runs import train

# -------------------------------------------------------------------------------------------------
# 7. What critics and encoder learn from


def ids(obs: Tensor) -> set[float]:
    """Every observation has a number of its own."""
    return set(obs[..., 3].flatten().tolist())


def lived_ids(rollout: Rollout, task: int) -> set[float]:
    mine = rollout.valid & (rollout.index == task).view(1, -1, 1)
    return ids(rollout.inputs.obs[mine])


@pytest.mark.parametrize(("posterior", "known"), [(0, 5), (2, 5), (1, 2)])
def test_critics_learn_from_everything_and_the_encoder_from_the_recent_context(
    posterior: int, known: int
):
    """A visit clears its tasks' context, and nothing else; episodes with what was inferred are
    context, extra ones not.

    Where three are visited and but two are known, one is visited twice at once.
    """
    family, world, counts = Dense(), world_of(Dense(), known), [2] + [1] * (posterior + 2)
    agent = make(
        family,
        tasks=3,
        posterior_episodes=posterior,
        extra_episodes=2,
        updates=12,
        meta_batch_size=9,
        batch_size=400,
        context_size=300,
    )
    seen = spy(world, "collect", lambda *given: given[-1][0])
    learned = spy(agent, "_update", lambda batch, context, *_: (batch, context))
    everything, recent = ({task: set() for task in range(known)} for _ in range(2))
    for iteration in range(4):
        seen.clear(), learned.clear()
        agent.iterate(world, Rng(iteration))
        visits = [seen] if iteration else [seen[:1], seen[1:]]
        assert [rollout.episode_returns().shape[0] for rollout in visits[-1]] == counts
        assert [len(rollout.index) for rollout in seen] == [known] * (iteration == 0) + [3] * len(
            counts
        )
        for rollouts in visits:
            for task in rollouts[0].index.tolist():
                everything[task] |= set().union(*(lived_ids(x, task) for x in rollouts))
                recent[task] = set().union(*(lived_ids(x, task) for x in rollouts[: 1 + posterior]))
        drawn, shown = ({task: set() for task in range(known)} for _ in range(2))
        for batch, context in learned:
            assert (batch.reward.shape, context.reward.shape) == ((9, 400), (9, 300))
            for i, task in enumerate(batch.obs[:, 0, 0].tolist()):
                assert (batch.obs[i, :, 0] == task).all()
                assert (context.obs[i, :, 0] == task).all()
                drawn[task] |= ids(batch.obs[i])
                shown[task] |= ids(context.obs[i])
        assert drawn == everything
        assert shown == recent
    assert agent.buffer.count.tolist() == [len(everything[task]) for task in range(known)], (
        "chance that came twice"
    )


def test_a_visit_explores_then_follows_what_it_inferred():
    """The first episodes of a visit begin from the prior, and each of the rest from all that it saw
    before.
    """
    family = Dense()
    agent = make(family, exploration_episodes=2)
    world = world_of(family)
    seen = spy(world, "collect", lambda agent, belief, *rest: (belief, rest[-1][0]))
    agent.iterate(world, Rng(0))
    assert [belief.row.episodes[0].item() for belief, _ in seen] == [0, 0, 2, 3]
    fresh = make(family, exploration_episodes=2)
    for row in range(2):
        steps: list[tuple[Tensor, ...]] = []
        for belief, rollout in seen[1:]:
            held(fresh, row, steps, belief)
            steps += steps_of(rollout, row)


def test_a_time_limit_is_no_end_and_both_rewards_are_kept():
    """11: five steps are more than the horizon; critics learn from the dense reward, the encoder
    from the other.
    """
    family = Dense()
    agent, world = make(family, batch_size=300, context_size=300), world_of(family)
    learned = spy(agent, "_update", lambda batch, context, *_: (batch, context))
    rollouts = spy(world, "collect", lambda *given: given[-1][0])
    agent.iterate(world, Rng(0))
    paid = {
        float(obs[3]): (float(reward), float(training))
        for rollout in rollouts
        for obs, reward, training in zip(
            rollout.inputs.obs[rollout.valid],
            rollout.reward[rollout.valid],
            rollout.training_reward[rollout.valid],
            strict=True,
        )
    }
    truncated = 0
    for batch, context in learned:
        for part in (batch, context):
            task, episode, step, _ = part.obs.long().unbind(-1)
            length = family.ragged.length(task, episode)
            assert torch.equal(part.terminated, step + 1 == length)
            assert torch.equal(
                part.next_obs[..., :3], torch.stack([task, episode, step + 1], dim=-1).float()
            )
            truncated += int((step == 3).sum() - (length == 4)[step == 3].sum())
            there = [paid[x] for x in part.obs[..., 3].flatten().tolist()]
            rewards = zip(
                part.reward.flatten().tolist(), part.training_reward.flatten().tolist(), strict=True
            )
            assert list(rewards) == there
    assert truncated > 10


@pytest.mark.parametrize("following", [0, 2])
def test_returns_are_those_of_what_was_collected(following: int):
    family = Dense()
    agent, world = make(family, posterior_episodes=0, extra_episodes=following), world_of(family)
    seen = spy(world, "collect", lambda *given: given[-1][0])
    metrics = agent.iterate(world, Rng(0))
    means = [float((x.reward * x.valid).sum() / (x.done & x.valid).sum()) for x in seen[1:]]
    assert metrics["first_return"] == pytest.approx(means[0], rel=1e-5)
    assert metrics["last_return"] == metrics["return"] == pytest.approx(means[-1], rel=1e-5)
    assert len(means) == 1 + following


# -------------------------------------------------------------------------------------------------
# Agents that are shown the task


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("shown", ["row", "goal", "onehot"])
def test_what_is_shown_is_the_task_of_the_transition(shown: str, shuffled: bool):
    """Finite families hand out rows in any order: a task's number is not its place among the
    training tasks.
    """
    family = Dense(shuffled=shuffled)
    spec = replace(family.spec, task_width=10 if shown == "onehot" else 1)
    agent = make_agent(
        "pearl",
        spec,
        preset="sac",
        task_input=shown,
        hidden_sizes=(8,),
        updates=6,
        meta_batch_size=8,
        tasks=3,
        initial_episodes=1,
    )
    world = world_of(family, train_tasks=10)
    learned = spy(agent, "_update", lambda batch, context, *_: (batch, context))
    rollouts = spy(world, "collect", lambda *given: given[-1][0])
    agent.iterate(world, Rng(0))
    meant = {}
    for rollout in rollouts:
        for row, task in enumerate(rollout.index.tolist()):
            meant[float(task)] = rollout.inputs.task[0, row, 0]
    assert len({tuple(each.tolist()) for each in meant.values()}) == 10
    for batch, context in learned:
        assert context is None
        expected = torch.stack([meant[float(task)] for task in batch.obs[:, 0, 0]])
        assert torch.equal(batch.task, expected.unsqueeze(1).expand_as(batch.task))
        assert (batch.obs[..., 0] == batch.obs[:, :1, 0]).all()


def test_training_tasks_are_numbered_by_their_place():
    """Also where the family hands out some of its own in any order, or has fewer than are asked
    for.
    """
    for count in (3, 200):
        config = load_config("pearl/sparse-point-short", [f"train_tasks={count}"])
        tasks = train_set(config, build(config)[0])
        assert tasks.index.tolist() == list(range(count))
        assert tasks.copy is None
        assert len(tasks.params.unique(dim=0)) == min(count, 80)


@SPACES
@pytest.mark.parametrize("shown", ["row", "goal"])
def test_sac_sees_the_task_and_infers_nothing(discrete: bool, shown: str):
    family = Dense(discrete)
    agent = make(
        family, **{"preset": "sac", "task_input": shown, "latent_width": 0, "extra_episodes": 0}
    )
    assert not any(name.startswith("encoder") for name in agent.params)
    rollout, belief = lived(agent, family, mode="greedy")
    assert torch.equal(rollout.inputs.task[0, :, 0], family.tasks("test", ROWS, Rng(0)).params)
    after, obs = agent.adapt(belief, rollout), torch.randn(ROWS, 1, 4)
    noise = family.tasks("test", ROWS, Rng(0)).streams(Rng(1), 1)
    acted, again = (agent.act(each, obs, noise, 0, "sample")[0] for each in (belief, after))
    assert same(acted, again)
    policy, q = ByHand(agent).policy, ByHand(agent).q1
    inputs = Inputs(obs[:, 0], task=torch.arange(float(ROWS)).view(-1, 1)).flat().double()
    other = torch.cat([inputs[:, :-1], 1 + inputs[:, -1:]], dim=-1)
    action = torch.zeros(ROWS, 0 if discrete else 2).double()
    assert not torch.allclose(policy(inputs), policy(other))
    assert not torch.allclose(q(torch.cat([inputs, action], -1)), q(torch.cat([other, action], -1)))


def test_hindsight_tells_of_goals_that_were_achieved_later():
    """What is paid is what the shown goal pays, for critics and all; about as many are told again
    as asked for.
    """
    family = make_family("point", variant="pearl", horizon=5)
    agent = make_agent(
        "pearl",
        family.spec,
        preset="sac",
        task_input="goal",
        hindsight=0.3,
        hidden_sizes=(8,),
        updates=3,
        batch_size=500,
        meta_batch_size=4,
        initial_episodes=2,
        tasks=2,
    )
    world = world_of(family, 5)
    learned = spy(agent, "_update", lambda batch, *_: batch)
    rollouts = spy(world, "collect", lambda *given: given[-1][0])
    agent.iterate(world, Rng(0))
    achieved = {tuple(x) for rollout in rollouts for x in rollout.next_obs[rollout.valid].tolist()}
    goals = {tuple(x) for x in world.train_set.params.tolist()}
    for batch in learned:
        expected = family.goal_reward(batch.next_obs, batch.task)
        for reward in (batch.reward, batch.training_reward):
            torch.testing.assert_close(reward, expected)
        told = [tuple(x) for x in batch.task.flatten(0, 1).tolist()]
        again = [x in achieved for x in told]
        assert all(x in goals for x, new in zip(told, again, strict=True) if not new)
        assert abs(sum(again) / len(again) - 0.3) < 0.05


def one_line(culprit: str, act: Any) -> None:
    with pytest.raises(MetaRLError, match=culprit) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_those_that_follow_must_know_the_posterior():
    agent = {"name": "pearl", "exploration_episodes": 3, "prior_episodes": 2}
    one_line(
        r"^configuration: agent\.extra_episodes: what follows fewer prior_episodes \(2\) than "
        r"exploration_episodes \(3\) knows no posterior; raise prior_episodes",
        lambda: parse(small() | {"agent": agent}),
    )
    parse(small() | {"agent": agent | {"extra_episodes": 0}})
    parse(small() | {"agent": agent | {"prior_episodes": 3}})


@pytest.mark.parametrize("weight", [-0.1, [0.1, -0.1]])
def test_a_divergence_cannot_be_paid_for(weight: Any):
    agent = {"name": "pearl", "kl_coef": weight}
    line = r"agent\.kl_coef\S*: input should be greater than or equal to 0, not -0\.1"
    one_line(line, lambda: parse(small() | {"agent": agent}))


def test_what_cannot_be_is_told_in_one_line():
    point, bare = make_family("point"), Dense()
    hindsight = {"preset": "sac", "hindsight": 0.5}
    for spec, options in (
        (point.spec, {}),
        (point.spec, {"task_input": "onehot"}),
        (bare.spec, {"task_input": "goal"}),
    ):
        one_line(
            "^hindsight: .*goal", lambda s=spec, o=options: make_agent("pearl", s, **hindsight | o)
        )
    unpaid = replace(Ragged().spec, goal_width=1, achieved_goal="task")
    agent = make_agent("pearl", unpaid, **hindsight, task_input="goal", updates=1)
    one_line(
        "^hindsight: ragged needs a method goal_reward",
        lambda: agent.iterate(world_of(bare), Rng(0)),
    )
    one_line("^train_tasks: ", lambda: make(bare).iterate(world_of(bare, None), Rng(0)))
    one_line("set train_tasks", lambda: build(parse(small() | {"train_tasks": None})))
    tiny = make(bare, capacity=1, extra_episodes=1)
    one_line("enlarge agent.capacity", lambda: tiny.iterate(world_of(bare), Rng(0)))


# -------------------------------------------------------------------------------------------------
# Keeping


def small(**options: Any) -> dict[str, Any]:
    """A run of moments."""
    agent = {
        "name": "pearl",
        "latent_width": 2,
        "encoder_sizes": [6],
        "hidden_sizes": [8],
        "tasks": 2,
        "initial_episodes": 2,
        "prior_episodes": 1,
        "posterior_episodes": 1,
        "extra_episodes": 1,
        "updates": 3,
        "meta_batch_size": 3,
        "batch_size": 8,
        "context_size": 6,
        "learn_temperature": True,
        "learning_rate": [0.01, 0.001],
        "capacity": 45,
    }
    return {
        "agent": agent | options,
        "family": {"name": "point", "variant": "pearl", "horizon": 6},
        "train_tasks": 4,
        "episodes": 3,
        "iterations": 4,
        "validate_every": 2,
        "validation_tasks": 4,
        "test_tasks": 4,
        "checkpoint_every": 1,
        "mode": "greedy",
        "score": "last",
    }


def latest(folder: Any) -> dict[str, Any]:
    return checkpoints.load(folder / "checkpoints" / "latest.pt")


def written(state: dict[str, Any]) -> Any:
    """All of an agent's state, without the places of the replay that nothing was written to."""
    rows, count = state["replay"]["rows"], state["replay"]["count"]
    there = torch.arange(rows.shape[1]) < count.unsqueeze(1)
    return state | {"replay": state["replay"] | {"rows": rows[there]}}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "teacher": "task",
            "factors": "natural",
            "context_sampling": "prefixes",
            "context_visits": 3,
            "context_dropout": 0.5,
            "exploration_mode": "sample",
            "mean_below": 0.5,
        },
        {"teacher": "outcomes", "context_sampling": "prefixes", "factors": "natural"},
    ],
    ids=["none", "task", "outcomes"],
)
def test_a_run_stopped_after_any_iteration_goes_on_as_if_it_had_not_been(
    tmp_path, options: dict[str, Any]
):
    """Parameters, targets, temperature, optimizers, transitions, which have wrapped around, and
    marks of the contexts; with any teacher.
    """
    config = parse(small(**options))
    train(config, tmp_path / "whole", quiet=True)
    expected = latest(tmp_path / "whole")["agent"]
    assert (expected["replay"]["count"] > 45).any()
    for stop in (1, 2, 3, 9):
        stopped = [lambda update, stop=stop: update.counters.iterations == stop]
        train(config, tmp_path / "parts", resume=stop > 1, quiet=True, callbacks=stopped)
        assert latest(tmp_path / "parts")["counters"]["iterations"] == min(stop, 4)
    assert same(written(latest(tmp_path / "parts")["agent"]), written(expected))
    numbers = [
        [
            {k: v for k, v in record.items() if "second" not in k}
            for record in read_metrics(tmp_path / name)
        ]
        for name in ("parts", "whole")
    ]
    assert numbers[0] == numbers[1]


def test_the_best_checkpoint_holds_no_replay_and_is_evaluated_all_the_same(tmp_path):
    config = parse(small())
    result = train(config, tmp_path, quiet=True)
    assert "replay" in latest(tmp_path)["agent"]
    assert "replay" not in checkpoints.load(tmp_path / "checkpoints" / "best.pt")["agent"]
    loaded = load(tmp_path)
    assert len(loaded.agent.buffer) == 0
    again = evaluate(loaded.agent, loaded.family(), loaded.protocol(split="test", tasks=4))
    assert again.to_dict()["returns"] == result["scores"]["test"]["returns"]
    _, agent = build(config.model_copy(update={"warm_start": tmp_path}))
    best = checkpoints.load(tmp_path / "checkpoints" / "best.pt")["agent"]
    state = agent.state_dict()
    assert same(state["params"], best["params"])
    assert same(state["targets"], {name: best["params"][name] for name in state["targets"]})
    assert not same(state["targets"], best["targets"])
    assert all(optimizer["state"] == {} for optimizer in state["optimisers"])
    assert len(agent.buffer) == agent.buffer.tasks == 0
    agent.iterate(world_of(loaded.family(), 4), Rng(0))
    assert len(agent.buffer) > 0


def test_a_state_is_a_copy_and_another_architecture_is_refused():
    family, world = Dense(), world_of(Dense())
    agent = make(family, learn_temperature=True)
    agent.iterate(world, Rng(0))
    state = agent.state_dict()
    kept = copy.deepcopy({name: value for name, value in state.items() if name != "replay"})
    frozen = copy.deepcopy(state)
    agent.iterate(world, Rng(1))
    assert same({name: state[name] for name in kept}, kept)
    other = make(family, seed=1, learn_temperature=True)
    other.load_state_dict(frozen)
    other.iterate(world_of(family), Rng(1))
    assert same(written(other.state_dict()), written(agent.state_dict()))
    agent.warm_start(state)
    assert len(agent.buffer) == 0, "what was lived through with other parameters"
    assert same(agent.sac.targets, {name: state["params"][name] for name in agent.sac.targets})
    with pytest.raises(MetaRLError, match="in the checkpoint and"):
        make(family, hidden_sizes=(9,)).warm_start(state)
