"""Commands of metarl as tasks of Ray."""

import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from metarl.core.disk import writing
from metarl.core.errors import ConfigError, note
from metarl.experiments.interruption import ending, on_signals
from metarl.experiments.processes import KILL_AFTER, Ended, Job, run_jobs
from metarl.experiments.ray_engine.cluster import cluster, require_cpus

_MOST_LOSSES = 3  # workers that a command may cost


def run_jobs_on_ray(
    jobs: Sequence[Job],
    at_once: int,
    grace: float,
    ended: Callable[[Ended], None] = lambda _: None,
) -> list[int]:
    """As `run_jobs`, on any node of the cluster: all of them share this folder and its disk.

    A command whose worker is lost is run again, so it should be one that goes on.

    Args:
        at_once: how many at a time; 0: as many as there are CPUs for.

    Raises:
        ConfigError: no cluster, or no node with so many CPUs.
        KeyboardInterrupt: after Ctrl-C, and SystemExit after the other signals.
    """
    if not jobs:
        return []
    with cluster():
        require_cpus(1, max(job.cpus for job in jobs))
        return _Commands(jobs, at_once, grace, ended).run()


def _run_command(job: Job, directory: str, grace: float) -> Ended:
    """Run it in a process of its own, in a worker."""
    try:
        os.chdir(directory)
    except OSError as error:
        raise ConfigError(
            f"launcher ray: the node {socket.gethostname()} has no folder {directory} "
            f"({error.strerror}); runs need a disk that all nodes share"
        ) from None
    ends: list[Ended] = []
    run_jobs([job], 1, grace, ends.append)
    return ends[0]


class _Commands:
    """Commands under way."""

    def __init__(
        self,
        jobs: Sequence[Job],
        at_once: int,
        grace: float,
        ended: Callable[[Ended], None],
    ):
        self.jobs, self.at_once, self.grace, self.ended = jobs, at_once or len(jobs), grace, ended
        self.task = ray.remote(max_retries=_MOST_LOSSES)(_run_command)
        self.running: dict[Any, int] = {}
        self.codes = [0] * len(jobs)
        self.signals: list[int] = []

    def run(self) -> list[int]:
        """Their exit codes."""
        waiting = deque(enumerate(self.jobs))
        with on_signals(lambda number, _: self.signals.append(number)):
            while (waiting or self.running) and not self.signals:
                while waiting and len(self.running) < self.at_once:
                    place, job = waiting.popleft()
                    task = self.task.options(num_cpus=job.cpus)
                    self.running[task.remote(job, str(Path.cwd()), self.grace)] = place
                self._receive()
            if self.signals:
                self._end()
                raise ending(self.signals[0])
        return self.codes

    def _receive(self) -> None:
        ready, _ = ray.wait(list(self.running), timeout=0.5)
        for reference in ready:
            place = self.running.pop(reference)
            try:
                end = replace(ray.get(reference), place=place)
            except RayTaskError as error:
                end = self._lost(place, str(error.cause or error))
            except RayError as error:
                line = f"its workers were lost {_MOST_LOSSES + 1} times ({type(error).__name__})"
                end = self._lost(place, line)
            self.codes[place] = end.code
            self.ended(end)

    def _lost(self, place: int, why: str) -> Ended:
        """A command that came to no end: its log says why."""
        log = self.jobs[place].log
        if log is not None:
            with writing(log), log.open("a", encoding="utf-8") as file:
                file.write(f"metarl: {why}\n")
        note(why)
        return Ended(place, 1, 0.0, too_long=False)

    def _end(self) -> None:
        """Ask all to end, and wait until they have."""
        for reference in self.running:
            ray.cancel(reference, force=False)
        if self.running:
            ray.wait(
                list(self.running), num_returns=len(self.running), timeout=self.grace + KILL_AFTER
            )
