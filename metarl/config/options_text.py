"""An option in words: its meaning, type and default."""

import re
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from metarl.config.numbers import Values
from metarl.config.yaml_text import one_line_yaml

_BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def describe(info: FieldInfo) -> str:
    """Meaning, type and default of one option, in a line."""
    default = "required"
    if not info.is_required():
        plain = to_jsonable_python(info.get_default(call_default_factory=True), fallback=str)
        default = f"default {one_line_yaml(plain)}"
    meaning = " ".join((info.description or "not described").split())
    return f"{meaning} ({_type_name(info)}; {default})"


def _type_name(info: FieldInfo) -> str:
    annotation: Any = info.annotation
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    if annotation == Values:
        name = "number, [first, last] or [first, last, share]"
    name = re.sub(r"typing\.|pathlib\._local\.|pathlib\.", "", name)
    name = re.sub(r"Literal\[(.*?)\]", _choices, name)
    name = re.sub(r"Annotated\[(\w+), \w+\((\w+)=(\w+)\)\]", _bounded, name)
    name = name.replace("NoneType", "none").replace("None", "none")
    for constraint in info.metadata:
        for bound, symbol in _BOUNDS.items():
            value = getattr(constraint, bound, None)
            if value is not None:
                name += f", {symbol} {value}"
    return name


def _bounded(match: re.Match[str]) -> str:
    """Annotated[int, Gt(gt=0)] → int > 0."""
    return f"{match[1]} {_BOUNDS[match[2]]} {match[3]}"


def _choices(match: re.Match[str]) -> str:
    """Literal['a', 'b'] → a | b."""
    return match.group(1).replace("'", "").replace(", ", " | ")
