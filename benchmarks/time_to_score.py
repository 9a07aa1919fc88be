"""Minutes of one core until a shipped configuration reaches the figure that a paper printed.

Configurations are trained as they are shipped, one torch thread each. The clock is the processor
time of the run, validations included. It is read when the score on validation tasks first reaches
the figure, and again at the first such checkpoint whose mean on unseen test tasks reaches it as
well; every checkpoint is tested on tasks of its own, off the clock. There the run ends.

Runs that are finished stand in the file of `--out`, a JSON line each, and are not repeated::

    python benchmarks/time_to_score.py --seeds 0 1 2 [--only rl2/tabular-mdp-keyed] [--minutes 10]
    python benchmarks/time_to_score.py --table
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import metarl
from metarl.benchmark.references import Reference, read_references
from metarl.experiments.building import eval_protocol
from metarl.experiments.provenance import core_seconds


@dataclass(frozen=True)
class Goal:
    """A configuration, and whose figure on which problem of references.csv it is to reach."""

    configuration: str
    problem: str
    method: str = "rl2"
    score: str = "total"

    @property
    def figure(self) -> Reference:
        (found,) = (
            row for row in _references() if (row.problem, row.agent) == (self.problem, self.method)
        )
        return found


GOALS = (
    Goal("maml/point", "point", "maml", "last"),
    Goal("rl2/bernoulli-bandit-k5-n10", "bandit-k5-n10", "gittins"),
    Goal("rl2/bernoulli-bandit-k10-n10", "bandit-k10-n10", "gittins"),
    Goal("rl2/bernoulli-bandit-k50-n10", "bandit-k50-n10", "gittins"),
    Goal("rl2/bernoulli-bandit-slots", "bandit-k5-n100", "gittins"),
    Goal("rl2/bernoulli-bandit-k10-n100-slots", "bandit-k10-n100"),
    Goal("rl2/bernoulli-bandit-k5-n500", "bandit-k5-n500"),
    Goal("rl2/bernoulli-bandit-k10-n500-slots", "bandit-k10-n500"),
    Goal("rl2/tabular-mdp-keyed", "mdp-n10"),
    Goal("rl2/tabular-mdp-slots", "mdp-n10"),
    Goal("rl2/tabular-mdp-slots-n25", "mdp-n25"),
    Goal("rl2/tabular-mdp-slots-n50", "mdp-n50"),
    Goal("rl2/tabular-mdp-slots-n75", "mdp-n75"),
    Goal("rl2/tabular-mdp-slots-n100", "mdp-n100"),
    Goal("rl2/half-cheetah-dir", "half-cheetah-dir", "maml", "last"),
)
"""Those that reach a printed figure, or may, within ten minutes. Where the paper's RL² is above the
exact optimum, or within .02 below it, its Gittins index stands for it."""

TEST_TASKS = 200  # at least so many


@cache
def _references() -> tuple[Reference, ...]:
    path = Path(__file__).parents[1] / "configs" / "suites" / "references.csv"
    return read_references(path.read_text(encoding="utf-8"), str(path))


class Clock:
    """A callback that notes when the figure is reached, and ends the training then."""

    def __init__(self, config: metarl.Config, goal: Goal, minutes: float) -> None:
        self.config, self.family, self.goal = config, metarl.build(config)[0], goal
        self.limit, self.began = 60 * minutes, core_seconds()
        self.reached: dict[str, Any] | None = None
        """The first checkpoint whose validation score reaches the figure."""
        self.confirmed: dict[str, Any] | None = None
        """The first one of these whose test score does."""

    def __call__(self, update: metarl.Update) -> bool:
        seconds = core_seconds() - self.began
        figure = self.goal.figure.value
        if update.validation is not None and update.validation >= figure:
            moment = {
                "seconds": seconds,
                "env_steps": update.counters.env_steps,
                "validation": update.validation,
            }
            moment |= self._test(update)
            self.reached = self.reached or moment
            if moment["test"] >= figure:
                self.confirmed = moment
            self.began += core_seconds() - self.began - seconds
        return self.confirmed is not None or seconds > self.limit

    def _test(self, update: metarl.Update) -> dict[str, Any]:
        """Mean and 95 % interval over test tasks that nothing else was tested on."""
        tasks, seed = max(TEST_TASKS, self.config.test_tasks), update.counters.iterations
        protocol = eval_protocol(self.config, self.family, tasks=tasks, split="test", seed=seed)
        scores = metarl.evaluate(update.agent, self.family, protocol)
        estimate = scores.estimate(scores.figure(self.goal.score))
        return {"test": estimate.value, "interval": estimate.over_tasks}


def run(goal: Goal, seed: int, minutes: float) -> dict[str, Any]:
    """Train until the figure is confirmed, the run is over, or `minutes` are used."""
    config = metarl.load_config(goal.configuration, [f"seed={seed}", f"score={goal.score}"])
    clock = Clock(config, goal, minutes)
    with tempfile.TemporaryDirectory() as folder:
        metarl.train(config, Path(folder) / "run", callbacks=[clock], quiet=True, test=False)
        used = core_seconds() - clock.began
    return {
        "configuration": goal.configuration,
        "seed": seed,
        "seconds": used,
        "reached": clock.reached,
        "confirmed": clock.confirmed,
    }


def table(runs: list[dict]) -> str:
    """Markdown: a row a configuration, its seeds in their order."""
    names = {
        "configuration": "configuration",
        "figure": "figure, whose",
        "reached": "minutes: validation reaches it",
        "confirmed": "minutes: test confirms it",
        "test": "test tasks at that checkpoint",
        "steps": "M env steps",
    }
    lines = ["| " + " | ".join(names.values()) + " |", "|---" * len(names) + "|"]
    for goal in GOALS:
        mine = sorted(
            (r for r in runs if r["configuration"] == goal.configuration), key=lambda r: r["seed"]
        )
        if not mine:
            continue
        figure = goal.figure
        similar = "" if figure.same_protocol else ", similar protocol"
        cells = [
            f"`{goal.configuration}`",
            f"{figure.value:g}, {figure.agent} ({figure.source}){similar}",
        ]
        cells.append(", ".join(_minutes(r["reached"], r) for r in mine))
        cells.append(", ".join(_minutes(r["confirmed"], r) for r in mine))
        cells.append("; ".join(_test(r["confirmed"] or r["reached"]) for r in mine))
        steps = [r["confirmed"] for r in mine]
        cells.append(", ".join(f"{m['env_steps'] / 1e6:.1f}" if m else "–" for m in steps))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _minutes(moment: dict | None, run: dict) -> str:
    return f"{moment['seconds'] / 60:.1f}" if moment else f"not in {run['seconds'] / 60:.1f}"


def _test(moment: dict | None) -> str:
    if moment is None:
        return "–"
    low_high = moment["interval"]
    interval = f" [{low_high[0]:.2f}, {low_high[1]:.2f}]" if low_high else ""
    return f"{moment['test']:.2f}{interval}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", help="configurations; all without it")
    parser.add_argument("--minutes", type=float, default=10, help="of one core, a run")
    parser.add_argument("--out", type=Path, default=Path("time-to-score.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the finished runs, and end")
    chosen = parser.parse_args()
    lines = chosen.out.read_text(encoding="utf-8").splitlines() if chosen.out.exists() else []
    runs = [json.loads(line) for line in lines]
    if not chosen.table:
        done = {(r["configuration"], r["seed"]) for r in runs}
        for seed in chosen.seeds:
            for goal in GOALS:
                wanted = chosen.only is None or goal.configuration in chosen.only
                if wanted and (goal.configuration, seed) not in done:
                    runs.append(run(goal, seed, chosen.minutes))
                    with chosen.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(runs[-1]) + "\n")
    print(table(runs))


if __name__ == "__main__":
    main()
