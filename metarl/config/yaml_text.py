"""YAML 1.2 as text: 1e-3 is a number, `on` and `yes` are words, and a key stands once.

Beyond YAML 1.2, as in YAML 1.1, 20_000 and 0b11 are numbers and a merge key (<<) is followed.
"""

import json
import warnings
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode
from ruamel.yaml.reader import ReaderError

from metarl.core.errors import ConfigError, shown
from metarl.core.texts import fold

LONGEST = 100_000
"""Characters; a configuration with all its comments has 6,000."""

_DEEPEST = 30
_TAG = "tag:yaml.org,2002:"


class _YAML(YAML):
    """Without plug-ins, which it would search the disk for whenever one is made."""

    def official_plug_ins(self) -> list[str]:
        return []


class _Constructor(SafeConstructor):
    """Dates are words, whole numbers have 64 bits, and a tag changes nothing but !!str."""

    def construct_document(self, node: Node) -> Any:
        self._entries = 0
        self._check(node, 0)
        return super().construct_document(node)

    def _check(self, node: Node, depth: int) -> None:
        """Also of what aliases repeat, so that a few lines are no millions of entries."""
        self._entries += 1
        if depth > _DEEPEST:
            raise _mistake(f"more than {_DEEPEST} levels", node)
        if self._entries > LONGEST:
            raise _mistake("aliases (*) make too many entries", node)
        tag = str(node.tag)
        if isinstance(node, ScalarNode):
            meant = self.resolver.resolve(ScalarNode, node.value, (True, False))
            if tag not in (meant, _TAG + "str"):
                raise _mistake(f"the tag {tag.replace(_TAG, '!!')} does not fit", node)
            return
        mapping = isinstance(node, MappingNode)
        if tag != _TAG + ("map" if mapping else "seq"):
            raise _mistake(f"the tag {tag.replace(_TAG, '!!')} does not fit", node)
        for part in node.value:
            if not mapping:
                self._check(part, depth + 1)
                continue
            key, value = part
            if not isinstance(key, ScalarNode):
                raise _mistake("a key is a word or a number", key)
            self._check(key, depth + 1)
            self._check(value, depth + 1)

    def construct_yaml_int(self, node: Node) -> int:
        digits = node.value.replace("_", "")
        if len(digits) > 66 or not -(2**63) <= (number := super().construct_yaml_int(node)) < 2**63:
            raise _mistake("a whole number has at most 64 bits", node)
        return number


for _tag, _construct in (
    ("timestamp", SafeConstructor.construct_yaml_str),
    ("value", SafeConstructor.construct_yaml_str),
    ("int", _Constructor.construct_yaml_int),
):
    _Constructor.add_constructor(_TAG + _tag, _construct)


def _mistake(problem: str, node: Node) -> ConstructorError:
    return ConstructorError(None, None, problem, node.start_mark)


def read_yaml(text: str, where: str) -> object:
    """Parsed YAML.

    Raises:
        ConfigError: not YAML, a key that stands twice, or more than a configuration has.
    """
    where = shown(where)
    if len(text) > LONGEST:
        raise ConfigError(f"{where} is no configuration: it has more than {LONGEST:,} characters")
    if _brackets(text) > _DEEPEST:
        raise ConfigError(f"{where} is not YAML: more than {_DEEPEST} levels of brackets")
    yaml = _YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        with warnings.catch_warnings(action="ignore"):  # of style
            return yaml.load(text)
    except DuplicateKeyError as error:
        key = shown(error.problem.split('"')[1])
        raise ConfigError(
            f"{where}: line {error.problem_mark.line + 1}: duplicate key {key!r}"
        ) from None
    except MarkedYAMLError as error:
        line = 1 + (error.problem_mark or error.context_mark).line
        ours = "" if isinstance(error, ConstructorError) else " is not YAML"
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{where}{ours}: line {line}: {shown(problem)}") from None
    except ReaderError as error:
        line = 1 + text.count("\n", 0, error.position)
        raise ConfigError(
            f"{where} is not YAML: line {line}: the character U+{error.character:04X} has no place "
            "in a text"
        ) from None
    except RecursionError:
        raise ConfigError(f"{where} is not YAML: more than {_DEEPEST} levels") from None
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"{where} is not YAML: {shown(' '.join(str(error).split()))}") from None


def _brackets(text: str) -> int:
    """How deep they are nested: the parser's time grows with its square."""
    deepest = depth = 0
    for letter in text:
        if letter in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in "]}":
            depth = max(0, depth - 1)
    return deepest


def fold_comments(text: str, width: int | None) -> str:
    """YAML whose comments, each on lines of its own, are at most `width` columns wide."""
    lines = []
    for line in text.splitlines():
        before, mark, _ = line.partition("# ")
        if mark and not before.strip():
            line = fold(line, width, before + mark)
        lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def one_line_yaml(value: object) -> str:
    """A plain value as YAML on one line."""
    if value is None or type(value) in (bool, int):  # as in JSON, and most of a configuration
        return json.dumps(value)
    yaml = _YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.width = LONGEST
    stream = StringIO()
    yaml.dump(value, stream)
    return stream.getvalue().removesuffix("\n...\n").strip(" \n")
