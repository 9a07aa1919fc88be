"""Learning after the goal has moved: the transfer experiment of option-critic.

Bacon et al. 2017, section 5.1. An agent learns to walk to the east doorway of four rooms. After
some episodes the goal moves to a cell of the lower right room or to its west doorway, and the same
agent goes on learning, with its optimizer and its normalizers. The score is the number of
environment steps after the move until 50 consecutive episodes last at most 15 steps on average; at
best, episodes last 8.4 steps before the move and 9.5 after it.

The trials of an iteration are parallel episodes, sorted here by the step in which they end;
`agent.trials` should be small compared with 50. Training has no known end: schedules stay at their
first value.

    python benchmarks/goal_move.py [--agents flat,options] [--seeds 0-9] [--jobs 2]
                                   [agent.trials=4 …]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from metarl import Rng, make_agent, make_family
from metarl.collect.world import LocalWorld
from metarl.config.overrides import read_options
from metarl.core.agent import Agent
from metarl.evaluation.stats import mean

SHARED = {
    "name": "rl2",
    "memory": "none",
    "hidden_sizes": (),
    "trials": 2,
    "epochs": 8,
    "minibatches": 1,
    "learning_rate": 0.03,
    "gamma": 0.99,
}
AGENTS: dict[str, dict[str, Any]] = {
    "flat": {"gae_lambda": 0.6, "entropy_coef": 0.3},
    "options": {
        "gae_lambda": 0.8,
        "entropy_coef": 0.15,
        "option_entropy_coef": 0.05,
        "options": 4,
        "option_length": 4,
        "sub_hidden_sizes": (),
        "initial_gain": 1.0,
    },
}
"""Each the best of what was tried on other seeds (benchmarks/results/options.md)."""
WINDOW, GOOD = 50, 15.0
COLUMNS = ("last 50 before", "0-50 after", "50-200 after", "steps to 15")


class EpisodeStream:
    """Training episodes of one task, one after another, with the length of each."""

    def __init__(self, variant: str, rng: Rng) -> None:
        family = make_family("four-rooms", variant=variant)
        self.spec = family.spec
        self.lengths: list[int] = []
        self._rng = rng
        self._world = LocalWorld(
            family, 1, family.tasks("train", 1, rng.child("goal")), torch.device("cpu")
        )
        self._collect = self._world.collect
        self._world.collect = self._collect_and_note
        self._iterations = itertools.count()

    def iterate(self, agent: Agent) -> None:
        """One iteration of the agent."""
        agent.iterate(self._world, self._rng.child("iteration", next(self._iterations)))

    def _collect_and_note(self, *args: Any) -> Any:
        rollout, belief = self._collect(*args)
        lengths = rollout.valid.sum(0).flatten().tolist()
        self.lengths += sorted(lengths)  # they begin together: the shortest ends first
        return rollout, belief


def steps_to_good(lengths: list[int]) -> int | None:
    """Steps of all episodes until the mean length of WINDOW episodes was good; None: never."""
    total = np.concatenate([[0], np.cumsum(lengths)])
    good = np.flatnonzero(total[WINDOW:] - total[:-WINDOW] <= GOOD * WINDOW)
    return int(total[good[0] + WINDOW]) if len(good) else None


def run(options: dict[str, Any], episodes: int, cap: int, seed: int) -> tuple[float, ...]:
    """One seed → the figures of COLUMNS; the steps to a good mean are infinite above the cap."""
    torch.set_num_threads(1)
    before = EpisodeStream("option-critic", Rng(seed).child("option-critic"))
    after = EpisodeStream("option-critic-moved", Rng(seed).child("option-critic-moved"))
    agent = make_agent(spec=before.spec, seed=seed, **options)
    while len(before.lengths) < episodes:
        before.iterate(agent)

    taken = None
    while len(after.lengths) < 200 or (taken is None and sum(after.lengths) < cap):
        after.iterate(agent)
        taken = steps_to_good(after.lengths)
    if taken is None or taken > cap:
        taken = float("inf")
    parts = [before.lengths[-50:], after.lengths[:50], after.lengths[50:200]]
    return *map(statistics.mean, parts), taken


def compare(
    pool: ProcessPoolExecutor, options: dict[str, Any], seeds: list[int], args: argparse.Namespace
) -> Any:
    """The steps that each seed took [S], at most the cap; prints the table."""
    print(" ".join(f"{key}={value}" for key, value in options.items()))
    print(f"{'seed':>6}" + "".join(f"{column:>16}" for column in COLUMNS))
    found = []
    runs = pool.map(partial(run, options, args.episodes, args.cap), seeds)
    for seed, scores in zip(seeds, runs, strict=True):
        found.append(scores)
        *lengths, taken = scores
        cells = [f"{length:16.1f}" for length in lengths]
        last = f"not in {args.cap}" if taken == float("inf") else f"{taken:.0f}"
        print(f"{seed:6}{''.join(cells)}{last:>16}", flush=True)
    columns = np.array(found).T
    print("median" + "".join(f"{median:16.1f}" for median in np.median(columns, axis=1)))
    for column, values in zip(COLUMNS, columns, strict=True):
        over = int(np.isinf(values).sum())
        note = f" (at least: {over} not in {args.cap} steps)" if over else ""
        print(f"mean {column}: {mean(np.minimum(values, args.cap)[:, None])}{note}")
    return np.minimum(columns[-1], args.cap)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", default="flat,options", help="flat, options, or both")
    parser.add_argument("--seeds", default="0-9", metavar="FIRST-LAST")
    parser.add_argument("--episodes", type=int, default=1000, help="before the move")
    parser.add_argument("--cap", type=int, default=200_000, help="environment steps after the move")
    parser.add_argument("--jobs", type=int, default=1, help="seeds side by side")
    parser.add_argument("overrides", nargs="*", metavar="agent.KEY=VALUE")
    args = parser.parse_intermixed_args()
    changes = read_options(args.overrides, "agent")["agent"]
    first, _, last = args.seeds.partition("-")
    seeds = list(range(int(first), int(last or first) + 1))
    began = time.perf_counter()
    with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
        taken = {}
        for name in args.agents.split(","):
            taken[name] = compare(pool, SHARED | AGENTS[name] | changes, seeds, args)
    if len(taken) == 2:
        drawn = np.random.default_rng(0).integers(0, len(seeds), (2000, len(seeds)))
        ratios = taken["options"][drawn].mean(1) / taken["flat"][drawn].mean(1)
        low, high = np.quantile(ratios, (0.025, 0.975))
        ratio = taken["options"].mean() / taken["flat"].mean()
        print(f"options / flat, steps to 15: {ratio:.2f} [{low:.2f}, {high:.2f}]")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
