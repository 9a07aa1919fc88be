"""What is installed: types for checkers, and nothing that only one system has."""

from __future__ import annotations

import ast
import re
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("metarl/**/*.py"), *ROOT.glob("envs/*.py")])


@pytest.mark.parametrize("package", ["metarl", "metarl_envs"])
def test_packages_say_that_they_are_typed(package: str):
    assert (files(package) / "py.typed").is_file()


def test_the_stub_of_the_package_is_installed():
    assert (files("metarl") / "__init__.pyi").is_file()


def test_the_template_of_the_report_is_installed():
    assert (files("metarl") / "viz" / "report.html").is_file()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_imported_that_only_one_system_has(path: Path):
    """Locks, processors and the like come from portable libraries."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    assert not imported & {"fcntl", "pwd", "grp", "resource", "termios", "msvcrt", "winreg"}


def test_processors_are_counted_in_one_place():
    """`os.sched_getaffinity` is there on Linux alone."""
    users = [path.name for path in SOURCES if re.search(r"sched_getaffinity", path.read_text())]
    assert len(users) <= 1
