"""Who does an agent's jobs: this process, one after another, or workers elsewhere.

A job is a piece of work with a fixed size, such as the rollout of some task rows. It gives the same
bytes wherever it is done, so that results do not depend on who does it.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from metarl.core.family import BatchEnv, Family, make_env

R = TypeVar("R", covariant=True)
S = TypeVar("S")


class Worker:
    """A family, and environments that are kept for the next job."""

    def __init__(self, family: Family):
        self.family = family
        self._envs: dict[int, BatchEnv] = {}

    def env(self, lanes: int) -> BatchEnv:
        """An environment with `lanes` lanes a row."""
        if lanes not in self._envs:
            self._envs[lanes] = make_env(self.family, lanes)
        return self._envs[lanes]


class Job(Protocol[R]):
    """Work for an agent. It is sent as it is: tensors and plain values, no code of its own."""

    steps_envs: ClassVar[bool]
    """Whether it is done where environments are, or where the agent learns."""

    def run(self, agent: Any, worker: Worker) -> R:
        """Do it. `agent` acts as the agent that the pool was given; it may be a copy."""


class Pool(Protocol):
    """Whoever does jobs. It is closed by whoever has made it."""

    def run(self, agent: Any, jobs: Sequence[Job[S]]) -> list[S]:
        """The results of `jobs`, in their order.

        Raises:
            MetaRLError: what the first of them that fails raises.
        """


class LocalPool:
    """This process: one job after another, by the agent itself."""

    def __init__(self, family: Family):
        self._worker = Worker(family)

    def run(self, agent: Any, jobs: Sequence[Job[S]]) -> list[S]:
        """The results of `jobs`, in their order."""
        return [job.run(agent, self._worker) for job in jobs]


@runtime_checkable
class HasActingState(Protocol):
    """An actor that others can copy: they act for it."""

    def acting_state(self) -> dict[str, Any]:
        """All that acting needs."""


@runtime_checkable
class UsesPool(Protocol):
    """A world whose rollouts others may do."""

    pool: Pool
    shard_rows: int | None
    """How many task rows are rolled out in one job; None: all of them."""
    gradient_shards: int
    """In how many parts of a minibatch gradients are computed."""
