"""The policy module that every agent shares: a pure function of parameters, inputs and memory::

inputs ─ encoder (MLP) ─ memory (none, GRU, LSTM) ─ body (MLP) ─┬─ action distribution
                                                                └─ value
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from metarl.core.agent import Mode
from metarl.core.errors import MetaRLError
from metarl.core.rng import Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Acted, Inputs, Params, Spec, tree
from metarl.nn import recurrent
from metarl.nn.distributions import Pair, Primitive, from_heads
from metarl.nn.mlp import Activation, affine, init_layers, layers, orthogonal, part

State = tuple[Tensor, ...]
"""What a memory holds, each part [N, M, D]; the empty tuple without one."""


@tree
class Decision:
    """What the policy says about one or many time steps."""

    heads: Params  # what the action distribution is made of
    estimate: Tensor | None = None  # [...]

    @property
    def levels(self) -> dict[str, Decision]:
        """This, as the decision on the one process of `Policy.decision_processes`."""
        return {"action": self}

    @cached_property
    def actions(self) -> Primitive:
        """[...]: what to draw from."""
        found = from_heads(self.heads)
        assert not isinstance(found, Pair)
        return found

    @property
    def value(self) -> Tensor:
        """[...]: the expected return, of a policy that has a value head."""
        assert self.estimate is not None, "this policy has no value head"
        return self.estimate


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
    encoder_sizes: tuple[int, ...] = ()
    hidden_sizes: tuple[int, ...] = ()
    activation: Activation = "tanh"
    initial_std: float = 1.0
    initial_gain: float = 0.01
    """Scale of the action head's orthogonal weights: how much the first policy depends on what it sees."""
    squashed: bool = False
    """Continuous actions are the tanh of a normal variable whose deviation depends on the inputs too."""
    value_head: bool = True
    action_head: bool = True
    num_heads: int = 1
    """Sets of heads side by side: so many actions and values for the same features, one for each option."""
    obs_width: int = 0
    """Of the observation within the inputs; needed by `pair_input` and `readout`."""
    pair_input: bool = False
    readout: Literal["linear", "observation"] = "linear"

    @staticmethod
    def width(spec: Spec, *, cue: bool = False, task: int = 0, latent: int = 0) -> int:
        """Width of the flat inputs with these parts."""
        return spec.obs_width + (spec.cue_width if cue else 0) + task + latent

    @property
    def feature_width(self) -> int:
        """Of what the heads read."""
        before = (
            self.encoder_sizes[-1] if self.encoder_sizes else self.input_width + self._pair_width
        )
        return (
            self.hidden_sizes[-1]
            if self.hidden_sizes
            else before
            if self.memory == "none"
            else self.memory_width
        )

    def init(self, generator: torch.Generator) -> Params:
        """Orthogonal weights, zero biases; by default a small head, so that the first policy is close to uniform."""
        params: Params = {}
        width = init_layers(
            params, "encoder", self.input_width + self._pair_width, self.encoder_sizes, generator
        )
        if self.memory != "none":
            gates, last = recurrent.GATES[self.memory], width
            width = self.memory_width
            params["memory.w_ih"] = orthogonal(gates, width, last, generator)
            params["memory.w_hh"] = orthogonal(gates, width, width, generator)
            params["memory.b_ih"] = torch.zeros(gates * width)
            params["memory.b_hh"] = torch.zeros(gates * width)
        init_layers(params, "body", width, self.hidden_sizes, generator)
        squashed = self.squashed and not self.discrete
        actions = self.num_heads * (2 * self.action_width if squashed else self.action_width)
        heads = (
            ("action", self.action_head, actions, self.initial_gain),
            ("value", self.value_head, self.num_heads, 0.0),
        )
        for head, wanted, out, gain in heads:
            if wanted:
                params |= self.init_head(head, out, gain, generator)
        if self.action_head and squashed:
            params["action.bias"].view(-1, 2, actions // 2)[0, 1] = math.log(self.initial_std)
        elif self.action_head and not self.discrete:
            params["action.log_std"] = torch.full((actions,), math.log(self.initial_std))
        return params

    def init_head(self, name: str, out: int, gain: float, generator: torch.Generator) -> Params:
        """Parameters of a head of `out` numbers, for `read`."""
        maps = 1 if self.readout == "linear" else 1 + self.obs_width
        weight = gain * orthogonal(maps, out, self.feature_width, generator)
        return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(maps * out)}

    def start(self, rows: int, lanes: int, device: torch.device) -> State:
        """What is remembered before the first step: nothing."""
        state = (
            ()
            if self.memory == "none"
            else recurrent.start(self.memory, self.memory_width, rows, lanes, device)
        )
        return (
            (*state, torch.zeros(rows, lanes, self.obs_width, device=device))
            if self.pair_input
            else state
        )

    def act(
        self,
        params: Params,
        inputs: Inputs,
        state: State,
        begins: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> tuple[Acted, State]:
        """Draw an action on inputs [N, M, …], or take the most likely one → what was done, the memory after it.

        `begins` [N, M] bool: where an episode begins; the memory is kept all the same.
        """
        decision, state = self.step(params, inputs, state)
        action = (
            decision.actions.sample(noise, counter) if mode == "sample" else decision.actions.mode()
        )
        extras = {} if decision.estimate is None else {"value": decision.estimate}
        return Acted(inputs, action, decision.actions.log_prob(action), extras), state

    def step(self, params: Params, inputs: Inputs, state: State) -> tuple[Decision, State]:
        """One time step: inputs [N, M, …] → decision [N, M], the memory after it."""
        features, state = self.attend(params, inputs, state)
        return self.decide(params, features, inputs.obs), state

    def unroll(self, params: Params, inputs: Inputs, state: State) -> Decision:
        """A whole sequence from its start: inputs [T, N, M, …] → decision [T, N, M]; equals T calls of `step`."""
        return self.decide(params, self.recall(params, inputs, state), inputs.obs)

    def attend(self, params: Params, inputs: Inputs, state: State) -> tuple[Tensor, State]:
        """One time step without its heads: inputs [N, M, …] → features [N, M, F], the memory after it."""
        held, previous = (state[:-1], state[-1]) if self.pair_input else (state, inputs.obs)
        features = layers(
            params,
            "encoder",
            len(self.encoder_sizes),
            self.activation,
            self._features(inputs, previous),
        )
        if self.memory != "none":
            held = recurrent.step(self.memory, part(params, "memory"), features, held)
            features = held[0]
        features = layers(params, "body", len(self.hidden_sizes), self.activation, features)
        return features, (*held, inputs.obs) if self.pair_input else held

    def recall(self, params: Params, inputs: Inputs, state: State) -> Tensor:
        """A whole sequence without its heads: inputs [T, N, M, …] → features [T, N, M, F]."""
        held, previous = state, inputs.obs
        if self.pair_input:
            held, previous = state[:-1], torch.cat([state[-1].unsqueeze(0), inputs.obs[:-1]])
        features = layers(
            params,
            "encoder",
            len(self.encoder_sizes),
            self.activation,
            self._features(inputs, previous),
        )
        if self.memory != "none":
            features = recurrent.unroll(self.memory, part(params, "memory"), features, held)
        return layers(params, "body", len(self.hidden_sizes), self.activation, features)

    def decide(self, params: Params, features: Tensor, obs: Tensor) -> Decision:
        """The heads: features [..., F] of obs [..., O] → decision [...], its arrays `num_heads` times as wide."""
        heads: Params = {}
        if self.action_head:
            heads["squashed" if self.squashed and not self.discrete else "action"] = self.read(
                params, "action", features, obs
            )
        if "action.log_std" in params:
            heads["log_std"] = params["action.log_std"]
        if not self.value_head:
            return Decision(heads)
        value = self.read(params, "value", features, obs)
        return Decision(heads, value.squeeze(-1) if self.num_heads == 1 else value)

    def read(self, params: Params, head: str, features: Tensor, obs: Tensor) -> Tensor:
        """[..., W]: one map of the features [..., F], or the one that (1, obs) mixes from 1 + O of them."""
        out = affine(features, params[f"{head}.weight"], params[f"{head}.bias"])
        if self.readout == "linear":
            return out
        maps: Tensor = out.unflatten(-1, (1 + self.obs_width, -1))
        return maps[..., 0, :] + torch.matmul(obs.unsqueeze(-2), maps[..., 1:, :]).squeeze(-2)

    # -- as agents know it that may have options, too

    def decision_processes(self, rollout: Rollout) -> dict[str, Rollout]:
        """The decision processes that the policy acted in: one, of actions."""
        return {"action": rollout}

    def sampled_actions(self, rollout: Rollout) -> Tensor:
        """What its distributions were asked for: actions."""
        return rollout.action

    def master_parameters(self, names: Iterable[str]) -> set[str]:
        """Which of the parameters say what is done: all."""
        return set(names)

    def usage(self, rollout: Rollout) -> dict[str, float]:
        """What to log of its options: nothing."""
        return {}

    @property
    def mlp_layers(self) -> tuple[str, ...] | None:
        """The names of its layers, the last of them the action head, where the policy is nothing but a perceptron."""
        if (
            self.memory != "none"
            or self.pair_input
            or self.readout != "linear"
            or self.value_head
            or self.squashed
        ):
            return None
        parts = (("encoder", self.encoder_sizes), ("body", self.hidden_sizes))
        return (*(f"{name}.{i}" for name, widths in parts for i in range(len(widths))), "action")

    @property
    def _pair_width(self) -> int:
        return 2 * self.obs_width * self.action_width if self.pair_input else 0

    def _features(self, inputs: Inputs, previous: Tensor) -> Tensor:
        """[..., I]: the flat inputs, with the previous obs [..., O] times action if `pair_input` [..., 2·O·A]."""
        if not self.pair_input:
            return inputs.flat()
        assert inputs.cue is not None
        action, reward, _ = inputs.cue.split([self.action_width, 1, 1], dim=-1)
        pair = (previous.unsqueeze(-1) * action.unsqueeze(-2)).flatten(-2)
        return torch.cat([inputs.flat(), pair, pair * reward], dim=-1)


def check_shapes(own: Params, given: Params) -> None:
    """Whether `given` parameters fit in the place of one's `own`.

    Raises:
        MetaRLError: names the first that does not.
    """
    for name in own | given:
        here, there = (
            tuple(params[name].shape) if name in params else "absent" for params in (own, given)
        )
        if here != there:
            raise MetaRLError(
                f"warm start: parameter {name} is {there} there and {here} here; use the same agent and family"
            )
