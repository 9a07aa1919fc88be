"""MAML's outer step: gradient, Fisher product, loss and divergence that the trust region is given.

Against autograd through everything at once, one task at a time (SPECS 1.4, items 13 to 15 and 19),
and finite differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from helpers import CPU
from looped import as_torch, heads_alone, loss_alone, normal, row, trail_alone
from torch import Tensor
from torch.distributions import kl_divergence

from metarl.agents.maml import agent as maml
from metarl.agents.maml.agent import MAML
from metarl.algorithms.inner_loop import STEP_SIZE, Chain
from metarl.core.agent import Mode
from metarl.core.rng import Rng
from metarl.core.rollout import Recorder, Rollout
from metarl.core.types import (
    Belief,
    Params,
    Spec,
    Step,
    TaskInfo,
    Tasks,
    next_cue,
    replace,
    tree_map,
)
from metarl.experiments.building import make_agent

N, M, O, A, HORIZON = 3, 4, 2, 2, 4  # noqa: E741  (letters of metarl.core.types)
EXACT = {"rtol": 1e-8, "atol": 1e-10}
VARIANTS = ["maml", "fomaml", "e-maml", "meta-sgd"]
POLICIES = {
    "discrete": {"discrete": True},
    "continuous": {"discrete": False},
    "relu, two steps": {
        "discrete": False,
        "activation": "relu",
        "inner_steps": 2,
        "step_sizes": (0.25, 0.125),
    },
    "gru": {"discrete": True, "memory": "gru"},
    "gru, continuous": {"discrete": False, "memory": "gru", "inner_loss": "likelihood_ratio"},
}
EVERY = {
    f"{variant}, {name}": (variant, options)
    for name, options in POLICIES.items()
    for variant in VARIANTS
}


class Noise:
    """A world in float64 of ragged lanes: what is seen and paid is noise, an episode ends by
    chance.
    """

    episodes, progress = M, 0.0

    def tasks(self, count: int, rng: Rng) -> Tasks:
        return Tasks(torch.zeros(count, 1), torch.arange(count), "train")

    def task_info(self, agent: MAML, tasks: Tasks) -> TaskInfo:
        return TaskInfo(len(tasks), M, CPU)

    def collect(
        self,
        agent: MAML,
        belief: Belief,
        tasks: Tasks,
        episodes: int,
        rng: Rng,
        mode: Mode = "sample",
    ) -> tuple[Rollout, Belief]:
        chance, luck = tasks.streams(rng.child("world"), M), tasks.streams(rng.child("act"), M)
        recorder, valid = Recorder(HORIZON), torch.ones(len(tasks), M) > 0
        obs = chance.normal(0, O).double()
        for time in range(HORIZON):
            acted, belief = agent.act(belief, obs, luck, time, mode)
            obs = chance.normal(1 + time, O).double()
            draw, last = chance.uniform(10 + time, 2), torch.full_like(valid, time + 1 == HORIZON)
            terminated = (draw[..., 0] < 0.3) & ~last
            step = Step(obs, obs, draw[..., 1].double(), terminated, last)
            recorder.write(acted, step, valid)
            belief = replace(belief, cue=next_cue(agent.spec, acted.action, step))
            valid = valid & ~terminated
        return recorder.rollout(tasks), belief


class Outer:
    """What one iteration hands to the trust region, and the same quantities computed in a loop."""

    def __init__(
        self, patch: pytest.MonkeyPatch, variant: str, discrete: bool, **options: Any
    ) -> None:
        spec = Spec(
            "noise", {"noise": O}, action_width=A, discrete=discrete, horizon=HORIZON, task_width=1
        )
        small = {
            "tasks": N,
            "episodes_per_task": M,
            "hidden_sizes": (3,),
            "memory_width": 3,
            "step_sizes": (0.25,),
        }
        agent: MAML = make_agent("maml", spec, variant=variant, **small | options)
        for name, noise in normal(
            agent.params, 1
        ).items():  # far from special points; step sizes stay positive
            agent.params[name] += (
                0.1 * noise.square() if name.startswith(STEP_SIZE) else 0.4 * noise
            )
        outer = agent._trust_region

        def spy(chain: Chain, query: Any, progress: float) -> dict[str, float]:
            self.chain, self.query = chain, query
            return outer(chain, query, progress)

        def stand_still(
            start: Tensor,
            loss: float,
            gradient: Tensor,
            product: Callable,
            evaluate: Callable,
            **_: Any,
        ) -> Any:
            self.start, self.gradient, self.product, self.evaluate = (
                start,
                gradient,
                product,
                evaluate,
            )
            assert loss == pytest.approx(evaluate(start)[0], abs=1e-12)
            return start, {}

        patch.setattr(agent, "_trust_region", spy)
        patch.setattr(maml, "trust_region_step", stand_still)
        patch.setattr(
            agent, "_copy_into_params", lambda theta: None
        )  # which would change θ beneath the product
        self.agent = agent
        agent.iterate(Noise(), Rng(0))
        assert self.start.dtype == torch.float64
        start = self.start.clone().requires_grad_()
        self.old = [tree_map(Tensor.detach, self.after(start, i)) for i in range(N)]

    def trail(self, theta: Tensor, i: int) -> list[Params]:
        """Task i's parameters before every step and after the last."""
        named, options = self.agent._named(theta, self.agent.params), self.agent.config
        params = {name: value for name, value in named.items() if not name.startswith(STEP_SIZE)}
        sizes = {
            name: named.get(STEP_SIZE + name, torch.tensor(options.step_sizes[0]))
            for name in params
        }
        factors = [torch.tensor(size / options.step_sizes[0]) for size in options.step_sizes]
        episodes = [row(step.episodes, i) for step in self.chain.steps]
        return trail_alone(
            options.inner_loss,
            self.agent.policy,
            params,
            sizes,
            episodes,
            factors,
            options.first_order,
        )

    def after(self, theta: Tensor, i: int) -> Params:
        """Heads of task i's adapted policy on what it lived through."""
        return heads_alone(
            self.agent.policy, self.trail(theta, i)[-1], row(self.query.episodes, i).inputs
        )

    def loss(self, theta: Tensor) -> Tensor:
        """−mean ρ A of the adapted policies; with E-MAML, the same of those before with the return
        after for A.
        """
        losses = []
        for i in range(N):
            *before, after = self.trail(theta, i)
            losses.append(
                loss_alone(
                    "likelihood_ratio", self.agent.policy, after, row(self.query.episodes, i)
                )
            )
            for params, step in zip(before, self.chain.steps, strict=True):
                own = row(step.episodes, i)
                own = replace(
                    own, advantage=torch.full_like(own.advantage, float(self.query.credit[i]))
                )
                exploring = loss_alone("likelihood_ratio", self.agent.policy, params, own)
                losses[-1] = losses[-1] + self.agent.config.exploration_credit * exploring
        return torch.stack(losses).mean()

    def divergence(self, theta: Tensor) -> Tensor:
        """Mean over tasks of the mean over steps of KL(now ‖ at the start)."""
        found = []
        for i in range(N):
            kl = kl_divergence(as_torch(self.after(theta, i)), as_torch(self.old[i]))
            found.append(kl[row(self.query.episodes, i).valid].mean())
        return torch.stack(found).mean()

    def direction(self, seed: int) -> Tensor:
        return torch.randn(
            self.start.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )


@pytest.fixture(params=EVERY.values(), ids=EVERY, scope="module")
def outer(request: pytest.FixtureRequest) -> Iterator[Outer]:
    variant, options = request.param
    with pytest.MonkeyPatch.context() as patch:
        torch.set_default_dtype(torch.float64)
        try:
            yield Outer(patch, variant, **options)
        finally:
            torch.set_default_dtype(torch.float32)


def first_order(outer: Outer) -> bool:
    return outer.agent.config.first_order


def test_the_episodes_are_ragged(outer: Outer):
    """Else the rest would say nothing of masks."""
    for episodes in (outer.query.episodes, *(step.episodes for step in outer.chain.steps)):
        steps = episodes.valid.sum(0)
        assert len(steps.unique()) > 2
        assert len(steps.sum(1).unique()) > 1
    assert len(outer.chain.steps) == outer.agent.config.inner_steps


def test_loss_and_divergence_are_those_of_the_loop(outer: Outer):
    """At the start, where nothing diverged, and elsewhere; the old policy is that which adapted
    from the start.
    """
    loss, kl = outer.evaluate(outer.start)
    assert kl == pytest.approx(0, abs=1e-14)
    for theta in (
        outer.start,
        outer.start + 0.02 * outer.direction(2),
        outer.start - 0.1 * outer.direction(3),
    ):
        found = outer.evaluate(theta)
        theta = theta.clone().requires_grad_()
        assert found == pytest.approx(
            (float(outer.loss(theta).detach()), float(outer.divergence(theta).detach()))
        )
    assert found[1] > 1e-4
    assert found[0] != pytest.approx(loss, abs=1e-4)


def test_the_gradient_is_autograds_through_the_steps(outer: Outer):
    theta = outer.start.clone().requires_grad_()
    torch.testing.assert_close(
        outer.gradient, torch.autograd.grad(outer.loss(theta), theta)[0], **EXACT
    )


def test_the_gradient_is_how_the_loss_moves(outer: Outer):
    """By central differences of the loss; without its second-order part it is another direction."""
    v, step = outer.direction(2), 1e-5
    ahead, behind = (
        outer.evaluate(outer.start + step * v)[0],
        outer.evaluate(outer.start - step * v)[0],
    )
    along = float(outer.gradient @ v)
    assert first_order(outer) != (along == pytest.approx((ahead - behind) / (2 * step), rel=1e-5))


def test_the_product_is_the_hessian_of_the_divergence(outer: Outer):
    """By double backward through adaptation and divergence."""
    theta, v = outer.start.clone().requires_grad_(), outer.direction(2)
    (slope,) = torch.autograd.grad(outer.divergence(theta), theta, create_graph=True)
    assert float(slope.detach().abs().max()) < 1e-12
    torch.testing.assert_close(outer.product(v), torch.autograd.grad(slope @ v, theta)[0], **EXACT)


def test_the_product_is_how_the_divergences_gradient_moves(outer: Outer):
    """By central differences of it, and the divergence's own second difference."""
    v, step = outer.direction(2), 1e-4

    def slope(theta: Tensor) -> Tensor:
        theta = theta.clone().requires_grad_()
        return torch.autograd.grad(outer.divergence(theta), theta)[0]

    expected = (slope(outer.start + step * v) - slope(outer.start - step * v)) / (2 * step)
    second = (
        outer.evaluate(outer.start + step * v)[1] + outer.evaluate(outer.start - step * v)[1]
    ) / step**2
    if not first_order(outer):
        torch.testing.assert_close(outer.product(v), expected, rtol=1e-4, atol=1e-6)
    assert first_order(outer) != (float(v @ outer.product(v)) == pytest.approx(second, rel=1e-4))


def test_the_product_is_symmetric_and_never_negative(outer: Outer):
    u, v = outer.direction(2), outer.direction(3)
    assert float(u @ outer.product(v)) == pytest.approx(float(v @ outer.product(u)))
    assert float(v @ outer.product(v)) > 0


def test_θ_as_a_vector_and_by_names(outer: Outer):
    assert torch.equal(
        outer.agent._vector(outer.agent._named(outer.gradient, outer.agent.params)), outer.gradient
    )
    assert len(outer.start) == sum(value.numel() for value in outer.agent.params.values())
    steps = [name for name in outer.agent.params if name.startswith(STEP_SIZE)]
    assert len(steps) == (len(outer.agent.params) / 2 if outer.agent.config.learn_step_sizes else 0)
