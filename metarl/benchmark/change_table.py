"""Two benchmarks of the same suite: what became worse or better."""

from collections.abc import Sequence
from typing import Any

from metarl.benchmark.changes import Change, Scored, find_changes
from metarl.benchmark.report_tables import EMPTY, number_cell
from metarl.benchmark.results import BenchmarkResults
from metarl.benchmark.score_table import decimals, with_interval
from metarl.benchmark.table_texts import Table, Text


def changes_between(old: BenchmarkResults, new: BenchmarkResults) -> list[Change]:
    """Of all entries."""
    return find_changes(_scored(old), _scored(new))


def _scored(results: BenchmarkResults) -> dict[tuple[str, str], Scored]:
    return {
        place: Scored(entry.test, entry.score, entry.trained)
        for place, entry in results.entries.items()
    }


def changes_to_dict(
    old: BenchmarkResults,
    new: BenchmarkResults,
    changes: Sequence[Change],
) -> dict[str, Any]:
    """As plain values."""
    plain_changes = []
    for change in changes:
        moved = None if change.difference is None else vars(change.difference)
        plain_changes.append(vars(change) | {"difference": moved})
    return {
        "old": {"folder": str(old.folder), "commits": old.commits},
        "new": {"folder": str(new.folder), "commits": new.commits},
        "changes": plain_changes,
    }


def change_table(
    old: BenchmarkResults,
    new: BenchmarkResults,
    changes: Sequence[Change],
    key: str = "changes",
) -> Table:
    """What became worse or better since an older benchmark."""
    means: dict[str, list[float]] = {}
    for change in changes:
        known = [x for x in (change.old, change.new) if x is not None]
        means.setdefault(change.problem, []).extend(known)
    rows = []
    for change in changes:
        digits = decimals(means[change.problem])
        before, after = (number_cell(x, digits) for x in (change.old, change.new))
        moved = p = EMPTY
        if change.difference is not None:
            moved = Text(with_interval(change.difference, digits), change.difference.value)
        if change.p is not None:
            p = number_cell(change.p, 4)
        verdict = f"{change.verdict}: {change.reason}" if change.reason else change.verdict
        bold = change.verdict in ("worse", "better")
        labels = Text(change.problem), Text(change.agent)
        rows.append((*labels, before, after, moved, p, Text(verdict, bold=bold)))
    headings = ("problem", "agent", "old", "new", "difference", "p", "verdict")
    note = (
        f"Old: {old.folder}, metarl at {', '.join(old.commits)}. "
        f"New: {new.folder}, metarl at {', '.join(new.commits)}. "
        "p: that it is no worse, corrected for the number of cells (Holm). Brackets: 95 % "
        "intervals over runs, tasks fixed; of what learns nothing, over tasks."
    )
    return Table(key, f"Changes since {old.folder}", headings, rows, note)
