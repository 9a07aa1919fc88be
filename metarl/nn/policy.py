"""The policy module that every agent shares: a pure function of parameters, inputs and memory::

inputs ─ encoder (MLP) ─ memory (or none) ─ body (MLP) ─┬─ action distribution
                                                        └─ value

Images among the inputs become features first, by convolutions.

With `readout` hypernetwork, the memory makes the weights of the first layer of the body, which
reads the inputs themselves, but for the cue::

inputs ─ encoder ─ memory ─ weights
                               │
inputs without cue ──────────── layer ─ the other layers of the body ─ …
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from metarl.core.agent import Mode
from metarl.core.rng import Streams
from metarl.core.rollout import Rollout
from metarl.core.spec import is_valid
from metarl.core.types import Acted, Inputs, Params, Spec, replace, tree_map
from metarl.nn.decision import Decision
from metarl.nn.distributions import choice_heads
from metarl.nn.hypernetwork import generated, init_generated
from metarl.nn.image_encoder import ImageEncoder
from metarl.nn.memory import AnyMemory, Memory, State
from metarl.nn.mlp import (
    ACTIVATIONS,
    Activation,
    init_layers,
    layers,
    linear,
    named,
    orthogonal,
    part,
)
from metarl.nn.recurrent import RecurrentMemory


@dataclass(frozen=True)
class Policy:
    """The architecture; parameters are passed to every call.

    Parameters with a leading axis N, one copy per task, act on inputs [N, M, …] or [T, N, M, …].
    """

    input_width: int
    action_width: int
    discrete: bool
    memory: AnyMemory = "none"
    memory_width: int = 64
    """Units of a GRU or an LSTM."""
    encoder_sizes: tuple[int, ...] = ()
    hidden_sizes: tuple[int, ...] = ()
    activation: Activation = "tanh"
    initial_std: float = 1.0
    initial_gain: float = 0.01
    """Scale of the action head's orthogonal weights: how far the first policy is from uniform."""
    squashed: bool = False
    """Continuous actions are the tanh of normals whose deviation depends on the inputs too."""
    value_head: bool = True
    action_head: bool = True
    num_heads: int = 1
    """So many actions and values side by side on the same features, one set for each option."""
    obs_width: int = 0
    """Of the observation within the inputs; needed by `pair_input` and `readout`."""
    pair_input: bool = False
    """The outer product of the previous observation and action is an input too."""
    images: ImageEncoder | None = None
    """What makes features of images; `obs_width` and `input_width` count these."""
    nvec: tuple[int, ...] = ()
    """Numbers of choices of a MultiDiscrete action, `action_width` in all."""
    mask: slice | None = None
    """Of the observation, with images as features: the part that says which choices are valid."""
    readout: Literal["linear", "observation", "hypernetwork"] = "linear"
    """Whether the heads' weights are constant, or affine in the observation; or those of the first
    hidden layer are made by the memory."""

    @staticmethod
    def width(
        spec: Spec,
        *,
        cue: bool = False,
        task: int = 0,
        latent: int = 0,
    ) -> int:
        """Width of the flat inputs with these parts."""
        return spec.obs_width + cue * spec.cue_width + task + latent

    @classmethod
    def for_spec(
        cls,
        spec: Spec,
        images: ImageEncoder | None = None,
        *,
        cue: bool = False,
        task: int = 0,
        latent: int = 0,
        **architecture: Any,
    ) -> Policy:
        """For a family of this spec, with these parts of the inputs and this `architecture`.

        Images are seen by their encoder `images`.
        """
        mask = None
        obs_width = spec.obs_width
        if images is not None:
            obs_width = images.width
        if spec.action_mask is not None:
            mask = spec.part(spec.action_mask)
            if images is not None:
                mask = images.place(spec.action_mask)
        width = cls.width(spec, cue=cue, task=task, latent=latent)
        return cls(
            input_width=width - spec.obs_width + obs_width,
            action_width=spec.action_width,
            discrete=spec.discrete,
            obs_width=obs_width,
            images=images,
            nvec=spec.nvec,
            mask=mask,
            **architecture,
        )

    @property
    def feature_width(self) -> int:
        """Width of what the heads read."""
        if self.hidden_sizes:
            return self.hidden_sizes[-1]
        width = self.encoder_sizes[-1] if self.encoder_sizes else self._encoder_width
        if self._memory is not None:
            return self._memory.output_width(width)
        return width

    @property
    def flat_width(self) -> int:
        """Width of all features of a step side by side."""
        return self.feature_width * (self._slots or 1)

    def init(self, generator: torch.Generator) -> Params:
        """Orthogonal weights, zero biases, a small action head: first policies are near uniform."""
        params: Params = {}
        if self.images is not None:
            params |= named(self.images.init(generator), "images")
        width = init_layers(params, "encoder", self._encoder_width, self.encoder_sizes, generator)
        if self._memory is not None:
            params |= named(self._memory.init(width, generator), "memory")
            width = self._memory.output_width(width)
        if self.readout == "hypernetwork":
            first = self.hidden_sizes[0]
            made = init_generated(width, self._present_width, first, generator)
            params |= named(made, "generated")
            width = first
        init_layers(params, "body", width, self._body_sizes, generator)

        entries = self.num_heads * (1 if self._slots else self.action_width)
        if self.action_head:
            outputs = 2 * entries if self.squashed and not self.discrete else entries
            params |= self.init_head("action", outputs, self.initial_gain, generator)
        if self.value_head:
            params |= self.init_head("value", self.num_heads, 0.0, generator)
        if self.discrete or not self.action_head:
            return params
        log_std = math.log(self.initial_std)
        if self.squashed:
            params["action.bias"].view(-1, 2, entries)[0, 1] = log_std
        else:
            params["action.log_std"] = torch.full((entries,), log_std)
        return params

    def init_head(
        self,
        name: str,
        outputs: int,
        gain: float,
        generator: torch.Generator,
    ) -> Params:
        """Parameters of a head of `outputs` numbers, for `read`."""
        maps = 1 + self.obs_width if self.readout == "observation" else 1
        weight = gain * orthogonal(maps, outputs, self.feature_width, generator)
        return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(maps * outputs)}

    def start(
        self,
        rows: int,
        lanes: int,
        device: torch.device,
    ) -> State:
        """The empty memory."""
        state: State = ()
        if self._memory is not None:
            state = self._memory.start(rows, lanes, device)
        if self.pair_input:
            state = (*state, torch.zeros(rows, lanes, self.obs_width, device=device))
        return state

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
        """Sample an action on inputs [N, M, …], or take the mode → the action, the next memory.

        `begins` [N, M] bool: where an episode begins; the memory is kept all the same.
        """
        decision, state = self.step(params, inputs, state)
        actions = decision.actions
        action = actions.sample(noise, counter) if mode == "sample" else actions.mode()
        extras = {} if decision.estimate is None else {"value": decision.estimate}
        return Acted(inputs, action, actions.log_prob(action), extras), state

    def step(
        self,
        params: Params,
        inputs: Inputs,
        state: State,
    ) -> tuple[Decision, State]:
        """One time step: inputs [N, M, …] → decision [N, M], the next memory."""
        inputs = self.encode_images(params, inputs)
        features, state = self.attend(params, inputs, state)
        return self.decide(params, features, inputs.obs), state

    def unroll(
        self,
        params: Params,
        inputs: Inputs,
        state: State,
    ) -> Decision:
        """A whole sequence from its start, T calls of `step`: inputs [T, N, M, …] → [T, N, M]."""
        inputs = self.encode_images(params, inputs)
        return self.decide(params, self.recall(params, inputs, state), inputs.obs)

    def encode_images(self, params: Params, inputs: Inputs) -> Inputs:
        """The inputs [...] with features in the place of images: what all methods below read."""
        if self.images is None:
            return inputs
        return replace(inputs, obs=self.images(part(params, "images"), inputs.obs))

    def attend(
        self,
        params: Params,
        inputs: Inputs,
        state: State,
    ) -> tuple[Tensor, State]:
        """One time step without heads: inputs [N, M, …] → features [N, M, F], the next memory."""
        previous_obs = inputs.obs
        if self.pair_input:
            previous_obs = state[-1]
            state = state[:-1]
        features = self._encode(params, inputs, previous_obs)
        if self._memory is not None:
            memory = part(params, "memory")
            features, state = self._memory.step(memory, features, inputs, state)
        if self.pair_input:
            state = (*state, inputs.obs)
        return self._body(params, features, inputs), state

    def recall(
        self,
        params: Params,
        inputs: Inputs,
        state: State,
    ) -> Tensor:
        """A whole sequence without heads: inputs [T, N, M, …] → features [T, N, M, F]."""
        previous_obs = inputs.obs
        if self.pair_input:
            first = state[-1].unsqueeze(0)
            previous_obs = torch.cat([first, inputs.obs[:-1]])
            state = state[:-1]
        features = self._encode(params, inputs, previous_obs)
        if self._memory is not None:
            memory = part(params, "memory")
            features = self._memory.unroll(memory, features, inputs, state)
        return self._body(params, features, inputs)

    def decide(
        self,
        params: Params,
        features: Tensor,
        obs: Tensor,
    ) -> Decision:
        """The heads: features [..., F] of obs [..., O] → decision [...] of `num_heads`."""
        heads: Params = {}
        if self.action_head:
            name = "squashed" if self.squashed and not self.discrete else "action"
            heads[name] = self.read(params, "action", features, obs)
        if self.action_head and (self.nvec or self.mask is not None):
            valid = None if self.mask is None else is_valid(obs[..., self.mask])
            heads = choice_heads(heads["action"], self.nvec, valid)
        if "action.log_std" in params:
            heads["log_std"] = params["action.log_std"]
        if not self.value_head:
            return Decision(heads)
        value = self.read(params, "value", features, obs)
        return Decision(heads, value.squeeze(-1) if self.num_heads == 1 else value)

    def read(
        self,
        params: Params,
        head: str,
        features: Tensor,
        obs: Tensor,
    ) -> Tensor:
        """[..., W]: a linear map of features [..., F], or (1, obs) times 1 + O of them.

        Of slots [..., A, F]: an entry for each, and values of their mean.
        """
        if self.readout == "observation":
            return generated(params, head, features, obs)
        if self._slots and head == "action":
            return linear(params, head, features).squeeze(-1)
        if self._slots:
            features = features.mean(-2)
        return linear(params, head, features)

    # -- interface shared with OptionPolicy

    def decision_processes(self, rollout: Rollout) -> dict[str, Rollout]:
        """The decision processes that the policy acted in: one, of actions."""
        return {"action": rollout}

    def successor_values(self, params: Params, inputs: Inputs, chosen: Tensor) -> Tensor:
        """[n]: V after the n steps `chosen` [T, N, M] bool of a policy without memory.

        `inputs` [T, N, M, …] are those of the steps, except that obs is the successor's.
        """
        return self.unroll(params, tree_map(lambda x: x[chosen], inputs), ()).value

    def sampled_actions(self, rollout: Rollout) -> Tensor:
        """What was drawn from its distributions: actions."""
        return rollout.action

    def master_parameters(self, names: Iterable[str]) -> set[str]:
        """Which of the parameters choose what is done: all."""
        return set(names)

    def usage(self, rollout: Rollout) -> dict[str, float]:
        """What to log of its options: nothing."""
        return {}

    @property
    def recurrent(self) -> bool:
        """Whether it remembers earlier steps."""
        return self.memory != "none"

    @property
    def mlp_layers(self) -> tuple[str, ...] | None:
        """Names of the layers up to the action head, if the policy is a plain MLP; else None."""
        if self.memory != "none" or self.pair_input or self.readout != "linear":
            return None
        if self.images is not None or self.nvec or self.mask is not None:
            return None
        if self.value_head or self.squashed:
            return None
        encoder = [f"encoder.{i}" for i in range(len(self.encoder_sizes))]
        body = [f"body.{i}" for i in range(len(self.hidden_sizes))]
        return (*encoder, *body, "action")

    @cached_property
    def _memory(self) -> Memory | None:
        if self.memory == "gru" or self.memory == "lstm":
            return RecurrentMemory(self.memory, self.memory_width)
        return None if self.memory == "none" else self.memory

    @property
    def _slots(self) -> int:
        return 0 if self._memory is None else self._memory.slots

    @property
    def _encoder_width(self) -> int:
        """Width of what goes into the encoder."""
        pairs = 2 * self.obs_width * self.action_width
        return self.input_width + self.pair_input * pairs

    @property
    def _body_sizes(self) -> tuple[int, ...]:
        """Widths of the layers of the body that have weights of their own."""
        return self.hidden_sizes[1:] if self.readout == "hypernetwork" else self.hidden_sizes

    @property
    def _present_width(self) -> int:
        """Width of the inputs without the cue, which tells of the last step."""
        return self.input_width - (self.action_width + 2)

    def _encode(
        self,
        params: Params,
        inputs: Inputs,
        previous_obs: Tensor,
    ) -> Tensor:
        """The encoder's output; with `pair_input`, previous obs [..., O] ⊗ action is read too."""
        x = inputs.flat()
        if self.pair_input:
            assert inputs.cue is not None
            widths = [self.action_width, 1, 1]
            action, reward, _ = inputs.cue.split(widths, dim=-1)
            outer = previous_obs.unsqueeze(-1) * action.unsqueeze(-2)
            pair = outer.flatten(-2)
            x = torch.cat([x, pair, pair * reward], dim=-1)
        return layers(params, "encoder", len(self.encoder_sizes), self.activation, x)

    def _body(self, params: Params, features: Tensor, inputs: Inputs) -> Tensor:
        """The layers after the memory, of what it gives, `features` [..., F]."""
        if self.readout == "hypernetwork":
            present = replace(inputs, cue=None).flat()
            features = generated(params, "generated", features, present)
            features = ACTIVATIONS[self.activation](features)
        return layers(params, "body", len(self._body_sizes), self.activation, features)
