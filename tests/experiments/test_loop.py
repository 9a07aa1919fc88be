"""What ends a training, and what schedules run on."""

from __future__ import annotations

import pytest
import torch
from helpers import CPU, Ragged

from metarl.collect.world import LocalWorld
from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng
from metarl.experiments.building import make_agent, make_family
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

    def acting_state(self):
        return {}


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


# -------------------------------------------------------------------------------------------------
# What diverged


class Diverging(Recording):
    """Whatever it is told is no number any more in the third iteration."""

    def __init__(self, where, value):
        super().__init__()
        self.where, self.value = where, value

    def _number(self, where):
        return self.value if where == self.where and len(self.keys) == 3 else 1.0

    def iterate(self, world, rng):
        return super().iterate(world, rng) | {"value_loss": self._number("metric")}

    def acting_state(self):
        weights = torch.full((2, 3), 3e38)  # finite, though their sum is not
        weights[1, 1] = self._number("parameter")
        return {"params": {"w": weights}, "moments": [self._number("moment")], "count": 7}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("metric", "['metrics']['value_loss']"),
        ("parameter", "['params']['w']"),
        ("moment", "['moments'][0]"),
    ],
)
def test_what_is_no_number_ends_the_training_with_its_name(where, named, value):
    """And nobody, not a callback nor a validation, is given an agent that has diverged."""
    updates = learn(Diverging(where, value), world(), Rng(0), iterations=5)
    next(updates), next(updates)
    with pytest.raises(MetaRLError) as error:
        next(updates)
    message = str(error.value)
    assert f"Diverging: {named} is not finite after iteration 3: " in message
    assert "learning rate" in message
    assert "rewards" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "chosen",
    [
        {"name": "rl2", "trials": 4, "memory_width": 4, "learning_rate": 1e30},
        {"name": "rl2", "trials": 4, "memory": "none", "options": 2, "learning_rate": 1e30},
        {"name": "maml", "preset": "promp", "learning_rate": 1e30},
        {"name": "maml", "preset": "reptile", "step_sizes": [1e38]},
        {"name": "pearl", "updates": 4, "learning_rate": 1e38},
        {"name": "pearl", "updates": 4, "reward_scale": 1e38},
    ],
    ids=["rl2", "options", "promp", "reptile", "pearl rate", "pearl reward"],
)
def test_every_learner_that_diverges_is_found_before_it_acts_again(chosen):
    """In the same iteration: no environment, and no checkpoint, is given what it became."""
    family = make_family("point", horizon=5)
    small = {
        "maml": {"tasks": 3, "episodes_per_task": 2, "inner_steps": 0},
        "pearl": {"tasks": 2, "hidden_sizes": [8], "encoder_sizes": [8], "latent_width": 2},
    }
    options = small.get(chosen["name"], {}) | chosen
    name = options.pop("name")
    agent = make_agent(name, family.spec, 0, **options)
    tasks = family.tasks("train", 3, Rng(0)) if name == "pearl" else None
    place = LocalWorld(family, 4, tasks, CPU)
    with pytest.raises(MetaRLError, match="is not finite after iteration 1"):
        list(learn(agent, place, Rng(0), iterations=3))


def test_what_a_users_agent_raises_is_one_line_with_its_place():
    class Mine(Recording):
        def iterate(self, world, rng):
            raise ValueError("two\nlines")

    with pytest.raises(MetaRLError, match=r"^Mine: ValueError: two lines \(test_loop\.py") as error:
        next(learn(Mine(), world(), Rng(0), iterations=1))
    assert isinstance(error.value.__cause__, ValueError)


def test_what_goes_wrong_in_metarl_itself_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("metarl.core.errors.is_of_user", lambda file: False)

    class Ours(Recording):
        def iterate(self, world, rng):
            raise ValueError("a fault of ours")

    with pytest.raises(ValueError, match="a fault of ours"):
        next(learn(Ours(), world(), Rng(0), iterations=1))
