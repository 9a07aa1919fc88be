"""Text in files and on terminals."""

from __future__ import annotations

import ast
import io
import json
import math
import sys
from pathlib import Path

import pytest

from metarl.core.errors import CheckpointError, ConfigError, quoted, shown, suggest
from metarl.core.texts import fold, open_streams, read_json, read_text, terminal_width, to_json

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"seed: 1 # caf\xe9", r"t\.yaml is not UTF-8 \(byte 13\); save it in that encoding"),
        ("seed: 1".encode("utf-16"), r"t\.yaml is not UTF-8 \(byte 0\)"),
        (None, r"t\.yaml: No such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, data, says):
    path = tmp_path / "t.yaml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=says):
        read_text(path)
    with pytest.raises(CheckpointError, match=says):
        read_text(path, CheckpointError)


def test_a_name_that_no_file_can_have_is_a_mistake():
    with pytest.raises(ConfigError, match="null byte"):
        read_text(Path("a\0b"))
    with pytest.raises(ConfigError, match="too long"):
        read_text(Path("a" * 5000))


def test_the_mark_of_an_editor_is_no_text(tmp_path):
    (tmp_path / "t").write_bytes(b"\xef\xbb\xbfGr\xc3\xb6\xc3\x9fe")
    assert read_text(tmp_path / "t") == "Größe"


def test_json_has_no_numbers_that_are_none():
    content = {"a": [1.5, math.nan, (math.inf, 2)], "b": {"c": -math.inf, "d": "NaN"}, "e": None}

    def refuse(word: str) -> None:
        raise AssertionError(word)

    read = json.loads(to_json(content), parse_constant=refuse)
    assert read == {"a": [1.5, None, [None, 2]], "b": {"c": None, "d": "NaN"}, "e": None}


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000])
def test_json_that_is_cut_short_names_its_file(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"result\.json is cut short or damaged"):
        read_json(tmp_path / "result.json")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_terminal_shows_something(monkeypatch, encoding):
    binary = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(binary, encoding))
    open_streams()
    print("−γ é \udcff")  # the last stands for a byte of a file's name
    sys.stdout.flush()
    assert binary.getvalue().decode(encoding).replace("\\xe9", "é").replace("\\u2212", "−") in (
        "−\\u03b3 é \\udcff\n",
        "−γ é \\udcff\n",
    )


def test_closed_streams_swallow_what_is_printed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    open_streams()
    print("é", flush=True)
    sys.stdout.close()


def test_values_of_others_are_short_and_printable():
    assert shown("a\nb\x1b") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
    assert len(shown("x" * 1000)) == 121
    deep: list[object] = []
    for _ in range(500):
        deep = [deep, deep]
    for value in (10**5000, "x" * 10**6, deep, {"k": b"\xff" * 999}, "\u2028"):
        assert len(quoted(value)) <= 121
        assert quoted(value).isprintable()
    assert quoted("it's") == '"it\'s"'
    assert quoted(0.1) == "0.1"


def test_suggestions_are_short_too():
    known = [f"key_{i}" for i in range(1000)]
    assert len(suggest("", known)) < 220
    assert suggest("x" * 10**6, known).endswith("…")


def opens_text(call: ast.Call) -> bool:
    """Whether a call reads or writes letters, by its name and its arguments."""
    name = ast.unparse(call.func)
    modes = [str(argument.value) for argument in call.args if isinstance(argument, ast.Constant)]
    if name == "os.open" or name == "read_text" or any("b" in mode for mode in modes):
        return False  # numbers and bytes; our own function
    words = {keyword.arg for keyword in call.keywords}
    return "text" in words or name.rpartition(".")[2] in ("open", "read_text", "write_text")


def test_every_text_file_is_opened_with_its_encoding():
    """Ruff sees only those whose type it knows."""
    seen = 0
    for folder in ("metarl", "envs", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and opens_text(node):
                    seen += 1
                    words = {keyword.arg for keyword in node.keywords}
                    assert "encoding" in words, f"{path}:{node.lineno}"
    assert seen > 5


def test_lines_are_folded_where_a_terminal_has_no_place_for_them(monkeypatch):
    line = "name  one-hot words and a~command~to~copy".replace("~", "\N{NO-BREAK SPACE}")
    assert fold(line, None, " " * 6) == "name  one-hot words and a command to copy"
    assert fold(line, 26, " " * 6).splitlines() == [
        "name  one-hot words and",
        "      a command to copy",
    ]
    monkeypatch.setenv("COLUMNS", "71")
    assert terminal_width() == 71
    for none in ("0", "wide", ""):
        monkeypatch.setenv("COLUMNS", none)
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        assert terminal_width() is None
