"""Agents whose training ends badly, each in its way."""

import time

from metarl.agents.strategies.strategy import Random


class Raises(Random):
    """Its first iteration raises."""

    def iterate(self, world, rng):
        raise ValueError("no such <thing>")


class Hangs(Random):
    """Its first iteration never ends."""

    def iterate(self, world, rng):
        while True:
            time.sleep(0.05)
