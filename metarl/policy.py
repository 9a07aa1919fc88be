"""The policy module that every agent shares: a pure function of parameters, inputs and memory::

inputs ─ encoder (MLP) ─ memory (none, GRU, LSTM) ─ body (MLP) ─┬─ action distribution
                                                                └─ value
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metarl import memory
from metarl.distribution import Categorical, Distribution, Gaussian
from metarl.errors import Mistake
from metarl.types import Inputs, Params, Spec, tree

Activation = Literal["tanh", "relu"]
State = tuple[Tensor, ...]
"""What a memory holds, each part [N, M, D]; the empty tuple without one."""


@tree
class Decision:
    """What the policy says about one or many time steps."""

    actions: Distribution
    value: Tensor  # [...]


@dataclass(frozen=True)
class Policy:
    """The architecture; parameters are passed to every call.

    Parameters with a leading axis N, one copy a task, act on inputs [N, M, …] or [T, N, M, …].
    """

    input_width: int
    action_width: int
    discrete: bool
    memory: Literal["none", "gru", "lstm"] = "none"
    memory_width: int = 64
    encoder: tuple[int, ...] = ()
    body: tuple[int, ...] = ()
    activation: Activation = "tanh"
    initial_std: float = 1.0

    @staticmethod
    def width(spec: Spec, *, cue: bool = False, task: int = 0, latent: int = 0, option: int = 0) -> int:
        """Width of the flat inputs with these parts."""
        return spec.obs_width + (spec.cue_width if cue else 0) + task + latent + option

    def init(self, generator: torch.Generator) -> Params:
        """Orthogonal weights, zero biases; small heads, so that the first policy is close to uniform and the value flat."""
        params: Params = {}
        width = self._init_layers(params, "encoder", self.input_width, self.encoder, generator)
        if self.memory != "none":
            gates, last = memory.GATES[self.memory], width
            width = self.memory_width
            params["memory.w_ih"] = _orthogonal(gates, width, last, generator)
            params["memory.w_hh"] = _orthogonal(gates, width, width, generator)
            params["memory.b_ih"] = torch.zeros(gates * width)
            params["memory.b_hh"] = torch.zeros(gates * width)
        width = self._init_layers(params, "body", width, self.body, generator)
        for head, out, gain in (("action", self.action_width, 0.01), ("value", 1, 0.0)):
            params[f"{head}.weight"] = gain * _orthogonal(1, out, width, generator)
            params[f"{head}.bias"] = torch.zeros(out)
        if not self.discrete:
            params["action.log_std"] = torch.full((self.action_width,), math.log(self.initial_std))
        return params

    def start(self, rows: int, lanes: int, device: torch.device) -> State:
        """The memory before the first step."""
        if self.memory == "none":
            return ()
        return memory.start(self.memory, self.memory_width, rows, lanes, device)

    def step(self, params: Params, inputs: Inputs, state: State) -> tuple[Decision, State]:
        """One time step: inputs [N, M, …] → decision [N, M], the memory after it."""
        features = self._layers(params, "encoder", self.encoder, inputs.flat())
        if self.memory != "none":
            state = memory.step(self.memory, _part(params, "memory"), features, state)
            features = state[0]
        return self._decide(params, features), state

    def unroll(self, params: Params, inputs: Inputs, state: State) -> Decision:
        """A whole sequence from its start: inputs [T, N, M, …] → decision [T, N, M]; equals T calls of `step`."""
        features = self._layers(params, "encoder", self.encoder, inputs.flat())
        if self.memory != "none":
            features = memory.unroll(self.memory, _part(params, "memory"), features, state)
        return self._decide(params, features)

    def _decide(self, params: Params, features: Tensor) -> Decision:
        features = self._layers(params, "body", self.body, features)
        action = memory.affine(features, params["action.weight"], params["action.bias"])
        value = memory.affine(features, params["value.weight"], params["value.bias"]).squeeze(-1)
        if self.discrete:
            return Decision(Categorical(action), value)
        log_std = params["action.log_std"]
        return Decision(Gaussian(action, log_std.unsqueeze(-2) if log_std.dim() > 1 else log_std), value)

    def _layers(self, params: Params, name: str, widths: tuple[int, ...], x: Tensor) -> Tensor:
        activate = torch.tanh if self.activation == "tanh" else torch.relu
        for i in range(len(widths)):
            x = activate(memory.affine(x, params[f"{name}.{i}.weight"], params[f"{name}.{i}.bias"]))
        return x

    def _init_layers(
        self, params: Params, name: str, width: int, widths: tuple[int, ...], generator: torch.Generator
    ) -> int:
        for i, out in enumerate(widths):
            params[f"{name}.{i}.weight"] = math.sqrt(2) * _orthogonal(1, out, width, generator)
            params[f"{name}.{i}.bias"] = torch.zeros(out)
            width = out
        return width


def check_shapes(own: Params, given: Params) -> None:
    """Whether `given` parameters fit in the place of one's `own`.

    Raises:
        Mistake: names the first that does not.
    """
    for name in own | given:
        here, there = (tuple(params[name].shape) if name in params else "absent" for params in (own, given))
        if here != there:
            raise Mistake(
                f"warm start: parameter {name} is {there} there and {here} here; use the same agent and family"
            )


def _part(params: Params, name: str) -> Params:
    return {key.removeprefix(name + "."): value for key, value in params.items() if key.startswith(name + ".")}


def _orthogonal(blocks: int, out: int, width: int, generator: torch.Generator) -> Tensor:
    """[blocks · out, width], each block orthogonal."""
    parts = [torch.nn.init.orthogonal_(torch.empty(out, width), generator=generator) for _ in range(blocks)]
    return torch.cat(parts)
