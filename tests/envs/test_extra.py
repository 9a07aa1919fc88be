"""Families whose packages are missing; with them they are tested in tests/extras."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers import FAMILIES

from metarl.config.registry import find, names
from metarl.core.errors import MetaRLError
from metarl.experiments.building import make_family
from metarl_envs.extra import package

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
    with pytest.raises(ModuleNotFoundError, match=r"json\.nowhere"):
        package("json.nowhere", "json")


def test_their_modules_import_neither_torch_nor_their_packages():
    """Worker processes import them."""
    modules = "metarl_envs.metaworld, metarl_envs.minigrid, metarl_envs.robotics"
    code = f"import sys, {modules}; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", *PACKAGES.values()} & set(modules)
