"""Options from the command line, ``key=value`` each.

``agent.memory_width=128`` sets one option; ``family=NAME`` chooses another family with its
defaults.
"""

from collections.abc import Sequence
from typing import Any

from metarl.config.aliases import current
from metarl.config.schema import CHOICES
from metarl.config.yaml_text import read_yaml
from metarl.core.errors import ConfigError, quoted

_PRESETS = ("preset", "variant")
"""The options whose value stands for many others, of agents and of families."""


def override(tree: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """The configuration `tree` with all overrides, whatever their order.

    Raises:
        ConfigError: one that is not written ``key=value``.
    """
    for text in sorted(texts, key=_rank):
        tree = _with_override(tree, text)
    return tree


def read_options(texts: Sequence[str], *sections: str) -> dict[str, dict[str, Any]]:
    """``section.key=value`` by section; where there is but one, its name may be left out.

    Raises:
        ConfigError: not written like that.
    """
    read: dict[str, dict[str, Any]] = {section: {} for section in sections}
    for text in texts:
        key, equals, value = text.partition("=")
        section, dot, option = key.partition(".")
        if len(sections) == 1 and not dot:
            section, option = sections[0], key
        if not equals or section not in read or not option:
            raise ConfigError(f"{quoted(text)} is not an option: write {_forms(sections)}")
        read[section][option] = read_yaml(value, key)
    return read


def _forms(sections: Sequence[str]) -> str:
    if len(sections) == 1:
        return "key=value"
    return " or ".join(f"{section}.key=value" for section in sections)


def _rank(text: str) -> int:
    """Names go before presets, and these before the options that they fill in."""
    _, dot, option = text.partition("=")[0].partition(".")
    if not dot:
        return 0
    return 1 if option in _PRESETS else 2


def _with_override(tree: dict[str, Any], text: str) -> dict[str, Any]:
    """Another family, agent or preset drops the options of the one before."""
    key, equals, value_text = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"{quoted(text)} is not an override: write key=value")
    value = read_yaml(value_text, key)
    section, dot, option = key.partition(".")
    if section not in CHOICES:
        return tree | {key: value}
    old = tree.get(section)
    if not isinstance(old, dict):
        old = {"name": old}
    if not dot:
        return tree if old.get("name") == value else tree | {section: value}
    others = {name: kept for name, kept in old.items() if current(name) != current(option)}
    if option in _PRESETS and value not in [old.get(name) for name in _PRESETS]:
        others = {"name": old.get("name")}
    return tree | {section: others | {option: value}}
