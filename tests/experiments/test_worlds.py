"""What a run is trained on, and what callbacks are given."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from helpers import same
from test_runs import SMALL, config, numbers, trained

from metarl.collect.world import LocalWorld
from metarl.config.schema import parse, to_dict
from metarl.core.errors import ConfigError, MetaRLError
from metarl.core.rng import Rng
from metarl.experiments.building import build, make_agent, make_family, train_set, world_of
from metarl.experiments.logs import read_metrics
from metarl.experiments.loop import learn
from metarl.experiments.runs import train

OWN = '''
from metarl.collect.world import LocalWorld


class Twice(LocalWorld):
    """Every task twice."""

    def tasks(self, count, rng):
        return super().tasks(count // 2, rng).draw(count, rng)
'''


class Spy(LocalWorld):
    """Remembers how often it was collected from."""

    def __init__(self, *given):
        super().__init__(*given)
        self.collected = 0

    def collect(self, *given):
        self.collected += 1
        return super().collect(*given)


def spy(chosen) -> Spy:
    family, _ = build(chosen)
    return Spy(family, chosen.episodes, train_set(chosen, family), torch.device("cpu"))


def test_an_own_world_is_trained_on_and_counts_its_steps(tmp_path):
    train(config(), tmp_path / "local", quiet=True)
    world = spy(config())
    train(config(), tmp_path / "own", world=world, quiet=True)
    assert world.collected == 6
    assert same(trained(tmp_path / "local")["agent"], trained(tmp_path / "own")["agent"])
    assert trained(tmp_path / "own")["counters"]["env_steps"] == world.env_steps == 360


def test_an_own_world_resumes(tmp_path):
    train(config(), tmp_path / "whole", world=spy(config()), quiet=True)
    stop = [lambda update: update.counters.iterations == 4]
    train(config(), tmp_path / "parts", world=spy(config()), callbacks=stop, quiet=True)
    train(config(), tmp_path / "parts", world=spy(config()), resume=True, quiet=True)
    assert same(trained(tmp_path / "whole")["agent"], trained(tmp_path / "parts")["agent"])


def test_a_configuration_names_a_world(tmp_path):
    (tmp_path / "my_world.py").write_text(OWN)
    chosen = config(world=f"{tmp_path}/my_world.py:Twice")
    family, _ = build(chosen)
    tasks = world_of(chosen, family).tasks(6, Rng(0))
    assert len(tasks.params.unique(dim=0)) == 3
    train(chosen, tmp_path / "run", quiet=True)
    train(config(), tmp_path / "local", quiet=True)
    assert not same(trained(tmp_path / "run")["agent"], trained(tmp_path / "local")["agent"])
    assert parse(to_dict(chosen)).world.name == chosen.world.name
    with pytest.raises(ConfigError, match="world 'locale' is unknown: did you mean 'local'"):
        config(world="locale")


def collect_elsewhere(given):
    """What another process collects with an agent made of an acting state."""
    state, settings, belief, tasks, episodes, rng = pickle.loads(given)
    torch.set_num_threads(1)
    family = make_family("bernoulli-bandit", arms=3)
    agent = make_agent("rl2", family.spec, seed=7, **settings)
    agent.warm_start(state)
    world = LocalWorld(family, 5, None, torch.device("cpu"))
    return pickle.dumps(world.collect(agent, belief, tasks, episodes, rng))


class Remote(LocalWorld):
    """Collects in another process, which is sent the acting state alone."""

    def collect(self, agent, belief, tasks, episodes, rng):
        given = (agent.acting_state(), self.settings, belief, tasks, episodes, rng)
        answer = self.elsewhere.submit(collect_elsewhere, pickle.dumps(given))
        rollout, belief = pickle.loads(answer.result(timeout=100))
        self.env_steps += rollout.env_steps
        return rollout, belief


def test_learning_from_what_actors_collect_in_another_process_is_the_same():
    family = make_family("bernoulli-bandit", arms=3)
    settings = {key: value for key, value in SMALL["agent"].items() if key != "name"}
    states = []
    with ProcessPoolExecutor(1, get_context("spawn")) as elsewhere:
        for kind in (LocalWorld, Remote):
            agent = make_agent("rl2", family.spec, **settings)
            world = kind(family, 5, None, torch.device("cpu"))
            world.settings, world.elsewhere = settings, elsewhere
            for _ in learn(agent, world, Rng(0), iterations=2):
                pass
            states.append(agent.state_dict())
    assert same(*states)


def test_callbacks_see_the_validation_and_what_was_learned(tmp_path):
    seen = []
    result = train(config(), tmp_path, callbacks=[seen.append], quiet=True)
    assert [update.counters.iterations for update in seen] == [1, 2, 3, 4, 5, 6]
    assert [update.validation is not None for update in seen] == 3 * [False, True]
    logged = [record.get("validation") for record in read_metrics(tmp_path)]
    assert [update.validation for update in seen] == logged
    assert all("return" in update.metrics for update in seen)
    assert result["validation"] == max(score for score in logged if score is not None)


def test_an_agent_without_a_return_is_logged_and_shown(tmp_path, monkeypatch, capsys):
    from metarl.agents.rl2.agent import RL2

    iterate = RL2.iterate

    def silent(self, world, rng):
        metrics = iterate(self, world, rng)
        return {"kl": metrics["kl"]}

    monkeypatch.setattr(RL2, "iterate", silent)
    train(config(iterations=2), tmp_path)
    assert "iteration 1  env steps 60" in capsys.readouterr().err
    assert [set(record) >= {"kl", "env_steps"} for record in numbers(tmp_path)] == [True, True]


def test_a_run_folder_says_which_world(tmp_path):
    train(config(iterations=1), tmp_path, quiet=True)
    assert "world:\n  name: local" in Path(tmp_path / "config.yaml").read_text(encoding="utf-8")


class Uncounted(LocalWorld):
    """Forgets to count its steps."""

    env_steps = property(lambda self: 0, lambda self, value: None)


def test_a_world_that_does_not_count_is_named(tmp_path):
    family, _ = build(config())
    world = Uncounted(family, 5, None, torch.device("cpu"))
    limited = parse({**SMALL, "env_steps": 600})
    with pytest.raises(MetaRLError, match="Uncounted counted no steps"):
        train(limited, tmp_path, world=world, quiet=True)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("class Bad:\n    def __init__(self):\n        pass\n", "cannot be made of"),
        ("class Bad:\n    def __init__(self, *given):\n        pass\n", "lacks collect, env_steps"),
        ("def Bad():\n    pass\n", "no class but function"),
    ],
)
def test_a_world_of_the_wrong_shape_is_one_line(tmp_path, source, says):
    (tmp_path / "bad.py").write_text(source)
    with pytest.raises(ConfigError, match=says) as error:
        train(config(world=f"{tmp_path}/bad.py:Bad"), tmp_path / "run", quiet=True)
    assert "\n" not in str(error.value)


def test_a_configuration_can_be_dumped():
    plain = config().model_dump(mode="json")
    assert plain["world"]["name"] == "local"
    assert "found" not in plain["agent"]
