"""Whether a training is dead, and why: told of the dead, and never of those that learn."""

from __future__ import annotations

import math
import random
import tracemalloc
from typing import Any

import pytest
from helpers import CPU, Affine

from metarl.collect.world import LocalWorld
from metarl.config.schema import parse
from metarl.core.rng import Rng
from metarl.experiments.building import make_agent, make_family
from metarl.experiments.diagnosis import Diagnosis
from metarl.experiments.loop import learn
from metarl.experiments.runs import train


def told(records: list[dict[str, float]]) -> list[tuple[float, str]]:
    """When, and what: over a whole training of these iterations."""
    diagnosis, lines = Diagnosis(), []
    for i, record in enumerate(records, 1):
        if line := diagnosis.read(record, i / len(records)):
            lines.append((i / len(records), line))
    return lines


def history(mean: Any, seed: int = 0, iterations: int = 100, **metrics: Any) -> list[dict]:
    """Returns of deviation 1 around `mean` of progress; metrics are numbers or functions of it."""
    chance = random.Random(seed)
    records = []
    for i in range(iterations):
        progress = i / iterations
        record = {"iteration": i + 1, "return": mean(progress) + chance.gauss(0, 1)}
        for name, value in metrics.items():
            record[name] = value(progress) if callable(value) else value
        records.append(record)
    return records


HEALTHY = {"entropy": lambda p: 1.1 - 0.5 * p, "grad_norm": 0.3, "kl": 0.01, "saturated": 0.1}


@pytest.mark.parametrize("iterations", [12, 40, 100, 1000])
@pytest.mark.parametrize(
    "rise",
    [
        lambda p: 20 * p,
        lambda p: 5.0 if p > 0.02 else -1.0,  # at once
        lambda p: 8 / (1 + math.exp(12 * (0.3 - p))),  # slowly at first
        lambda p: 40 * p * (1 - p),  # lost later
    ],
    ids=["linear", "fast", "late", "hump"],
)
def test_nothing_is_said_of_what_learns(rise: Any, iterations: int):
    for seed in range(20):
        assert not told(history(rise, seed, iterations, **HEALTHY))


def test_what_takes_half_of_the_training_to_begin_is_given_that_time():
    """A fifth is not enough to say that the cause is unknown."""
    for seed in range(20):
        assert not told(history(lambda p: 9.0 if p > 0.4 else 0.0, seed, **HEALTHY))


@pytest.mark.parametrize(
    ("metrics", "advice"),
    [
        ({"saturated": 0.7}, "memory is saturated"),
        ({"grad_norm": lambda p: 0.3 * 10 ** (-20 * p)}, "gradients have vanished"),
        ({"entropy": 1.1}, "raise learning_rate"),
        ({"entropy": lambda p: 1.1 if p < 0.05 else 0.02}, "raise entropy_coef"),
        ({}, "more trials"),
    ],
    ids=["saturated", "vanished", "still", "decided", "unknown"],
)
def test_the_dead_are_told_once_with_the_cause(metrics: dict[str, Any], advice: str):
    """Of forty that only fluctuate nearly all: two standard errors are exceeded by chance."""
    found = 0
    for seed in range(40):
        lines = told(history(lambda p: 0.0, seed, **HEALTHY | metrics))
        assert len(lines) <= 1
        for share, line in lines:
            found += 1
            assert advice in line
            assert share >= (0.2 if metrics else 0.5)
            assert "\n" not in line
    assert found >= 34


def test_a_policy_that_does_not_move_is_dead_whatever_it_earns():
    lines = told(history(lambda p: 30 * p, entropy=1.1, kl=0.0))
    assert [share for share, _ in lines] == [0.2]
    assert "hardly moved" in lines[0][1]


def test_metrics_that_are_not_there_are_no_cause():
    """An agent of one's own logs its return, or not even that."""
    ((share, line),) = told(history(lambda p: 0.0, seed=1))
    assert share >= 0.5
    assert "more trials" in line
    assert not told([{"iteration": i, "return": 0.0} for i in range(5)])
    assert not told([{"iteration": i, "loss": 0.0} for i in range(50)])


# -------------------------------------------------------------------------------------------------
# Trainings


def lines_of(agent: Any, family: Any, iterations: int) -> list[str]:
    world = LocalWorld(family, 10, None, CPU)
    updates = learn(agent, world, Rng(0), iterations=iterations)
    return [line for _, line in told([update.record() for update in updates])]


def bandit_agent(**options: Any) -> Any:
    family = make_family("bernoulli-bandit", arms=3)
    small = {"trials": 100, "memory_width": 16, "minibatches": 2, "epochs": 2, "gae_lambda": 0.9}
    return make_agent("rl2", family.spec, 0, **small | {"learning_rate": 1e-2} | options), family


def test_training_that_learns_is_left_alone():
    assert not lines_of(*bandit_agent(epochs=4), iterations=25)
    family = make_family("point", horizon=10)
    agent = make_agent("maml", family.spec, 0, tasks=5, episodes_per_task=5)
    assert not lines_of(agent, family, 15)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"learning_rate": 0.0}, "hardly moved"),
        ({"max_grad_norm": 1e-10}, "hardly moved"),
        ({"learning_rate": 3.0}, "saturated"),
    ],
    ids=["rate 0", "clipped to nothing", "rate 3"],
)
def test_trainings_that_are_made_to_die(options: dict[str, Any], advice: str):
    (line,) = lines_of(*bandit_agent(**options), iterations=12)
    assert advice in line


def test_a_reward_that_never_changes_is_told():
    agent, family = bandit_agent()
    (line,) = lines_of(agent, Affine(family, 0.0, 1.0), 12)
    assert "every iteration earns the same" in line


def test_inputs_that_drown_the_memory_are_told():
    """Rewards of a million in the cue, not normalized; normalized, it learns."""
    agent, family = bandit_agent()
    (line,) = lines_of(agent, Affine(family, 1e6, 1e6), 25)
    assert "normalize_reward" in line
    agent, _ = bandit_agent(normalize_reward=True, epochs=4)
    assert not lines_of(agent, Affine(family, 1e6, 1e6), 25)


def test_a_run_says_it_on_the_screen_once_and_also_if_it_was_stopped(tmp_path, capsys):
    agent = {"name": "rl2", "memory_width": 4, "trials": 5, "minibatches": 1, "epochs": 1}
    chosen = {
        "agent": {**agent, "learning_rate": 0.0},
        "family": {"name": "bernoulli-bandit", "arms": 3},
        "episodes": 3,
        "iterations": 20,
        "validate_every": 20,
        "validation_tasks": 5,
        "test_tasks": 5,
        "checkpoint_every": 1,
    }
    config, said = parse(chosen), "the policy has hardly moved"
    train(config, tmp_path / "whole")
    assert capsys.readouterr().err.count(said) == 1
    train(config, tmp_path / "two", callbacks=[lambda update: update.counters.iterations == 10])
    assert said not in capsys.readouterr().err
    train(config, tmp_path / "two", resume=True)
    assert capsys.readouterr().err.count(said) == 1
    warm = parse({**chosen, "warm_start": str(tmp_path / "whole")})
    train(warm, tmp_path / "warm")
    assert said not in capsys.readouterr().err


def test_a_long_training_keeps_five_numbers_an_iteration():
    """Whatever it reports; and none after the last look."""
    diagnosis, numbers = Diagnosis(), {f"metric_{i}": 1.0 for i in range(50)}
    tracemalloc.start()
    try:
        for i in range(20_000):
            diagnosis.read({"iteration": i, "return": float(i), **numbers}, progress=0.1)
        used, _ = tracemalloc.get_traced_memory()
        assert used < 20_000 * 5 * 8 * 1.25
        diagnosis.read({"return": 1.0}, progress=0.9)
        before, _ = tracemalloc.get_traced_memory()
        for i in range(20_000):
            diagnosis.read({"return": float(i)}, progress=0.9)
        assert tracemalloc.get_traced_memory()[0] - before < 1000
    finally:
        tracemalloc.stop()
