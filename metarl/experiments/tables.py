"""Tables that commands print."""

import math
import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Column, Table

from metarl.core.texts import fold, terminal_width
from metarl.evaluation.beliefs import Beliefs
from metarl.evaluation.scores import QUESTIONS, Scores, acting_in_words, modes_in_words
from metarl.evaluation.stats import KINDS
from metarl.experiments.comparison import Comparison

if TYPE_CHECKING:
    from metarl.experiments.tuning import Tuned

_NAMES = {
    "total": "return of the trial",
    "first": "first episode",
    "last": "last episode",
    "regret": "regret",
    "success": "success, last",
}
"""What may be known of scores → what tables call it."""

_BEST = 10
"""Trials of a search that are shown."""

_WIDTH = 160
"""Columns of what is printed elsewhere than on a terminal."""

_NARROW, _NARROW_FIRST = 8, 16
"""Columns that a heading, and what the first column holds, take at least on a narrow terminal."""

_INTERVAL = re.compile(r" +(\\?\[)")
"""Where an interval follows its value."""

_OF_RUNS = (QUESTIONS["over_runs"], "each run", "IQM of runs")
"""Columns of runs apart from tasks, where some agent has several."""


def print_comparison(comparison: Comparison) -> None:
    """A row an agent, the best last; then paired differences, and gaps between splits.

    The last episode is the mean of the lanes' last ones; regret and success stand where known.
    """
    summaries = {name: scores.summary() for name, scores in comparison.scores.items()}
    own = next(iter(comparison.scores.values()))
    summary = next(iter(summaries.values()))
    figures = {key: name for key, name in _NAMES.items() if key in summary}
    if own.episodes == 1:
        del figures["first"], figures["last"]  # which are the trial
    metrics = summary["metrics"]
    totals = {name: summary["total"] for name, summary in summaries.items()}

    table = new_table(_title(comparison, own))
    table.add_column("agent")
    for heading in (*figures.values(), *metrics):
        table.add_column(heading, justify="right")
    of_runs = {name: _of_runs(total) for name, total in totals.items()}
    headings = [heading for heading in _OF_RUNS if any(heading in x for x in of_runs.values())]
    for heading in headings:
        table.add_column(f"trial, {heading}", justify="right")

    def mean_of_trial(name: str) -> float:
        return float(totals[name]["mean"]["value"])

    for name in sorted(summaries, key=mean_of_trial):
        summary, lanes = summaries[name], comparison.scores[name].lanes
        cells = [_with_interval(summary[key]["mean"]) for key in figures]
        cells += [_with_interval(summary["metrics"][key]["mean"]) for key in metrics]
        cells += [of_runs[name].get(heading, "") for heading in headings]
        table.add_row(f"{name}, {lanes} lanes" if lanes > 1 else name, *cells)
    if own.optimum is not None:
        table.add_row("optimum (shown the task)", *_optimum_cells(own, list(figures)))
    acting = {name: scores.acting for name, scores in comparison.scores.items()}
    lines = [_intervals([total["mean"] for total in totals.values()])]
    table.caption = "\n".join([*lines, *acting_in_words(acting)])
    show(table)
    _print_differences(comparison)


def _of_runs(total: Mapping[str, Any]) -> dict[str, str]:
    """What is said of runs apart from tasks, by heading: nothing of a single one."""
    cells = {}
    if total["mean"]["over_runs_and_tasks"] is not None:
        cells[QUESTIONS["over_runs"]] = _interval(total["mean"]["over_runs"])
    if "iqm" in total:
        cells["IQM of runs"] = _with_interval(total["iqm"])
    elif len(total["runs"]) > 1:
        cells["each run"] = "  ".join(_number(run) for run in total["runs"])
    return cells


def print_beliefs(beliefs: Beliefs) -> None:
    """How far predictions are from Bayes' rule: a row of each belief, a column of each time."""
    parts = {"rewards": beliefs.reward, "next observations": beliefs.successor}
    for part, rows in parts.items():
        if not rows:
            continue
        table = new_table(f"{beliefs.title}: KL(Bayes ‖ …) of {part}, in nats a prediction")
        table.add_column("belief")
        for time in beliefs.times:
            table.add_column(f"step {time}", justify="right")
        for name, nats in rows.items():
            table.add_row(name, *(f"{mean:.4f}" for mean in nats.mean(1)))
        prior, agent = rows["prior"].mean(1), rows["agent"].mean(1)
        shares = ["" if a == 0 else f"{b / a:.0%}" for a, b in zip(prior, agent, strict=True)]
        table.add_row("agent, share of the prior's", *shares)
        show(table)


def print_result(result: Mapping[str, Any]) -> None:
    """What a run reached, by the score that its best checkpoint was chosen by."""
    score, last = result["config"]["score"], result["last"]
    name = _NAMES.get(score, score)
    table = new_table(
        f"{name}, best checkpoint (iteration {result['best_iteration']}, in validation "
        f"{_number(result['validation'])}) and last one (iteration {last['iteration']})"
    )
    for heading in ("tasks", "best", "last"):
        table.add_column(heading, justify="right")
    reached = {
        split: _chosen(scores["summary"], score) for split, scores in result["scores"].items()
    }
    for split, best in reached.items():
        then = _chosen(last["scores"][split], score)
        table.add_row(split, _with_interval(best), _with_interval(then))
    for gap, estimate in result["gaps"].items():
        table.add_row(gap, _with_interval(estimate), "")
    caption = f"{_intervals(reached.values())}; one run says nothing about other seeds"
    acting = {scores.get("acting", "") for scores in result["scores"].values()} - {""}
    table.caption = "\n".join([caption, *acting])
    show(table)


def _chosen(summary: Mapping[str, Any], score: str) -> dict[str, Any]:
    """The estimate of a `score`: with a minus in front, of what is negated."""
    estimate: dict[str, Any] = (summary | summary["metrics"])[score.removeprefix("-")]["mean"]
    if not score.startswith("-"):
        return estimate
    ends = {kind: estimate[kind] and [-end for end in estimate[kind][::-1]] for kind in KINDS}
    return {"value": -estimate["value"], **ends}


def _title(comparison: Comparison, own: Scores) -> str:
    tasks = f"{own.returns.shape[2]} {own.split} tasks"
    different = len(np.unique(own.task_index))
    if different < own.returns.shape[2]:
        tasks += f" ({different} different ones)"
    if own.closed:
        tasks += " of a closed family: those of every split are the same"
    modes = modes_in_words(own.mode, own.test_mode, own.test_rounds)
    trained = ""
    if own.episodes != comparison.trained_episodes:
        trained = f" (trained for {comparison.trained_episodes})"
    episodes = "1 episode" if own.episodes == 1 else f"{own.episodes} episodes"
    return f"{tasks}, {episodes} each{trained}, actions: {modes}, runs: {own.runs}"


def _optimum_cells(own: Scores, figures: list[str]) -> list[str]:
    """What the best agent expects that is shown the task."""
    assert own.optimum is not None
    episode = float(own.by_task(own.optimum).mean())
    if own.mean_optimum is not None:
        episode = own.mean_optimum
    known = {"total": own.episodes * episode, "first": episode, "last": episode, "regret": 0.0}
    return [_number(known[key]) if key in known else "" for key in figures]


def _intervals(estimates: Iterable[Mapping[str, Any]]) -> str:
    """Which questions the intervals of `estimates` answer."""
    kinds = {_kind(estimate) for estimate in estimates}
    words = [QUESTIONS[kind] for kind in KINDS if kind in kinds]
    if not words:
        return "no intervals: a single run, on fixed tasks or fewer than 3"
    return f"95 % intervals {'; of one run '.join(words)}"


def _print_differences(comparison: Comparison) -> None:
    """Paired differences of the run from the others, and gaps between splits."""
    score = _NAMES.get(comparison.score, comparison.score)
    table = new_table(f"{score}: differences on the same tasks, and between splits")
    differences, gaps = comparison.differences(), comparison.gaps()
    rows = differences | {f"gap {name}": vars(gap) for name, gap in gaps.items()}
    both = any(row["over_runs_and_tasks"] is not None for row in rows.values())
    table.add_column("")
    for heading in ("difference", *[QUESTIONS["over_runs"]] * both, "tasks won"):
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        won = f"{100 * row['tasks_won']:.0f} %" if "tasks_won" in row else ""
        table.add_row(name, _with_interval(row), *[_interval(row["over_runs"])] * both, won)
    table.caption = _intervals(rows.values())
    if table.row_count:
        show(table)


def print_trials(tuned: "Tuned") -> None:
    """The best trials of a search; where the best configuration is, and how to confirm it."""
    trials, score = tuned.trials, tuned.config.score
    table = new_table(
        f"{_NAMES.get(score, score)} on validation tasks, the best of {len(trials)} trials"
    )
    keys = list(tuned.best.params)
    for heading in ("trial", "state", "validation", *keys):
        table.add_column(heading, justify="right")
    known = [trial for trial in trials if trial.value is not None]
    for trial in sorted(known, key=lambda trial: -(trial.value or 0.0))[:_BEST]:
        cells = [trial.value, *(trial.params[key] for key in keys)]
        table.add_row(str(trial.number), trial.state, *map(digits, cells))
    states = Counter(trial.state for trial in trials)
    table.caption = ", ".join(f"{count} {state}" for state, count in states.items())
    failed = [trial for trial in trials if trial.error]
    if failed:
        table.caption += f"; trial {failed[0].number} failed: {failed[0].error}"
    show(table)
    if tuned.importances:
        shares = ", ".join(f"{key} {share:.2f}" for key, share in tuned.importances.items())
        print(fold(f"importance: {shares}", terminal_width(), " " * 2))
    first = tuned.config.seed + 1
    seeds = ",".join(str(seed) for seed in range(first, first + 3))
    confirm = ["metarl", "train", str(tuned.file), "--seeds", seeds]
    confirm += ["--out", str(tuned.file.with_suffix(""))]
    print(f"trial {tuned.best.number}: {tuned.file}")
    print(f"the best of many was also lucky: confirm it with {shlex.join(confirm)}")


def print_usage(usage: Mapping[str, Any]) -> None:
    """A row an option: how often and how long it ran, and which options followed it."""
    options = usage["options"]
    table = new_table(usage["title"])
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
    show(table)
    summary = (
        f"usage entropy {usage['entropy']:.2f} of at most {math.log(len(options)):.2f} nats; "
        f"{usage['duration']:.1f} steps at a time; "
        f"one follows another at {100 * usage['switch_rate']:.1f} % of steps"
    )
    print(fold(summary, terminal_width(), ""))
    if "picture" in usage:
        print(usage["picture"])


def _number(value: float) -> str:
    return f"{value:z.2f}"  # no minus before 0.00


def digits(value: object) -> str:
    """A number with four digits; anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"[{_number(interval[0])}, {_number(interval[1])}]"


def _with_interval(estimate: Mapping[str, Any]) -> str:
    """A value and the interval that says most."""
    kind = _kind(estimate)
    return _number(estimate["value"]) + (f" {_interval(estimate[kind])}" if kind else "")


def _kind(estimate: Mapping[str, Any]) -> str | None:
    """The name of the interval that says most."""
    return next((kind for kind in KINDS if estimate[kind] is not None), None)


def new_table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE)


def show(table: Table) -> None:
    """Print it; title and caption may be wider than the table.

    Where it is wider than the terminal, headings are folded, then intervals stand below their
    values, and columns that still have no place follow in further tables.
    """
    console = Console(width=terminal_width() or _WIDTH, highlight=False)
    title, table.title = table.title, None
    caption, table.caption = table.caption, None
    for part in (title, *_fitting(table, console), caption):
        if part is not None:
            console.print(part)


def _fitting(table: Table, console: Console) -> Iterator[Table]:
    """The table in one or more that the console has place for; each has the first column."""
    first, *others = table.columns
    for whole in (table, _narrow(first, others, below=False)):
        if _fits(whole, console):
            yield whole
            return
    while others:
        count = next(
            (n for n in range(len(others), 1, -1) if _fits(_narrow(first, others[:n]), console)), 1
        )
        yield _narrow(first, others[:count])
        others = others[count:]


def _fits(table: Table, console: Console) -> bool:
    unlimited = console.options.update(max_width=10_000)
    return console.measure(table, options=unlimited).maximum <= console.width


def _narrow(first: Column, others: Sequence[Column], below: bool = True) -> Table:
    """These columns, as narrow as can be read; intervals stand `below` their values."""
    table = new_table("")
    table.title = None
    rows = []
    for column in (first, *others):
        cells = [str(cell) for cell in column.cells]
        if below:
            cells = [_INTERVAL.sub(r"\n\1", cell) for cell in cells]
        width = max(_NARROW, *(len(line) for cell in cells for line in cell.split("\n")))
        if column is first:
            width = _NARROW_FIRST
            cells = [_in_lines(cell, width) for cell in cells]
        table.add_column(_in_lines(str(column.header), width), justify=column.justify)
        rows.append(cells)
    for row in zip(*rows, strict=True):
        table.add_row(*row)
    return table


def _in_lines(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
