"""Speed of PEARL's gradient step beside oyster, the original; and the memory of its replay.

A step draws a batch and context of some tasks from their buffers and updates every network once:
metarl's `_sample_batches` and `_update`, oyster's `_do_training`. Contenders are processes with
networks of the same widths and as much random data; they take turns, in another order every round,
and the score is the ratio within a round. The two do not compute the same: metarl has targets of
both critics where oyster has a value network and its target. So time is compared per FLOP as well,
counting those of matrix products. The limit, timed in the same process at the same turn, is the
step's own matrix products alone, with operands and results that exist already.

    python benchmarks/pearl_speed.py [--rounds 5] [--threads 1 2] [--oyster PATH]
                                     [--workloads half-cheetah-vel small] [--peer-python PYTHON]
    python benchmarks/pearl_speed.py --memory [--capacity 10000] [--threads 2]

PATH is the user's own checkout of katerakelly/oyster, with `rlkit` in it. The step runs on today's
Python, NumPy and torch (2.1 or later, which counts FLOPs); where they are missing, gymnasium
replaces gym and an empty module gtimer. Its logger needs python-dateutil and joblib.
torch.distributions check no arguments, as was the default in oyster's day (torch 1.0), which is
faster. Contenders inherit the caller's environment, such as MALLOC_ settings, which are printed.
"""

from __future__ import annotations

import argparse
import itertools
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
        step_ms = milliseconds(step, work.steps)
        bare_ms = milliseconds(bare, work.steps)
        turns.report({"step": step_ms, "bare": bare_ms, "gflop": flops / 1e9})


def milliseconds(function: Callable[[], object], times: int) -> float:
    """Of one call."""
    began = time.perf_counter()
    for _ in range(times):
        function()
    return 1e3 * (time.perf_counter() - began) / times


# -------------------------------------------------------------------------------------------------
# Memory


def resident() -> float:
    """MiB of this process that are in memory now."""
    return (
        int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        * os.sysconf("SC_PAGE_SIZE")
        / MIB
    )


def peak(function: Callable[[], object], times: int = 1) -> tuple[float, str]:
    """Milliseconds of a call, and the growth of the process: its peak meanwhile, and what stays."""
    before = resident()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
    taken = milliseconds(function, times)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    most = int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024
    stays = resident() - before
    return taken, f"at most {most - before:+.1f} MiB meanwhile, {stays:+.1f} MiB after"


def memory(capacity: int, threads: int) -> None:
    """100 tasks × 10,000 transitions, added 1,000 steps at a time; batches, steps, a checkpoint."""
    from metarl.experiments import checkpoints

    torch.set_num_threads(threads)
    work, generator = WORKLOADS["half-cheetah-vel"], torch.Generator().manual_seed(0)
    milliseconds(metarl(work), 3)  # so that libraries are loaded
    agent = metarl_agent(work, capacity=capacity)
    before = resident()
    for _ in range(10):
        agent.buffer.begin_context(torch.arange(TASKS))
        agent.buffer.add(rollout(work, STEPS), context=True)
    kept = agent.buffer.state_dict()["rows"]
    stored = kept.untyped_storage().nbytes() / MIB
    formula = TASKS * capacity * (2 * work.obs + work.action + 4) * 4 / MIB
    print(f"replay: {TASKS} tasks × {int(agent.buffer.count[0])} transitions")
    print(f"  capacity {capacity}, {threads} threads")
    print(f"  rows {tuple(kept.shape)}: {stored:.1f} MiB; formula: {formula:.1f} MiB")
    print(f"  process: {before:.1f} MiB before, {resident():.1f} MiB after")

    def draw() -> tuple:
        return agent._sample_batches(None, None, agent._draw_tasks(generator), generator)

    size = 0.0
    for part in draw():
        size += sum(x.nbytes for x in vars(part).values() if x is not None) / MIB
    taken, found = peak(draw, 50)
    print(f"  a batch and context of {size:.1f} MiB: {taken:.2f} ms; 50: {found}")
    milliseconds(lambda: agent._update(*draw(), agent.config.kl_coef, generator), 1)
    taken, found = peak(lambda: agent._update(*draw(), agent.config.kl_coef, generator), 50)
    print(f"  a gradient step with its batch: {taken:.1f} ms; 50: {found}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "latest.pt")
        taken, found = peak(lambda: checkpoints.save(path, {"agent": agent.state_dict()}))
        size = path.stat().st_size / MIB
        print(f"  checkpoint of the agent: {size:.1f} MiB in {taken / 1e3:.2f} s; {found}")


# -------------------------------------------------------------------------------------------------
# Speed


def speed(workload: str, threads: int, rounds: int, peer: str | None, peer_python: str) -> None:
    options = {"workload": workload, "threads": threads}
    contenders = [Contender(sys.executable, __file__, "metarl", options)]
    if peer:
        contenders.append(Contender(peer_python, __file__, "oyster", options | {"path": peer}))
    figures: dict[str, list[dict[str, float]]] = {each.name: [] for each in contenders}
    for round_ in range(rounds + 1):  # the first warms up
        for contender in contenders[:: 1 if round_ % 2 else -1]:
            found = contender.turn()
            if round_:
                figures[contender.name].append(found)
    for contender in contenders:
        contender.end()

    print(f"\n{workload}, threads: {threads}; {rounds} rounds of {WORKLOADS[workload].steps} steps")
    print(
        f"{'':8} ms a step: least  median   GFLOP  GFLOP/s  bare products' GFLOP/s  share of these"
    )
    for name, turns in figures.items():
        steps = [one["step"] for one in turns]
        gflop = turns[0]["gflop"]
        rate = statistics.median(1e3 * gflop / one["step"] for one in turns)
        bare = statistics.median(1e3 * gflop / one["bare"] for one in turns)
        share = statistics.median(one["bare"] / one["step"] for one in turns)
        print(
            f"{name:8} {min(steps):16.3f}  {statistics.median(steps):6.3f}  {gflop:6.3f}  "
            f"{rate:7.1f}  {bare:22.1f}  {share:14.2f}"
        )
    if peer:
        ours, theirs = figures["metarl"], figures["oyster"]
        ratios = [b["step"] / a["step"] for a, b in zip(ours, theirs, strict=True)]
        work = ours[0]["gflop"] / theirs[0]["gflop"]
        print(f"metarl, times as fast as oyster: a step {spread(ratios)}")
        print(f"  per FLOP {spread([work * ratio for ratio in ratios])}")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def machine() -> str:
    """Processor, torch and the settings of the environment that matter."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    processor = model[1] if model else "unknown CPU"
    words = [f"{processor}, {os.cpu_count()} cores, torch {torch.__version__}"]
    for name, value in sorted(os.environ.items()):
        if name.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD", "OMP_", "MKL_")):
            words.append(f"{name}={value}")
    return " ".join(words)


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
    peer = args.oyster and str(args.oyster.resolve())
    for workload, threads in itertools.product(args.workloads, args.threads):
        speed(workload, threads, args.rounds, peer, args.peer_python)


if __name__ == "__main__":
    main()
