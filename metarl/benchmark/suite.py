"""Suites: which agents are compared on which problems, with which seeds, and what scores mean.

A suite is a YAML file::

    title: Smoke
    seeds: [0, 1]
    problems:
      bandit:
        family: {name: bernoulli-bandit, arms: 5}
        settings: {episodes: 20, env_steps: 100_000}
        agents:
          rl2: rl2/bernoulli-bandit               # a configuration, by name or path
          thompson: thompson                      # an agent that learns nothing
          rl2-large:
            config: rl2/bernoulli-bandit
            settings: {agent.memory_width: 128}
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from metarl.benchmark.references import Reference, read_references
from metarl.config.files import SUITES, load_config
from metarl.config.messages import error_lines
from metarl.config.numbers import Options
from metarl.config.registry import names
from metarl.config.schema import Config, parse, to_dict
from metarl.config.yaml_text import LONGEST, read_yaml
from metarl.core.errors import ConfigError, MetaRLError, quoted, suggest
from metarl.core.texts import read_text, to_json
from metarl.experiments.counters import LIMITS, WORKERS

RANDOM = "random"
_LABEL = re.compile(r"[a-z0-9][a-z0-9_.-]*", re.IGNORECASE)


class Entrant(Options):
    """An agent of a problem."""

    config: str | None = None
    """the configuration that it is trained by: a shipped name or a .yaml file"""
    agent: str | None = None
    """instead: an agent that learns nothing, by name"""
    settings: dict[str, Any] = Field(default_factory=dict)
    """changes of the configuration, by dotted keys"""
    limit_minutes: float | None = Field(None, gt=0)
    """in place of the suite's"""


class Problem(Options):
    """A distribution of tasks, and who is compared on it."""

    family: str | dict[str, Any]
    """name (or path/to/file.py:Class) of the family, and its settings"""
    settings: dict[str, Any] = Field(default_factory=dict)
    """changes of every configuration, by dotted keys: episodes, env_steps, test_tasks …"""
    budgets: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """the same once for each of these limits, by name: a problem each"""
    score: str = "total"
    """what agents are compared by: total, last, success, or a metric of the family (-name: less is
    better)"""
    zero: float | str = RANDOM
    """what 0 is in scaled scores: a number, or an agent's mean score"""
    one: float | str = "optimum"
    """what 1 is: a number, an agent's mean score, or optimum, the known one"""
    agents: dict[str, str | Entrant]
    """by label: a configuration, an agent that learns nothing, or either with settings"""


class Suite(Options):
    """Problems × agents × seeds."""

    title: str
    description: str = ""
    seeds: list[int] = Field(default_factory=lambda: [0, 1, 2, 3, 4])
    limit_minutes: float = Field(60.0, gt=0)
    """a run that takes longer is ended, and counts as failed"""
    problems: dict[str, Problem]
    references: str | None = None
    """a CSV file beside the suite: problem, agent, quantity, value, source, protocol"""

    @field_validator("problems")
    @classmethod
    def _check_labels(cls, problems: dict[str, Problem]) -> dict[str, Problem]:
        for problem, content in problems.items():
            for label in (problem, *content.budgets, *content.agents):
                if not _LABEL.fullmatch(label):
                    raise ValueError(f"{label!r}: a label is made of letters, digits, - _ and .")
        return problems


@dataclass(frozen=True)
class Cell:
    """One run of a suite."""

    problem: str
    agent: str
    seed: int
    config: Config
    trained: bool
    """False: an agent that learns nothing, which is evaluated alone."""
    limit_minutes: float
    """A run that takes longer is ended."""

    @property
    def folder(self) -> Path:
        """Of the run, in that of the benchmark."""
        return Path(self.problem, self.agent, f"seed-{self.seed}")

    @cached_property
    def hash(self) -> str:
        return config_hash(to_dict(self.config))

    def __str__(self) -> str:
        return f"{self.problem} / {self.agent} / seed {self.seed}"


_NEWER = {"shard_rows": None, "gradient_shards": 1}
"""Keys since version 0.14, with the values that change nothing: older results keep their hashes."""


def config_hash(plain: Mapping[str, Any]) -> str:
    """Of a configuration as plain values, whatever their order and whoever computes."""
    counted = {}
    for key, value in plain.items():
        if key not in WORKERS and not (key in _NEWER and value == _NEWER[key]):
            counted[key] = value
    text = json.dumps(json.loads(to_json(counted)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ReadSuite:
    """A suite that was read, with budgets as problems of their own."""

    name: str
    text: str
    """Of its file."""
    suite: Suite
    problems: dict[str, Problem]
    references: tuple[Reference, ...]
    references_text: str

    def cells(self, seeds: Sequence[int] | None = None, only: Sequence[str] = ()) -> list[Cell]:
        """All of them: an agent that learns nothing has a single run.

        Args:
            seeds: in place of the suite's.
            only: labels of agents or problems: cells that have none of them are left out.

        Raises:
            ConfigError: all mistakes at once, a line each.
        """
        cells: list[Cell] = []
        mistakes: list[str] = []
        for problem, content in self.problems.items():
            for agent in content.agents:
                if only and problem not in only and agent not in only and agent != RANDOM:
                    continue
                try:
                    cells += self._cells_of(problem, agent, seeds or self.suite.seeds)
                except MetaRLError as error:
                    place = f"{self.name}: {problem} / {agent}: "
                    mistakes += [place + line for line in str(error).splitlines()]
        if not mistakes:
            mistakes = [f"{self.name}: {line}" for line in _incomparable(cells)]
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        wanted = set(only)
        kept = {cell.problem for cell in cells if not only or wanted & {cell.problem, cell.agent}}
        return [cell for cell in cells if cell.problem in kept]

    def _cells_of(self, problem: str, agent: str, seeds: Sequence[int]) -> Iterator[Cell]:
        content = self.problems[problem]
        given = entrant(content.agents[agent])
        limit = given.limit_minutes or self.suite.limit_minutes
        settings = {"score": content.score} | content.settings | given.settings
        family = content.family
        if isinstance(family, str):
            family = {"name": family}
        if given.agent is not None:
            shared = {key: value for key, value in settings.items() if key in _EVALUATION}
            tree = {"agent": given.agent, "family": family, "iterations": 0, "episodes": 1}
            config = parse(tree | {"validation_tasks": 2} | shared)
            yield Cell(problem, agent, 0, config, False, limit)
            return
        if not settings.keys().isdisjoint(LIMITS):  # those of the configuration are not its own
            settings = dict.fromkeys(LIMITS) | settings
        overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        overrides.append(f"family={json.dumps(family)}")
        first = load_config(given.config or "", overrides)
        for seed in seeds:
            config = first.model_copy(update={"seed": seed})
            yield Cell(problem, agent, seed, config, True, limit)


def _incomparable(cells: Sequence[Cell]) -> Iterator[str]:
    """What keeps the agents of a problem from being compared."""
    for problem in dict.fromkeys(cell.problem for cell in cells):
        configs = [cell.config for cell in cells if cell.problem == problem]
        if len({config.test_tasks for config in configs}) > 1:
            yield f"{problem}: agents meet different tasks: set test_tasks in its settings"
        episodes = {config.episodes + config.test_episodes for config in configs}
        if len(episodes) > 1 and configs[0].score.removeprefix("-") == "total":
            yield f"{problem}: total needs equal episodes for all agents: set them, or score: last"


_EVALUATION = ("score", "episodes", "test_episodes", "test_tasks", "mode", "test_mode", "device")
"""The settings of a problem that an agent which learns nothing has, too."""


def shipped_suites() -> list[str]:
    """Names of the suites that come with metarl."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def read_suite(name: str | Path) -> ReadSuite:
    """The suite at a path or with a shipped name.

    Raises:
        ConfigError: all mistakes at once, a line each.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = SUITES / f"{name}.yaml"
        if str(name) not in shipped_suites():
            hint = suggest(str(name), shipped_suites())
            raise ConfigError(
                f"suite {quoted(str(name))} is unknown: {hint} (or give a .yaml file)"
            )
    text = read_text(path, most=LONGEST + 1)
    tree = read_yaml(text, str(name))
    if not isinstance(tree, dict):
        raise ConfigError(f"{name}: a suite is a mapping of keys to values")
    try:
        suite = Suite.model_validate(tree)
    except ValidationError as error:
        lines = error_lines(error, "", Suite.model_fields, {})
        raise ConfigError("\n".join(f"{name}: {line}" for line in lines)) from None
    problems = dict(_problems(suite))
    references_text = ""
    if suite.references is not None:
        references_text = read_text(path.parent / suite.references)
    references = read_references(references_text, suite.references or "")
    return ReadSuite(path.stem, text, suite, problems, references, references_text)


def _problems(suite: Suite) -> Iterator[tuple[str, Problem]]:
    """With budgets as problems of their own; random actions are everywhere."""
    for name, problem in suite.problems.items():
        agents = {RANDOM: RANDOM} | problem.agents
        problem = problem.model_copy(update={"agents": agents})
        if not problem.budgets:
            yield name, problem
        for budget, limits in problem.budgets.items():
            settings = problem.settings | limits
            yield f"{name}-{budget}", problem.model_copy(update={"settings": settings})


def entrant(given: str | Entrant) -> Entrant:
    """What stands for an agent in a suite, in full.

    Raises:
        ConfigError: neither or both of a configuration and an agent.
    """
    if isinstance(given, str):
        untrained = given in names("agent")
        given = Entrant.model_validate({"agent" if untrained else "config": given})
    if (given.config is None) == (given.agent is None):
        raise ConfigError("give either config, to train by, or agent, which learns nothing")
    return given
