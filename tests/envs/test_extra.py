"""Families whose packages are missing; with them they are tested in tests/extras."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers import FAMILIES

from metarl.config.catalogue import description, listing
from metarl.config.registry import find, names
from metarl.core.errors import MetaRLError
from metarl.experiments.building import make_family
from metarl_envs.extra import package
from metarl_envs.extra_config import ExtraConfig

PACKAGES = {"metaworld": "metaworld", "robotics": "gymnasium_robotics", "minigrid": "minigrid"}
"""Module of the family, and name of the extra → package."""


@pytest.mark.parametrize("name", sorted(set(names("family")) - set(FAMILIES)))
def test_a_missing_package_is_told_with_what_installs_it(name: str, monkeypatch):
    extra = find("family", name).settings.configures.removeprefix("metarl_envs.").partition(":")[0]
    monkeypatch.setitem(sys.modules, PACKAGES[extra], None)
    with pytest.raises(MetaRLError) as caught:
        _ = make_family(name).spec
    line = f"the package {PACKAGES[extra]} is missing: pip install 'metarl-torch[{extra}]'"
    assert str(caught.value).endswith(line)


def test_what_is_wrong_inside_a_package_is_not_called_missing():
    class NeedsJson(ExtraConfig):
        package = extra = "json"

    with pytest.raises(ModuleNotFoundError, match=r"json\.nowhere"):
        package("json.nowhere", NeedsJson)


@pytest.mark.parametrize("name", sorted(set(names("family")) - set(FAMILIES)))
def test_lists_and_descriptions_say_what_is_not_installed(name: str, monkeypatch):
    extra = find("family", name).settings.extra
    command = f"pip install 'metarl-torch[{extra}]'"

    def line() -> str:
        return next(line for line in listing("family").splitlines() if line.split()[0] == name)

    monkeypatch.setattr("metarl.config.registry.find_spec", lambda package: None)
    assert line().endswith(f"Not installed: {command}")
    told = description("family", name)
    assert f"\n  not installed: {command}\n" in told
    assert "\n  family." in told
    monkeypatch.setattr("metarl.config.registry.find_spec", lambda package: package)
    assert "Not installed" not in line()


def test_their_modules_import_neither_torch_nor_their_packages():
    """Worker processes import them."""
    modules = "metarl_envs.metaworld, metarl_envs.minigrid, metarl_envs.robotics"
    code = f"import sys, {modules}; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", *PACKAGES.values()} & set(modules)
