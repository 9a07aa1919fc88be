"""The two protocols that a third party writes, `Family` and `BatchEnv`, and their optional parts.

``isinstance(family, KnowsOptimum)`` asks whether a family has one of these optional parts.
"""

from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarl.core.arrays import short
from metarl.core.errors import FamilyError, calling
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Scene, Spec, Step, Tasks


@runtime_checkable
class BatchEnv(Protocol):
    """N task rows × M lanes that step together, on the device of the tasks.

    It may also be a `HasFrames` or a `StepsOnCPU`.
    """

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        """Put every lane at the start of an episode of its row of `tasks` → obs [N, M, O].

        The same object serves any number of rows. All randomness comes from
        `tasks.streams(rng, lanes)`, so that no row depends on its neighbors.
        """

    def step(self, action: Tensor) -> Step:
        """Step every lane with `action` [N, M] int64 or [N, M, A] float32.

        Lanes whose episode ends start another.
        """


@runtime_checkable
class Family(Protocol):
    """A distribution over tasks.

    A family may also be a `KnowsOptimum`, `HasMeanOptimum`, `KnowsExpectedReward`,
    `HasGoalReward`, `Drawable`, `Captioned` or `Timed`: each is recognized by the one attribute
    that it names; or know its posterior (`metarl.core.predictions.KnowsPosterior`).
    """

    spec: Spec

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` rows of `split`, one of `spec.splits`.

        No row may be in two splits, unless the spec says `closed`. Asking for more rows keeps
        the first ones. A family of few tasks repeats them: ``Tasks.draw``.
        """

    def make(self, lanes: int) -> BatchEnv:
        """An environment with `lanes` lanes a row, to be reset onto tasks."""


def draw_tasks(family: Family, split: str, count: int, rng: Rng) -> Tasks:
    """`family.tasks`.

    Raises:
        FamilyError: it gives something else than Tasks, or whatever it raises, in one line.
    """
    with calling(f"{family.spec.name}: tasks({split!r}, {count}, rng)"):
        tasks = family.tasks(split, count, rng)
    if not isinstance(tasks, Tasks):
        raise FamilyError(f"{family.spec.name}: tasks gives {short(tasks)}, not metarl.Tasks")
    return tasks


def make_env(family: Family, lanes: int) -> BatchEnv:
    """`family.make`.

    Raises:
        FamilyError: it gives something else than an environment, or whatever it raises.
    """
    with calling(f"{family.spec.name}: make({lanes})"):
        env = family.make(lanes)
    if not isinstance(env, BatchEnv):
        raise FamilyError(f"{family.spec.name}: make gives {short(env)}, without reset and step")
    return env


# -------------------------------------------------------------------------------------------------
# What a family and its environments may offer


@runtime_checkable
class KnowsOptimum(Protocol):
    """A family that knows how well an agent can do that is shown the task."""

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the best expected return of an episode, for an agent that knows the task."""


@runtime_checkable
class HasMeanOptimum(Protocol):
    """A family that knows the exact mean of its optimum."""

    mean_optimum: float
    """Of `optimum` over all tasks, the same in every split but ood: a control variate."""


@runtime_checkable
class KnowsExpectedReward(Protocol):
    """A family whose rewards are noisy, with known means."""

    def expected_reward(self, tasks: Tasks, rollout: Rollout) -> Tensor:
        """[T, N, M]: the mean of every reward of `rollout`, for scores with less noise."""


@runtime_checkable
class HasGoalReward(Protocol):
    """A family whose reward depends on an achieved and a desired goal, for hindsight."""

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """[...]: the reward of having `achieved` [..., G] where `desired` [..., G] was the goal."""


@runtime_checkable
class Drawable(Protocol):
    """A family whose episodes can be drawn from above."""

    def scene(self, params: Tensor, obs: Tensor) -> Scene:
        """What to draw of one episode, by its task row [P] and observations [T, O]."""


@runtime_checkable
class Captioned(Protocol):
    """A family that says in words what a task is."""

    def caption(self, params: Tensor) -> str:
        """The task of a row [P] in a few words with units, for pictures and videos."""


@runtime_checkable
class UsesThreads(Protocol):
    """A family whose environments are stepped by several threads, which change no number."""

    threads: int
    """How many; 0: one for each CPU."""


@runtime_checkable
class Timed(Protocol):
    """A family that simulates a world with a clock."""

    seconds: float
    """Of one step."""


@runtime_checkable
class HasFrames(Protocol):
    """An environment that renders pictures."""

    def frame(self, row: int, lane: int) -> NDArray[np.uint8]:
        """[height, width, 3]: a picture of the present state of one lane of one row."""


@runtime_checkable
class StepsOnCPU(Protocol):
    """An environment that computes on the CPU, wherever its tasks are: agents act beside it."""

    steps_on_cpu: Literal[True]
