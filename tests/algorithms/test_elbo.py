"""The evidence lower bound against its equation."""

from __future__ import annotations

import pytest
import torch
from helpers import CPU, live, same
from torch.distributions import Categorical, Normal, kl_divergence

from metarl.algorithms.elbo import ELBO, _Trials
from metarl.core.predictions import Questions
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Inputs, first_cue, one_hot, replace, tree_map
from metarl.experiments.building import make_agent, make_family
from metarl.nn.belief_model import Steps
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


def test_a_short_trial_has_the_kl_of_its_own_length(trials: Rollout):
    """Each step of a trial of T costs λ/T, wherever its padding ends."""
    elbo = make(elbo_times=100, elbo_steps=100, kl_coef=0.7)
    valid = trials.valid.clone()
    valid[4:, 1] = False
    belief = beliefs(elbo, trials)
    before = tree_map(lambda x: torch.cat([torch.zeros_like(x[:1]), x[:-1]]), belief)
    kl = belief.kl(before)
    lengths = torch.full_like(kl, len(valid))
    lengths[:, 1] = 4
    expected = 0.7 * (kl / lengths)[valid].mean()
    inputs, outcomes = encoder_inputs(trials), elbo._outcomes(trials)
    losses = []
    for coef in (0.7, 0.0):
        elbo.config = elbo.config.model_copy(update={"kl_coef": coef})
        batch = _Trials(inputs, valid, outcomes, valid)
        losses.append(elbo._loss(batch, torch.Generator().manual_seed(0))[0].detach())
    torch.testing.assert_close(losses[0] - losses[1], expected, atol=1e-5, rtol=0)


def test_few_valid_steps_in_much_padding_are_found(trials: Rollout):
    """Whatever is drawn; a step without outcomes to ask for costs nothing."""
    elbo = make(elbo_times=1, elbo_steps=1)
    inputs, outcomes = encoder_inputs(trials), elbo._outcomes(trials)
    few, first, second = (torch.zeros_like(trials.valid) for _ in range(3))
    few[:2] = True
    first[:6, 0] = second[:6, 1] = True  # the long trial is asked for little, and the other way
    first[:1] = second[:1] = True
    costs = []
    for seed in range(30):
        for valid, asked in ((few, few), (first, second)):
            batch = _Trials(inputs, valid, outcomes, asked)
            loss, parts = elbo._loss(batch, torch.Generator().manual_seed(seed))
            assert loss.isfinite()
            assert (parts["reward_loss"] != 0) or asked is second
            costs.append(float(parts["reward_loss"]))
    assert 0.0 in costs


def test_surprise_is_the_density_of_what_came(trials: Rollout):
    """By the mean of the belief that was held before the step, in nats."""
    elbo = make(next_obs_coef=0.3)
    belief = beliefs(elbo, trials)
    outcomes = elbo._outcomes(trials)
    found = elbo.surprise(belief, trials)
    with torch.no_grad():
        for t, n in ((0, 0), (5, 2), (11, 3)):
            z = belief.mean[t, n]
            steps = tree_map(lambda x, t=t, n=n: x[t, n], outcomes.steps)
            mean = elbo.model.reward(elbo.params, z, steps).squeeze()
            density = Normal(mean, elbo.params["reward.log_std"].exp())
            logits = elbo.model.successor(elbo.params, z, steps).flatten()
            state = Categorical(logits=logits).log_prob(trials.next_obs[t, n, 0].argmax())
            expected = -density.log_prob(outcomes.reward[t, n, 0]) - 0.3 * state
            torch.testing.assert_close(found[t, n, 0], expected)


def test_changes_of_numbers_are_predicted_on_their_scale():
    """Whitened by what was seen: an entry that moves in steps of 100 counts as one of .01."""
    family = make_family("point", horizon=4)
    rollout = live(family, family.tasks("train", TASKS, Rng(0)), EPISODES)[0]
    options = {**SMALL, "next_obs_decoder": "normal"}
    agent = make_agent("varibad", family.spec, 0, **options)
    elbo = agent.elbo
    scale = torch.tensor([100.0, 0.01])
    obs, next_obs = rollout.inputs.obs * scale, rollout.next_obs * scale + 3.0
    scaled = replace(rollout, inputs=replace(rollout.inputs, obs=obs), next_obs=next_obs)
    inputs = agent._encoder_inputs(scaled)
    elbo.update(scaled, inputs, scaled, 0.0, torch.Generator().manual_seed(0))
    outcomes = elbo._outcomes(scaled)
    seen = next_obs - obs
    moves = seen.flatten(0, -2)
    expected = (seen - moves.mean(0)) / moves.std(0, correction=0)
    torch.testing.assert_close(outcomes.change, expected, rtol=1e-3, atol=1e-3)
    assert float(outcomes.steps.obs.abs().max()) < 6


def test_one_of_two_rewards_is_known_by_its_place_between_them():
    family = make_family("gridnavi")
    rollout = live(family, family.tasks("train", TASKS, Rng(0)), 1)[0]
    options = {**SMALL, "next_obs_decoder": "none", "reward_values": (-0.1, 1.0)}
    elbo = make_agent("varibad", family.spec, 0, **options).elbo
    reward = torch.where(torch.arange(15).view(15, 1, 1) % 3 == 0, 1.0, -0.1).expand(15, TASKS, 1)
    which = elbo._outcomes(replace(rollout, reward=reward)).reward
    assert same(which, (reward == 1).float())
    asked = Questions(torch.zeros(2, 2), torch.zeros(2).long(), torch.zeros(2, 2))
    belief = Gaussian(torch.randn(TASKS, 1, 3), torch.full((TASKS, 1, 3), -20.0))
    predicted = elbo.predict(belief, asked)
    steps = elbo.model.reward(
        elbo.params, belief.mean, Steps(elbo.obs.normalize(asked.obs), asked.action, asked.obs)
    )
    p = steps.sigmoid().detach()
    torch.testing.assert_close(predicted.reward, -0.1 + 1.1 * p, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(predicted.variance, 1.21 * p * (1 - p), rtol=1e-3, atol=1e-4)


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
