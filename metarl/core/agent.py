"""What an agent must offer: the protocol that training, evaluation and deployment drive."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from torch import Tensor

from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Acted, Belief, GoalReward, TaskInfo, Tasks

Mode = Literal["sample", "greedy"]
"""Draw actions from the policy, or take its most likely one."""


class World(Protocol):
    """What an agent meets while it is trained."""

    episodes: int
    """Episodes of a trial, in all lanes together, K·M."""
    progress: float
    """How much of the training is over, from 0 to 1: what schedules run on."""
    train_set: Tasks | None
    """The fixed tasks that are trained on; None: there are fresh ones in every iteration."""

    @property
    def goal_reward(self) -> GoalReward:
        """What achieved goals pay, by the family."""

    def tasks(self, count: int, rng: Rng) -> Tasks:
        """`count` training tasks."""

    def task_info(self, agent: Agent, tasks: Tasks) -> TaskInfo:
        """What `agent` may know of `tasks`."""

    def collect(
        self,
        agent: Agent,
        belief: Belief,
        tasks: Tasks,
        episodes: int,
        rng: Rng,
        mode: Mode = "sample",
    ) -> tuple[Rollout, Belief]:
        """Let every lane live through `episodes` whole episodes."""


class Agent(Protocol):
    """A belief about task rows, a rule to adapt it, and an outer update.

    ``begin → act → adapt`` is the whole of meeting a new task, in training, in evaluation and in use.
    The constructor takes ``(settings, spec, rng, device)``.
    """

    task_input: Literal["none", "row", "goal", "onehot"]
    """How it is shown the task: not at all (meta-RL), as its row (an oracle), as the row's goal (goal-conditioned RL), or
    as a one-hot of its index (multi-task RL)."""
    lanes: int
    """Episodes that it lives through side by side, in every row, between two adaptations, M."""

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """The belief about rows that nothing is known of yet."""

    def act(
        self, belief: Belief, obs: Tensor, noise: Streams, counter: int, mode: Mode
    ) -> tuple[Acted, Belief]:
        """Decide for every lane on obs [N, M, O]; all chance comes from `noise` at place `counter`.

        Changes the belief's lane and nothing else.
        """

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Learn from what was just lived through; changes the belief's row and nothing else.

        The lanes of the rollout need not be those of the belief: a deployed agent lives through them one by one.
        """

    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        """Learn from a rollout that somebody recorded elsewhere: what acting and adapting would have left behind.

        Changes row, lane and cue. What only the agent that acted could know is not in the rollout (see `recorded`): of
        its inputs there are obs and cue, whatever this agent's policy sees.
        """

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        """One iteration of meta-training → what to log."""

    def state_dict(self) -> dict[str, Any]:
        """All that training changes, as tensors, numbers, strings, lists and dicts.

        What stands under "replay" is needed to go on with training alone: best.pt is written without it, and
        `load_state_dict` does without it.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def warm_start(self, state: dict[str, Any]) -> None:
        """Begin from the parameters of another run's `state_dict`, with a fresh optimiser."""
