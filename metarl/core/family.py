"""What a family of tasks and its environments must offer: the two protocols that a third party writes."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from metarl.core.rng import Rng
from metarl.core.types import Spec, Step, Tasks


@runtime_checkable
class BatchEnv(Protocol):
    """N task rows × M lanes that step together, on the device of the tasks."""

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        """Put every lane at the start of an episode of its row of `tasks` → obs [N, M, O].

        The same object serves any number of rows. All randomness comes from `tasks.streams(rng, lanes)`, so that what
        a row meets does not depend on its neighbours.
        """

    def step(self, action: Tensor) -> Step:
        """Step every lane with `action` [N, M] int64 or [N, M, A] float32; lanes whose episode ends start another."""


@runtime_checkable
class Family(Protocol):
    """A distribution over tasks.

    A family may also offer, each found by name:

    * ``optimum(tasks) -> Tensor [N]``: the best expected return of an episode for an agent that knows the task;
    * ``mean_optimum: float``: its exact mean over the test tasks, which takes the luck of the draw out of a score;
    * ``expected_reward(tasks, rollout) -> Tensor [T, N, M]``: the reward's mean, given what was done, for scores with
      less noise than the rewards that fell;
    * ``goal_reward(achieved [..., G], desired [..., G]) -> Tensor [...]``: the reward for having achieved one goal where
      another was desired, for hindsight;
    * ``scene(params [P], obs [T, O]) -> Scene``: what to draw of an episode, seen from above.

    Its environments may offer ``frame(row, lane) -> ndarray [height, width, 3] uint8``, a picture of what is the case now.
    """

    spec: Spec

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` rows of `split`, one of `spec.splits`; no row may be found in two, unless the spec says `closed`.

        Asking for more rows keeps the first ones. A family of few tasks repeats them: ``Tasks.draw``.
        """

    def make(self, lanes: int) -> BatchEnv:
        """An environment with `lanes` lanes a row, to be reset onto tasks."""
