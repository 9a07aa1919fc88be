"""Who works for a configuration: this process, or workers on Ray."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Protocol

from metarl.collect.cpu_pool import CPUPool
from metarl.collect.pool import LocalPool, Pool
from metarl.config.schema import Config
from metarl.core.errors import ConfigError, install_command
from metarl.core.family import Family
from metarl.experiments.building import agent_of


class Workers(Protocol):
    """Who works, whatever the configuration."""

    def pool(self, config: Config, family: Family) -> Pool:
        """They, with the `family` and the agent of a configuration."""


class LocalWorkers:
    """This process."""

    def pool(self, config: Config, family: Family) -> Pool:
        """One job after another; an agent on a GPU acts on the CPU where simulators do."""
        if config.device == "cpu":
            return LocalPool(family)
        on_cpu = config.model_copy(update={"device": "cpu"})
        return CPUPool(family, lambda agent: agent_of(on_cpu, agent.spec))


@contextmanager
def workers_of(config: Config) -> Iterator[Workers]:
    """Who works as `config` says, until the end of the context.

    Raises:
        ConfigError: no Ray, no cluster that can be reached, or one with too few CPUs.
    """
    if config.collector == "local":
        yield LocalWorkers()
        return
    engine = ray_engine()
    with engine.cluster():
        cpus = config.worker_cpus or config.threads
        workers = engine.RayWorkers(config.workers, cpus, config.threads)
        try:
            yield workers
        finally:
            workers.close()


def ray_engine() -> ModuleType:
    """The module that needs Ray.

    Raises:
        ConfigError: Ray is not installed.
    """
    try:
        return importlib.import_module("metarl.experiments.ray_engine")
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ConfigError(
            f"collector and launcher ray need Ray: {install_command('ray')}"
        ) from None
