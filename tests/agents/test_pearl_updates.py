"""PEARL's gradient steps (SPECS 1.4, items 6, 8, 10, 11), held against loops over single
transitions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from pearl_by_hand import SPACES, ByHand, Dense, make, spy, world_of
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.utils._pytree import tree_leaves

from metarl.agents.pearl.agent import PEARL
from metarl.core.rng import Rng
from metarl.core.types import Params, replace, tree_map
from metarl.data.transitions import Transitions
from metarl.nn.distributions import SquashedGaussian
from metarl.nn.gaussian_product import Posterior

TASKS, BATCH, CONTEXT, RATE = 3, 4, 5, 0.01


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def _double_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Normal numbers are single, here and by hand; all that is made of them is double."""
    draw = SquashedGaussian.draw
    monkeypatch.setattr(
        SquashedGaussian,
        "draw",
        lambda actions, normal: draw(actions, normal.to(actions.mean.dtype)),
    )


def double_agent(discrete: bool, **options: Any) -> PEARL:
    """Its γ is the same in single precision, to which it is rounded."""
    agent = make(Dense(discrete), dtype=torch.float64, **{"gamma": 0.75} | options)
    for optimizer in agent.sac._optimizers:
        optimizer.param_groups[0]["lr"] = RATE
    return agent


def transitions(agent: PEARL, size: int, seed: int = 0) -> Transitions:
    """Made up, every array unlike every other; about a third of them terminate."""
    noise = generator(seed)

    def normal(*axes: int) -> Tensor:
        return torch.randn(TASKS, size, *axes, generator=noise, dtype=torch.float64)

    width, shown = agent.spec.action_width, agent.spec.shown_width(agent.task_input)
    return Transitions(
        obs=normal(agent.spec.obs_width),
        action=torch.randint(width, (TASKS, size), generator=noise)
        if agent.spec.discrete
        else normal(width).tanh(),
        reward=normal(),
        training_reward=normal(),
        next_obs=normal(agent.spec.obs_width),
        terminated=normal() > 0.5,
        task=normal(shown) if shown else None,
    )


def update(
    agent: PEARL, batch: Transitions, context: Transitions | None, noise: torch.Generator
) -> dict[str, Tensor]:
    """A gradient step with the weight of the divergence that the agent was given."""
    return agent._update(batch, context, agent.config.kl_coef, noise)


def of(params: Params, *prefixes: str) -> Params:
    return {name: value for name, value in params.items() if name.startswith(prefixes)}


def gradients(loss: Tensor, params: Params) -> dict[str, Tensor | None]:
    found = torch.autograd.grad(loss, list(params.values()), allow_unused=True, retain_graph=True)
    return dict(zip(params, found, strict=True))


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(
        tree_leaves(found), tree_leaves(expected), rtol=1e-8, atol=1e-9, check_dtype=False
    )


# -------------------------------------------------------------------------------------------------
# The whole of it


@SPACES
@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "next_obs_input": True,
            "kl_coef": 1.5,
            "reward_scale": 0.7,
            "gamma": 0.5,
            "temperature": 0.3,
        },
        {"learn_temperature": True, "tau": 0.3, "regularization": 0.2},
        {"learn_temperature": True, "target_entropy": 0.4, "tau": 1.0, "task_input": "row"},
        {"preset": "sac", "latent_width": 0, "task_input": "row"},
    ],
    ids=["pearl", "next obs", "temperature", "oracle", "sac"],
)
def test_updates_are_those_by_hand(discrete: bool, options: dict[str, Any]):
    """Losses, gradients, parameters after Adam and targets, three times in a row."""
    agent = double_agent(discrete, **options)
    hand, own, others = ByHand(agent), generator(), generator()
    for k in range(3):
        batch = transitions(agent, BATCH, seed=2 * k)
        context = transitions(agent, CONTEXT, seed=2 * k + 1) if agent.config.latent_width else None
        logged, expected = (
            update(agent, batch, context, own),
            hand.update(batch, context, others, RATE),
        )
        assert logged.keys() == expected.keys()
        close([logged[name] for name in expected], list(expected.values()))
        for name, value in agent.params.items():
            if name in hand.grads:
                close(value.grad, hand.grads[name])
                assert float(value.grad.abs().max()) > 1e-6
            else:
                assert value.grad is None
            close(value.detach(), hand.params[name].detach())
        close(
            [agent.sac.targets[name] for name in hand.targets],
            [x.detach() for x in hand.targets.values()],
        )
    assert torch.equal(torch.randn(3, generator=own), torch.randn(3, generator=others))
    assert len({*hand.grads}) == len(agent.params) - (not agent.config.learn_temperature)


def test_targets_follow_once_a_step():
    agent = double_agent(True, tau=0.25)
    before = {name: value.clone() for name, value in agent.sac.targets.items()}
    update(agent, transitions(agent, BATCH), transitions(agent, CONTEXT, 1), generator())
    for name, value in agent.sac.targets.items():
        close(value, 0.75 * before[name] + 0.25 * agent.params[name].detach())
    assert not any(value.requires_grad for value in agent.sac.targets.values())


# -------------------------------------------------------------------------------------------------
# 6. Where gradients go


@dataclass
class Descent:
    """A loss on its way down: what it depends on, what got its gradient, and what it moved."""

    loss: Tensor
    reached: Params  # gradients by autograd, where they are not zero
    given: set[str]  # whose `.grad` it changed
    moved: set[str]


def watch(agent: PEARL) -> list[Descent]:
    """All descents from now on."""
    seen, descend, params = [], agent.sac._step, agent.params

    def differ(before: dict[str, Tensor | None], after: dict[str, Tensor | None]) -> set[str]:
        return {
            name
            for name, value in after.items()
            if value is not None and (before[name] is None or not torch.equal(value, before[name]))
        }

    def watched(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        found = gradients(loss, params)
        values = {name: value.detach().clone() for name, value in params.items()}
        grads = {
            name: None if value.grad is None else value.grad.clone()
            for name, value in params.items()
        }
        descend(optimizer, loss)
        seen.append(
            Descent(
                loss.detach(),
                {name: grad for name, grad in found.items() if grad is not None and grad.any()},
                differ(grads, {name: value.grad for name, value in params.items()}),
                differ(values, {name: value.detach() for name, value in params.items()}),
            )
        )

    agent.sac._step = watched
    return seen


@SPACES
def test_every_loss_moves_its_own_parameters_and_nothing_else(discrete: bool):
    """Critics and encoder by the first, the policy by the second, the temperature by the third;
    targets by none.

    The policy's loss depends on the critics, and gives them no gradient.
    """
    agent = double_agent(discrete, learn_temperature=True)
    held = {name: value.clone() for name, value in agent.sac.targets.items()}
    agent.sac.config = agent.config.model_copy(update={"tau": 0.0})
    for seed in range(2):  # in the second, all have a gradient before
        seen = watch(agent)
        batch, context = transitions(agent, BATCH, seed), transitions(agent, CONTEXT, seed + 2)
        update(agent, batch, context, generator(seed))
        own = [("q1", "q2", "encoder"), ("policy",), ("log_temperature",)]
        on = [own[0], ("policy", "q1", "q2"), own[2]]
        for descent, mine, depends in zip(seen, own, on, strict=True):
            assert descent.given == descent.moved == set(of(agent.params, *mine))
            reached = set(descent.reached)
            assert descent.given <= reached <= set(of(agent.params, *depends))
        assert of(seen[1].reached, "q"), "of the lesser one alone, where that is always the same"
        close(agent.sac.targets, held)
        del agent.sac._step


@SPACES
def test_the_encoder_learns_from_the_critics_error_and_the_divergence(discrete: bool):
    """Its gradient is the sum of the two, each computed apart by hand."""
    agent = double_agent(discrete, kl_coef=0.6)
    hand, seen, noise = ByHand(agent), watch(agent), generator(1)
    batch, context = transitions(agent, BATCH), transitions(agent, CONTEXT, 1)
    update(agent, batch, context, generator(1))
    normal = torch.randn(TASKS, 3, generator=noise)
    beliefs = hand.believed(context, TASKS)
    z = [q.loc + q.scale * n for q, n in zip(beliefs, normal, strict=True)]
    actions = None if discrete else torch.randn(TASKS * BATCH, 2, generator=noise)
    encoder = hand.of("encoder")
    by_error, by_kl = (
        gradients(hand.error(batch, z, actions)[0], encoder),
        gradients(hand.kl(beliefs), encoder),
    )
    found = of(seen[0].reached, "encoder")
    assert set(found) == set(encoder)
    for name, grad in found.items():
        close(grad, by_error[name] + 0.6 * by_kl[name])
        assert min(float(by_error[name].abs().max()), float(by_kl[name].abs().max())) > 1e-4


@SPACES
def test_the_temperature_goes_where_the_entropy_is_its_target(discrete: bool):
    """Its gradient is entropy − target: it falls where the policy is too random, and rises where it
    is not.
    """
    batch = context = None
    for target in (-9.0, 0.1, 9.0):
        agent = double_agent(
            discrete, learn_temperature=True, target_entropy=target, temperature=0.5
        )
        batch, context = transitions(agent, BATCH), transitions(agent, CONTEXT, 1)
        metrics = update(agent, batch, context, generator())
        value = agent.params["log_temperature"]
        close(value.grad, metrics["entropy"] - target)
        assert (float(metrics["temperature"]) < 0.5) == (float(metrics["entropy"]) > target)
    assert double_agent(True).sac._target_entropy == pytest.approx(0.5 * math.log(2))
    assert double_agent(False).sac._target_entropy == -2
    agent = double_agent(discrete, temperature=0.5)
    assert float(update(agent, batch, context, generator())["temperature"]) == pytest.approx(0.5)


# -------------------------------------------------------------------------------------------------
# 8. Divergence and reward scale


def test_the_divergence_is_summed_over_tasks_and_entries(monkeypatch: pytest.MonkeyPatch):
    """Twice the tasks, twice the divergence, while the error stays a mean; its weight multiplies it
    alone.
    """
    monkeypatch.setattr(Posterior, "draw", lambda posterior, _: posterior.mean)
    agent, again = (double_agent(True, kl_coef=0.4) for _ in range(2))
    batch, context = transitions(agent, BATCH), transitions(agent, CONTEXT, 1)
    posterior = tree_map(Tensor.detach, agent._infer_posterior(context, TASKS))
    seen = watch(agent)
    once = update(agent, batch, context, generator())
    expected = kl_divergence(
        Normal(posterior.mean, posterior.variance.sqrt()), Normal(0.0, 1.0)
    ).sum()
    close(once["kl"], expected)
    close(seen[0].loss, once["critic_loss"] + 0.4 * once["kl"])
    double = [tree_map(lambda x: torch.cat([x, x]), x) for x in (batch, context)]
    twice = update(again, *double, generator())
    close(twice["kl"], 2 * once["kl"])
    close(twice["critic_loss"], once["critic_loss"])
    wide = Posterior(*(torch.cat([x, x], dim=-1) for x in (posterior.precision, posterior.shift)))
    close(wide.kl().sum(), 2 * expected)


def level(agent: PEARL, value: float) -> None:
    """Critics that say 0, targets that say `value`, and a policy that is paid nothing for its
    entropy.
    """
    with torch.no_grad():
        for name, param in agent.params.items():
            if name.startswith("q"):
                param.zero_()
                agent.sac.targets[name].fill_(value if name.endswith("head.bias") else 0.0)
        agent.params["log_temperature"].fill_(-80.0)


@SPACES
def test_critics_learn_from_scaled_training_rewards_and_what_follows(discrete: bool):
    """11: where an episode terminated nothing follows; elsewhere γ times the lesser of the targets'
    values.
    """
    for scale in (1.0, 6.0):
        agent = double_agent(discrete, reward_scale=scale)
        level(agent, 2.5)
        agent.sac.targets["q1.head.bias"] += 4
        batch = transitions(agent, BATCH)
        metrics = update(agent, batch, transitions(agent, CONTEXT, 1), generator())
        target = scale * batch.training_reward + torch.where(batch.terminated, 0.0, 0.75 * 2.5)
        assert batch.terminated.any()
        assert not batch.terminated.all()
        close(metrics["critic_loss"], 2 * target.square().mean())


def test_the_context_is_not_scaled_and_knows_no_training_reward():
    plain, scaled = (double_agent(True, reward_scale=scale) for scale in (1.0, 50.0))
    context = transitions(plain, CONTEXT)
    posterior = plain._infer_posterior(context, TASKS)
    close(scaled._infer_posterior(context, TASKS), posterior)
    close(
        plain._infer_posterior(
            replace(context, training_reward=context.training_reward + 9), TASKS
        ),
        posterior,
    )
    assert not torch.allclose(
        plain._infer_posterior(replace(context, reward=context.reward + 9), TASKS).mean,
        posterior.mean,
    )


@SPACES
@pytest.mark.parametrize("told", [False, True])
def test_the_encoder_sees_what_a_step_led_to_if_it_is_told(discrete: bool, told: bool):
    agent = double_agent(discrete, next_obs_input=told)
    context = transitions(agent, CONTEXT)
    posterior = agent._infer_posterior(context, TASKS)
    for name, seen in (("obs", True), ("reward", True), ("next_obs", told), ("terminated", False)):
        value = getattr(context, name)
        other = replace(context, **{name: ~value if value.dtype == torch.bool else value + 1})
        assert (
            not torch.allclose(agent._infer_posterior(other, TASKS).mean, posterior.mean)
        ) == seen, name
    flipped = 1 - context.action if discrete else -context.action
    assert not torch.allclose(
        agent._infer_posterior(replace(context, action=flipped), TASKS).mean, posterior.mean
    )


def test_an_encoder_of_a_spread_of_nearly_nothing_keeps_its_variance():
    agent = double_agent(True)
    agent.params["encoder.head.bias"].data.fill_(-1000.0)
    context = transitions(agent, CONTEXT)
    close(
        agent._infer_posterior(context, TASKS).variance,
        torch.full((TASKS, 3), 1e-7 / CONTEXT).double(),
    )


# -------------------------------------------------------------------------------------------------
# 10. Regularization


def test_regularization_reaches_the_policy():
    """Its share of the gradient is that of the mean squares of means and log-deviations."""
    found = []
    for weight in (0.0, 0.7):
        agent = double_agent(False, regularization=weight)
        batch, z = transitions(agent, BATCH), torch.randn(TASKS, 3, generator=generator(1)).double()
        inputs = agent.inputs(batch.obs, z, batch.task)
        normal = agent.sac.normal(TASKS * BATCH, generator(2))
        loss, metrics = agent.sac.policy_loss(inputs, normal)
        found.append((gradients(loss, of(agent.params, "policy")), metrics["policy_loss"]))
    hand = ByHand(agent)
    regular = hand.policy_loss(
        batch, list(z), torch.randn(TASKS * BATCH, 2, generator=generator(2))
    )[1]
    for name, expected in gradients(regular, hand.of("policy")).items():
        close(found[1][0][name] - found[0][0][name], expected)
        assert float(expected.abs().max()) > 1e-4
    close(found[0][1], found[1][1])


# -------------------------------------------------------------------------------------------------
# In an iteration


@SPACES
def test_an_iteration_updates_as_often_as_it_says_and_logs_the_means(discrete: bool):
    agent = make(
        Dense(discrete), learning_rate=(1e-3, 0.0), kl_coef=(0.6, 0.2), learn_temperature=True
    )
    world = world_of(Dense(discrete))
    world.progress = 0.5
    given = spy(agent, "_update")
    metrics = agent.iterate(world, Rng(0))
    logged = [each[-1] for each in given]
    assert len(logged) == 4
    for name in ("critic_loss", "kl", "q", "policy_loss", "entropy", "temperature"):
        assert metrics[name] == pytest.approx(
            sum(float(each[name]) for each in logged) / 4, rel=1e-5
        )
    assert all(
        group["lr"] == 5e-4
        for optimizer in agent.sac._optimizers
        for group in optimizer.param_groups
    )
    assert len(agent.sac._optimizers) == 3
    assert [each[2] for each in given] == pytest.approx([0.4] * 4)
