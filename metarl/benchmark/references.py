"""Results of others, beside which a benchmark is read."""

import csv
import io
from dataclasses import dataclass

from metarl.core.errors import ConfigError

_COLUMNS = ("problem", "agent", "quantity", "value", "source", "protocol")


@dataclass(frozen=True)
class Reference:
    """A published or computed figure."""

    problem: str
    agent: str
    """Label of the agent that it is of; another one has a row of its own."""
    quantity: str
    """What is measured, such as total, last or success."""
    value: float
    source: str
    same_protocol: bool
    """Whether it was measured as here; if not, the protocol is a similar one."""


def read_references(text: str, where: str) -> tuple[Reference, ...]:
    """Those of a CSV file.

    Raises:
        ConfigError: a column is missing, or a value is no number.
    """
    if not text:
        return ()
    rows = csv.DictReader(io.StringIO(text))
    missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise ConfigError(f"{where}: the column {missing[0]} is missing")
    return tuple(_reference(row, f"{where}, line {rows.line_num}") for row in rows)


def _reference(row: dict[str, str], where: str) -> Reference:
    if row["protocol"] not in ("same", "similar"):
        raise ConfigError(f"{where}: protocol: write same or similar")
    try:
        value = float(row["value"])
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: value: write a number") from None
    same = row["protocol"] == "same"
    return Reference(row["problem"], row["agent"], row["quantity"], value, row["source"], same)
