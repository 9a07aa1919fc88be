"""What a policy remembers of the steps of a trial: the interface, and memories by their names."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from metarl.core.errors import ConfigError
from metarl.core.types import Inputs, Params, Spec
from metarl.nn.config import LOOKED_UP, MemoryConfig
from metarl.nn.deep_sets import SetMemory
from metarl.nn.image_encoder import ImageEncoder
from metarl.nn.keyed import KeyedMemory, SlotMemory
from metarl.nn.mlp import named, part
from metarl.nn.recurrent import RecurrentMemory
from metarl.nn.transformer import TransformerMemory

State = tuple[Any, ...]
"""A tree of tensors of axes [N, M, …]; the empty tuple without a memory."""


class Memory(Protocol):
    """What a policy remembers: a pure function of parameters, inputs and state."""

    @property
    def slots(self) -> int:
        """0: what it gives is [..., F]; else [..., slots, F], a row for each discrete action."""

    def output_width(self, input_width: int) -> int:
        """F, given the width of its inputs."""

    def init(self, input_width: int, generator: torch.Generator) -> Params:
        """The first parameters."""

    def start(self, rows: int, lanes: int, device: torch.device) -> State:
        """The empty memory."""

    def step(self, params: Params, x: Tensor, inputs: Inputs, state: State) -> tuple[Tensor, State]:
        """One step: x [N, M, I], the encoded `inputs` → what is read, and the next state."""

    def unroll(self, params: Params, x: Tensor, inputs: Inputs, state: State) -> Tensor:
        """A whole sequence from its start, T calls of `step`: x [T, N, M, I] → [T, N, M, F]."""


AnyMemory = Memory | Literal["gru", "lstm", "none"]
"""A memory, or the name of a recurrent one."""


def make_memory(config: MemoryConfig, spec: Spec, images: ImageEncoder | None = None) -> AnyMemory:
    """The memory that `config` names; of images it sees the features.

    Raises:
        ConfigError: actions or observations that it is not made for.
    """
    width, actions = config.memory_width, spec.action_width
    obs_width = spec.obs_width if images is None else images.width
    if images is not None and config.memory in LOOKED_UP and not config.memory_keys:
        raise ConfigError(
            f"memory {config.memory}: images of {spec.name} are no one-hots to look up by; set "
            "agent.memory_keys, or agent.memory=gru"
        )
    keyed = KeyedMemory(width, obs_width, actions, config.memory_keys)
    match config.memory:
        case "keyed":
            return keyed
        case "gru+keyed":
            return JointMemory(RecurrentMemory("gru", width), keyed)
        case "slots":
            if not spec.single_choice:
                raise ConfigError(
                    f"memory slots: actions of {spec.name} are no single choice; set "
                    "agent.memory=keyed"
                )
            return SlotMemory(width, obs_width, actions, config.memory_keys)
        case "set":
            return SetMemory(width)
        case "transformer":
            return TransformerMemory(
                width,
                obs_width,
                config.attention_layers,
                config.attention_heads,
                config.context,
            )
    return config.memory


class JointMemory:
    """Two memories side by side, such as a GRU and a look-up (Beck et al. 2024, SplAgger)."""

    slots = 0

    def __init__(self, first: Memory, second: Memory):
        self.parts = {"first": first, "second": second}

    def output_width(self, input_width: int) -> int:
        return sum(memory.output_width(input_width) for memory in self.parts.values())

    def init(self, input_width: int, generator: torch.Generator) -> Params:
        params: Params = {}
        for name, memory in self.parts.items():
            params |= named(memory.init(input_width, generator), name)
        return params

    def start(self, rows: int, lanes: int, device: torch.device) -> State:
        return tuple(memory.start(rows, lanes, device) for memory in self.parts.values())

    def step(self, params: Params, x: Tensor, inputs: Inputs, state: State) -> tuple[Tensor, State]:
        outputs, states = [], []
        for (name, memory), own in zip(self.parts.items(), state, strict=True):
            output, after = memory.step(part(params, name), x, inputs, own)
            outputs.append(output)
            states.append(after)
        return torch.cat(outputs, -1), tuple(states)

    def unroll(self, params: Params, x: Tensor, inputs: Inputs, state: State) -> Tensor:
        outputs = []
        for (name, memory), own in zip(self.parts.items(), state, strict=True):
            outputs.append(memory.unroll(part(params, name), x, inputs, own))
        return torch.cat(outputs, -1)
