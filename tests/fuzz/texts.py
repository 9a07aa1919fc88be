"""Texts that nobody thought of: YAML, configurations, their files, and options of a command line.

`PROPERTIES` maps a name to a function without arguments that draws examples and raises for the
first one that breaks the promise: there is a configuration, which is written and reads back, or
there is a MetaRLError of short lines that every terminal shows.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from metarl.config.aliases import FOREIGN, RENAMED
from metarl.config.files import SHIPPED, load_config, shipped, to_yaml
from metarl.config.overrides import override, read_options
from metarl.config.registry import find, names
from metarl.config.schema import CHOICES, Config, parse, to_dict
from metarl.config.yaml_text import one_line_yaml, read_yaml
from metarl.core.errors import MetaRLError

TEXTS = [SHIPPED.joinpath(f"{name}.yaml").read_text(encoding="utf-8") for name in shipped()]
TREES: list[Any] = [read_yaml(text, "shipped") for text in TEXTS]
OPTIONS = {
    kind: sorted({key for name in names(kind) for key in find(kind, name).settings.model_fields})
    for kind in ("agent", "family")
}
FILE = Path(tempfile.gettempdir()) / f"metarl-fuzz-{os.getpid()}.yaml"

WEIRD = st.sampled_from(
    [
        *("", " ", "nan", ".nan", "-.inf", "1e400", "1_000", "0x1F", "12:30:00", "on", "~", "<<"),
        *(
            "a.py:B",
            "json:dumps",
            "metarl:Settings",
            "metarl:Rng",
            ":",
            "..:x",
            "\0.py:A",
            "é",
            "\\",
        ),
        *(
            "a\nb",
            "\u2028",
            "\x85",
            "\ud800",
            "\ufeff",
            "x" * 5000,
            "9" * 5000,
            "[" * 50,
            "\U0001f600",
        ),
    ]
)
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([2**500, 1e6, 1e300, -0.0, 0.5, 2**63]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, WEIRD, st.text(max_size=20), st.binary())
KEYS = st.one_of(
    st.sampled_from(["name", *Config.model_fields, *OPTIONS["agent"], *OPTIONS["family"]]),
    st.sampled_from([*FOREIGN, *RENAMED]),
    SCALARS,
)
VALUES = st.recursive(
    SCALARS,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(KEYS, part, max_size=3),
    max_leaves=6,
)
SYNTAX = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *(
                    "a",
                    "b: ",
                    ":",
                    " ",
                    "  ",
                    "\n",
                    "\n  ",
                    "- ",
                    "[",
                    "]",
                    "{",
                    "}",
                    ",",
                    "? ",
                    "|\n",
                ),
                *(
                    "&x ",
                    "*x",
                    "<<: ",
                    "!!str ",
                    "!!int ",
                    "!foo ",
                    "!!binary ",
                    "!!set ",
                    "!",
                    ">-\n",
                ),
                *(
                    "'",
                    '"',
                    "\\",
                    "\\x00",
                    "#",
                    " #",
                    "---\n",
                    "...\n",
                    "%YAML 1.1\n",
                    "%A\n",
                    "\t",
                ),
                *("1", "0x", "0o7", "0b1", "1e", "_", ".5", "-", "+1", "~", "null", "true", ".inf"),
                *("\ufeff", "\0", "\x85", "\u2028", "é", "=", "@", "`", "%", "12:30", "2020-01-01"),
            ]
        ),
        WEIRD,
    ),
    max_size=25,
).map("".join)


@contextlib.contextmanager
def short_lines() -> Iterator[None]:
    """It works, or says in short lines why not."""
    try:
        yield
    except MetaRLError as error:
        for line in str(error).split("\n"):
            assert 0 < len(line) <= 500, line
            assert line.isprintable(), line


def check(config: Config) -> None:
    """It is read back from plain values, and has no number that is none."""
    plain = to_dict(config)
    for value in _leaves(plain):
        assert not isinstance(value, float) or math.isfinite(value)
    assert parse(plain) == config


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict | list | tuple):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(part)
    else:
        yield tree


@given(st.one_of(SYNTAX, st.text(), st.text("[]{},:-?&*!|>'\"#%\n a1")))
def yaml(text: str) -> None:
    """What reads is written on one line and reads back."""
    with short_lines():
        read = read_yaml(text, "here")
        assert repr(read_yaml(one_line_yaml(read), "again")) == repr(read)


@st.composite
def trees(draw: Any) -> Any:
    """Shipped configurations in which some things are others."""
    tree = dict(draw(st.sampled_from(TREES)))
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from([*CHOICES, None]))
        section = tree if kind is None else tree.setdefault(kind, {})
        if not isinstance(section, dict):
            continue
        section = dict(section)
        keys = KEYS if kind not in OPTIONS else KEYS | st.sampled_from(OPTIONS[kind])
        key = draw(keys)
        if draw(st.booleans()):
            section.pop(key, None)
        else:
            section[key] = draw(VALUES)
        tree = section if kind is None else tree | {kind: section}
    return tree


@given(trees())
def configurations(tree: Any) -> None:
    """Trees as Python gives them."""
    with short_lines():
        config = parse(tree)
        check(config)
        assert parse(read_yaml(to_yaml(config), "written")) == config


@st.composite
def edited(draw: Any) -> str:
    """Texts of shipped configurations in which some letters are others."""
    text: str = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(0, len(text)))
        last = min(len(text), first + draw(st.integers(0, 12)))
        text = text[:first] + draw(SYNTAX | VALUES.map(str)) + text[last:]
    return text


@given(edited(), st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]))
def files(text: str, encoding: str) -> None:
    """Files as editors write them, in every encoding."""
    try:
        FILE.write_bytes(text.encode(encoding, errors="replace"))
        with short_lines():
            check(load_config(FILE))
    finally:
        FILE.unlink()


CHOSEN = [
    *names("agent"),
    *names("family"),
    "u",
    "lstm",
    "[1, 2]",
    "[0.1, 0, 0.5]",
    "0",
    "7",
    "1e-3",
]


@st.composite
def typed(draw: Any) -> tuple[Any, list[str]]:
    """A configuration, and what is typed after it: mostly an option that it has."""
    tree = draw(st.sampled_from(TREES))
    own = [f"agent.{key}" for key in find("agent", tree["agent"]["name"]).settings.model_fields]
    keys = st.sampled_from([*own, *own, *Config.model_fields, "family.horizon", "agent.?"])
    texts = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        value = draw(draw(st.sampled_from([st.sampled_from(CHOSEN), NUMBERS, VALUES, SYNTAX])))
        texts.append(f"{draw(keys)}={value}")
    if draw(st.integers(0, 9)) == 0:
        texts.append(draw(WEIRD | SYNTAX))
    return tree, texts


@given(typed())
def overrides(drawn: tuple[Any, list[str]]) -> None:
    """With a configuration, and for an agent alone."""
    tree, texts = drawn
    with short_lines():
        check(parse(override(tree, texts)))
    with short_lines():
        own = [text for text in texts if text.startswith("agent.")]
        options = read_options(own, "agent", "family")
        find("agent", tree["agent"]["name"]).configure(options["agent"])


PROPERTIES = {
    "yaml": yaml,
    "configurations": configurations,
    "files": files,
    "overrides": overrides,
}
