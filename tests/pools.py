"""Pools for tests: what others do for an agent, without other processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metarl.collect.messages import pack, unpack
from metarl.collect.pool import Job, Worker
from metarl.config.schema import Config, parse, to_dict
from metarl.experiments.building import build


class CopyPool:
    """Workers that hold copies of the agent, as other processes would, and take the jobs in turn.

    They do them from the last to the first, and know only what is sent.
    """

    def __init__(self, config: Config, size: int):
        self.size = size
        self.workers: list[tuple[Any, Worker]] = []
        for _ in range(size):
            family, agent = build(parse(to_dict(config)))
            self.workers.append((agent, Worker(family)))
        self.jobs = 0

    def run(self, agent: Any, jobs: Sequence[Job[Any]]) -> list[Any]:
        """The results in the order of the jobs."""
        self.jobs += len(jobs)
        state = pack(agent.acting_state())
        for copy, _ in self.workers:
            copy.warm_start(unpack(state))
        results = {}
        for place in reversed(range(len(jobs))):
            copy, worker = self.workers[place % self.size]
            results[place] = unpack(pack(unpack(pack(jobs[place])).run(copy, worker)))
        return [results[place] for place in range(len(jobs))]
