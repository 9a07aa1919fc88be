"""What an agent must offer: the protocol that training, evaluation and deployment drive."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Acted, Belief, GoalReward, Spec, TaskInfo, Tasks

Mode = Literal["sample", "greedy"]
"""Sample actions from the policy, or take its most likely one."""


class Actor(Protocol):
    """What `collect` drives."""

    def act(
        self,
        belief: Belief,
        obs: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> tuple[Acted, Belief]:
        """Choose an action in every lane from obs [N, M, O].

        All randomness comes from `noise` at place `counter`. Changes only the belief's lane.
        """


class World(Protocol):
    """What an agent is trained on."""

    episodes: int
    """Episodes of a trial, in all lanes together, K·M."""
    env_steps: int
    """Counts the steps of all environments; training sets it when it resumes."""
    progress: float
    """The share of training that is over, from 0 to 1: schedules depend on it."""
    train_set: Tasks | None
    """The fixed training tasks; None: fresh ones in every iteration."""

    @property
    def goal_reward(self) -> GoalReward:
        """The family's reward for achieved goals."""

    def tasks(self, count: int, rng: Rng) -> Tasks:
        """`count` training tasks."""

    def task_info(self, agent: Agent, tasks: Tasks) -> TaskInfo:
        """What `agent` may know of `tasks`."""

    def collect(
        self,
        agent: Actor,
        belief: Belief,
        tasks: Tasks,
        episodes: int,
        rng: Rng,
    ) -> tuple[Rollout, Belief]:
        """Roll out `episodes` whole episodes in every lane."""


@runtime_checkable
class RevealsTasks(Protocol):
    """A world that tells what is hidden, for training alone: never for what acts."""

    def task_rows(self, tasks: Tasks) -> Tensor:
        """[N, P]: what `tasks` are, for a privileged critic."""

    def pseudo_regret(self, tasks: Tasks, rollout: Rollout) -> Tensor:
        """[T, N, M]: what each step's expected reward is short of the family's known optimum."""


class Agent(Actor, Protocol):
    """A belief about task rows, a rule to adapt it, and an outer update.

    ``begin → act → adapt`` is the whole trial on a new task, in training, evaluation and use.
    The constructor takes ``(config, spec, rng, device)``; one that can act through pretrained
    options also takes ``pretrained``. A pickled copy acts and learns alike.
    """

    task_input: Literal["none", "row", "goal", "onehot"]
    """How it is shown the task: not at all (meta-RL), as its row (an oracle), as the row's goal
    (goal-conditioned RL), or as a one-hot of its index (multi-task RL)."""
    spec: Spec
    """Of the families that it acts in."""
    lanes: int
    """Parallel episodes of every row between two adaptations, M."""

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """The prior belief about rows that nothing is known of yet."""

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Learn from the last rollout; changes only the belief's row.

        The lanes of the rollout need not be those of the belief: a deployed agent runs its episodes
        one after another.
        """

    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        """Learn from a rollout recorded elsewhere: the belief that acting and adapting would leave.

        Changes row, lane and cue. The rollout (see `recorded`) has no log-probabilities, and of the
        inputs only obs and cue, whatever this agent's policy sees.
        """

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        """One iteration of meta-training → metrics to log."""

    def acting_state(self) -> dict[str, Any]:
        """What acting needs, a part of `state_dict`: never an optimizer or a replay buffer.

        An agent of the same configuration that takes it over by `warm_start` acts alike.
        """

    def state_dict(self) -> dict[str, Any]:
        """All that training changes, as tensors, numbers, strings, lists and dicts.

        Only further training needs the entry "replay": best.pt is written without it, and
        `load_state_dict` does not require it.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def warm_start(self, state: dict[str, Any]) -> None:
        """Take over another agent's `acting_state`; all else is as before training."""


@runtime_checkable
class HasDevice(Protocol):
    """An agent that acts on one device alone; others act wherever their belief is."""

    device: torch.device


def device_of(agent: Agent | None) -> torch.device:
    """Where `agent` acts; the CPU unless it says so."""
    return agent.device if isinstance(agent, HasDevice) else torch.device("cpu")


@runtime_checkable
class InfersLatent(Protocol):
    """An agent that infers a latent task variable."""

    def inferred(self, belief: Belief) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the posterior, [N, Z] each."""


@runtime_checkable
class DescribesActing(Protocol):
    """An agent whose ways of acting depend on more than the mode."""

    acting: str
    """How it acts in which episodes, to stand beside its figures."""
