"""Acting beside a simulator: an agent on a GPU leaves its episodes to a copy of it on the CPU."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from metarl.collect.messages import pack, unpack
from metarl.collect.pool import Job, Worker
from metarl.core.agent import Agent
from metarl.core.family import Family, StepsOnCPU

S = TypeVar("S")


class CPUPool:
    """This process: one job after another, each where its environments step.

    Between a simulator on the CPU and an agent on a GPU, every step would send an observation, and
    wait for the action. So a copy of the agent acts on the CPU, and whole rollouts are sent. Jobs
    without environments stay with the agent, as do those whose environments are tensors on its
    device.
    """

    def __init__(self, family: Family, make_copy: Callable[[Agent], Agent]):
        """`make_copy`: another agent of the same configuration, on the CPU; its weights differ."""
        self._worker = Worker(family)
        self._make_copy = make_copy
        self._copy: Agent | None = None

    def run(self, agent: Any, jobs: Sequence[Job[S]]) -> list[S]:
        """The results of `jobs`, in their order; those of the copy are on the CPU."""
        copied = any(job.steps_envs for job in jobs) and self._steps_on_cpu(agent)
        copy = self._copy_of(agent) if copied else None
        results = []
        for job in jobs:
            if copy is None or not job.steps_envs:
                results.append(job.run(agent, self._worker))
            else:
                results.append(_on_cpu(job).run(copy, self._worker))
        return results

    def _steps_on_cpu(self, agent: Agent) -> bool:
        return isinstance(self._worker.env(agent.lanes), StepsOnCPU)

    def _copy_of(self, agent: Agent) -> Agent:
        """The copy, which acts as `agent` does now."""
        if self._copy is None:
            self._copy = self._make_copy(agent)
        self._copy.warm_start(_on_cpu(agent.acting_state()))
        return self._copy


def _on_cpu(value: S) -> S:
    """`value` with tensors of its own on the CPU, as a worker elsewhere would get it."""
    sent: S = unpack(pack(value))
    return sent
