"""The table of the README: a row a problem, from the folder of the suite cheap.

python benchmarks/readme_table.py bench/cheap
"""

from __future__ import annotations

import sys

from metarl.benchmark.results import BenchmarkResults, read_benchmark
from metarl.benchmark.score_table import OPTIMUM, SCORE, Measurement, measure, not_worse

LEARNED = ("rl2", "maml", "pearl")
HEADINGS = ("problem", "random", "RL²", "MAML", "PEARL", "best of the others", "shown the task")


def row(results: BenchmarkResults, problem: str, found: dict[str, Measurement]) -> list[str]:
    """The cells of a problem."""
    best = not_worse(results, problem)

    def cell(agent: str, named: bool = False) -> str:
        if agent not in found:
            return ""
        text = f"**{found[agent].text}**" if agent in best else found[agent].text
        return f"{agent} {text}" if named else text

    entries = results.of_problem(problem)
    shown = [entry.agent for entry in entries if entry.shown != "none"]
    others = [agent for agent in found if agent not in (*LEARNED, *shown, "random", OPTIMUM)]
    others.sort(key=lambda agent: -found[agent].number)
    optimum = f"optimum {found[OPTIMUM].text}" if OPTIMUM in found else ""
    known = [cell(agent, named=True) for agent in shown] + [optimum]
    return [
        problem,
        cell("random"),
        *map(cell, LEARNED),
        cell(others[0], named=True) if others else "",
        "; ".join(filter(None, known)),
    ]


def main() -> None:
    results = read_benchmark(sys.argv[1])
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    measured = [m for m in measure(results) if m.quantity == SCORE]
    for problem in results.problems:
        found = {m.agent: m for m in measured if m.problem == problem}
        print(f"| {' | '.join(row(results, problem, found))} |")


if __name__ == "__main__":
    main()
