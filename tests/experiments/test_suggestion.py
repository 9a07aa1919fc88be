"""A first configuration for any family: what it says, and that it can be trained."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from helpers import FAMILIES, FILES

from metarl import cli
from metarl.collect.world import LocalWorld
from metarl.config.files import load_config
from metarl.config.registry import find
from metarl.core.errors import ConfigError, FamilyError
from metarl.core.rng import Rng
from metarl.core.types import Spec
from metarl.experiments import suggestion
from metarl.experiments.building import build, train_set
from metarl.experiments.loop import learn
from metarl.experiments.suggestion import _pearl, _Probe, _rl2, _suits_pearl, suggest

SHORT = {  # where the family knows no shorter episodes, few of them are run
    "rl2": ["agent.trials=2", "agent.epochs=1", "agent.minibatches=1"],
    "pearl": ["train_tasks=2", "agent.tasks=1", "agent.initial_episodes=2", "agent.updates=1"],
}
BROKEN = '''
import torch
from metarl import Spec, Tasks


class Broken:
    """Episodes that break at the first step."""

    spec = Spec("broken", {"x": 1}, 2, discrete=True, horizon=3, task_width=1)

    def tasks(self, split, count, rng):
        return Tasks(torch.zeros(count, 1), torch.arange(count), split)

    def make(self, lanes):
        return self

    def reset(self, tasks, rng):
        return torch.zeros(len(tasks), 1, 1)

    def step(self, action):
        raise ValueError("a wheel came off")
'''


@pytest.fixture
def timeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expected time is not measured."""
    monkeypatch.setattr(suggestion, "_minutes", lambda config: 7.0)


def written(tmp_path, name: str, **options: object) -> str:
    """The path of a file that holds the suggestion."""
    path = tmp_path / "suggested.yaml"
    path.write_text(suggest(name, options))
    return str(path)


def metarl(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["metarl", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.mark.usefixtures("timeless")
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gets_one_that_learns(name: str, tmp_path):
    settings = find("family", name).settings
    robot = settings.__module__ == "metarl_envs.robot_config"
    options = {"horizon": 60} if robot or name in ("taxi", "four-rooms") else {}
    path = written(tmp_path, name, **options)
    config = load_config(path, SHORT[load_config(path).agent.name])
    family, agent = build(config)
    world = LocalWorld(family, config.episodes, train_set(config, family), torch.device("cpu"))
    (update,) = learn(agent, world, Rng(0), iterations=1)
    assert update.counters.env_steps > 0


@pytest.mark.usefixtures("timeless")
def test_the_shipped_configurations_are_not_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("metarl.config.files.SHIPPED", tmp_path / "nowhere")
    assert load_config(written(tmp_path, "gridnavi")).agent.name == "rl2"


@pytest.mark.parametrize("name", ["tabular-mdp", "hopper-params", "point"])
def test_it_is_the_same_again_but_for_the_time(name: str, monkeypatch):
    times = iter([7.0, 11.0])
    monkeypatch.setattr(suggestion, "_minutes", lambda config: next(times))
    one, other = suggest(name, {}), suggest(name, {})
    assert "about 7 minutes" in one
    assert one.replace("about 7", "about 11") == other


def test_the_time_is_that_of_training_on():
    short = ["agent.trials=100", "episodes=10"]
    config = load_config("rl2/bernoulli-bandit", short)
    longer = load_config("rl2/bernoulli-bandit", [*short, "env_steps=1_200_000_000"])
    assert 0 < suggestion._minutes(config) < suggestion._minutes(longer) / 20


@pytest.mark.usefixtures("timeless")
@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("bernoulli-bandit", {}, {"episodes": 100, "agent.gamma": 0.99}),
        ("tabular-mdp", {}, {"episodes": 10, "agent.pair_input": True}),
        ("gridnavi", {}, {"episodes": 4, "agent.entropy_coef": (0.05, 0.0)}),
        ("gridnavi", {}, {"agent.normalize_obs": True, "agent.gamma": 0.983}),
        ("gridnavi", {"horizon": 70}, {"episodes": 2, "agent.gamma": 0.99}),
        ("taxi", {}, {"episodes": 1, "agent.normalize_obs": False, "agent.pair_input": False}),
        ("point", {}, {"agent.name": "rl2", "agent.normalize_reward": True}),
        ("point", {"variant": "pearl"}, {"agent.name": "pearl", "agent.gamma": 0.9}),
        ("sparse-point", {}, {"agent.name": "rl2"}),  # nothing to infer before a reward is found
        ("ant-goal", {}, {"agent.name": "pearl", "agent.gamma": 0.99}),  # eight joints
    ],
)
def test_the_choice_follows_from_what_the_family_is_like(name, options, expected, tmp_path):
    config = load_config(written(tmp_path, name, **options))
    values = {"agent.name": config.agent.name, "episodes": config.episodes}
    for key, value in config.agent.settings:
        values[f"agent.{key}"] = value
    assert {key: values[key] for key in expected} == expected


def probe(rewards: list[float], *, terminated: bool = False) -> _Probe:
    """One step of some family for each of `rewards`."""
    spec = Spec("any", {"x": 1}, 2, discrete=True, horizon=9, task_width=1)
    return _Probe(spec, torch.zeros(len(rewards), 1), torch.tensor(rewards), terminated, 1e6)


def test_rewards_are_sparse_where_nearly_all_steps_pay_the_same():
    assert probe([0.0] * 19 + [1.0]).sparse
    assert probe([0.0] * 20).sparse
    assert not probe([0.0] * 15 + [1.0] * 5).sparse
    assert not probe([1.0] * 20, terminated=True).sparse  # to last is what pays
    assert probe([0.0] * 19 + [1.0], terminated=True).sparse


@pytest.mark.parametrize("obs", [1e-8, 1e-3, 0.5, 1.0, 30.0, 1e8])
@pytest.mark.parametrize("reward", [1e-8, 1e-3, 1.0, 100.0, 1e6])
def test_what_is_far_from_1_goes_to_an_agent_that_normalizes_it(obs: float, reward: float):
    """PEARL sees observations and rewards as they are."""
    spec = Spec("any", {"x": 1}, 2, discrete=False, horizon=9, task_width=1)
    values = torch.linspace(-1, 1, 50)
    found = _Probe(spec, obs * values.unsqueeze(-1), reward * values, False, 1e6)
    assert _suits_pearl(found) == (obs <= 100 and 0.01 <= reward <= 1000)
    tree, _ = _rl2(found)
    assert tree["agent"]["normalize_obs"] == (not 0.1 <= obs <= 1)
    assert tree["agent"]["normalize_reward"]


@pytest.mark.parametrize(
    ("speed", "images", "trials", "env_steps"),
    [
        (1e6, {}, 150, 10_000_000),
        (50.0, {}, 20, 1_000_000),
        (200.0, {}, 40, 1_000_000),
        (1e6, {"o": (600, 400, 3)}, 4, 1_000_000),
    ],
    ids=["quick", "slow", "less slow", "large images"],
)
def test_an_iteration_of_a_slow_or_large_family_has_few_trials(speed, images, trials, env_steps):
    width = 720_000 if images else 2
    spec = Spec("f", {"o": width}, 2, True, 50, 1, images=images)
    probe = _Probe(spec, torch.rand(9, width), torch.rand(9), terminated=False, speed=speed)
    tree, _ = _rl2(probe)
    assert (tree["agent"]["trials"], tree["env_steps"]) == (trials, env_steps)


def test_rounding_errors_of_a_constant_reward_are_not_scaled_up():
    spec = Spec("any", {"x": 1}, 8, discrete=False, horizon=9, task_width=1)
    reward = 1 + 6e-8 * torch.randn(50)
    tree, _ = _pearl(_Probe(spec, torch.ones(50, 1), reward, True, 1e6))
    assert tree["agent"]["reward_scale"] == 1


def test_a_file_of_ones_own_is_suggested_for_and_trained(tmp_path, monkeypatch, capsys):
    family = f"{FILES / 'hint.py'}:Hint"
    assert metarl(monkeypatch, "config", "--suggest", family) == 0
    text = capsys.readouterr().out
    for key in ("agent", "episodes", "gamma", "entropy_coef", "normalize_…", "env_steps"):
        assert f"\n# {key}: " in f"\n{text}"
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    words = "env_steps=100 agent.trials=4 validation_tasks=2 test_tasks=2 --quiet --out run"
    assert metarl(monkeypatch, "train", "mine.yaml", *words.split()) == 0
    assert (tmp_path / "run" / "result.json").is_file()


@pytest.mark.usefixtures("timeless")
def test_options_of_the_family_are_written_as_everywhere(monkeypatch, capsys):
    for text in ("horizon=20", "family.horizon=20"):
        assert metarl(monkeypatch, "config", "--suggest", "gridnavi", text) == 0
        assert "\n  horizon: 20\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gridnavy", {}, "family 'gridnavy' is unknown: did you mean 'gridnavi'?"),
        ("gridnavi", {"horizon": -1}, "family.horizon: "),
        ("gridnavi", {"lanes": 1}, "family.lanes: unknown key"),
    ],
)
def test_mistakes_are_named(name, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        suggest(name, options)


def test_a_family_that_breaks_ends_in_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "broken.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    assert metarl(monkeypatch, "config", "--suggest", "broken.py:Broken") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: a wheel came off (broken.py, line 2" in line
    with pytest.raises(FamilyError, match="broken: step 0: ValueError"):
        suggest("broken.py:Broken", {})
