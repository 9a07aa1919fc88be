"""What an agent is trained on."""

import torch
from torch import Tensor

from metarl.collect.collector import adaptation_rounds, task_info
from metarl.collect.pool import HasActingState, LocalPool, Pool
from metarl.collect.shards import collect_in_shards
from metarl.core.agent import Actor, Agent
from metarl.core.errors import FamilyError
from metarl.core.family import (
    Family,
    HasGoalReward,
    KnowsExpectedReward,
    KnowsOptimum,
    draw_tasks,
)
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Belief, GoalReward, TaskInfo, Tasks


class LocalWorld:
    """The training tasks of one family, `collect` on them, and a counter of environment steps."""

    def __init__(
        self,
        family: Family,
        episodes: int,
        train_set: Tasks | None,
        device: torch.device,
    ):
        """`train_set`: the fixed training tasks, each at the place of its index, or None."""
        self.family = family
        self.episodes = episodes
        self.progress = 0.0
        self.env_steps = 0
        self.device = device
        self.train_set = None if train_set is None else train_set.to(device)
        self._here = LocalPool(family)
        self.pool: Pool = self._here
        """Who rolls out."""
        self.shard_rows: int | None = None
        """How many task rows are rolled out in one job; None: all of them."""
        self.gradient_shards = 1
        """In how many parts of a minibatch gradients are computed."""

    @property
    def goal_reward(self) -> GoalReward:
        """The family's reward for achieved goals.

        Raises:
            FamilyError: it has none.
        """
        if not isinstance(self.family, HasGoalReward):
            raise FamilyError(f"hindsight: {self.family.spec.name} needs a method goal_reward")
        return self.family.goal_reward

    def task_rows(self, tasks: Tasks) -> Tensor:
        """[N, P]: the hidden rows."""
        return tasks.params

    def pseudo_regret(self, tasks: Tasks, rollout: Rollout) -> Tensor:
        """[T, N, M]: the optimum of an episode, shared out over its steps, minus expected rewards.

        Raises:
            FamilyError: the family does not know them.
        """
        family = self.family
        if not (isinstance(family, KnowsOptimum) and isinstance(family, KnowsExpectedReward)):
            raise FamilyError(
                f"objective pseudo-regret: {family.spec.name} needs methods optimum and "
                "expected_reward; set agent.objective=return"
            )
        optimum = family.optimum(tasks).unsqueeze(-1) / family.spec.horizon
        return optimum - family.expected_reward(tasks, rollout)

    def tasks(self, count: int, rng: Rng) -> Tasks:
        """`count` training tasks: fresh ones, or rows of the fixed set, all before any returns."""
        rng = rng.child("tasks")
        if self.train_set is None:
            drawn = draw_tasks(self.family, "train", count, rng)
        else:
            drawn = self.train_set.draw(count, rng)
        return drawn.to(self.device)

    def task_info(self, agent: Agent, tasks: Tasks) -> TaskInfo:
        """What `agent` may know of `tasks`."""
        rounds = adaptation_rounds(agent, self.episodes)
        return task_info(agent, self.family.spec, tasks, rounds, self.train_set)

    def collect(
        self,
        agent: Actor,
        belief: Belief,
        tasks: Tasks,
        episodes: int,
        rng: Rng,
    ) -> tuple[Rollout, Belief]:
        """`collect`, in shards; an actor that cannot be copied acts here."""
        pool, shard_rows = self.pool, self.shard_rows
        if not isinstance(agent, HasActingState):
            pool, shard_rows = self._here, None
        rollout, belief = collect_in_shards(
            pool,
            agent,
            belief,
            tasks,
            episodes,
            rng,
            shard_rows,
        )
        self.env_steps += rollout.env_steps
        return rollout, belief
