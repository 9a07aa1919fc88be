"""Speed of PEARL's gradient step beside oyster, the original; and the memory that its replay takes.

A step draws a batch and context of some tasks from their buffers and moves every network once: metarl's `_sample_batches` and
`_update`, oyster's `_do_training`. Contenders are processes with networks of the same widths and as much random data; they
take turns, in another order every round, and what counts is the ratio within a round. The two do not compute the same:
metarl has targets of both critics where oyster has a value network and its target. So time is compared per FLOP as well,
counting those of matrix products. The limit, timed in the same process at the same turn, is the step's own matrix products
alone, with operands and results that are there already.

    python benchmarks/pearl_speed.py [--rounds 5] [--threads 1 2] [--workloads half-cheetah-vel small]
                                     [--oyster PATH] [--peer-python PYTHON]
    python benchmarks/pearl_speed.py --memory [--capacity 10000] [--threads 2]

PATH is the user's own checkout of katerakelly/oyster, with `rlkit` in it. The step runs on today's Python, NumPy and torch
(2.1 or later, for FLOPs are counted); gymnasium stands in for gym, and an empty module for gtimer, where they are missing.
Its logger wants python-dateutil and joblib. torch.distributions check no arguments, which was the default in oyster's day
(torch 1.0) and is faster. Contenders inherit the caller's environment, such as MALLOC_ settings, which are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pearl_contenders import STEPS, TASKS, WORKLOADS, metarl, metarl_agent, oyster, rollout
from products import products
from turns import Contender, Turns

MIB = 2**20


def serve(name: str, workload: str, threads: int, **options: str) -> None:
    """A contender: milliseconds a step, of the whole and of bare products, at every turn."""
    turns, work = Turns(), WORKLOADS[workload]
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    step = {"metarl": metarl, "oyster": oyster}[name](work, **options)
    for _ in range(3):  # Adam's state; oyster computes statistics at the first
        step()
    flops, bare = products(step)
    while True:
        turns.wait()
        told = {
            key: milliseconds(function, work.steps)
            for key, function in (("step", step), ("bare", bare))
        }
        turns.tell(told | {"gflop": flops / 1e9})


def milliseconds(function: Callable[[], object], times: int) -> float:
    """Of one call."""
    began = time.perf_counter()
    for _ in range(times):
        function()
    return 1e3 * (time.perf_counter() - began) / times


# ---------------------------------------------------------------------------------------------------------------------
# Memory


def resident() -> float:
    """MiB of this process that are in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


def peak(function: Callable[[], object], times: int = 1) -> tuple[float, str]:
    """Milliseconds of a call, and by how much the process was at most larger in so many of them than before."""
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is from here on
    taken = milliseconds(function, times)
    most = int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
    return (
        taken,
        f"at most {most - before:+.1f} MiB meanwhile, {resident() - before:+.1f} MiB after",
    )


def memory(capacity: int, threads: int) -> None:
    """100 tasks × 10,000 transitions, added 1,000 steps at a time; then batches, steps and a checkpoint."""
    from metarl.experiments import checkpoints

    torch.set_num_threads(threads)
    work, generator = WORKLOADS["half-cheetah-vel"], torch.Generator().manual_seed(0)
    milliseconds(metarl(work), 3)  # so that libraries are loaded
    agent = metarl_agent(work, capacity=capacity)
    before = resident()
    for _ in range(10):
        agent.buffer.begin_context(torch.arange(TASKS))
        agent.buffer.add(rollout(work, STEPS), context=True)
    kept, full = (
        agent.buffer.state_dict()["rows"],
        TASKS * capacity * (2 * work.obs + work.action + 4) * 4,
    )
    print(
        f"replay: {TASKS} tasks × {int(agent.buffer.count[0])} transitions, capacity {capacity}, {threads} threads"
    )
    print(
        f"  rows {tuple(kept.shape)}: {kept.untyped_storage().nbytes() / MIB:.1f} MiB; formula: {full / MIB:.1f} MiB"
    )
    print(f"  process: {before:.1f} MiB before, {resident():.1f} MiB after")

    def draw() -> tuple:
        return agent._sample_batches(None, None, generator)

    size = sum(x.nbytes for part in draw() for x in vars(part).values() if x is not None) / MIB
    taken, found = peak(draw, 50)
    print(f"  a batch and context of {size:.1f} MiB: {taken:.2f} ms; 50: {found}")
    milliseconds(lambda: agent._update(*draw(), generator), 1)
    taken, found = peak(lambda: agent._update(*draw(), generator), 50)
    print(f"  a gradient step with its batch: {taken:.1f} ms; 50: {found}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "latest.pt")
        taken, found = peak(lambda: checkpoints.save(path, {"agent": agent.state_dict()}))
        print(
            f"  checkpoint of the agent: {path.stat().st_size / MIB:.1f} MiB in {taken / 1e3:.2f} s; {found}"
        )


# ---------------------------------------------------------------------------------------------------------------------
# Speed


def speed(workload: str, threads: int, rounds: int, peer: str | None, peer_python: str) -> None:
    options = {"workload": workload, "threads": threads}
    contenders = [Contender(sys.executable, __file__, "metarl", options)]
    if peer:
        contenders.append(Contender(peer_python, __file__, "oyster", options | {"path": peer}))
    told: dict[str, list[dict[str, float]]] = {each.name: [] for each in contenders}
    for round_ in range(rounds + 1):  # the first warms up
        for contender in contenders[:: 1 if round_ % 2 else -1]:
            found = contender.turn()
            if round_:
                told[contender.name].append(found)
    for contender in contenders:
        contender.end()

    print(f"\n{workload}, threads: {threads}; {rounds} rounds of {WORKLOADS[workload].steps} steps")
    print(
        f"{'':8} ms a step: least  median   GFLOP  GFLOP/s  bare products' GFLOP/s  share of these"
    )
    for name, turns in told.items():
        steps, flops = [one["step"] for one in turns], turns[0]["gflop"]
        rate, bare = (
            statistics.median(1e3 * flops / one[key] for one in turns) for key in ("step", "bare")
        )
        share = statistics.median(one["bare"] / one["step"] for one in turns)
        print(
            f"{name:8} {min(steps):16.3f}  {statistics.median(steps):6.3f}  {flops:6.3f}  {rate:7.1f}  {bare:22.1f}"
            f"  {share:14.2f}"
        )
    if peer:
        ratios = [
            theirs["step"] / ours["step"]
            for ours, theirs in zip(told["metarl"], told["oyster"], strict=True)
        ]
        work = told["metarl"][0]["gflop"] / told["oyster"][0]["gflop"]
        print(
            f"metarl, times as fast as oyster: a step {spread(ratios)}; a FLOP {spread([work * x for x in ratios])}"
        )


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def machine() -> str:
    """What this runs on and with."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    chosen = ("MALLOC_", "GLIBC_", "LD_PRELOAD", "OMP_", "MKL_")
    found = [
        f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(chosen)
    ]
    return f"{model[1] if model else 'unknown CPU'}, {os.cpu_count()} cores, torch {torch.__version__} {' '.join(found)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--oyster", metavar="PATH", type=Path)
    parser.add_argument(
        "--peer-python", metavar="PYTHON", default=sys.executable, help="interpreter of oyster"
    )
    parser.add_argument(
        "--memory", action="store_true", help="of metarl's replay, instead of speed"
    )
    parser.add_argument(
        "--capacity", type=int, default=10_000, help="of each task in the replay, with --memory"
    )
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        name, options = json.loads(args.serve)
        serve(name, **options)
    print(machine())
    if args.memory:
        memory(args.capacity, args.threads[-1])
        return
    for workload in args.workloads:
        for threads in args.threads:
            speed(
                workload,
                threads,
                args.rounds,
                args.oyster and str(args.oyster.resolve()),
                args.peer_python,
            )


if __name__ == "__main__":
    main()
