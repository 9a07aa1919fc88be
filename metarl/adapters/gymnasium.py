"""Any Gymnasium environment as a family of tasks. Imports no torch, so that worker processes stay light."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any

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
    success_keys,
)
from metarl.adapters.from_gymnasium.spaces import Array, Layout
from metarl.core.errors import FamilyError

Env = gymnasium.Env[Any, Any]
ManyEnvs = VectorEnv[Any, Any, Any]


# ---------------------------------------------------------------------------------------------------------------------
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

    Every lane has an environment of its own. Every episode starts with `apply` and ``reset(seed=…)``, the seed taken from
    the run's, the task, the lane and the number of the episode, so that all chance must come from the environment's own
    generator. Horizons are kept, whether the environment knows them or not.

    A subclass may also offer ``success(info) -> bool``, whether a step succeeded; else ``info["success"]`` or
    ``info["is_success"]`` tells, if the first step has it. An environment built with ``render_mode="rgb_array"`` lets
    pictures be taken, and costs nothing until then.
    """

    workers: int = 0
    """Processes that share the environments; 0: this one steps them all."""
    apply_after_reset: bool = False
    """Call `apply` after every reset too, for environments that overwrite the task in reset; the first observation is
    reset's own."""

    @abstractmethod
    def build(self) -> Env:
        """A new environment, without the wrapper Autoreset."""

    @abstractmethod
    def apply(self, env: Env, row: Array) -> None:
        """Give `env` the task `row` [P] float64, before every reset; what holds for steps alone must survive the reset."""

    @cached_property
    def env_layout(self) -> Layout:
        """What one environment looks like, found by building one and taking a step.

        Raises:
            FamilyError: what is built is no such environment, does not fit, or forgets the task in its reset.
        """
        env = self.build()
        if not isinstance(env, gymnasium.Env):
            raise FamilyError(
                f"{self._name}: build() gives {type(env).__name__}, not a gymnasium.Env"
            )
        try:
            horizon = self._shortest(env)
            found, form = self._spaces(env.observation_space, env.action_space)
            row = self._first_row()
            self._apply_and_reset(env, row)
            *_, info = env.step(form.each(form.some(1))[0])
            tells = hasattr(self, "success") or any(name in info for name in SUCCESS)
            return Layout(found, form, horizon, len(row), tells, env.render_mode == "rgb_array")
        finally:
            env.close()

    def lend_lanes(self) -> Lanes:
        """Idle lanes, or new ones."""
        if self.idle_lanes:
            return self.idle_lanes.pop()
        if not self.workers:
            return EnvLanes(self)
        from metarl.adapters.from_gymnasium.workers import Workers

        return Workers(self, self.workers)

    def step_succeeded(self, info: dict[str, Any]) -> bool:
        """Whether the step of this info succeeded; False where the environment never tells."""
        if hasattr(self, "success"):
            return bool(self.success(info))
        return any(bool(info[name]) for name in success_keys(self.env_layout, info))

    def _apply_and_reset(self, env: Env, row: Array) -> None:
        """Apply a task and see whether it survives the reset."""
        before = _plain(env.unwrapped)
        self.apply(env, row.copy())
        applied = _plain(env.unwrapped)
        env.reset(seed=0)
        left = _plain(env.unwrapped)
        lost = [
            n for n, value in applied.items() if before.get(n) != value and left.get(n) != value
        ]
        if lost and not self.apply_after_reset:
            raise FamilyError(
                f"{self._name}: the environment's reset overwrites {', '.join(lost)}, which apply had set; set "
                "apply_after_reset = True, or let apply set what reset reads"
            )


def _plain(env: Env) -> dict[str, Any]:
    """Attributes that are numbers, text, or arrays and lists of them, in a form that can be compared."""
    return {
        name: (value.shape, value.tobytes()) if isinstance(value, np.ndarray) else repr(value)
        for name, value in vars(env).items()
        if isinstance(value, int | float | str | tuple | list | np.generic | np.ndarray)
    }


# ---------------------------------------------------------------------------------------------------------------------
# Vector environments


class GymnasiumVectorFamily(AdaptedFamily):
    """A vector environment and how tasks are applied to its lanes.

    `SyncVectorEnv` and `AsyncVectorEnv` give the same episodes as a `GymnasiumFamily` of the environments in them,
    whatever their autoreset mode. Other vector environments may have one generator for all lanes; then what a row
    meets depends on the rows beside it, which `metarl check` tells, and DISABLED and SAME_STEP are the modes that work. One
    that resets a lane a step late (NEXT_STEP) works only as long as all lanes end their episodes together.
    """

    @abstractmethod
    def build(self, num_envs: int) -> ManyEnvs:
        """A new vector environment."""

    @abstractmethod
    def apply(self, env: ManyEnvs, rows: Array) -> None:
        """Give each lane of `env` its task, `rows` [num_envs, P] float64: once, before the reset that begins everything."""

    @cached_property
    def env_layout(self) -> Layout:
        """What one lane looks like, found by building an environment of one and taking a step.

        Raises:
            FamilyError: what is built is no such environment, or does not fit.
        """
        env = self.build(1)
        if not isinstance(env, VectorEnv):
            raise FamilyError(
                f"{self._name}: build() gives {type(env).__name__}, not a gymnasium.vector.VectorEnv"
            )
        try:
            autoreset_mode(env)
            inner = env.unwrapped
            horizon = self._shortest(inner.envs[0] if isinstance(inner, SyncVectorEnv) else env)
            found, form = self._spaces(env.single_observation_space, env.single_action_space)
            row = self._first_row()
            self.apply(env, row[None].copy())
            env.reset(seed=0)
            *_, info = env.step(form.given(form.some(1)))
            tells = any(name in info or name in info.get("final_info", ()) for name in SUCCESS)
            return Layout(found, form, horizon, len(row), tells, env.render_mode == "rgb_array")
        finally:
            env.close()

    def lend_lanes(self) -> Lanes:
        """Idle lanes, or new ones."""
        return self.idle_lanes.pop() if self.idle_lanes else VectorEnvLanes(self)
