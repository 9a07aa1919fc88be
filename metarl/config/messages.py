"""What pydantic finds wrong with a configuration, in words."""

from collections.abc import Collection, Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from metarl.config.aliases import FOREIGN
from metarl.core.errors import suggest


def error_lines(
    error: ValidationError,
    place: str,
    known: Collection[str],
    written: Mapping[str, str],
) -> list[str]:
    """One readable line for every key that is wrong, which is named as it was `written`."""
    lines: dict[str, str] = {}
    for item in error.errors():
        key = str(item["loc"][0]) if item["loc"] else "?"
        path = [written.get(key, key)]
        path += [str(part) for part in item["loc"][1:] if isinstance(part, int)]
        where = place + ".".join(path)
        message = _message(item, key, known)
        if where in lines:
            message = f"{lines[where]}, or {message.rpartition(', not')[0]}"
        else:
            message = f"{where}: {message}"
        lines[where] = message
    return list(lines.values())


def _message(item: ErrorDetails, key: str, known: Collection[str]) -> str:
    if item["type"] in ("extra_forbidden", "invalid_key"):
        ours = FOREIGN.get(key)
        return (
            f"unknown key; here it is called {ours!r}"
            if ours in known
            else f"unknown key; {suggest(key, known)}"
        )
    if item["type"] == "missing":
        return "is missing; give a value"
    message = item["msg"].removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}, not {item['input']!r}"
