"""What a benchmark reached: the results in its folder, as scores by problem and agent."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from metarl.benchmark.suite import Problem, ReadSuite, config_hash, read_suite
from metarl.core.errors import CheckpointError, MetaRLError
from metarl.core.texts import read_json
from metarl.evaluation import stats
from metarl.evaluation.scores import Scores, combine
from metarl.evaluation.stats import Array
from metarl.experiments.comparison import generalization_gaps
from metarl.experiments.folder import RunFolder
from metarl.experiments.logs import read_metrics

SUITE, MATRIX, ERROR = "suite.yaml", "matrix.json", "error.txt"
"""In the folder of a benchmark: the suite, and the cells; in that of a run: why it failed."""

RECORD = frozenset({"problem", "agent", "seed", "trained", "hash", "folder"})
"""What is written of a cell."""


@dataclass(frozen=True)
class CellResult:
    """A finished run of a benchmark."""

    seed: int
    folder: Path
    result: dict[str, Any]
    """The content of its result.json."""

    @property
    def curve(self) -> list[dict[str, Any]]:
        """The validated records of metrics.jsonl: env_steps, seconds, validation, …"""
        return [record for record in read_metrics(self.folder) if "validation" in record]

    @property
    def env_steps(self) -> int:
        return int(self.result["last"]["env_steps"])


@dataclass(frozen=True)
class Failure:
    """A cell without a result."""

    problem: str
    agent: str
    seed: int
    error: str
    """In one line; of a cell that was never begun, or did not end, that it is missing."""


@dataclass(frozen=True)
class Entry:
    """An agent on a problem: all its runs as one."""

    problem: str
    agent: str
    trained: bool
    """False: it learns nothing, and has one run."""
    shown: str
    """What the agent is shown of the task, as its `task_input` says."""
    cells: tuple[CellResult, ...]
    """[R] in the order of their seeds."""
    score: str
    """What agents are compared by on this problem."""

    @cached_property
    def scores(self) -> dict[str, Scores]:
        """By split. Training tasks differ between runs that have each a fixed set of them."""
        return {split: self._combined(split) for split in self.cells[0].result["scores"]}

    @property
    def test(self) -> Scores:
        """On test tasks; of an agent that knows tasks by their index, on those of training."""
        return self.scores.get("test") or self.scores["train"]

    @cached_property
    def no_adaptation(self) -> Scores | None:
        """On test tasks, where every round begins with the prior; None where there is one round."""
        kept = [cell.result.get("no_adaptation") for cell in self.cells]
        found = [Scores.from_dict(plain) for plain in kept if plain]
        return combine(found) if len(found) == len(kept) else None

    @cached_property
    def rows(self) -> Array:
        """[R, S] the score on each of the S test tasks."""
        return self.test.by_task(self.test.figure(self.score))

    @property
    def estimate(self) -> stats.Estimate:
        """The mean score, with intervals."""
        return stats.mean(self.rows, self.test.tasks_fixed)

    @property
    def gaps(self) -> dict[str, stats.Estimate]:
        """train − test and test − ood, where there are both."""
        return generalization_gaps(self.scores, self.score)

    def _combined(self, split: str) -> Scores:
        scores = [Scores.from_dict(cell.result["scores"][split]) for cell in self.cells]
        same = len({one.task_hash for one in scores}) == 1
        return combine(scores, same_tasks=same)


@dataclass(frozen=True)
class BenchmarkResults:
    """All that a benchmark has reached so far."""

    folder: Path
    suite: ReadSuite
    entries: dict[tuple[str, str], Entry]
    """By problem and agent."""
    failures: tuple[Failure, ...]

    @property
    def problems(self) -> list[str]:
        """Those with a result."""
        return list(dict.fromkeys(problem for problem, _ in self.entries))

    @property
    def agents(self) -> list[str]:
        """Those with a result."""
        return list(dict.fromkeys(agent for _, agent in self.entries))

    @property
    def cells(self) -> list[CellResult]:
        """All that have finished."""
        return [cell for entry in self.entries.values() for cell in entry.cells]

    @property
    def commits(self) -> list[str]:
        """Of metarl, with + where files differed."""
        found = (cell.result.get("git_commit", {}).get("metarl") for cell in self.cells)
        return list(dict.fromkeys(commit or "no commit" for commit in found))

    def of_problem(self, problem: str) -> list[Entry]:
        """Its entries, in the order of the suite."""
        return [entry for entry in self.entries.values() if entry.problem == problem]

    def optimum(self, problem: str, score: str) -> float | None:
        """The best expected score if the task is known, where the family knows it."""
        scores = self.of_problem(problem)[0].test
        if scores.optimum is None or score not in ("total", "first", "last"):
            return None
        episode = scores.mean_optimum if score == "total" else None
        if episode is None:
            episode = float(scores.by_task(scores.optimum).mean())
        return episode * scores.episodes if score == "total" else episode

    def scale(self, problem: str) -> tuple[float, float] | None:
        """The scores that 0 and 1 of scaled scores stand for; None where one is not known."""
        content = self.suite.problems[problem]
        zero, one = (self._anchor(problem, content, x) for x in (content.zero, content.one))
        if zero is None or one is None or zero == one:
            return None
        return zero, one

    def scaled(self, entry: Entry) -> Array | None:
        """[R] the scaled mean of each run over its test tasks; None where there is no scale."""
        scale = self.scale(entry.problem)
        if scale is None:
            return None
        zero, one = scale
        return (entry.rows.mean(1) - zero) / (one - zero)

    def _anchor(self, problem: str, content: Problem, anchor: float | str) -> float | None:
        if not isinstance(anchor, str):
            return anchor
        if anchor == "optimum":
            return self.optimum(problem, content.score)
        entry = self.entries.get((problem, anchor))
        return None if entry is None else float(entry.rows.mean())


def read_benchmark(folder: str | Path) -> BenchmarkResults:
    """The results in the folder of a benchmark.

    Raises:
        MetaRLError: it is no such folder, or a file in it is damaged.
    """
    folder = Path(folder)
    if not (folder / MATRIX).is_file():
        raise CheckpointError(f"{folder} is no folder of a benchmark: it has no {MATRIX}")
    suite = read_suite(folder / SUITE)
    found: dict[tuple[str, str], list[CellResult]] = {}
    trained: dict[tuple[str, str], bool] = {}
    failures = []
    for cell in read_matrix(folder):
        place = cell["problem"], cell["agent"]
        run = RunFolder(folder / cell["folder"])
        result = read_result(run, cell["hash"])
        if result is None:
            failures.append(Failure(*place, cell["seed"], read_error(run.path)))
            continue
        trained[place] = cell["trained"]
        found.setdefault(place, []).append(CellResult(cell["seed"], run.path, result))
    entries = {}
    for (problem, agent), cells in found.items():
        cells.sort(key=lambda cell: cell.seed)
        score = suite.problems[problem].score
        shown = cells[0].result["config"]["agent"].get("task_input", "none")
        entries[problem, agent] = Entry(
            problem, agent, trained[problem, agent], shown, tuple(cells), score
        )
    return BenchmarkResults(folder, suite, entries, tuple(failures))


def read_matrix(folder: Path) -> list[dict[str, Any]]:
    """The cells of a benchmark, each with what `RECORD` names.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
    """
    cells: Any = read_json(folder / MATRIX).get("cells")
    whole = isinstance(cells, list) and all(
        isinstance(cell, dict) and cell.keys() >= RECORD for cell in cells
    )
    if not whole:
        raise CheckpointError(
            f"{folder / MATRIX} is damaged; remove it and repeat metarl benchmark: what is done "
            "stays done"
        )
    return list(cells)


def read_result(run: RunFolder, hash_: str) -> dict[str, Any] | None:
    """The content of its result.json, if that is of the configuration of this hash."""
    try:
        result = read_json(run.result)
    except MetaRLError:
        return None
    same = "last" in result and config_hash(result.get("config", {})) == hash_
    return result if same else None


def read_error(folder: Path) -> str:
    """Why a cell has no result."""
    path = folder / ERROR
    return path.read_text(encoding="utf-8").strip() if path.is_file() else "missing"
