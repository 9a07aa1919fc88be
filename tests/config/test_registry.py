"""Finding a family or an agent by name, module or file, and the mistakes on the way."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import metarl
from metarl.config.registry import Settings, find, find_either, names
from metarl.core.errors import MetaRLError, suggest
from metarl.experiments.building import make_family

MINE = """
from metarl.config.registry import Settings as Base

class Plain:
    '''Without options.'''

class Tuned:
    '''With options.

    More words.
    '''
    class Settings(Base):
        size: int = 3

    def __init__(self, options):
        self.size = options.size

class Wrong:
    class Settings:
        pass

a_number = 3
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return str(path)


@pytest.mark.parametrize("kind", ["family", "agent"])
def test_every_registered_name_leads_to_settings_and_a_class(kind):
    """The summary is what `metarl list` prints."""
    assert names(kind)
    for name in names(kind):
        found = find(kind, name)
        assert issubclass(found.settings, Settings)
        assert isinstance(found.load(), type)
        assert found.summary


def test_a_class_in_a_file_is_found_with_its_options(mine: str):
    assert find("family", f"{mine}:Tuned").summary == "With options."
    assert make_family(f"{mine}:Tuned").size == 3
    assert make_family(f"{mine}:Tuned", size=4).size == 4
    assert type(make_family(f"{mine}:Plain")).__name__ == "Plain"


def test_a_file_is_executed_once(mine: str):
    assert find("family", f"{mine}:Plain").load() is find("agent", f"{mine}:Plain").load()


def test_files_of_one_name_in_two_folders_are_two_modules(mine: str, tmp_path: Path):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "mine.py"
    other.write_text(MINE)
    assert find("family", f"{mine}:Plain").load() is not find("family", f"{other}:Plain").load()


def test_a_class_in_a_module_is_found():
    found = find("family", "metarl_envs.config:PointConfig")
    assert found.load() is find("family", "point").load()


def mistake(name: str) -> str:
    with pytest.raises(MetaRLError) as caught:
        make_family(name)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("family ")
    return message


def test_an_unknown_name_is_told_its_nearest():
    assert "'pont' is unknown: did you mean 'point'?" in mistake("pont")
    assert "there is: ant-dir, " in mistake("xyzzy")


def test_a_missing_file_is_named(tmp_path: Path):
    assert f"there is no file {tmp_path / 'none.py'}" in mistake(f"{tmp_path}/none.py:Plain")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\nclass Plain(\n", "SyntaxError: '(' was never closed (mine.py, line 2)"),
        (
            "x = 1\n\nimport nowhere",
            "ModuleNotFoundError: No module named 'nowhere' (mine.py, line 3)",
        ),
        ("def f():\n    1 / 0\nf()", "ZeroDivisionError: division by zero (mine.py, line 2)"),
        ("import json\njson.loads('{')", "(mine.py, line 2)"),
    ],
    ids=["syntax", "import", "function", "library"],
)
def test_a_file_that_does_not_import_names_its_line(mine: str, text: str, words: str):
    """The innermost line of the user's own file, not of a library that it called; and mending the
    file helps."""
    Path(mine).write_text(text, encoding="utf-8")
    assert words in mistake(f"{mine}:Plain")
    Path(mine).write_text(MINE + "\n", encoding="utf-8")
    assert make_family(f"{mine}:Plain")


def test_a_missing_class_is_told_its_nearest(mine: str):
    assert "has no 'Plian': did you mean 'Plain'?" in mistake(f"{mine}:Plian")


def test_only_a_class_with_proper_settings_will_do(mine: str):
    assert "is no class but int" in mistake(f"{mine}:a_number")
    assert "must derive from metarl" in mistake(f"{mine}:Wrong")


def test_settings_without_a_class_are_no_family(mine: str):
    Path(mine).write_text(
        "from metarl.config.registry import Settings\nclass Options(Settings): pass",
        encoding="utf-8",
    )
    assert "Options" in mistake(f"{mine}:Options")


@pytest.mark.parametrize(
    "name", ["nowhere:Point", ":Point", "sys:Point", "metarl_envs.point:Pont", "metarl_envs.point:"]
)
def test_modules_that_do_not_have_it_are_mistakes(name: str):
    """`sys` has no file, like a folder without __init__.py."""
    assert repr(name) in mistake(name)


@pytest.fixture
def several(tmp_path) -> str:
    """A file with two families, an agent, and what is neither or from elsewhere."""
    path = tmp_path / "several.py"
    path.write_text(
        "from metarl_envs.point import Point\n"
        "from metarl import Spec\n"
        "class Base:\n    def tasks(self): ...\n    def make(self): ...\n"
        "class Mine(Base): ...\n"
        "class Learner:\n    def act(self): ...\n    def iterate(self): ...\n"
        "class Helper: ...\n"
    )
    return str(path)


@pytest.mark.parametrize("ending", ["", ":"])
def test_a_file_without_a_class_says_which_could_be_meant(several, ending: str):
    message = mistake(several + ending)
    assert message.endswith(f" names no class: write {several}:Base or {several}:Mine")
    with pytest.raises(MetaRLError, match=r"several\.py:Learner$"):
        find("agent", several + ending)
    with pytest.raises(MetaRLError, match=r"several\.py:Base or .*:Mine or .*:Learner$"):
        find_either(several + ending)
    with pytest.raises(MetaRLError, match=r"no world \(a class with tasks and collect\) in it: "):
        find("world", several + ending)


def test_the_package_offers_what_its_modules_define():
    """Each name of the stub, from the module that the stub names, also after all these modules
    were imported."""
    stub = ast.parse((Path(metarl.__file__).parent / "__init__.pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    assert sorted(node.names[0].name for node in imports) == sorted(metarl.__all__)
    for node in imports:
        assert getattr(metarl, node.names[0].name) is getattr(
            import_module(f"metarl.{node.module}"), node.names[0].name
        )


def test_nearest():
    assert suggest("abd", ["abc", "xyz"]) == "did you mean 'abc'?"
    assert suggest("q", ["b", "a"]) == "there is: a, b"
    assert suggest("q", []) == "there is: nothing"


def test_what_a_file_defines_unpickles_where_the_file_was_loaded(tmp_path):
    """Another process that finds the same name reads what was pickled here."""
    (tmp_path / "mine.py").write_text("class Mine:\n    number = 3\n")
    name = f"{tmp_path}/mine.py:Mine"
    (tmp_path / "mine.pkl").write_bytes(pickle.dumps(find("agent", name).load()()))
    code = (
        "import pathlib, pickle\n"
        "from metarl.config.registry import find\n"
        f"find('agent', {name!r})\n"
        f"print(pickle.loads(pathlib.Path({str(tmp_path)!r}, 'mine.pkl').read_bytes()).number)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"
