"""What the options of several agents share; imports no torch."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from metarl.nn.config import LOOKED_UP, ImageConfig, MemoryConfig

TaskInput = Annotated[
    Literal["none", "row", "goal", "onehot"],
    Field(description="what the agent sees of the task: nothing, its row, its goal, or a one-hot"),
]
PRESET = Field(description="the named set of defaults")


class PolicyConfig(MemoryConfig):
    """The policy of an agent that learns in a trial by what it remembers."""

    task_input: TaskInput = "none"
    encoder_sizes: tuple[PositiveInt, ...] = ()
    """widths of the layers before the memory"""
    hidden_sizes: tuple[PositiveInt, ...] = ()
    """widths of the layers after the memory"""
    activation: Literal["tanh", "relu"] = "tanh"
    """activation of these layers"""
    pair_input: bool = False
    """the memory also sees the last observation times the last action, and that times the reward"""
    readout: Literal["linear", "observation", "hypernetwork"] = "linear"
    """heads: linear, or with weights that are affine in the observation; hypernetwork: the memory
    makes the first hidden layer, which reads the observation"""
    initial_std: PositiveFloat = 1.0
    """standard deviation of the first policy (continuous actions)"""

    @field_validator("memory_keys")
    @classmethod
    def _keys_are_not_negative(cls, value: int, others: ValidationInfo) -> int:
        memory, is_normalized = (others.data.get(x) for x in ("memory", "normalize_obs"))
        if memory in LOOKED_UP and is_normalized and not value:
            raise ValueError(
                f"memory {memory} is looked up by the observation itself, and a normalized one is "
                "no one-hot; set memory_keys, such as 8, or normalize_obs to false"
            )
        return value

    @field_validator("pair_input")
    @classmethod
    def _needs_memory(cls, value: bool, others: ValidationInfo) -> bool:
        if value and others.data.get("memory") == "none":
            raise ValueError("only a memory sees the previous action; set memory to gru or lstm")
        return value

    @field_validator("readout")
    @classmethod
    def _makes_a_layer(cls, value: str, others: ValidationInfo) -> str:
        if value != "hypernetwork":
            return value
        memory = others.data.get("memory")
        if memory in ("none", "slots"):
            raise ValueError(
                f"memory {memory} makes no weights; set memory to gru or keyed, or readout to "
                "linear"
            )
        if others.data.get("hidden_sizes") == ():
            raise ValueError(
                "the memory makes the first layer of hidden_sizes; set hidden_sizes, such as "
                "[64], or readout to linear"
            )
        return value

    @model_validator(mode="after")
    def _slots_read_nothing_else(self) -> Self:
        unread = {
            "task_input": self.task_input != "none",
            "encoder_sizes": self.encoder_sizes,
            "pair_input": self.pair_input,
            "readout": self.readout != "linear",
        }
        for name, is_set in unread.items():
            if self.memory == "slots" and is_set:
                raise ValueError(
                    f"memory slots reads actions, rewards and keys alone: leave {name}"
                )
        return self


class MemoryAgentConfig(PolicyConfig, ImageConfig):
    """An agent that is one policy with memory."""
