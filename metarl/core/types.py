"""The arrays that travel, with their shapes.

Letters, the same in every file, always in the order ``[T, N, M, …]``:

=======  ========================================================================
T        environment steps of a rollout
N        task rows, one learner a row
M        lanes: that learner's parallel episodes; they share the row's belief
K, H     episodes of a trial; horizon of an episode
O, A, P  widths of observation, action and task row
=======  ========================================================================

Every array type is frozen and a pytree of its tensors: ``tree_map`` and ``torch.func.vmap`` reach them, and a field that
is None stays None.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, dataclass_transform

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng, Streams

__all__ = [
    "NONE",
    "SPLITS",
    "Acted",
    "Belief",
    "GoalReward",
    "Inputs",
    "Params",
    "Running",
    "Scene",
    "Spec",
    "Step",
    "TaskInfo",
    "Tasks",
    "first_cue",
    "next_cue",
    "one_hot",
    "replace",
    "static",
    "tree",
    "tree_map",
    "where",
]

C = TypeVar("C")

SPLITS = ("train", "validation", "test", "ood")
"""`validation` chooses checkpoints and settings; `test` and `ood` (another distribution) are only ever reported."""

Params = dict[str, Tensor]
"""A policy's parameters by name. One copy a task puts the axis N in front of every tensor."""

GoalReward = Callable[[Tensor, Tensor], Tensor]
"""(achieved [..., G], desired [..., G]) → [...]: what having achieved one goal pays where another was desired."""


def static(**options: Any) -> Any:
    """A field of a tree that holds no array and is carried along unchanged."""
    return field(metadata={"static": True}, **options)


@dataclass_transform(frozen_default=True, field_specifiers=(field, static))
def tree(cls: type[C]) -> type[C]:
    """Make `cls` a frozen dataclass and a pytree; None and `static` fields are structure, the others are children."""
    frozen: Any = dataclass(frozen=True)(cls)
    fields = dataclasses.fields(frozen)

    def flatten(
        value: Any,
    ) -> tuple[list[Any], tuple[tuple[str, ...], tuple[tuple[str, Any], ...]]]:
        dynamic = [
            f.name
            for f in fields
            if "static" not in f.metadata and getattr(value, f.name) is not None
        ]
        fixed = tuple((f.name, getattr(value, f.name)) for f in fields if "static" in f.metadata)
        return [getattr(value, name) for name in dynamic], (tuple(dynamic), fixed)

    def unflatten(children: Any, context: Any) -> Any:
        names, fixed = context
        empty = {f.name: None for f in fields}
        return frozen(**empty | dict(fixed) | dict(zip(names, children, strict=True)))

    pytree.register_pytree_node(frozen, flatten, unflatten)
    registered: type[C] = frozen
    return registered


def tree_map(change: Callable[..., Tensor], first: C, *others: C) -> C:
    """The tree of `change(tensor of first, tensor of second, …)`, for trees of equal structure."""
    changed: C = pytree.tree_map(change, first, *others)
    return changed


# ---------------------------------------------------------------------------------------------------------------------
# What an environment says


@dataclass(frozen=True)
class Spec:
    """The shape of a family: everything an agent must know before it sees a task.

    `observation` maps each part of the flat observation to its width, in order, so that dict observations are flat
    arrays with names. A discrete action is one of `action_width` choices; a continuous one has that many entries in
    [−1, 1], which the family rescales.
    """

    name: str
    observation: dict[str, int]
    action_width: int
    discrete: bool
    horizon: int
    """Longest episode, in environment steps."""
    task_width: int
    goal_width: int = 0
    """How many entries at the front of a task row are its goal; 0 where it has none."""
    achieved_goal: str | None = None
    """The part of the observation that is compared with the goal, where the family offers `goal_reward`."""
    splits: tuple[str, ...] = SPLITS
    """The splits that the family has tasks for."""
    closed: bool = False
    """All splits hold the same tasks, so that a score on test tasks says nothing of generalisation."""

    @property
    def obs_width(self) -> int:
        return sum(self.observation.values())

    @property
    def cue_width(self) -> int:
        return self.action_width + 2

    def part(self, name: str) -> slice:
        """Where the part `name` stands in the flat observation."""
        first = 0
        for part, width in self.observation.items():
            if part == name:
                return slice(first, first + width)
            first += width
        raise KeyError(name)

    def shown_width(self, task_input: str) -> int:
        """How wide the task is for an agent with this `task_input`; `task_width` stands for the one-hot's width too.

        Raises:
            MetaRLError: the goal is to be shown, and the family has none.
        """
        if task_input == "goal" and not self.goal_width:
            raise MetaRLError(
                f"task_input goal: the tasks of {self.name} have no goal; show the row instead"
            )
        return {"none": 0, "goal": self.goal_width}.get(task_input, self.task_width)


@tree
class Tasks:
    """Some task rows of one split."""

    params: Tensor  # [N, P] float32: what the task is; agents see it only where it is shown
    index: Tensor  # [N] int64: identity of the row within its split
    split: str = static()  # "train", "validation", "test" or "ood"
    copy: Tensor | None = None  # [N] int64: tells apart rows that stand here more than once

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | Tensor) -> Tasks:
        return tree_map(lambda x: x[rows], self)

    def to(self, device: torch.device) -> Tasks:
        return tree_map(lambda x: x.to(device), self)

    def draw(self, count: int, rng: Rng) -> Tasks:
        """`count` of these rows in random order; each stands there once before any returns, as another copy."""
        size, generator = len(self), rng.generator()
        rounds = [torch.randperm(size, generator=generator) for _ in range(-(-count // size))]
        return replace(self[torch.cat(rounds)[:count]], copy=torch.arange(count) // size)

    def streams(self, rng: Rng, lanes: int) -> Streams:
        """Every lane's own stream of chance [N, M], whatever other rows stand beside it."""
        return rng.streams(
            self.index if self.copy is None else self.index + (self.copy << 32), lanes
        )


@tree
class Step:
    """What one environment step gives back to every lane."""

    obs: Tensor  # [N, M, O] what to act on next; where an episode ended, the first observation of the next one
    next_obs: Tensor  # [N, M, O] the true successor, also at the end of an episode
    reward: Tensor  # [N, M] float32
    terminated: Tensor  # [N, M] bool: the task ended the episode; nothing follows
    truncated: Tensor  # [N, M] bool: the horizon ended it; something would have followed
    success: Tensor | None = None  # [N, M] bool, where the family has a notion of it
    training_reward: Tensor | None = (
        None  # [N, M] a dense reward for the critic, where the family has both
    )

    @property
    def done(self) -> Tensor:
        """[N, M] bool: an episode ended here, for either reason."""
        return self.terminated | self.truncated


@dataclass(frozen=True)
class Scene:
    """An episode seen from above, to be drawn; lengths are the family's own."""

    path: Tensor  # [T, 2] where the agent was
    limits: tuple[float, float, float, float]  # left, right, bottom, top
    goal: Tensor | None = None  # [G, 2] where it should go
    goal_radius: float = 0.0
    walls: Tensor | None = None  # [W, 4] left, bottom, width, height of each
    others: Tensor | None = None  # [D, 2] places that are easily taken for the goal


# ---------------------------------------------------------------------------------------------------------------------
# What an agent says


NONE = -1
"""In the place of the option that ran before, where none did or nobody knows."""


@tree
class OptionState:
    """The option that runs at a step, and how it came to it."""

    previous: Tensor  # [...] int64: the option of the step before, or NONE
    ended: Tensor  # [...] bool: whether that one had to end: it terminated, or an episode begins
    current: Tensor  # [...] int64: the one that runs now

    @property
    def begins(self) -> Tensor:
        """[...] bool: whether an option begins, which may be the one that just ended."""
        return self.ended | (self.current != self.previous)


@tree
class Inputs:
    """All that a policy may see, each part with the same leading axes."""

    obs: Tensor  # [..., O]
    cue: Tensor | None = (
        None  # [..., A + 2] previous action, previous reward, whether an episode just ended
    )
    latent: Tensor | None = None  # [..., Z] inferred task variable
    task: Tensor | None = None  # [..., P] the task row, where the agent is shown it
    option: OptionState | None = None  # what runs, where actions are those of options

    def flat(self) -> Tensor:
        """[..., O + A + 2 + …]: every part that is present, side by side; what runs is no part of them."""
        parts = (self.obs, self.cue, self.latent, self.task)
        return torch.cat([part for part in parts if part is not None], dim=-1)


@tree
class Belief:
    """What an agent holds about the rows it faces."""

    cue: Tensor  # [N, M, A + 2] how the last step ended; kept by `collect`, so that it survives from one call to the next
    row: Any = ()  # any tree with leading axis N, changed only by `adapt`
    lane: Any = ()  # any tree with leading axes [N, M], changed only by `act`


@tree
class Acted:
    """One decision for every lane, and what must be remembered of it."""

    inputs: Inputs  # [N, M, …] what the policy saw
    action: Tensor  # [N, M] int64 if discrete, else [N, M, A] float32 in [−1, 1]
    log_prob: Tensor  # [N, M] of `action`, summed over its entries
    extras: dict[str, Tensor] = field(
        default_factory=dict
    )  # [N, M, …] whatever the agent's update needs besides


@dataclass(frozen=True)
class TaskInfo:
    """What an agent may know when it meets new task rows; never a hidden row."""

    rows: int
    episodes: int
    """Episodes to come in every lane, K."""
    device: torch.device
    shown: Tensor | None = (
        None  # [N, P] the task rows, if the agent's configuration says that they are shown
    )


# ---------------------------------------------------------------------------------------------------------------------
# Cues


def one_hot(action: Tensor, width: int) -> Tensor:
    """[...] int64 → [..., width] float32."""
    return torch.zeros(*action.shape, width, device=action.device).scatter_(
        -1, action.unsqueeze(-1), 1.0
    )


def first_cue(spec: Spec, rows: int, lanes: int, device: torch.device) -> Tensor:
    """[N, M, A + 2]: no previous action (zeros), reward 0, done 1.

    The authors of RL² start with action index 0 instead of "none"; the zero vector differs from every real action.
    """
    cue = torch.zeros(rows, lanes, spec.cue_width, device=device)
    cue[..., -1] = 1.0
    return cue


def next_cue(spec: Spec, action: Tensor, step: Step) -> Tensor:
    """[N, M, A + 2]: the action just taken, its reward, and whether it ended an episode (Duan et al. 2016, section 2.2).

    done = terminated | truncated: a time limit ends an episode for the policy as much as the task does.
    """
    taken = one_hot(action, spec.action_width) if spec.discrete else action
    return torch.cat(
        [taken, step.reward.unsqueeze(-1), step.done.unsqueeze(-1).to(taken.dtype)], dim=-1
    )


# ---------------------------------------------------------------------------------------------------------------------
# Trees


def where(condition: Tensor, new: C, old: C) -> C:
    """`new` where `condition` [N, M] holds, else `old`, for trees of equal structure with leading axes [N, M]."""

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(
            condition.reshape(condition.shape + (1,) * (a.dim() - condition.dim())), a, b
        )

    return tree_map(choose, new, old)
