"""What pydantic finds wrong with a configuration, in words."""

from collections.abc import Collection, Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from metarl.config.aliases import FOREIGN
from metarl.core.errors import quoted, shown, suggest


def error_lines(
    error: ValidationError,
    place: str,
    known: Collection[str],
    written: Mapping[str, str],
) -> list[str]:
    """One readable line for every key that is wrong, which is named as it was `written`."""
    messages: dict[str, list[str]] = {}
    values: dict[str, str] = {}
    for item in error.errors():
        key = str(item["loc"][0]) if item["loc"] else "?"
        path = [shown(written.get(key, key))]
        path += [str(part) for part in item["loc"][1:] if isinstance(part, int)]
        where = place + ".".join(path)
        messages.setdefault(where, []).append(_message(item, key, known))
        if item["type"] not in _WITHOUT_VALUE:
            values[where] = f", not {quoted(item['input'])}"
    return [
        f"{where}: {', or '.join(dict.fromkeys(parts))}{values.get(where, '')}"
        for where, parts in messages.items()
    ]


_UNKNOWN = ("extra_forbidden", "invalid_key")
_WITHOUT_VALUE = (*_UNKNOWN, "missing")


def _message(item: ErrorDetails, key: str, known: Collection[str]) -> str:
    if item["type"] in _UNKNOWN:
        ours = FOREIGN.get(key)
        return (
            f"unknown key; here it is called {ours!r}"
            if ours in known
            else f"unknown key; {suggest(key, known)}"
        )
    if item["type"] == "missing":
        return "is missing; give a value"
    message = item["msg"].removeprefix("Value error, ")
    return f"{message[0].lower()}{shown(message[1:], 200)}"
