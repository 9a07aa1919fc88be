"""Which steps a replay holds: their numbers, drawn on the CPU."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from metarl.core.errors import CheckpointError, MetaRLError
from metarl.core.rng import send


class StepNumbers:
    """Steps of S tasks, numbered from 0 for each, of which the newest `capacity` are there.

    They are known on the CPU, and drawn by a generator of the CPU: the same on every device, and
    without waiting for it.
    """

    def __init__(self, capacity: int, visits: int):
        """None; the contexts of the newest `visits` of a task will be known."""
        self.capacity = capacity
        self.count = torch.zeros(0, dtype=torch.long)
        """[S]: steps that were ever added to every task."""
        self.context = torch.zeros(0, visits, 2, dtype=torch.long)
        """[S, V, 2]: number of the first step of each context, the newest one in front, and of the
        one after the last; equal where there is none."""

    # -- writing

    def add_tasks(self, more: int) -> None:
        """So many, without steps."""
        self.count = pad(self.count, (0, more))
        self.context = pad(self.context, (0, 0, 0, 0, 0, more))

    def require_one_stretch(self, added: Tensor) -> None:
        """Raises a MetaRLError where `added` [S] steps would not follow the newest context."""
        if (self.context[:, 0, 1] != self.count)[added > 0].any():
            raise MetaRLError(
                "replay: context is one stretch; begin another one with begin_context"
            )

    def add(self, added: Tensor, *, context: bool) -> None:
        """`added` [S] steps more of each task; with `context`, as more context."""
        self.count += added
        if context:
            self.context[:, 0, 1] = torch.where(added > 0, self.count, self.context[:, 0, 1])

    def begin_context(self, tasks: Tensor) -> None:
        """Begin an empty context of these tasks [N]."""
        self.context[tasks, 1:] = self.context[tasks, :-1]
        self.context[tasks, 0] = self.count[tasks].unsqueeze(1)

    # -- drawing

    def of_any(self, tasks: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """[N, size] of any steps of `tasks` [N].

        Raises:
            MetaRLError: a task without steps.
        """
        last = self.count[tasks]
        return self._between(tasks, torch.zeros_like(last), last, size, generator)

    def of_context(self, tasks: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """[N, size] of steps of the newest context of `tasks` [N].

        Raises:
            MetaRLError: a task without context, or whose context was overwritten.
        """
        first, last = self.context[tasks, 0].unbind(1)
        return self._between(tasks, first, last, size, generator)

    def of_a_visit(self, tasks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """[N] each: first step of a whole context of each of `tasks`, and the one after its last.

        Raises:
            MetaRLError: a task without one.
        """
        contexts = self.context[tasks]
        first, last = contexts.unbind(2)  # [N, V]
        whole = (first < last) & (first >= (self.count[tasks] - self.capacity).unsqueeze(1))
        count = whole.sum(1, keepdim=True)
        if not count.all():
            raise MetaRLError(
                f"replay: task {int(tasks[count.squeeze(1) == 0][0])} has no context of which "
                "nothing was overwritten; collect it first, or enlarge agent.capacity"
            )
        chosen = below(count, 1, generator)
        place = (whole & (whole.cumsum(1) == chosen + 1)).long().argmax(1)
        rows = torch.arange(len(tasks))
        return first[rows, place], last[rows, place]

    def _between(
        self,
        tasks: Tensor,
        first: Tensor,
        last: Tensor,
        size: int,
        generator: torch.Generator,
    ) -> Tensor:
        """[N, size]: from `first` [N] to before `last` [N]."""
        first = torch.maximum(first, self.count[tasks] - self.capacity)  # the oldest that is left
        empty = last <= first
        if empty.any():
            raise MetaRLError(
                f"replay: task {int(tasks[empty][0])} has nothing to draw from; collect it first, "
                "or enlarge agent.capacity"
            )
        return first.unsqueeze(1) + below((last - first).unsqueeze(1), size, generator)

    # -- keeping

    def load(self, count: Tensor, context: Tensor, rows: Tensor) -> None:
        """Take over copies of numbers that belong to `rows` [S, size, W] of steps.

        Raises:
            CheckpointError: no replay has such steps with such numbers.
        """
        if context.dim() == 2:
            context = context.unsqueeze(1)  # before version 0.12 that of one visit was known
        self._check(rows, count.to(rows.device), context.to(rows.device))
        self.count = count.to("cpu", copy=True)
        missing = self.context.shape[1] - context.shape[1]
        self.context = pad(context.cpu(), (0, 0, 0, missing)).clone()

    def _check(self, rows: Tensor, count: Tensor, context: Tensor) -> None:
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


def below(bound: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """[N, B] int64 with B = `size`: uniform from 0 to before `bound` [N, 1] or [N, B]."""
    uniform = torch.rand(len(bound), size, generator=generator, dtype=torch.float64)
    return (send(uniform, bound.device) * bound).long()
