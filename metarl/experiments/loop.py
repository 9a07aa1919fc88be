"""Training: iterate an agent on the tasks of a family until a limit is reached."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from torch import Tensor
from torch.utils._pytree import keystr, tree_leaves_with_path

from metarl.core.agent import Agent, World
from metarl.core.errors import MetaRLError, blaming
from metarl.core.rng import Rng
from metarl.experiments.counters import BEGINNING, Counters
from metarl.experiments.tags import grouped


@dataclass(frozen=True)
class Update:
    """What a callback is given after every iteration."""

    counters: Counters
    """Iterations, environment steps and seconds so far, this one included."""
    metrics: dict[str, float]
    """What `Agent.iterate` returned, and ``env_steps_per_second``."""
    agent: Agent
    """After the iteration, to look at; changing it changes the training."""
    validation: float | None = None
    """The score on validation tasks, in iterations after which `train` validates."""
    best: float | None = None
    """The best score so far, by which `train` chose its best checkpoint."""

    def record(self) -> dict[str, float]:
        """What the log says of it."""
        counters = asdict(self.counters)
        record = {"iteration": counters.pop("iterations"), **counters, **self.metrics}
        if self.validation is not None:
            record["validation"] = self.validation
        return record

    def by_tag(self) -> dict[str, float]:
        """The same as loggers group it, ``rollout/return`` and so on; see `grouped`."""
        return grouped(self.record())


def learn(
    agent: Agent,
    world: World,
    rng: Rng,
    *,
    env_steps: int | None = None,
    iterations: int | None = None,
    minutes: float | None = None,
    start: Counters = BEGINNING,
) -> Iterator[Update]:
    """Iterate until the first limit is reached.

    The randomness of an iteration depends on its number alone.

    Raises:
        MetaRLError: steps are the limit, and the world does not count them; or a metric or a number
            that the agent acts by is not finite after an iteration.
    """
    counters = start
    world.env_steps = start.env_steps
    while (progress := counters.progress(env_steps, iterations, minutes)) < 1:
        began = time.perf_counter()
        world.progress = progress
        with blaming(agent):
            metrics = agent.iterate(world, rng.child("iteration", counters.iterations))
        seconds = time.perf_counter() - began
        if env_steps is not None and world.env_steps == counters.env_steps:
            raise MetaRLError(
                f"{type(world).__name__} counted no steps in an iteration: let its collect add "
                "them to env_steps, or set iterations instead of env_steps"
            )
        metrics["env_steps_per_second"] = (world.env_steps - counters.env_steps) / seconds
        counters = Counters(counters.iterations + 1, world.env_steps, counters.seconds + seconds)
        require_finite({"metrics": metrics} | agent.acting_state(), agent, counters.iterations)
        yield Update(counters, metrics, agent)


def require_finite(state: dict[str, Any], agent: Agent, iterations: int) -> None:
    """Raises a MetaRLError that names the first NaN or infinity in tensors and floats."""
    for path, leaf in tree_leaves_with_path(state):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            finite = bool(leaf.sum().isfinite() or leaf.isfinite().all())
        else:
            finite = not isinstance(leaf, float) or isfinite(leaf)
        if not finite:
            raise MetaRLError(
                f"{type(agent).__name__}: {keystr(path)} is not finite after iteration "
                f"{iterations}: lower the learning rate, or scale the rewards down; the last good "
                "checkpoint stays"
            )
