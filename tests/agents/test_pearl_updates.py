"""PEARL's gradient steps (SPECS 1.4, items 6, 8, 10, 11), held against loops over single
transitions.
"""

from __future__ import annotations

import math
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
from metarl.data.replay import Transitions
from metarl.nn.gaussian_product import Posterior

TASKS, BATCH, CONTEXT, RATE = 3, 4, 5, 0.01


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double_agent(discrete: bool, **options: Any) -> PEARL:
    """Chance is made double too; γ, which is rounded to single precision, is the same there."""
    agent = make(Dense(discrete), dtype=torch.float64, **{"gamma": 0.75} | options)
    draw = agent._normal
    agent._normal = lambda *given: draw(*given).double()
    for optimizer in agent._optimizers:
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
            agent._update(batch, context, own),
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
            [agent.targets[name] for name in hand.targets],
            [x.detach() for x in hand.targets.values()],
        )
    assert torch.equal(torch.randn(3, generator=own), torch.randn(3, generator=others))
    assert len({*hand.grads}) == len(agent.params) - (not agent.config.learn_temperature)


def test_targets_follow_once_a_step():
    agent = double_agent(True, tau=0.25)
    before = {name: value.clone() for name, value in agent.targets.items()}
    agent._update(transitions(agent, BATCH), transitions(agent, CONTEXT, 1), generator())
    for name, value in agent.targets.items():
        close(value, 0.75 * before[name] + 0.25 * agent.params[name].detach())
    assert not any(value.requires_grad for value in agent.targets.values())


# -------------------------------------------------------------------------------------------------
# 6. Where gradients go


@SPACES
def test_every_loss_moves_its_own_parameters_and_nothing_else(discrete: bool):
    """Critics and encoder by the first, the policy by the second, the temperature by the third;
    targets by none.
    """
    agent = double_agent(discrete, learn_temperature=True)
    seen, descend = [], agent._descend

    def watched(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        reached = {
            name
            for name, grad in gradients(loss, agent.params).items()
            if grad is not None and grad.any()
        }
        before = {name: value.detach().clone() for name, value in agent.params.items()}
        descend(optimizer, loss)
        moved = {
            name
            for name, value in agent.params.items()
            if not torch.equal(value.detach(), before[name])
        }
        seen.append((reached, moved))

    agent._descend = watched
    held = {name: value.clone() for name, value in agent.targets.items()}
    agent.config = agent.config.model_copy(update={"tau": 0.0})
    agent._update(transitions(agent, BATCH), transitions(agent, CONTEXT, 1), generator())
    for (reached, moved), prefixes in zip(
        seen, [("q1", "q2", "encoder"), ("policy",), ("log_temperature",)], strict=True
    ):
        assert reached == moved == set(of(agent.params, *prefixes))
    close(agent.targets, held)


@SPACES
def test_the_encoder_learns_from_the_critics_error_and_the_divergence(discrete: bool):
    """Its gradient is the sum of the two, each computed apart by hand."""
    agent = double_agent(discrete, kl_coef=0.6)
    hand = ByHand(agent)
    batch, context = transitions(agent, BATCH), transitions(agent, CONTEXT, 1)
    posterior = agent._infer_posterior(context, TASKS)
    normal = torch.randn(TASKS, 3, generator=generator(1))
    loss, _ = agent._critic_loss(batch, posterior, posterior.draw(normal), generator(2))
    beliefs = hand.believed(context, TASKS)
    z = [q.loc + q.scale * n for q, n in zip(beliefs, normal, strict=True)]
    noise = None if discrete else torch.randn(TASKS * BATCH, 2, generator=generator(2))
    encoder = hand.of("encoder")
    by_error, by_kl = (
        gradients(hand.error(batch, z, noise)[0], encoder),
        gradients(hand.kl(beliefs), encoder),
    )
    found = gradients(loss, of(agent.params, "encoder"))
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
        metrics = agent._update(batch, context, generator())
        value = agent.params["log_temperature"]
        close(value.grad, metrics["entropy"] - target)
        assert (float(metrics["temperature"]) < 0.5) == (float(metrics["entropy"]) > target)
    assert double_agent(True)._target_entropy == pytest.approx(0.5 * math.log(2))
    assert double_agent(False)._target_entropy == -2
    agent = double_agent(discrete, temperature=0.5)
    assert float(agent._update(batch, context, generator())["temperature"]) == pytest.approx(0.5)


# -------------------------------------------------------------------------------------------------
# 8. Divergence and reward scale


def test_the_divergence_is_summed_over_tasks_and_entries():
    """Twice the tasks, twice the divergence, while the error stays a mean; its weight multiplies it
    alone.
    """
    agent = double_agent(True, kl_coef=0.4)
    batch, context = transitions(agent, BATCH), transitions(agent, CONTEXT, 1)
    posterior = agent._infer_posterior(context, TASKS)
    z = posterior.draw(torch.randn(TASKS, 3, generator=generator(1)))
    loss, once = agent._critic_loss(batch, posterior, z, generator())
    expected = kl_divergence(
        Normal(posterior.mean, posterior.variance.sqrt()), Normal(0.0, 1.0)
    ).sum()
    close(once["kl"], expected.detach())
    close(loss.detach(), once["critic_loss"] + 0.4 * once["kl"])
    double = [tree_map(lambda x: torch.cat([x, x]), x) for x in (batch, posterior, z)]
    _, twice = agent._critic_loss(*double, generator())
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
                agent.targets[name].fill_(value if name.endswith("head.bias") else 0.0)
        agent.params["log_temperature"].fill_(-80.0)


@SPACES
def test_critics_learn_from_scaled_training_rewards_and_what_follows(discrete: bool):
    """11: where an episode terminated nothing follows; elsewhere γ times the lesser of the targets'
    values.
    """
    for scale in (1.0, 6.0):
        agent = double_agent(discrete, reward_scale=scale)
        level(agent, 2.5)
        agent.targets["q1.head.bias"] += 4
        batch, posterior = (
            transitions(agent, BATCH),
            agent._infer_posterior(transitions(agent, CONTEXT, 1), TASKS),
        )
        _, metrics = agent._critic_loss(batch, posterior, posterior.mean, generator())
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
        loss, _, metrics = agent._policy_loss(batch, z, generator(2))
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
    logged = spy(agent, "_update", lambda *given: given[-1])
    metrics = agent.iterate(world, Rng(0))
    assert len(logged) == 4
    for name in ("critic_loss", "kl", "q", "policy_loss", "entropy", "temperature"):
        assert metrics[name] == pytest.approx(
            sum(float(each[name]) for each in logged) / 4, rel=1e-5
        )
    assert all(
        group["lr"] == 5e-4 for optimizer in agent._optimizers for group in optimizer.param_groups
    )
    assert len(agent._optimizers) == 3
    assert agent.kl_coef == pytest.approx(0.4)
