"""Configuration of the worlds that agents are trained in; imports no torch."""

from metarl.config.registry import Settings


class LocalConfig(Settings):
    """The training tasks of one family, stepped in this process."""

    configures = "metarl.collect.world:LocalWorld"
