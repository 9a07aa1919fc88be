"""Families for Gymnasium's users: a task row as an `Env`, many of them as a `VectorEnv`."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike

from metarl.adapters.task_observation import (
    Array,
    Info,
    Observation,
    Reward,
    TaskInput,
    TaskObservation,
    flat,
)
from metarl.config.registry import find
from metarl.core.errors import ConfigError, calling, suggest
from metarl.core.family import Family, HasFrames
from metarl.core.family import make_env as make_batch_env
from metarl.core.protocol import EvalProtocol
from metarl.core.rng import Rng
from metarl.core.types import Step, Tasks


class FamilyVectorEnv(VectorEnv[Observation, ArrayLike, Array]):
    """Many tasks × `lanes` of a family, stepped as one.

    Environment n·lanes + m is lane m of the n-th task. The first lane of a task has the episodes
    that `FamilyEnv` has with the same seed. ``reset(options={"task": [...]})`` chooses other tasks.

    A lane that ends its episode starts the next one in the same step (AutoresetMode.SAME_STEP): the
    true successor is ``infos["final_obs"]``. Lanes of one batch cannot be reset a step late, as
    NEXT_STEP would; who needs that makes separate environments,
    ``gymnasium.make_vec(…, vectorization_mode="sync")``.
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
    ):
        """`task`: places in `tasks`; None: all of them."""
        self._shown = TaskObservation(family, tasks, task_input)
        self._env: Any = make_batch_env(family, lanes)
        self._name = family.spec.name
        self._shown.choose(range(len(tasks)) if task is None else task)
        self._shape = (len(self._shown.chosen), lanes)
        self.num_envs = len(self._shown.chosen) * lanes
        self.single_observation_space = self._shown.observation_space
        self.single_action_space = self._shown.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        modes = ["rgb_array"] if isinstance(self._env, HasFrames) else []
        if render_mode not in (None, *modes):
            raise ConfigError(f"render_mode {render_mode!r}: {suggest(str(render_mode), modes)}")
        self.metadata = {
            "autoreset_mode": AutoresetMode.SAME_STEP,
            "render_modes": modes,
            "render_fps": 30,
        }
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: Info | None = None
    ) -> tuple[Observation, Info]:
        super().reset(seed=seed)
        options = options or {}
        task = options.get("task")
        if "reset_mask" in options:
            raise ConfigError("reset_mask: lanes restart by themselves; reset all or none")
        if task is not None:
            self._shown.choose(task, self._shape[0])
        rng = Rng(int(self.np_random.integers(1 << 63)))
        with calling(f"{self._name}: reset"):
            obs = self._env.reset(self._shown.chosen, rng)
        return self._shown.observation(obs), {}

    def step(self, actions: ArrayLike) -> tuple[Observation, Array, Array, Array, Info]:
        taken = self._shown.action(np.asarray(actions), self._shape)
        with calling(f"{self._name}: step"):
            step = self._env.step(taken)
        obs = self._shown.observation(step.obs)
        terminated = flat(step.terminated)
        truncated = flat(step.truncated)
        done = terminated | truncated

        infos = _infos(step, ~done)
        if done.any():
            next_obs = self._shown.observation(step.next_obs)
            final_obs = np.full(self.num_envs, None, dtype=object)
            for lane in np.flatnonzero(done).tolist():
                final_obs[lane] = lane_obs(next_obs, lane)
            infos |= {"final_obs": final_obs, "final_info": _infos(step, done)}
            infos |= {"_final_obs": done.copy(), "_final_info": done.copy()}
        return obs, flat(step.reward).astype(np.float64), terminated, truncated, infos

    def render(self) -> tuple[Array, ...] | None:
        if self.render_mode is None:
            return None
        return tuple(self._env.frame(row, lane) for row, lane in np.ndindex(*self._shape))

    @property
    def compute_reward(self) -> Reward:
        """(achieved_goal, desired_goal, info) → reward, of goals [G] or [B, G].

        There only beside a Dict of goals.
        """
        return self._shown.compute_reward()


class FamilyEnv(gymnasium.Env[Observation, ArrayLike]):
    """One task of a family.

    The task stays until ``reset(options={"task": i})`` chooses another of `tasks`. After an
    episode's end ``reset()`` goes on to the next one of the same random stream; what a seed
    determines lasts until the next seed.

    ===========  ==================================================================================
    observation  [O] float32; with task_input row and onehot [O + what is shown]; with goal a Dict
                 of observation [O], achieved_goal [G] and desired_goal [G], if the family says what
                 is achieved, else [O + G]
    action       Discrete, or a Box [A] on [−1, 1]
    info         is_success, training_reward and metrics, where the family has them
    ===========  ==================================================================================
    """

    def __init__(
        self,
        family: Family,
        tasks: Tasks,
        *,
        task: int = 0,
        task_input: TaskInput = "none",
        render_mode: str | None = None,
    ):
        self._envs = FamilyVectorEnv(
            family, tasks, task=task, task_input=task_input, render_mode=render_mode
        )
        self._next: Observation | None = None
        """Where an episode ended, the first observation of the next one."""
        self.observation_space = self._envs.single_observation_space
        self.action_space = self._envs.single_action_space
        self.metadata = self._envs.metadata.copy()
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: Info | None = None
    ) -> tuple[Observation, Info]:
        super().reset(seed=seed)
        task = (options or {}).get("task")
        obs = self._next
        if seed is not None or task is not None or obs is None:
            first_obs, _ = self._envs.reset(seed=seed, options=options)
            obs = lane_obs(first_obs, 0)
        self._next = None
        return obs, {}

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, Info]:
        if self._next is not None:
            raise gymnasium.error.ResetNeeded("the episode is over; call reset()")
        obs, reward, terminated, truncated, infos = self._envs.step(np.asarray(action)[None])
        next_obs = lane_obs(obs, 0)
        if terminated or truncated:
            self._next = next_obs
            next_obs = infos["final_obs"][0]
        info = lane_info(infos, 0)
        return next_obs, float(reward[0]), bool(terminated), bool(truncated), info

    def render(self) -> Array | None:
        pictures = self._envs.render()
        return None if pictures is None else pictures[0]

    @property
    def compute_reward(self) -> Reward:
        """As that of `FamilyVectorEnv`."""
        return self._envs.compute_reward


# -------------------------------------------------------------------------------------------------
# By name


def make_env(
    family: str, *, task: int = 0, render_mode: str | None = None, **choices: Any
) -> FamilyEnv:
    """Task number `task` of a split of the family called `family`.

    `choices` are as in `draw`, or hyper-parameters of the family.
    """
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
    """The first ``num_envs / lanes`` tasks of a split with `lanes` environments each.

    With `task`, all environments have this one.

    Raises:
        ConfigError: `num_envs` is no multiple of `lanes`.
    """
    if num_envs % lanes:
        raise ConfigError(
            f"num_envs {num_envs} is no multiple of lanes {lanes}, the environments of each task"
        )
    count = num_envs // lanes
    chosen: int | Sequence[int] = range(count)
    if task is not None:
        count = task + 1
        chosen = task
        lanes = num_envs
    made, tasks, task_input = draw(family, count, **choices)
    return FamilyVectorEnv(
        made,
        tasks,
        task=chosen,
        lanes=lanes,
        task_input=task_input,
        render_mode=render_mode,
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
        ConfigError: unknown split, family or options.
    """
    found = find("family", family)
    made: Family = found.build(found.configure(options))
    protocol = EvalProtocol(1, max(least, tasks), split, seed=task_seed)
    return made, protocol.rows(made), task_input


# -------------------------------------------------------------------------------------------------
# Steps


def lane_obs(obs: Observation, lane: int) -> Observation:
    """One lane's observation as an array of its own."""
    if isinstance(obs, dict):
        return {name: part[lane].copy() for name, part in obs.items()}
    return obs[lane].copy()


def lane_info(infos: Info, lane: int) -> Info:
    """What the infos of a step report of one lane."""
    if "final_info" in infos and infos["_final_info"][lane]:
        infos = infos["final_info"]
    masked = {name for name in infos if f"_{name}" in infos}
    return {name: infos[name][lane].item() for name in masked - {"final_obs", "final_info"}}


def _infos(step: Step, lanes: Array) -> Info:
    """What a step reports of some `lanes`, in Gymnasium's form: arrays [N · M], and their masks."""
    infos: Info = {}
    reported = {"is_success": step.success, "training_reward": step.training_reward, **step.metrics}
    for name, values in reported.items():
        if values is not None and lanes.any():
            wide = values.double() if values.is_floating_point() else values
            infos[name] = flat(wide) * lanes
            infos[f"_{name}"] = lanes.copy()
    return infos
