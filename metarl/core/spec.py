"""The shape of a family, and what follows from it: types of arrays, encodings of actions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from metarl.core.errors import ConfigError, FamilyError

SPLITS = ("train", "validation", "test", "ood")
"""`validation` selects checkpoints and hyper-parameters; `test` and `ood` (out of distribution) are
only ever reported."""

_SCORES = {"total", "last", "first", "success", "return", "regret", "optimum"}
_INFOS = {"is_success", "training_reward", "final_obs", "final_info", "episode"}


@dataclass(frozen=True)
class Spec:
    """The shape of a family: everything an agent must know before it meets a task.

    `observation` maps each part of the flat observation to its width, in order, so that dict
    observations are flat arrays with names. There are three kinds of actions:

    =============  =================================================================================
    Discrete       one of `action_width` choices, int64 []
    MultiDiscrete  D choices at once, one of `nvec[d]` each, int64 [D]; `action_width` is their sum
    Box            `action_width` entries in [−1, 1], which the family rescales, float32 [A]
    =============  =================================================================================
    """

    name: str
    observation: dict[str, int]
    action_width: int
    discrete: bool
    """Whether actions are choices."""
    horizon: int
    """Longest episode, in environment steps."""
    task_width: int
    goal_width: int = 0
    """How many entries at the front of a task row are its goal; 0: it has none."""
    achieved_goal: str | None = None
    """The part of the observation that `goal_reward` compares with the goal, if the family has
    one."""
    splits: tuple[str, ...] = SPLITS
    """The splits that the family has tasks for."""
    closed: bool = False
    """All splits hold the same tasks: a score on test tasks does not measure generalization."""
    metrics: tuple[str, ...] = field(default=(), compare=False)
    """Numbers that every step reports beside the reward; that of an episode is its last one.

    No part of the shape: runs with and without them can be compared."""
    images: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Height, width and channels of the parts that are images, their entries from 0 to 255."""
    obs_dtype: Literal["float32", "uint8"] = "float32"
    """Of observations; uint8 for images, alone or beside one-hots: a quarter of the memory."""
    nvec: tuple[int, ...] = ()
    """Numbers of choices of a MultiDiscrete action; of a MultiBinary one, 2 each."""
    action_mask: str | None = None
    """The part of the observation, as wide as `action_width`, that is 1 where a choice is valid."""

    def __post_init__(self) -> None:
        if isinstance(self.metrics, str):
            raise FamilyError(f"{self.name}: metrics is a text; write ({self.metrics!r},)")
        for name in self.metrics:
            if name in _SCORES | _INFOS:
                place = "scores" if name in _SCORES else "Gymnasium's infos"
                raise FamilyError(
                    f"{self.name}: a metric cannot be called {name!r}, which means something else "
                    f"in {place}; give it another name"
                )
        self._check_images()
        self._check_choices()

    def _check_images(self) -> None:
        for name, shape in self.images.items():
            width = self.observation.get(name)
            if len(shape) != 3 or math.prod(shape) != width:
                raise FamilyError(
                    f"{self.name}: image {name!r} is of shape {shape}, and the observation "
                    f"{self.observation} has {width} numbers of that name; give height, width and "
                    "channels"
                )
        if self.obs_dtype not in ("float32", "uint8"):
            raise FamilyError(f"{self.name}: obs_dtype is {self.obs_dtype!r}; set float32 or uint8")
        if self.obs_dtype == "uint8" and not self.images:
            raise FamilyError(f"{self.name}: obs_dtype uint8 is for images; name some in images")

    def _check_choices(self) -> None:
        if self.nvec and not (self.discrete and sum(self.nvec) == self.action_width):
            raise FamilyError(
                f"{self.name}: nvec {self.nvec} needs discrete=True and "
                f"action_width={sum(self.nvec)}, the number of all choices"
            )
        mask = self.action_mask
        if mask is None:
            return
        if not self.discrete or self.observation.get(mask) != self.action_width:
            raise FamilyError(
                f"{self.name}: action_mask {mask!r} must be a part of the observation "
                f"{self.observation} with one number for each of {self.action_width} choices"
            )

    # -- observations

    @property
    def obs_width(self) -> int:
        return sum(self.observation.values())

    @property
    def obs_type(self) -> torch.dtype:
        """`obs_dtype` as torch has it."""
        return torch.uint8 if self.obs_dtype == "uint8" else torch.float32

    def part(self, name: str) -> slice:
        """Where the part `name` stands in the flat observation."""
        first = 0
        for part, width in self.observation.items():
            if part == name:
                return slice(first, first + width)
            first += width
        raise KeyError(name)

    def without_images(self, obs: Tensor) -> Tensor:
        """[..., W] float32: the parts of obs [..., O] that are no images."""
        kept = [obs[..., self.part(name)] for name in self.observation if name not in self.images]
        return torch.cat([obs[..., :0], *kept], dim=-1).float()

    def achieved(self, obs: Tensor) -> Tensor:
        """[..., G]: the achieved goal, a part of `obs` [..., O]."""
        assert self.achieved_goal is not None
        return obs[..., self.part(self.achieved_goal)]

    # -- actions

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Of one action: (), (D,) or (A,)."""
        if self.discrete:
            return (len(self.nvec),) if self.nvec else ()
        return (self.action_width,)

    @property
    def action_type(self) -> torch.dtype:
        return torch.int64 if self.discrete else torch.float32

    @property
    def single_choice(self) -> bool:
        """Whether an action is one of `action_width` choices."""
        return self.discrete and not self.nvec

    @property
    def action_words(self) -> str:
        """What an action is, for people."""
        if self.nvec:
            return f"{len(self.nvec)} choices at once, of {', '.join(map(str, self.nvec))}"
        return f"{self.action_width} {'choices' if self.discrete else 'numbers in [−1, 1]'}"

    @property
    def observation_words(self) -> str:
        """The parts of an observation with their widths, for people."""
        parts = []
        for name, width in self.observation.items():
            shape = " × ".join(map(str, self.images.get(name, (width,))))
            parts.append(f"{name} [{shape}]")
        return ", ".join(parts)

    @property
    def cue_width(self) -> int:
        return self.action_width + 2

    def encode_action(self, action: Tensor) -> Tensor:
        """[...] or [..., D] int64 as one-hots side by side, or [..., A] as it is → [..., A]."""
        return encode_choices(action, self.action_width, self.nvec) if self.discrete else action

    def valid_choices(self, obs: Tensor) -> Tensor | None:
        """[..., A] bool: which choices obs [..., O] says are valid; None: all, or no choices."""
        if self.action_mask is None:
            return None
        return is_valid(obs[..., self.part(self.action_mask)])

    def random_action(self, uniform: Tensor, obs: Tensor) -> Tensor:
        """An action drawn uniformly from the valid ones, made of `uniform` [..., A] in (0, 1)."""
        if not self.discrete:
            return 2 * uniform - 1
        valid = self.valid_choices(obs)
        if valid is not None:
            uniform = uniform * valid
        parts = uniform.split(self.nvec or (self.action_width,), dim=-1)
        action = torch.stack([part.argmax(-1) for part in parts], dim=-1)
        return action if self.nvec else action.squeeze(-1)

    # -- tasks

    def shown_width(self, task_input: str) -> int:
        """Width of what an agent with this `task_input` is shown of the task.

        `task_width` stands for the width of the one-hot, too.

        Raises:
            ConfigError: the goal is to be shown, and the family has none.
        """
        if task_input == "goal" and not self.goal_width:
            raise ConfigError(
                f"task_input goal: the tasks of {self.name} have no goal; show the row instead"
            )
        return {"none": 0, "goal": self.goal_width}.get(task_input, self.task_width)


def is_valid(mask: Tensor) -> Tensor:
    """[...] bool: where an action mask of zeros and ones says that a choice is valid."""
    return mask > 0.5


def one_hot(action: Tensor, width: int) -> Tensor:
    """[...] int64 → [..., width] float32."""
    zeros = torch.zeros(*action.shape, width, device=action.device)
    return zeros.scatter_(-1, action.unsqueeze(-1), 1.0)


def encode_choices(action: Tensor, width: int, nvec: Sequence[int] = ()) -> Tensor:
    """Choices [...], or [..., D] of `nvec`, as one-hots side by side, [..., width] float32."""
    if not nvec:
        return one_hot(action, width)
    each = zip(action.unbind(-1), nvec, strict=True)
    return torch.cat([one_hot(choice, count) for choice, count in each], dim=-1)
