"""The replay buffer: the newest steps of every training task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from metarl.core.errors import CheckpointError, MetaRLError
from metarl.core.rng import send
from metarl.core.rollout import Rollout
from metarl.core.types import append_axes
from metarl.data.step_numbers import StepNumbers, below

_FIRST_SIZE = 1024


@dataclass(frozen=True)
class Column:
    """One quantity of a step: [...] of type `dtype`, or [..., width] of it."""

    width: int | None = None
    dtype: torch.dtype = torch.float32
    """Bytes are kept as such, other integers as float32: exact up to 2²⁴."""


class Replay:
    """A ring buffer of the newest `capacity` steps of each of S tasks, with named columns.

    Tasks are added as they come. The context of a task is a stretch of its ring: what was added as
    context since `begin_context`, on one visit to the task. Those of the newest V visits are known.

    A step is a row of W numbers, all columns and how many steps are left of its sequence, so that a
    batch is one look-up; columns of bytes are a row of their own. Memory grows with the content, up
    to S × capacity × (4 W + bytes)::

        task 0   t5 t6 t2 t3 t4     capacity 5, count 7, context from 3 to 5: t3, t4
        task 1   t0 t1 .  .  .

    Which steps there are is known on the CPU: see `StepNumbers`.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        capacity: int,
        device: torch.device,
        sequence: Literal["episode", "trial"] = "episode",
        visits: int = 1,
    ):
        """An empty one.

        Args:
            columns: of a step, by name.
            capacity: steps of a task.
            device: where the steps are kept.
            sequence: what `sequences` and `future` end with: an episode, or a whole rollout.
            visits: how many visits' contexts are known, V.
        """
        self.columns = dict(columns)
        self.capacity = capacity
        self.device = device
        self.sequence = sequence
        self._names: list[str] = []
        self._byte_names: list[str] = []
        for name, column in columns.items():
            names = self._byte_names if column.dtype == torch.uint8 else self._names
            names.append(name)
        widths = {name: column.width or 1 for name, column in columns.items()}
        self._widths = [*(widths[name] for name in self._names), 1]  # the last one: steps left
        self._byte_widths = [widths[name] for name in self._byte_names]
        self._rows = torch.empty(0, 0, sum(self._widths), device=device)  # [S, size so far, W]
        self._bytes = torch.empty(0, 0, sum(self._byte_widths), dtype=torch.uint8, device=device)
        self._numbers = StepNumbers(capacity, visits)

    # -- writing

    def add(self, rollout: Rollout, *, context: bool = False, **more: Tensor) -> None:
        """Append the steps of every task lane by lane; with `context`, as more context.

        A column is the array of that name in `rollout`, its inputs or extras, or one of `more`,
        [T, N, M, …] each.

        Raises:
            MetaRLError: a column that nothing has, or of another shape; context that does not
                follow the last one.
        """
        rows, as_bytes, owner = self._flat(rollout, more)
        self._add_tasks(rollout.index.cpu())
        added = torch.bincount(owner, minlength=self.tasks).cpu()
        if context:
            self._numbers.require_one_stretch(added)
        self._grow(int((self.count + added).max()))

        of_tasks = [added.cumsum(0) - added, added - self.capacity, self.count]
        first, skipped, count = torch.stack(of_tasks).to(self.device)[:, owner]
        rank = torch.arange(len(rows), device=self.device) - first  # within its task
        kept = rank >= skipped
        slot = (count + rank) % self.capacity
        self._rows[owner[kept], slot[kept]] = rows[kept]
        if self._byte_names:
            self._bytes[owner[kept], slot[kept]] = as_bytes[kept]
        self._numbers.add(added, context=context)

    def begin_context(self, tasks: Tensor) -> None:
        """Begin an empty context of these tasks [N]; their transitions stay for the critics."""
        tasks = tasks.cpu()
        self._add_tasks(tasks)
        self._numbers.begin_context(tasks)

    def _flat(self, rollout: Rollout, more: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Its steps [X, W], their bytes and tasks [X], ordered by task, row, lane and time."""
        known: dict[str, Tensor | None] = {
            **vars(rollout.inputs),
            **vars(rollout),
            **rollout.extras,
        }
        if rollout.training_reward is None:
            known["training_reward"] = rollout.reward
        known |= more
        arrays = {}
        for name, column in self.columns.items():
            array = known.get(name)
            if array is None:
                raise MetaRLError(f"replay: the rollout has no {name!r}; give it to add")
            shape = (*rollout.valid.shape, *([] if column.width is None else [column.width]))
            if array.shape != shape:
                raise MetaRLError(f"replay: {name!r} is {tuple(array.shape)}, not {shape}")
            arrays[name] = array.reshape(*rollout.valid.shape, -1)

        time = append_axes(torch.arange(len(rollout.valid), device=self.device), 3)
        last = rollout.valid & (rollout.done if self.sequence == "episode" else rollout.ends)
        end = torch.where(last, time, len(time))
        end = end.flip(0).cummin(0).values.flip(0)  # [T, N, M]: the last step of this sequence

        parts = [arrays[name].float() for name in self._names]
        parts.append((end - time).float().unsqueeze(-1))
        valid = rollout.valid.movedim(0, 2)  # [N, M, T]
        rows = torch.cat(parts, dim=-1).movedim(0, 2)[valid]
        as_bytes = self._bytes.new_empty(len(rows), 0)
        if self._byte_names:
            joined = torch.cat([arrays[name] for name in self._byte_names], dim=-1)
            as_bytes = joined.movedim(0, 2)[valid]
        owner, order = append_axes(rollout.index, 3).expand_as(valid)[valid].sort(stable=True)
        return rows[order], as_bytes[order], owner

    def _add_tasks(self, tasks: Tensor) -> None:
        """Make a ring for each of `tasks` [N] that has none."""
        more = int(tasks.max()) + 1 - self.tasks
        if more > 0:
            self._rows = pad(self._rows, (0, 0, 0, 0, 0, more))
            self._bytes = pad(self._bytes, (0, 0, 0, 0, 0, more))
            self._numbers.add_tasks(more)

    def _grow(self, most: int) -> None:
        """Make room for `most` transitions of a task, or for all that the capacity allows."""
        wanted = min(most, self.capacity)
        size = self._rows.shape[1]
        if size < wanted:
            room = min(max(wanted, 2 * size, _FIRST_SIZE), self.capacity)
            # Nothing has wrapped around yet. Zeros, since unused rows are saved, too.
            self._rows = pad(self._rows, (0, 0, 0, room - size))
            self._bytes = pad(self._bytes, (0, 0, 0, room - size))

    # -- reading

    @property
    def count(self) -> Tensor:
        """[S]: steps that were ever added to every task."""
        return self._numbers.count

    @property
    def tasks(self) -> int:
        """S: the number of tasks."""
        return len(self.count)

    def __len__(self) -> int:
        """Steps that are kept, of all tasks."""
        return int(self.count.clamp(max=self.capacity).sum())

    def sample(
        self,
        tasks: Tensor,
        size: int,
        generator: torch.Generator,
        *,
        future: str | None = None,
    ) -> dict[str, Tensor]:
        """Columns [N, B, …] of B = `size` steps of each of `tasks` [N], uniform with replacement.

        `future` names a column: as "future", also its value at the same step of the sequence or a
        later one, uniformly (Andrychowicz et al. 2017, arXiv:1707.01495, section 4.5).

        Raises:
            MetaRLError: a task without steps.
        """
        tasks, number = self._draw(tasks, size, generator)
        columns, left = self._read(tasks, number)
        if future is not None:
            later = number + below(left + 1, size, generator)
            columns["future"] = self._read(tasks, later)[0][future]
        return columns

    def sequences(
        self, tasks: Tensor, size: int, length: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Columns [L, N, B, …] of L = `length` steps on end, from uniformly drawn ones.

        They end with their sequence: later steps repeat its last one, and "valid" is False.

        Raises:
            MetaRLError: a task without steps.
        """
        tasks, first = self._draw(tasks, size, generator)
        _, left = self._read(tasks, first)
        age = append_axes(torch.arange(length, device=self.device), 3)
        number = first + torch.minimum(age, left)  # [L, N, B]
        columns, _ = self._read(tasks, number)
        return columns | {"valid": age <= left}

    def context(self, tasks: Tensor, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Columns [N, B, …] of B = `size` steps of the newest context of each of `tasks` [N].

        They are drawn uniformly with replacement.

        Raises:
            MetaRLError: a task without context, or whose context was overwritten.
        """
        tasks = tasks.cpu()
        number = self._numbers.of_context(tasks, size, generator)
        return self._read(*self._send(tasks, number))[0]

    def prefixes(
        self,
        tasks: Tensor,
        episodes: int,
        generator: torch.Generator,
        dropout: float = 0.0,
    ) -> dict[str, Tensor]:
        """Columns [N, L, …] of whole first episodes of a context of each of `tasks` [N].

        The context is that of one of the newest V visits, uniformly, among those of which nothing
        was overwritten. Of it come the first k episodes, k uniform from 1 to `episodes`, or to all
        if they are fewer; "valid" [N, L] is False after them. A share of their steps, itself
        uniform from 0 to `dropout`, is not valid either.

        Raises:
            MetaRLError: a task without a whole context.
        """
        tasks = tasks.cpu()
        first, last = self._numbers.of_a_visit(tasks, generator)
        age = torch.arange(int((last - first).max()))
        number = torch.minimum(first.unsqueeze(1) + age, last.unsqueeze(1) - 1)  # [N, L]
        inside = age < (last - first).unsqueeze(1)

        left = self._rows.flatten(0, 1)[self._places(*self._send(tasks, number)), -1].cpu()
        ends = inside & (left == 0)
        episode = ends.cumsum(1) - ends.long()
        most = ends.sum(1, keepdim=True).clamp(max=episodes)
        valid = episode < 1 + below(most, 1, generator)

        length = int(valid.sum(1).max())
        number, valid = number[:, :length], valid[:, :length]
        if dropout:
            uniform = torch.rand(len(tasks), length + 1, generator=generator)
            valid = valid & (uniform[:, :-1] >= dropout * uniform[:, -1:])
        tasks, number, valid = self._send(tasks, number, valid)
        return self._read(tasks, number)[0] | {"valid": valid}

    def _draw(self, tasks: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`tasks` [N], and numbers [N, size] of any of their steps, where the steps are kept."""
        tasks = tasks.cpu()
        tasks, number = self._send(tasks, self._numbers.of_any(tasks, size, generator))
        return tasks, number

    def _send(self, *drawn: Tensor) -> list[Tensor]:
        """What was drawn on the CPU, where the steps are kept."""
        return [send(x, self.device) for x in drawn]

    def _read(self, tasks: Tensor, number: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """[..., N, B, …]: columns of the steps of `tasks` [N] by number, and the steps left."""
        places = self._places(tasks, number)
        *parts, left = self._rows.flatten(0, 1)[places].split(self._widths, -1)
        found = dict(zip(self._names, parts, strict=True))
        if self._byte_names:
            as_bytes = self._bytes.flatten(0, 1)[places].split(self._byte_widths, -1)
            found |= zip(self._byte_names, as_bytes, strict=True)
        columns = {}
        for name, column in self.columns.items():
            value = found[name].squeeze(-1) if column.width is None else found[name]
            columns[name] = value.to(column.dtype)
        return columns, left.squeeze(-1).long()

    def _places(self, tasks: Tensor, number: Tensor) -> Tensor:
        """[..., N, B]: where the steps of `tasks` [N] of these numbers stand in all rings."""
        return tasks.unsqueeze(1) * self._rows.shape[1] + number % self.capacity

    # -- keeping

    def state_dict(self) -> dict[str, Any]:
        """All content: the arrays themselves, not copies."""
        state = {
            "capacity": self.capacity,
            "rows": self._rows,
            "count": self.count,
            "context": self._numbers.context,
        }
        if self._byte_names:
            state["bytes"] = self._bytes
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with a copy of what `state_dict` returned.

        Raises:
            CheckpointError: a replay of another capacity or of other columns, or a damaged one.
        """
        if state["capacity"] != self.capacity:
            raise CheckpointError(
                f"replay: of capacity {state['capacity']}, not {self.capacity}; "
                "set agent.capacity to that"
            )
        as_bytes = state.get("bytes", self._bytes.new_empty(*state["rows"].shape[:2], 0))
        widths = [state["rows"].shape[-1], as_bytes.shape[-1]]
        known = [self._rows.shape[-1], self._bytes.shape[-1]]
        if widths != known:
            raise CheckpointError(
                f"replay: rows of {widths[0]} numbers and {widths[1]} bytes, not {known[0]} and "
                f"{known[1]}; its columns are others"
            )
        if self._byte_names and as_bytes.shape[:2] != state["rows"].shape[:2]:
            raise CheckpointError("replay: its bytes and rows do not belong together")
        self._numbers.load(state["count"], state["context"], state["rows"])
        self._rows = state["rows"].to(self.device, copy=True)
        self._bytes = as_bytes.to(self.device, torch.uint8, copy=True)
