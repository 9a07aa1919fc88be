"""The benchmarks of Meta-World 3: a robot's hand that reaches, pushes, opens, …"""

from __future__ import annotations

import itertools
import pickle
from collections import defaultdict
from functools import cache, cached_property
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from metarl.adapters.from_gymnasium.spaces import Array, Info
from metarl.adapters.gymnasium import Env
from metarl.core.errors import ConfigError, suggest
from metarl_envs.extra import ExtraFamily, package
from metarl_envs.extra_config import MetaworldConfig, ML1Config, MultiTaskConfig

_OBS_WIDTH, _ACTION_WIDTH = 39, 4
_VECTOR_WIDTH = 6  # of the longest that any class draws


class _Metaworld(ExtraFamily):
    """What all benchmarks share (Yu et al. 2020, arXiv:1910.10897; v3 of the package `metaworld`).

    ============  ==================================================================================
    observation   [39] hand (x, y, z), gap of the fingers, [14] places and orientations of up to two
                  things; all of this once more as it was a step before; [3] goal: zeros in ML,
                  visible in MT
    action        [4] shift of the hand, force of the fingers
    reward        `reward_function_version` v2: between 0 and 10 in every step, what papers now
                  report; v1: that of the first paper, of another scale in every class
    success       as each class has it, in every step; papers count an episode that succeeded in any
                  step
    episode       H steps, then truncated; terminates if `terminate_on_success` says so
    randomness    none: the task fixes where everything is
    task row      ML1: [3 or 6] what the class draws at random, such as the places of a thing and of
                  the goal; others: [7] number of the class, those of train first, then the same,
                  filled up with zeros
    ============  ==================================================================================

    The tasks are those of the package's benchmark classes with `goals_seed`, 50 a class, to the
    last bit. A row is their float32 form. A simulator takes 0.3 s and 25 MB; lanes that change
    their class hand it on.
    """

    def build(self) -> Env:
        """A lane, for tasks of any class."""
        lane = _Lane(self._shelf, self._shown, self.config.terminate_on_success)
        return TimeLimit(lane, self.config.horizon)

    def rows(self, split: str) -> list[Array]:
        """All of them."""
        return [self._row_of(task) for task in self._benchmark.tasks[split]]

    def apply(self, env: Env, row: Array) -> None:
        """Set the package's task that `row` stands for.

        Raises:
            ConfigError: there is none.
        """
        task = self._task_of.get(row.astype(np.float32).tobytes())
        if task is None:
            raise ConfigError(
                f"{self._name}: {row.tolist()} is no task of the benchmark; take rows from tasks()"
            )
        lane: Any = env.unwrapped
        lane.take(task)

    @property
    def _benchmark(self) -> _Benchmark:
        env = self.config.env if isinstance(self.config, ML1Config) else ""
        return _load_benchmark(type(self).__name__, self.config.goals_seed, env)

    @cached_property
    def _shown(self) -> tuple[str, ...]:
        """The classes of a one-hot in the observation."""
        if isinstance(self.config, MultiTaskConfig) and self.config.show_class:
            return self._benchmark.classes
        return ()

    @cached_property
    def _task_of(self) -> dict[bytes, _Task]:
        """The bytes of a row → the task of the package."""
        tasks = itertools.chain(*self._benchmark.tasks.values())
        return {self._row_of(task).tobytes(): task for task in tasks}

    @cached_property
    def _shelf(self) -> _Shelf:
        return _Shelf(self.config.reward_function_version)

    def _row_of(self, task: _Task) -> Array:
        """[P] float32: the row that stands for a task of the package."""
        # pickled by the package, in this process
        vector = pickle.loads(task.data)["rand_vec"]  # noqa: S301  (the package pickled it)
        if len(self._benchmark.classes) == 1:
            return vector.astype(np.float32)
        row = np.zeros(1 + _VECTOR_WIDTH, np.float32)
        row[0] = self._benchmark.classes.index(task.env_name)
        row[1 : 1 + len(vector)] = vector
        return row


class ML1(_Metaworld):
    """One class; train, validation and test differ in their goals."""


class ML10(_Metaworld):
    """Ten classes in train, other goals of theirs in validation, five other classes in test.

    Loading takes 15 s.
    """


class ML45(_Metaworld):
    """45 classes in train, other goals of theirs in validation, five other classes in test.

    Loading takes a minute.
    """


class MT10(_Metaworld):
    """Ten classes, the same 500 tasks in every split."""

    closed = True


class MT50(_Metaworld):
    """All classes, the same 2,500 tasks in every split. Loading takes half a minute."""

    closed = True


# -------------------------------------------------------------------------------------------------
# Tasks


class _Task(Protocol):
    """A task of the package."""

    env_name: str
    """Its class."""
    data: bytes
    """Its pickled `rand_vec`, and more."""


class _Benchmark(NamedTuple):
    """The classes and tasks of a benchmark."""

    classes: tuple[str, ...]
    """Those of train, then those of test."""
    tasks: dict[str, list[_Task]]
    """Those of every split."""


@cache
def _load_benchmark(name: str, seed: int, env: str) -> _Benchmark:
    """The package's benchmark; seed of the goals: train `seed`, test `seed` (ML1: seed + 1).

    Ours of validation are drawn with seed + 2. The package's environments `Meta-World/ML1-train`
    and `…-test` for Gymnasium are of no use: both have the goals of test.
    """
    metaworld = package("metaworld", MetaworldConfig)
    if name != "ML1":
        made = getattr(metaworld, name)(seed=seed)
    elif env in metaworld.ML1.ENV_NAMES:
        made = metaworld.ML1(env, seed=seed)
    else:
        raise ConfigError(f"ml1: env {env!r} is unknown; {suggest(env, metaworld.ML1.ENV_NAMES)}")

    train = tuple(made.train_classes)
    if name.startswith("MT"):
        return _Benchmark(train, dict.fromkeys(_Metaworld.splits, made.train_tasks))
    others = metaworld.CustomML(train, (), seed=seed + 2)
    tasks = {"train": made.train_tasks, "validation": others.train_tasks, "test": made.test_tasks}
    return _Benchmark(tuple(dict.fromkeys([*train, *made.test_classes])), tasks)


# -------------------------------------------------------------------------------------------------
# Environments


class _Shelf:
    """Simulators that no lane needs now, by the name of their class. A copy by pickle is empty."""

    def __init__(self, version: str):
        self._version = version
        self._simulators: defaultdict[str, list[Env]] = defaultdict(list)

    def __reduce__(self) -> tuple[type[_Shelf], tuple[str]]:
        return _Shelf, (self._version,)

    def take(self, name: str) -> Env:
        """One of them, or a new one."""
        if self._simulators[name]:
            return self._simulators[name].pop()
        build = package("metaworld.env_dict", MetaworldConfig).ALL_V3_ENVIRONMENTS[name]
        simulator: Env = build(
            reward_function_version=self._version, render_mode="rgb_array", camera_name="corner2"
        )
        return simulator

    def put(self, name: str, simulator: Env) -> None:
        """Keep one for later."""
        self._simulators[name].append(simulator)


class _Lane(gymnasium.Env[Any, Any]):
    """Simulates whichever class its task is of."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012  (Gymnasium's way)
    render_mode = "rgb_array"
    action_space = spaces.Box(-1.0, 1.0, (_ACTION_WIDTH,), np.float32)

    def __init__(self, shelf: _Shelf, shown: tuple[str, ...], terminates: bool):
        numbers = spaces.Box(-np.inf, np.inf, (_OBS_WIDTH,), np.float64)
        self.observation_space: Any = numbers
        if shown:
            one_hot = spaces.Discrete(len(shown))
            self.observation_space = spaces.Dict({"class": one_hot, "observation": numbers})
        self._shelf = shelf
        self._shown = shown
        self._terminates = terminates
        self._name = ""
        self._simulator: Any = None

    def take(self, task: _Task) -> None:
        """Take a task of the package, for the next reset."""
        if self._name != task.env_name:
            self.close()
            self._name = task.env_name
            self._simulator = self._shelf.take(self._name)
        self._simulator.unwrapped.set_task(task)

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        """The start of the task; there is no randomness for a seed."""
        obs, info = self._simulator.reset()
        return self._observe(obs), info

    def step(self, action: Array) -> tuple[Any, float, bool, bool, Info]:
        """One step of the simulator."""
        obs, reward, _, truncated, info = self._simulator.step(action)
        terminated = self._terminates and info["success"] == 1
        return self._observe(obs), float(reward), terminated, truncated, info

    def render(self) -> Array:
        """A picture."""
        return self._simulator.render()[::-1, ::-1].copy()  # the camera hangs upside down

    def close(self) -> None:
        """Put the simulator back."""
        if self._name:
            self._shelf.put(self._name, self._simulator)
            self._name, self._simulator = "", None

    def _observe(self, obs: Array) -> Array | dict[str, object]:
        if not self._shown:
            return obs
        return {"class": self._shown.index(self._name), "observation": obs}
