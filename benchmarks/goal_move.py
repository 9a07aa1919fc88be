"""Learning again after the goal has moved: the transfer experiment of option-critic (Bacon et al. 2017, section 5.1).

An agent learns to walk to the east doorway of four rooms. After so many episodes, the goal moves to a cell of the lower
right room, or its west doorway, and the same agent, with its optimiser and all its moments, goes on learning. What counts
are the environment steps after the move until 50 consecutive episodes last at most 15 steps in the mean; at best, episodes
last 8.4 steps before the move and 9.5 after it.

The trials of an iteration are episodes lived side by side, so they are put in the order in which they end; `agent.trials`
should be small beside 50. Training has no known end: schedules stay at their first value.

    python benchmarks/goal_move.py [--seeds 0-9] [--episodes 1000] [--cap 200000] [agent.options=8 agent.trials=20 …]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from typing import Any

import numpy as np
import torch

from metarl import Rng, make_agent, make_family
from metarl.agent import Agent
from metarl.config import read_options
from metarl.rollout import TrainingWorld
from metarl.stats import mean

FLAT = {
    "name": "rl2",
    "memory": "none",
    "body": (),
    "trials": 10,
    "epochs": 4,
    "minibatches": 1,
    "learning_rate": 1e-2,
    "discount": 0.99,
    "trace": 0.95,
    "entropy_weight": 0.01,
    "option_entropy_weight": 0.01,
}
WINDOW, GOOD = 50, 15.0
COLUMNS = ("last 50 before", "0-50 after", "50-200 after", "steps to 15")


class Life:
    """Episode after episode of one task, with the length of each."""

    def __init__(self, variant: str, rng: Rng) -> None:
        family = make_family("four-rooms", variant=variant)
        self.spec = family.spec
        self.lengths: list[int] = []
        self._rng = rng
        self._world = TrainingWorld(family, 1, family.tasks("train", 1, rng.child("goal")), torch.device("cpu"))
        self._collect, self._world.collect = self._world.collect, self._noted
        self._iterations = itertools.count()

    def go_on(self, agent: Agent) -> None:
        """One iteration of the agent."""
        agent.iterate(self._world, self._rng.child("iteration", next(self._iterations)))

    def _noted(self, *args: Any) -> Any:
        rollout, belief = self._collect(*args)
        self.lengths += sorted(rollout.valid.sum(0).flatten().tolist())  # they begin together: the shortest ends first
        return rollout, belief


def steps_to_good(lengths: list[int]) -> int | None:
    """Steps of all episodes until the mean of the last so many was good; None: it never was."""
    total = np.concatenate([[0], np.cumsum(lengths)])
    good = np.flatnonzero(total[WINDOW:] - total[:-WINDOW] <= GOOD * WINDOW)
    return int(total[good[0] + WINDOW]) if len(good) else None


def run(seed: int, options: dict[str, Any], episodes: int, cap: int) -> tuple[float, ...]:
    """Mean lengths before the move, just after it and later, and the steps that it took, infinite where over the cap."""
    before, after = (Life(v, Rng(seed).child(v)) for v in ("option-critic", "option-critic-moved"))
    agent = make_agent(spec=before.spec, seed=seed, **options)
    while len(before.lengths) < episodes:
        before.go_on(agent)
    while ((taken := steps_to_good(after.lengths)) is None and sum(after.lengths) < cap) or len(after.lengths) < 200:
        after.go_on(agent)
    parts = before.lengths[-50:], after.lengths[:50], after.lengths[50:200]
    return *(statistics.mean(part) for part in parts), float("inf") if taken is None or taken > cap else taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-9", metavar="FIRST-LAST")
    parser.add_argument("--episodes", type=int, default=1000, help="before the move")
    parser.add_argument("--cap", type=int, default=200_000, help="environment steps after the move")
    parser.add_argument("overrides", nargs="*", metavar="agent.KEY=VALUE")
    args = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    options = FLAT | read_options(args.overrides, "agent")["agent"]
    print(" ".join(f"{key}={value}" for key, value in options.items()))
    print(f"{'seed':>6}" + "".join(f"{column:>16}" for column in COLUMNS))
    first, _, last = args.seeds.partition("-")
    began, found = time.perf_counter(), []
    for seed in range(int(first), int(last or first) + 1):
        found.append(run(seed, options, args.episodes, args.cap))
        *lengths, taken = found[-1]
        told = f"not in {args.cap}" if taken == float("inf") else f"{taken:.0f}"
        print(f"{seed:6}" + "".join(f"{length:16.1f}" for length in lengths) + f"{told:>16}", flush=True)
    scores = np.array(found)
    print("median" + "".join(f"{median:16.1f}" for median in np.median(scores, axis=0)))
    for column, values in zip(COLUMNS, scores.T, strict=True):
        over = int(np.isinf(values).sum())
        note = f" (at least: {over} not in {args.cap} steps)" if over else ""
        print(f"mean {column}: {mean(np.minimum(values, args.cap)[:, None])}{note}")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
