"""Numbers in options: finite, of the right sign, and no words."""

from __future__ import annotations

import re
from typing import Any

import pytest

from metarl.config.files import load_config
from metarl.config.numbers import PositiveSchedule, Schedule, UnitSchedule
from metarl.config.options_text import describe
from metarl.config.registry import Found, Settings, find, names
from metarl.config.schema import Config
from metarl.core.errors import ConfigError


class Mine(Settings):
    """Numbers in all kinds of places, as a user's own class has them."""

    whole: int = 1
    real: float = 0.5
    maybe: float | None = None
    several: tuple[float, ...] = ()
    table: dict[str, list[int]] | None = None
    either: int | str = 1
    flag: bool = False
    any_sign: Schedule = 0.0
    positive: PositiveSchedule = 1.0
    unit: UnitSchedule = (0.0, 1.0)


def lines(**given: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Found("agent", "mine", Mine).configure(given)
    return str(caught.value).splitlines()


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("none", [NAN, INF, -INF])
@pytest.mark.parametrize(
    ("key", "where"),
    [
        ("real", "real"),
        ("maybe", "maybe"),
        ("several", "several.1"),
        ("any_sign", "any_sign"),
        ("positive", "positive.1"),
        ("unit", "unit.1"),
    ],
)
def test_a_number_is_finite_wherever_it_stands(none: float, key: str, where: str):
    value: Any = (1, none) if where.endswith(".1") else none
    (line,) = lines(**{key: value})
    assert line == f"agent.{where}: input should be a finite number, not {none}"


@pytest.mark.parametrize("wrong", [True, False, "3", "nan", b"3"])
def test_neither_words_nor_truth_values_are_numbers(wrong: object):
    for key in ("whole", "real", "maybe"):
        (line,) = lines(**{key: wrong})
        assert line.startswith(f"agent.{key}: input should be a number, not ")
    (line,) = lines(several=[1, wrong])
    assert line.startswith("agent.several.1: input should be a number")
    (line,) = lines(table={"a": [wrong]})
    assert line.startswith("agent.table.0: input should be a number")


def test_what_people_write_stays_what_they_mean():
    read: Any = Found("agent", "mine", Mine).configure(
        {"whole": 2e6, "real": 3, "either": "3", "flag": "yes", "several": [1]}
    )
    assert (read.whole, read.real, read.either, read.flag) == (2_000_000, 3.0, "3", True)
    assert isinstance(read.whole, int)
    assert isinstance(read.real, float)
    assert lines(whole=0.5)[0].startswith("agent.whole: input should be a valid integer")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"positive": 0}, "positive: input should be greater than 0, not 0"),
        ({"positive": [1, -1]}, "positive.1: input should be greater than 0, not -1"),
        ({"unit": [0, 2, 0.5]}, "unit.1: input should be less than or equal to 1, not 2"),
        ({"unit": [0, 1, 0]}, "unit.2: input should be greater than 0, not 0"),
        ({"any_sign": [1]}, "any_sign: give a number, [first, last] or [first, last, share], not"),
        ({"any_sign": "x"}, "any_sign: give a number, [first, last] or [first, last, share], not"),
        ({"any_sign": [1, "2"]}, "any_sign.1: input should be a number, not '2'"),
    ],
)
def test_a_schedule_says_which_of_its_numbers_is_wrong(given: dict[str, Any], line: str):
    assert lines(**given)[0].startswith(f"agent.{line}")
    assert len(lines(**given)) == 1


def test_schedules_are_what_they_were_given_as():
    read: Any = Found("agent", "mine", Mine).configure({"any_sign": [-1, 2], "unit": [0, 1, 0.5]})
    assert (read.any_sign, read.positive, read.unit) == ((-1.0, 2.0), 1.0, (0.0, 1.0, 0.5))
    assert read.model_dump(mode="json")["unit"] == [0.0, 1.0, 0.5]


def test_types_and_bounds_are_described_in_words():
    fields = find("agent", "rl2").settings.model_fields
    assert (
        "(number ≥ 0, ≤ 1, or [first, last]: linear over the run, or [first, last, share]: over "
        "that share of it; default"
    ) in describe(fields["gae_lambda"])
    assert "([whole number > 0, …]; default [])" in describe(fields["hidden_sizes"])
    assert "([whole number > 0, …] or null; default [64])" in describe(fields["sub_hidden_sizes"])
    assert "(true or false; default false)" in describe(fields["normalize_obs"])
    assert "(text; default total)" in describe(Config.model_fields["score"])
    assert "(whole number ≥ 1 or null; default null)" in describe(
        Config.model_fields["train_tasks"]
    )


@pytest.mark.parametrize("kind", ["agent", "family", "world"])
def test_no_option_is_described_by_the_name_of_a_python_type(kind: Any):
    for name in names(kind):
        for key, info in find(kind, name).settings.model_fields.items():
            allowed = describe(info).removeprefix(" ".join((info.description or "").split()))
            python = re.search(r"\b(int|float|bool|str|tuple|Path|Optional|None)\b", allowed)
            assert python is None, f"{kind} {name}: {key}: {allowed}"


SIGNED = {"target_entropy", "prior_mean", "survival", "lowest"}
"""Options that may be negative."""


@pytest.mark.parametrize("kind", ["agent", "family"])
def test_no_option_takes_a_negative_number_that_means_nothing(kind: Any):
    """All numbers but `SIGNED` are sizes, weights, rates, costs or probabilities."""
    tried = 0
    for name in names(kind):
        found = find(kind, name)
        for key, info in found.settings.model_fields.items():
            numbers = any(word in str(info.annotation) for word in ("int", "float"))
            if not numbers or key in SIGNED:
                continue
            value = [-1] if str(info.annotation).startswith("tuple") else -1
            tried += 1
            with pytest.raises(ConfigError, match=rf"^{kind}\.{key}"):
                found.configure({key: value})
    assert tried > 50


def test_a_run_ends_and_begins_with_proper_numbers():
    for override in ("minutes=.inf", "minutes=.nan", "seed=true", "episodes='3'", "threads=true"):
        with pytest.raises(ConfigError, match=f": {override.partition('=')[0]}: input should be"):
            load_config("rl2/point", [override])
    for seed in (2**63, -(2**63) - 1):
        with pytest.raises(ConfigError, match=r"seed.*64 bits"):
            load_config("rl2/point", [f"seed={seed}"])
    assert load_config("rl2/point", ["env_steps=1e6"]).env_steps == 1_000_000
