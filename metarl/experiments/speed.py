"""How fast a configuration trains here, from some seconds of it."""

from time import process_time

from metarl.config.schema import Config
from metarl.core.rng import Rng
from metarl.experiments.building import build, world_of
from metarl.experiments.loop import learn

_FEW = 5
"""Training tasks of a fixed set, whose replay buffers are filled before the first iteration."""


def env_steps_per_second(config: Config, seconds: float = 0.0) -> float:
    """Of training, by the second iteration and those after it within `seconds`.

    Seconds are of processor time. The first iteration is another: an agent with a replay buffer
    fills it.
    """
    few = config.model_copy(update={"train_tasks": config.train_tasks and _FEW})
    family, agent = build(few)
    updates = learn(agent, world_of(few, family), Rng(few.seed), iterations=10**9)
    first = next(updates).counters.env_steps
    began = process_time()
    while True:
        steps = next(updates).counters.env_steps - first
        used = process_time() - began
        if used >= seconds:
            return steps / used
