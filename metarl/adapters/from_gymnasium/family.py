"""What is the same for one environment a lane and for vector environments: spec, tasks, settings.

Imports no torch, so that worker processes stay light.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.wrappers import Autoreset, TimeLimit
from numpy.typing import ArrayLike

from metarl.adapters.from_gymnasium.lanes import Lanes
from metarl.adapters.from_gymnasium.spaces import Actions, Array, Layout, Part, actions, parts
from metarl.config.registry import Settings as BaseSettings
from metarl.core.errors import MetaRLError

if TYPE_CHECKING:
    from metarl.core.family import BatchEnv
    from metarl.core.rng import Rng
    from metarl.core.types import Spec, Tasks


class AdaptedFamily(ABC):
    """A family whose environments are Gymnasium's.

    A subclass offers one of

    * ``row(split, rng: numpy.random.Generator) -> [P]``: one task row, drawn with `rng` alone;
    * ``rows(split) -> [S, P]``: all of them, where a split has only so many; they are drawn without repetition until
      all were there once.

    Its options, if it has any, are fields of a nested class `Settings` (see `metarl.Settings`), found in `self.config`.
    Observations are flattened to float32, each part of a Dict or Tuple under its name, such as ``camera.angle``;
    Discrete and MultiDiscrete parts become one-hots. An image of bytes is flattened as it is, from 0 to 255: resize and
    scale it with Gymnasium's wrappers. Actions may be Discrete, or a Box of floats with bounds, to which [−1, 1] is rescaled.
    """

    horizon: int | None = None
    """Longest episode in steps, where neither `gymnasium.make` nor the wrapper TimeLimit has a smaller limit."""
    hidden: tuple[str, ...] = ()
    """Parts of the observation that agents do not see, such as "desired_goal" where that is the task row."""
    goal_width: int = 0
    """How many entries at the front of a task row are its goal."""
    achieved_goal: str | None = None
    """The part of the observation that is compared with the goal, such as "achieved_goal"."""
    splits: tuple[str, ...] = ("train", "validation", "test")
    """The splits that there are tasks for; add "ood" where `row` draws others for it."""
    closed: bool = False
    """All splits hold the same tasks."""

    Settings: type[BaseSettings] = BaseSettings

    def __init__(self, config: BaseSettings | None = None) -> None:
        self.config: Any = self.Settings() if config is None else config

    @property
    def options(self) -> Any:
        """`config`, by its name up to version 0.5."""
        return self.config

    @cached_property
    @abstractmethod
    def env_layout(self) -> Layout:
        """What one environment looks like, found by building one and taking a step."""

    @abstractmethod
    def lend_lanes(self) -> Lanes:
        """Idle lanes, or new ones."""

    @cached_property
    def idle_lanes(self) -> list[Lanes]:
        """Lanes with environments that were built, and that nobody uses now."""
        return []

    @cached_property
    def spec(self) -> Spec:
        """The shape of the family."""
        from metarl.core.types import Spec

        layout = self.env_layout
        if (
            self.achieved_goal is not None
            and layout.observation.get(self.achieved_goal) != self.goal_width
        ):
            raise MetaRLError(
                f"{self._name}: achieved_goal {self.achieved_goal!r} must be a part of the observation "
                f"{layout.observation} as wide as goal_width, {self.goal_width}"
            )
        return Spec(
            name=self._name,
            observation=layout.observation,
            action_width=layout.actions.width,
            discrete=layout.actions.discrete,
            horizon=layout.horizon,
            task_width=layout.task_width,
            goal_width=self.goal_width,
            achieved_goal=self.achieved_goal,
            splits=self.splits,
            closed=self.closed,
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` task rows."""
        import torch

        from metarl.core.types import Tasks

        within = rng.child(split)
        if hasattr(self, "rows"):
            every = self._table(self.rows(split))
            return Tasks(torch.from_numpy(every), torch.arange(len(every)), split).draw(
                count, within
            )
        drawn = self._table([self._row(split, within.child(i).key) for i in range(count)])
        return Tasks(torch.from_numpy(drawn), torch.arange(count), split)

    def make(self, lanes: int) -> BatchEnv:
        """An environment with `lanes` lanes a row, each with a Gymnasium environment of its own."""
        from metarl.adapters.from_gymnasium.batch_env import LanesEnv

        return LanesEnv(self, lanes)

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value for name, value in vars(self).items() if name not in ("idle_lanes", "spec")
        }

    @property
    def _name(self) -> str:
        """HalfCheetahVel → half-cheetah-vel."""
        return re.sub(
            r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", type(self).__name__
        ).lower()

    def _row(self, split: str, key: int) -> ArrayLike:
        if not hasattr(self, "row"):
            raise MetaRLError(
                f"{self._name}: give it a method row(split, rng), one task row, or rows(split), all of them"
            )
        row: ArrayLike = self.row(split, np.random.default_rng(key & (1 << 64) - 1))
        return np.ravel(row)

    def _table(self, rows: Any) -> Array:
        """[S, P] float32."""
        try:
            table: Array = np.array(rows, np.float32)
        except ValueError as error:
            raise MetaRLError(
                f"{self._name}: task rows must be numbers, as many in each ({error})"
            ) from None
        table = table.reshape(len(table), -1)
        if not np.isfinite(table).all():
            raise MetaRLError(
                f"{self._name}: a task row is not finite: {table[~np.isfinite(table).all(1)][0]}"
            )
        return table

    def _first_row(self) -> Array:
        """[P] float64: some task, to look at the environment with."""
        split = self.splits[0]
        table = self._table(self.rows(split) if hasattr(self, "rows") else [self._row(split, 0)])
        row: Array = table[0].astype(np.float64)
        return row

    def _spaces(self, observation: Any, action: Any) -> tuple[tuple[Part, ...], Actions]:
        try:
            return parts(observation, self.hidden), actions(action)
        except MetaRLError as error:
            raise MetaRLError(f"{self._name}: {error}") from None

    def _shortest(self, env: Any) -> int:
        """Longest episode: the least of all limits on it.

        Raises:
            MetaRLError: there is none, or episodes do not even end when they should.
        """
        limits = [self.horizon, env.spec.max_episode_steps if env.spec else None]
        for wrapper in _wrappers(env):
            if isinstance(wrapper, Autoreset):
                raise MetaRLError(
                    f"{self._name}: leave off the wrapper Autoreset; metarl starts new episodes itself"
                )
            if isinstance(wrapper, TimeLimit):
                limits.append(wrapper._max_episode_steps)
        known = [limit for limit in limits if limit is not None]
        if not known:
            raise MetaRLError(
                f"{self._name}: set horizon, the longest episode in steps; the environment does not tell it"
            )
        return min(known)


def _wrappers(env: Any) -> Iterator[Any]:
    """The environment, and what is inside it."""
    yield env
    while isinstance(env, gymnasium.Wrapper):
        env = env.env
        yield env
