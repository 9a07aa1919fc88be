"""What the README and the guides show runs as it stands there."""

from __future__ import annotations

import re
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from metarl import cli
from metarl.evaluation.option_usage import observe
from metarl.experiments.building import load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "docs" / "plugging-in.md").read_text()
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
EXAMPLES = {"my_pendulum.py:Gravity": 20, "my_thermostat.py:Thermostat": 40, "my_arm.py:Arm": 40}
"""Name → lines that its file may have."""


def run(monkeypatch: pytest.MonkeyPatch, words: str) -> int:
    """The exit code of `metarl` with these words."""
    monkeypatch.setattr(sys, "argv", ["metarl", *words.split()])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    blocks = PYTHON.findall(README)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, namespace)
    assert "'value'" in capsys.readouterr().out


def test_the_guide_to_maml_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = PYTHON.findall((ROOT / "docs" / "maml.md").read_text())
    namespace: dict[str, object] = {}
    exec(block, namespace)
    assert namespace["action"].shape == (2,)
    assert namespace["session"].belief.row.steps.item() == 1


def test_the_guides_own_options_are_chosen_among(tmp_path, monkeypatch):
    (block,) = PYTHON.findall((ROOT / "docs" / "options.md").read_text())
    (tmp_path / "my_options.py").write_text(block)
    monkeypatch.chdir(tmp_path)
    words = "train rl2/four-rooms agent.pretrained_options=[my_options.py:ToTheEast,my_options.py:ToTheWest] --out run --quiet"
    assert (
        run(monkeypatch, words + " iterations=1 agent.trials=4 validation_tasks=2 test_tasks=2")
        == 0
    )
    moves = observe((loaded := load("run")).agent, loaded.family(), episodes=4).moves
    east, west = (
        (moves.after - moves.before)[moves.option == option, 0].mean() for option in (0, 1)
    )
    assert east > 0.2
    assert west < -0.2


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_guides_families_keep_the_contract_and_train(name: str, tmp_path, monkeypatch, capsys):
    file, _, _ = name.partition(":")
    source = next(block for block in PYTHON.findall(GUIDE) if block.startswith(f"# {file}\n"))
    assert len(source.splitlines()) <= EXAMPLES[name]
    (tmp_path / file).write_text(source)
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, f"check {name}") == 0, capsys.readouterr().out
    words = (
        f"train rl2/point family={name} episodes=1 iterations=1 agent.trials=4 --out run --quiet"
    )
    assert run(monkeypatch, words + " validation_tasks=2 test_tasks=2") == 0
    assert (tmp_path / "run" / "result.json").is_file()


def test_the_guides_last_examples_run(tmp_path, monkeypatch):
    for block in PYTHON.findall(GUIDE):
        if not block.startswith("# my_"):
            namespace: dict[str, object] = {"__name__": "guide"}
            exec(block, namespace)
            for env in ("env", "envs", "vec_env"):
                if env in namespace:
                    namespace[env].reset()
                    namespace[env].close()


def test_every_path_that_is_mentioned_exists():
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for path in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert (document.parent / path).exists(), path


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
