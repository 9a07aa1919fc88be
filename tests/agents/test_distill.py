"""Distillation: who acts, who is asked, what is learned of it, and what it is good for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import CPU, Ragged, same

import metarl
from metarl.agents.distill.agent import Distill
from metarl.agents.distill.lesson import Lesson
from metarl.collect.collector import collect
from metarl.collect.world import LocalWorld
from metarl.config.schema import parse
from metarl.core.errors import ConfigError
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout, join_steps
from metarl.core.types import replace, tree_map
from metarl.experiments.building import make_agent, make_family

SMALL = {"trials": 12, "memory_width": 8}
EPISODES = 4


def make(teacher: str, family: Family, name: str = "distill", **options: Any) -> Distill:
    return make_agent(name, family.spec, teacher=teacher, **SMALL | options)


def world_of(family: Family, episodes: int = EPISODES) -> LocalWorld:
    return LocalWorld(family, episodes, None, CPU)


def lesson_of(student: Distill, family: Family, students: int, behavior: str = "") -> Rollout:
    world = world_of(family)
    tasks = world.tasks(12, Rng(0))
    teacher = make_agent("thompson", family.spec)
    other = make_agent(behavior, family.spec) if behavior else None
    lesson = Lesson(student, teacher, other, students)
    belief = lesson.begin_in(world, tasks)
    parts = []
    for episode in range(EPISODES):
        rollout, belief = world.collect(lesson, belief, tasks, 1, Rng(episode))
        belief = lesson.adapt(belief, rollout)
        parts.append(rollout)
    return join_steps(parts)


# -------------------------------------------------------------------------------------------------
# Lessons


def test_the_teacher_acts_where_the_student_does_not():
    bandit = make_family("bernoulli-bandit")
    trials = lesson_of(make("thompson", bandit), bandit, students=5)
    label = trials.extras["label"]
    assert same(trials.action[:, 5:], label[:, 5:])
    assert not same(trials.action[:, :5], label[:, :5])


def test_the_teacher_is_asked_while_another_acts():
    bandit = make_family("bernoulli-bandit")
    trials = lesson_of(make("thompson", bandit), bandit, students=0, behavior="random")
    assert not same(trials.action, trials.extras["label"])


def test_the_teacher_learns_from_what_was_really_done():
    """Greedy, told of the outcomes of another's pulls, answers by their posterior means."""
    bandit = make_family("bernoulli-bandit")
    world = world_of(bandit)
    tasks = world.tasks(50, Rng(0))
    greedy, random = make_agent("greedy", bandit.spec), make_agent("random", bandit.spec)
    lesson = Lesson(make("greedy", bandit), greedy, random, 0)
    belief = lesson.begin_in(world, tasks)
    pulls, wins = torch.zeros(50, 5), torch.zeros(50, 5)
    for episode in range(20):
        rollout, belief = world.collect(lesson, belief, tasks, 1, Rng(episode))
        belief = lesson.adapt(belief, rollout)
        mean = (wins + 1) / (pulls + 2)
        label = rollout.extras["label"][0, :, 0]
        assert same(mean.gather(1, label.unsqueeze(1)).squeeze(1), mean.amax(1))
        pulled = torch.nn.functional.one_hot(rollout.action[0, :, 0], 5)
        pulls += pulled
        wins += pulled * rollout.reward[0]


def test_a_teacher_is_shown_the_task_and_the_student_is_not():
    bandit = make_family("bernoulli-bandit")
    world = world_of(bandit)
    tasks = world.tasks(12, Rng(0))
    student = make("best-arm", bandit)
    lesson = Lesson(student, make_agent("best-arm", bandit.spec), None, 0)
    rollout, _ = world.collect(lesson, lesson.begin_in(world, tasks), tasks, 1, Rng(0))
    assert same(rollout.extras["label"][0, :, 0], tasks.params.argmax(-1))
    assert rollout.inputs.task is None
    assert student.begin(world.task_info(student, tasks), 1).row is None


def test_episodes_of_unequal_length_are_joined_without_gaps():
    """Random actions by address: what was lived through in one piece, and in parts."""
    family, agent = Ragged(), make_agent("random", Ragged().spec)
    tasks = family.tasks("train", 6, Rng(0))
    belief = agent.begin(metarl.TaskInfo(6, 3, CPU), 1)
    env = family.make(1)
    parts = []
    for episode in range(3):
        part, belief = collect(agent, env, family.spec, belief, tasks, 1, Rng(episode))
        parts.append(part)
    joined = join_steps(parts)
    assert int(joined.valid.sum()) == sum(part.env_steps for part in parts)
    assert not (joined.valid[1:] & ~joined.valid[:-1]).any()
    for row in range(6):
        for name in ("reward", "action", "terminated"):
            own = torch.cat([vars(part)[name][part.valid[:, row, 0], row, 0] for part in parts])
            assert same(vars(joined)[name][joined.valid[:, row, 0], row, 0], own)


# -------------------------------------------------------------------------------------------------
# Learning


def test_the_loss_is_the_cross_entropy_of_the_teachers_actions():
    family = Ragged()
    student = make("random", family, epochs=1, minibatches=1, learning_rate=0.0)
    tasks = family.tasks("train", 6, Rng(0))
    trials, _ = collect(
        make_agent("rl2", family.spec, memory_width=8),
        family.make(1),
        family.spec,
        make_agent("rl2", family.spec, memory_width=8).begin(metarl.TaskInfo(6, 3, CPU), 1),
        tasks,
        3,
        Rng(0),
    )
    assert not trials.valid.all()
    spoiled = replace(trials, reward=torch.where(trials.valid, trials.reward, 99.0))
    metrics = student.imitation.update(spoiled, trials.action, 0.0, Rng(0).generator())
    unrolled = student.policy.unroll(student.params, trials.inputs, student.policy.start(6, 1, CPU))
    log_prob = unrolled.actions.log_prob(trials.action)
    expected = -log_prob.detach()[trials.valid].mean()
    assert metrics["imitation_loss"] == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("memory", ["gru", "keyed", "slots", "transformer"])
def test_what_the_history_tells_is_learned(memory: str):
    """The greedy rule's arm follows from the pulls so far: it is often found."""
    bandit = make_family("bernoulli-bandit", arms=2)
    student = make(
        "greedy", bandit, name="dagger", memory=memory, trials=100, learning_rate=1e-2, epochs=2
    )
    world = world_of(bandit, episodes=6)
    logged = [student.iterate(world, Rng(i)) for i in range(25)]
    assert logged[-1]["accuracy"] > max(0.85, logged[0]["accuracy"] + 0.03)
    assert logged[-1]["imitation_loss"] < logged[0]["imitation_loss"] / 2
    assert world.env_steps == 25 * 100 * 6


def test_rl2_goes_on_from_a_distilled_run(tmp_path):
    chosen = {
        "agent": {"name": "ad", "teacher": "ucb1", **SMALL},
        "family": "bernoulli-bandit",
        "episodes": 5,
        "iterations": 2,
        "validation_tasks": 10,
        "test_tasks": 10,
    }
    metarl.train(parse(chosen), tmp_path / "ad", quiet=True)
    distilled = metarl.load(tmp_path / "ad").agent
    agent = {"name": "rl2", "trials": 6, "memory_width": 8, "learning_rate": 0.0}
    changes = {"agent": agent, "warm_start": str(tmp_path / "ad"), "iterations": 1}
    metarl.train(parse(chosen | changes), tmp_path / "rl2", quiet=True)
    assert same(metarl.load(tmp_path / "rl2").agent.params, tree_map(torch.clone, distilled.params))


# -------------------------------------------------------------------------------------------------
# Mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "agent.teacher: name who is imitated"),
        ({"teacher": "nobody"}, "nobody"),
        ({"teacher": "ucb1", "behavior": "psrls"}, "psrls"),
        ({"teacher": "maml"}, "MAML adapts on 20 episodes side by side"),
        ({"teacher": "value-iteration"}, "needs a tabular MDP"),
    ],
)
def test_a_mistake_is_one_clear_line(options: dict[str, str], words: str):
    bandit = make_family("bernoulli-bandit")
    with pytest.raises(ConfigError, match=words):
        make_agent("distill", bandit.spec, **SMALL, **options).iterate(world_of(bandit), Rng(0))


def test_a_teacher_of_another_shape_is_refused(tmp_path):
    run = {
        "agent": {"name": "rl2", "trials": 4, "memory_width": 4, "minibatches": 1},
        "family": "point",
        "episodes": 1,
        "iterations": 1,
        "validation_tasks": 4,
        "test_tasks": 4,
    }
    metarl.train(parse(run), tmp_path / "run", quiet=True)
    bandit = make_family("bernoulli-bandit")
    with pytest.raises(ConfigError, match=r"agent.teacher: .* was trained on point"):
        make(str(tmp_path / "run"), bandit).iterate(world_of(bandit), Rng(0))


# -------------------------------------------------------------------------------------------------
# Against theory


@pytest.fixture(scope="module")
def dpt() -> Distill:
    """Asked for the best of five arms, in ten pulls that are its own or Thompson's."""
    bandit = make_family("bernoulli-bandit")
    agent = make(
        "best-arm",
        bandit,
        name="dpt",
        behavior="thompson",
        student_share=0.5,
        memory="slots",
        memory_width=32,
        trials=500,
        learning_rate=(5e-3, 0.0),
    )
    world = world_of(bandit, episodes=10)
    for i in range(80):
        world.progress = i / 80
        agent.iterate(world, Rng(i))
    return agent


@pytest.mark.learning
@pytest.mark.parametrize(
    ("mode", "ideal"),
    [("sample", 5.83), ("greedy", 6.67)],  # of the posterior probability that an arm is the best
)
def test_dpt_is_the_posterior_of_the_best_arm(mode: Any, ideal: float, dpt: Distill):
    """Sampled, it is Thompson sampling (computed: 5.83); its mode earns 6.67."""
    bandit = make_family("bernoulli-bandit")
    scores = metarl.evaluate(dpt, bandit, episodes=10, tasks=20_000, mode=mode)
    assert float(scores.figure("total").mean()) == pytest.approx(ideal, abs=0.04)
    if mode == "sample":
        thompson = make_agent("thompson", bandit.spec)
        expected = metarl.evaluate(thompson, bandit, episodes=10, tasks=20_000)
        found = float(scores.figure("total").mean() / expected.figure("total").mean())
        assert found == pytest.approx(1.0, abs=0.005)
