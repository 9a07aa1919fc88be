"""Memories that are read by a key: linear attention (Katharopoulos et al. 2020, arXiv:2006.16236).

The key of a step is the observation that it was taken in; what is written there is its action,
reward and key, so that the sum over all keys says where rewards were. On the observation o_t they
are read by its key φ(o_t):

    M_t = Σ_{u < t} φ(o_u) v_uᵀ        read_t = φ(o_t)ᵀ M_t

Sums have no order, so a trial needs no back-propagation through time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metarl.core.types import Inputs, Params
from metarl.nn.mlp import init_layers, layers, linear, orthogonal

_CHUNK = 64  # steps that attend to one another; those before them are summed
# Sums and counts of a trial of about a hundred steps are brought to the size of one by constants: a
# scale that is learned from data would change what was read before.
_SHARE = 4  # a slot holds a sum of a quarter of the width

State = tuple[Tensor, ...]
"""M [N, M, K, V], the sum over all keys [N, M, V], the last key [N, M, K], and whether there is one
[N, M, 1]."""


@dataclass(frozen=True)
class _Keyed(ABC):
    """What both memories share; subclasses say what is written and how it is read."""

    width: int
    obs_width: int
    action_width: int
    keys: int = 0
    """φ is a softmax over so many learned keys; 0: the observation itself, which is one-hot."""

    @property
    @abstractmethod
    def value_width(self) -> int:
        """V."""

    @abstractmethod
    def write(self, params: Params, key: Tensor, action: Tensor, reward: Tensor) -> Tensor:
        """v [..., V] of keys [..., K], actions [..., A] and rewards [..., 1]."""

    @abstractmethod
    def read(self, params: Params, here: Tensor, everywhere: Tensor, x: Tensor) -> Tensor:
        """[..., F], of the sums [..., V] by the present key and over all keys."""

    def init(self, input_width: int, generator: torch.Generator) -> Params:
        params: Params = {}
        if self.keys:
            params["key.weight"] = orthogonal(1, self.keys, self.obs_width, generator)
            params["key.bias"] = torch.zeros(self.keys)
        return params

    def start(self, rows: int, lanes: int, device: torch.device) -> State:
        keys, values = self._key_width, self.value_width
        shapes = ((keys, values), (values,), (keys,), (1,))
        return tuple(torch.zeros(rows, lanes, *shape, device=device) for shape in shapes)

    def step(self, params: Params, x: Tensor, inputs: Inputs, state: State) -> tuple[Tensor, State]:
        memory, everywhere, last, began = state
        value = began * self._values(params, last, inputs)
        memory = memory + last.unsqueeze(-1) * value.unsqueeze(-2)
        everywhere = everywhere + value
        key = self._key(params, inputs.obs)
        here = (key.unsqueeze(-2) @ memory).squeeze(-2)
        after = (memory, everywhere, key, torch.ones_like(began))
        return self.read(params, here, everywhere, x), after

    def unroll(self, params: Params, x: Tensor, inputs: Inputs, state: State) -> Tensor:
        memory, everywhere, last, began = state
        query = self._key(params, inputs.obs)
        key = torch.cat([last.unsqueeze(0), query[:-1]])
        value = self._values(params, key, inputs)
        value = torch.cat([began * value[:1], value[1:]])
        here = linear_attention(query, key, value, memory)
        return self.read(params, here, everywhere + value.cumsum(0), x)

    @property
    def _key_width(self) -> int:
        """K."""
        return self.keys or self.obs_width

    def _key(self, params: Params, obs: Tensor) -> Tensor:
        """φ [..., K]: not negative, of sum 1."""
        return linear(params, "key", obs).softmax(-1) if self.keys else obs

    def _values(self, params: Params, key: Tensor, inputs: Inputs) -> Tensor:
        """v [..., V] of the step before each of `inputs`, which had the `key` [..., K]."""
        assert inputs.cue is not None
        action, reward, _ = inputs.cue.split([self.action_width, 1, 1], dim=-1)
        return self.write(params, key, action, reward)


class KeyedMemory(_Keyed):
    """Sums and counts of what was done and earned at this key, and at all, beside the inputs."""

    slots: ClassVar = 0

    @property
    def value_width(self) -> int:
        return self.width + 1

    def output_width(self, input_width: int) -> int:
        return 2 * self.value_width + input_width

    def init(self, input_width: int, generator: torch.Generator) -> Params:
        params = super().init(input_width, generator)
        width = 2 * (self.action_width + self._key_width) + 1
        init_layers(params, "write", width, (self.width, self.width), generator)
        return params

    def write(self, params: Params, key: Tensor, action: Tensor, reward: Tensor) -> Tensor:
        content = torch.cat([action, action * reward, reward, key, key * reward], -1)
        content = linear(params, "write.1", layers(params, "write", 1, "tanh", content))
        return torch.cat([content, torch.ones_like(reward)], -1)

    def read(self, params: Params, here: Tensor, everywhere: Tensor, x: Tensor) -> Tensor:
        split = [self.width, 1]
        total, count = here.split(split, -1)
        all_total, all_count = everywhere.split(split, -1)
        parts = [0.2 * total, (count + 1).rsqrt(), 0.05 * all_total, 0.02 * all_count - 1, x]
        return torch.cat(parts, -1)


class SlotMemory(_Keyed):
    """A slot for each (key, action); what it holds is read by weights that all slots share.

    So actions are exchangeable, as the arms of a bandit, and keys are, too: that is known, and need
    not be learned. Nothing else of the inputs is read.
    """

    @property
    def slots(self) -> int:
        return self.action_width

    @property
    def sum_width(self) -> int:
        """D, of what a slot holds beside a count."""
        return self.width // _SHARE

    @property
    def value_width(self) -> int:
        return self.action_width * (self.sum_width + 1)

    def output_width(self, input_width: int) -> int:
        return self.width

    def init(self, input_width: int, generator: torch.Generator) -> Params:
        params = super().init(input_width, generator)
        sums = self.sum_width
        for name, inputs, outputs in (
            ("write", 1, sums),
            ("slot", 2 * sums + 3, self.width),
            ("pool", 2 * self.width + sums + 2, self.width),
            ("join", self.width, self.width),
        ):
            params[f"{name}.weight"] = orthogonal(1, outputs, inputs, generator)
            params[f"{name}.bias"] = torch.zeros(outputs)
        return params

    def write(self, params: Params, key: Tensor, action: Tensor, reward: Tensor) -> Tensor:
        content = torch.tanh(linear(params, "write", reward))
        content = torch.cat([content, torch.ones_like(reward)], -1)
        return (action.unsqueeze(-1) * content.unsqueeze(-2)).flatten(-2)

    def read(self, params: Params, here: Tensor, everywhere: Tensor, x: Tensor) -> Tensor:
        split = [self.sum_width, 1]
        total, count = here.unflatten(-1, (self.slots, -1)).split(split, -1)
        all_total, all_count = everywhere.unflatten(-1, (self.slots, -1)).sum(-2).split(split, -1)
        of_key = count.sum(-2, keepdim=True).expand_as(count)

        slot = [0.1 * total, total / (count + 2), (count + 1).rsqrt()]
        slot += [0.4 * (count + 1).log() - 1, 0.02 * of_key - 1]
        each = torch.relu(linear(params, "slot", torch.cat(slot, -1)))

        pool = [each.mean(-2), each.amax(-2), all_total / (all_count + 5)]
        pool += [0.4 * (all_count + 1).log() - 1, 0.005 * all_count - 1]
        shared = linear(params, "pool", torch.cat(pool, -1))
        return torch.relu(linear(params, "join", each) + shared.unsqueeze(-2))


def linear_attention(query: Tensor, key: Tensor, value: Tensor, memory: Tensor) -> Tensor:
    """Σ_{u ≤ t} (query_t · key_u) value_u + query_tᵀ memory, for every t.

    Args:
        query, key: [T, N, M, K].
        value: [T, N, M, V].
        memory: [N, M, K, V] of what came before.
    """
    query, key, value = (x.movedim(0, 2) for x in (query, key, value))
    outputs = []
    chunks = zip(*(x.split(_CHUNK, dim=2) for x in (query, key, value)), strict=True)
    for queries, keys, values in chunks:
        scores = (queries @ keys.mT).tril()
        outputs.append(scores @ values + queries @ memory)
        memory = memory + keys.mT @ values
    return torch.cat(outputs, dim=2).movedim(2, 0)
