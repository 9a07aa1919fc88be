"""Families for Gymnasium's users: a task row as an `Env`, many of them as a `VectorEnv`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from metarl.adapters.task_observation import Array, Reward, TaskInput, TaskObservation, flat
from metarl.config.registry import find
from metarl.core.errors import FamilyError, suggest
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.types import Step, Tasks


class FamilyEnv(gymnasium.Env[Any, Any]):
    """One task of a family.

    The task stays until ``reset(options={"task": i})`` chooses another of `tasks`. After an episode's end ``reset()``
    goes on to the next one of the same stream of chance; what a seed determines lasts until the next seed.

    ==================  ===================================================================================
    observation         [O] float32; with task_input row and onehot [O + what is shown]; with goal a Dict of
                        observation [O], achieved_goal [G] and desired_goal [G], if the family says what is
                        achieved, else [O + G]
    action              Discrete, or a Box [A] on [−1, 1]
    info                is_success and training_reward, where the family has them
    ==================  ===================================================================================
    """

    def __init__(
        self,
        family: Family,
        tasks: Tasks,
        *,
        task: int = 0,
        task_input: TaskInput = "none",
        render_mode: str | None = None,
    ) -> None:
        self._shown = TaskObservation(family, tasks, task_input)
        self._env: Any = family.make(1)  # it may offer a frame
        self._chosen = self._shown.choose(task, 1)
        self._next: Tensor | None = (
            None  # first observation of the next episode, where one has ended
        )
        self.observation_space, self.action_space = (
            self._shown.observation_space,
            self._shown.action_space,
        )
        self.metadata = _rendering(self._env, render_mode)
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        task = (options or {}).get("task")
        if task is not None:
            self._chosen = self._shown.choose(task, 1)
        if seed is not None or task is not None or self._next is None:
            self._next = self._env.reset(self._shown.tasks[self._chosen], _chance(self.np_random))
        obs, self._next = self._next, None
        return _lane(self._shown.observation(obs, self._chosen), 0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._next is not None:
            raise gymnasium.error.ResetNeeded("the episode is over; call reset()")
        step = self._env.step(self._shown.action(np.asarray(action)[None], (1, 1)))
        self._next = step.obs if step.done.any() else None
        obs = _lane(self._shown.observation(step.next_obs, self._chosen), 0)
        info = {name: told[0].item() for name, told in _infos(step).items()}
        return obs, float(step.reward), bool(step.terminated), bool(step.truncated), info

    def render(self) -> Any:
        return None if self.render_mode is None else self._env.frame(0, 0)

    @property
    def compute_reward(self) -> Reward:
        """(achieved_goal, desired_goal, info) → reward, of goals [G] or [B, G]; there only beside a Dict of goals."""
        return self._shown.compute_reward()


class FamilyVectorEnv(VectorEnv[Any, Any, Array]):
    """Many tasks × `lanes` of a family, stepped as one; environment n·lanes + m is lane m of the n-th task.

    A lane that ends its episode starts the next one in the same step (AutoresetMode.SAME_STEP): the true successor is
    ``infos["final_obs"]``. Lanes of one batch cannot be reset a step late, as NEXT_STEP would; who needs that makes
    separate environments, ``gymnasium.make_vec(…, vectorization_mode="sync")``. The first lane of a task has the episodes
    that `FamilyEnv` has with the same seed. ``reset(options={"task": [...]})`` chooses other tasks.
    """

    def __init__(
        self,
        family: Family,
        tasks: Tasks,
        *,
        task: int | Sequence[int] | None = None,
        lanes: int = 1,
        task_input: TaskInput = "none",
        render_mode: str | None = None,
    ) -> None:
        """`task`: places in `tasks`; None: all of them."""
        self._shown = TaskObservation(family, tasks, task_input)
        self._env: Any = family.make(lanes)
        self._chosen = self._shown.choose(range(len(tasks)) if task is None else task)
        self._shape = (len(self._chosen), lanes)
        self.num_envs = len(self._chosen) * lanes
        self.single_observation_space = self._shown.observation_space
        self.single_action_space = self._shown.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.metadata = {
            "autoreset_mode": AutoresetMode.SAME_STEP,
            **_rendering(self._env, render_mode),
        }
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        options = options or {}
        if "reset_mask" in options:
            raise FamilyError(
                "reset_mask: lanes that end their episode start another by themselves; reset all or none"
            )
        if "task" in options:
            self._chosen = self._shown.choose(options["task"], self._shape[0])
        obs = self._env.reset(self._shown.tasks[self._chosen], _chance(self.np_random))
        return self._shown.observation(obs, self._chosen), {}

    def step(self, actions: Any) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        step = self._env.step(self._shown.action(np.asarray(actions), self._shape))
        reward, terminated, truncated = (
            flat(x) for x in (step.reward, step.terminated, step.truncated)
        )
        done, told = terminated | truncated, _infos(step)
        infos = _masked(told, ~done)
        if done.any():
            final = self._shown.observation(step.next_obs, self._chosen)
            apart = np.full(self.num_envs, None, dtype=object)
            for lane in np.flatnonzero(done).tolist():
                apart[lane] = _lane(final, lane)
            infos |= {"final_obs": apart, "_final_obs": done.copy()}
            infos |= {"final_info": _masked(told, done), "_final_info": done.copy()}
        obs = self._shown.observation(step.obs, self._chosen)
        return obs, reward.astype(np.float64), terminated, truncated, infos

    def render(self) -> tuple[Any, ...] | None:
        if self.render_mode is None:
            return None
        lanes = np.ndindex(*self._shape)
        return tuple(self._env.frame(row, lane) for row, lane in lanes)

    @property
    def compute_reward(self) -> Reward:
        """(achieved_goal, desired_goal, info) → reward, of goals [G] or [B, G]; there only beside a Dict of goals."""
        return self._shown.compute_reward()


# ---------------------------------------------------------------------------------------------------------------------
# By name


def make_env(
    family: str, *, task: int = 0, render_mode: str | None = None, **choices: Any
) -> FamilyEnv:
    """Task number `task` of a split of the family called `family`; `choices` as in `draw`, or options of the family."""
    made, tasks, task_input = draw(family, task + 1, **choices)
    return FamilyEnv(made, tasks, task=task, task_input=task_input, render_mode=render_mode)


def make_vector_env(
    num_envs: int,
    family: str,
    *,
    task: int | None = None,
    lanes: int = 1,
    render_mode: str | None = None,
    **choices: Any,
) -> FamilyVectorEnv:
    """The first ``num_envs / lanes`` tasks of a split with `lanes` environments each, or all environments on one `task`.

    Raises:
        FamilyError: `num_envs` is no multiple of `lanes`.
    """
    if num_envs % lanes:
        raise FamilyError(
            f"num_envs {num_envs} is no multiple of lanes {lanes}, the environments of each task"
        )
    rows = num_envs // lanes
    made, tasks, task_input = draw(family, rows if task is None else task + 1, **choices)
    chosen = range(rows) if task is None else task
    width = lanes if task is None else num_envs
    return FamilyVectorEnv(
        made, tasks, task=chosen, lanes=width, task_input=task_input, render_mode=render_mode
    )


def draw(
    family: str,
    least: int,
    *,
    split: str = "train",
    tasks: int = 0,
    task_input: TaskInput = "none",
    task_seed: int = 0,
    **options: Any,
) -> tuple[Family, Tasks, TaskInput]:
    """A family with `options`, its first `tasks` tasks (at least `least`), and `task_input`.

    They are the tasks that `metarl evaluate` draws from this seed.

    Raises:
        FamilyError: unknown family, options or split.
    """
    found = find("family", family)
    made = found.build(found.configure(options))
    if split not in made.spec.splits:
        raise FamilyError(
            f"{made.spec.name} has no split {split!r}: {suggest(split, made.spec.splits)}"
        )
    return (
        made,
        made.tasks(split, max(least, tasks), Rng(task_seed).child("evaluate", "tasks")),
        task_input,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Steps


def _chance(generator: np.random.Generator) -> Rng:
    return Rng(int(generator.integers(1 << 63)))


def _lane(observation: Any, lane: int) -> Any:
    """One lane's observation as an array of its own."""
    if isinstance(observation, dict):
        return {name: part[lane].copy() for name, part in observation.items()}
    return observation[lane].copy()


def _infos(step: Step) -> dict[str, Array]:
    """[N · M] of everything that a step may tell."""
    reward = None if step.training_reward is None else step.training_reward.double()
    told = {"is_success": step.success, "training_reward": reward}
    return {name: flat(x) for name, x in told.items() if x is not None}


def _masked(told: dict[str, Array], lanes: Array) -> dict[str, Any]:
    """Gymnasium's form of infos: what is told of some lanes, and a mask that says of which."""
    if not lanes.any():
        return {}
    return {name: array * lanes for name, array in told.items()} | {
        f"_{name}": lanes.copy() for name in told
    }


def _rendering(env: Any, wanted: str | None) -> dict[str, Any]:
    """What an environment's metadata say of pictures.

    Raises:
        FamilyError: it has not what is wanted.
    """
    modes = ["rgb_array"] if hasattr(env, "frame") else []
    if wanted not in (None, *modes):
        raise FamilyError(f"render_mode {wanted!r}: {suggest(str(wanted), modes)}")
    return {"render_modes": modes, "render_fps": 30}
