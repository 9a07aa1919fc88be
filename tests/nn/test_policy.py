"""Action distributions against torch's, and the policy: whole sequences equal steps, copies equal
single ones.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers import CPU, same
from scipy import stats

from metarl.core.rng import Rng
from metarl.core.types import Inputs, Params, Spec, tree_map
from metarl.nn.decision import Decision
from metarl.nn.distributions import Categorical, Gaussian, SquashedGaussian
from metarl.nn.policy import Policy

MEMORIES = ["none", "gru", "lstm"]
T, N, M, O, A = 5, 3, 2, 4, 3  # noqa: E741  (letters of metarl.core.types)


# -------------------------------------------------------------------------------------------------
# Distributions


def test_categorical_is_torchs():
    logits = torch.randn(6, 4, A)
    ours, theirs = Categorical(logits), torch.distributions.Categorical(logits=logits)
    action = theirs.sample()
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    assert torch.equal(ours.mode(), theirs.probs.argmax(-1))
    everything = torch.stack([ours.log_prob(torch.full((6, 4), a)) for a in range(A)]).exp().sum(0)
    torch.testing.assert_close(everything, torch.ones(6, 4))


@pytest.mark.parametrize("log_std_shape", [(A,), (6, 4, A)], ids=["shared", "of each"])
def test_gaussian_is_torchs_summed_over_entries(log_std_shape: tuple[int, ...]):
    """A mean over the entries instead of the sum would change ratios and divergences (SPECS 1.4,
    item 14).
    """
    mean, log_std = torch.randn(6, 4, A), torch.randn(log_std_shape)
    ours, theirs = Gaussian(mean, log_std), torch.distributions.Normal(mean, log_std.exp())
    action = theirs.sample()
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action).sum(-1))
    torch.testing.assert_close(ours.entropy(), theirs.entropy().sum(-1))
    assert torch.equal(ours.mode(), mean)


def test_categorical_draws_by_its_probabilities():
    probs = torch.tensor([0.1, 0.6, 0.0, 0.3], dtype=torch.float64)
    noise = Rng(0).streams(torch.arange(100_000))
    action = Categorical(probs.log().float().expand(100_000, 1, 4)).sample(noise, 0)
    counts = torch.bincount(action.flatten(), minlength=4)
    assert action.shape == (100_000, 1)
    assert counts[2] == 0
    assert stats.chisquare(counts[[0, 1, 3]].numpy(), 1e5 * probs[[0, 1, 3]].numpy()).pvalue > 1e-3


def test_gaussian_draws_by_its_density():
    mean, log_std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, -1.0])
    action = Gaussian(mean.expand(20_000, 1, 2), log_std).sample(
        Rng(0).streams(torch.arange(20_000)), 0
    )
    for i in range(2):
        assert (
            stats.kstest(
                action[:, 0, i].numpy(), "norm", (mean[i].item(), log_std[i].exp().item())
            ).pvalue
            > 1e-3
        )
    assert abs(torch.corrcoef(action.squeeze(1).t())[0, 1]) < 4 / math.sqrt(20_000)


def test_a_draw_is_a_function_of_its_place():
    noise = Rng(0).streams(torch.arange(50))
    for actions in (
        Categorical(torch.zeros(50, 1, 9)),
        Gaussian(torch.zeros(50, 1, 2), torch.zeros(2)),
    ):
        assert same(actions.sample(noise, 3), actions.sample(noise, 3))
        assert not same(actions.sample(noise, 3), actions.sample(noise, 4))


# -------------------------------------------------------------------------------------------------
# The policy


OPTIONS = pytest.mark.parametrize(
    "options",
    [
        {},
        {"pair_input": True},
        {"readout": "observation"},
        {"readout": "hypernetwork"},
        {"pair_input": True, "readout": "hypernetwork"},
        {"squashed": True},
    ],
    ids=[
        "plain",
        "pairs",
        "observation readout",
        "hypernetwork",
        "pairs, hypernetwork",
        "squashed",
    ],
)


def make(memory: str = "none", discrete: bool = True, **options: Any) -> tuple[Policy, Params]:
    """A policy whose heads are not tiny, so that differences show."""
    width = O + A + 2
    policy = Policy(
        width,
        A,
        discrete,
        memory,
        memory_width=6,
        encoder_sizes=(5,),
        hidden_sizes=(7, 4),
        obs_width=O,
        **options,
    )
    return policy, tree_map(
        lambda x: x + 0.3 * torch.randn_like(x), policy.init(Rng(0).generator())
    )


def copies(params: Params) -> Params:
    """One perturbed copy a task."""
    return {name: value + 0.1 * torch.randn(N, *value.shape) for name, value in params.items()}


@pytest.fixture
def inputs() -> Inputs:
    torch.manual_seed(0)
    return Inputs(torch.randn(T, N, M, O), cue=torch.randn(T, N, M, A + 2))


def by_steps(policy: Policy, params: Params, inputs: Inputs) -> Decision:
    state, decisions = policy.start(N, M, CPU), []
    for t in range(T):
        decision, state = policy.step(params, tree_map(lambda x, t=t: x[t], inputs), state)
        actions = decision.actions
        mode = actions.mode()
        decisions.append((decision.value, actions.log_prob(mode), mode))
    return [torch.stack(part) for part in zip(*decisions, strict=True)]


@OPTIONS
@pytest.mark.parametrize("per_task", [False, True], ids=["shared", "per task"])
@pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])
@pytest.mark.parametrize("memory", MEMORIES)
def test_a_whole_sequence_equals_its_steps(
    memory: str, discrete: bool, per_task: bool, options: dict[str, Any], inputs: Inputs
):
    """Else acting and learning would disagree about the policy."""
    policy, params = make(memory, discrete, **options)
    params = copies(params) if per_task else params
    whole = policy.unroll(params, inputs, policy.start(N, M, CPU))
    expected = by_steps(policy, params, inputs)
    mode = whole.actions.mode()
    for ours, theirs in zip(
        (whole.value, whole.actions.log_prob(mode), mode), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@OPTIONS
@pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])
@pytest.mark.parametrize("memory", MEMORIES)
def test_one_copy_a_task_equals_the_loop_over_tasks(
    memory: str, discrete: bool, options: dict[str, Any], inputs: Inputs
):
    policy, params = make(memory, discrete, **options)
    params = copies(params)
    together = policy.unroll(params, inputs, policy.start(N, M, CPU))
    action = together.actions.mode()
    for i in range(N):
        row = tree_map(lambda x, i=i: x[:, i : i + 1], inputs)
        alone = policy.unroll({k: v[i] for k, v in params.items()}, row, policy.start(1, M, CPU))
        torch.testing.assert_close(together.value[:, i : i + 1], alone.value)
        torch.testing.assert_close(
            together.actions.log_prob(action)[:, i : i + 1],
            alone.actions.log_prob(action[:, i : i + 1]),
        )


@pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])
def test_a_feed_forward_policy_can_be_vmapped_over_tasks(discrete: bool, inputs: Inputs):
    """A loss written for one task, mapped over the axis N, is the same as one copy a task."""
    policy, params = make("none", discrete)
    params = copies(params)
    mapped = torch.func.vmap(lambda p, x: policy.unroll(p, x, ()), in_dims=(0, 1), out_dims=1)
    torch.testing.assert_close(
        mapped(params, inputs).value, policy.unroll(params, inputs, ()).value
    )
    first = inputs.obs.new_zeros(())  # and differentiated

    def one(p: Params, x: Inputs) -> torch.Tensor:
        return policy.unroll(p, x, ()).actions.entropy().mean() + first

    per_task = torch.func.vmap(torch.func.grad(one), in_dims=(0, 1))(params, inputs)
    i = N - 1
    alone = torch.func.grad(one)(
        {k: v[i] for k, v in params.items()}, tree_map(lambda x: x[:, i], inputs)
    )
    torch.testing.assert_close({k: v[i] for k, v in per_task.items()}, alone)


@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_memory_reaches_later_decisions_only(memory: str, inputs: Inputs):
    policy, params = make(memory)
    inputs.obs.requires_grad_()
    value = policy.unroll(params, inputs, policy.start(N, M, CPU)).value
    (grad,) = torch.autograd.grad(value[2, 1, 0], inputs.obs)
    touched = grad.abs().sum(-1) > 0
    expected = torch.zeros(T, N, M, dtype=torch.bool)
    expected[:3, 1, 0] = True
    assert torch.equal(touched, expected)


def test_pairs_and_readout_are_as_written(inputs: Inputs):
    """Without layers or memory both can be followed by hand, at the first and second step."""
    policy = Policy(O + A + 2, A, True, obs_width=O, pair_input=True, readout="observation")
    params = tree_map(torch.randn_like, policy.init(Rng(0).generator()))
    logits = policy.unroll(params, inputs, policy.start(N, M, CPU)).actions.logits
    for t in range(2):
        obs, cue = inputs.obs[t, 1, 0], inputs.cue[t, 1, 0]
        pair = torch.outer(inputs.obs[0, 1, 0] if t else torch.zeros(O), cue[:A]).flatten()
        features = torch.cat([obs, cue, pair, cue[A] * pair])
        maps = (params["action.weight"] @ features + params["action.bias"]).view(1 + O, A)
        torch.testing.assert_close(logits[t, 1, 0], maps[0] + obs @ maps[1:], rtol=1e-4, atol=1e-4)


def test_the_first_policy_is_nearly_uniform_or_has_the_wished_spread(inputs: Inputs):
    discrete = Policy(O + A + 2, A, True, memory="gru", hidden_sizes=(32,))
    decision = discrete.unroll(discrete.init(Rng(1).generator()), inputs, discrete.start(N, M, CPU))
    assert float(decision.actions.entropy().min()) > math.log(A) - 1e-3
    continuous = Policy(O + A + 2, A, False, initial_std=0.3)
    actions = continuous.unroll(continuous.init(Rng(1).generator()), inputs, ()).actions
    torch.testing.assert_close(actions.log_std.exp(), torch.full((A,), 0.3))
    assert float(actions.mean.abs().max()) < 0.1


def test_weights_are_orthogonal_gate_by_gate():
    params = Policy(O, A, True, memory="lstm", memory_width=4, encoder_sizes=(4,)).init(
        Rng(2).generator()
    )
    for block in (
        *params["memory.w_ih"].chunk(4),
        *params["memory.w_hh"].chunk(4),
        params["encoder.0.weight"] / 2**0.5,
    ):
        torch.testing.assert_close(block @ block.t(), torch.eye(4))
    assert same(
        params,
        Policy(O, A, True, memory="lstm", memory_width=4, encoder_sizes=(4,)).init(
            Rng(2).generator()
        ),
    )


def test_width_counts_the_parts_that_are_shown():
    spec = Spec("s", {"a": 2, "b": 3}, action_width=4, discrete=True, horizon=1, task_width=7)
    assert Policy.width(spec) == 5
    assert Policy.width(spec, cue=True, task=7, latent=2) == 5 + 6 + 7 + 2


@pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])
@pytest.mark.parametrize("memory", MEMORIES)
def test_without_a_value_head_the_actions_are_the_same(memory: str, discrete: bool, inputs: Inputs):
    """And there is no value to be asked for, nor a parameter for it; one copy a task still equals
    the loop.
    """
    (full, params), (policy, _) = make(memory, discrete), make(memory, discrete, value_head=False)
    own = policy.init(Rng(0).generator())
    assert same(
        own, {k: v for k, v in full.init(Rng(0).generator()).items() if not k.startswith("value")}
    )
    own = {name: params[name] for name in own}
    decision, start = policy.unroll(own, inputs, policy.start(N, M, CPU)), full.start(N, M, CPU)
    assert same(decision.heads, full.unroll(params, inputs, start).heads)
    with pytest.raises(AssertionError, match="no value head"):
        _ = decision.value
    own = copies(own)
    together = policy.unroll(own, inputs, start).heads["action"]
    for i in range(N):
        row = tree_map(lambda x, i=i: x[:, i : i + 1], inputs)
        alone = policy.unroll(
            {k: v[i] for k, v in own.items()}, row, policy.start(1, M, CPU)
        ).heads["action"]
        torch.testing.assert_close(together[:, i : i + 1], alone)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("body", [(), (7,), (7, 4)], ids=str)
def test_a_perceptron_is_its_layers_in_order(
    body: tuple[int, ...], activation: str, inputs: Inputs
):
    """Whoever differentiates it by hand gets the policy from the names alone."""
    policy = Policy(
        O + A + 2,
        A,
        False,
        encoder_sizes=(5,),
        hidden_sizes=body,
        activation=activation,
        value_head=False,
    )
    params = tree_map(lambda x: x + 0.3 * torch.randn_like(x), policy.init(Rng(0).generator()))
    *hidden, last = policy.mlp_layers
    assert {f"{name}.{part}" for name in (*hidden, last) for part in ("weight", "bias")} | {
        "action.log_std"
    } == {*params}
    x = inputs.flat()
    for name in hidden:
        x = getattr(torch, activation)(x @ params[f"{name}.weight"].T + params[f"{name}.bias"])
    expected = x @ params[f"{last}.weight"].T + params[f"{last}.bias"]
    torch.testing.assert_close(policy.unroll(params, inputs, ()).heads["action"], expected)


@pytest.mark.parametrize(
    "options",
    [
        {"memory": "gru"},
        {"memory": "lstm"},
        {"pair_input": True},
        {"readout": "observation"},
        {"value_head": True},
    ],
    ids=str,
)
def test_what_has_more_than_layers_is_no_perceptron(options: dict[str, Any]):
    assert (
        Policy(O + A + 2, A, True, obs_width=O, **{"value_head": False} | options).mlp_layers
        is None
    )


@pytest.mark.parametrize("squashed", [False, True], ids=["plain", "squashed"])
def test_the_first_action_head_is_as_large_as_wished(squashed: bool):
    """Orthogonal rows of length `initial_gain`, 0.01 unless it is given; nothing else changes."""
    options = {"hidden_sizes": (8,), "squashed": squashed}
    small = Policy(O, A, False, **options).init(Rng(0).generator())
    large = Policy(O, A, False, **options, initial_gain=2.0).init(Rng(0).generator())
    for params, gain in ((small, 0.01), (large, 2.0)):
        weight = params["action.weight"] / gain
        torch.testing.assert_close(weight @ weight.T, torch.eye(2 * A if squashed else A))
    assert same(small | {"action.weight": large["action.weight"]}, large)


@pytest.mark.parametrize("readout", ["linear", "observation"])
def test_a_squashed_policy_starts_with_the_wished_spread_before_the_tanh(
    readout: str, inputs: Inputs
):
    """Everywhere, though its deviations depend on the inputs; they are no own parameter."""
    options = {
        "hidden_sizes": (32,),
        "obs_width": O,
        "readout": readout,
        "initial_std": 0.3,
        "value_head": False,
    }
    policy = Policy(O + A + 2, A, False, squashed=True, **options)
    params = policy.init(Rng(1).generator())
    maps = 1 if readout == "linear" else 1 + O
    assert params["action.weight"].shape == (maps * 2 * A, 32)
    assert params["action.bias"].shape == (maps * 2 * A,)
    assert set(params) == set(Policy(O + A + 2, A, True, **options).init(Rng(1).generator()))
    actions = policy.unroll(params, inputs, ()).actions
    assert isinstance(actions, SquashedGaussian)
    assert actions.mean.abs().max() < 0.1
    torch.testing.assert_close(
        actions.log_std.exp(), torch.full((T, N, M, A), 0.3), rtol=0.1, atol=0
    )
    assert actions.log_std.max() - actions.log_std.min() > 1e-3
    assert policy.mlp_layers is None  # whoever differentiates by hand knows nothing of such heads


def test_discrete_actions_are_not_squashed(inputs: Inputs):
    """The option is for agents that act in either kind of family."""
    (plain, params), (squashed, _) = make(), make(squashed=True)
    assert same(squashed.init(Rng(0).generator()), plain.init(Rng(0).generator()))
    decision = squashed.unroll(params, inputs, ())
    assert isinstance(decision.actions, Categorical)
    assert same(decision.heads, plain.unroll(params, inputs, ()).heads)
