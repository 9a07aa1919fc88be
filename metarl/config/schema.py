"""A run's configuration: typed and frozen, all mistakes at once; imports no torch.

It is one flat mapping, complete::

    agent: {name: rl2, memory_width: 64}
    family: {name: bernoulli-bandit, arms: 5}
    episodes: 100
    env_steps: 20_000_000
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, SkipValidation, ValidationError

from metarl.config.messages import error_lines
from metarl.config.numbers import Options
from metarl.config.numbers import Schedule as Schedule
from metarl.config.numbers import schedule_value as schedule_value
from metarl.config.registry import Found, Kind, Settings, UnknownSettings, find
from metarl.core.errors import ConfigError, MetaRLError

CHOICES: tuple[Kind, ...] = ("agent", "family", "world")
"""The keys whose values are chosen by name, with settings of their own."""


class Choice(BaseModel):
    """A family, an agent or a world by name, with its settings."""

    model_config = ConfigDict(frozen=True)

    name: str
    settings: Settings
    found: SkipValidation[Found] = Field(exclude=True, repr=False)


class Config(Options):
    """All that determines a run; the same configuration gives the same numbers."""

    agent: Choice
    """name (or path/to/file.py:Class) of the agent, and its settings"""
    family: Choice
    """name (or path/to/file.py:Class) of the family, and its settings"""
    world: Choice
    """name (or path/to/file.py:Class) of what the agent is trained on, and its settings"""
    seed: int = Field(0, ge=-(2**63), lt=2**63)
    """the one seed that all random numbers of the run grow from"""
    episodes: PositiveInt
    """episodes of a trial, in all lanes: what an agent may use to adapt to one task"""
    test_episodes: int = Field(0, ge=0)
    """further episodes of a trial in evaluation, in all lanes, to which the agent does not adapt;
    the last episode is then the mean of these"""
    train_tasks: int | None = Field(None, ge=1)
    """train on a fixed set of so many tasks; none: fresh tasks in every iteration"""
    env_steps: int | None = Field(None, ge=1)
    """stop after so many environment steps"""
    iterations: int | None = Field(None, ge=0)
    """stop after so many iterations; 0: the agent is evaluated as it is"""
    minutes: float | None = Field(None, gt=0)
    """stop after so many minutes of training (not reproducible)"""
    mode: Literal["sample", "greedy"] = "sample"
    """how actions are chosen in evaluation: sampled from the policy, or its mode"""
    test_mode: Literal["sample", "greedy"] | None = None
    """the same in the last round, or in test_episodes, which test; none: as in mode"""
    score: str = "total"
    """what the best checkpoint is chosen by: total, the return of the whole trial; or of its last
    episode (the mean of the lanes) last, the return, success, or a metric of the family, by name
    (-name: the smallest)"""
    validate_every: PositiveInt = 20
    """iterations between evaluations on validation tasks"""
    validation_tasks: int = Field(500, ge=2)
    """validation tasks; the best checkpoint is chosen on them"""
    validation_window: PositiveInt = 1
    """the best checkpoint is the last of so many evaluations whose mean score is highest"""
    test_tasks: int = Field(1000, ge=2)
    """unseen tasks of the test and ood splits, reported at the end"""
    checkpoint_every: PositiveInt = 10
    """iterations between checkpoints"""
    warm_start: Path | None = None
    """run folder or checkpoint whose parameters this run begins from"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where tensors live"""
    threads: int = Field(1, ge=1, le=1024)
    """torch's threads"""
    collector: Literal["local", "ray"] = "local"
    """who rolls out, evaluates and computes gradients: this process, or workers on a Ray cluster
    ($RAY_ADDRESS, or one on this machine); numbers do not depend on it"""
    workers: int = Field(1, ge=1, le=10_000)
    """how many workers, with collector=ray"""
    worker_cpus: float | None = Field(None, gt=0)
    """CPUs that each worker asks of the cluster; none: as many as threads"""
    shard_rows: int | None = Field(None, ge=1)
    """task rows that one worker rolls out at a time; none: all of them, in one; other sizes round
    otherwise"""
    gradient_shards: int = Field(1, ge=1, le=10_000)
    """parts of a minibatch whose gradients are computed apart and summed in their order; other
    numbers round otherwise"""


def parse(tree: Mapping[str, Any], where: str = "configuration") -> Config:
    """A configuration from nested mappings; what is chosen by name may be a `Choice` already.

    Raises:
        ConfigError: all mistakes at once, a line each.
    """
    tree = {"world": "local", **tree}
    mistakes: list[str] = []
    for kind in CHOICES:
        if kind in tree and not isinstance(tree[kind], Choice):
            try:
                tree[kind] = choose(kind, tree[kind])
            except MetaRLError as error:
                mistakes += str(error).splitlines()
                unknown = Found(kind, "?", Settings)
                tree[kind] = Choice(name="?", settings=Settings(), found=unknown)
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        mistakes += error_lines(error, "", Config.model_fields, {})
    else:
        if config.env_steps is config.iterations is config.minutes is None:
            mistakes.append(
                "env_steps, iterations, minutes: set at least one, so that the run ends"
            )
        if not mistakes:
            return config
    raise ConfigError("\n".join(f"{where}: {line}" for line in mistakes))


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain values that `parse` reads back."""
    plain: dict[str, Any] = {}
    for kind in CHOICES:
        choice: Choice = vars(config)[kind]
        plain[kind] = {"name": choice.name, **choice.settings.model_dump(mode="json")}
    return plain | config.model_dump(mode="json", exclude=set[str](CHOICES))


def choose(kind: Kind, section: object, known: Found | None = None) -> Choice:
    """The family, agent or world of a `section` of a configuration.

    Args:
        known: what its name stands for, where that was found out already.

    Raises:
        ConfigError: no name, nothing of that name, or options that it does not take.
    """
    name, given = _split(kind, section)
    found = known or find(kind, name)
    return Choice(name=name, settings=found.configure(given), found=found)


def absent(kind: Kind, section: object, why: str) -> Choice:
    """The same where it is not here: its options are kept, and whoever needs it is told `why`."""
    name, _ = _split(kind, section)
    return choose(kind, section, Found(kind, name, UnknownSettings, absent=why))


def without_code(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration `tree` with classes of a user's own as absent ones."""
    tree = dict(tree)
    for kind in CHOICES:
        if kind in tree and ":" in _split(kind, tree[kind])[0]:
            tree[kind] = absent(kind, tree[kind], f"{kind}: its code was not imported")
    return tree


def _split(kind: Kind, section: object) -> tuple[str, dict[str, Any]]:
    """Its name and its options."""
    if isinstance(section, str):
        section = {"name": section}
    if not isinstance(section, dict) or not isinstance(section.get("name"), str):
        raise ConfigError(f"{kind}: give its name, such as {kind}: {{name: …}}")
    given = {key: value for key, value in section.items() if key != "name"}
    return section["name"], given
