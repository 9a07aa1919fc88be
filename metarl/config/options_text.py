"""An option in words: its meaning, type and default."""

import re
from typing import Any

from pydantic.fields import FieldInfo

from metarl.config.schema import Schedule
from metarl.config.yaml_text import one_line_yaml

_BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def describe(info: FieldInfo) -> str:
    """Meaning, type and default of one option, in a line."""
    default = "required" if info.is_required() else f"default {one_line_yaml(info.get_default())}"
    meaning = " ".join((info.description or "not described").split())
    return f"{meaning} ({_type_name(info)}; {default})"


def _type_name(info: FieldInfo) -> str:
    annotation: Any = info.annotation
    if annotation == Schedule:
        return "number, [first, last] or [first, last, share]"
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    name = re.sub(r"typing\.|pathlib\._local\.|pathlib\.", "", name)
    name = re.sub(r"Literal\[(.*?)\]", _choices, name)
    name = name.replace("NoneType", "none").replace("None", "none")
    for constraint in info.metadata:
        for bound, symbol in _BOUNDS.items():
            value = getattr(constraint, bound, None)
            if value is not None:
                name += f", {symbol} {value}"
    return name


def _choices(match: re.Match[str]) -> str:
    """Literal['a', 'b'] → a | b."""
    return match.group(1).replace("'", "").replace(", ", " | ")
