"""The rollout buffer kept per task: the newest transitions of every training task, to draw batches and context from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metarl.core.errors import MetaRLError
from metarl.core.rollout import Rollout
from metarl.core.types import GoalReward, Spec, replace, tree

_FIRST_SIZE = 1024


@tree
class Transitions:
    """B transitions of each of N tasks."""

    obs: Tensor  # [N, B, O]
    action: Tensor  # [N, B] int64 or [N, B, A]
    reward: Tensor  # [N, B] what the environment paid
    training_reward: (
        Tensor  # [N, B] what critics learn from: the same, where the family has no dense one
    )
    next_obs: Tensor  # [N, B, O] the true successor
    terminated: Tensor  # [N, B] bool: nothing followed; False at the horizon
    future: Tensor | None = (
        None  # [N, B, G] goal that the same episode achieved at this step or a later one
    )
    task: Tensor | None = None  # [N, B, P] what is shown of the task, its goal in front


class Replay:
    """A ring of `capacity` transitions for each of S tasks, which are met as they come; the newest of each stay.

    The context of a task is a stretch of the same ring: what was added as context since it was last begun.

    A transition is a row of numbers, so that a batch is one look-up. Memory grows with what is in it, up to
    S × capacity × (2 O + A + 4) × 4 bytes::

        task 0   t5 t6 t2 t3 t4     capacity 5, count 7, context from 3 to 5: t3, t4
        task 1   t0 t1 .  .  .
    """

    def __init__(self, spec: Spec, capacity: int, device: torch.device) -> None:
        self.spec = spec
        self.capacity = capacity
        self.device = device
        action = 1 if spec.discrete else spec.action_width
        widths = (
            spec.obs_width,
            action,
            1,
            1,
            spec.obs_width,
            1,
            1,
        )  # the last: steps left in the episode
        self._widths = widths
        self._rows = torch.empty(0, 0, sum(widths), device=device)  # [S, size so far, W]
        self._count = torch.zeros(
            0, dtype=torch.long, device=device
        )  # [S] transitions that were ever given
        self._context = torch.zeros(
            0, 2, dtype=torch.long, device=device
        )  # [S, 2] number of the first, one past the last

    # -- writing

    def add(self, rollout: Rollout, *, context: bool = False) -> None:
        """What was lived through, every task's episodes one after another; as more `context`, or for critics alone.

        Raises:
            MetaRLError: context that does not follow the task's last one: something else was added between.
        """
        rows, owner = self._flat(rollout)
        self._meet(rollout.index)
        added = torch.bincount(owner, minlength=self.tasks)
        if context and (self._context[:, 1] != self._count)[added > 0].any():
            raise MetaRLError(
                "replay: context is one stretch; begin another one with begin_context"
            )
        first = (added.cumsum(0) - added)[owner]
        rank = torch.arange(len(rows), device=self.device) - first  # within its task
        kept = rank >= (added - self.capacity)[owner]
        self._grow(int((self._count + added).max()))
        slot = (self._count[owner] + rank) % self.capacity
        self._rows[owner[kept], slot[kept]] = rows[kept]
        self._count += added
        if context:
            self._context[:, 1] = torch.where(added > 0, self._count, self._context[:, 1])

    def begin_context(self, tasks: Tensor) -> None:
        """Forget the context of these tasks [N]; their transitions stay for the critics."""
        self._meet(tasks)
        self._context[tasks] = self._count[tasks].unsqueeze(1)

    def _flat(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Its transitions [X, W], ordered by task, within it by row, lane and time; and whose they are [X]."""
        time = torch.arange(len(rollout.valid), device=self.device).view(-1, 1, 1)
        end = (
            torch.where(rollout.done & rollout.valid, time, len(time))
            .flip(0)
            .cummin(0)
            .values.flip(0)
        )
        training = rollout.reward if rollout.training_reward is None else rollout.training_reward
        columns = (rollout.inputs.obs, rollout.action, rollout.reward, training, rollout.next_obs)
        parts = [
            x.float().reshape(*rollout.valid.shape, -1)
            for x in (*columns, rollout.terminated, end - time)
        ]
        lived = rollout.valid.movedim(0, 2).flatten()
        rows = torch.cat(parts, dim=-1).movedim(0, 2).flatten(0, 2)[lived]
        index = (
            rollout.index.view(-1, 1, 1)
            .expand(*rollout.valid.shape[1:], len(time))
            .flatten()[lived]
        )
        owner, order = index.sort(stable=True)
        return rows[order], owner

    def _meet(self, tasks: Tensor) -> None:
        """Have a ring for each of `tasks` [N]."""
        if (more := int(tasks.max()) + 1 - self.tasks) > 0:
            new = (
                (x.new_zeros(more, *x.shape[1:]), x)
                for x in (self._rows, self._count, self._context)
            )
            self._rows, self._count, self._context = (torch.cat([old, empty]) for empty, old in new)

    def _grow(self, most: int) -> None:
        """Make room for `most` transitions of a task, or for all that the capacity allows."""
        wanted, size = min(most, self.capacity), self._rows.shape[1]
        if size < wanted:
            room = min(max(wanted, 2 * size, _FIRST_SIZE), self.capacity)
            rows = self._rows.new_zeros(
                self.tasks, room, self._rows.shape[2]
            )  # not left to chance: they are saved too
            rows[:, :size] = self._rows  # nothing has wrapped around yet
            self._rows = rows

    # -- reading

    @property
    def tasks(self) -> int:
        """S: how many tasks were met."""
        return len(self._count)

    @property
    def count(self) -> Tensor:
        """[S] int64: transitions that every task was ever given."""
        return self._count

    def __len__(self) -> int:
        """Transitions that are kept, of all tasks."""
        return int(self._count.clamp(max=self.capacity).sum())

    def sample(
        self, tasks: Tensor, size: int, generator: torch.Generator, *, future: bool = False
    ) -> Transitions:
        """`size` transitions of each of `tasks` [N], all of which were met; all equally likely, with replacement.

        `future`: also a goal that the same episode achieved at the same step or a later one, all equally likely
        (Andrychowicz et al. 2017, arXiv:1707.01495, section 4.5: the strategy "future").

        Raises:
            MetaRLError: a task without transitions.
        """
        last = self._count[tasks]
        return self._draw(tasks, self._oldest(last), last, size, generator, future)

    def context(self, tasks: Tensor, size: int, generator: torch.Generator) -> Transitions:
        """`size` transitions of the present context of each of `tasks` [N], all equally likely, with replacement.

        Raises:
            MetaRLError: a task without context, or whose context was overwritten.
        """
        first, last = self._context[tasks].unbind(1)
        return self._draw(
            tasks,
            torch.maximum(first, self._oldest(self._count[tasks])),
            last,
            size,
            generator,
            False,
        )

    def _oldest(self, count: Tensor) -> Tensor:
        return (count - self.capacity).clamp(min=0)

    def _draw(
        self,
        tasks: Tensor,
        first: Tensor,
        last: Tensor,
        size: int,
        generator: torch.Generator,
        future: bool,
    ) -> Transitions:
        """Of those from number `first` [N] to before number `last` [N]."""
        if (last <= first).any():
            task = int(tasks[last <= first][0])
            raise MetaRLError(
                f"replay: task {task} has nothing to draw from; collect it first, or enlarge agent.capacity"
            )
        number = first.unsqueeze(1) + self._below((last - first).unsqueeze(1), size, generator)
        obs, action, reward, training, next_obs, terminated, left = self._at(tasks, number).split(
            self._widths, -1
        )
        later = None
        if future:
            left = left.squeeze(-1).long()
            then = self._at(tasks, number + self._below(left + 1, size, generator))
            later = then.split(self._widths, -1)[4][..., self._achieved]
        return Transitions(
            obs=obs,
            action=action.squeeze(-1).long() if self.spec.discrete else action,
            reward=reward.squeeze(-1),
            training_reward=training.squeeze(-1),
            next_obs=next_obs,
            terminated=terminated.squeeze(-1) > 0,
            future=later,
        )

    def _at(self, tasks: Tensor, number: Tensor) -> Tensor:
        """[N, B, W]: transitions of each of `tasks` [N] by their number [N, B] since the beginning."""
        place = tasks.unsqueeze(1) * self._rows.shape[1] + number % self.capacity
        return self._rows.flatten(0, 1)[place]

    def _below(self, bound: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """[N, B] int64: uniform from 0 to before `bound` [N, 1] or [N, B]."""
        uniform = torch.rand(
            len(bound), size, generator=generator, device=self.device, dtype=torch.float64
        )
        return (uniform * bound).long()

    @property
    def _achieved(self) -> slice:
        assert self.spec.achieved_goal is not None
        return self.spec.part(self.spec.achieved_goal)

    # -- keeping

    def state_dict(self) -> dict[str, Any]:
        """All that is in it: the arrays themselves, not copies."""
        return {
            "capacity": self.capacity,
            "rows": self._rows,
            "count": self._count,
            "context": self._context,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what `state_dict` held; a copy of it.

        Raises:
            MetaRLError: a replay of another capacity.
        """
        if state["capacity"] != self.capacity:
            raise MetaRLError(
                f"replay: of capacity {state['capacity']}, not {self.capacity}; set agent.capacity to that"
            )
        self._rows, self._count, self._context = (
            state[name].to(self.device, copy=True) for name in ("rows", "count", "context")
        )


def hindsight(
    batch: Transitions, chosen: Tensor, spec: Spec, goal_reward: GoalReward
) -> Transitions:
    """The batch as if its `chosen` [N, B] bool transitions had been meant for the goal that their episode achieved later.

    Hindsight experience replay (Andrychowicz et al. 2017, arXiv:1707.01495): the goal that is shown and the reward change, for
    critics too; whether an episode terminated stays as it was.
    """
    assert batch.future is not None
    assert batch.task is not None
    assert spec.achieved_goal is not None
    reward = goal_reward(batch.next_obs[..., spec.part(spec.achieved_goal)], batch.future)
    relabelled = torch.cat([batch.future, batch.task[..., spec.goal_width :]], dim=-1)
    return replace(
        batch,
        task=torch.where(chosen.unsqueeze(-1), relabelled, batch.task),
        reward=torch.where(chosen, reward, batch.reward),
        training_reward=torch.where(chosen, reward, batch.training_reward),
    )
