"""How heads and losses change with the parameters: against finite differences, autograd, and the
looped version.
"""

from __future__ import annotations

import math

import pytest
import torch
from looped import (
    POLICIES,
    A,
    M,
    N,
    T,
    dot,
    heads_alone,
    normal,
    random_episodes,
    random_params,
    row,
    small_policy,
)
from torch import Tensor

from metarl.algorithms.inner_loop import likelihood_ratio
from metarl.algorithms.second_order import (
    AutogradLinearization,
    Linearization,
    MLPLinearization,
    linearize,
)
from metarl.core.types import Params, tree_map
from metarl.nn.distributions import from_heads
from metarl.nn.policy import Policy

EXACT = {"rtol": 1e-11, "atol": 1e-12}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}  # to finite differences
STEP = 1e-5

WAYS = {
    f"{name}, {way.__name__}": (name, way)
    for name in POLICIES
    for way in (linearize, AutogradLinearization)
}
BOTH = pytest.mark.parametrize(("name", "way"), WAYS.values(), ids=WAYS)
MLPS = [name for name, options in POLICIES.items() if "memory" not in options]


def moved(params: Params, along: Params, by: float) -> Params:
    return {name: value + by * along[name] for name, value in params.items()}


def slope_rate(f, params: Params, along: Params) -> Params:
    """Central difference of a tree f(params) along a tangent."""
    ahead, behind = f(moved(params, along, STEP)), f(moved(params, along, -STEP))
    return {name: (ahead[name] - behind[name]) / (2 * STEP) for name in ahead}


class Setup:
    """A policy at one copy of the parameters a task, on ragged episodes, with a loss that bends in
    all its heads.
    """

    def __init__(self, name: str, way) -> None:
        self.policy: Policy = small_policy(**POLICIES[name])
        self.params = random_params(self.policy, N)
        self.episodes = random_episodes(self.policy, seed=1)
        self.way = way

    def at(self, params: Params) -> Linearization:
        return self.way(self.policy, params, self.episodes.inputs)

    def loss(self, heads: Params) -> Tensor:
        return likelihood_ratio(self.episodes, from_heads(heads))


@pytest.fixture
def setup(name: str, way) -> Setup:
    return Setup(name, way)


@BOTH
def test_heads_are_the_policys(setup: Setup):
    """Step by step, one task at a time."""
    heads = setup.at(setup.params).heads
    for i in range(N):
        alone = {name: value[i] for name, value in setup.params.items()}
        expected = heads_alone(setup.policy, alone, row(setup.episodes, i).inputs)
        torch.testing.assert_close(heads["action"][:, i : i + 1], expected.pop("action"), **EXACT)
        for key, value in expected.items():
            torch.testing.assert_close(heads[key][i], value, **EXACT)
    assert heads["action"].shape == (T, N, M, A)
    assert ("log_std" in heads) == (not setup.policy.discrete)
    assert not any(value.requires_grad for value in heads.values())


@BOTH
def test_jvp_is_how_the_heads_move(setup: Setup):
    tangent = normal(setup.params, 2)
    expected = slope_rate(lambda params: setup.at(params).heads, setup.params, tangent)
    torch.testing.assert_close(setup.at(setup.params).jvp(tangent), expected, **CLOSE)


@BOTH
def test_vjp_is_the_adjoint_of_jvp(setup: Setup):
    """⟨jvp v, c⟩ = ⟨v, vjp c⟩."""
    here = setup.at(setup.params)
    tangent, cotangent = normal(setup.params, 2), normal(here.heads, 3)
    pulled = here.vjp(cotangent)
    assert list(pulled) == list(setup.params)
    torch.testing.assert_close(dot(here.jvp(tangent), cotangent), dot(tangent, pulled), **EXACT)


@BOTH
def test_the_slope_is_that_of_the_loss(setup: Setup):
    slope = setup.at(setup.params).differentiate(setup.loss)
    torch.testing.assert_close(slope.value, setup.loss(setup.at(setup.params).heads), **EXACT)
    tangent = normal(setup.params, 2)
    ahead, behind = (
        setup.at(moved(setup.params, tangent, by)).differentiate(setup.loss).value
        for by in (STEP, -STEP)
    )
    along = sum((slope.gradient[k] * tangent[k]).flatten(1).sum(1) for k in tangent)
    torch.testing.assert_close(along, (ahead - behind) / (2 * STEP), **CLOSE)


@BOTH
def test_hvp_is_how_the_gradient_moves(setup: Setup):
    tangent = normal(setup.params, 2)
    expected = slope_rate(
        lambda params: setup.at(params).differentiate(setup.loss).gradient, setup.params, tangent
    )
    torch.testing.assert_close(
        setup.at(setup.params).differentiate(setup.loss).hvp(tangent), expected, **CLOSE
    )


@BOTH
def test_hvp_is_symmetric(setup: Setup):
    slope = setup.at(setup.params).differentiate(setup.loss)
    u, v = normal(setup.params, 2), normal(setup.params, 3)
    torch.testing.assert_close(dot(u, slope.hvp(v)), dot(slope.hvp(u), v), **EXACT)


@BOTH
def test_a_loss_that_is_linear_in_the_heads_turns_with_the_network_alone(setup: Setup):
    """It has no second derivative of its own, nor any in the deviation that it does not look at."""
    weight = setup.episodes.valid.unsqueeze(-1) * normal(setup.at(setup.params).heads, 6)["action"]

    def linear(heads: Params) -> Tensor:
        return (weight * heads["action"]).sum((0, 2, 3))

    tangent = normal(setup.params, 2)
    slope = setup.at(setup.params).differentiate(linear)
    expected = slope_rate(
        lambda params: setup.at(params).differentiate(linear).gradient, setup.params, tangent
    )
    turned = slope.hvp(tangent)
    torch.testing.assert_close(turned, expected, **CLOSE)
    if not setup.policy.discrete:
        assert slope.gradient["action.log_std"].eq(0).all()
        assert turned["action.log_std"].eq(0).all()
    if not setup.policy.hidden_sizes:
        assert all(value.eq(0).all() for value in turned.values())


@BOTH
def test_tasks_side_by_side_are_tasks_alone(setup: Setup):
    """Whatever is asked: a mean over tasks would make every answer N times too small."""
    whole, tangent = setup.at(setup.params), normal(setup.params, 2)
    cotangent = normal(whole.heads, 3)
    slope = whole.differentiate(setup.loss)
    answers = (slope.gradient, slope.hvp(tangent), whole.vjp(cotangent))
    for i in range(N):
        part, episodes = slice(i, i + 1), row(setup.episodes, i)
        own, along = ({k: v[part] for k, v in tree.items()} for tree in (setup.params, tangent))
        alone = setup.way(setup.policy, own, episodes.inputs)
        its_slope = alone.differentiate(
            lambda heads, e=episodes: likelihood_ratio(e, from_heads(heads))
        )
        its_cotangent = {k: v[:, part] if k == "action" else v[part] for k, v in cotangent.items()}
        expected = (its_slope.gradient, its_slope.hvp(along), alone.vjp(its_cotangent))
        torch.testing.assert_close(
            tuple({k: v[part] for k, v in tree.items()} for tree in answers), expected, **EXACT
        )
        torch.testing.assert_close(slope.value[part], its_slope.value, **EXACT)
        torch.testing.assert_close(
            whole.jvp(tangent)["action"][:, part], alone.jvp(along)["action"], **EXACT
        )


@pytest.mark.parametrize("name", MLPS)
def test_mlps_by_hand_equal_automatic_differentiation(name: str):
    """Also when asked again and in turns: memory that is used again must not leak into an answer
    given before.
    """
    setup = Setup(name, linearize)
    tangents = [normal(setup.params, seed) for seed in (2, 3)]
    answers = []
    for way in (linearize, AutogradLinearization):
        here = way(setup.policy, setup.params, setup.episodes.inputs)
        cotangents = [normal(here.heads, seed) for seed in (4, 5)]
        slope = here.differentiate(setup.loss)
        mixed = [ask(x) for ask in (here.jvp, slope.hvp) for x in tangents]
        mixed += [here.vjp(x) for x in cotangents] + [
            here.jvp(tangents[0]),
            slope.hvp(tangents[0]),
            slope.gradient,
        ]
        answers.append([here.heads, slope.value, *mixed])
        assert isinstance(here, MLPLinearization if way is linearize else AutogradLinearization)
    torch.testing.assert_close(*answers, **EXACT)


def test_only_mlps_are_done_by_hand():
    for options in POLICIES.values():
        policy = small_policy(**options)
        here = linearize(policy, random_params(policy, N), random_episodes(policy, 1).inputs)
        assert isinstance(here, AutogradLinearization if "memory" in options else MLPLinearization)


@BOTH
def test_what_was_not_lived_through_does_not_matter(setup: Setup):
    """What is recorded after an episode's end changes neither value nor derivatives."""
    invalid = ~setup.episodes.valid
    assert invalid.any()

    def corrupt(x: Tensor) -> Tensor:
        return torch.where(
            invalid.view(*invalid.shape, *(1,) * (x.dim() - 3)),
            (7 * x) if x.is_floating_point() else 0,
            x,
        )

    tangent, answers = normal(setup.params, 2), []
    for episodes in (
        setup.episodes,
        tree_map(lambda x: x if x.dtype == torch.bool else corrupt(x), setup.episodes),
    ):
        slope = setup.way(setup.policy, setup.params, episodes.inputs).differentiate(
            lambda heads, e=episodes: likelihood_ratio(e, from_heads(heads))
        )
        answers.append((slope.value, slope.gradient, slope.hvp(tangent)))
    torch.testing.assert_close(*answers, **EXACT)


@pytest.mark.parametrize("way", [linearize, AutogradLinearization])
def test_a_deviation_below_the_smallest_has_no_derivative(way):
    """It counts as 1e-6, whatever it is: the second entry, not the others."""
    setup = Setup("tanh, continuous", way)
    setup.params["action.log_std"][:, 1] = math.log(1e-6) - 1

    def loss(heads: Params) -> Tensor:
        actions = from_heads(heads)
        return setup.episodes.mean(
            actions.entropy() + 1e-3 * actions.mean.square().sum(-1) * actions.entropy()
        )

    slope = setup.at(setup.params).differentiate(loss)
    turned = slope.hvp(normal(setup.params, 2))
    for tree in (slope.gradient, turned):
        assert tree["action.log_std"][:, 1].eq(0).all()
        assert tree["action.log_std"][:, [0, 2]].ne(0).all()
