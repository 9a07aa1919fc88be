"""Finding families, agents and worlds by name, importing only what is asked for.

A name is an entry point of a group of `GROUP`. The entry point names a `Settings` class, which
imports no torch, and the settings name the class that they configure; so every mistake in a
configuration is reported at once. A class of one's own needs no entry point:
``my_file.py:MyFamily`` and ``package.module:MyFamily`` are names too, and its options are the
nested class `Settings`, if it has one.
"""

import hashlib
import importlib
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal, get_args

from pydantic import ConfigDict, ValidationError, model_validator

from metarl.config.aliases import translate
from metarl.config.messages import error_lines
from metarl.config.numbers import Options
from metarl.core.errors import (
    ConfigError,
    MetaRLError,
    install_command,
    is_of_user,
    one_line,
    quoted,
    shown,
    suggest,
)

Kind = Literal["family", "agent", "world", "option", "class"]
GROUP: dict[Kind, str] = {
    "family": "metarl.families",
    "agent": "metarl.agents",
    "world": "metarl.worlds",
}


_METHODS: dict[Kind, tuple[str, str]] = {
    "family": ("tasks", "make"),
    "agent": ("iterate", "act"),
    "world": ("tasks", "collect"),
}
"""What makes a class one of these."""


class Settings(Options):
    """The options of one family, agent or world: typed, frozen, every field with its meaning."""

    model_config = ConfigDict(validate_default=True)

    configures: ClassVar[str] = ""
    """``module:Class`` that these are the settings of; empty where the class itself is found."""

    needs_train_tasks: ClassVar[bool] = False
    """Whether the agent learns from a fixed set of training tasks alone."""

    shards_gradients: ClassVar[bool] = False
    """Of an agent: whether it computes its gradients in shards, where these are asked for."""

    needs_family: ClassVar[bool] = False
    """Whether the agent steps environments itself, which it makes of the world's `family`."""

    other_agents: ClassVar[tuple[str, ...]] = ()
    """Options that name other agents, which the agent's constructor takes as functions that make
    them; an empty one is left out."""

    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Named sets of defaults: an agent's option `preset`, or a family's `variant`, chooses one.
    A name that the option has and `variants` has not stands for the defaults of the fields."""

    package: ClassVar[str] = ""
    """The importable name of a package that it needs beside ours, which is in our extra `extra`."""

    extra: ClassVar[str] = ""

    small: ClassVar[Mapping[str, Any]] = {}
    """Options with which `metarl check` tries an agent quickly; those that the user gives win."""

    @classmethod
    def selector(cls) -> str:
        """The option that chooses among `variants`."""
        return "preset" if "preset" in cls.model_fields else "variant"

    @classmethod
    def choices(cls) -> dict[str, Mapping[str, Any]]:
        """What may be chosen, and its defaults; without `variants` there is no choice."""
        if not cls.variants:
            return {}
        allowed = get_args(cls.model_fields[cls.selector()].annotation)
        return {name: cls.variants.get(name, {}) for name in allowed}

    @model_validator(mode="before")
    @classmethod
    def _fill_in_defaults(cls, given: object) -> object:
        if not cls.variants or not isinstance(given, dict):
            return given
        selector = cls.selector()
        chosen = given.get(selector, cls.model_fields[selector].default)
        if not isinstance(chosen, str):
            return given
        return {**cls.variants.get(chosen, {}), **given}


class UnknownSettings(Settings):
    """The options of what is not here, as they were written."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True)
class Found:
    """A family, an agent or a world that was found; its class may not be imported yet."""

    kind: Kind
    name: str
    settings: type[Settings]
    _cls: type | None = None
    absent: str = ""
    """Why it is not here."""

    def load(self) -> Any:
        """The class, imported now; its constructor takes its settings first.

        Raises:
            ConfigError: it is not here, or does not import.
        """
        if self.absent:
            raise ConfigError(self.absent)
        return self._cls or _from_module(self.kind, self.settings.configures)

    def configure(self, given: Mapping[str, Any]) -> Settings:
        """Validated settings; keys of version 0.5 are those of today.

        Raises:
            ConfigError: all mistakes at once, a line each.
        """
        known, place = self.settings.model_fields, f"{self.kind}."
        translated, written = translate(given, known, place)
        try:
            return self.settings.model_validate(translated)
        except ValidationError as error:
            raise ConfigError("\n".join(error_lines(error, place, known, written))) from None

    def build(self, settings: Settings, *others: Any, **more: Any) -> Any:
        """An instance; a class without settings is built without them.

        Raises:
            ConfigError: whatever its constructor raises.
        """
        given = (settings, *others) if self.settings.model_fields or others else ()
        cls = self.load()
        try:
            return cls(*given, **more)
        except MetaRLError:
            raise
        except Exception as error:  # a stranger's constructor may raise anything
            line = one_line(error)
            raise ConfigError(f"{self.kind} {self.name!r} cannot be made: {line}") from error

    @property
    def to_install(self) -> str:
        """The command that installs the package that it needs; empty: it is there."""
        package = self.settings.package
        if not package or find_spec(package) is not None:
            return ""
        return install_command(self.settings.extra)

    @property
    def summary(self) -> str:
        """First line of the docstring; nothing is known of what is not here."""
        if self.absent:
            return ""
        return ((self._cls or self.settings).__doc__ or "").strip().partition("\n")[0]


@cache
def _registered(kind: Kind) -> dict[str, str]:
    """Names, and what they stand for; looking through all installed packages takes its time."""
    return {point.name: point.value for point in entry_points(group=GROUP[kind])}


def names(kind: Kind) -> list[str]:
    """The registered names, sorted."""
    return sorted(_registered(kind))


def find(kind: Kind, name: str) -> Found:
    """The family, agent or world called `name`.

    Raises:
        ConfigError: nothing of that name, or its file or module does not import.
    """
    if ":" in name or name.endswith(".py"):
        return _found(kind, name, own(kind, name))
    if name in _registered(kind):
        return _found(kind, name, _from_module(kind, _registered(kind)[name]))
    hint = suggest(name, names(kind))
    raise ConfigError(f"{kind} {quoted(name)} is unknown: {hint} (or give path/to/file.py:Class)")


def find_either(name: str) -> Found:
    """The agent or family called `name`; a class is what its methods make it.

    Raises:
        ConfigError: nothing of that name, or its file or module does not import.
    """
    if ":" not in name and not name.endswith(".py"):
        agents = names("agent")
        if name in agents:
            return find("agent", name)
        families = names("family")
        if name in families:
            return find("family", name)
        near = get_close_matches(name[:100], families + agents)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ConfigError(
            f"no family or agent is called {quoted(name)}: {hint}`metarl envs` and "
            "`metarl agents` list them (or give path/to/file.py:Class)"
        )
    found = find("class", name)
    for kind in ("agent", "family"):
        if _is_one(kind, found.load()):
            return replace(found, kind=kind)
    raise ConfigError(
        f"{quoted(name)} is neither a family, which has tasks and make, nor an agent, which has "
        "iterate and act"
    )


def own(kind: Kind, name: str) -> object:
    """What somebody wrote: the thing called ``path/to/file.py:Name`` or ``package.module:Name``.

    Raises:
        ConfigError: there is none, or its file or module does not import.
    """
    if ".py:" in name or name.endswith(".py"):
        return _from_file(kind, name)
    return _from_module(kind, name)


def _is_one(kind: Kind, cls: type) -> bool:
    return set(_METHODS[kind]) <= set(dir(cls))


def _found(kind: Kind, name: str, thing: object) -> Found:
    if not isinstance(thing, type):
        raise ConfigError(
            f"{kind} {quoted(name)} is no class but {type(thing).__name__}: name a class"
        )
    if issubclass(thing, Settings):
        if not thing.configures:
            raise ConfigError(
                f"{kind} {quoted(name)}: these are settings of no class; "
                "set configures = 'module:Class'"
            )
        return Found(kind, name, thing)
    settings = getattr(thing, "Settings", Settings)
    if not (isinstance(settings, type) and issubclass(settings, Settings)):
        raise ConfigError(
            f"{kind} {quoted(name)}: its class Settings must derive from metarl.Settings"
        )
    return Found(kind, name, settings, thing)


def _from_module(kind: Kind, name: str) -> object:
    module, _, attribute = name.partition(":")
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # a stranger's module may raise anything
        line = one_line(error)
        raise ConfigError(f"{kind} {quoted(name)} does not import: {line}") from error
    return _attribute(kind, name, loaded, attribute)


_ORIGINALS: dict[Path, Path] = {}
"""Files of another machine by their copies on this one."""


def stand_for(copy: Path, original: Path) -> None:
    """The file `copy` is loaded under the name that the `original` has elsewhere."""
    _ORIGINALS[copy.resolve()] = original


def _from_file(kind: Kind, name: str) -> object:
    path_text, attribute = (name, "") if name.endswith(".py") else name.rsplit(":", 1)
    path, there = Path(path_text), False
    with suppress(OSError, ValueError):  # a name that no file can have
        path = path.resolve()
        there = path.is_file()
    if not there:
        raise ConfigError(f"{kind} {quoted(name)}: there is no file {shown(str(path))}")
    # the same in every process: where the file was loaded, what was pickled elsewhere can be read
    digest = hashlib.sha256(os.fsencode(_ORIGINALS.get(path, path))).hexdigest()[:12]
    module_name = f"metarl_file_{path.stem}_{digest}"
    if module_name not in sys.modules:
        _prepare_helpers(path.parent)
        loader = SourceFileLoader(module_name, str(path))
        module = ModuleType(module_name)
        module.__file__ = str(path)
        sys.modules[module_name] = module
        try:
            loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            line = one_line(error)
            raise ConfigError(
                f"{kind} {quoted(name)}: {shown(str(path))} does not import: {line}"
            ) from error
    return _attribute(kind, name, sys.modules[module_name], attribute)


def _prepare_helpers(folder: Path) -> None:
    """Let a file import what lies beside it, as a script may.

    Another folder may have had helpers of the same names: they are forgotten, not mistaken.
    """
    if str(folder) in sys.path:
        sys.path.remove(str(folder))
    sys.path.insert(0, str(folder))
    beside = {path.stem for path in folder.glob("*.py")} - {"__main__"}
    beside |= {path.parent.name for path in folder.glob("*/__init__.py")}
    for name, file in modules_of_user().items():
        if name.partition(".")[0] in beside and folder not in file.parents:
            del sys.modules[name]


def modules_of_user() -> dict[str, Path]:
    """The imported modules that are neither ours nor installed, with their files."""
    modules = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_absolute() and is_of_user(file):
            modules[name] = Path(file).resolve()
    return modules


def _attribute(
    kind: Kind,
    name: str,
    module: ModuleType,
    attribute: str,
) -> object:
    if hasattr(module, attribute):
        return getattr(module, attribute)
    content = vars(module)
    if not attribute:
        raise ConfigError(_no_class_named(kind, name, content))
    classes = [key for key, value in content.items() if isinstance(value, type)]
    place = content.get("__file__") or module.__name__
    raise ConfigError(
        f"{kind} {quoted(name)}: {shown(place)} has no {quoted(attribute)}: "
        f"{suggest(attribute, classes)}"
    )


def _no_class_named(kind: Kind, name: str, content: dict[str, Any]) -> str:
    """Which classes could be meant, where only their file or module is named."""
    kinds: list[Kind] = [kind] if kind in _METHODS else ["family", "agent"]
    place = name.removesuffix(":")
    meant = [
        shown(f"{place}:{key}")
        for key, value in content.items()
        if isinstance(value, type)
        and value.__module__ == content["__name__"]
        and any(_is_one(one, value) for one in kinds)
    ]
    said = f"{kind} {quoted(name)} names no class"
    if meant:
        return f"{said}: write {' or '.join(meant)}"
    wanted = " and no ".join(f"{one} (a class with {' and '.join(_METHODS[one])})" for one in kinds)
    return f"{said}, and there is no {wanted} in it: write {shown(place)}:Class"
