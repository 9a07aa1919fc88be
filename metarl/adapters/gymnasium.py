"""Any Gymnasium environment as a family of tasks.

Imports no torch, so that worker processes stay light.
"""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv

from metarl.adapters.from_gymnasium import calls
from metarl.adapters.from_gymnasium.family import AdaptedFamily
from metarl.adapters.from_gymnasium.lanes import (
    SUCCESS,
    EnvLanes,
    Lanes,
    VectorEnvLanes,
    autoreset_mode,
    is_env,
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
    call_seconds: float = 300.0
    """How long a single call, such as a step or a reset, may take in a worker before that is killed
    and the call is told of as never ending. There is no such limit without workers: a process can
    end another one, but not a call of its own, which may never come back from native code."""
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

    def _check_attributes(self) -> None:
        super()._check_attributes()
        self._require_whole("workers", least=0)
        limit = self.call_seconds
        if not isinstance(limit, int | float) or not 0 < limit < 1e7:
            self._refuse("call_seconds", "a number of seconds from 0 to 1e7")
        if limit != GymnasiumFamily.call_seconds and not self.workers:
            self._refuse("call_seconds", "workers = 1 or more, too: only another process is ended")

    def _look(self, row: Array) -> Layout:
        if self.workers:
            from metarl.adapters.from_gymnasium.workers import look

            return look(self, row)
        with self._calls as note:
            note[0], note[1] = calls.BUILD, 0
            env: Env = is_env(self.build(), gymnasium.Env)
            with closing(env):
                note[0] = 0
                layout = self._layout(env, env.observation_space, env.action_space, row)
                self._apply_and_reset(note, env, layout)
                note[0] = calls.STEP
                (taken,) = layout.actions.per_lane(layout.actions.neutral(1))
                obs, *_, info = calls.stepped(env.step(taken))
                layout.flat(obs, 1, info)
                has_success = self.success is not None or not info.keys().isdisjoint(SUCCESS)
                return replace(layout, has_success=has_success)

    def new_lanes(self) -> Lanes:
        """Lanes in this process, or in `workers`."""
        if not self.workers:
            return EnvLanes(self)
        from metarl.adapters.from_gymnasium.workers import Workers

        _ = self.env_layout  # found now, or every process would build an environment to find it
        return Workers(self, self.workers)

    def _apply_and_reset(self, note: calls.Note, env: Env, layout: Layout) -> None:
        """Apply a task, see whether it survives the reset, and whether the observation fits."""
        before = _plain(env.unwrapped)
        note[0] = calls.APPLY
        self.apply(env, layout.row.copy())
        applied = _plain(env.unwrapped)
        note[0] = calls.RESET
        obs, info = calls.first(env.reset(seed=0))
        lost = dict(applied.items() - before.items() - _plain(env.unwrapped).items())
        if lost and not self.apply_after_reset:
            raise FamilyError(
                f"it overwrites {', '.join(sorted(lost))}, which apply had set; "
                "set apply_after_reset = True, or let apply set what reset reads"
            )
        layout.flat(obs, 1, info)


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

    def _look(self, row: Array) -> Layout:
        with self._calls as note:
            note[0], note[1] = calls.BUILD, 0
            env: ManyEnvs = is_env(self.build(1), VectorEnv)
            with closing(env):
                autoreset_mode(env)
                inner = env.unwrapped
                one = inner.envs[0] if isinstance(inner, SyncVectorEnv) else env
                note[0] = 0
                observation, action = env.single_observation_space, env.single_action_space
                layout = self._layout(one, observation, action, row)
                if any(part.in_info for part in layout.parts):
                    raise FamilyError(
                        f"action_mask: there is no part {self.action_mask!r} of the observation, "
                        "where a vector environment must have it"
                    )
                note[0] = calls.APPLY
                self.apply(env, layout.row[None].copy())
                note[0] = calls.RESET
                first_obs, _ = calls.first(env.reset(seed=0))
                layout.flat(first_obs, 1)
                note[0] = calls.STEP
                taken = layout.actions.to_env(layout.actions.neutral(1))
                obs, *_, info = calls.five(env.step(taken))
                layout.flat(obs, 1)
                reported = info.keys() | info.get("final_info", {}).keys()
                return replace(layout, has_success=not reported.isdisjoint(SUCCESS))

    def new_lanes(self) -> Lanes:
        """Lanes that are those of one vector environment."""
        return VectorEnvLanes(self)
