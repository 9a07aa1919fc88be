"""Rollouts in shards: so many task rows at a time, whoever does them.

A row does not depend on its neighbors but to rounding: matrix products choose their kernel by the
size of the batch. So the shards of a rollout are fixed by `shard_rows`, and not by the number of
workers, and every number is the same for any of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from metarl.collect.collector import collect
from metarl.collect.pool import Pool, Worker
from metarl.core.agent import Actor, Mode
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout, join_rows
from metarl.core.types import Belief, Tasks, replace, tree_map

C = TypeVar("C")


@dataclass(frozen=True)
class CollectJob:
    """A rollout of some task rows."""

    steps_envs: ClassVar[bool] = True
    belief: Belief
    tasks: Tasks
    episodes: int
    rng: Rng
    mode: Mode

    def run(self, agent: Actor, worker: Worker) -> tuple[Rollout, Tensor, Any]:
        """The rollout, and the belief's cue and lane after it; its row is as it was."""
        rollout, belief = collect(
            agent,
            worker.env(self.belief.cue.shape[1]),
            worker.family.spec,
            self.belief,
            self.tasks,
            self.episodes,
            self.rng,
            self.mode,
        )
        return rollout, belief.cue, belief.lane


def collect_in_shards(
    pool: Pool,
    agent: Actor,
    belief: Belief,
    tasks: Tasks,
    episodes: int,
    rng: Rng,
    shard_rows: int | None,
    mode: Mode = "sample",
) -> tuple[Rollout, Belief]:
    """`collect`, at most `shard_rows` task rows in a job; None: all of them in one.

    Raises:
        MetaRLError: as `collect`, of the first shard that fails; or the pool's own.
    """
    jobs = []
    for rows in shards(len(tasks), shard_rows):
        part = cut(belief, rows) if len(tasks[rows]) < len(tasks) else belief
        jobs.append(CollectJob(part, tasks[rows], episodes, rng, mode))
    device = belief.cue.device  # workers elsewhere have their own
    done = [tree_map(lambda x: x.to(device), result) for result in pool.run(agent, jobs)]
    if len(done) == 1:
        rollout, cue, lane = done[0]
        return rollout, replace(belief, cue=cue, lane=lane)
    rollouts, cues, lanes = zip(*done, strict=True)
    return join_rows(rollouts), replace(belief, cue=torch.cat(cues), lane=join(*lanes))


def shards(count: int, shard_rows: int | None) -> Iterator[slice]:
    """Slices of `shard_rows` of `count` rows each; the last may be shorter."""
    size = shard_rows or max(count, 1)
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


def cut(belief: C, rows: slice) -> C:
    """The `rows` of a tree whose tensors have the axis N in front."""
    return tree_map(lambda x: x[rows].contiguous(), belief)


def join(*parts: C) -> C:
    """Trees of different rows as one."""
    return tree_map(lambda *tensors: torch.cat(tensors), *parts)
