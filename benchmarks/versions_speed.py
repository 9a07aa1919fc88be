"""Did a refactoring change the speed? Two checkouts take turns on the same work, pair by pair.

Each checkout has an environment in which it is installed; its Python is named::

    python benchmarks/versions_speed.py ../v0.5/.venv/bin/python .venv/bin/python --pairs 10

It prints, for every piece of work, seconds a turn of both and the ratio old / new (above 1: the new
one is faster): the median over pairs and its 95 % interval by the bootstrap. Run it on a quiet
machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import numpy as np
from turns import Contender, Turns

RL2 = {"name": "rl2", "memory_width": 64, "trials": 100, "epochs": 2, "minibatches": 4}
MAML = {"name": "maml", "tasks": 20, "lanes": 10}
PEARL = {
    "name": "pearl",
    "tasks": 4,
    "updates": 40,
    "meta_batch": 8,
    "batch": 128,
    "body": [64, 64],
    "encoder": [64, 64],
    "initial_episodes": 2,
}
SAC = PEARL | {"variant": "sac", "task_input": "goal"}
ROOMS = {"name": "four-rooms", "horizon": 40}
POINT = {"name": "point", "variant": "maml"}

WORK = {
    "rl2": {"agent": RL2, "family": "bernoulli-bandit", "episodes": 100},
    "rl2 with options": {"agent": RL2 | {"options": 4}, "family": ROOMS, "episodes": 2},
    "maml": {"agent": MAML, "family": POINT, "episodes": 30},
    "pearl": {"agent": PEARL, "family": POINT, "episodes": 3, "train_tasks": 20},
    "sac": {"agent": SAC, "family": POINT, "episodes": 3, "train_tasks": 20},
    "collect point": {"agent": "random", "family": POINT, "episodes": 4},
    "collect gridnavi": {"agent": "random", "family": "gridnavi", "episodes": 40},
    "collect taxi": {"agent": "random", "family": {"name": "taxi", "horizon": 300}, "episodes": 1},
    "collect mdp": {"agent": "random", "family": "tabular-mdp", "episodes": 40},
    "collect bandit": {"agent": "random", "family": "bernoulli-bandit", "episodes": 500},
    "collect four-rooms": {"agent": "random", "family": ROOMS, "episodes": 4},
    "collect half-cheetah": {"agent": "random", "family": "half-cheetah-vel", "episodes": 1},
}
"""Name → configuration, in the keys of version 0.5; "collect" evaluates, all others train."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old", help="Python of the old checkout")
    parser.add_argument("new", help="Python of the new checkout")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--only", default="", help="names with commas")
    arguments = parser.parse_args()
    chosen = [name for name in arguments.only.split(",") if name] or list(WORK)
    print(f"{'work':22}{'old, s':>9}{'new, s':>9}  old / new, median [95 %]")
    for name in chosen:
        pairs = [turns(arguments, name) for _ in range(arguments.pairs)]
        report(name, np.array(pairs))


def turns(arguments: argparse.Namespace, name: str) -> tuple[float, float]:
    """Seconds a turn of old and new: the medians of five turns in two fresh processes.

    Where a process happens to lie in memory changes its speed by several percent.
    """
    contenders = [
        Contender(python, __file__, name, {}) for python in (arguments.old, arguments.new)
    ]
    seconds = np.empty((6, 2))
    for turn in range(6):
        for which in (0, 1) if turn % 2 else (1, 0):
            seconds[turn, which] = contenders[which].turn()["seconds"]
    for contender in contenders:
        contender.end()
    old, new = np.median(seconds[1:], axis=0)  # the first turn warms up
    return float(old), float(new)


def report(name: str, seconds: np.ndarray) -> None:
    """seconds [pairs, 2]."""
    ratio = seconds[:, 0] / seconds[:, 1]
    drawn = np.random.default_rng(0).choice(ratio, (10_000, len(ratio)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    old, new = np.median(seconds, axis=0)
    print(
        f"{name:22}{old:9.3f}{new:9.3f}  {np.median(ratio):.3f} [{low:.3f}, {high:.3f}]",
        flush=True,
    )


# -------------------------------------------------------------------------------------------------
# The other end


def serve(name: str) -> None:
    """One turn after another of the work called `name`."""
    import warnings

    warnings.simplefilter("ignore")
    turns, work = Turns(), prepare(name)
    while True:
        turns.wait()
        began = time.perf_counter()
        work()
        turns.report({"seconds": time.perf_counter() - began})


def prepare(name: str) -> Callable[[], None]:
    import torch

    import metarl

    torch.set_num_threads(1)
    work = WORK[name]
    if name.startswith("collect"):
        section = work["family"]
        options = dict(section) if isinstance(section, dict) else {"name": section}
        family = metarl.make_family(options.pop("name"), **options)
        agent = metarl.make_agent("random", family.spec)
        tasks = 40 if "cheetah" in name else 1000

        def collect() -> None:
            metarl.evaluate(agent, family, episodes=work["episodes"], tasks=tasks)

        return collect

    config = metarl.parse(work | {"iterations": 10**9})
    family, agent = metarl.build(config)
    try:
        from metarl.experiments.building import world_of

        world = world_of(config, family)
    except ImportError:  # earlier versions, whose runs made their own
        try:
            from metarl.collect.world import TrainingWorld
            from metarl.experiments.building import train_set
        except ImportError:  # version 0.5
            from metarl.rollout import TrainingWorld
            from metarl.run import train_set
        fixed = train_set(config, family)
        world = TrainingWorld(family, config.episodes, fixed, torch.device("cpu"))
    updates = metarl.learn(agent, world, metarl.Rng(0), iterations=10**9)

    def iterate() -> None:
        for _ in range(2):
            next(updates)

    return iterate


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(json.loads(sys.argv[2])[0])
    else:
        main()
