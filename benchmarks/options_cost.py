"""What acting through options costs: time of a step of `collect`, beside that of the same agent without options.

Agents are RL²'s with a body of 64 × 64, without memory (plain PPO) and with a GRU of 64; those with options have 4, with
sub-policies of 64 × 64. Each agent is a process, and they take turns at every workload, in another order every round; what
counts is the ratio within a round, as its median with its quartiles. Processor time is told beside elapsed time: on a
machine that does other things as well, it is the steadier one.

    python benchmarks/options_cost.py [--rounds 15] [--threads 1] [--families taxi point …] [--memories none gru]
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
from metarl.collect.world import TrainingWorld

STEPS = 100  # about so many a row in a turn
FAMILIES = {
    "half-cheetah-vel": ({"horizon": STEPS}, (40, 160), 1.3),
    "four-rooms": ({"horizon": STEPS}, (200, 1000), 2.5),
    "taxi": ({"horizon": STEPS}, (200, 1000), 2.5),
    "gridnavi": ({}, (200, 1000), 2.5),
    "movement-bandits": ({}, (200, 1000), 2.5),
    "point": ({}, (200, 1000), 2.5),
}
"""Options, rows, and the ratio that is aimed at."""
LAYERS = {
    "flat": {},
    "fixed": {"options": 4, "sub_hidden_sizes": (64, 64), "termination": "fixed"},
    "learned": {"options": 4, "sub_hidden_sizes": (64, 64), "termination": "learned"},
}


def workloads(families: list[str]) -> list[tuple[str, int]]:
    return [(name, rows) for name in families for rows in FAMILIES[name][1]]


def serve(layer: str, memory: str, families: list[str], threads: int) -> None:
    """A contender: at every turn microseconds a step of the next workload, of all rows together."""
    turns, kept = Turns(), {}
    torch.set_num_threads(threads)
    for number, (name, rows) in enumerate(itertools.cycle(workloads(families))):
        turns.wait()
        if (name, rows) not in kept:
            family = make_family(name, **FAMILIES[name][0])
            world = TrainingWorld(
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
        began = time.perf_counter(), time.process_time()
        rollout, _ = world.collect(agent, belief, tasks, world.episodes, Rng(number))
        elapsed, busy = time.perf_counter() - began[0], time.process_time() - began[1]
        steps = len(rollout.valid)
        turns.tell({"elapsed": 1e6 * elapsed / steps, "busy": 1e6 * busy / steps})


def spread(values: list[float]) -> str:
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def compare(memory: str, families: list[str], rounds: int, threads: int) -> None:
    """Print the table of one memory."""
    options = {"memory": memory, "families": families, "threads": threads}
    contenders = [
        Contender(sys.executable, __file__, layer, {"layer": layer, **options}) for layer in LAYERS
    ]
    told: dict[tuple, list[dict[str, float]]] = defaultdict(list)
    for number in range(rounds + 1):  # the first warms up
        for workload in workloads(families):
            for place in range(len(contenders)):
                contender = contenders[(number + place) % len(contenders)]
                found = contender.turn()
                if number:
                    told[*workload, contender.name].append(found)
    for contender in contenders:
        contender.end()

    print(f"\nmemory {memory}; {rounds} rounds, threads: {threads}\n")
    print(
        "| family | rows | target | flat, µs a step | options | µs a step | ratio elapsed | ratio processor time |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, rows in workloads(families):
        flat = told[name, rows, "flat"]
        for layer in list(LAYERS)[1:]:
            mine = told[name, rows, layer]
            ratios = {
                key: [a[key] / b[key] for a, b in zip(mine, flat, strict=True)] for key in flat[0]
            }
            times = [statistics.median(one["busy"] for one in each) for each in (flat, mine)]
            print(
                f"| {name} | {rows} | {FAMILIES[name][2]} | {times[0]:.0f} | {layer} | {times[1]:.0f} "
                f"| {spread(ratios['elapsed'])} | {spread(ratios['busy'])} |"
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
