"""The scores of a benchmark as numbers that are formatted once, for every table and file."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from metarl.benchmark.results import BenchmarkResults, Entry
from metarl.evaluation import stats
from metarl.evaluation.scores import QUESTIONS
from metarl.evaluation.stats import KINDS, Estimate

OPTIMUM = "known optimum"
"""The row of what the best agent expects that is shown the task; no agent has such a label."""
SCORE, SCALED = "score", "scaled score"
NO_ADAPTATION, FIRST, LAST = "no adaptation", "first episode", "last episode"
SUCCESS, REGRET = "success", "regret"
DIFFERENCE = "difference from the best"
GAPS = ("train − test", "test − ood")


@dataclass(frozen=True)
class Measurement:
    """One quantity of an agent on a problem, as it is written everywhere."""

    problem: str
    agent: str
    quantity: str
    value: str
    low: str
    high: str
    interval: str
    """What the interval speaks of, in words."""
    runs: str
    tasks: str
    episodes: str
    env_steps: str
    """Of the training of a run, the mean; 0: it learns nothing."""
    number: float
    """The value before it was rounded, to sort by."""

    @property
    def text(self) -> str:
        """The value with its interval."""
        return f"{self.value} [{self.low}, {self.high}]" if self.interval else self.value


def measure(results: BenchmarkResults) -> list[Measurement]:
    """All quantities of all entries, and of the optimum where it is known.

    A quantity of a problem has the same decimals for all agents.
    """
    measured = []
    for problem in results.problems:
        entries = results.of_problem(problem)
        found = {entry.agent: _estimates(results, entry) for entry in entries}
        for agent, estimate in differences(results, problem).items():
            found[agent][DIFFERENCE] = estimate
        counts = {entry.agent: _counts(entry) for entry in entries}
        found[OPTIMUM] = _of_optimum(results, problem)
        _, tasks, episodes, _ = counts[entries[0].agent]
        counts[OPTIMUM] = ("", tasks, episodes, "")
        for quantity in dict.fromkeys(name for estimates in found.values() for name in estimates):
            column = {agent: x[quantity] for agent, x in found.items() if quantity in x}
            digits = decimals(x for estimate in column.values() for x in _numbers(estimate))
            for agent, estimate in column.items():
                place = (problem, agent, quantity)
                texts = (*written(estimate, digits), *counts[agent])
                measured.append(Measurement(*place, *texts, number=estimate.value))
    return measured


def decimals(values: Iterable[float]) -> int:
    """How many are written of a column: four digits of its largest number, three below 1."""
    top = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if top == 0:
        return 2
    return max((3 if top >= 1 else 2) - math.floor(math.log10(top)), 0)


def written(estimate: Estimate, digits: int) -> tuple[str, str, str, str]:
    """Value, low, high and what the interval speaks of, which is the one that answers most."""
    kind = estimate.kind
    ends = (None, None) if kind is None else vars(estimate)[kind]
    low, high = ("" if end is None else number(end, digits) for end in ends)
    return number(estimate.value, digits), low, high, "" if kind is None else QUESTIONS[kind]


def with_interval(estimate: Estimate, digits: int) -> str:
    """As in `Measurement.text`."""
    value, low, high, _ = written(estimate, digits)
    return f"{value} [{low}, {high}]" if low else value


def number(value: float, digits: int) -> str:
    return f"{value:z.{digits}f}"  # no minus before 0.00


def _numbers(estimate: Estimate) -> tuple[float, ...]:
    """The value and the ends of its interval."""
    kind = estimate.kind
    return estimate.value, *(() if kind is None else vars(estimate)[kind])


# -------------------------------------------------------------------------------------------------
# Who is best


def candidates(results: BenchmarkResults, problem: str) -> list[Entry]:
    """The agents that must find out the task, the best first."""
    found = [entry for entry in results.of_problem(problem) if entry.shown == "none"]
    return sorted(found, key=lambda entry: -entry.estimate.value)


def not_worse(results: BenchmarkResults, problem: str) -> list[str]:
    """The best candidate, and those whose paired interval of the difference from it reaches 0.

    Nobody where there is one candidate alone.
    """
    ranked = candidates(results, problem)
    if len(ranked) < 2:
        return []
    kept = [entry.agent for entry in ranked[:1]]
    for entry in ranked[1:]:
        estimate = difference(ranked[0], entry)
        if estimate is None or estimate.kind is None:
            continue
        if vars(estimate)[estimate.kind][0] <= 0:
            kept.append(entry.agent)
    return kept


def differences(results: BenchmarkResults, problem: str) -> dict[str, Estimate]:
    """By agent: its score less that of the best candidate, on the same tasks."""
    ranked = candidates(results, problem)
    others = [entry for entry in results.of_problem(problem) if entry not in ranked[:1]]
    found = {entry.agent: difference(entry, best) for best in ranked[:1] for entry in others}
    return {agent: estimate for agent, estimate in found.items() if estimate is not None}


def difference(first: Entry, second: Entry) -> Estimate | None:
    """Of the scores on the same tasks, paired; None if the tasks are not the same.

    A single run says nothing about other seeds: then neither are those of the other asked.
    """
    same = first.test.task_hash == second.test.task_hash != ""
    if not same or first.rows.shape[1] != second.rows.shape[1]:
        return None
    own, other = first.rows, second.rows
    if any(entry.trained and len(entry.rows) == 1 for entry in (first, second)):
        own, other = (rows.mean(0, keepdims=True) for rows in (own, other))
    return stats.difference(own, other, first.test.tasks_fixed)


# -------------------------------------------------------------------------------------------------
# Quantities


def _estimates(results: BenchmarkResults, entry: Entry) -> dict[str, Estimate]:
    scores, adapted = entry.test, entry.no_adaptation
    estimates = {SCORE: entry.estimate}
    scale = results.scale(entry.problem)
    if scale is not None:
        estimates[SCALED] = _scaled(entry.estimate, scale)
    if adapted is not None:
        estimates[NO_ADAPTATION] = adapted.estimate(adapted.figure(entry.score))
    estimates[FIRST] = scores.estimate(scores.figure("first"))
    estimates[LAST] = scores.estimate(scores.figure("last"))
    if scores.success is not None:
        estimates[SUCCESS] = scores.estimate(scores.figure("success"))
    if scores.optimum is not None:
        estimates[REGRET] = scores.estimate(scores.regrets)
    return estimates | entry.gaps


def _of_optimum(results: BenchmarkResults, problem: str) -> dict[str, Estimate]:
    score = results.suite.problems[problem].score
    which = {SCORE: score, FIRST: "first", LAST: "last"}
    values = {name: results.optimum(problem, figure) for name, figure in which.items()}
    known = {name: Estimate(value) for name, value in values.items() if value is not None}
    scale = results.scale(problem)
    if scale is not None and SCORE in known:
        known[SCALED] = _scaled(known[SCORE], scale)
    if LAST in known:
        known[REGRET] = Estimate(0.0)
    return known


def _scaled(estimate: Estimate, scale: tuple[float, float]) -> Estimate:
    """The ends of the scale are taken as given."""
    zero, one = scale

    def place(value: float) -> float:
        return (value - zero) / (one - zero)

    ends = {kind: vars(estimate)[kind] for kind in KINDS}
    placed = {kind: end and tuple(sorted(map(place, end))) for kind, end in ends.items()}
    return Estimate(place(estimate.value), **placed)


def _counts(entry: Entry) -> tuple[str, str, str, str]:
    """Runs, tasks, episodes, environment steps."""
    steps = round(sum(cell.env_steps for cell in entry.cells) / len(entry.cells))
    scores = entry.test
    return str(scores.runs), str(scores.returns.shape[2]), str(scores.episodes), str(steps)
