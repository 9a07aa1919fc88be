"""The evidence lower bound against its equation."""

from __future__ import annotations

import pytest
import torch
from helpers import CPU, live, same
from torch.distributions import Normal, kl_divergence

from metarl.algorithms.elbo import ELBO, _Trials
from metarl.core.predictions import Questions
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Inputs, first_cue, one_hot, replace, tree_map
from metarl.experiments.building import make_agent, make_family
from metarl.nn.distributions import Gaussian

EPISODES, TASKS = 3, 4
SMALL = {
    "trials": 4,
    "memory_width": 6,
    "latent_width": 3,
    "decoder_sizes": (5,),
    "decoder_features": 4,
    "next_obs_decoder": "onehot",
    "elbo_minibatches": 1,
    "elbo_epochs": 1,
}
MDP = make_family("tabular-mdp", horizon=4)


def make(**options: object) -> ELBO:
    """Its weights are so large that all terms show."""
    elbo = make_agent("varibad", MDP.spec, 0, **{**SMALL, **options}).elbo
    generator = torch.Generator().manual_seed(0)
    for value in elbo.params.values():
        value.data += 0.2 * torch.randn(value.shape, generator=generator)
    return elbo


@pytest.fixture(scope="module")
def trials() -> Rollout:
    return live(MDP, MDP.tasks("train", TASKS, Rng(0)), EPISODES)[0]


def encoder_inputs(trials: Rollout) -> Inputs:
    start = first_cue(MDP.spec, *trials.valid.shape[1:], CPU)
    cue = torch.cat([start.unsqueeze(0), trials.cues(MDP.spec)[:-1]])
    return Inputs(trials.inputs.obs, cue)


def beliefs(elbo: ELBO, trials: Rollout) -> Gaussian:
    """At every step, [T, N, M, Z]."""
    with torch.no_grad():
        start = elbo.model.start(TASKS, 1, CPU)
        return elbo.model.unroll(elbo.params, encoder_inputs(trials), start)


def loss_of(elbo: ELBO, trials: Rollout, seed: int = 0) -> tuple[float, dict[str, float]]:
    batch = _Trials(encoder_inputs(trials), trials.valid, elbo._outcomes(trials), trials.valid)
    with torch.no_grad():
        loss, parts = elbo._loss(batch, torch.Generator().manual_seed(seed))
    return float(loss), {name: float(value) for name, value in parts.items()}


def test_it_is_the_equation(trials: Rollout):
    """Every belief decodes every transition; term by term, in a loop over both."""
    elbo = make(elbo_times=100, elbo_steps=100, kl_coef=0.7, next_obs_coef=0.3)
    elbo.params["belief.bias"].data[3:] = -60.0  # no noise: the deviation is at its least
    steps = len(trials.valid)
    belief = beliefs(elbo, trials)
    assert float(belief.log_std.max()) == -6.0
    outcomes = tree_map(lambda x: x.movedim(0, 2), elbo._outcomes(trials))
    total = 0.0
    for t in range(steps):
        z = belief.mean[t].unsqueeze(2)
        with torch.no_grad():
            of_reward, of_next = elbo.model.log_likelihood(elbo.params, z, outcomes)
        total += float((of_reward + 0.3 * of_next).sum(-1).mean()) / steps
        before = Normal(torch.zeros(3), 1.0)
        if t:
            before = Normal(belief.mean[t - 1], belief.log_std[t - 1].exp())
        after = Normal(belief.mean[t], belief.log_std[t].exp())
        total -= 0.7 * float(kl_divergence(after, before).sum(-1).mean()) / steps
    loss, parts = loss_of(elbo, trials)
    assert loss == pytest.approx(-total / steps, abs=0.02)
    assert parts["belief_kl"] > 0.1


def test_a_part_of_the_steps_is_right_on_average(trials: Rollout):
    whole = make(elbo_times=100, elbo_steps=100)
    part = make(elbo_times=4, elbo_steps=5)
    exact = sum(loss_of(whole, trials, k)[0] for k in range(100)) / 100
    drawn = torch.tensor([loss_of(part, trials, k)[0] for k in range(800)])
    error = float(drawn.std()) / 800**0.5
    assert error < 0.02
    assert abs(float(drawn.mean()) - exact) < 4 * error


@pytest.mark.parametrize("changed", [0, -1])
def test_the_whole_trial_is_decoded_past_and_future(trials: Rollout, changed: int):
    """From every single belief: decoding the past alone is an autoencoder, and no belief."""
    elbo = make(elbo_times=1, elbo_steps=100)
    inputs, outcomes = encoder_inputs(trials), elbo._outcomes(trials)
    other = replace(outcomes, reward=outcomes.reward.clone())
    other.reward[changed] += 3.0
    for seed in range(20):
        losses = []
        for given in (outcomes, other):
            batch = _Trials(inputs, trials.valid, given, trials.valid)
            loss, _ = elbo._loss(batch, torch.Generator().manual_seed(seed))
            losses.append(float(loss.detach()))
        assert losses[0] != losses[1]


def test_padding_counts_for_nothing(trials: Rollout):
    elbo = make(elbo_times=100, elbo_steps=100)
    valid = trials.valid.clone()
    valid[7:, 1] = False
    short = replace(trials, valid=valid)
    poisoned = tree_map(torch.clone, replace(short, index=short.valid))
    poisoned = replace(poisoned, index=trials.index)
    poisoned.reward[7:, 1] = 1e6
    poisoned.next_obs[7:, 1] = 1e6
    assert loss_of(elbo, poisoned) == loss_of(elbo, short)
    assert loss_of(elbo, short) != loss_of(elbo, trials)


def test_a_large_weight_of_the_kl_keeps_the_prior(trials: Rollout):
    elbo = make(kl_coef=1e4, elbo_learning_rate=3e-3, elbo_epochs=400)
    elbo.update(trials, encoder_inputs(trials), trials, 0.0, Rng(0).generator())
    belief = beliefs(elbo, trials)
    assert float(belief.mean.abs().max()) < 0.1
    assert float(belief.log_std.abs().max()) < 0.1


def questions() -> Questions:
    state, action = torch.cartesian_prod(torch.arange(10), torch.arange(5)).T
    obs = one_hot(state, 10)
    return Questions(obs, action, obs, torch.eye(10))


def test_predictions_are_means_over_z():
    """Of a belief without spread, those of its mean; and probabilities."""
    elbo = make()
    elbo.reward = elbo.reward.update(torch.tensor([[1.0], [5.0]]), torch.ones(2, 1))
    mean = torch.randn(TASKS, 1, 3)
    narrow = elbo.predict(Gaussian(mean, torch.full_like(mean, -20.0)), questions())
    wide = elbo.predict(Gaussian(mean, torch.zeros_like(mean)), questions())
    assert narrow.reward.shape == (TASKS, 1, 50)
    assert narrow.successor is not None
    assert wide.successor is not None
    torch.testing.assert_close(narrow.successor.sum(-1), torch.ones(TASKS, 1, 50))
    torch.testing.assert_close(wide.successor.sum(-1), torch.ones(TASKS, 1, 50))
    assert float((narrow.successor - wide.successor).abs().max()) > 1e-3
    noise = (
        float((2 * elbo.params["reward.log_std"].detach()).exp()) * 4.0
    )  # deviation 2 in its own units
    torch.testing.assert_close(narrow.variance, torch.full_like(narrow.variance, noise))
    assert bool((wide.variance > noise).all())
    again = elbo.predict(Gaussian(mean, torch.zeros_like(mean)), questions())
    assert same(again, wide)
