"""How fast a configuration trains here, from some seconds of it."""

from dataclasses import dataclass
from time import process_time

from metarl.config.schema import Config
from metarl.core.rng import Rng
from metarl.experiments.building import build, world_of
from metarl.experiments.loop import learn

_FEW = 5
"""Training tasks of a fixed set, whose replay buffers are filled before the first iteration."""


@dataclass(frozen=True)
class Speed:
    """Of training, a second of processor time."""

    env_steps: float
    iterations: float


def measure_speed(config: Config, seconds: float = 0.0) -> Speed:
    """By the second iteration and those after it within `seconds`.

    The first one is another: an agent with a replay buffer fills it.
    """
    few = config.model_copy(update={"train_tasks": config.train_tasks and _FEW})
    family, agent = build(few)
    updates = learn(agent, world_of(few, family), Rng(few.seed), iterations=10**9)
    first = next(updates).counters
    began = process_time()
    while True:
        now = next(updates).counters
        used = process_time() - began
        if used >= seconds:
            steps, iterations = now.env_steps - first.env_steps, now.iterations - first.iterations
            return Speed(steps / used, iterations / used)
