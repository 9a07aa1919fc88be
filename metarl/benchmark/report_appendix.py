"""What a benchmark depends on, as its results have it, from configurations to commands."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metarl.benchmark.report_tables import plain
from metarl.benchmark.results import SUITE, BenchmarkResults, Entry
from metarl.benchmark.suite import entrant
from metarl.benchmark.table_texts import Table, Text
from metarl.config.files import load_config, shipped
from metarl.config.schema import to_dict
from metarl.core.errors import MetaRLError


def appendix(results: BenchmarkResults) -> list[Table]:
    return [
        _configurations(results),
        _tasks(results),
        _circumstances(results),
        _commands(results),
    ]


def _configurations(results: BenchmarkResults) -> Table:
    """Each agent's as differences from the shipped one that it began with."""
    rows = []
    for entry in results.entries.values():
        own = _flat(entry.cells[0].result["config"])
        name, basis = _basis(results, entry)
        changed = [
            f"{key}: {plain(value)}"
            for key, value in own.items()
            if key != "seed" and (key not in basis or basis[key] != value)
        ]
        cells = (Text(entry.problem), Text(entry.agent), Text(name), Text("; ".join(changed)))
        rows.append(cells)
    headings = ("problem", "agent", "begins with", "differences")
    note = "Complete configurations are beside the runs: PROBLEM/AGENT/seed-0.yaml."
    return Table("configurations", "Configurations", headings, rows, note)


def _basis(results: BenchmarkResults, entry: Entry) -> tuple[str, dict[str, Any]]:
    """The shipped configuration, or else that of the problem's first agent that was trained."""
    agents = results.suite.problems[entry.problem].agents
    name = entrant(agents[entry.agent]).config if entry.agent in agents else None
    if name in shipped():
        try:
            return str(name), _flat(to_dict(load_config(str(name))))
        except MetaRLError:  # of a family that is not installed here
            pass
    first = next((e for e in results.of_problem(entry.problem) if e.trained), entry)
    if first is entry:
        return "nothing", {}
    return f"{first.problem} / {first.agent}", _flat(first.cells[0].result["config"])


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """By dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def _tasks(results: BenchmarkResults) -> Table:
    """Which tasks: the same hash, the same tasks."""
    rows = []
    for problem in results.problems:
        hashes: dict[tuple[str, str], list[str]] = {}
        for entry in results.of_problem(problem):
            for cell in entry.cells:
                for split, scores in cell.result["scores"].items():
                    run = f"{entry.agent}/{cell.seed}"
                    hashes.setdefault((split, scores["task_hash"]), []).append(run)
        runs = sum(len(entry.cells) for entry in results.of_problem(problem))
        for (split, task_hash), who in hashes.items():
            whose = "all runs" if len(who) == runs else ", ".join(who)
            rows.append((Text(problem), Text(split), Text(task_hash), Text(whose)))
    return Table("tasks", "Tasks", ("problem", "split", "hash", "runs (agent/seed)"), rows)


def _circumstances(results: BenchmarkResults) -> Table:
    """Versions, commits and machines, each with the number of its runs."""
    counts: dict[tuple[str, str], int] = {}
    for cell in results.cells:
        for place in _circumstances_of(cell.result):
            counts[place] = counts.get(place, 0) + 1
    rows = [(Text(what), Text(which), Text(str(n), n)) for (what, which), n in counts.items()]
    return Table("circumstances", "Versions and machines", ("what", "which", "runs"), rows)


def _circumstances_of(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for package, version in result.get("versions", {}).items():
        yield package, str(version)
    for whose, commit in result.get("git_commit", {}).items():
        yield f"commit of {whose}", commit or "none"
    if "machine" in result:
        yield "machine", ", ".join(f"{key} {value}" for key, value in result["machine"].items())


def _commands(results: BenchmarkResults) -> Table:
    """What repeats the benchmark, or a run of it; and what was run."""
    trained = (entry for entry in results.entries.values() if entry.trained)
    seeds = sorted({cell.seed for entry in trained for cell in entry.cells})
    again = f"metarl benchmark {shlex.quote(str(results.folder / SUITE))}"
    if seeds:
        again += f" --seeds {','.join(map(str, seeds))}"
    rows = [(Text("all"), Text(again, code=True), Text(""))]
    for entry in results.entries.values():
        for cell in entry.cells:
            command = f"metarl train {shlex.quote(str(cell.folder.with_suffix('.yaml')))}"
            label = Text(f"{entry.problem} / {entry.agent} / seed {cell.seed}")
            recorded = _recorded(cell.result, results.folder)
            rows.append((label, Text(command, code=True), Text(recorded)))
    return Table("commands", "Commands", ("run", "command", "was run as"), rows)


def _recorded(result: Mapping[str, Any], folder: Path) -> str:
    """The command of a run, without where metarl is installed; the folder is as it was given."""
    program, _, arguments = result.get("command", "").partition(" ")
    name = "metarl" if Path(program).name in ("__main__.py", "metarl") else program
    return f"{name} {arguments}".strip().replace(str(folder.resolve()), str(folder))
