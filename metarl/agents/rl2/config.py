"""Configuration of RL²; imports no torch, so that errors are reported at once."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import PositiveInt, ValidationInfo, field_validator, model_validator

from metarl.agents.config import PRESET, MemoryAgentConfig
from metarl.algorithms.config import PPOConfig
from metarl.options.config import OptionsConfig

Preset = Annotated[Literal["rl2", "ppo", "dac"], PRESET]


class RL2Config(MemoryAgentConfig, PPOConfig, OptionsConfig):
    """RL²: a recurrent policy learns in a trial, by PPO (Duan et al. 2016, arXiv:1611.02779)."""

    configures = "metarl.agents.rl2.agent:RL2"
    shards_gradients = True
    small: ClassVar = {"trials": 6, "epochs": 2, "minibatches": 2}
    variants: ClassVar = {
        "rl2": {},
        "ppo": {"memory": "none"},
        "dac": {"memory": "none", "options": 4},
    }

    preset: Preset = "rl2"

    critic: Literal["shared", "privileged"] = "shared"
    """values: a head of the policy; or a network of its own that is shown what the memory reads and
    the task row, in training only"""
    critic_sizes: tuple[PositiveInt, ...] = (128, 128)
    """hidden layers of the privileged critic"""
    objective: Literal["return", "pseudo-regret"] = "return"
    """what PPO learns from: rewards; or expected rewards minus those of the known optimum"""
    trials: PositiveInt = 500
    """trials of an iteration, one task each"""

    @model_validator(mode="after")
    def _options_are_of_flat_features(self) -> Self:
        if not (self.options or self.pretrained_options):
            return self
        if self.memory == "slots":
            raise ValueError("memory slots has a feature for each action, which no option has")
        if self.critic == "privileged":
            raise ValueError("critic privileged knows one decision process; set options to 0")
        return self

    @field_validator("critic")
    @classmethod
    def _reads_a_memory(cls, value: str, others: ValidationInfo) -> str:
        if value == "privileged" and others.data.get("memory") == "none":
            raise ValueError("a privileged critic reads what a memory holds; set memory")
        return value

    @field_validator("normalize_obs")
    @classmethod
    def _not_if_pretrained(cls, value: bool, others: ValidationInfo) -> bool:
        if value and others.data.get("pretrained_options"):
            raise ValueError("pretrained options see raw observations; set normalize_obs to false")
        return value


class PPOPreset(RL2Config):
    """PPO: a policy without memory (Schulman et al. 2017, arXiv:1707.06347)."""

    preset: Annotated[Literal["ppo"], PRESET] = "ppo"


class DACPreset(RL2Config):
    """DAC: a master over options, both by PPO (Zhang & Whiteson 2019, arXiv:1904.12691)."""

    preset: Annotated[Literal["dac"], PRESET] = "dac"
