"""Workers on Ray, and the pool that they are for an agent."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from metarl.collect.messages import Message, pack, unpack
from metarl.collect.pool import Job
from metarl.config.schema import Config, to_dict
from metarl.core.errors import ConfigError, MetaRLError, note, one_line
from metarl.core.family import Family
from metarl.core.progress import tell
from metarl.experiments.ray_engine.actor import Actor, Setup, own_versions
from metarl.experiments.ray_engine.cluster import ClusterLost, knock, require_cpus
from metarl.experiments.user_code import code_copies

S = TypeVar("S")

_PATIENCE = 120.0  # seconds for a worker to start
_HEAD_SECONDS = 20.0  # without an answer of the head; Ray itself ends the program after 60
_LOOK_SECONDS = 2.0  # between looks at a silent cluster
_MOST_LOSSES = 3  # workers that a job may cost


class RayWorkers:
    """Actors that stay for the whole run; those that die are replaced."""

    def __init__(self, count: int, cpus: float, threads: int, patience: float = _PATIENCE):
        """`threads` of torch each, on which numbers may depend, and `cpus` of the cluster.

        Raises:
            ConfigError: the cluster has not so many CPUs.
            ClusterLost: other work has them.
        """
        require_cpus(count, cpus)
        self.size = count
        self.patience = patience
        self._arguments = (threads, max(1, int(cpus)), str(Path.cwd()))
        self._class: Any = ray.remote(num_cpus=cpus, max_restarts=0, scheduling_strategy="SPREAD")(
            Actor
        )
        self._address = ray.get_runtime_context().gcs_address
        self.idle: deque[Any] = deque()
        self.starting: dict[Any, Any] = {}  # what tells that it has started → the actor
        self.lost = 0
        """Since a job was last done."""
        self._setups = 0
        self._known = [own_versions()]  # what was found already
        for _ in range(count):
            self.hire()
        while not self.idle:  # the others may follow
            for started in self.wait({}):
                self.begin_work(started)

    def hire(self) -> None:
        """Start another one."""
        actor = self._class.remote(*self._arguments)
        self.starting[actor.versions.remote()] = actor

    def begin_work(self, reference: Any) -> None:
        """One that was starting has started, or failed to."""
        actor = self.starting.pop(reference)
        try:
            versions = ray.get(reference)
        except RayError:
            self.lose(actor)
            return
        if versions not in self._known:
            _require_versions(versions)
            self._known.append(versions)
        self.idle.append(actor)

    def lose(self, actor: Any) -> None:
        """Replace one that died; results do not depend on how many there are."""
        self.lost += 1
        ray.kill(actor)
        if self.lost > _MOST_LOSSES * self.size + 10:
            raise ClusterLost(
                f"collector ray: {self.lost} workers died; see the logs in /tmp/ray/session_latest"
            )
        self.hire()

    def recall(self, actor: Any) -> None:
        """It is idle when it has finished what it does."""
        self.starting[actor.versions.remote()] = actor

    def wait(self, busy: Mapping[Any, Any]) -> list[Any]:
        """What is ready first, of what is busy or starting.

        A job may take as long as it needs, if the cluster answers; a worker may not, to start.

        Raises:
            ClusterLost: the head does not answer, or no worker starts.
        """
        began = answered = time.monotonic()
        while True:
            ready, _ = ray.wait([*busy, *self.starting], timeout=_LOOK_SECONDS)
            if ready:
                return list(ready)
            now = time.monotonic()
            if self.is_reachable():
                answered = now
            elif now - answered > _HEAD_SECONDS:
                raise ClusterLost(
                    f"collector ray: the head at {self._address} has not answered for "
                    f"{_HEAD_SECONDS:g} s; go on with --resume"
                )
            if not busy and now - began > self.patience:
                raise ClusterLost(
                    f"collector ray: no worker has started for {self.patience:g} s: other work has "
                    "the CPUs of the cluster; see ray status"
                )

    def is_reachable(self) -> bool:
        """Whether the head of the cluster answers."""
        try:
            knock(self._address)
        except OSError:
            return False
        return True

    def pool(self, config: Config, family: Family) -> "RayPool":
        """The workers with the family and the agent of `config`, which they make themselves."""
        self._setups += 1
        return RayPool(self, config, self._setups)

    def close(self) -> None:
        """End all of them."""
        for actor in [*self.idle, *self.starting.values()]:
            with suppress(RayError):
                ray.kill(actor)


def _require_versions(versions: dict[str, str]) -> None:
    """Workers of another metarl are refused; of another torch may round otherwise."""
    own = own_versions()
    differing = [
        f"{name} {x} and here {own[name]}" for name, x in versions.items() if x != own[name]
    ]
    line = f"collector ray: a worker has {', '.join(differing)}"
    if versions["metarl-torch"] != own["metarl-torch"]:
        raise ConfigError(f"{line}; install the same version on all nodes")
    note(f"{line}: its numbers may differ in rounding")


class RayPool:
    """The pool of an agent of one configuration."""

    def __init__(self, workers: RayWorkers, config: Config, number: int):
        self._workers = workers
        tree = to_dict(config) | {"warm_start": None, "device": "cpu", "collector": "local"}
        self._setup = number, [ray.put(pack(Setup(tree, code_copies(tree))))]
        self._states = 0
        self.sent = self.received = 0
        """Bytes so far."""

    def run(self, agent: Any, jobs: Sequence[Job[S]]) -> list[S]:
        """The results of `jobs`, in their order, whoever did them.

        Raises:
            ClusterLost: no worker is left and none starts, or the cluster does not answer.
            MetaRLError: what the first job that fails raises.
        """
        state = pack(agent.acting_state())
        self._states += 1
        self.sent += state.size
        given = self._setup, (self._states, [ray.put(state)])
        round_ = _Round(self._workers, given, [pack(job) for job in jobs])
        messages = round_.results()
        self.sent += round_.sent
        self.received += sum(message.size for message in messages)
        return [unpack(message) for message in messages]


class _Round:
    """Jobs under way."""

    def __init__(self, workers: RayWorkers, given: tuple[Any, Any], jobs: Sequence[Message]):
        self._workers, self._given, self._jobs = workers, given, jobs
        self._waiting = deque(range(len(jobs)))
        self._busy: dict[Any, tuple[Any, int]] = {}  # what its result will be → an actor, its job
        self._losses = [0] * len(jobs)
        self._results: dict[int, Message] = {}
        self._failed: dict[int, Message] = {}
        self.sent = 0
        """Bytes."""

    def results(self) -> list[Message]:
        """In the order of the jobs."""
        try:
            while self._busy or self._waiting:
                self._hand_out()
                for reference in self._workers.wait(self._busy):
                    if reference in self._busy:
                        self._receive(reference)
                    else:
                        self._workers.begin_work(reference)
        finally:
            for actor, _ in self._busy.values():
                self._workers.recall(actor)
        if self._failed:
            error, text = unpack(self._failed[min(self._failed)])
            raise error from RuntimeError(text)
        return [self._results[place] for place in range(len(self._jobs))]

    def _hand_out(self) -> None:
        """A job for everyone who has none."""
        idle = self._workers.idle
        while self._waiting and idle:
            actor, place = idle.popleft(), self._waiting.popleft()
            job = self._jobs[place]
            self._busy[actor.run.remote(*self._given, job)] = actor, place
            self.sent += job.size

    def _receive(self, reference: Any) -> None:
        """A result; or another attempt, where the actor was lost."""
        actor, place = self._busy.pop(reference)
        try:
            succeeded, message = ray.get(reference)
        except RayTaskError as error:
            raise MetaRLError(f"collector ray: {one_line(error.cause or error)}") from error
        except RayError as error:
            self._losses[place] += 1
            if self._losses[place] > _MOST_LOSSES:
                raise ClusterLost(
                    f"collector ray: {self._losses[place]} workers died over the same task rows "
                    f"({type(error).__name__}); does their memory suffice? Set a smaller shard_rows"
                ) from None
            self._workers.lose(actor)
            self._waiting.appendleft(place)
            return
        self._workers.lost = 0
        self._workers.idle.append(actor)
        if succeeded:
            self._results[place] = message
            tell(
                f"{len(self._results)} of {len(self._jobs)} shards",
                len(self._results) / len(self._jobs),
            )
            return
        self._failed[place] = message  # those before it are awaited: the first one is told
        self._waiting = deque(other for other in self._waiting if other < place)
