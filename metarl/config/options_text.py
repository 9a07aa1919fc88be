"""An option in words: its meaning, type and default."""

from collections.abc import Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from metarl.config.numbers import Values
from metarl.config.yaml_text import one_line_yaml

_BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
_WORDS: dict[object, str] = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    Path: "path",
    NoneType: "null",
}
_SCHEDULE = (
    "number{0}, or [first, last]: linear over the run, or [first, last, share]: over that share of "
    "it"
)


def describe(info: FieldInfo) -> str:
    """Meaning, type and default of one option, in a line."""
    default = "required"
    if not info.is_required():
        plain = to_jsonable_python(info.get_default(call_default_factory=True), fallback=str)
        default = f"default {one_line_yaml(plain)}"
    meaning = " ".join((info.description or "not described").split())
    return f"{meaning} ({_in_words(info.annotation, info.metadata)}; {default})"


def _in_words(annotation: Any, constraints: Iterable[Any]) -> str:
    """What may be given, with the bounds that `constraints` set to its numbers."""
    bounds = _bounds(constraints)
    if annotation == Values:
        return _SCHEDULE.format(bounds)
    parts = get_args(annotation)
    match get_origin(annotation):
        case origin if origin is Annotated:
            return _in_words(parts[0], [*parts[1:], *constraints])
        case origin if origin is Literal:
            return " | ".join(map(str, parts))
        case origin if origin in (Union, UnionType):
            return " or ".join(_in_words(part, constraints) for part in parts)
        case origin if origin is tuple and parts[-1] is ...:
            return f"[{_in_words(parts[0], constraints)}, …]"
        case origin if origin is tuple:
            return f"[{', '.join(_in_words(part, constraints) for part in parts)}]"
        case origin if origin is dict:
            return "mapping"
    name = _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))
    return name + bounds if annotation in (int, float) else name


def _bounds(constraints: Iterable[Any]) -> str:
    """Such as « > 0, ≤ 1»."""
    found = [
        f"{symbol} {value}"
        for constraint in constraints
        for bound, symbol in _BOUNDS.items()
        if (value := getattr(constraint, bound, None)) is not None
    ]
    return f" {', '.join(found)}" if found else ""
