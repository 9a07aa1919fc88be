"""Environment steps a second through `collect`, random actions, families in tensors only.

python benchmarks/light.py [--threads 2] [--rounds 7] [--rows 1000 10000]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from metarl import Rng, make_agent, make_family
from metarl.collect.collector import collect, task_info

FAMILIES = (
    "bernoulli-bandit",
    "gaussian-bandit",
    "tabular-mdp",
    "point",
    "sparse-point",
    "gridnavi",
    "four-rooms",
    "goal-maze",
    "movement-bandits",
    "taxi",
)
STEPS = 100  # about so many a row in a round


def speeds(name: str, rows: int, rounds: int) -> list[float]:
    """Steps a second of each round, after one that does not count."""
    family = make_family(name)
    agent, env = make_agent("random", family.spec), family.make(1)
    tasks, episodes = family.tasks("train", rows, Rng(0)), max(1, STEPS // family.spec.horizon)
    belief = agent.begin(task_info(agent, family.spec, tasks, episodes), lanes=1)
    found = []
    for number in range(rounds + 1):
        start = time.perf_counter()
        rollout, _ = collect(agent, env, family.spec, belief, tasks, episodes, Rng(number))
        found.append(rollout.env_steps / (time.perf_counter() - start))
    return found[1:]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000])
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    for name in FAMILIES:
        for rows in chosen.rows:
            found = speeds(name, rows, chosen.rounds)
            median, best = statistics.median(found) / 1e6, max(found) / 1e6
            print(f"{name:18} {rows:6} rows: {median:6.2f} M steps/s (best {best:.2f})")
