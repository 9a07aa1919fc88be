"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from metarl import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, namespace)
    assert "'value'" in capsys.readouterr().out


def test_the_readmes_family_learns(tmp_path, monkeypatch):
    source = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[-1]
    (tmp_path / "my_file.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    words = "train rl2/bernoulli-bandit family=my_file.py:Needle episodes=4 env_steps=4000 agent.trials=50 --out run --quiet"
    monkeypatch.setattr(sys, "argv", ["metarl", *words.split(), "validation_tasks=20", "test_tasks=20"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert (tmp_path / "run" / "result.json").is_file()


def test_every_path_that_is_mentioned_exists():
    for document in (README, (ROOT / "CONTRIBUTING.md").read_text()):
        for path in re.findall(r"\]\(([^)#]+)\)", document):
            assert (ROOT / path).exists(), path


def test_every_package_is_installed():
    """The list in setup.cfg is by hand, because folders are mapped."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    folders = {"metarl": "metarl", "metarl_envs": "envs", "metarl_configs": "configs"}
    found = {
        ".".join((package, *init.parent.relative_to(ROOT / folder).parts))
        for package, folder in folders.items()
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert listed == found
