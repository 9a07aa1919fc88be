"""What ends a training, and what schedules run on."""

from __future__ import annotations

import pytest
from helpers import CPU, Ragged

from metarl.collect.world import LocalWorld
from metarl.core.rng import Rng
from metarl.experiments.counters import Counters
from metarl.experiments.loop import learn


class Recording:
    """Learns nothing, takes a hundred steps an iteration and remembers what it was given."""

    def __init__(self):
        self.progress, self.keys = [], []

    def iterate(self, world, rng):
        world.env_steps += 100
        self.progress.append(world.progress)
        self.keys.append(rng.key)
        return {"return": 0.0}


def world():
    return LocalWorld(Ragged(), 1, None, CPU)


def test_progress_is_the_share_of_the_nearest_limit():
    counters = Counters(iterations=3, env_steps=500, seconds=30.0)
    assert counters.progress(env_steps=1000, iterations=None, minutes=None) == 0.5
    assert counters.progress(env_steps=1000, iterations=4, minutes=None) == 0.75
    assert counters.progress(env_steps=1000, iterations=4, minutes=0.5) == 1.0


@pytest.mark.parametrize(
    ("limits", "iterations"), [({"iterations": 4}, 4), ({"env_steps": 250}, 3)]
)
def test_training_ends_at_the_limit(limits, iterations):
    agent = Recording()
    updates = list(learn(agent, world(), Rng(0), **limits))
    assert [update.counters.iterations for update in updates] == list(range(1, iterations + 1))
    assert updates[-1].counters.env_steps == 100 * iterations
    assert agent.progress[0] == 0
    assert agent.progress == sorted(agent.progress)
    assert agent.progress[-1] < 1


def test_chance_and_progress_of_an_iteration_depend_on_its_number_alone():
    whole, part = Recording(), Recording()
    list(learn(whole, world(), Rng(0), iterations=5))
    list(learn(part, world(), Rng(0), iterations=5, start=Counters(iterations=3, env_steps=300)))
    assert part.keys == whole.keys[3:]
    assert part.progress == whole.progress[3:]
    assert len(set(whole.keys)) == 5
