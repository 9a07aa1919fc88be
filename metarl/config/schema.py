"""A run's configuration: typed and frozen, from YAML and the command line, all mistakes at once; imports no torch.

One file is one run, complete and flat::

    agent: {name: rl2, memory_width: 64}
    family: {name: bernoulli-bandit, arms: 5}
    episodes: 100
    env_steps: 20_000_000

On the command line ``agent.memory_width=128`` sets one option; ``family=NAME`` chooses another family with its defaults.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from metarl.config.messages import lines
from metarl.config.registry import Settings, find
from metarl.core.errors import Mistake, nearest

SHIPPED = Path(str(files("metarl_configs")))

Schedule = float | tuple[float, float] | tuple[float, float, Annotated[float, Field(gt=0, le=1)]]
"""A constant; ``[first, last]``, a straight line over the run; or ``[first, last, share]``, over that share of the run."""


def at(schedule: Schedule, progress: float) -> float:
    """The value of a schedule when `progress` (0 to 1) of the training is over."""
    if not isinstance(schedule, tuple):
        return schedule
    first, last = schedule[:2]
    share = schedule[2] if len(schedule) == 3 else 1.0
    return first + (last - first) * min(max(progress / share, 0.0), 1.0)


class Choice(BaseModel):
    """A family or an agent by name, with its options."""

    model_config = ConfigDict(frozen=True)

    name: str
    options: Settings


class Config(BaseModel):
    """All that determines a run; the same configuration gives the same numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    agent: Choice = Field(description="name (or path/to/file.py:Class) of the agent, and its options")
    family: Choice = Field(description="name (or path/to/file.py:Class) of the family, and its options")
    seed: int = Field(0, description="the one seed that all random numbers of the run grow from")
    episodes: int = Field(
        ge=1, description="episodes of a trial, in all lanes: what an agent may use to adapt to one task"
    )
    train_tasks: int | None = Field(
        None, ge=1, description="train on a fixed set of so many tasks; none: fresh tasks in every iteration"
    )
    env_steps: int | None = Field(None, ge=1, description="stop after so many environment steps")
    iterations: int | None = Field(None, ge=1, description="stop after so many iterations")
    minutes: float | None = Field(None, gt=0, description="stop after so many minutes of training (not reproducible)")
    mode: Literal["sample", "greedy"] = Field(
        "sample", description="how actions are chosen in evaluation: drawn from the policy, or its most likely one"
    )
    score: Literal["total", "last"] = Field(
        "total",
        description="what the best checkpoint is chosen by: the return of the whole trial, or of its last episode in the "
        "mean of the lanes",
    )
    validate_every: int = Field(20, ge=1, description="iterations between evaluations on validation tasks")
    validation_tasks: int = Field(500, ge=2, description="validation tasks; the best checkpoint is chosen on them")
    test_tasks: int = Field(1000, ge=2, description="unseen tasks of the test and ood splits, reported at the end")
    checkpoint_every: int = Field(10, ge=1, description="iterations between checkpoints")
    warm_start: Path | None = Field(None, description="run folder or checkpoint whose parameters this run begins from")
    device: Literal["cpu", "cuda"] = Field("cpu", description="where tensors live")
    threads: int = Field(1, ge=1, description="torch's threads")


# ---------------------------------------------------------------------------------------------------------------------
# Reading


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars (1e-3 is a number, 010 is ten, `on` and `yes` are words) and no duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: list[Any] = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                raise Mistake(f"line {key_node.start_mark.line + 1}: the key {key!r} stands twice")
            keys.append(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag in ("tag:yaml.org,2002:null",)]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9][0-9_]*$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9_]+(?:[eE][-+]?[0-9]+)?|[-+]?\.inf)$"
    ),
    list("-+0123456789."),
)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value.replace("_", "")))


class _Dumper(yaml.SafeDumper):
    """Quotes the words that our loader would take for something else."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def read_yaml(text: str, where: str) -> Any:
    """Parsed YAML.

    Raises:
        Mistake: not YAML, or a key that stands twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a safe loader)
    except Mistake as error:
        raise Mistake(f"{where}: {error}") from None
    except yaml.YAMLError as error:
        raise Mistake(f"{where} is not YAML: {' '.join(str(error).split())}") from None


def shipped() -> list[str]:
    """Names of the configurations that come with metarl, such as ``rl2/bernoulli-bandit``."""
    return sorted(str(path.relative_to(SHIPPED).with_suffix("")) for path in SHIPPED.rglob("*.yaml"))


def load_config(name: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration at a path or with a shipped name, with ``key=value`` overrides.

    Raises:
        Mistake: all mistakes at once, a line each.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = SHIPPED / f"{name}.yaml"
        if not path.is_file():
            raise Mistake(
                f"configuration {str(name)!r} is unknown: {nearest(str(name), shipped())} (or give a .yaml file)"
            )
    try:
        text = path.read_text()
    except OSError as error:
        raise Mistake(f"configuration {path}: {error.strerror}") from None
    tree = read_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise Mistake(f"{path}: a configuration is a mapping of keys to values")
    for override in sorted(overrides, key=_rank):
        tree = _override(tree, override)
    return parse(tree, where=str(name))


def parse(tree: Mapping[str, Any], where: str = "configuration") -> Config:
    """A configuration from nested mappings.

    Raises:
        Mistake: all mistakes at once, a line each.
    """
    tree = dict(tree)
    mistakes: list[str] = []
    for kind in ("agent", "family"):
        if kind in tree:
            try:
                tree[kind] = _choice(kind, tree[kind])
            except Mistake as error:
                mistakes += str(error).splitlines()
                tree[kind] = Choice(name="?", options=Settings())
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        mistakes += lines(error, "", list(Config.model_fields))
    else:
        if config.env_steps is config.iterations is config.minutes is None:
            mistakes.append("env_steps, iterations, minutes: set at least one, so that the run ends")
        if not mistakes:
            return config
    raise Mistake("\n".join(f"{where}: {line}" for line in mistakes))


def read_options(texts: Sequence[str], *sections: str) -> dict[str, dict[str, Any]]:
    """``section.key=value`` by section; where there is but one, its name may be left out.

    Raises:
        Mistake: not written like that.
    """
    (first, *others), read = sections, {section: dict[str, Any]() for section in sections}
    for text in texts:
        key, equals, value = text.partition("=")
        section, dot, option = key.partition(".")
        if not others and not dot:
            section, option = first, key
        if not equals or section not in read or not option:
            forms = " or ".join(f"{section}.key=value" for section in sections) if others else "key=value"
            raise Mistake(f"{text!r} is no option: write {forms}")
        read[section][option] = read_yaml(value, key)
    return read


def _choice(kind: Literal["agent", "family"], section: Any) -> Choice:
    section = {"name": section} if isinstance(section, str) else section
    if not isinstance(section, dict) or not isinstance(section.get("name"), str):
        raise Mistake(f"{kind}: give its name, such as {kind}: {{name: …}}")
    found = find(kind, section["name"])
    options = {key: value for key, value in section.items() if key != "name"}
    return Choice(name=found.name, options=found.configure(options))


def _rank(override: str) -> int:
    """Names go before variants, and these before the options that they fill in."""
    key = override.partition("=")[0]
    return 0 if "." not in key else 1 if key.endswith(".variant") else 2


def _override(tree: dict[str, Any], text: str) -> dict[str, Any]:
    """`tree` with one ``section.key=value``; another family, agent or variant drops the options of the one before."""
    key, equals, value_text = text.partition("=")
    if not equals or not key:
        raise Mistake(f"{text!r} is no override: write key=value")
    value = read_yaml(value_text, key)
    section, dot, option = key.partition(".")
    if section not in ("agent", "family"):
        return tree | {key: value}
    old = tree.get(section)
    if not dot:
        same = isinstance(old, dict) and old.get("name") == value
        return tree if same else tree | {section: value}
    if not isinstance(old, dict):
        old = {"name": old}
    if option == "variant" and old.get("variant") != value:
        old = {"name": old.get("name")}
    return tree | {section: old | {option: value}}


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain values that `parse` reads back."""
    plain = config.model_dump(mode="json", exclude={"agent", "family"})
    return {
        "agent": {"name": config.agent.name, **config.agent.options.model_dump(mode="json")},
        "family": {"name": config.family.name, **config.family.options.model_dump(mode="json")},
        **plain,
    }


def to_yaml(config: Config) -> str:
    """The complete configuration, every key with its meaning, type and default as a comment."""
    lines: list[str] = []
    values = to_dict(config)
    for kind, choice in (("agent", config.agent), ("family", config.family)):
        lines += [f"{kind}:", f"  name: {_scalar(choice.name)}"]
        for key, info in type(choice.options).model_fields.items():
            lines += ["  " + line for line in _entry(key, values[kind][key], info)]
    for key, info in Config.model_fields.items():
        if key not in ("agent", "family"):
            lines += _entry(key, values[key], info)
    return "\n".join(lines) + "\n"


def describe(info: FieldInfo) -> str:
    """Meaning, type and default of one option, in a line."""
    default = "required" if info.is_required() else f"default {_scalar(info.get_default())}"
    return f"{info.description or 'not described'} ({_type_name(info)}; {default})"


def _entry(key: str, value: Any, info: FieldInfo) -> list[str]:
    return [f"# {describe(info)}", f"{key}: {_scalar(value)}"]


def _scalar(value: Any) -> str:
    """YAML on one line."""
    value = list(value) if isinstance(value, tuple) else value
    return yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def _type_name(info: FieldInfo) -> str:
    name = str(info.annotation) if not isinstance(info.annotation, type) else info.annotation.__name__
    name = re.sub(r"typing\.|annotated_types\.|pathlib\._local\.|pathlib\.", "", name)
    name = re.sub(r"Literal\[(.*?)\]", lambda m: m.group(1).replace("'", "").replace(", ", " | "), name)
    bounds = [f"{symbol} {value}" for symbol, value in _bounds(info)]
    return name.replace("NoneType", "none").replace("None", "none") + (", " + ", ".join(bounds) if bounds else "")


def _bounds(info: FieldInfo) -> list[tuple[str, Any]]:
    symbols = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    return [(symbols[n], getattr(m, n)) for m in info.metadata for n in symbols if getattr(m, n, None) is not None]
