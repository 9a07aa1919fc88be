"""Environments that are stepped side by side, as NumPy arrays. Imports no torch, so that worker processes stay light.

L counts the lanes of all task rows; lane l belongs to row l // M. Every lane has a key, and the seed of its e-th episode
is a hash of (key, e), so that the seed, the task, the lane and the episode determine what an environment draws.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import weakref
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from metarl.adapters.from_gymnasium.spaces import Array, Layout
from metarl.config.registry import one_line
from metarl.core.errors import FamilyError

SUCCESS = ("success", "is_success")
"""Where environments tell of success in their info."""


class Stepped(NamedTuple):
    """What one step gives back to every lane; lanes whose episode ended have started another."""

    obs: Array  # [L, O] float32: what to act on next
    next_obs: Array  # [L, O] float32: the true successor
    reward: Array  # [L] float32
    terminated: Array  # [L] bool
    truncated: Array  # [L] bool, never beside terminated
    success: Array | None  # [L] bool


class Lanes(Protocol):
    """L lanes in this process, in worker processes, or in a vector environment."""

    def reset(self, rows: Array, keys: Array) -> Array:
        """Put L lanes, one for each of `rows` [L, P] float64 and `keys` [L] int64, at the start of episode 0 → obs [L, O]."""

    def restart(self, chosen: Array, episodes: Array) -> None:
        """Put the lanes `chosen` [L] bool at the start of their episode number `episodes` [L]."""

    def step(self, action: Array) -> Stepped:
        """Step every lane with `action` [L] int64 or [L, A] float32 in [−1, 1]."""

    def frame(self, lane: int) -> Array:
        """[height, width, 3] uint8: a picture of what is the case in one lane."""


def seed_of(key: int, episode: int) -> int:
    """31 bits, which every generator takes for a seed."""
    digest = hashlib.blake2b(f"{key}/{episode}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 33


def success_keys(layout: Layout, info: dict[str, Any]) -> list[str]:
    """The entries of `info` that tell of success.

    Raises:
        FamilyError: there is one, and in the very first step there was none.
    """
    names = [name for name in SUCCESS if name in info]
    if names and not layout.tells_success:
        raise FamilyError(
            f"info[{names[0]!r}] is told in some steps and was not in the first; "
            "put it into every info, or give the family a method success(info) -> bool"
        )
    return names


# ---------------------------------------------------------------------------------------------------------------------
# One environment a lane


class Builder(Protocol):
    """What `EnvLanes` needs of a family."""

    apply_after_reset: bool

    @property
    def env_layout(self) -> Layout: ...
    def build(self) -> gymnasium.Env[Any, Any]: ...
    def apply(self, env: gymnasium.Env[Any, Any], row: Array) -> None: ...
    def step_succeeded(self, info: dict[str, Any]) -> bool: ...


class EnvLanes:
    """Plain environments, one a lane, stepped one after the other. They are built when first needed, and kept."""

    def __init__(self, family: Builder) -> None:
        self._family, self._layout = family, family.env_layout
        self._envs: list[gymnasium.Env[Any, Any]] = []
        self._sample_latent = False
        weakref.finalize(self, _close, self._envs)

    def reset(self, rows: Array, keys: Array) -> Array:
        self._envs += [self._family.build() for _ in range(len(keys) - len(self._envs))]
        if len({id(env.unwrapped) for env in self._envs}) < len(self._envs):
            raise FamilyError(
                "build() gave the same environment twice; let it make a new one every time"
            )
        self._rows, self._keys = rows, keys.tolist()
        self._age, self._episode = np.zeros(
            (2, len(keys)), np.int64
        )  # steps and number of the running episode
        return np.concatenate([self._start(lane, 0) for lane in range(len(keys))])

    def restart(self, chosen: Array, episodes: Array) -> None:
        for lane in np.flatnonzero(chosen).tolist():
            self._start(lane, int(episodes[lane]))

    def step(self, action: Array) -> Stepped:
        layout, count = self._layout, len(self._keys)
        next_obs = np.empty((count, sum(part.width for part in layout.parts)), np.float32)
        reward, flags = np.empty(count, np.float32), np.empty((3, count), bool)
        for lane, given in enumerate(layout.actions.each(action)):
            seen, paid, ended, stopped, info = self._envs[lane].step(given)
            next_obs[lane], reward[lane] = layout.flat(seen, 1), paid
            flags[:, lane] = ended, stopped, self._family.step_succeeded(info)
        terminated, truncated, success = flags
        self._age += 1
        truncated = (truncated | (self._age >= layout.horizon)) & ~terminated
        obs, done = next_obs, terminated | truncated
        if done.any():
            obs = next_obs.copy()
            for lane in np.flatnonzero(done).tolist():
                obs[lane] = self._start(lane, int(self._episode[lane]) + 1)
        return Stepped(
            obs, next_obs, reward, terminated, truncated, success if layout.tells_success else None
        )

    def frame(self, lane: int) -> Array:
        if not self._sample_latent:
            self._sample_latent = True
            atexit.register(
                _close, self._envs
            )  # after OpenGL has registered its own end, and so before it
        return np.asarray(_picture(self._envs[lane]), np.uint8)

    def _start(self, lane: int, episode: int) -> Array:
        """[1, O]: the first observation of an episode."""
        env, family = self._envs[lane], self._family
        family.apply(env, self._rows[lane].copy())
        seen, _ = env.reset(seed=seed_of(self._keys[lane], episode))
        if family.apply_after_reset:
            family.apply(env, self._rows[lane].copy())
        self._age[lane], self._episode[lane] = 0, episode
        return self._layout.flat(seen, 1)


def _close(envs: list[gymnasium.Env[Any, Any]]) -> None:
    for env in envs:
        env.close()


def _picture(env: gymnasium.Env[Any, Any] | gymnasium.vector.VectorEnv[Any, Any, Any]) -> Any:
    """What `env` renders; MuJoCo's also without a screen, where Gymnasium would look for one.

    Raises:
        FamilyError: there is nothing to draw with.
    """
    os.environ.setdefault("MUJOCO_GL", "glfw" if os.environ.get("DISPLAY") else "egl")
    try:
        return env.render()
    except Exception as error:  # missing libraries show as errors of many kinds
        raise FamilyError(
            f"{env} cannot be drawn: {one_line(error)}; install what it asks for (for MuJoCo on Debian libegl1 and libgl1)"
        ) from error


# ---------------------------------------------------------------------------------------------------------------------
# One vector environment


class VectorBuilder(Protocol):
    """What `VectorEnvLanes` needs of a family."""

    @property
    def env_layout(self) -> Layout: ...
    def build(self, num_envs: int) -> gymnasium.vector.VectorEnv[Any, Any, Any]: ...
    def apply(self, env: gymnasium.vector.VectorEnv[Any, Any, Any], rows: Array) -> None: ...


class VectorEnvLanes:
    """A vector environment, rebuilt when the number of lanes changes.

    Its lanes are reset one by one, by a mask and each with its own seed, where that is possible: in `SyncVectorEnv` and
    `AsyncVectorEnv`, whatever their autoreset mode. In others the mode rules: DISABLED ones are reset by a mask without
    seeds, SAME_STEP ones reset themselves, and NEXT_STEP ones must end all their episodes together, since the lanes
    that go on cannot be held while one is reset.
    """

    def __init__(self, family: VectorBuilder) -> None:
        self._family, self._layout = family, family.env_layout
        self._env: gymnasium.vector.VectorEnv[Any, Any, Any] | None = None
        self._closing: weakref.finalize[..., Any] | None = None

    def reset(self, rows: Array, keys: Array) -> Array:
        if self._env is None or self._env.num_envs != len(keys):
            if self._closing is not None:
                self._closing()
            self._env = self._family.build(len(keys))
            self._closing = weakref.finalize(self, self._env.close)
            self._mode = autoreset_mode(self._env)
        self._seeded = isinstance(self._env.unwrapped, SyncVectorEnv | AsyncVectorEnv)
        self._masked = self._seeded or self._mode == AutoresetMode.DISABLED
        self._keys = keys.tolist()
        self._age, self._episode = np.zeros((2, len(keys)), np.int64)
        self._family.apply(self._env, rows.copy())
        seeds: Any = self._seeds() if self._seeded else seed_of(self._keys[0], 0)
        seen, _ = self._env.reset(seed=seeds)
        return self._layout.flat(seen, len(keys))

    def restart(self, chosen: Array, episodes: Array) -> None:
        if not self._seeded:
            raise FamilyError(
                f"{self._env} cannot be copied in mid-episode, for one seed is for all its lanes; "
                "SyncVectorEnv and AsyncVectorEnv can"
            )
        self._begin(chosen, episodes)

    def step(self, action: Array) -> Stepped:
        assert self._env is not None
        seen, reward, terminated, truncated, infos = self._env.step(
            self._layout.actions.given(action)
        )
        obs = next_obs = self._layout.flat(seen, len(self._keys))
        ended: Array = np.logical_or(terminated, truncated)  # by the environment itself
        self._age += 1
        done = ended | (self._age >= self._layout.horizon) if self._masked else ended
        terminated = np.array(terminated, bool)
        if self._mode == AutoresetMode.SAME_STEP and ended.any():
            next_obs = obs.copy()
            next_obs[ended] = self._final(infos["final_obs"], ended)
        if done.any():
            obs = self._next_episode(done, obs)
        success = self._success(infos, ended)
        return Stepped(
            obs, next_obs, np.array(reward, np.float32), terminated, done & ~terminated, success
        )

    def frame(self, lane: int) -> Array:
        assert self._env is not None
        frames = _picture(self._env)
        return np.asarray(frames[lane], np.uint8)

    def _next_episode(self, done: Array, obs: Array) -> Array:
        """[L, O]: what to act on next after `obs`, with the lanes `done` at the start of another episode."""
        assert self._env is not None
        if self._masked:
            return self._begin(done, self._episode + done)
        self._age[done] = 0
        self._episode[done] += 1
        if self._mode == AutoresetMode.SAME_STEP:
            return obs
        if not done.all():
            raise FamilyError(
                f"{self._env} resets a lane in the step after its episode (AutoresetMode.NEXT_STEP), in which the others "
                "would have to be stepped blindly; build it with another mode, such as gymnasium.make_vec(…, "
                "vectorization_mode='sync', vector_kwargs={'autoreset_mode': 'Disabled'})"
            )
        seen, *_ = self._env.step(self._layout.actions.given(self._layout.actions.some(len(done))))
        return self._layout.flat(seen, len(done))

    def _begin(self, chosen: Array, episodes: Array) -> Array:
        """[L, O], with the lanes `chosen` at the start of their episode number `episodes`."""
        assert self._env is not None
        self._age[chosen], self._episode[chosen] = 0, episodes[chosen]
        seeds: Any = self._seeds() if self._seeded else None
        seen, _ = self._env.reset(seed=seeds, options={"reset_mask": np.array(chosen)})
        return self._layout.flat(seen, len(self._keys))

    def _seeds(self) -> list[int]:
        return [
            seed_of(key, int(episode))
            for key, episode in zip(self._keys, self._episode, strict=True)
        ]

    def _final(self, final: Any, ended: Array) -> Array:
        """[ended, O] of the observations that SAME_STEP environments put aside: an object a lane, or a batch."""
        if isinstance(final, np.ndarray) and final.dtype == object:
            return np.concatenate([self._layout.flat(one, 1) for one in final[ended]])
        return self._layout.flat(final, len(ended))[ended]

    def _success(self, infos: dict[str, Any], ended: Array) -> Array | None:
        """[L] bool, which SAME_STEP environments put aside where an episode ended."""
        success = np.zeros(len(ended), bool)
        for source, lanes in ((infos, ~ended), (infos.get("final_info", infos), ended)):
            for name in success_keys(self._layout, source):
                success |= np.array(source[name], bool) & lanes
        return success if self._layout.tells_success else None


def autoreset_mode(env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """How `env` starts new episodes.

    Raises:
        FamilyError: it does not say, or its resets leave something behind.
    """
    mode = env.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        raise FamilyError(
            f"{env}: metadata['autoreset_mode'] is {mode}; set it to the gymnasium.vector.AutoresetMode it has"
        )
    inner = env.unwrapped
    if (
        isinstance(inner, AsyncVectorEnv)
        and mode == AutoresetMode.NEXT_STEP
        and not inner.shared_memory
    ):
        raise FamilyError(
            f"{env}: without shared memory its resets do not stop the one that NEXT_STEP makes a step later; "
            "build it with autoreset_mode='Disabled'"
        )
    return mode
