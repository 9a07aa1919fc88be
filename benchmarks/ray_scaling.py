"""What workers on Ray give: measured on this machine, and what follows for 16 and 128 cores.

An environment step of a rollout takes a + b·rows; every shard pays a again. From a, b, the time of
learning and the driver's own work follows the time of an iteration with W workers on W cores, each
with a shard of N / W rows. The prediction is checked on this machine's cores. Rounds are
interleaved, and figures are medians; the machine should be quiet.

    pip install 'metarl-torch[ray]'
    python benchmarks/ray_scaling.py [--rounds 5] [--workers 1 2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Any

from metarl.collect.pool import LocalPool
from metarl.collect.shards import collect_in_shards
from metarl.config.files import load_config
from metarl.config.schema import Config, parse, to_dict
from metarl.core.rng import Rng
from metarl.experiments.building import build, world_of
from metarl.experiments.workers import workers_of

WORKLOADS = {
    "cheetah 40 × 400": (
        "rl2/half-cheetah-vel",
        40,
        ["agent.trials=40", "episodes=2", "family.horizon=200", "family.threads=1"],
    ),
    "bandit 500 × 100": (
        "rl2/bernoulli-bandit-k10-n100",
        500,
        ["agent.trials=500", "episodes=100"],
    ),
}
MANY = (16, 128)


@dataclass
class Costs:
    """Of one iteration, in seconds."""

    a: float  # of a rollout, whatever the number of rows
    b: float  # more for each row
    learning: float
    rows: int
    driver: float = 0.0  # its own work for a sharded rollout
    bytes: int = 0  # that a rollout takes there and back

    def iteration(self, workers: int, driver: float | None = None) -> float:
        """With so many workers on cores of their own, each with N / W rows."""
        rows = -(-self.rows // workers)
        return self.a + self.b * rows + self.learning + (self.driver if driver is None else driver)

    @property
    def half(self) -> float:
        """Workers at which half of the possible speed of collecting is there."""
        return self.b * self.rows / self.a


def config_of(name: str, changes: list[str]) -> Config:
    return load_config(name, [*changes, "iterations=1", "env_steps=null"])


def measure(name: str, rounds: int, workers: list[int]) -> None:
    shipped, rows, changes = WORKLOADS[name]
    config = config_of(shipped, changes)
    family, agent = build(config)
    world = world_of(config, family)
    world.progress = 0.0
    agent.iterate(world, Rng(0))  # the first one is slower

    few = max(rows // 8, 1)
    seconds: dict[Any, list[float]] = {}
    for number in range(rounds):
        rng = Rng(0).child("round", number)
        for count in (few, rows):
            taken, _ = rollout_seconds(LocalPool(family), agent, family, config, count, None, rng)
            seconds.setdefault(count, []).append(taken)
        began = time.perf_counter()
        agent.iterate(world, rng)
        seconds.setdefault("iteration", []).append(time.perf_counter() - began)
    small, large, whole = (statistics.median(seconds[key]) for key in (few, rows, "iteration"))
    b = (large - small) / (rows - few)
    costs = Costs(a=small - b * few, b=b, learning=whole - large, rows=rows)
    steps = config.episodes * family.spec.horizon
    print(f"\n{name} ({shipped}), one thread, median of {rounds} rounds")
    print(f"  a step: a = {1e3 * costs.a / steps:.3f} ms, b = {1e3 * b / steps:.4f} ms a row")
    print(f"  an iteration: collecting {large:.2f} s, learning {costs.learning:.2f} s")
    print(f"  half of the speed of collecting at W* = b·N/a = {costs.half:.1f} workers")

    for count in workers:
        shard = -(-rows // count)
        shared = {"collector": "ray", "workers": count, "shard_rows": shard}
        with_workers = parse(to_dict(config) | shared)
        with workers_of(with_workers) as crew:
            pool: Any = crew.pool(with_workers, family)
            rollout_seconds(pool, agent, family, config, rows, shard, Rng(1))
            walls, drivers, alone = [], [], []
            before = pool.sent + pool.received
            for number in range(rounds):
                rng = Rng(0).child("round", number)
                wall, own = rollout_seconds(pool, agent, family, config, rows, shard, rng)
                walls.append(wall)
                drivers.append(own)
                here, _ = rollout_seconds(LocalPool(family), agent, family, config, rows, None, rng)
                alone.append(here)
            moved = (pool.sent + pool.received - before) // rounds
        wall, driver = statistics.median(walls), statistics.median(drivers)
        costs.driver, costs.bytes = driver, moved
        expected = costs.a + costs.b * shard + driver
        ratio = statistics.median(x / y for x, y in zip(alone, walls, strict=True))
        print(
            f"  {count} workers: collecting {wall:.2f} s (expected {expected:.2f}), "
            f"{ratio:.2f} × none; driver {1e3 * driver:.0f} ms = {100 * driver / wall:.1f} %; "
            f"{moved / 2**20:.1f} MiB"
        )
    for count in MANY:
        speedup = costs.iteration(1, 0.0) / costs.iteration(count)
        collecting = (costs.a + costs.b * rows) / (
            costs.a + costs.b * -(-rows // count) + costs.driver
        )
        print(
            f"  {count} cores, calculated: collecting {collecting:.1f} ×, an iteration "
            f"{speedup:.2f} × (learning alone would allow {whole / costs.learning:.2f} ×)"
        )


def rollout_seconds(
    pool: Any,
    agent: Any,
    family: Any,
    config: Config,
    rows: int,
    shard_rows: int | None,
    rng: Rng,
) -> tuple[float, float]:
    """Seconds of the wall, and of this process's processor."""
    tasks = family.tasks("train", rows, rng)
    world = world_of(config, family)
    belief = agent.begin(world.task_info(agent, tasks), lanes=1)
    began, busy = time.perf_counter(), time.process_time()
    collect_in_shards(pool, agent, belief, tasks, config.episodes, rng, shard_rows)
    return time.perf_counter() - began, time.process_time() - busy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    for name in WORKLOADS:
        measure(name, arguments.rounds, arguments.workers)


if __name__ == "__main__":
    main()
