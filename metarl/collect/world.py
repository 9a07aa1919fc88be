"""What an agent meets while it is trained."""

from __future__ import annotations

import torch

from metarl.collect.collector import collect, rounds, task_info
from metarl.core.agent import Agent, Mode
from metarl.core.errors import MetaRLError
from metarl.core.family import BatchEnv, Family
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Belief, GoalReward, TaskInfo, Tasks


class TrainingWorld:
    """The training tasks of one family and `collect` on them, with the count of what was consumed."""

    def __init__(
        self, family: Family, episodes: int, train_set: Tasks | None, device: torch.device
    ) -> None:
        """`train_set`: the fixed tasks to train on, a task's index being its place; None: fresh ones whenever asked for."""
        self.family = family
        self.episodes = episodes
        self.progress = 0.0
        self.env_steps = 0
        self.device = device
        self.train_set = None if train_set is None else train_set.to(device)
        self._envs: dict[int, BatchEnv] = {}

    @property
    def goal_reward(self) -> GoalReward:
        """What achieved goals pay, by the family.

        Raises:
            MetaRLError: it has none.
        """
        reward: GoalReward | None = getattr(self.family, "goal_reward", None)
        if reward is None:
            raise MetaRLError(
                f"hindsight: {self.family.spec.name} does not know what goals pay; give it a method goal_reward"
            )
        return reward

    def tasks(self, count: int, rng: Rng) -> Tasks:
        """`count` training tasks: fresh ones, or rows of the fixed set, which is walked through before a row returns."""
        if self.train_set is None:
            return self.family.tasks("train", count, rng.child("tasks")).to(self.device)
        return self.train_set.draw(count, rng.child("tasks")).to(self.device)

    def task_info(self, agent: Agent, tasks: Tasks) -> TaskInfo:
        """What `agent` may know of `tasks`."""
        return task_info(
            agent, self.family.spec, tasks, rounds(agent, self.episodes), self.train_set
        )

    def collect(
        self,
        agent: Agent,
        belief: Belief,
        tasks: Tasks,
        episodes: int,
        rng: Rng,
        mode: Mode = "sample",
    ) -> tuple[Rollout, Belief]:
        """`collect` in an environment that is kept for as many lanes as the belief has."""
        lanes = belief.cue.shape[1]
        if lanes not in self._envs:
            self._envs[lanes] = self.family.make(lanes)
        rollout, belief = collect(
            agent, self._envs[lanes], self.family.spec, belief, tasks, episodes, rng, mode
        )
        self.env_steps += rollout.env_steps
        return rollout, belief
