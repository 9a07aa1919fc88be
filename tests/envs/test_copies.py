"""Every family's file is a template: a copy of it, named by path and class, is the same family."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers import FAMILIES, random_action, same

from metarl import cli
from metarl.config.registry import find
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.types import Step
from metarl.experiments.building import make_family


def copied(name: str, folder: Path) -> str:
    """The name of the family `name` in a copy of its file."""
    module, _, class_name = find("family", name).settings.configures.partition(":")
    original = find_spec(module).origin
    copy = folder / f"my_{Path(original).name}"
    shutil.copy(original, copy)
    return f"{copy}:{class_name}"


def played(family: Family, steps: int) -> list[Step]:
    """Random actions in two lanes of three tasks."""
    tasks = family.tasks("train", 3, Rng(0))
    env, noise = family.make(2), tasks.streams(Rng(1), 2)
    env.reset(tasks, Rng(2))
    return [env.step(random_action(family.spec, noise, time)) for time in range(steps)]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_copy_is_the_same_family(name: str, tmp_path: Path):
    """The same options, the same shape, and the same numbers in and beyond the first episode."""
    original, copy = make_family(name), make_family(copied(name, tmp_path))
    assert type(copy).__module__ != type(original).__module__
    assert type(copy).Settings is find("family", name).settings
    assert copy.spec == original.spec
    steps = min(original.spec.horizon + 3, 60)
    assert same(played(original, steps), played(copy, steps))


def test_a_copy_takes_the_options_of_the_original(tmp_path: Path):
    point = copied("point", tmp_path)
    assert make_family(point, variant="pearl").spec.horizon == 20
    assert make_family(point, variant="pearl", horizon=7).spec.horizon == 7


def test_a_copied_point_is_checked_and_trained_on(tmp_path: Path, monkeypatch, capsys):
    """As the README says: `cp envs/point.py my_point.py && metarl check my_point.py:Point`."""
    copied("point", tmp_path)
    monkeypatch.chdir(tmp_path)
    quick = "episodes=2 iterations=1 env_steps=null agent.trials=4 agent.memory_width=4"
    few = "agent.minibatches=1 validation_tasks=4 test_tasks=4 family.horizon=10"
    for command in (
        "check my_point.py:Point",
        f"train rl2/point family=my_point.py:Point {quick} {few} --out run",
    ):
        monkeypatch.setattr("sys.argv", ["metarl", *command.split()])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code, capsys.readouterr().err
    assert "point: keeps all" in capsys.readouterr().out
