"""Families for Stable-Baselines3."""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from metarl.adapters.step_infos import lane_info
from metarl.adapters.task_observation import (
    Array,
    Info,
    Observation,
    TaskInput,
    action_space,
    observation_space,
    shows_goals,
    unbounded,
)
from metarl.adapters.vector import FamilyVectorEnv
from metarl.core.errors import ConfigError
from metarl.core.family import Family
from metarl.core.types import Spec, Tasks, first_cue

Indices = int | Iterable[int] | None
_CPU = torch.device("cpu")


class _SharedVecEnv(VecEnv):
    """Environments that are one object: its attributes and methods are those of each."""

    @abstractmethod
    def _shared(self) -> Any:
        """The object."""

    def step_async(self, actions: Array) -> None:
        self._actions = actions

    def get_images(self) -> Sequence[Array | None]:
        return self._shared().render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        return [getattr(self._shared(), attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: object, indices: Indices = None) -> None:
        setattr(self._shared(), attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """The method of the environments that are one, once for each index."""
        methods = self.get_attr(method_name, indices)
        return [method(*method_args, **method_kwargs) for method in methods]

    def env_is_wrapped(self, wrapper_class: object, indices: Indices = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]


class FamilyVecEnv(_SharedVecEnv):
    """A `FamilyVectorEnv` as a VecEnv.

    Its infos have ``terminal_observation`` and ``TimeLimit.truncated``.
    """

    def __init__(self, envs: FamilyVectorEnv):
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def _shared(self) -> FamilyVectorEnv:
        return self.envs

    def reset(self) -> Observation:
        obs, _ = self.envs.reset(seed=self._seeds[0], options=self._options[0])
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_wait(self) -> tuple[Observation, Array, Array, list[Info]]:
        obs, reward, terminated, truncated, batch_infos = self.envs.step(self._actions)
        done = terminated | truncated
        infos = []
        for lane in range(self.num_envs):
            info = lane_info(batch_infos, lane)
            info["TimeLimit.truncated"] = bool(truncated[lane])
            if done[lane]:
                info["terminal_observation"] = batch_infos["final_obs"][lane]
            infos.append(info)
        return obs, reward.astype(np.float32), done, infos

    def close(self) -> None:
        self.envs.close()


@dataclass
class _Cohort:
    """Trials that began together: environments whose trial is over wait for the others."""

    envs: FamilyVectorEnv
    members: Array  # [n] which of the environments
    left: Array  # [n] episodes to go


class TrialVecEnv(_SharedVecEnv):
    """Trials of `episodes` episodes, each as one episode of Stable-Baselines3, for RL².

    Observations are [obs, what is shown of the task, cue]: the previous action (one-hot, if it is
    discrete), its reward, and whether an episode of the family ended with it. An environment whose
    trial is over begins another, on a task drawn from `tasks`, in the same step; the end of a trial
    is no time limit.

    The lanes of a batch begin together. So environments that begin at the same time are a batch of
    their own, stepped until the last trial in it is over: where all episodes are equally long, that
    is one batch.
    """

    def __init__(
        self,
        family: Family,
        tasks: Tasks,
        *,
        episodes: int,
        num_envs: int,
        task_input: TaskInput = "none",
    ):
        """Raises a ConfigError where there are fewer tasks than environments."""
        if num_envs > len(tasks):
            raise ConfigError(
                f"{num_envs} trials at a time are of different tasks, and there are {len(tasks)}: "
                "draw more tasks"
            )
        self._family, self._tasks, self._task_input = family, tasks, task_input
        self._episodes = episodes
        self._random = np.random.default_rng()
        self._idle: dict[int, list[FamilyVectorEnv]] = defaultdict(list)  # by number of lanes
        self._cohorts: list[_Cohort] = []
        shown_width = family.spec.shown_width(task_input)
        if task_input == "onehot":
            shown_width = len(tasks)
        super().__init__(num_envs, *spaces_of(family.spec, task_input, shown_width, trials=True))

    render_mode = None

    def _shared(self) -> Any:
        return self

    def reset(self) -> Array:
        if self._seeds[0] is not None:
            self._random = np.random.default_rng(self._seeds[0])
        self._reset_seeds()
        self._cohorts = []
        return self._begin(np.arange(self.num_envs))

    def step_wait(self) -> tuple[Array, Array, Array, list[Info]]:
        obs = np.zeros((self.num_envs, *(self.observation_space.shape or ())), np.float32)
        reward = np.zeros(self.num_envs, np.float32)
        over = np.zeros(self.num_envs, bool)
        infos: list[Info] = [{} for _ in range(self.num_envs)]
        for cohort in self._cohorts:
            self._step(cohort, obs, reward, over, infos)
        for cohort in self._cohorts:
            if not cohort.left.any():
                self._idle[len(cohort.left)].append(cohort.envs)
        self._cohorts = [cohort for cohort in self._cohorts if cohort.left.any()]
        if over.any():
            obs[over] = self._begin(np.flatnonzero(over))
        return obs, reward, over, infos

    def close(self) -> None:
        pass

    def _begin(self, members: Array) -> Array:
        """New trials in these environments → [n, O + …], what they observe first."""
        count = len(members)
        places = self._random.permutation(len(self._tasks))[:count].tolist()
        if self._idle[count]:
            envs = self._idle[count].pop()
        else:
            envs = FamilyVectorEnv(
                self._family, self._tasks, task=places, task_input=self._task_input
            )
        seed = int(self._random.integers(1 << 31))
        obs, _ = envs.reset(seed=seed, options={"task": places})
        self._cohorts.append(_Cohort(envs, members, np.full(count, self._episodes)))
        cue = first_cue(self._family.spec, count, 1, _CPU)
        return np.concatenate([obs, cue.squeeze(1).numpy()], axis=1)

    def _step(
        self, cohort: _Cohort, obs: Array, reward: Array, over: Array, infos: list[Info]
    ) -> None:
        """Step a cohort, and write what its members meet that are still on their trial."""
        next_obs: Any
        actions = self._actions[cohort.members]
        next_obs, rewards, terminated, truncated, batch_infos = cohort.envs.step(actions)
        ended = terminated | truncated
        spec = self._family.spec
        taken = spec.encode_action(torch.as_tensor(actions)).numpy()
        cue = np.column_stack([taken, rewards, ended]).astype(np.float32)
        active = cohort.left > 0
        cohort.left -= ended & active
        for place in np.flatnonzero(active).tolist():
            member = cohort.members[place]
            info = lane_info(batch_infos, place) | {"TimeLimit.truncated": False}
            following = next_obs[place]
            if not cohort.left[place]:
                following = batch_infos["final_obs"][place]
                info["terminal_observation"] = np.concatenate([following, cue[place]])
            obs[member] = np.concatenate([following, cue[place]])
            reward[member] = rewards[place]
            over[member] = not cohort.left[place]
            infos[member] = info


class SpacesVecEnv(_SharedVecEnv):
    """Spaces and a number of environments, for models that are made before their tasks are."""

    render_mode = None

    def _shared(self) -> Any:
        return self

    def reset(self) -> Array:
        raise NotImplementedError

    def step_wait(self) -> tuple[Array, Array, Array, list[Info]]:
        raise NotImplementedError

    def close(self) -> None:
        pass


def spaces_of(
    spec: Spec, task_input: TaskInput, shown_width: int, trials: bool = False
) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """Of observations, which tell `shown_width` numbers of the task, and of actions.

    Raises:
        ConfigError: `trials`, whose observations are one array, with goals or images.
    """
    observations = observation_space(spec, task_input, shown_width)
    if trials and shows_goals(spec, task_input):
        raise ConfigError("trials: a cue has no place beside goals; show the row of the task")
    if trials and spec.images:
        raise ConfigError("trials: a cue has no place beside images; use the agent rl2")
    if trials:
        observations = unbounded(spec.obs_width + shown_width + spec.cue_width)
    return observations, action_space(spec)


def to_vec_env(
    family: Family,
    tasks: Tasks,
    *,
    lanes: int = 1,
    task_input: TaskInput = "none",
    trial_episodes: int | None = None,
) -> FamilyVecEnv | TrialVecEnv:
    """An environment for each of `tasks` and each lane, for Stable-Baselines3's algorithms::

        tasks = family.tasks("train", 8, metarl.Rng(0))
        model = PPO("MlpPolicy", VecMonitor(to_vec_env(family, tasks)))

    One policy meets all tasks, and observes of them what `task_input` says. With "goal" and a
    family that says what is achieved, observations are a Dict ("MultiInputPolicy") and
    `HerReplayBuffer` works. `VecMonitor` reports returns.

    With `trial_episodes` they are `lanes` environments for RL² by a recurrent policy, such as
    sb3-contrib's `RecurrentPPO`: see `TrialVecEnv`.
    """
    if trial_episodes is not None:
        return TrialVecEnv(
            family, tasks, episodes=trial_episodes, num_envs=lanes, task_input=task_input
        )
    return FamilyVecEnv(FamilyVectorEnv(family, tasks, lanes=lanes, task_input=task_input))
