"""Memories against what they compute: steps, sums, counts, symmetries, windows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch
from helpers import CPU, same
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from metarl.agents.strategies.mdps import Experience
from metarl.config.registry import find
from metarl.core.errors import ConfigError
from metarl.core.rng import Rng
from metarl.core.types import Inputs, Params, tree_map, where
from metarl.nn.keyed import KeyedMemory, SlotMemory, linear_attention
from metarl.nn.memory import JointMemory, Memory
from metarl.nn.policy import Policy, State
from metarl.nn.recurrent import RecurrentMemory
from metarl.nn.transformer import TransformerMemory

T, N, M, S, A = 150, 3, 2, 4, 3  # more steps than a chunk of keys or a block of the cache
WIDTH = S + A + 2

MEMORIES: dict[str, Memory] = {
    "gru": RecurrentMemory("gru", 6),
    "lstm": RecurrentMemory("lstm", 6),
    "keyed": KeyedMemory(6, S, A),
    "learned keys": KeyedMemory(6, S, A, keys=5),
    "slots": SlotMemory(8, S, A),
    "slots of learned keys": SlotMemory(8, S, A, keys=5),
    "gru+keyed": JointMemory(RecurrentMemory("gru", 6), KeyedMemory(6, S, A)),
    "transformer": TransformerMemory(8, S, 2, 2, context=T),
    "transformer, window": TransformerMemory(8, S, 2, 2, context=20),
    "transformer, window of blocks": TransformerMemory(8, S, 2, 2, context=32),
}
MAKE_WEIGHTS = [f"{name}, makes weights" for name, memory in MEMORIES.items() if not memory.slots]
EVERY = pytest.mark.parametrize("name", [*MEMORIES, *MAKE_WEIGHTS])


@pytest.fixture
def inputs() -> Inputs:
    torch.manual_seed(0)
    obs = one_hot(torch.randint(S, (T, N, M)), S).float()
    action = one_hot(torch.randint(A, (T, N, M)), A).float()
    cue = torch.cat([action, torch.randn(T, N, M, 1), torch.zeros(T, N, M, 1)], -1)
    cue[0] = 0.0
    return Inputs(obs, cue)


def make(name: str) -> tuple[Policy, Params]:
    """A policy whose weights are so large that what is remembered shows."""
    policy = Policy(
        WIDTH,
        A,
        True,
        MEMORIES[name.removesuffix(", makes weights")],
        hidden_sizes=(5,) if name in MAKE_WEIGHTS else (),
        obs_width=S,
        readout="hypernetwork" if name in MAKE_WEIGHTS else "linear",
        initial_gain=1.0,
    )
    params = policy.init(Rng(0).generator())
    generator = torch.Generator().manual_seed(1)
    return policy, tree_map(lambda x: x + 0.2 * torch.randn(x.shape, generator=generator), params)


def at(inputs: Inputs, time: int | slice | Tensor) -> Inputs:
    return tree_map(lambda x: x[time], inputs)


def lived(policy: Policy, params: Params, inputs: Inputs) -> Iterator[tuple[Tensor, State]]:
    """The features of every step, and the state after it."""
    state = policy.start(*inputs.obs.shape[1:3], CPU)
    for t in range(len(inputs.obs)):
        features, state = policy.attend(params, at(inputs, t), state)
        yield features, state


def whole(policy: Policy, params: Params, inputs: Inputs) -> Tensor:
    return policy.recall(params, inputs, policy.start(*inputs.obs.shape[1:3], CPU))


# -------------------------------------------------------------------------------------------------
# Every memory


@EVERY
def test_steps_are_the_whole_sequence(name: str, inputs: Inputs):
    policy, params = make(name)
    steps = torch.stack([features for features, _ in lived(policy, params, inputs)])
    torch.testing.assert_close(steps, whole(policy, params, inputs), rtol=0, atol=1e-5)
    assert float((steps[-1] - steps[-2]).abs().max()) > 1e-2


@EVERY
def test_what_comes_later_changes_nothing(name: str, inputs: Inputs):
    """Bit for bit."""
    policy, params = make(name)
    changed = tree_map(torch.clone, inputs)
    changed.cue[100:] += 1.0
    changed.obs[100:] = changed.obs[100:].flip(-1)
    before, after = (whole(policy, params, x) for x in (inputs, changed))
    assert same(before[:100], after[:100])
    assert not same(before[100:], after[100:])


@EVERY
def test_a_state_stays_what_it_was(name: str, inputs: Inputs):
    """Acting is a function: from an old state it gives what it gave, whatever came after."""
    policy, params = make(name)
    states, outputs = [policy.start(N, M, CPU)], []
    for features, state in lived(policy, params, inputs):
        states.append(state)
        outputs.append(features)
    kept = tree_map(torch.clone, tuple(states[70]))
    for t in (0, 15, 16, 70, 149):
        again, _ = policy.attend(params, at(inputs, t), states[t])
        assert same(again, outputs[t])
    assert same(kept, tuple(states[70]))


@EVERY
def test_lanes_that_wait_stay_and_the_others_go_on(name: str, inputs: Inputs):
    """A lane that waits from time 30 to 50 lives through what another does without a break."""
    policy, params = make(name)
    waits = torch.zeros(N, M, dtype=torch.bool)
    waits[1, 0] = True
    state, last = policy.start(N, M, CPU), None
    for t in range(100):
        last, after = policy.attend(params, at(inputs, t), state)
        state = where(~waits, after, state) if 30 <= t < 50 else after
    lived_through = torch.cat([torch.arange(30), torch.arange(50, 100)])
    broken = whole(policy, params, at(inputs, lived_through))[-1]
    torch.testing.assert_close(last[1, 0], broken[1, 0], rtol=0, atol=1e-5)
    unbroken = whole(policy, params, at(inputs, slice(100)))[-1]
    torch.testing.assert_close(last[~waits], unbroken[~waits], rtol=0, atol=1e-5)


@EVERY
def test_rows_and_lanes_are_apart(name: str, inputs: Inputs):
    policy, params = make(name)
    alone = tree_map(lambda x: x[:, 1:2, :1], inputs)
    expected = whole(policy, params, inputs)[:, 1:2, :1]
    torch.testing.assert_close(whole(policy, params, alone), expected, rtol=0, atol=1e-5)


@EVERY
def test_gradients_of_the_whole_are_those_of_the_steps(name: str, inputs: Inputs):
    policy, params = make(name)
    inputs = at(inputs, slice(70))
    weight = torch.randn(whole(policy, params, inputs).shape)
    gradients = []
    for compute in (
        lambda p: whole(policy, p, inputs),
        lambda p: torch.stack([features for features, _ in lived(policy, p, inputs)]),
    ):
        own = tree_map(lambda x: x.clone().requires_grad_(), params)
        read = {k: v for k, v in own.items() if k.startswith("memory")}
        loss = (compute(own) * weight).sum()
        gradients.append(torch.autograd.grad(loss, list(read.values())))
    for one, other in zip(*gradients, strict=True):
        assert float(one.abs().max()) > 0
        scale = float(one.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5 * scale)


# -------------------------------------------------------------------------------------------------
# Keys


def test_linear_attention_is_the_sum_that_it_stands_for():
    torch.manual_seed(0)
    query, key, value = torch.rand(T, N, M, 5), torch.rand(T, N, M, 5), torch.randn(T, N, M, 2)
    memory = torch.randn(N, M, 5, 2)
    read = linear_attention(query, key, value, memory)
    for t in (0, 1, 63, 64, 65, 128, 149):
        sums = memory + torch.einsum("unmk,unmv->nmkv", key[: t + 1], value[: t + 1])
        expected = torch.einsum("nmk,nmkv->nmv", query[t], sums)
        torch.testing.assert_close(read[t], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["keyed", "learned keys", "slots", "slots of learned keys"])
def test_the_order_of_the_past_means_nothing(name: str, inputs: Inputs):
    """What was done where, and earned: the steps before the last one in another order."""
    policy, params = make(name)
    order = torch.randperm(T - 2) + 1
    # a step is its observation, and the cue that follows it
    obs = torch.cat([inputs.obs[:1], inputs.obs[order], inputs.obs[T - 1 :]])
    cue = torch.cat([inputs.cue[:2], inputs.cue[order + 1]])
    one, other = whole(policy, params, inputs)[-1], whole(policy, params, Inputs(obs, cue))[-1]
    if "slots" not in name:  # the inputs themselves are read, too: the last cue
        one, other = one[..., :-WIDTH], other[..., :-WIDTH]
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_slots_count_as_the_posterior_of_the_process_does(inputs: Inputs):
    """Counts and rewards of every (state, action) are the sufficient statistics of its rewards."""
    memory = SlotMemory(8, S, A)
    params = memory.init(WIDTH, Rng(0).generator())
    params["write.weight"] = torch.full((2, 1), 1e-4)  # so small that tanh is the identity
    state = memory.start(N, M, CPU)
    visits, reward_sum = torch.zeros(N, M, S, A), torch.zeros(N, M, S, A)
    for t in range(T):
        _, state = memory.step(params, inputs.obs[t], at(inputs, t), state)
        if t:
            taken, reward, _ = inputs.cue[t].split([A, 1, 1], -1)
            pair = inputs.obs[t - 1].unsqueeze(-1) * taken.unsqueeze(-2)
            visits += pair
            reward_sum += pair * reward.unsqueeze(-1)
    experience = Experience(visits, reward_sum, torch.zeros(N, M, S, A, S))
    held = state[0].unflatten(-1, (A, 3))
    assert same(held[..., 2], experience.visits)
    sums = held[..., 0] / 1e-4
    torch.testing.assert_close(sums, experience.reward_sum, rtol=1e-3, atol=1e-3)


def test_slots_know_that_actions_and_keys_are_exchangeable(inputs: Inputs):
    policy, params = make("slots")
    actions, states = torch.randperm(A), torch.randperm(S)
    cue = torch.cat([inputs.cue[..., :A][..., actions], inputs.cue[..., A:]], -1)
    moved = Inputs(inputs.obs[..., states], cue)
    first = policy.unroll(params, inputs, policy.start(N, M, CPU))
    other = policy.unroll(params, moved, policy.start(N, M, CPU))
    logits, expected = other.heads["action"], first.heads["action"][..., actions]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other.value, first.value, rtol=1e-4, atol=1e-5)
    assert float(expected.std(-1).max()) > 1e-2


def test_learned_keys_are_weights_that_sum_to_one(inputs: Inputs):
    memory = KeyedMemory(6, S, A, keys=5)
    params = memory.init(WIDTH, Rng(0).generator())
    state = memory.start(N, M, CPU)
    for t in range(10):
        _, state = memory.step(params, torch.zeros(N, M, WIDTH), at(inputs, t), state)
    torch.testing.assert_close(state[0][..., -1].sum(-1), torch.full((N, M), 9.0))
    torch.testing.assert_close(state[1][..., -1], torch.full((N, M), 9.0))


# -------------------------------------------------------------------------------------------------
# The transformer


@pytest.mark.parametrize("context", [1, 5, 16, 20])
def test_a_block_looks_back_as_far_as_its_context(context: int, inputs: Inputs):
    """Two blocks see 2 · (context − 1) steps back, and nothing before."""
    memory = TransformerMemory(8, S, 2, 2, context)
    params = memory.init(WIDTH, Rng(0).generator())
    reach = 2 * (context - 1)
    x = inputs.flat().requires_grad_()
    outputs = memory.unroll(params, x, inputs, memory.start(N, M, CPU))
    (gradient,) = torch.autograd.grad(outputs[100].square().sum(), x)
    seen = gradient.abs().flatten(1).amax(1).nonzero().flatten()
    assert int(seen.min()) == 100 - reach
    assert int(seen.max()) == 100


def test_positions_are_relative():
    """The same steps later say the same, once no block sees what was before."""
    torch.manual_seed(0)
    memory = TransformerMemory(8, S, 2, 2, context=6)
    params = memory.init(S, Rng(0).generator())
    x = torch.randn(T, N, M, S)
    start = memory.start(N, M, CPU)
    late = memory.unroll(params, x, Inputs(x), start)[-20:]
    early = memory.unroll(params, x[-31:], Inputs(x[-31:]), start)[-20:]
    torch.testing.assert_close(late, early, rtol=0, atol=1e-5)


@pytest.mark.learning
def test_one_block_recalls_what_was_fifty_steps_ago():
    """One head on positions alone: every token is found, in sequences that it has not seen."""
    torch.manual_seed(0)
    tokens, length, distance = 4, 80, 50
    memory = TransformerMemory(32, tokens, 1, 1, context=length)
    params = memory.init(tokens, Rng(0).generator())
    params["head.weight"] = 0.1 * torch.randn(tokens, 32)
    params = {name: x.requires_grad_() for name, x in params.items()}
    optimizer = torch.optim.Adam(params.values(), lr=5e-3)

    def recalled(sequence: Tensor) -> Tensor:
        x = one_hot(sequence, tokens).float()
        read = memory.unroll(params, x, Inputs(x), memory.start(*x.shape[1:3], CPU))
        return read[distance:] @ params["head.weight"].mT

    for _ in range(200):
        sequence = torch.randint(tokens, (length, 32, 1))
        logits = recalled(sequence)
        loss = cross_entropy(logits.flatten(0, 2), sequence[:-distance].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sequence = torch.randint(tokens, (length, 500, 1))
    assert recalled(sequence).argmax(-1).equal(sequence[:-distance])


@pytest.mark.parametrize(
    ("agent", "memory"),
    [
        ("rl2", "keyed"),
        ("rl2", "gru+keyed"),
        ("rl2", "slots"),
        ("varibad", "keyed"),
        ("distill", "slots"),
    ],
)
def test_a_normalized_observation_is_no_key(agent: str, memory: str):
    """It is negative at times, and the root of a negative count is NaN."""
    found = find("agent", agent)
    chosen = {"memory": memory, "normalize_obs": True}
    with pytest.raises(
        ConfigError, match=rf"^agent\.memory_keys: memory {re.escape(memory)} .*normalize_obs to"
    ):
        found.configure(chosen)
    for changes in ({"memory_keys": 3}, {"normalize_obs": False}, {"memory": "gru"}):
        found.configure(chosen | changes)
