"""Opening a run executes only code that its user trained with; the run keeps copies of it."""

from __future__ import annotations

import json
import shutil

import pytest

from metarl.config.schema import parse
from metarl.core.errors import CheckpointError, ConfigError
from metarl.evaluation.meta_test import evaluate
from metarl.experiments import checkpoints
from metarl.experiments.building import load
from metarl.experiments.runs import train

FAMILY = '''
from limits import LOW
from pathlib import Path
import metarl
from metarl_envs.bandit import BernoulliBandit
from metarl_envs.config import BernoulliBanditConfig

with Path("{mark}").open("a") as mark:
    mark.write("x")


class Mine(BernoulliBandit):
    """Bandits."""

    Settings = metarl.Settings

    def __init__(self):
        super().__init__(BernoulliBanditConfig(arms=LOW))
'''


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user with a family, a helper beside it, and a run that was trained with them."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "mine.py").write_text(FAMILY.format(mark=tmp_path / "executed"))
    (folder / "limits.py").write_text("LOW = 3\n")
    monkeypatch.chdir(folder)
    train(config("mine.py:Mine"), "run", quiet=True)
    return folder


def config(family, **changes):
    agent = {"name": "rl2", "memory_width": 4, "trials": 4, "minibatches": 1, "epochs": 1}
    small = {"episodes": 2, "iterations": 1, "validation_tasks": 4, "test_tasks": 4}
    return parse({"agent": agent, "family": family, **small, **changes})


def executed(tmp_path):
    """How often the family's file was executed since the last time."""
    mark = tmp_path / "executed"
    count = len(mark.read_text()) if mark.exists() else 0
    mark.unlink(missing_ok=True)
    return count


@pytest.fixture(autouse=True)
def forget_modules(monkeypatch):
    """Every load imports anew, as another process does."""
    import sys

    from metarl.config import registry

    real = registry._from_file

    def fresh(kind, name):
        for module in [name for name in sys.modules if name.startswith("metarl_file_")]:
            del sys.modules[module]
        return real(kind, name)

    monkeypatch.setattr(registry, "_from_file", fresh)


def test_a_run_is_opened_from_any_working_directory(home, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = load("../home/run")
    scores = evaluate(loaded.agent, loaded.family(), loaded.protocol(tasks=4))
    assert scores.returns.shape == (1, 2, 4)
    resumed = train(config("../home/mine.py:Mine", iterations=2), "../home/run", resume=True)
    assert resumed["last"]["iteration"] == 2


def test_a_moved_run_is_opened_where_the_file_stayed(home, tmp_path):
    (home / "run").rename(tmp_path / "moved")
    assert load(tmp_path / "moved").family().spec.action_width == 3


def test_a_run_keeps_the_file_and_the_helpers_beside_it(home):
    copies = home / "run" / "code" / "family"
    assert {path.name for path in copies.iterdir()} == {"mine.py", "limits.py"}
    assert (copies / "mine.py").read_bytes() == (home / "mine.py").read_bytes()


def change(home):
    (home / "mine.py").write_text((home / "mine.py").read_text() + "# changed\n")


def remove(home):
    (home / "mine.py").unlink()


def forge(home):
    """A checkpoint that names another file, and says that it is the one of the training."""
    (home / "evil.py").write_text((home / "mine.py").read_text())
    path = home / "run" / "checkpoints" / "best.pt"
    content = checkpoints.load(path)
    known = content["code"]["files"].pop("mine.py:Mine")
    content["config"]["family"]["name"] = "evil.py:Mine"
    content["code"]["files"]["evil.py:Mine"] = known | {"path": str(home / "evil.py")}
    checkpoints.save(path, content)


def strip(home):
    """A checkpoint of somebody who says nothing of the file."""
    path = home / "run" / "checkpoints" / "best.pt"
    content = checkpoints.load(path)
    del content["code"]
    checkpoints.save(path, content)


def change_user(home):
    (home.parent / "state" / "metarl" / "key").write_bytes(b"another user's")


@pytest.mark.parametrize(
    ("happened", "says"),
    [
        (change, "has changed since"),
        (remove, "is gone"),
        (forge, "you did not train with"),
        (strip, "you did not train with"),
        (change_user, "you did not train with"),
    ],
)
def test_other_code_is_executed_only_where_it_is_trusted(happened, says, home, tmp_path):
    happened(home)
    executed(tmp_path)
    loaded = load("run")
    assert loaded.agent.spec.action_width == 3, "the agent needs none of it"
    with pytest.raises(ConfigError, match=f"{says}.*--trust.*family="):
        loaded.family()
    assert executed(tmp_path) == 0
    assert load("run", trust=True).family().spec.action_width == 3
    assert executed(tmp_path) == 1


def test_another_family_may_be_given(home, tmp_path):
    (home / "mine.py").rename(tmp_path / "given.py")
    shutil.copy(home / "limits.py", tmp_path)
    given = load("run", family=f"{tmp_path}/given.py:Mine")
    assert given.family().spec.action_width == 3
    with pytest.raises(ConfigError, match=r"there is no file .*nowhere\.py"):
        load("run", family="nowhere.py:Mine").family()


def test_the_configuration_in_the_folder_is_not_imported(home, tmp_path):
    """Neither by who resumes, nor by who draws curves."""
    from metarl.viz.learning import draw_learning_curve

    text = (home / "run" / "config.yaml").read_text(encoding="utf-8")
    (home / "evil.py").write_text(FAMILY.format(mark=tmp_path / "evil"))
    evil = text.replace("mine.py:Mine", "evil.py:Mine")
    (home / "run" / "config.yaml").write_text(evil, encoding="utf-8")
    train(config("mine.py:Mine", iterations=2), "run", resume=True, quiet=True)
    (home / "run" / "config.yaml").write_text(evil, encoding="utf-8")
    draw_learning_curve([home / "run"], tmp_path)
    assert not (tmp_path / "evil").exists()


def test_who_resumes_with_changed_code_is_told(home, capsys):
    change(home)
    train(config("mine.py:Mine", iterations=2), "run", resume=True, quiet=True)
    assert "mine.py:Mine has changed since iteration 1" in capsys.readouterr().err
    assert load("run/checkpoints/latest.pt").family().spec.action_width == 3


def test_an_agent_of_ones_own_is_needed_at_once(home, tmp_path):
    path = home / "run" / "checkpoints" / "best.pt"
    content = checkpoints.load(path)
    content["config"]["agent"]["name"] = "theirs.py:Mine"
    checkpoints.save(path, content)
    executed(tmp_path)
    with pytest.raises(CheckpointError, match=r"theirs\.py:Mine.*did not train with"):
        load("run")
    assert executed(tmp_path) == 0


def test_helpers_of_two_folders_are_not_mistaken(tmp_path):
    for number in (3, 4):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "mine.py").write_text(FAMILY.format(mark=tmp_path / "executed"))
        (folder / "limits.py").write_text(f"LOW = {number}\n")
        family = config(f"{folder}/mine.py:Mine").family
        assert family.found.build(family.settings).spec.action_width == number


def test_a_run_of_pretrained_options_is_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flat = {"name": "ppo", "trials": 4, "minibatches": 1, "epochs": 1}
    train(config("bernoulli-bandit", agent=flat), "flat", quiet=True)
    agent = {**flat, "name": "rl2", "memory_width": 4, "pretrained_options": ["flat"]}
    train(config("bernoulli-bandit", agent=agent), "above", quiet=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load("../above").agent.policy.count == 1
    result = json.loads((tmp_path / "above" / "result.json").read_bytes())
    assert result["config"]["agent"]["pretrained_options"] == ["flat"]
