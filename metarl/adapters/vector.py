"""Families for Gymnasium's users: a task row as an `Env`, many of them as a `VectorEnv`."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike
from torch import Tensor

from metarl.adapters.env_lanes import EnvLanes, SeparateLanes, TogetherLanes
from metarl.adapters.scene_pictures import ScenePictures
from metarl.adapters.step_infos import final_infos, lane_info, lane_obs, lanes_infos
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
from metarl.core.errors import ConfigError, calling, quoted, suggest
from metarl.core.family import Drawable, Family
from metarl.core.protocol import EvalProtocol
from metarl.core.rng import Rng
from metarl.core.types import Tasks


class RenderModeError(ConfigError, TypeError):
    """There are no such pictures.

    Libraries that ask for pictures unasked, as Stable-Baselines3 does of a name, go on without them
    at a TypeError.
    """


class FamilyVectorEnv(VectorEnv[Observation, ArrayLike, Array]):
    """Many tasks × `lanes` of a family, stepped as one.

    Environment n·lanes + m is lane m of the n-th task. The first lane of a task has the episodes
    that `FamilyEnv` has with the same seed. ``reset(options={"task": [...]})`` chooses other tasks.

    What follows an episode's end is `autoreset_mode`, Gymnasium's ``AutoresetMode`` or its value:

    =========  ====================================================================================
    SameStep   the next episode begins in the same step; the true successor is
               ``infos["final_obs"]``
    NextStep   it begins in the next step, whose action is ignored; most of Gymnasium's wrappers
               know this mode alone
    Disabled   it begins with ``reset(options={"reset_mask": [...]})``
    =========  ====================================================================================

    The lanes of a batch step together, so that none of them can wait for its reset. Only with
    SameStep are they one batch; else they are stepped one after the other, which takes longer.
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
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    ):
        """`task`: places in `tasks`; None: all of them.

        Raises:
            ConfigError: an unknown mode; a `render_mode` that the family has not, which is a
                TypeError too, so that libraries go on without pictures.
        """
        self._shown = TaskObservation(family, tasks, task_input)
        self._name = family.spec.name
        self._shown.choose(range(len(tasks)) if task is None else task)
        self._shape = (len(self._shown.chosen), lanes)
        self.num_envs = len(self._shown.chosen) * lanes
        self._mode = _autoreset_mode(autoreset_mode)
        self._waits = self._mode is not AutoresetMode.SAME_STEP
        self._lanes: EnvLanes
        if self._waits:
            self._lanes = SeparateLanes(family, *self._shape)
        else:
            self._lanes = TogetherLanes(family, lanes)
        self._obs: Tensor | None = None  # [N, M, O] what was observed last
        self._over = np.zeros(self.num_envs, bool)  # whose episode is over, and the next not begun
        self.single_observation_space = self._shown.observation_space
        self.single_action_space = self._shown.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        modes = []
        if self._lanes.has_frames or isinstance(family, Drawable):
            modes = ["rgb_array"]
        if render_mode is not None and render_mode not in modes:
            hint = suggest(render_mode, modes) if modes else f"{self._name} has no pictures"
            raise RenderModeError(f"render_mode {render_mode!r}: {hint}")
        self._pictures: ScenePictures | None = None
        if render_mode is not None and not self._lanes.has_frames:
            assert isinstance(family, Drawable)
            self._pictures = ScenePictures(family)
        self.metadata = {
            "autoreset_mode": self._mode,
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
        chosen = self._reset_mask(options.get("reset_mask"))
        if task is not None:
            if not chosen.all():
                raise ConfigError("task: reset all environments to choose other tasks")
            self._shown.choose(task, self._shape[0])
        begins = chosen
        if seed is None and task is None:
            begins = chosen & ~self._over  # the others go on to the next episode
        if begins.any():
            rng = Rng(int(self.np_random.integers(1 << 63)))
            with calling(f"{self._name}: reset"):
                self._lanes.begin(self._shown.chosen, rng, begins)
        obs = self._lanes.obs
        if self._obs is not None:
            obs = torch.where(self._grid(chosen), obs, self._obs)
        self._over &= ~chosen
        self._obs = obs
        if self._pictures is not None:
            self._pictures.begin(obs, chosen)
        return self._shown.observation(obs), {}

    def step(self, actions: ArrayLike) -> tuple[Observation, Array, Array, Array, Info]:
        over = self._over
        if over.any() and self._mode is AutoresetMode.DISABLED:
            places = quoted(np.flatnonzero(over).tolist())
            raise gymnasium.error.ResetNeeded(
                f"the episodes of the environments {places} are over; reset them with "
                "reset(options={'reset_mask': …})"
            )
        taken = self._shown.action(actions, self._shape, ~over)
        with calling(f"{self._name}: step"):
            step = self._lanes.step(taken, over)
        terminated = flat(step.terminated)
        truncated = flat(step.truncated)
        done = terminated | truncated
        if self._waits:
            obs = torch.where(self._grid(done), step.next_obs, step.obs)
            infos = lanes_infos(step, ~over)
            self._over = done
        else:
            obs = step.obs
            infos = lanes_infos(step, ~done) | final_infos(step, done, self._shown)
        self._obs = obs
        if self._pictures is not None:
            self._pictures.see(obs, begun=over if self._waits else done)
        return (
            self._shown.observation(obs),
            flat(step.reward).astype(np.float64),
            terminated,
            truncated,
            infos,
        )

    def render(self) -> tuple[Array, ...] | None:
        if self.render_mode is None:
            return None
        if self._pictures is not None:
            return self._pictures.frames(self._shown.chosen.params)
        return tuple(self._lanes.frame(row, lane) for row, lane in np.ndindex(*self._shape))

    def _reset_mask(self, mask: object) -> Array:
        """[N · M] which environments to reset."""
        if mask is None:
            return np.ones(self.num_envs, bool)
        if not self._waits:
            raise ConfigError(
                "reset_mask: these environments restart by themselves; reset all, or make them "
                "with autoreset_mode='Disabled'"
            )
        if self._obs is None:
            raise ConfigError("reset_mask: reset all environments first")
        chosen = np.asarray(mask)
        if chosen.shape != (self.num_envs,) or chosen.dtype != bool or not chosen.any():
            raise ConfigError(
                f"reset_mask {quoted(mask)}: give {self.num_envs} booleans, one of them True"
            )
        return chosen

    def _grid(self, flags: Array) -> Tensor:
        """[N · M] → [N, M, 1]."""
        return torch.from_numpy(flags).view(*self._shape, 1)

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
                 is achieved, else [O + G]; an image alone [height, width, channels] uint8, with
                 something beside it a Dict of the parts, and of what is shown as "task"
    action       Discrete, MultiDiscrete, or a Box [A] on [−1, 1]
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
            family,
            tasks,
            task=task,
            task_input=task_input,
            render_mode=render_mode,
            autoreset_mode=AutoresetMode.DISABLED,
        )
        self._over = False
        self.observation_space = self._envs.single_observation_space
        self.action_space = self._envs.single_action_space
        self.metadata = {
            name: value for name, value in self._envs.metadata.items() if name != "autoreset_mode"
        }
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: Info | None = None
    ) -> tuple[Observation, Info]:
        super().reset(seed=seed)
        obs, infos = self._envs.reset(seed=seed, options=options)
        self._over = False
        return lane_obs(obs, 0), infos

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, Info]:
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode is over; call reset()")
        obs, reward, terminated, truncated, infos = self._envs.step(np.asarray(action)[None])
        self._over = bool(terminated[0] or truncated[0])
        info = lane_info(infos, 0)
        return lane_obs(obs, 0), float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> Array | None:
        pictures = self._envs.render()
        return None if pictures is None else pictures[0]

    @property
    def compute_reward(self) -> Reward:
        """As that of `FamilyVectorEnv`."""
        return self._envs.compute_reward


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    """The mode of this value."""
    try:
        return AutoresetMode(mode)
    except ValueError:
        hint = suggest(str(mode), [known.value for known in AutoresetMode])
        raise ConfigError(f"autoreset_mode {quoted(mode)}: {hint}") from None


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
    autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
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
        autoreset_mode=autoreset_mode,
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
