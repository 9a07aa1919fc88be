"""The tables of a report on a benchmark."""

import json
import shlex
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from metarl.benchmark import score_table
from metarl.benchmark.results import BenchmarkResults, Entry
from metarl.benchmark.score_table import (
    DIFFERENCE,
    FIRST,
    GAPS,
    LAST,
    NO_ADAPTATION,
    REGRET,
    SCALED,
    SCORE,
    SUCCESS,
    Measurement,
    decimals,
    with_interval,
)
from metarl.benchmark.table_texts import Table, Text
from metarl.evaluation import aggregates
from metarl.evaluation.scores import QUESTIONS
from metarl.evaluation.stats import Array, Estimate
from metarl.experiments.comparison import RANDOM

EMPTY = Text("")
_WORST = 10
SCORE_NAMES = {
    "total": "return of the trial",
    "first": "return of the first episode",
    "last": "return of the last episode",
    "success": "success in the last episode",
}
"""What agents are compared by, in words; a metric of the family is called by its name."""


def score_tables(results: BenchmarkResults, measured: Sequence[Measurement]) -> list[Table]:
    """Those with the scores, which are also written as Markdown and LaTeX."""
    return [
        headline(results, measured),
        _quantities(
            results,
            measured,
            "differences",
            "Paired differences",
            (DIFFERENCE,),
            "The score less that of the best agent that must find out the task, paired by task.",
        ),
        _quantities(
            results,
            measured,
            "adaptation",
            "Adaptation",
            (NO_ADAPTATION, FIRST, LAST, SUCCESS, REGRET),
            "No adaptation: the score where every round begins with the prior.",
        ),
        _quantities(
            results,
            measured,
            "gaps",
            "Generalization gaps",
            GAPS,
            "Differences of the score between splits, of the same runs.",
        ),
    ]


def headline(results: BenchmarkResults, measured: Sequence[Measurement]) -> Table:
    """A row an agent of a problem, with what others have published beside it."""
    rows = []
    for problem, agents in _by_agent(measured).items():
        best = score_table.not_worse(results, problem)
        published = _published(results, problem)
        for agent, found in agents.items():
            if SCORE not in found:
                continue
            score = found[SCORE]
            bold = agent in best
            row = [Text(problem), Text(_label(results, problem, agent))]
            row.append(Text(score.text, score.number, bold))
            row.append(_cell(found.get(SCALED)))
            row.append(published.pop(agent, EMPTY))
            row += map(_count, (score.runs, score.env_steps, score.episodes))
            rows.append(tuple(row))
        for agent, cell in published.items():
            rows.append(
                (Text(problem), Text(f"{agent} (published)"), EMPTY, EMPTY, cell, *[EMPTY] * 3)
            )
    headings = ("problem", "agent", SCORE, SCALED, "published", "runs", "env steps", "episodes")
    return Table(
        "scores", "Scores on test tasks", headings, rows, _headline_note(results, measured)
    )


_SPEAKS = {
    "over_runs_and_tasks": "over runs and tasks",
    "over_tasks": "over tasks where there is a single run",
    "over_runs": "over runs where there are no other tasks",
}
"""Kinds of intervals, in a sentence."""


def _headline_note(results: BenchmarkResults, measured: Sequence[Measurement]) -> str:
    """What intervals speak of, what is bold, which runs are single."""
    known = {row.interval for row in measured if row.quantity == SCORE}
    words = [text for kind, text in _SPEAKS.items() if QUESTIONS[kind] in known]
    sentences = ["There are no intervals."]
    if words:
        sentences = [f"Brackets: 95 % intervals {'; '.join(words)}."]
    sentences.append(
        "Bold: not worse than the best, whose paired interval of the difference on the same tasks "
        "reaches 0. Agents that are shown the task, and the known optimum, are references."
    )
    single = [
        f"{entry.problem} / {entry.agent}"
        for entry in results.entries.values()
        if entry.trained and len(entry.cells) == 1
    ]
    if single:
        sentences.append(f"A single run says nothing about other seeds: {', '.join(single)}.")
    return " ".join(sentences)


def _published(results: BenchmarkResults, problem: str) -> dict[str, Text]:
    """By agent."""
    score = results.suite.problems[problem].score
    cells: dict[str, Text] = {}
    for reference in results.suite.references:
        if reference.problem == problem:
            protocol = "same" if reference.same_protocol else "similar"
            name = "" if reference.quantity == score else f"{reference.quantity} "
            text = f"{name}{reference.value:g} ({reference.source}; {protocol} protocol)"
            if reference.agent in cells:
                text = f"{cells[reference.agent].text}; {text}"
            cells[reference.agent] = Text(text, reference.value)
    return cells


def _quantities(
    results: BenchmarkResults,
    measured: Sequence[Measurement],
    key: str,
    title: str,
    quantities: Sequence[str],
    note: str,
) -> Table:
    """A column a quantity that some agent has."""
    known = {row.quantity for row in measured}
    columns = [quantity for quantity in quantities if quantity in known]
    rows = []
    for problem, agents in _by_agent(measured).items():
        for agent, found in agents.items():
            if found.keys() & set(columns):
                label = Text(_label(results, problem, agent))
                cells = [_cell(found.get(quantity)) for quantity in columns]
                rows.append((Text(problem), label, *cells))
    return Table(key, title, ("problem", "agent", *columns), rows, note)


def _by_agent(measured: Sequence[Measurement]) -> dict[str, dict[str, dict[str, Measurement]]]:
    """By problem, agent and quantity."""
    found: dict[str, dict[str, dict[str, Measurement]]] = {}
    for row in measured:
        found.setdefault(row.problem, {}).setdefault(row.agent, {})[row.quantity] = row
    return found


def _label(results: BenchmarkResults, problem: str, agent: str) -> str:
    entry = results.entries.get((problem, agent))
    if entry is None:
        return f"{agent} (reference)"
    return agent if entry.shown == "none" else f"{agent} (shown the task, reference)"


def _cell(row: Measurement | None) -> Text:
    return EMPTY if row is None else Text(row.text, row.number)


def _count(text: str) -> Text:
    return Text(text, float(text)) if text else EMPTY


# -------------------------------------------------------------------------------------------------
# What was compared, and what it took


def problem_table(results: BenchmarkResults) -> Table:
    """What each problem is."""
    rows = []
    for problem in results.problems:
        content, entries = results.suite.problems[problem], results.of_problem(problem)
        scale = results.scale(problem)
        ends = EMPTY
        if scale is not None:
            digits = decimals(scale)
            ends = Text(" to ".join(score_table.number(end, digits) for end in scale))
        test = entries[0].test
        seeds = sorted({cell.seed for entry in entries if entry.trained for cell in entry.cells})
        name = content.score.removeprefix("-")
        score = SCORE_NAMES.get(name, name) + (", less is better" if name != content.score else "")
        rows.append(
            (
                Text(problem),
                Text(_in_words(content.family)),
                Text(score),
                ends,
                Text(", ".join(entry.agent for entry in entries)),
                Text(" ".join(map(str, seeds))),
                _count(str(test.returns.shape[2])),
                _count(str(test.episodes)),
            )
        )
    headings = ("problem", "family", SCORE, "scale, 0 to 1", "agents", "seeds", "test tasks")
    return Table("problems", "Problems", (*headings, "episodes"), rows)


def _in_words(family: str | dict[str, Any]) -> str:
    if isinstance(family, str):
        return family
    settings = [f"{key} {plain(value)}" for key, value in family.items() if key != "name"]
    return ", ".join([str(family["name"]), *settings])


def plain(value: Any) -> str:
    """A setting as text."""
    return value if isinstance(value, str) else json.dumps(value)


def speed_table(results: BenchmarkResults) -> Table:
    """What training took: the mean of the runs, and the most memory of them."""
    rows = []
    for entry in results.entries.values():
        if not entry.trained:
            continue
        took = [cell.result for cell in entry.cells]
        training, cores, memory = (
            [float(result[key]) for result in took if key in result]
            for key in ("training_seconds", "core_seconds", "peak_mebibytes")
        )
        steps = [cell.env_steps for cell in entry.cells]
        rows.append(
            (
                Text(entry.problem),
                Text(entry.agent),
                number_cell(sum(steps) / sum(training) if sum(training) else None, 0),
                number_cell(_mean(training, 60), 2),
                number_cell(_mean(cores, 3600), 3),
                number_cell(max(memory, default=None), 0),
            )
        )
    headings = ("problem", "agent", "env steps a second", "training minutes", "core hours")
    note = "The mean of the runs; core hours with evaluation; the most memory of any run."
    return Table("speed", "Speed", (*headings, "peak MiB"), rows, note)


def _mean(seconds: Sequence[float], unit: float) -> float | None:
    return sum(seconds) / len(seconds) / unit if seconds else None


def number_cell(value: float | None, digits: int) -> Text:
    return EMPTY if value is None else Text(score_table.number(value, digits), value)


def failure_table(results: BenchmarkResults) -> Table:
    """Runs without a result: those of an agent with the same error in a row."""
    seeds: dict[tuple[str, str, str], list[str]] = {}
    for failure in results.failures:
        place = (failure.problem, failure.agent, failure.error)
        seeds.setdefault(place, []).append(str(failure.seed))
    rows = [
        (Text(problem), Text(agent), Text(" ".join(which)), Text(error))
        for (problem, agent, error), which in seeds.items()
    ]
    return Table("failures", "Runs without a result", ("problem", "agent", "seeds", "error"), rows)


# -------------------------------------------------------------------------------------------------
# Over problems


def scaled_runs(results: BenchmarkResults) -> tuple[list[str], dict[str, list[Array]]]:
    """The problems to aggregate over, and the scaled scores [R] on each, of agents that have all.

    They are the most that two agents share, or where none share two, the most that one has; random
    actions apart. Both are empty if these are fewer than two, unless there is a single problem.
    """
    scaled: dict[str, dict[str, Array]] = {}
    for (problem, agent), entry in results.entries.items():
        runs = results.scaled(entry)
        if runs is not None:
            scaled.setdefault(agent, {})[problem] = runs
    agents = [agent for agent in results.agents if agent in scaled]
    judged = [agent for agent in agents if agent != RANDOM]
    pairs = [scaled[one].keys() & scaled[other].keys() for one, other in combinations(judged, 2)]
    fewest = min(2, len(results.problems))
    common = _largest(pairs, fewest) or _largest([set(scaled[agent]) for agent in judged], fewest)
    problems = [problem for problem in results.problems if problem in common]
    complete = [agent for agent in agents if problems and common <= scaled[agent].keys()]
    return problems, {agent: [scaled[agent][name] for name in problems] for agent in complete}


def _largest(sets: Sequence[set[str]], fewest: int) -> set[str]:
    """The first of the largest, if it has so many entries."""
    largest = max(sets, key=len, default=set())
    return largest if len(largest) >= fewest else set()


def aggregate_tables(results: BenchmarkResults) -> list[Table]:
    """Interquartile mean and optimality gap, and who improves on whom."""
    problems, agents = scaled_runs(results)
    left = [agent for agent in results.agents if agent not in agents]
    note = (
        f"Over {', '.join(problems)}. Brackets: 95 % intervals over runs, problems and tasks "
        "fixed, where they are known to cover; else look at the runs in the figure."
    )
    if left:
        note += f" Without a score on all of these problems: {', '.join(left)}."
    rows = []
    for agent, runs in agents.items():
        estimates = (aggregates.iqm(runs), aggregates.optimality_gap(runs))
        rows.append((Text(agent), *map(_aggregate, estimates), _count(str(sum(map(len, runs))))))
    means = Table(
        "aggregates",
        "Aggregates of scaled scores",
        ("agent", "interquartile mean", "optimality gap", "runs"),
        rows,
        note,
    )
    if len(agents) < 2:
        return [means]
    rows = []
    for agent, runs in agents.items():
        row = [Text(agent)]
        for other, others in agents.items():
            better = aggregates.probability_of_improvement(runs, others)
            row.append(EMPTY if agent == other else _aggregate(better))
        rows.append(tuple(row))
    headings = ("P(row > column)", *agents)
    return [means, Table("improvement", "Probability of improvement", headings, rows)]


def _aggregate(estimate: Estimate) -> Text:
    return Text(with_interval(estimate, 3), estimate.value)


# -------------------------------------------------------------------------------------------------
# Single tasks


def worst_tasks(best: Entry, other: Entry, drawable: bool) -> Table:
    """Tasks on which the best agent loses most against the other, and how to look at them.

    Args:
        drawable: whether the family offers pictures.
    """
    mine, theirs = best.rows.mean(0), other.rows.mean(0)
    digits = decimals(np.concatenate([mine, theirs]).tolist())
    index = best.test.task_index
    place = np.unique(index, return_index=True)[1] if len(mine) < len(index) else range(len(index))
    rows = []
    for task in np.argsort(mine - theirs, kind="stable")[:_WORST].tolist():
        values = (mine[task], theirs[task], mine[task] - theirs[task])
        cells = [Text(score_table.number(float(x), digits), float(x)) for x in values]
        row = place[task]
        commands = [
            Text(f"metarl render {shlex.quote(str(entry.cells[0].folder))} --task {row}", code=True)
            for entry in (best, other)
            if drawable
        ]
        rows.append((Text(str(row), float(row)), *cells, *commands))
    headings = ["task", best.agent, other.agent, "difference"]
    if drawable:
        headings += [f"see {best.agent}", f"see {other.agent}"]
    return Table(
        f"worst-{best.problem}",
        f"{best.problem}: where {best.agent} loses most against {other.agent}",
        tuple(headings),
        rows,
        "" if drawable else "The family offers neither scene nor frames to draw.",
    )
