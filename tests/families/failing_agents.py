"""Agents that end badly, each in its way."""

import time

from metarl.agents.strategies.strategy import Random


class Raises(Random):
    """Its first action raises."""

    def act(self, belief, obs, noise, counter, mode):
        raise ValueError("no such <thing>")


class Hangs(Random):
    """Its first action never ends."""

    def act(self, belief, obs, noise, counter, mode):
        while True:
            time.sleep(0.05)
