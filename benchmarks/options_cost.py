"""The cost of options: time of a step of `collect` with options over that without.

Agents are RL² with hidden layers of 64 × 64, without memory (plain PPO) and with a GRU of 64; those
with options have 4, with sub-policies of 64 × 64. Each agent is a process of its own. They take
turns at every workload, in another order every round; the score is the ratio within a round, its
median with its quartiles. Processor time is printed beside elapsed time: it varies less on a
machine that runs other programs too.

    python benchmarks/options_cost.py [--rounds 15] [--threads 1] [--families taxi point …]
                                      [--memories none gru]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections import defaultdict

import torch
from turns import Contender, Turns

from metarl import Rng, make_agent, make_family
from metarl.collect.world import LocalWorld

STEPS = 100  # about so many a row in a turn
FAMILIES = {
    "half-cheetah-vel": ({"horizon": STEPS}, (40, 160), 1.3),
    "four-rooms": ({"horizon": STEPS}, (200, 1000), 2.5),
    "taxi": ({"horizon": STEPS}, (200, 1000), 2.5),
    "gridnavi": ({}, (200, 1000), 2.5),
    "movement-bandits": ({}, (200, 1000), 2.5),
    "point": ({}, (200, 1000), 2.5),
}
"""Options of the family, rows, and the target ratio."""
LAYERS = {
    "flat": {},
    "fixed": {"options": 4, "sub_hidden_sizes": (64, 64), "termination": "fixed"},
    "learned": {"options": 4, "sub_hidden_sizes": (64, 64), "termination": "learned"},
}


def workloads(families: list[str]) -> list[tuple[str, int]]:
    return [(name, rows) for name in families for rows in FAMILIES[name][1]]


def serve(layer: str, memory: str, families: list[str], threads: int) -> None:
    """A contender: at every turn, microseconds a step of the next workload, all rows together."""
    turns, kept = Turns(), {}
    torch.set_num_threads(threads)
    for number, (name, rows) in enumerate(itertools.cycle(workloads(families))):
        turns.wait()
        if (name, rows) not in kept:
            family = make_family(name, **FAMILIES[name][0])
            world = LocalWorld(
                family, max(1, STEPS // family.spec.horizon), None, torch.device("cpu")
            )
            agent = make_agent(
                "rl2",
                family.spec,
                memory=memory,
                memory_width=64,
                hidden_sizes=(64, 64),
                **LAYERS[layer],
            )
            kept[name, rows] = world, agent, family.tasks("train", rows, Rng(0))
        world, agent, tasks = kept[name, rows]
        belief = agent.begin(world.task_info(agent, tasks), lanes=1)
        start, busy_start = time.perf_counter(), time.process_time()
        rollout, _ = world.collect(agent, belief, tasks, world.episodes, Rng(number))
        elapsed, busy = time.perf_counter() - start, time.process_time() - busy_start
        steps = len(rollout.valid)
        turns.report({"elapsed": 1e6 * elapsed / steps, "busy": 1e6 * busy / steps})


def spread(values: list[float]) -> str:
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def compare(memory: str, families: list[str], rounds: int, threads: int) -> None:
    """Print the table of one memory."""
    options = {"memory": memory, "families": families, "threads": threads}
    contenders = [
        Contender(sys.executable, __file__, layer, {"layer": layer, **options}) for layer in LAYERS
    ]
    times: dict[tuple, list[dict[str, float]]] = defaultdict(list)
    for number in range(rounds + 1):  # the first warms up
        for workload in workloads(families):
            for place in range(len(contenders)):
                contender = contenders[(number + place) % len(contenders)]
                found = contender.turn()
                if number:
                    times[*workload, contender.name].append(found)
    for contender in contenders:
        contender.end()

    print(f"\nmemory {memory}; {rounds} rounds, threads: {threads}\n")
    print(
        "| family | rows | target | flat, µs a step | options | µs a step "
        "| ratio elapsed | ratio processor time |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, rows in workloads(families):
        flat = times[name, rows, "flat"]
        flat_busy = statistics.median(one["busy"] for one in flat)
        for layer in list(LAYERS)[1:]:
            mine = times[name, rows, layer]
            mine_busy = statistics.median(one["busy"] for one in mine)
            elapsed = [a["elapsed"] / b["elapsed"] for a, b in zip(mine, flat, strict=True)]
            busy = [a["busy"] / b["busy"] for a, b in zip(mine, flat, strict=True)]
            print(
                f"| {name} | {rows} | {FAMILIES[name][2]} | {flat_busy:.0f} | {layer} "
                f"| {mine_busy:.0f} | {spread(elapsed)} | {spread(busy)} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--memories", nargs="+", choices=("none", "gru"), default=["none", "gru"])
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        _, options = json.loads(args.serve)
        serve(**options)
    for memory in args.memories:
        compare(memory, args.families, args.rounds, args.threads)


if __name__ == "__main__":
    main()
