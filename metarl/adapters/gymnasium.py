"""Any Gymnasium environment as a family of tasks.

Imports no torch, so that worker processes stay light.
"""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import cached_property

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv

from metarl.adapters.from_gymnasium.family import AdaptedFamily
from metarl.adapters.from_gymnasium.lanes import (
    SUCCESS,
    EnvLanes,
    Lanes,
    VectorEnvLanes,
    autoreset_mode,
)
from metarl.adapters.from_gymnasium.spaces import Array, Env, Info, Layout, ManyEnvs
from metarl.core.errors import FamilyError

__all__ = ["Env", "GymnasiumFamily", "GymnasiumVectorFamily", "ManyEnvs"]


# -------------------------------------------------------------------------------------------------
# Plain environments


class GymnasiumFamily(AdaptedFamily):
    """A plain environment and how a task is applied to it::

        class Gravity(GymnasiumFamily):
            \"\"\"Pendulums of unknown gravity.\"\"\"

            def build(self):
                return gymnasium.make("Pendulum-v1", render_mode="rgb_array")

            def row(self, split, rng):
                return [rng.uniform(5, 15)]

            def apply(self, env, row):
                env.unwrapped.g = row[0]

    Every lane has an environment of its own. Every episode starts with `apply` and
    ``reset(seed=…)``, the seed taken from the run's, the task, the lane and the number of the
    episode, so that all randomness must come from the environment's own generator. Horizons are
    kept, whether the environment knows them or not. An environment built with
    ``render_mode="rgb_array"`` lets pictures be taken, and costs nothing until then.
    """

    workers: int = 0
    """Processes that share the environments; 0: this one steps them all."""
    apply_after_reset: bool = False
    """Call `apply` after every reset too, for environments that overwrite the task in reset; the
    first observation is reset's own."""
    success: Callable[[Info], bool] | None = None
    """A method ``success(info)``: whether a step succeeded. Without it ``info["success"]`` or
    ``info["is_success"]`` says so, if the first step has it."""

    @abstractmethod
    def build(self) -> Env:
        """A new environment, without the wrapper Autoreset."""

    @abstractmethod
    def apply(self, env: Env, row: Array) -> None:
        """Give `env` the task `row` [P] float64, before every reset, which must not undo it."""

    @cached_property
    def env_layout(self) -> Layout:
        """What one environment looks like, found by building one and taking a step.

        Raises:
            FamilyError: no such environment is built, or it does not fit, or its reset undoes
                `apply`.
        """
        env = self.build()
        if not isinstance(env, gymnasium.Env):
            raise FamilyError(
                f"{self._name}: build() gives {type(env).__name__}, not a gymnasium.Env"
            )
        with closing(env):
            layout = self._layout(env, env.observation_space, env.action_space)
            self._apply_and_reset(env, layout.row)
            action = layout.actions.neutral(1)
            *_, info = env.step(layout.actions.per_lane(action)[0])
            has_success = self.success is not None or not info.keys().isdisjoint(SUCCESS)
            return replace(layout, has_success=has_success)

    def new_lanes(self) -> Lanes:
        """Lanes in this process, or in `workers`."""
        if not self.workers:
            return EnvLanes(self)
        from metarl.adapters.from_gymnasium.workers import Workers

        return Workers(self, self.workers)

    def _apply_and_reset(self, env: Env, row: Array) -> None:
        """Apply a task and see whether it survives the reset."""
        before = _plain(env.unwrapped)
        self.apply(env, row.copy())
        applied = _plain(env.unwrapped)
        env.reset(seed=0)
        lost = dict(applied.items() - before.items() - _plain(env.unwrapped).items())
        if lost and not self.apply_after_reset:
            raise FamilyError(
                f"{self._name}: reset overwrites {', '.join(sorted(lost))}, which apply had set; "
                "set apply_after_reset = True, or let apply set what reset reads"
            )


def _plain(env: Env) -> dict[str, object]:
    """Attributes that are numbers, text, arrays or lists, in a form that can be compared."""
    plain: dict[str, object] = {}
    for name, value in vars(env).items():
        if isinstance(value, np.ndarray):
            plain[name] = (value.shape, value.tobytes())
        elif isinstance(value, int | float | str | tuple | list | np.generic):
            plain[name] = repr(value)
    return plain


# -------------------------------------------------------------------------------------------------
# Vector environments


class GymnasiumVectorFamily(AdaptedFamily):
    """A vector environment and how tasks are applied to its lanes.

    `SyncVectorEnv` and `AsyncVectorEnv` give the same episodes as a `GymnasiumFamily` of the
    environments in them, whatever their autoreset mode. Other vector environments may have one
    generator for all lanes; then what a row meets depends on the rows beside it, which
    `metarl check` reports, and DISABLED and SAME_STEP are the modes that work. One that resets a
    lane a step late (NEXT_STEP) works only as long as all lanes end their episodes together.
    """

    @abstractmethod
    def build(self, num_envs: int) -> ManyEnvs:
        """A new vector environment."""

    @abstractmethod
    def apply(self, env: ManyEnvs, rows: Array) -> None:
        """Give each lane of `env` its task, `rows` [num_envs, P] float64: once, before resets."""

    @cached_property
    def env_layout(self) -> Layout:
        """What one lane looks like, found by building an environment of one and taking a step.

        Raises:
            FamilyError: no such environment is built, or it does not fit.
        """
        env = self.build(1)
        if not isinstance(env, VectorEnv):
            raise FamilyError(
                f"{self._name}: build() gives {type(env).__name__}, "
                "not a gymnasium.vector.VectorEnv"
            )
        with closing(env):
            autoreset_mode(env)
            inner = env.unwrapped
            one = inner.envs[0] if isinstance(inner, SyncVectorEnv) else env
            layout = self._layout(one, env.single_observation_space, env.single_action_space)
            self.apply(env, layout.row[None].copy())
            env.reset(seed=0)
            action = layout.actions.neutral(1)
            *_, info = env.step(layout.actions.to_env(action))
            reported = info.keys() | info.get("final_info", {}).keys()
            return replace(layout, has_success=not reported.isdisjoint(SUCCESS))

    def new_lanes(self) -> Lanes:
        """Lanes that are those of one vector environment."""
        return VectorEnvLanes(self)
