"""The belief model against what it computes: distributions, products, steps."""

from __future__ import annotations

import pytest
import torch
from helpers import CPU
from torch.distributions import Bernoulli, Categorical, Normal
from torch.nn.functional import one_hot

from metarl.core.rng import Rng
from metarl.core.types import Inputs, Params, replace, tree_map
from metarl.nn.belief_model import BeliefModel, BilinearDecoder, Outcomes, Steps
from metarl.nn.deep_sets import SetMemory
from metarl.nn.policy import Policy

T, N, M, S, A, Z = 12, 3, 2, 4, 3, 5


def make(**changes: object) -> tuple[BeliefModel, Params]:
    """A model whose weights are so large that everything shows."""
    encoder = Policy(
        S + A + 2, A, True, SetMemory(6), obs_width=S, action_head=False, value_head=False
    )
    model = replace(BeliefModel(encoder, Z, A, True, S, (7,), 6, False, "none"), **changes)
    generator = torch.Generator().manual_seed(1)
    params = model.init(Rng(0).generator())
    return model, tree_map(lambda x: x + 0.3 * torch.randn(x.shape, generator=generator), params)


@pytest.fixture
def inputs() -> Inputs:
    torch.manual_seed(0)
    obs = one_hot(torch.randint(S, (T, N, M)), S).float()
    action = one_hot(torch.randint(A, (T, N, M)), A).float()
    cue = torch.cat([action, torch.randn(T, N, M, 1), torch.zeros(T, N, M, 1)], -1)
    return Inputs(obs, cue)


@pytest.fixture
def outcomes() -> Outcomes:
    torch.manual_seed(1)
    obs, next_obs = one_hot(torch.randint(S, (2, N, T)), S).float()
    steps = Steps(obs, torch.randint(A, (N, T)), next_obs)
    return Outcomes(steps, torch.randn(N, T), torch.randn(N, T, S))


def test_steps_are_the_whole_trial(inputs: Inputs):
    model, params = make()
    state = model.start(N, M, CPU)
    whole = model.unroll(params, inputs, state)
    for t in range(T):
        belief, state = model.step(params, tree_map(lambda x, t=t: x[t], inputs), state)
        torch.testing.assert_close(belief.mean, whole.mean[t], rtol=0, atol=1e-5)
        torch.testing.assert_close(belief.log_std, whole.log_std[t], rtol=0, atol=1e-5)
    assert float((whole.mean[-1] - whole.mean[0]).abs().max()) > 0.01


def test_the_order_of_a_set_is_forgotten(inputs: Inputs):
    """What came before the present step may be permuted; what it holds may not change."""
    memory = SetMemory(6)
    params = memory.init(S + A + 2, Rng(0).generator())
    start = memory.start(N, M, CPU)
    order = torch.cat([torch.arange(T - 1).flip(0), torch.tensor([T - 1])])
    x = inputs.flat()
    expected = memory.unroll(params, x, inputs, start)[-1]
    permuted = memory.unroll(params, x[order], inputs, start)[-1]
    torch.testing.assert_close(permuted, expected, rtol=0, atol=1e-6)
    changed = memory.unroll(params, torch.cat([x[:1] + 1, x[1:]]), inputs, start)[-1]
    assert float((changed - expected).abs().max()) > 1e-2


def test_a_bilinear_decoder_is_the_product_of_two_networks():
    decoder = BilinearDecoder(Z, 4, (7,), features=6, outputs=2)
    params = decoder.init(Rng(0).generator())
    z, question = torch.randn(3, 5, Z), torch.randn(3, 8, 4)
    answer = decoder(params, z, question)
    assert answer.shape == (3, 5, 8, 2)

    def tower(name: str, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(params[f"{name}.0.weight"] @ x + params[f"{name}.0.bias"])
        return params[f"{name}.head.weight"] @ hidden + params[f"{name}.head.bias"]

    for n, b, i in [(0, 0, 0), (2, 4, 7), (1, 3, 2)]:
        f = tower("latent", z[n, b]).view(2, 6)
        g = tower("question", question[n, i])
        torch.testing.assert_close(answer[n, b, i], f @ g / 6**0.5)


def test_rewards_are_normal(outcomes: Outcomes):
    model, params = make()
    z = torch.randn(N, 2, Z)
    of_reward, of_next = model.log_likelihood(params, z, outcomes)
    assert of_next is None
    mean = model.reward(params, z, outcomes.steps)
    expected = Normal(mean, params["reward.log_std"].exp()).log_prob(outcomes.reward.unsqueeze(1))
    torch.testing.assert_close(of_reward, expected)


def test_one_of_two_rewards_is_bernoulli(outcomes: Outcomes):
    model, params = make(two_rewards=True)
    assert "reward.log_std" not in params
    outcomes = replace(outcomes, reward=(outcomes.reward > 0).float())
    z = torch.randn(N, 2, Z)
    of_reward, _ = model.log_likelihood(params, z, outcomes)
    logits = model.reward(params, z, outcomes.steps)
    expected = Bernoulli(logits=logits).log_prob(outcomes.reward.unsqueeze(1).expand_as(logits))
    torch.testing.assert_close(of_reward, expected)


def test_the_next_state_is_categorical(outcomes: Outcomes):
    model, params = make(next_obs="onehot")
    z = torch.randn(N, 2, Z)
    _, of_next = model.log_likelihood(params, z, outcomes)
    logits = model.successor(params, z, outcomes.steps)
    state = outcomes.steps.next_obs.argmax(-1).unsqueeze(1).expand(logits.shape[:-1])
    torch.testing.assert_close(of_next, Categorical(logits=logits).log_prob(state))


def test_changes_of_the_observation_are_normal(outcomes: Outcomes):
    model, params = make(next_obs="normal")
    z = torch.randn(N, 2, Z)
    _, of_next = model.log_likelihood(params, z, outcomes)
    mean = model.successor(params, z, outcomes.steps)
    normal = Normal(mean, params["next_obs.log_std"].exp())
    expected = normal.log_prob(outcomes.change.unsqueeze(1)).sum(-1)
    torch.testing.assert_close(of_next, expected)
