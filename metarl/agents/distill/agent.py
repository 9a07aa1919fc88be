"""Distillation: what a teacher does in a trial becomes a policy with memory.

Three papers differ in who acts and who is asked (see `metarl.algorithms.imitation`):

======  ==============================  ============================================================
AD      the teacher, which learns       its actions: the policy learns to learn as it does
DPT     anybody                         a teacher that is shown the task: its best action; the
                                        policy becomes the posterior of that, as Thompson sampling
DAgger  the policy, in some trials      the teacher's action after the policy's own history
======  ==============================  ============================================================
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from metarl.agents.distill.config import DistillConfig
from metarl.agents.distill.lesson import Lesson
from metarl.agents.memory_agent import MemoryAgent, make_policy
from metarl.algorithms.imitation import Imitation
from metarl.core.agent import Agent, World
from metarl.core.errors import ConfigError
from metarl.core.rng import Rng
from metarl.core.rollout import join_steps
from metarl.core.types import Spec

MakeAgent = Callable[[], Agent]


class Distill(MemoryAgent):
    """The agent. Its teacher is made when it first learns: who acts needs none."""

    def __init__(
        self,
        config: DistillConfig,
        spec: Spec,
        rng: Rng,
        device: torch.device,
        teacher: MakeAgent | None = None,
        behavior: MakeAgent | None = None,
    ):
        if teacher is None:
            raise ConfigError(
                "agent.teacher: name who is imitated, such as thompson or runs/rl2/seed-0"
            )
        super().__init__(config, spec, device)
        self.config = config
        self.policy = make_policy(config, spec)
        self.imitation = self.learner = Imitation(self.policy, config, spec, rng, device)
        self._make_teacher = teacher
        self._make_behavior = behavior
        self._others: tuple[Agent, Agent | None] | None = None

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        """Collect `trials` trials, and imitate what the teacher would have done in them."""
        tasks = world.tasks(self.config.trials, rng)
        teacher, behavior = self._teachers()
        students = round(self.config.student_share * len(tasks))
        lesson = Lesson(self, teacher, behavior, students)
        belief = lesson.begin_in(world, tasks)
        parts = []
        for episode in range(world.episodes):
            own = rng.child(f"episode {episode}")
            rollout, belief = world.collect(lesson, belief, tasks, 1, own)
            belief = lesson.adapt(belief, rollout)
            parts.append(rollout)
        trials = join_steps(parts)
        label: Tensor = trials.extras["label"]
        metrics = self.imitation.update(
            trials, label, world.progress, rng.child("minibatches").generator()
        )
        total = trials.episode_returns().sum(0).mean()
        return {"return": float(total), **metrics}

    def _teachers(self) -> tuple[Agent, Agent | None]:
        """The teacher, and who acts in its place.

        Raises:
            ConfigError: one of them learns from several episodes side by side.
        """
        if self._others is None:
            behavior = None if self._make_behavior is None else self._make_behavior()
            self._others = (self._make_teacher(), behavior)
            for agent in self._others:
                if agent is not None and agent.lanes > 1:
                    raise ConfigError(
                        f"agent.teacher: {type(agent).__name__} adapts on {agent.lanes} episodes "
                        "side by side, and a trial is a single sequence; name another agent"
                    )
        return self._others
