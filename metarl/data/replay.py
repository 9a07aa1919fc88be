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

    Which steps there are is known on the CPU, and drawn there by a generator of the CPU: the same
    on every device, and without waiting for it.
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
        self.count = torch.zeros(0, dtype=torch.long)
        """[S]: steps that were ever added to every task."""
        self._context = torch.zeros(0, visits, 2, dtype=torch.long)
        """[S, V, 2]: number of the first step of each context, the newest one in front, and of the
        one after the last; equal where there is none."""

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
        if context and (self._context[:, 0, 1] != self.count)[added > 0].any():
            raise MetaRLError(
                "replay: context is one stretch; begin another one with begin_context"
            )
        self._grow(int((self.count + added).max()))

        of_tasks = [added.cumsum(0) - added, added - self.capacity, self.count]
        first, skipped, count = torch.stack(of_tasks).to(self.device)[:, owner]
        rank = torch.arange(len(rows), device=self.device) - first  # within its task
        kept = rank >= skipped
        slot = (count + rank) % self.capacity
        self._rows[owner[kept], slot[kept]] = rows[kept]
        if self._byte_names:
            self._bytes[owner[kept], slot[kept]] = as_bytes[kept]
        self.count += added
        if context:
            self._context[:, 0, 1] = torch.where(added > 0, self.count, self._context[:, 0, 1])

    def begin_context(self, tasks: Tensor) -> None:
        """Begin an empty context of these tasks [N]; their transitions stay for the critics."""
        tasks = tasks.cpu()
        self._add_tasks(tasks)
        self._context[tasks, 1:] = self._context[tasks, :-1]
        self._context[tasks, 0] = self.count[tasks].unsqueeze(1)

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
            self.count = pad(self.count, (0, more))
            self._context = pad(self._context, (0, 0, 0, 0, 0, more))

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
            later = number + self._below(left + 1, size, generator)
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
        first, last = self._context[tasks, 0].unbind(1)
        number = self._numbers(tasks, first, last, size, generator)
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
        first, last = self._draw_visits(tasks, generator).unbind(1)
        age = torch.arange(int((last - first).max()))
        number = torch.minimum(first.unsqueeze(1) + age, last.unsqueeze(1) - 1)  # [N, L]
        inside = age < (last - first).unsqueeze(1)

        left = self._rows.flatten(0, 1)[self._places(*self._send(tasks, number)), -1].cpu()
        ends = inside & (left == 0)
        episode = ends.cumsum(1) - ends.long()
        most = ends.sum(1, keepdim=True).clamp(max=episodes)
        valid = episode < 1 + self._below(most, 1, generator)

        length = int(valid.sum(1).max())
        number, valid = number[:, :length], valid[:, :length]
        if dropout:
            uniform = torch.rand(len(tasks), length + 1, generator=generator)
            valid = valid & (uniform[:, :-1] >= dropout * uniform[:, -1:])
        tasks, number, valid = self._send(tasks, number, valid)
        return self._read(tasks, number)[0] | {"valid": valid}

    def _draw_visits(self, tasks: Tensor, generator: torch.Generator) -> Tensor:
        """[N, 2]: a whole context of each of `tasks`, uniformly."""
        contexts = self._context[tasks]
        first, last = contexts.unbind(2)  # [N, V]
        whole = (first < last) & (first >= (self.count[tasks] - self.capacity).unsqueeze(1))
        count = whole.sum(1, keepdim=True)
        if not count.all():
            raise MetaRLError(
                f"replay: task {int(tasks[count.squeeze(1) == 0][0])} has no context of which "
                "nothing was overwritten; collect it first, or enlarge agent.capacity"
            )
        chosen = self._below(count, 1, generator)
        place = (whole & (whole.cumsum(1) == chosen + 1)).long().argmax(1)
        return contexts[torch.arange(len(tasks)), place]

    def _draw(self, tasks: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`tasks` [N], and numbers [N, size] of any of their steps, where the steps are kept."""
        tasks = tasks.cpu()
        last = self.count[tasks]
        number = self._numbers(tasks, torch.zeros_like(last), last, size, generator)
        tasks, number = self._send(tasks, number)
        return tasks, number

    def _numbers(
        self,
        tasks: Tensor,
        first: Tensor,
        last: Tensor,
        size: int,
        generator: torch.Generator,
    ) -> Tensor:
        """[N, size] numbers of steps from `first` [N] to before `last` [N]."""
        first = torch.maximum(first, self.count[tasks] - self.capacity)  # the oldest that is left
        empty = last <= first
        if empty.any():
            raise MetaRLError(
                f"replay: task {int(tasks[empty][0])} has nothing to draw from; collect it first, "
                "or enlarge agent.capacity"
            )
        return first.unsqueeze(1) + self._below((last - first).unsqueeze(1), size, generator)

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

    def _below(self, bound: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """[N, B] int64: uniform from 0 to before `bound` [N, 1] or [N, B]."""
        uniform = torch.rand(len(bound), size, generator=generator, dtype=torch.float64)
        return (send(uniform, bound.device) * bound).long()

    # -- keeping

    def state_dict(self) -> dict[str, Any]:
        """All content: the arrays themselves, not copies."""
        state = {
            "capacity": self.capacity,
            "rows": self._rows,
            "count": self.count,
            "context": self._context,
        }
        if self._byte_names:
            state["bytes"] = self._bytes
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with a copy of what `state_dict` returned.

        Raises:
            CheckpointError: a replay of another capacity or of other columns.
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
        context = state["context"]
        if context.dim() == 2:
            context = context.unsqueeze(1)  # before version 0.12 that of one visit was known
        device = state["rows"].device
        self._check_numbers(state["rows"], state["count"].to(device), context.to(device))
        self._rows = state["rows"].to(self.device, copy=True)
        self._bytes = as_bytes.to(self.device, torch.uint8, copy=True)
        self.count = state["count"].to("cpu", copy=True)
        missing = self._context.shape[1] - context.shape[1]
        self._context = pad(context.cpu(), (0, 0, 0, missing)).clone()

    def _check_numbers(self, rows: Tensor, count: Tensor, context: Tensor) -> None:
        """Raises a CheckpointError for steps or numbers of steps that no replay has."""
        tasks, size = rows.shape[:2]
        whole = (rows.dtype, count.dtype, context.dtype) == (torch.float32, *[torch.long] * 2)
        whole &= count.shape == (tasks,) and context.dim() == 3
        whole &= (len(context), context.shape[-1]) == (tasks, 2)
        whole &= {rows.layout, count.layout, context.layout} == {torch.strided}
        if whole:
            last = count.unsqueeze(1)
            slot = torch.arange(size, device=count.device)
            number = last - 1 - (last - 1 - slot) % self.capacity  # of the step that is kept there
            left = rows[..., -1]
            first, end = context.unbind(2)  # [S, V]
            whole = bool(
                rows.isfinite().all()
                & (count.clamp(max=self.capacity) <= size).all()
                & ((left >= 0) & (number + left < last) | (number < 0)).all()
                & ((first >= 0) & (first <= end) & (end <= last)).all()
                & (end[:, 1:] <= first[:, :-1]).all()
            )
        if not whole:
            raise CheckpointError("replay: its steps and their numbers do not belong together")
