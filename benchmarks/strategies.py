"""Scores of the classical strategies on common unseen tasks, beside published and computed values.

python benchmarks/strategies.py [--tasks 2000]
"""

from __future__ import annotations

import argparse
import math
import time

import torch

from metarl.evaluation.meta_test import evaluate
from metarl.experiments.building import make_agent, make_family

BANDITS = ("random", "greedy", "epsilon-greedy", "thompson", "ucb1", "gittins")
MDPS = ("random", "psrl", "opsrl", "beb", "certainty-equivalence", "value-iteration")
TABLE = [
    ("bernoulli-bandit", {"arms": 5}, 10, BANDITS),
    ("bernoulli-bandit", {"arms": 5}, 100, BANDITS),
    ("bernoulli-bandit", {"arms": 10}, 100, BANDITS),
    ("tabular-mdp", {}, 10, MDPS),
    ("tabular-mdp", {}, 25, MDPS),
    ("tabular-mdp", {}, 50, MDPS),
    ("tabular-mdp", {}, 100, MDPS),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=2000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name, options, episodes, agents in TABLE:
        family = make_family(name, **options)
        print(f"\n{name} {options or ''} {episodes} episodes, {args.tasks} tasks")
        for agent in agents:
            began = time.perf_counter()
            strategy = make_agent(agent, family.spec)
            scores = evaluate(strategy, family, episodes=episodes, tasks=args.tasks)
            total, regret = scores.totals[0], scores.regrets[0]
            root = math.sqrt(args.tasks)
            print(
                f"{agent:22} {total.mean():8.3f} ± {total.std() / root:.3f}   "
                f"regret {regret.mean():8.3f} ± {regret.std() / root:.3f}   "
                f"{time.perf_counter() - began:5.1f} s"
            )


if __name__ == "__main__":
    main()
