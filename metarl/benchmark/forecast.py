"""What a benchmark is about to do, and how long it will take."""

from collections.abc import Sequence
from dataclasses import dataclass

from metarl.benchmark.results import read_error
from metarl.benchmark.runner import Benchmark
from metarl.benchmark.suite import Cell, ReadSuite
from metarl.benchmark.table_texts import Table, Text
from metarl.config.catalogue import limits_in_words
from metarl.core.errors import MetaRLError
from metarl.experiments.speed import measure_speed

PROBE_SECONDS = 10.0


@dataclass(frozen=True)
class Forecast:
    """A row of the matrix: the cells of an agent on a problem."""

    problem: str
    agent: str
    cells: int
    done: int
    failed: int
    limit: str
    """Of training, in words."""
    hours: float | None
    """Of one cell's training on a core like this; None: it learns nothing, or cannot be tried."""
    error: str = ""
    """Why it cannot."""

    @property
    def missing(self) -> int:
        return self.cells - self.done


def forecast(benchmark: Benchmark, seconds: float = PROBE_SECONDS) -> list[Forecast]:
    """What is to be done, with the time expected from trying each agent for some `seconds`."""
    rows: dict[tuple[str, str], list[Cell]] = {}
    for cell in benchmark.cells:
        rows.setdefault((cell.problem, cell.agent), []).append(cell)
    forecasts = []
    for (problem, agent), cells in rows.items():
        done = [benchmark.is_done(cell) for cell in cells]
        errors = [read_error(benchmark.out / cell.folder) != "missing" for cell in cells]
        hours, error = None, ""
        if cells[0].trained and not all(done):
            try:
                hours = _hours(cells[0], seconds)
            except MetaRLError as obstacle:
                error = str(obstacle).splitlines()[0]
        limit = _limit(cells[0])
        forecasts.append(
            Forecast(problem, agent, len(cells), sum(done), sum(errors), limit, hours, error)
        )
    return forecasts


def _hours(cell: Cell, seconds: float) -> float:
    """Of training, until its first limit."""
    config, expected = cell.config, []
    if config.minutes is not None:
        expected.append(config.minutes / 60)
    if config.env_steps is not None or config.iterations is not None:
        speed = measure_speed(config, seconds)
        limits = (config.env_steps, speed.env_steps), (config.iterations, speed.iterations)
        expected += [limit / rate / 3600 for limit, rate in limits if limit is not None]
    return min(expected)


def _limit(cell: Cell) -> str:
    return limits_in_words(vars(cell.config)) if cell.trained else "learns nothing"


def forecast_table(rows: Sequence[Forecast], suite: ReadSuite) -> Table:
    """A row an agent and problem: what is done, and what the rest takes on a core like this."""
    hours = sum((row.hours or 0.0) * row.missing for row in rows)
    texts = []
    for row in rows:
        counts = [Text(str(x), x) for x in (row.cells, row.done, row.failed, row.missing)]
        expected = Text(row.error)
        if row.hours is not None:
            expected = Text(f"{row.hours:.3f}", row.hours)
        texts.append((Text(row.problem), Text(row.agent), Text(row.limit), *counts, expected))
    headings = (
        "problem",
        "agent",
        "each run",
        "runs",
        "done",
        "failed",
        "missing",
        "hours of a run",
    )
    title = f"{suite.suite.title}: {sum(row.cells for row in rows)} runs"
    note = f"expected training: {hours:.2f} hours of a core, evaluation apart"
    return Table("forecast", title, headings, texts, note)
