"""Tables that commands print."""

import math
import sys
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

_COLUMNS = {
    "total": "return of the trial",
    "last": "last episode",
    "regret": "regret",
    "success": "success, last",
}
"""What may be known of scores → the heading of its column."""


def print_scores(scores: Mapping[str, Mapping[str, Any]]) -> None:
    """A row an agent, the best last.

    The last episode is the mean of the lanes' last ones; regret and success stand where known.
    """
    first = next(iter(scores.values()))
    runs, tasks = len(first["returns"]), len(first["returns"][0][0])
    closed = " (a closed family: the tasks of every split are the same)" if first["closed"] else ""
    modes = first["mode"]
    if first["test_mode"] != modes:
        modes += f", {first['test_mode']} in the last round"
    table = _table(
        f"{tasks} {first['split']} tasks{closed}, {first['episodes_consumed'][-1]} episodes each, "
        f"actions: {modes}, runs: {runs}"
    )
    known = [key for key in _COLUMNS if key in first["summary"]]
    table.add_column("agent")
    for key in known:
        table.add_column(_COLUMNS[key], justify="right")
    table.add_column("IQM of the trial", justify="right")

    def mean_of_trial(name: str) -> float:
        return float(scores[name]["summary"]["total"]["mean"]["value"])

    for name in sorted(scores, key=mean_of_trial):
        score, summary = scores[name], scores[name]["summary"]
        label = f"{name}, {score['lanes']} lanes" if score["lanes"] > 1 else name
        cells = [_interval(summary[key]["mean"]) for key in known]
        table.add_row(label, *cells, _interval(summary["total"]["iqm"]))
    _print(table)


def print_usage(usage: Mapping[str, Any]) -> None:
    """A row an option: how often and how long it ran, and which options followed it."""
    options = usage["options"]
    table = _table(usage["title"])
    for heading in ("option", "share of steps", "begun", "steps at a time"):
        table.add_column(heading, justify="right")
    for other in range(len(options)):
        table.add_column(f"then {other}", justify="right")
    for o, option in enumerate(options):
        row = [str(o), f"{100 * option['share']:.1f} %", str(option["begun"])]
        row.append("" if option["duration"] is None else f"{option['duration']:.1f}")
        total = sum(option["followed_by"])
        for count in option["followed_by"]:
            row.append(f"{100 * count / total:.0f} %" if total else "")
        table.add_row(*row)
    _print(table)
    print(
        f"usage entropy {usage['entropy']:.2f} of at most {math.log(len(options)):.2f} nats; "
        f"{usage['duration']:.1f} steps at a time; "
        f"one follows another at {100 * usage['switch_rate']:.1f} % of steps"
    )
    if "picture" in usage:
        print(usage["picture"])


def _interval(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]"


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE, title_justify="left")


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else 160).print(table)
