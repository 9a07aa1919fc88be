"""Other names of our keys: those of version 0.5 keep loading, other libraries' are answered."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from metarl.config.yaml_text import read_yaml
from metarl.core.errors import ConfigError, shown
from metarl.core.texts import read_text

_TABLES = read_yaml(read_text(Path(__file__).with_name("aliases.yaml")), "aliases.yaml")
assert isinstance(_TABLES, dict)

RENAMED: dict[str, str] = _TABLES["renamed"]
"""Key of version 0.5 → key of today, wherever a class has the second and not the first."""

FOREIGN: dict[str, str] = _TABLES["foreign"]
"""Key of garage, CleanRL, Stable-Baselines3, learn2learn or ProMP → ours of the same meaning."""


def current(key: str) -> str:
    """The key of today for one of version 0.5."""
    return RENAMED.get(key, key)


def translate(
    given: Mapping[str, Any], known: Collection[str], place: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """`given` with the keys of today, of which there are `known`.

    Returns:
        The translated mapping, and each of its keys as it was written.

    Raises:
        ConfigError: two keys at `place` mean the same.
    """
    translated: dict[str, Any] = {}
    written: dict[str, str] = {}
    for key, value in given.items():
        new = current(key) if key not in known and current(key) in known else key
        if new in translated:
            raise ConfigError(
                f"{place}{shown(key)}: means the same as {place}{shown(written[new])}; "
                "give one of them"
            )
        translated[new] = value
        written[new] = key
    return translated, written
