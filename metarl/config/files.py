"""Configuration files: those that come with metarl and a user's own."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from metarl.config.options_text import describe
from metarl.config.overrides import override
from metarl.config.schema import CHOICES, Choice, Config, parse, to_dict, without_code
from metarl.config.yaml_text import LONGEST, one_line_yaml, read_yaml
from metarl.core.errors import ConfigError, quoted, shown, suggest
from metarl.core.texts import read_text

SHIPPED = Path(str(files("metarl_configs")))
SUITES = SHIPPED / "suites"


def shipped() -> list[str]:
    """Names of the configurations that come with metarl, such as ``rl2/bernoulli-bandit``."""
    paths = [path for path in SHIPPED.glob("*/*.yaml") if path.parent != SUITES]
    return sorted(str(path.relative_to(SHIPPED).with_suffix("")) for path in paths)


def load_config(name: str | Path, overrides: Sequence[str] = (), *, code: bool = True) -> Config:
    """The configuration at a path or with a shipped name, with ``key=value`` overrides.

    Args:
        code: whether to import the user's code that it names; without it, it cannot be built.

    Raises:
        ConfigError: all mistakes at once, a line each.
    """
    tree = override(read_tree(name), overrides)
    return parse(tree if code else without_code(tree), where=shown(str(name)))


def read_tree(name: str | Path) -> dict[str, Any]:
    """The keys and values of the configuration at a path or with a shipped name, as written.

    Raises:
        ConfigError: there is none, or it is no mapping.
    """
    path, where = Path(name), shown(str(name))
    if path.suffix not in (".yaml", ".yml"):
        path = SHIPPED / f"{name}.yaml"
        known = shipped()
        if str(name) not in known:
            hint = suggest(str(name), known)
            raise ConfigError(
                f"configuration {quoted(str(name))} is unknown: {hint} (or give a .yaml file)"
            )
    tree = read_yaml(read_text(path, most=LONGEST + 1), where)
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: a configuration is a mapping of keys to values")
    return tree


def to_yaml(config: Config) -> str:
    """The complete configuration, every key with its meaning, type and default as a comment."""
    lines: list[str] = []
    values = to_dict(config)
    for kind in CHOICES:
        choice: Choice = vars(config)[kind]
        lines += [f"{kind}:", f"  name: {one_line_yaml(choice.name)}"]
        for key, said in _descriptions(type(choice.settings)).items():
            lines += [f"  # {said}", f"  {key}: {one_line_yaml(values[kind][key])}"]
    for key, said in _descriptions(Config).items():
        if key not in CHOICES:
            lines += [f"# {said}", f"{key}: {one_line_yaml(values[key])}"]
    return "\n".join(lines) + "\n"


@cache
def _descriptions(settings: type[BaseModel]) -> dict[str, str]:
    """Every option in words: they stay as they are, and every run writes them."""
    return {key: describe(info) for key, info in settings.model_fields.items()}
