"""Configuration of RL²; imports no torch, so that errors are reported at once."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import PositiveFloat, PositiveInt, ValidationInfo, field_validator, model_validator

from metarl.agents.config import PRESET, TaskInput
from metarl.algorithms.config import PPOConfig
from metarl.nn.config import MemoryConfig
from metarl.options.config import OptionsConfig

Preset = Annotated[Literal["rl2", "ppo", "dac"], PRESET]


class RL2Config(MemoryConfig, PPOConfig, OptionsConfig):
    """RL²: a recurrent policy learns in a trial, by PPO (Duan et al. 2016, arXiv:1611.02779)."""

    configures = "metarl.agents.rl2.agent:RL2"
    small: ClassVar = {"trials": 6, "epochs": 2, "minibatches": 2}
    variants: ClassVar = {
        "rl2": {},
        "ppo": {"memory": "none"},
        "dac": {"memory": "none", "options": 4},
    }

    preset: Preset = "rl2"

    task_input: TaskInput = "none"
    encoder_sizes: tuple[PositiveInt, ...] = ()
    """widths of the layers before the memory"""
    hidden_sizes: tuple[PositiveInt, ...] = ()
    """widths of the layers after the memory"""
    activation: Literal["tanh", "relu"] = "tanh"
    """activation of these layers"""
    pair_input: bool = False
    """the memory also sees the last observation times the last action, and that times the reward"""
    readout: Literal["linear", "observation"] = "linear"
    """heads: linear, or with weights that are affine in the observation"""
    initial_std: PositiveFloat = 1.0
    """standard deviation of the first policy (continuous actions)"""
    critic: Literal["shared", "privileged"] = "shared"
    """values: a head of the policy; or a network of its own that is shown what the memory reads and
    the task row, in training only"""
    critic_sizes: tuple[PositiveInt, ...] = (128, 128)
    """hidden layers of the privileged critic"""
    objective: Literal["return", "pseudo-regret"] = "return"
    """what PPO learns from: rewards; or expected rewards minus those of the known optimum"""
    trials: PositiveInt = 500
    """trials of an iteration, one task each"""

    @field_validator("pair_input")
    @classmethod
    def _needs_memory(cls, value: bool, others: ValidationInfo) -> bool:
        if value and others.data.get("memory") == "none":
            raise ValueError("only a memory sees the previous action; set memory to gru or lstm")
        return value

    @model_validator(mode="after")
    def _fits_the_memory(self) -> Self:
        if self.memory == "slots":
            refused = {
                "options": self.options or self.pretrained_options,
                "task_input": self.task_input != "none",
                "pair_input": self.pair_input,
                "encoder_sizes": self.encoder_sizes,
                "readout": self.readout != "linear",
            }
            for name, is_set in refused.items():
                if is_set:
                    raise ValueError(
                        f"memory slots reads rewards and counts of each action alone: leave {name}"
                    )
        if self.critic == "privileged" and (
            self.memory == "none" or self.options or self.pretrained_options
        ):
            raise ValueError("critic privileged needs a memory, and no options")
        return self

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
