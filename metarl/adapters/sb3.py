"""Families for Stable-Baselines3."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from metarl.adapters.task_observation import Array, Info, Observation, TaskInput
from metarl.adapters.vector import FamilyVectorEnv, lane_info
from metarl.core.family import Family
from metarl.core.types import Tasks

Indices = int | Iterable[int] | None


class FamilyVecEnv(VecEnv):
    """A `FamilyVectorEnv` as a VecEnv.

    Its infos have ``terminal_observation`` and ``TimeLimit.truncated``.
    """

    def __init__(self, envs: FamilyVectorEnv):
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> Observation:
        obs, _ = self.envs.reset(seed=self._seeds[0], options=self._options[0])
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: Array) -> None:
        self._actions = actions

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

    def get_images(self) -> Sequence[Array | None]:
        return self.envs.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        return [getattr(self.envs, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: object, indices: Indices = None) -> None:
        setattr(self.envs, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """The method of the environments that are one, once for each index."""
        methods = self.get_attr(method_name, indices)
        return [method(*method_args, **method_kwargs) for method in methods]

    def env_is_wrapped(self, wrapper_class: object, indices: Indices = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]


def to_vec_env(
    family: Family,
    tasks: Tasks,
    *,
    lanes: int = 1,
    task_input: TaskInput = "none",
) -> FamilyVecEnv:
    """An environment for each of `tasks` and each lane, for Stable-Baselines3's algorithms::

        tasks = family.tasks("train", 8, metarl.Rng(0))
        model = PPO("MlpPolicy", VecMonitor(to_vec_env(family, tasks)))

    One policy meets all tasks, and observes of them what `task_input` says. With "goal" and a
    family that says what is achieved, observations are a Dict ("MultiInputPolicy") and
    `HerReplayBuffer` works. `VecMonitor` reports returns.
    """
    return FamilyVecEnv(FamilyVectorEnv(family, tasks, lanes=lanes, task_input=task_input))
