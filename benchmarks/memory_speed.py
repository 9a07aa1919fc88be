"""What each memory costs in training: environment steps a second, beside a GRU.

Iterations of RL² on random tabular MDPs, one of each memory after the other, on one core::

    python benchmarks/memory_speed.py [--episodes 10] [--rounds 5]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

import metarl
from metarl.collect.world import LocalWorld

MEMORIES = {
    "gru": {"memory": "gru", "memory_width": 64},
    "gru, pairs and readout": {"memory": "gru", "pair_input": True, "readout": "observation"},
    "lstm": {"memory": "lstm", "memory_width": 64},
    "keyed": {"memory": "keyed", "memory_width": 32, "hidden_sizes": (64, 64)},
    "gru+keyed": {"memory": "gru+keyed", "memory_width": 32, "hidden_sizes": (64, 64)},
    "slots": {"memory": "slots", "memory_width": 32},
    "transformer, 1 block": {"memory": "transformer", "attention_layers": 1},
    "transformer, 2 blocks": {"memory": "transformer", "attention_layers": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    family = metarl.make_family("tabular-mdp")
    world = LocalWorld(family, chosen.episodes, None, torch.device("cpu"))
    context = chosen.episodes * family.spec.horizon
    agents = {}
    for name, options in MEMORIES.items():
        agents[name] = metarl.make_agent(
            "rl2", family.spec, trials=chosen.trials, context=context, **options
        )
    seconds: dict[str, list[float]] = {name: [] for name in agents}
    for number in range(chosen.rounds + 1):
        for name, agent in agents.items():
            start = time.process_time()
            agent.iterate(world, metarl.Rng(number))
            if number:  # the first one warms up
                seconds[name].append(time.process_time() - start)
    steps = chosen.trials * context
    gru = np.median(seconds["gru"])
    for name, measured in seconds.items():
        median = np.median(measured)
        ratio = gru / median
        print(f"{name:24s} {steps / median:8,.0f} steps a core-second, {ratio:.2f} of a GRU's")


if __name__ == "__main__":
    main()
