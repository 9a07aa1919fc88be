"""Gradients of a minibatch in shards, which may be computed side by side.

The shards are fixed, and their gradients are summed in their order, so that the sum is the same
whoever computes them.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.collect.pool import Job, Pool, UsesPool
from metarl.core.agent import Agent, World
from metarl.core.types import Params

Gradients = dict[str, Tensor | None]
"""By the name of a parameter; None where the loss does not depend on it."""


class Shard(NamedTuple):
    """What a shard adds to its minibatch."""

    gradients: Gradients
    metrics: dict[str, Tensor]
    """[] each; those of all shards are summed."""
    kept: Any = None
    """What else the next job on it needs."""


class GradientShards:
    """Who computes the gradients of an agent, and in how many shards."""

    def __init__(self, agent: Agent, pool: Pool, count: int):
        self._agent, self._pool, self.count = agent, pool, count

    def slices(self, count: int) -> list[slice]:
        """Those of a minibatch of `count` rows: as many as there are shards, of like size."""
        number = min(self.count, count)
        bounds = [count * place // number for place in range(number + 1)]
        return [slice(first, last) for first, last in pairwise(bounds)]

    def sum(self, jobs: Sequence[Job[Shard]]) -> Shard:
        """The gradient of a minibatch and its metrics, shard after shard; `kept` is a list."""
        done = self._pool.run(self._agent, jobs)
        gradients, metrics = done[0].gradients, done[0].metrics
        for shard in done[1:]:
            gradients = {name: _add(x, shard.gradients[name]) for name, x in gradients.items()}
            metrics = {name: x + shard.metrics[name] for name, x in metrics.items()}
        return Shard(gradients, metrics, [shard.kept for shard in done])


def gradient_shards(agent: Agent, world: World) -> GradientShards | None:
    """As the `world` says; None: all at once, in this process."""
    if not isinstance(world, UsesPool) or world.gradient_shards == 1:
        return None
    return GradientShards(agent, world.pool, world.gradient_shards)


def gradients_of(loss: Tensor, params: Params) -> Gradients:
    """Of `loss` [] with respect to all `params`."""
    gradients = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    return dict(zip(params, gradients, strict=True))


def _add(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    if x is None or y is None:
        return x if y is None else y
    return x + y
