"""Mistakes in a configuration, in words."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from metarl.core.errors import nearest


def lines(error: ValidationError, prefix: str, known: Sequence[str]) -> list[str]:
    """One readable line for every mistake that pydantic found."""
    lines: dict[str, str] = {}
    for item in error.errors():
        key = str(item["loc"][0]) if item["loc"] else "?"
        place = prefix + ".".join(str(part) for part in item["loc"] if isinstance(part, int) or part == key)
        if item["type"] in ("extra_forbidden", "invalid_key"):
            message = f"unknown key; {nearest(key, known)}"
        elif item["type"] == "missing":
            message = "is missing; give a value"
        else:
            message = item["msg"].removeprefix("Value error, ")
            message = f"{message[0].lower()}{message[1:]}, not {item['input']!r}"
        lines[place] = (
            f"{lines[place]}, or {message.rpartition(', not')[0]}" if place in lines else f"{place}: {message}"
        )
    return list(lines.values())
