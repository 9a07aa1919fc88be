"""What is the same for one environment a lane and for vector environments: spec, tasks, settings.

Imports no torch, so that worker processes stay light.
"""

from __future__ import annotations

import re
import weakref
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

import gymnasium
import numpy as np
from gymnasium.wrappers import Autoreset, TimeLimit
from numpy.typing import ArrayLike

from metarl.adapters.from_gymnasium.calls import CallError, Calls
from metarl.adapters.from_gymnasium.lanes import Lanes
from metarl.adapters.from_gymnasium.spaces import (
    Actions,
    Array,
    Env,
    Layout,
    ManyEnvs,
    Space,
    mask_part,
    parts,
)
from metarl.config.registry import Settings as BaseSettings
from metarl.core.arrays import numbers, short
from metarl.core.errors import FamilyError, calling

if TYPE_CHECKING:
    from metarl.core.family import BatchEnv
    from metarl.core.rng import Rng
    from metarl.core.types import Spec, Tasks


class AdaptedFamily(ABC):
    """A family whose environments are Gymnasium's.

    A subclass offers `row`, one task row, or `rows`, all of them. Its hyper-parameters, if it has
    any, are fields of a nested class `Settings` (see `metarl.Settings`), found in `self.config`.

    Observations are flattened, each part of a Dict or Tuple under its name, such as
    ``camera.angle``; Discrete and MultiDiscrete parts become one-hots. Boxes of bytes from 0 to 255
    with two or three axes are images: they stay bytes, if no real numbers stand beside them, and
    agents read them by convolutions. Actions may be Discrete, MultiDiscrete, MultiBinary, or a Box
    of floats with bounds, to which [−1, 1] is rescaled.
    """

    horizon: int | None = None
    """Longest episode in steps, where neither `gymnasium.make` nor the wrapper TimeLimit has a
    smaller limit."""
    hidden: tuple[str, ...] = ()
    """Parts of the observation that agents do not see, such as "desired_goal" where that is the
    task row."""
    action_mask: str | None = None
    """The part of the observation or the entry of info, such as "action_mask", that is 1 or True
    for each choice that is valid."""
    goal_width: int = 0
    """How many entries at the front of a task row are its goal."""
    achieved_goal: str | None = None
    """The part of the observation that is compared with the goal, such as "achieved_goal"."""
    splits: tuple[str, ...] = ("train", "validation", "test")
    """The splits that there are tasks for; add "ood" where `row` draws others for it."""
    closed: bool = False
    """All splits hold the same tasks."""
    metrics: tuple[str, ...] = ()
    """Entries of info that are metrics: finite numbers, there after every step."""

    Settings: type[BaseSettings] = BaseSettings

    def __init__(self, config: BaseSettings | None = None):
        self.config: Any = config or self.Settings()

    @property
    def options(self) -> Any:
        """`config`, by its name up to version 0.5."""
        return self.config

    @options.setter
    def options(self, config: object) -> None:
        self.config = config

    def row(self, split: str, rng: np.random.Generator) -> ArrayLike:
        """One task row [P], drawn with `rng` alone."""
        raise FamilyError(
            f"{self._name}: give it a method row(split, rng), one task row, "
            "or rows(split), all of them"
        )

    def rows(self, split: str) -> ArrayLike | None:
        """All task rows [S, P], where a split has only so many; None: `row` draws them.

        They are drawn without repetition until all were drawn once.
        """
        return None

    @cached_property
    def env_layout(self) -> Layout:
        """What one environment looks like, found by building one and taking a step.

        Raises:
            FamilyError: an attribute is of a wrong type, no such environment is built, or it does
                not fit.
        """
        self._check_attributes()
        split = self.splits[0]
        table = self._every(split)
        if table is None:
            table = self._table([self._draw(split, 0)])
        row = table[0].astype(np.float64)
        try:
            return self._look(row)
        except CallError as error:
            place = "" if error.call == "build" else f" of the task {row.round(6).tolist()}"
            raise error.told(self._name, place) from error.__cause__

    @cached_property
    def _calls(self) -> Calls:
        """Which of the methods above is called now."""
        return Calls()

    @abstractmethod
    def _look(self, row: Array) -> Layout:
        """Build an environment, apply the task `row` [P], reset it and take a step."""

    @abstractmethod
    def new_lanes(self) -> Lanes:
        """Lanes without environments, which they build when they are reset."""

    @cached_property
    def idle_lanes(self) -> list[Lanes]:
        """Lanes with environments that were built, and that nobody uses now."""
        return []

    def lend_lanes(self, borrower: object) -> Lanes:
        """Idle lanes, or new ones, which are idle when `borrower` is gone."""
        lanes = self.idle_lanes.pop() if self.idle_lanes else self.new_lanes()
        weakref.finalize(borrower, self.idle_lanes.append, lanes).atexit = False
        return lanes

    @cached_property
    def spec(self) -> Spec:
        """The shape of the family."""
        from metarl.core.types import Spec

        layout = self.env_layout
        goal = self.achieved_goal
        if goal is not None and layout.observation.get(goal) != self.goal_width:
            raise FamilyError(
                f"{self._name}: achieved_goal {goal!r} must be a part of the observation "
                f"{layout.observation} as wide as goal_width, {self.goal_width}"
            )
        return Spec(
            name=self._name,
            observation=layout.observation,
            action_width=layout.actions.width,
            discrete=layout.actions.discrete,
            nvec=layout.actions.nvec,
            images=layout.images,
            obs_dtype="uint8" if layout.dtype is np.uint8 else "float32",
            action_mask=self.action_mask,
            horizon=layout.horizon,
            task_width=len(layout.row),
            goal_width=self.goal_width,
            achieved_goal=goal,
            splits=tuple(self.splits),
            closed=self.closed,
            metrics=layout.metrics,
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` task rows."""
        import torch

        from metarl.core.types import Tasks

        every = self._every(split)
        if every is not None:
            return Tasks.listed(torch.from_numpy(every), split, count, rng)
        drawn = [self._draw(split, rng.child(split, i).key) for i in range(count)]
        return Tasks.numbered(torch.from_numpy(self._table(drawn)), split)

    def make(self, lanes: int) -> BatchEnv:
        """An environment with `lanes` lanes a row."""
        from metarl.adapters.from_gymnasium.batch_env import LanesEnv

        return LanesEnv(self, lanes)

    def __getstate__(self) -> dict[str, Any]:
        kept = vars(self).copy()
        kept.pop("idle_lanes", None)
        kept.pop("spec", None)
        kept.pop("_calls", None)
        return kept

    @property
    def _name(self) -> str:
        """HalfCheetahVel → half-cheetah-vel."""
        words = r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
        return re.sub(words, "-", type(self).__name__).lower()

    def _check_attributes(self) -> None:
        """Raises a FamilyError for the first attribute of a wrong type."""
        for name in ("hidden", "splits", "metrics"):
            value = getattr(self, name)
            listed = isinstance(value, tuple | list)
            if not listed or not all(isinstance(one, str) for one in value):
                self._refuse(name, f"a tuple of texts, such as ({'name'!r},)")
        if not self.splits:
            self._refuse("splits", "at least one")
        if self.horizon is not None:
            self._require_whole("horizon", least=1)
        self._require_whole("goal_width", least=0)
        if not isinstance(self.closed, bool):
            self._refuse("closed", "True or False")
        for name in ("achieved_goal", "action_mask"):
            if not isinstance(getattr(self, name), str | None):
                self._refuse(name, "the name of a part of the observation")

    def _require_whole(self, name: str, least: int) -> None:
        """Raises a FamilyError unless the attribute is a whole number."""
        value = getattr(self, name)
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < least:
            self._refuse(name, f"a whole number of at least {least}")

    def _refuse(self, name: str, wanted: str) -> NoReturn:
        raise FamilyError(f"{self._name}: {name} is {short(getattr(self, name))}; set {wanted}")

    def _draw(self, split: str, key: int) -> Array:
        """[P]: the task row that `key` determines."""
        what = f"{self._name}: row({split!r}, rng)"
        with calling(what):
            row = self.row(split, np.random.default_rng(key & (1 << 64) - 1))
        return numbers(row, what, FamilyError).ravel()

    def _every(self, split: str) -> Array | None:
        """[S, P] float32: all task rows of a split, if there are only so many."""
        with calling(f"{self._name}: rows({split!r})"):
            every = self.rows(split)
        return None if every is None else self._table(every)

    def _table(self, rows: ArrayLike) -> Array:
        """[S, P] float32."""
        given = numbers(rows, f"{self._name}: the table of task rows", FamilyError)
        if not given.size or not given.ndim:
            raise FamilyError(f"{self._name}: there are no numbers in the task rows {short(rows)}")
        with np.errstate(over="ignore"):  # the infinity is told
            table = given.reshape(len(given), -1).astype(np.float32)
        finite = np.isfinite(table).all(axis=1)
        if not finite.all():
            row = short(table[~finite][0].tolist())
            raise FamilyError(f"{self._name}: a task row is not finite: {row}")
        return table

    def _layout(
        self,
        env: Env | ManyEnvs,
        observation: Space,
        action: Space,
        row: Array,
    ) -> Layout:
        """What is known of `env` before it is stepped.

        Raises:
            FamilyError: a space or the limit of an episode does not fit.
        """
        actions = Actions(action)
        shown = parts(observation, self.hidden)
        mask = self.action_mask
        if mask is not None and mask not in (part.name for part in shown):
            shown = (*shown, mask_part(mask, actions.width))
        return Layout(
            self._name,
            shown,
            actions,
            self._shortest(env),
            row,
            renders=env.render_mode == "rgb_array",
            metrics=tuple(self.metrics),
        )

    def _shortest(self, env: Env | ManyEnvs) -> int:
        """The horizon: the smallest limit on an episode.

        Raises:
            FamilyError: there is no limit, or the wrapper Autoreset is around the environment.
        """
        limits = [self.horizon]
        if env.spec:
            limits.append(env.spec.max_episode_steps)
        while isinstance(env, gymnasium.Wrapper):
            if isinstance(env, Autoreset):
                raise FamilyError(
                    "leave off the wrapper Autoreset; metarl starts new episodes itself"
                )
            if isinstance(env, TimeLimit):
                limits.append(env._max_episode_steps)
            env = env.env
        known = [limit for limit in limits if limit is not None]
        if not known:
            raise FamilyError("set horizon, the longest episode in steps; the environment has none")
        if min(known) < 1:
            raise FamilyError(f"episodes are limited to {min(known)} steps; allow at least one")
        return int(min(known))
