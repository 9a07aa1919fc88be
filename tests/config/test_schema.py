"""Configurations: YAML without its traps, overrides, and all mistakes at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metarl.config.files import load_config, shipped, to_yaml
from metarl.config.options_text import describe
from metarl.config.registry import find, names
from metarl.config.schema import parse, schedule_value, to_dict
from metarl.config.yaml_text import read_yaml
from metarl.core.errors import MetaRLError

SMALLEST = {"agent": "rl2", "family": "point", "episodes": 2, "iterations": 1}


def mistakes(tree: Any, *overrides: str) -> list[str]:
    """The lines of the mistake that `tree` is, or that overriding the shipped bandit configuration
    is."""
    with pytest.raises(MetaRLError) as caught:
        load_config("rl2/bernoulli-bandit", overrides) if tree is None else parse(tree)
    return str(caught.value).splitlines()


# -------------------------------------------------------------------------------------------------
# YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("2E6", 2e6),
        (".5e-3", 0.0005),
        ("-1.5", -1.5),
        (".inf", float("inf")),
        ("20_000_000", 20_000_000),
        ("1_", 1),
        ("089", 89),
        ("010", 10),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("true", True),
        ("null", None),
        ("", None),
    ],
)
def test_scalars_are_what_they_look_like(text: str, value: object):
    """YAML 1.1 takes `1e-3` for a word, `on` for a truth value, `010` for eight and `1:30` for
    ninety."""
    read = read_yaml(f"key: {text}", "here")["key"]
    assert read == value
    assert isinstance(read, type(value))


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "b: 2\nc: {a: 1,\n  a: 3}"])
def test_a_duplicate_key_is_a_mistake(text: str):
    """PyYAML keeps the last one silently. The line is that of the second one."""
    with pytest.raises(
        MetaRLError, match=rf"here: line {len(text.splitlines())}: duplicate key 'a'"
    ):
        read_yaml(text, "here")


def test_what_is_no_yaml_is_a_mistake():
    with pytest.raises(MetaRLError, match="here is not YAML"):
        read_yaml("a: [1", "here")


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: !!python/object:os.system x", "line 2: the tag !!python/object:os.system"),
        ("a: !!binary aGk=", "line 1: the tag !!binary does not fit"),
        ("a: !mine 3", "line 1: the tag !mine does not fit"),
        ("a: !!int x", "line 1: the tag !!int does not fit"),
        ("!!set {a, b}", "line 1: the tag !!set does not fit"),
        ("a:\n  [1]: 2", "line 2: a key is a word or a number"),
        ("a: " + "9" * 5000, "line 1: a whole number has at most 64 bits"),
        ("a: 0x" + "f" * 5000, "line 1: a whole number has at most 64 bits"),
        ("a: " + "[" * 3000, "more than 30 levels of brackets"),
        ("- " * 3000 + "1", "more than 30 levels"),
        (LAUGHS, "aliases (*) make too many entries"),
        ("&a [*a]", "more than 30 levels"),
        ("a: 1\n<<: 3", "expected a mapping or list of mappings for merging"),
        ("a: 1\n---\nb: 2", "line 2: expected a single document in the stream, but found"),
        ("a: 1\nb: \x07", "line 2: the character U+0007 has no place in a text"),
        ("a: *b", "line 1: found undefined alias 'b'"),
        ("#" * 100_001, "has more than 100,000 characters"),
        ("'" + "x" * 9000 + "'; 1", "line 1: "),
    ],
)
def test_what_no_configuration_holds_is_one_short_line(text: str, says: str):
    with pytest.raises(MetaRLError) as caught:
        read_yaml(text, "here")
    line = str(caught.value)
    assert line.startswith("here")
    assert says in line
    assert len(line) < 200
    assert line.isprintable()


def test_what_yaml_has_for_people_is_followed():
    """Merge keys, aliases, anchors that are used again, a mark of an editor, and !!str."""
    text = "\ufeffbase: &b {x: 1, y: 2}\nmine: {<<: *b, y: 3}\ny: &b !!str 3\nz: *b\n"
    assert read_yaml(text, "here") == {
        "base": {"x": 1, "y": 2},
        "mine": {"x": 1, "y": 3},
        "y": "3",
        "z": "3",
    }


# -------------------------------------------------------------------------------------------------
# Reading


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_configuration_reads(name: str):
    load_config(name)


def test_a_file_of_ones_own_reads(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(to_yaml(parse(SMALLEST)))
    assert load_config(path) == parse(SMALLEST)


def test_overrides_set_options_and_keys():
    config = load_config(
        "rl2/bernoulli-bandit",
        [
            "agent.learning_rate=1e-3",
            "agent.hidden_sizes=[64, 32]",
            "agent.gae_lambda=[0, 1]",
            "family.arms=7",
            "seed=5",
        ],
    )
    assert (config.agent.settings.learning_rate, config.agent.settings.hidden_sizes) == (
        1e-3,
        (64, 32),
    )
    assert (config.agent.settings.gae_lambda, config.family.settings.arms, config.seed) == (
        (0, 1),
        7,
        5,
    )


def test_another_family_drops_the_options_of_the_one_before():
    config = load_config(
        "rl2/bernoulli-bandit", ["family.horizon=9", "family=point"]
    )  # in any order
    assert (config.family.name, config.family.settings.horizon) == ("point", 9)
    assert load_config("rl2/bernoulli-bandit", ["family=gaussian-bandit"]).family.settings.arms == 5


def test_an_option_that_was_typed_is_never_dropped():
    with pytest.raises(MetaRLError, match=r"family\.arms: unknown key"):
        load_config("rl2/bernoulli-bandit", ["family.arms=7", "family=point"])


def test_naming_the_same_family_keeps_its_options():
    config = load_config("rl2/bernoulli-bandit", ["family.arms=7", "family=bernoulli-bandit"])
    assert config.family.settings.arms == 7


def test_all_mistakes_are_told_at_once():
    lines = mistakes(
        {
            "agent": {"name": "rl2", "memory_widht": 3, "clip_range": -1, "memory": "gur"},
            "family": "pont",
            "episodes": 0,
            "sed": 1,
            "env_steps": "many",
        }
    )
    wanted = [
        "agent.memory_widht: unknown key; did you mean 'memory_width'?",
        "agent.clip_range: ",
        "agent.memory: ",
    ]
    wanted += [
        "family 'pont' is unknown: did you mean 'point'?",
        "episodes: ",
        "sed: unknown key; did you mean 'seed'?",
    ]
    wanted += ["env_steps: "]
    for want in wanted:
        assert sum(want in line for line in lines) == 1, (want, lines)
    assert len(lines) == len(wanted)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({}, ["agent: is missing", "family: is missing", "episodes: is missing"]),
        (SMALLEST | {"iterations": None}, ["env_steps, iterations, minutes: set at least one"]),
        (SMALLEST | {"agent": {"memory": "gru"}}, ["agent: give its name"]),
        (SMALLEST | {"agent": ["rl2"]}, ["agent: give its name"]),
        (SMALLEST | {1: 2}, ["1: unknown key"]),
        (SMALLEST | {"family": {"name": "point", 1: 2}}, ["family.1: unknown key"]),
        (SMALLEST | {"agent": {"name": "rl2", "gae_lambda": "fast"}}, ["agent.gae_lambda: "]),
    ],
)
def test_a_mistake_names_its_key(tree: Any, words: list[str]):
    lines = mistakes(tree)
    assert len(lines) == len(words)
    for line, word in zip(lines, words, strict=True):
        assert line.startswith(f"configuration: {word}")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", "'seed' is not an override: write key=value"),
        ("=3", "'=3' is not an override"),
        ("sede=1", "sede: unknown key; did you mean 'seed'?"),
        ("agent.cliprange=1", "agent.cliprange: unknown key; did you mean 'clip_range'?"),
        ("agent.clip_range=[", "agent.clip_range is not YAML"),
        ("seed.x=1", "seed.x: unknown key"),
    ],
)
def test_a_wrong_override_is_a_mistake(override: str, words: str):
    assert words in "\n".join(mistakes(None, override))


def test_an_option_of_a_section_that_is_no_mapping_is_a_mistake(tmp_path):
    (path := tmp_path / "c.yaml").write_text(
        "agent: [rl2]\nfamily: point\nepisodes: 1\niterations: 1"
    )
    with pytest.raises(MetaRLError, match="agent: give its name"):
        load_config(path, ["agent.clip_range=1"])


def test_configurations_that_are_not_there_are_mistakes(tmp_path):
    with pytest.raises(MetaRLError, match="did you mean 'rl2/bernoulli-bandit'"):
        load_config("rl2/bernouli-bandit")
    with pytest.raises(MetaRLError, match="No such file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(MetaRLError, match="is a mapping"):
        load_config(tmp_path / "list.yaml")


def test_schedules_are_straight_lines_within_the_run():
    assert schedule_value(0.5, 0.3) == 0.5
    assert [schedule_value((2.0, 4.0), progress) for progress in (0, 0.25, 1, 2)] == [2, 2.5, 4, 4]
    assert [schedule_value((2.0, 4.0, 0.5), progress) for progress in (0, 0.25, 0.5, 1)] == [
        2,
        3,
        4,
        4,
    ]


def test_configurations_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        parse(SMALLEST).seed = 3


# -------------------------------------------------------------------------------------------------
# Writing


@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    minutes=st.none() | st.floats(1e-12, 1e12),
    learning_rate=st.floats(0, 1) | st.tuples(st.floats(0, 1), st.floats(0, 1)),
    hidden_sizes=st.lists(st.integers(1, 512), max_size=3),
    warm_start=st.none()
    | st.text(
        st.characters(min_codepoint=33, max_codepoint=0x17F, categories=["L", "N", "P"]), min_size=1
    ),
)
def test_what_is_written_reads_back(**drawn: Any):
    agent = {
        "name": "rl2",
        "learning_rate": drawn.pop("learning_rate"),
        "hidden_sizes": drawn.pop("hidden_sizes"),
    }
    config = parse(SMALLEST | drawn | {"agent": agent})
    assert parse(read_yaml(to_yaml(config), "written")) == config
    assert parse(to_dict(config)) == config


@pytest.mark.parametrize(
    "path",
    ["\xa0", "=", "1e5", "on", "1:30", "089", ".5", "null", "true", "a: b", "# no", "it's", "~"],
)
def test_words_that_look_like_something_else_read_back(path: str):
    """The writer must quote what our reader, not what YAML 1.1, would take for a number."""
    config = parse(SMALLEST | {"warm_start": path})
    assert parse(read_yaml(to_yaml(config), "written")) == config


def test_every_option_is_written_with_its_meaning():
    text = to_yaml(parse(SMALLEST))
    assert "# PPO's ε (number > 0; default 0.2)" in text
    for kind in ("agent", "family"):
        for name in names(kind):
            for key, info in find(kind, name).settings.model_fields.items():
                assert info.description, f"{kind} {name}: {key} has no description"
                assert describe(info).startswith(" ".join(info.description.split()))


def test_settings_tell_all_mistakes_of_one_family():
    with pytest.raises(MetaRLError) as caught:
        find("family", "tabular-mdp").configure({"states": 1, "action": 3})
    assert str(caught.value).splitlines() == [
        "family.states: input should be greater than or equal to 2, not 1",
        "family.action: unknown key; did you mean 'actions'?",
    ]


@pytest.mark.parametrize(
    "module",
    [
        "metarl.config.schema",
        "metarl.config.registry",
        "metarl.agents.maml.config",
        "metarl_envs.config",
    ],
)
def test_configuration_imports_no_torch(module: str):
    """So that `--help` and a mistake answer at once (importing torch takes seconds)."""
    program = (
        f"import sys, {module}; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# -------------------------------------------------------------------------------------------------
# Variants


VARIED = """
from typing import Literal
from metarl import Settings, Spec

class Varied:
    class Settings(Settings):
        variants = {"near": {"reach": 1.0, "horizon": 5}, "far": {"reach": 9.0, "horizon": 50}}
        variant: Literal["near", "far"] = "near"
        reach: float = 1.0
        horizon: int = 5
"""


@pytest.fixture
def varied(tmp_path: Path) -> str:
    (tmp_path / "varied.py").write_text(VARIED)
    (tmp_path / "run.yaml").write_text(
        f"agent: rl2\nfamily: {{name: '{tmp_path}/varied.py:Varied', variant: near, horizon: 7}}\n"
        "episodes: 2\niterations: 1\n"
    )
    return str(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("overrides", "variant", "reach", "horizon"),
    [
        ([], "near", 1.0, 7),
        (["family.variant=far"], "far", 9.0, 50),  # another variant brings its own options
        (
            ["family.horizon=3", "family.variant=far"],
            "far",
            9.0,
            3,
        ),  # in whatever order they are given
        (["family.variant=near"], "near", 1.0, 7),
    ],
)
def test_a_variant_fills_in_what_is_not_given(
    varied: str, overrides: list[str], variant: str, reach: float, horizon: int
):
    options = load_config(varied, overrides).family.settings
    assert options.model_dump() == {"variant": variant, "reach": reach, "horizon": horizon}


def test_an_unknown_variant_is_a_mistake(varied: str):
    with pytest.raises(
        MetaRLError, match=r"family.variant: input should be 'near' or 'far', not 'fra'"
    ):
        load_config(varied, ["family.variant=fra"])


def test_a_preset_named_like_its_agent_drops_the_options_of_the_one_before(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "agent: {name: maml, preset: promp, clip_range: 0.1}\nfamily: point\n"
        "episodes: 40\niterations: 1\n"
    )
    chosen = load_config(path, ["agent.preset=maml"]).agent.settings
    assert (chosen.preset, chosen.clip_range) == ("maml", 0.3)
    kept = load_config(path, ["agent.preset=promp"]).agent.settings
    assert (kept.preset, kept.clip_range) == ("promp", 0.1)


def test_an_agent_without_a_name_can_be_given_one(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("agent: {memory_width: 3}\nfamily: point\nepisodes: 1\niterations: 1\n")
    assert load_config(path, ["agent=rl2"]).agent.name == "rl2"
