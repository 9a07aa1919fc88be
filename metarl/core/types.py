"""The arrays that travel, with their shapes.

Letters, the same in every file, always in the order ``[T, N, M, …]``:

=======  ========================================================================
T        environment steps of a rollout
N        task rows, one learner a row
M        lanes: that learner's parallel episodes; they share the row's belief
K, H     rounds of a trial, an episode in every lane each; horizon of an episode
O, A, P  widths of observation, action and task row
=======  ========================================================================

Every array type is frozen and a pytree of its tensors: ``tree_map`` and ``torch.func.vmap``
reach them, and a field that is None stays None.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from dataclasses import replace as replace
from typing import Any, TypeVar, dataclass_transform

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.core.rng import Rng, Streams
from metarl.core.spec import SPLITS as SPLITS
from metarl.core.spec import Spec as Spec
from metarl.core.spec import one_hot as one_hot

C = TypeVar("C")

Structure = tuple[tuple[str, ...], tuple[tuple[str, object], ...]]
"""Of a tree: names of the children, and all other fields."""

Params = dict[str, Tensor]
"""A policy's parameters by name. One copy a task puts the axis N in front of every tensor."""

GoalReward = Callable[[Tensor, Tensor], Tensor]
"""(achieved [..., G], desired [..., G]) → [...]: the reward of an achieved goal, given the desired
one."""


def static(**options: Any) -> Any:
    """A field of a tree that holds no array and is carried along unchanged."""
    return field(metadata={"static": True}, **options)


@dataclass_transform(frozen_default=True, field_specifiers=(field, static))
def tree(cls: type[C]) -> type[C]:
    """Make `cls` a frozen dataclass and a pytree whose children are the fields that hold arrays.

    Fields that are `static` or None belong to the structure.
    """
    frozen: Any = dataclass(frozen=True)(cls)
    fields = dataclasses.fields(frozen)

    def flatten(value: C) -> tuple[list[object], Structure]:
        children = {}
        fixed = {}
        for f in fields:
            part = vars(value)[f.name]
            if part is None or "static" in f.metadata:
                fixed[f.name] = part
            else:
                children[f.name] = part
        return list(children.values()), (tuple(children), tuple(fixed.items()))

    def unflatten(children: Iterable[object], structure: Structure) -> C:
        names, fixed = structure
        return frozen(**dict(zip(names, children, strict=True)), **dict(fixed))

    pytree.register_pytree_node(frozen, flatten, unflatten)
    return frozen


def tree_map(change: Callable[..., Tensor], first: C, *others: C) -> C:
    """The tree of `change(tensor of first, tensor of second, …)`, for trees of equal structure."""
    return pytree.tree_map(change, first, *others)


# -------------------------------------------------------------------------------------------------
# What a family and its environments say


@tree
class Tasks:
    """Some task rows of one split."""

    params: Tensor  # [N, P] float32: what the task is; hidden, unless the agent is shown it
    index: Tensor  # [N] int64: identity of the row within its split
    split: str = static()  # "train", "validation", "test" or "ood"
    copy: Tensor | None = None  # [N] int64: number of the copy, if a row is here more than once

    @staticmethod
    def numbered(params: Tensor, split: str) -> Tasks:
        """The rows `params` [N, P] of `split`, each with its place as its index."""
        return Tasks(params, torch.arange(len(params)), split)

    @staticmethod
    def listed(rows: Tensor, split: str, count: int, rng: Rng) -> Tasks:
        """`count` of `rows` [S, P], which are all that `split` has: see `draw`."""
        return Tasks.numbered(rows, split).draw(count, rng.child(split))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | Tensor) -> Tasks:
        return tree_map(lambda x: x[rows], self)

    def to(self, device: torch.device) -> Tasks:
        return tree_map(lambda x: x.to(device), self)

    def draw(self, count: int, rng: Rng) -> Tasks:
        """`count` of these rows in random order; a row returns, as another copy, after all rows."""
        size = len(self)
        generator = rng.generator()
        copies = -(-count // size)
        orders = [torch.randperm(size, generator=generator) for _ in range(copies)]
        device = self.index.device
        drawn = self[torch.cat(orders)[:count].to(device)]
        return replace(drawn, copy=torch.arange(count, device=device) // size)

    def streams(self, rng: Rng, lanes: int) -> Streams:
        """A random stream of its own for every lane [N, M], which no other row changes."""
        index = self.index
        if self.copy is not None:
            index = index + (self.copy << 32)
        return rng.streams(index, lanes)


@tree
class Step:
    """What one environment step returns to every lane."""

    obs: Tensor  # [N, M, O] to act on next: after an episode, the first observation of the next
    next_obs: Tensor  # [N, M, O] the true successor, also at the end of an episode
    reward: Tensor  # [N, M] float32
    terminated: Tensor  # [N, M] bool: the task ended the episode; nothing follows
    truncated: Tensor  # [N, M] bool: the horizon ended it; something would have followed
    success: Tensor | None = None  # [N, M] bool, if the family defines success
    training_reward: Tensor | None = None  # [N, M] dense reward for the critic, if there is one
    metrics: dict[str, Tensor] = field(default_factory=dict, kw_only=True)
    """[N, M] float32 each: those that `Spec.metrics` names."""

    @property
    def done(self) -> Tensor:
        """[N, M] bool: an episode ended here, for either reason."""
        return self.terminated | self.truncated


@dataclass(frozen=True)
class Scene:
    """An episode seen from above, to be drawn; lengths are the family's own."""

    path: Tensor  # [T, 2] positions of the agent
    limits: tuple[float, float, float, float]  # left, right, bottom, top
    goal: Tensor | None = None  # [G, 2] where it should go
    goal_radius: float = 0.0
    walls: Tensor | None = None  # [W, 4] left, bottom, width, height of each
    others: Tensor | None = None  # [D, 2] places that are easily taken for the goal


# -------------------------------------------------------------------------------------------------
# What an agent says


NONE = -1
"""In the place of the previous option: there was none, or it is unknown."""


@tree
class OptionState:
    """The option that runs at a step, and how it came to it."""

    previous: Tensor  # [...] int64: the option of the step before, or NONE
    ended: Tensor  # [...] bool: that one had to end: it terminated, or an episode begins
    current: Tensor  # [...] int64: the one that runs now

    @property
    def begins(self) -> Tensor:
        """[...] bool: whether an option begins, which may be the one that just ended."""
        return self.ended | (self.current != self.previous)


@tree
class Inputs:
    """All inputs of a policy, each with the same leading axes."""

    obs: Tensor  # [..., O]
    cue: Tensor | None = None  # [..., A + 2] previous action, its reward, whether it ended
    latent: Tensor | None = None  # [..., Z] inferred task variable
    task: Tensor | None = None  # [..., P] the task row, if the agent is shown it
    option: OptionState | None = None  # the running option, if actions are those of options

    def flat(self) -> Tensor:
        """[..., O + A + 2 + …]: all parts that are present except `option`, side by side."""
        parts = (self.obs, self.cue, self.latent, self.task)
        return torch.cat([part for part in parts if part is not None], dim=-1)


@tree
class Belief:
    """What an agent holds about the rows it meets."""

    cue: Tensor  # [N, M, A + 2] how the last step ended; `collect` keeps it, also between two calls
    row: Any = ()  # any tree with leading axis N, changed only by `adapt`
    lane: Any = ()  # any tree with leading axes [N, M], changed only by `act`


@tree
class Acted:
    """One decision for every lane, and what must be remembered of it."""

    inputs: Inputs  # [N, M, …] inputs of the policy
    action: Tensor  # [N, M] or [N, M, D] int64, or [N, M, A] float32, which families clip to ±1
    log_prob: Tensor  # [N, M] of `action`, summed over its entries
    extras: dict[str, Tensor] = field(default_factory=dict)  # [N, M, …] for the agent's update


@dataclass(frozen=True)
class TaskInfo:
    """What an agent may know when it meets new task rows; never a hidden row."""

    rows: int
    episodes: int
    """Episodes to come in every lane, K."""
    device: torch.device
    shown: Tensor | None = None  # [N, P] the task rows, if the agent is shown them


# -------------------------------------------------------------------------------------------------
# Cues


def first_cue(
    spec: Spec,
    rows: int,
    lanes: int,
    device: torch.device,
) -> Tensor:
    """[N, M, A + 2]: no previous action (zeros), reward 0, done 1.

    The authors of RL² start with action index 0; zeros differ from every real action.
    """
    cue = torch.zeros(rows, lanes, spec.cue_width, device=device)
    cue[..., -1] = 1.0
    return cue


def next_cue(spec: Spec, action: Tensor, step: Step) -> Tensor:
    """[N, M, A + 2]: the last action, its reward, and done (Duan et al. 2016, section 2.2).

    done = terminated | truncated: for the policy, a time limit ends an episode as the task does.
    """
    taken = spec.encode_action(action)
    return torch.cat([taken, step.reward.unsqueeze(-1), step.done.unsqueeze(-1)], dim=-1)


# -------------------------------------------------------------------------------------------------
# Trees


def where(condition: Tensor, new: C, old: C) -> C:
    """`torch.where(condition [N, M], new, old)` for trees of leading axes [N, M]."""

    def choose(a: Tensor, b: Tensor) -> Tensor:
        if a is b:
            return a
        return torch.where(append_axes(condition, a.dim()), a, b)

    return tree_map(choose, new, old)


def maybe_any(condition: Tensor) -> bool:
    """Whether it holds anywhere; True on a GPU, which would have to be waited for."""
    return not condition.is_cpu or bool(condition.any())


def append_axes(x: Tensor, dim: int) -> Tensor:
    """[...] → [..., 1, 1, …], as a view of `dim` axes."""
    return x.reshape(*x.shape, *[1] * (dim - x.dim()))
