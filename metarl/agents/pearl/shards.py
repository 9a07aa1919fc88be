"""A gradient step of PEARL in shards of its tasks, which may be computed side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

import torch
from torch import Tensor

from metarl.algorithms.gradients import GradientShards, Shard
from metarl.algorithms.sac import SAC
from metarl.collect.pool import Worker
from metarl.core.types import Inputs, Params, replace, tree_map
from metarl.data.transitions import Transitions

if TYPE_CHECKING:
    from metarl.agents.pearl.agent import PEARL

C = TypeVar("C")


@dataclass(frozen=True)
class LessonJob:
    """The gradient of critics and encoder on some tasks; it keeps the policy's inputs."""

    steps_envs: ClassVar[bool] = False
    batch: Transitions  # [N, B]
    context: Transitions | None  # [N, C]
    normal: Tensor  # [N, Z]
    rows: Tensor | None  # [N, P]
    kl_coef: float
    action_normal: Tensor | None = None  # [N, B, A]
    targets: Params | None = None
    """Of the critics, which acting does not need."""
    share: float = 1.0
    """Of the tasks of the gradient step."""

    def part(self, rows: slice) -> LessonJob:
        """On some of the tasks."""
        normal = self.normal[rows]
        return LessonJob(
            _cut(self.batch, rows),
            _cut(self.context, rows),
            normal,
            _cut(self.rows, rows),
            self.kl_coef,
            _cut(self.action_normal, rows),
            self.targets,
            self.share * len(normal) / len(self.normal),
        )

    def run(self, agent: PEARL, worker: Worker) -> Shard:
        """It, of the critics' loss, the divergence from the prior and a teacher's loss."""
        sac = agent.sac
        if self.targets is not None:
            sac.follow_targets(self.targets)
        transitions, more_loss, metrics = agent.lesson(
            self.batch, self.context, self.normal, self.rows, self.kl_coef, self.share
        )
        loss, more = sac.critic_loss(transitions, _flat(self.action_normal))
        gradients = sac.critic_gradients(self.share * loss + more_loss)
        metrics |= {name: self.share * value for name, value in more.items()}
        return Shard(gradients, metrics, tree_map(Tensor.detach, transitions.inputs))


@dataclass(frozen=True)
class PolicyJob:
    """The gradient of the policy at some inputs."""

    steps_envs: ClassVar[bool] = False
    inputs: Inputs  # [N · B, …]
    action_normal: Tensor | None  # [N, B, A]
    share: float

    def run(self, agent: PEARL, worker: Worker) -> Shard:
        """It, with the critics of now."""
        loss, metrics = agent.sac.policy_loss(self.inputs, _flat(self.action_normal))
        gradients = agent.sac.policy_gradients(self.share * loss)
        return Shard(gradients, {name: self.share * value for name, value in metrics.items()})


def update_in_shards(
    sac: SAC, lesson: LessonJob, generator: torch.Generator, shards: GradientShards
) -> dict[str, Tensor]:
    """`SAC.update` on the tasks of `lesson`: the gradient of the critics first, then the policy's.

    Args:
        generator: of the sampled actions, on the CPU.
    """
    tasks, steps = lesson.batch.reward.shape
    first, second = (sac.normal(tasks * steps, generator) for _ in range(2))
    lesson = replace(lesson, action_normal=_by_task(first, tasks), targets=sac.targets)
    slices = shards.slices(tasks)
    parts = [lesson.part(rows) for rows in slices]
    critics = shards.sum(parts)
    sac.descend_critics(critics.gradients)

    jobs = []
    normal = _by_task(second, tasks)
    for rows, part, inputs in zip(slices, parts, critics.kept, strict=True):
        jobs.append(PolicyJob(inputs, _cut(normal, rows), part.share))
    policy = shards.sum(jobs)
    more = sac.descend_policy(policy.gradients, policy.metrics["entropy"])
    return critics.metrics | policy.metrics | more


def _cut(x: C, rows: slice) -> C:
    """The `rows` of a tree of tensors; of None it is None."""
    return x if x is None else tree_map(lambda y: y[rows], x)


def _by_task(normal: Tensor | None, tasks: int) -> Tensor | None:
    """[N · B, A] → [N, B, A]."""
    return None if normal is None else normal.unflatten(0, (tasks, -1))


def _flat(normal: Tensor | None) -> Tensor | None:
    return None if normal is None else normal.flatten(0, 1)
