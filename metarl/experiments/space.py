"""A space of hyperparameters: what is searched, as YAML; imports no torch.

Keys are those of a configuration, dotted or nested, and values ranges or lists of choices::

    agent.learning_rate: {low: 1e-4, high: 1e-2, log: true}
    agent:
      epochs: {low: 1, high: 8}
      hidden_sizes: [[64], [64, 64]]
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from metarl.config.files import read_tree
from metarl.config.overrides import override
from metarl.config.schema import Config, parse
from metarl.config.yaml_text import LONGEST, one_line_yaml, read_yaml
from metarl.core.errors import ConfigError, MetaRLError, quoted, shown, suggest
from metarl.core.texts import read_text

_RANGE = ("low", "high", "log", "step")
_JUDGED = {"score", "episodes", "test_episodes", "mode", "test_mode", "validation_tasks"}
_JUDGED |= {"validation_window", "family", "seed"}
"""Keys by which trials are judged: that a better one is chosen, they are the same for all."""


@dataclass(frozen=True)
class Space:
    """A configuration, and what may be drawn in place of some of its values."""

    file: Path
    """Where it is written."""
    name: str
    """Of the configuration."""
    overrides: Sequence[str]
    """Of it, from the command line."""
    tree: Mapping[str, Any]
    """The configuration as written."""
    distributions: Mapping[str, BaseDistribution]
    """By key; choices are one-line YAML, for storages take plain values alone."""

    def config(self, drawn: Mapping[str, Any]) -> Config:
        """The configuration with values that were drawn, by key.

        Raises:
            ConfigError: they do not go together.
        """
        texts = [
            f"{key}={value if isinstance(value, str) else one_line_yaml(value)}"
            for key, value in drawn.items()
        ]
        return parse(override(dict(self.tree), [*self.overrides, *texts]))


def read_space(path: Path, config: str, overrides: Sequence[str]) -> Space:
    """The space in a YAML file around a configuration.

    Raises:
        ConfigError: all mistakes of one kind at once, a line each: no ranges or choices, or values
            that the configuration does not take, of which both ends and every choice are tried.
    """
    tree = read_tree(config)
    parse(override(tree, overrides), where=shown(config))
    where = shown(str(path))
    written = read_yaml(read_text(path, most=LONGEST + 1), where)
    if not isinstance(written, dict) or not written:
        raise ConfigError(f"{where}: a space maps keys of the configuration to ranges or choices")
    mistakes: list[str] = []
    distributions: dict[str, BaseDistribution] = {}
    for key, value in _flat(written):
        try:
            if key in distributions:
                raise ConfigError("stands twice; give it once")
            if key.partition(".")[0] in _JUDGED:
                raise ConfigError("trials are compared by it; choose it for all of them")
            distributions[key] = _distribution(value)
        except MetaRLError as error:
            mistakes.append(f"{shown(key)}: {error}")
    space = Space(path, config, overrides, tree, distributions)
    mistakes = mistakes or _mistakes(space)
    if mistakes:
        raise ConfigError("\n".join(f"{where}: {line}" for line in mistakes))
    return space


def _mistakes(space: Space) -> list[str]:
    """What configurations from the corners of the space get wrong; every choice is in one."""
    ends = {key: _ends(distribution) for key, distribution in space.distributions.items()}
    lines: dict[str, None] = {}
    for corner in range(max(map(len, ends.values()))):
        try:
            space.config({key: values[corner % len(values)] for key, values in ends.items()})
        except ConfigError as error:
            lines |= dict.fromkeys(
                line.removeprefix("configuration: ") for line in str(error).splitlines()
            )
    return list(lines)


def _flat(written: Mapping[Any, Any], place: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys, and what they lead to."""
    for key, value in written.items():
        if isinstance(value, dict) and value and not set(value) & {"low", "high"}:
            yield from _flat(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", value


def _distribution(value: object) -> BaseDistribution:
    """Of a range or a list of choices."""
    if isinstance(value, list):
        choices = [one_line_yaml(choice) for choice in value]
        if len(choices) < 2 or len(set(choices)) < len(choices):
            raise ConfigError(f"give two or more different choices, not {quoted(value)}")
        return CategoricalDistribution(choices)
    if not isinstance(value, dict):
        raise ConfigError(f"give {{low: …, high: …}} or a list of choices, not {quoted(value)}")
    for name in value:
        if name not in _RANGE:
            raise ConfigError(f"unknown key {shown(str(name))}; {suggest(str(name), _RANGE)}")
    for name in ("low", "high", *{"step"} & set(value)):
        given = value.get(name)
        if (
            isinstance(given, bool)
            or not isinstance(given, int | float)
            or not math.isfinite(given)
        ):
            raise ConfigError(f"{name} is a number, not {quoted(given)}")
    low, high, step, log = value["low"], value["high"], value.get("step"), value.get("log")
    if log not in (None, True, False):
        raise ConfigError(f"log is true or false, not {quoted(log)}")
    if low >= high:
        raise ConfigError(f"low {low} is not below high {high}")
    if log and low <= 0:
        raise ConfigError(f"low {low} has no logarithm; give one above 0, or leave log out")
    if log and step is not None:
        raise ConfigError("log and step do not go together; leave one out")
    return _range(low, high, step, bool(log))


def _range(low: float, high: float, step: float | None, log: bool) -> BaseDistribution:
    """Of whole numbers where both ends are."""
    whole = isinstance(low, int) and isinstance(high, int)
    if step is not None and (step <= 0 or (whole and not isinstance(step, int))):
        raise ConfigError(f"step {step} is no {'whole ' if whole else ''}number above 0")
    distribution: IntDistribution | FloatDistribution
    with warnings.catch_warnings(action="ignore"):  # of the same that is said here
        if whole:
            distribution = IntDistribution(int(low), int(high), log, int(step or 1))
        else:
            distribution = FloatDistribution(low, high, log, step)
    if distribution.high != high:
        raise ConfigError(f"steps of {step} from {low} do not reach {high}")
    return distribution


def _ends(distribution: BaseDistribution) -> Sequence[Any]:
    """Its first and its last value, or all choices."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low, distribution.high
