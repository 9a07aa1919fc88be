"""Environments that are stepped side by side, as NumPy arrays.

L counts the lanes of all task rows; lane l belongs to row l // M. Every lane has a key, and the
seed of its e-th episode is a hash of (key, e), so that the seed, the task, the lane and the episode
determine what an environment draws. Imports no torch, so that worker processes stay light.
"""

from __future__ import annotations

import atexit
import hashlib
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from metarl.adapters.from_gymnasium import calls
from metarl.adapters.from_gymnasium.calls import Calls
from metarl.adapters.from_gymnasium.spaces import (
    Array,
    Env,
    Info,
    LaneError,
    Layout,
    ManyEnvs,
)
from metarl.adapters.offscreen import offscreen
from metarl.core.arrays import flag, short, single
from metarl.core.errors import FamilyError, MetaRLError, one_line

SUCCESS = ("success", "is_success")
"""Where environments report success in their info."""


class Stepped(NamedTuple):
    """What one step gives back to every lane; lanes whose episode ended have started another.

    The fields are those of `Step`, in its order, without training_reward.
    """

    obs: Array  # [L, O] float32 or uint8: what to act on next
    next_obs: Array  # [L, O] of the same type: the true successor
    reward: Array  # [L] float32
    terminated: Array  # [L] bool
    truncated: Array  # [L] bool, never beside terminated
    success: Array  # [L] bool; all False where the environment never reports any
    metrics: Array  # [L, metrics] float32


class Lanes(Protocol):
    """L lanes in this process, in worker processes, or in a vector environment."""

    def reset(self, rows: Array, keys: Array) -> Array:
        """Start episode 0 in L lanes, with `rows` [L, P] float64 and `keys` [L] → obs [L, O]."""

    def restart(self, chosen: Array, episodes: Array) -> None:
        """Start episode number `episodes` [L] in the lanes `chosen` [L] bool."""

    def step(self, action: Array) -> Stepped:
        """Step every lane with `action` [L] or [L, D] int64, or [L, A] float32 in [−1, 1]."""

    def frame(self, lane: int) -> Array:
        """[height, width, 3] uint8: a picture of the present state of one lane."""


def seed_of(key: int, episode: int) -> int:
    """31 bits, which every generator takes for a seed."""
    digest = hashlib.blake2b(f"{key}/{episode}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 33


def success_keys(layout: Layout, info: Info) -> list[str]:
    """The entries of `info` that report success.

    Raises:
        FamilyError: there is one, and in the very first step there was none.
    """
    names = [name for name in SUCCESS if name in info]
    if names and not layout.has_success:
        raise FamilyError(
            f"info[{names[0]!r}] is reported in some steps and was not in the first; "
            "put it into every info (a GymnasiumFamily may have success(info) -> bool instead)"
        )
    return names


def metric_values(layout: Layout, infos: Iterable[Info], lanes: int) -> Array:
    """[L, metrics] float32 of the info of each lane.

    Raises:
        LaneError: one is missing, or no finite number.
    """
    values = np.empty((lanes, len(layout.metrics)), np.float32)
    if not layout.metrics:
        return values
    for lane, info in enumerate(infos):
        for place, name in enumerate(layout.metrics):
            try:
                values[lane, place] = single(info[name], "it")
            except (KeyError, MetaRLError):
                found = short(info[name]) if name in info else "missing"
                raise LaneError(
                    f"info[{name!r}] is {found}; it must be a finite number in every step", lane
                ) from None
    return values


def picture(given: Any) -> Array:
    """[height, width, 3] uint8, what render gives.

    Raises:
        FamilyError: it gives something else.
    """
    array = np.asarray(given)
    if array.dtype.kind not in "iu" or array.ndim != 3 or array.shape[2] != 3:
        raise FamilyError(
            f"it gives {short(given)}; rgb_array means uint8 of shape [height, width, 3]"
        )
    return array.astype(np.uint8)


# -------------------------------------------------------------------------------------------------
# One environment a lane


class Builder(Protocol):
    """What `EnvLanes` needs of a family."""

    apply_after_reset: bool
    success: Callable[[Info], bool] | None

    @property
    def env_layout(self) -> Layout: ...
    @property
    def _calls(self) -> Calls: ...
    def build(self) -> Env: ...
    def apply(self, env: Env, row: Array) -> None: ...


class EnvLanes:
    """Plain environments, one a lane, stepped one by one. Built when first needed, and kept."""

    def __init__(self, family: Builder):
        self._family = family
        self._layout = family.env_layout
        self._envs: list[Env] = []
        self._draws = False
        weakref.finalize(self, _close, self._envs)

    def reset(self, rows: Array, keys: Array) -> Array:
        with self._family._calls as note:
            note[0] = calls.BUILD
            for lane in range(len(self._envs), len(keys)):
                note[1] = lane
                self._envs.append(is_env(self._family.build(), gymnasium.Env))
            if len({id(env.unwrapped) for env in self._envs}) < len(self._envs):
                raise FamilyError(
                    "it gave the same environment twice; let it make a new one every time"
                )
            self._rows = rows
            self._keys = keys.tolist()
            self._age, self._episode = np.zeros((2, len(keys)), np.int64)  # of running episodes
            return np.concatenate([self._start(note, lane, 0) for lane in range(len(keys))])

    def restart(self, chosen: Array, episodes: Array) -> None:
        with self._family._calls as note:
            for lane in np.flatnonzero(chosen).tolist():
                self._start(note, lane, episodes[lane])

    def step(self, action: Array) -> Stepped:
        layout = self._layout
        envs = self._envs
        lanes = len(self._keys)
        observations = []
        infos = []
        reward = np.empty(lanes, np.float32)
        terminated, truncated, success = np.empty((3, lanes), bool)
        with self._family._calls as note:
            note[0] = calls.STEP
            for lane, own in enumerate(layout.actions.per_lane(action)):
                note[1] = lane
                given = calls.stepped(envs[lane].step(own))
                obs, reward[lane], terminated[lane], truncated[lane], info = given
                observations.append(layout.flat(obs, 1, info))
                infos.append(info)
                success[lane] = self._succeeded(note, info)
            note[1] = calls.EVERY_LANE
            metrics = metric_values(layout, infos, lanes)

            self._age += 1
            truncated = (truncated | (self._age >= layout.horizon)) & ~terminated
            next_obs = np.concatenate(observations)
            obs = next_obs.copy()
            for lane in np.flatnonzero(terminated | truncated).tolist():
                obs[lane] = self._start(note, lane, self._episode[lane] + 1)
        return Stepped(
            obs,
            next_obs,
            reward,
            terminated,
            truncated,
            success,
            metrics,
        )

    def frame(self, lane: int) -> Array:
        with self._family._calls as note:
            note[0] = calls.RENDER
            note[1] = lane
            with offscreen():
                drawn: Any = self._envs[lane].render()
            if not self._draws:
                self._draws = True
                # OpenGL has registered its own end by now; what is registered later ends sooner.
                atexit.register(_close, self._envs)
            return picture(drawn)

    def _succeeded(self, note: calls.Note, info: Info) -> bool:
        """Whether the step of this `info` succeeded; False where the environment does not say."""
        if self._family.success is not None:
            note[0] = calls.SUCCESS
            succeeded = flag(self._family.success(info), "what it gives")
            note[0] = calls.STEP
            return succeeded
        names = success_keys(self._layout, info)
        return any(flag(info[name], f"info[{name!r}]") for name in names)

    def _start(self, note: calls.Note, lane: int, episode: int) -> Array:
        """[1, O]: the first observation of an episode."""
        env, family = self._envs[lane], self._family
        note[1] = lane
        note[0] = calls.APPLY
        family.apply(env, self._rows[lane].copy())
        note[0] = calls.RESET
        obs, info = calls.first(env.reset(seed=seed_of(self._keys[lane], episode)))
        flat = self._layout.flat(obs, 1, info)
        if family.apply_after_reset:
            note[0] = calls.APPLY
            family.apply(env, self._rows[lane].copy())
        self._age[lane], self._episode[lane] = 0, episode
        return flat


def is_env(built: Any, kind: type[Any]) -> Any:
    """`built`, what build gives.

    Raises:
        FamilyError: it is of another `kind`.
    """
    if not isinstance(built, kind):
        wanted = {gymnasium.Env: "gymnasium.Env", VectorEnv: "gymnasium.vector.VectorEnv"}[kind]
        raise FamilyError(f"it gives {type(built).__name__}, not a {wanted}")
    return built


def _close(envs: list[Env]) -> None:
    for env in envs:
        close(env)


def close(env: Env | ManyEnvs) -> None:
    """Close `env`; what goes wrong there changes no result, so it is a warning."""
    try:
        env.close()
    except Exception as error:
        warnings.warn(f"{type(env).__name__}.close: {one_line(error)}", stacklevel=2)


# -------------------------------------------------------------------------------------------------
# One vector environment


class VectorBuilder(Protocol):
    """What `VectorEnvLanes` needs of a family."""

    @property
    def env_layout(self) -> Layout: ...
    @property
    def _calls(self) -> Calls: ...
    def build(self, num_envs: int) -> ManyEnvs: ...
    def apply(self, env: ManyEnvs, rows: Array) -> None: ...


class VectorEnvLanes:
    """A vector environment, rebuilt when the number of lanes changes.

    Its lanes are reset one by one, by a mask and each with its own seed, where that is possible: in
    `SyncVectorEnv` and `AsyncVectorEnv`, whatever their autoreset mode. In others the mode rules:
    DISABLED ones are reset by a mask without seeds, SAME_STEP ones reset themselves, and NEXT_STEP
    ones must end all their episodes together, since the lanes that go on cannot be held while one
    is reset.
    """

    _close: weakref.finalize[[ManyEnvs], Any]

    def __init__(self, family: VectorBuilder):
        self._family = family
        self._layout = family.env_layout
        self._keys: list[int] = []

    def _build(self, lanes: int) -> None:
        if self._keys:
            self._close()
        self._env = is_env(self._family.build(lanes), VectorEnv)
        self._close = weakref.finalize(self, close, self._env)
        self._mode = autoreset_mode(self._env)
        self._seeded = isinstance(self._env.unwrapped, SyncVectorEnv | AsyncVectorEnv)
        self._masked = self._seeded or self._mode == AutoresetMode.DISABLED

    def reset(self, rows: Array, keys: Array) -> Array:
        with self._family._calls as note:
            note[0], note[1] = calls.BUILD, calls.EVERY_LANE
            if len(keys) != len(self._keys):
                self._build(len(keys))
            self._keys = keys.tolist()
            self._age, self._episode = np.zeros((2, len(keys)), np.int64)
            note[0] = calls.APPLY
            self._family.apply(self._env, rows.copy())
            note[0] = calls.RESET
            return self._reset(seed_of(self._keys[0], 0))

    def restart(self, chosen: Array, episodes: Array) -> None:
        if not self._seeded:
            raise FamilyError(
                f"{self._env} cannot be copied in mid-episode, for one seed is for all its lanes; "
                "SyncVectorEnv and AsyncVectorEnv can"
            )
        with self._family._calls as note:
            note[0], note[1] = calls.RESET, calls.EVERY_LANE
            self._begin(chosen, episodes)

    def step(self, action: Array) -> Stepped:
        with self._family._calls as note:
            note[0], note[1] = calls.STEP, calls.EVERY_LANE
            return self._step(note, action)

    def _step(self, note: calls.Note, action: Array) -> Stepped:
        lanes = len(self._keys)
        taken = self._layout.actions.to_env(action)
        env_obs, paid, over, cut, infos = calls.five(self._env.step(taken))
        obs = next_obs = self._flat(env_obs)
        reward = calls.each(paid, lanes, "the reward")
        terminated = calls.flags(over, lanes, "terminated")
        ended = terminated | calls.flags(cut, lanes, "truncated")  # by the environment itself
        metrics = metric_values(self._layout, self._lane_infos(infos, ended), lanes)

        self._age += 1
        # Environments that reset themselves also know best when their episodes end.
        done = ended | (self._masked & (self._age >= self._layout.horizon))
        if self._mode == AutoresetMode.SAME_STEP and ended.any():
            next_obs = obs.copy()
            next_obs[ended] = self._final(infos["final_obs"], ended)
        success = self._success(infos, ended)
        if done.any():
            note[0] = calls.RESET
            obs = self._next_episode(done, obs)
        return Stepped(
            obs,
            next_obs,
            reward,
            terminated,
            done & ~terminated,
            success,
            metrics,
        )

    def frame(self, lane: int) -> Array:
        with self._family._calls as note:
            note[0], note[1] = calls.RENDER, lane
            with offscreen():
                pictures: Any = self._env.render()
            return picture(pictures[lane])

    def _next_episode(self, done: Array, obs: Array) -> Array:
        """[L, O]: what to act on after `obs`, with another episode begun in the lanes `done`."""
        if self._masked:
            return self._begin(done, self._episode + done)
        self._age[done] = 0
        self._episode[done] += 1
        if self._mode == AutoresetMode.SAME_STEP:
            return obs
        if not done.all():
            raise FamilyError(
                f"{self._env} resets a lane a step late (AutoresetMode.NEXT_STEP), for which the "
                "other lanes cannot wait; build it with another mode, such as gymnasium.make_vec("
                "…, vectorization_mode='sync', vector_kwargs={'autoreset_mode': 'Disabled'})"
            )
        actions = self._layout.actions
        first_obs, *_ = calls.five(self._env.step(actions.to_env(actions.neutral(len(done)))))
        return self._flat(first_obs)

    def _begin(self, chosen: Array, episodes: Array) -> Array:
        """[L, O], with episode number `episodes` begun in the lanes `chosen`."""
        self._age[chosen], self._episode[chosen] = 0, episodes[chosen]
        return self._reset(None, {"reset_mask": np.array(chosen)})

    def _reset(self, seed: int | None, options: Info | None = None) -> Array:
        """[L, O], reset with every lane's own seed where that is possible, else with `seed`."""
        seeds: Any = seed
        if self._seeded:
            seeds = list(map(seed_of, self._keys, self._episode))
        first_obs, _ = calls.first(self._env.reset(seed=seeds, options=options))
        return self._flat(first_obs)

    def _flat(self, obs: object) -> Array:
        """[L, O] of a batch of observations."""
        return self._layout.flat(obs, len(self._keys))

    def _final(self, final: object, ended: Array) -> Array:
        """[ended, O] of SAME_STEP's last observations: an object array of them, or a batch."""
        if isinstance(final, np.ndarray) and final.dtype == object:
            return np.concatenate([self._layout.flat(obs, 1) for obs in final[ended]])
        return self._flat(final)[ended]

    def _success(self, infos: Info, ended: Array) -> Array:
        """[L] bool; where an episode ended, SAME_STEP environments have it in their final info."""
        success = np.zeros(len(ended), bool)
        for source, lanes in ((infos, ~ended), (infos.get("final_info", infos), ended)):
            for name in success_keys(self._layout, source):
                success |= calls.flags(source[name], len(ended), f"info[{name!r}]") & lanes
        return success

    def _lane_infos(self, infos: Info, ended: Array) -> Iterator[Info]:
        """The metrics in the info of each lane, those of `ended` ones in their final info."""
        final = infos.get("final_info", infos)
        everywhere = np.ones(len(ended), bool)
        for lane, over in enumerate(ended):
            source = final if over else infos
            info = {}
            for name in self._layout.metrics:
                if name in source and source.get(f"_{name}", everywhere)[lane]:
                    values = np.asarray(source[name])
                    info[name] = values[lane] if values.ndim else values
            yield info


def autoreset_mode(env: ManyEnvs) -> AutoresetMode:
    """How `env` starts new episodes.

    Raises:
        FamilyError: it does not say, or its resets leave something behind.
    """
    mode = env.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        raise FamilyError(
            f"{env}: metadata['autoreset_mode'] is {mode}; "
            "set it to the gymnasium.vector.AutoresetMode it has"
        )
    inner = env.unwrapped
    late = mode == AutoresetMode.NEXT_STEP
    if late and isinstance(inner, AsyncVectorEnv) and not inner.shared_memory:
        raise FamilyError(
            f"{env}: without shared memory its resets do not stop the one that NEXT_STEP makes "
            "a step later; build it with autoreset_mode='Disabled'"
        )
    return mode
