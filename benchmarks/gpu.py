"""The first questions to a GPU: the same draws, steps a second, and how often the CPU waits.

RL² with every memory, and PEARL, train for a few iterations on the CPU and on CUDA, from one seed.
Printed are, for each: whether the first iteration's tasks and actions' random numbers led to the
same returns to rounding, the environment steps a second of the last iteration on both, and how
often the CPU waited for the GPU a step, by torch's own count (`set_sync_debug_mode`).

    python benchmarks/gpu.py [--iterations 3] [--trials 500] [--only gru,lstm]
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import torch

from metarl.collect.world import LocalWorld
from metarl.core.rng import Rng
from metarl.experiments.building import make_agent, make_family

BANDIT, POINT = {"name": "bernoulli-bandit"}, {"name": "point"}
MEMORIES = ("gru", "lstm", "keyed", "gru+keyed", "slots", "set", "transformer")


def runs(trials: int) -> dict[str, tuple[str, dict[str, Any], dict[str, Any]]]:
    """Agent, its options and its family, by name."""
    found = {name: ("rl2", {"memory": name, "trials": trials}, BANDIT) for name in MEMORIES}
    return found | {"pearl": ("pearl", {"updates": 200}, POINT)}


def train(
    run: tuple[str, dict[str, Any], dict[str, Any]], device: torch.device, iterations: int
) -> tuple[list[float], float, float]:
    """Returns of the iterations; steps a second and waits a step of the last one."""
    name, options, given = run
    family = make_family(**given)
    agent: Any = make_agent(name, family.spec, 0, device, **options)
    world = LocalWorld(family, 20, family.tasks("train", 50, Rng(0)), device)
    returns, seconds, waits, steps = [], 0.0, 0, 0
    for i in range(iterations):
        before, began = world.env_steps, time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("warn")
            returns.append(agent.iterate(world, Rng(1).child(i))["return"])
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
                torch.cuda.synchronize()
        seconds, steps = time.perf_counter() - began, world.env_steps - before
        waits = sum("synchroniz" in str(warning.message) for warning in caught)
    return returns, steps / seconds, waits / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--only", help="names, separated by commas")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA here: run this on a machine that has it")
        return
    for name, run in runs(given.trials).items():
        if given.only and name not in given.only.split(","):
            continue
        here, speed_here, _ = train(run, torch.device("cpu"), given.iterations)
        there, speed_there, waits = train(run, torch.device("cuda"), given.iterations)
        alike = "alike" if abs(here[0] - there[0]) <= 1e-3 * abs(here[0]) else "UNLIKE"
        print(
            f"{name:12} first return {alike} ({here[0]:.4f}, {there[0]:.4f}), "
            f"steps/s cpu {speed_here:,.0f} cuda {speed_there:,.0f}, waits a step {waits:.2f}"
        )


if __name__ == "__main__":
    main()
