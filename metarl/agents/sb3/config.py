"""Configuration of Stable-Baselines3's algorithms; imports no torch, to report errors at once."""

from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, ValidationInfo, field_validator

from metarl.agents.config import TaskInput
from metarl.config.registry import Settings

Algorithm = Literal["ppo", "sac", "td3", "recurrent-ppo", "tqc", "crossq"]

ON_POLICY: tuple[Algorithm, ...] = ("ppo", "recurrent-ppo")
CONTRIB: tuple[Algorithm, ...] = ("recurrent-ppo", "tqc", "crossq")
"""Of the package sb3-contrib."""

_OURS = {
    "_init_setup_model": "is set here",
    "action_noise": "set agent.action_noise",
    "device": "set device",
    "env": "set family",
    "optimize_memory_usage": "episodes begin anew in every iteration",
    "policy": "it follows from agent.task_input",
    "replay_buffer_class": "set agent.hindsight",
    "rollout_buffer_class": "it is the algorithm's own",
    "seed": "set seed",
    "tensorboard_log": "the run folder has one",
    "verbose": "the run folder has the log",
}
"""Arguments of Stable-Baselines3 that are not given, and why."""


class SB3Config(Settings):
    """An algorithm of Stable-Baselines3, trained in its own loop (Raffin et al. 2021)."""

    configures = "metarl.agents.sb3.agent:SB3"
    needs_family = True
    small: ClassVar = {
        "tasks": 4,
        "iteration_steps": 60,
        "arguments": {"n_steps": 16, "batch_size": 32, "n_epochs": 2},
    }

    algorithm: Algorithm = "ppo"
    """recurrent-ppo (which is RL²), tqc and crossq are those of sb3-contrib"""
    arguments: dict[str, Any] = Field(default={})
    """of its constructor, such as {gamma: 0.95, policy_kwargs: {net_arch: [64, 64]}}; a schedule is
    [first, last] or [first, last, share]"""
    task_input: TaskInput = "none"
    tasks: PositiveInt = 8
    """training tasks of an iteration; recurrent-ppo draws one of them for every trial"""
    lanes: PositiveInt = 1
    """parallel environments of each task; of recurrent-ppo: in all"""
    iteration_steps: PositiveInt = 2000
    """environment steps of an iteration; of ppo and recurrent-ppo: n_steps in each environment"""
    hindsight: bool = False
    """replayed goals are those that were achieved later (HER); sac, td3 and tqc"""
    action_noise: NonNegativeFloat = 0.0
    """standard deviation of normal noise on actions in training; sac, td3, tqc and crossq"""

    @property
    def on_policy(self) -> bool:
        return self.algorithm in ON_POLICY

    @property
    def recurrent(self) -> bool:
        return self.algorithm == "recurrent-ppo"

    @field_validator("arguments")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in sorted(value.keys() & _OURS.keys()):
            raise ValueError(f"{name} cannot be given: {_OURS[name]}")
        return value

    @field_validator("hindsight")
    @classmethod
    def _has_goals(cls, value: bool, others: ValidationInfo) -> bool:
        algorithm, shown = others.data.get("algorithm"), others.data.get("task_input")
        if value and (algorithm not in ("sac", "td3", "tqc") or shown != "goal"):
            raise ValueError("set algorithm to sac, td3 or tqc, and task_input to goal")
        return value

    @field_validator("action_noise")
    @classmethod
    def _is_off_policy(cls, value: float, others: ValidationInfo) -> float:
        if value and others.data.get("algorithm") in ON_POLICY:
            raise ValueError(f"{others.data['algorithm']} draws actions from its policy; set 0")
        return value
