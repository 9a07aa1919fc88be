"""A transformer (Vaswani et al. 2017, arXiv:1706.03762) as the memory of a trial.

A token is a transition, as in algorithm distillation and DPT: the previous observation, what was
done in it and earned, and the present observation. A look-up is then a single attention: what was
seen before is the key, what is seen now the query.

Blocks are pre-norm (Xiong et al. 2020, arXiv:2002.04745) and causal; positions are relative, by
rotary embeddings (Su et al. 2021, arXiv:2104.09864), so that trials may be longer than those of
training::

    x ← x + Attention(LN(x))        x ← x + MLP(LN(x))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from metarl.core.types import Inputs, Params, append_axes, tree
from metarl.nn.mlp import linear, orthogonal

_ROTARY_BASE = 10_000.0
_MLP_RATIO = 2
_BLOCK = 16  # steps of a block of the cache: what `step` copies of each layer

Blocks = tuple[Tensor, ...]


@tree
class Cache:
    """Keys and values of the last C steps of every lane, those of step t at place t mod C.

    They are kept in blocks of [N, M, heads, B, D / heads], of which a step replaces one; the others
    are shared with the state before.
    """

    keys: tuple[Blocks, ...]  # of every layer
    values: tuple[Blocks, ...]
    time: Tensor  # [N, M] int64: steps so far


State = tuple[Cache, Tensor]
"""The cache, and the last observation [N, M, O]."""


@dataclass(frozen=True)
class TransformerMemory:
    """`layers` blocks of `heads` heads on tokens of `width`, one token a step."""

    width: int
    obs_width: int
    layers: int
    heads: int
    context: int
    slots: ClassVar = 0

    def output_width(self, input_width: int) -> int:
        return self.width

    def init(self, input_width: int, generator: torch.Generator) -> Params:
        """Orthogonal weights; what a block adds begins small, by 1 / √(2 L)."""
        width = self.width
        scale = 1 / math.sqrt(2 * self.layers)
        params: Params = {}

        def add(name: str, inputs: int, outputs: int, gain: float) -> None:
            params[f"{name}.weight"] = gain * orthogonal(1, outputs, inputs, generator)
            params[f"{name}.bias"] = torch.zeros(outputs)

        add("token", input_width + self.obs_width, width, 1.0)
        for i in range(self.layers):
            for name in ("query", "key", "value"):
                add(f"{i}.{name}", width, width, 1.0)
            add(f"{i}.attended", width, width, scale)
            add(f"{i}.wide", width, _MLP_RATIO * width, math.sqrt(2))
            add(f"{i}.narrow", _MLP_RATIO * width, width, scale)
            for name in ("attention_norm", "mlp_norm"):
                params |= _first_norm(f"{i}.{name}", width)
        return params | _first_norm("norm", width)

    def start(self, rows: int, lanes: int, device: torch.device) -> State:
        shape = (rows, lanes, self.heads, _BLOCK, self.width // self.heads)
        blocks = (torch.zeros(shape, device=device),) * -(-self.context // _BLOCK)
        time = torch.zeros(rows, lanes, dtype=torch.long, device=device)
        cache = Cache((blocks,) * self.layers, (blocks,) * self.layers, time)
        return cache, torch.zeros(rows, lanes, self.obs_width, device=device)

    def step(self, params: Params, x: Tensor, inputs: Inputs, state: State) -> tuple[Tensor, State]:
        cache, previous_obs = state
        time = cache.time
        first, last = (t // _BLOCK for t in torch.stack(time.aminmax()).tolist())  # blocks
        count = len(cache.keys[0])
        capacity, used = _BLOCK * count, min(last + 1, count)
        current = {block % count for block in range(first, last + 1)}
        place = torch.arange(used * _BLOCK, device=x.device)
        age = (time.unsqueeze(-1) - place) % capacity  # [N, M, C]
        seen = (age < self.context) & (age <= time.unsqueeze(-1))
        written = (time % capacity).unsqueeze(-1) == place

        x = linear(params, "token", torch.cat([x, previous_obs], -1))
        all_keys, all_values = [], []
        for i in range(self.layers):
            query, key, value = self._projected(params, i, x, time)
            keys = _with_entry(cache.keys[i], current, written, key)
            values = _with_entry(cache.values[i], current, written, value)
            x = self._block(params, i, x, _attention(query, keys[:used], values[:used], seen))
            all_keys.append(keys)
            all_values.append(values)
        cache = Cache(tuple(all_keys), tuple(all_values), time + 1)
        return _norm(params, "norm", x), (cache, inputs.obs)

    def unroll(self, params: Params, x: Tensor, inputs: Inputs, state: State) -> Tensor:
        """From the empty memory, all steps at once."""
        steps = len(x)
        entry = torch.arange(steps, device=x.device)
        age = entry.unsqueeze(-1) - entry
        seen = (age >= 0) & (age < self.context)
        time = append_axes(entry, 3)

        previous_obs = torch.cat([state[1].unsqueeze(0), inputs.obs[:-1]])
        x = linear(params, "token", torch.cat([x, previous_obs], -1))
        for i in range(self.layers):
            projected = self._projected(params, i, x, time)
            query, key, value = (part.movedim(0, 3) for part in projected)  # [N, M, h, T, D / h]
            read = scaled_dot_product_attention(query, key, value, attn_mask=seen)
            x = self._block(params, i, x, read.movedim(3, 0))
        return _norm(params, "norm", x)

    def _projected(
        self, params: Params, layer: int, x: Tensor, time: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [..., heads, D / heads] of x [..., D] at `time` [...]."""
        x = _norm(params, f"{layer}.attention_norm", x)
        query, key, value = (
            linear(params, f"{layer}.{name}", x).unflatten(-1, (self.heads, -1))
            for name in ("query", "key", "value")
        )
        return _rotated(query, time), _rotated(key, time), value

    def _block(self, params: Params, layer: int, x: Tensor, read: Tensor) -> Tensor:
        """x [..., D] after block `layer`, whose heads have read [..., heads, D / heads]."""
        x = x + linear(params, f"{layer}.attended", read.flatten(-2))
        wide = gelu(linear(params, f"{layer}.wide", _norm(params, f"{layer}.mlp_norm", x)))
        return x + linear(params, f"{layer}.narrow", wide)


def _with_entry(blocks: Blocks, current: set[int], written: Tensor, new: Tensor) -> Blocks:
    """The blocks with new [N, M, heads, D] at the places `written` [N, M, C], all in `current`."""
    changed, places = list(blocks), written.split(_BLOCK, -1)
    for i in current:
        place = places[i][:, :, None, :, None]
        changed[i] = torch.where(place, new.unsqueeze(-2), blocks[i])
    return tuple(changed)


def _attention(query: Tensor, keys: Blocks, values: Blocks, seen: Tensor) -> Tensor:
    """What query [N, M, heads, D] reads of the places that are `seen` [N, M, C]."""
    query = query.unsqueeze(-2) / math.sqrt(query.shape[-1])
    scores = torch.cat([query @ block.mT for block in keys], -1)  # [N, M, heads, 1, C]
    weights = scores.masked_fill(~seen[:, :, None, None], -math.inf).softmax(-1)
    read = torch.zeros_like(query)
    for weight, block in zip(weights.split(_BLOCK, -1), values, strict=True):
        read = read + weight @ block
    return read.squeeze(-2)


def _rotated(x: Tensor, time: Tensor) -> Tensor:
    """x [..., heads, D], its pairs (i, i + D / 2) turned by `time` [...] · base^(−2 i / D)."""
    half = x.shape[-1] // 2
    exponent = torch.arange(half, device=x.device) / half
    angle = time.unsqueeze(-1).unsqueeze(-1) * _ROTARY_BASE**-exponent
    first, second = x.chunk(2, -1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


def _first_norm(name: str, width: int) -> Params:
    return {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}


def _norm(params: Params, name: str, x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:], params[f"{name}.weight"], params[f"{name}.bias"])
