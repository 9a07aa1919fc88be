"""YAML 1.2 as text: 1e-3 is a number, `on` and `yes` are words, and a key stands once."""

from io import StringIO

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import YAMLError

from metarl.core.errors import ConfigError


class _Constructor(SafeConstructor):
    """Dates are words."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


def read_yaml(text: str, where: str) -> object:
    """Parsed YAML.

    Raises:
        ConfigError: not YAML, or a key that stands twice.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        return yaml.load(text)
    except DuplicateKeyError as error:
        key = error.problem.split('"')[1]
        raise ConfigError(
            f"{where}: line {error.problem_mark.line + 1}: duplicate key {key!r}"
        ) from None
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"{where} is not YAML: {' '.join(str(error).split())}") from None


def one_line_yaml(value: object) -> str:
    """A value as YAML on one line."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.width = 10_000
    stream = StringIO()
    yaml.dump(list(value) if isinstance(value, tuple) else value, stream)
    return stream.getvalue().removesuffix("\n...\n").strip()
