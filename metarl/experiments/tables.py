"""Tables that commands print."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def print_scores(scores: Mapping[str, Mapping[str, Any]]) -> None:
    """A row an agent: return of the trial and of its last episode (the mean of its lanes), regret, success where known."""
    first = next(iter(scores.values()))
    runs, episodes, tasks = (
        len(first["returns"]),
        first["episodes_consumed"][-1],
        len(first["returns"][0][0]),
    )
    closed = " (a closed family: the tasks of every split are the same)" if first["closed"] else ""
    title = f"{tasks} {first['split']} tasks{closed}, {episodes} episodes each, actions: {first['mode']}, runs: {runs}"
    table = _table(title)
    known = [key for key in ("regret", "success") if key in first["summary"]]
    columns = {
        "total": "return of the trial",
        "last": "last episode",
        "regret": "regret",
        "success": "success, last",
    }
    table.add_column("agent")
    for key in ("total", "last", *known):
        table.add_column(columns[key], justify="right")
    table.add_column("IQM of the trial", justify="right")
    for name, score in sorted(
        scores.items(), key=lambda item: item[1]["summary"]["total"]["mean"]["value"]
    ):
        summary = score["summary"]
        cells = [summary[key]["mean"] for key in ("total", "last", *known)] + [
            summary["total"]["iqm"]
        ]
        label = f"{name}, {score['lanes']} lanes" if score["lanes"] > 1 else name
        table.add_row(
            label,
            *(f"{cell['value']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}]" for cell in cells),
        )
    _print(table)


def print_usage(usage: Mapping[str, Any]) -> None:
    """A row an option: how often and how long it ran, and what share of the time each other followed; below, all of them."""
    options = usage["options"]
    table = _table(usage["title"])
    for name in (
        "option",
        "share of steps",
        "begun",
        "steps at a time",
        *(f"then {o}" for o in range(len(options))),
    ):
        table.add_column(name, justify="right")
    for o, option in enumerate(options):
        duration = "" if option["duration"] is None else f"{option['duration']:.1f}"
        total = sum(option["followed_by"])
        then = [f"{100 * count / total:.0f} %" if total else "" for count in option["followed_by"]]
        table.add_row(
            str(o), f"{100 * option['share']:.1f} %", str(option["begun"]), duration, *then
        )
    _print(table)
    print(
        f"usage entropy {usage['entropy']:.2f} of at most {math.log(len(options)):.2f} nats; "
        f"{usage['duration']:.1f} steps at a time; one follows another at {100 * usage['switch_rate']:.1f} % of steps"
    )
    if "picture" in usage:
        print(usage["picture"])


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE, title_justify="left")


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else 160).print(table)
