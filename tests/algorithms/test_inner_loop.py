"""Chains of gradient steps and their derivatives: against autograd through a loop, finite
differences, closed forms.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from looped import (
    LOSSES,
    POLICIES,
    A,
    Case,
    N,
    dot,
    heads_alone,
    loss_alone,
    normal,
    random_episodes,
    random_params,
    row,
    small_policy,
)
from torch import Tensor

from metarl.algorithms.inner_loop import STEP_SIZE, Chain, Episodes, clipped_ratio
from metarl.algorithms.second_order import leaves, linearize
from metarl.core.types import Inputs, Params, append_axes, replace, tree_map
from metarl.nn.distributions import from_heads
from metarl.nn.policy import Policy

EXACT = {"rtol": 1e-9, "atol": 1e-10}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}  # to finite differences


def differentiated(value: Tensor, theta: Params) -> Params:
    found = torch.autograd.grad(value, list(theta.values()), materialize_grads=True)
    return dict(zip(theta, found, strict=True))


def cases(steps: tuple[int, ...] = (1, 2, 3)) -> pytest.MarkDecorator:
    """One loss or the other, in turns; for one policy both, with and without second-order
    derivatives.
    """
    every = list(LOSSES)
    found = [Case(name, every[(i + k) % 2], k) for i, name in enumerate(POLICIES) for k in steps]
    both = [Case("tanh, continuous", kind, k) for kind in every for k in steps]
    first_order = [
        replace(case, first_order=True) for case in (*both, Case("gru, continuous", steps=2))
    ]
    found = list(dict.fromkeys([*found, *both, *first_order]))
    names = [f"{c.name}, {c.kind}, {c.steps}{', first order' * c.first_order}" for c in found]
    return pytest.mark.parametrize("case", found, ids=names)


# -------------------------------------------------------------------------------------------------
# The steps


@cases()
def test_adapted_parameters_are_those_of_one_task_after_the_other(case: Case):
    """θ − α f ∇L, by autograd, on the steps that were lived through."""
    torch.testing.assert_close(
        case.chain().params, tree_map(Tensor.detach, case.looped(leaves(case.theta))), **EXACT
    )


@pytest.mark.parametrize("name", POLICIES)
def test_a_step_is_the_same_whatever_other_tasks_stand_beside(name: str):
    """A loss averaged over tasks would make it N times too small (SPECS 1.4, item 13)."""
    case = Case(name, steps=2)
    whole, w = case.chain(), normal(case.chain().params, 3)
    total = [torch.zeros_like(value) for value in case.theta.values()]
    for i in range(N):
        part = slice(i, i + 1)
        alone = case.chain(part)
        torch.testing.assert_close(
            {k: v[part] for k, v in whole.params.items()}, alone.params, rtol=1e-12, atol=1e-12
        )
        total = [
            a + b
            for a, b in zip(
                total, alone.vjp({k: v[part] for k, v in w.items()}).values(), strict=True
            )
        ]
    torch.testing.assert_close(list(whole.vjp(w).values()), total, **EXACT)


@cases(steps=(2,))
def test_the_same_steps_again(case: Case):
    """From the same θ to the same place, with the same derivatives; without step sizes in θ, by
    those of before.
    """
    chain, v, w = case.chain(), normal(case.theta, 2), normal(case.chain().params, 3)
    for theta in (case.theta, case.params):
        again = chain.replay_from(theta)
        torch.testing.assert_close(again.params, chain.params, rtol=0, atol=0)
        torch.testing.assert_close(
            (again.jvp(v), again.vjp(w)), (chain.jvp(v), chain.vjp(w)), rtol=0, atol=0
        )
    elsewhere = tree_map(lambda x, y: x + 0.1 * y, case.theta, v)
    expected = tree_map(Tensor.detach, case.looped(leaves(elsewhere)))
    torch.testing.assert_close(chain.replay_from(elsewhere).params, expected, **EXACT)


# -------------------------------------------------------------------------------------------------
# Their derivatives


@cases()
def test_jvp_is_autograds_derivative_of_the_loop(case: Case):
    v = normal(case.theta, 2)

    def looped(*values: Tensor) -> tuple[Tensor, ...]:
        return tuple(case.looped(dict(zip(case.theta, values, strict=True))).values())

    _, expected = torch.autograd.functional.jvp(
        looped, tuple(case.theta.values()), tuple(v.values())
    )
    torch.testing.assert_close(tuple(case.chain().jvp(v).values()), expected, **EXACT)


@cases()
def test_vjp_is_autograds_gradient_of_the_loop(case: Case):
    """Of a function of the adapted parameters, and of one that looks at the policies before the
    steps as well.
    """
    chain, theta = case.chain(), leaves(case.theta)
    w = normal(chain.params, 3)
    end = dot(case.looped(theta), w)
    torch.testing.assert_close(chain.vjp(w), differentiated(end, theta), **EXACT)

    along = [normal(step.policy.heads, 7 + k) for k, step in enumerate(chain.steps)]
    total = dot(case.looped(theta), w)
    for i, trail in enumerate(case.trails(theta)):
        for params, part, cotangent in zip(trail, case.episodes, along, strict=False):
            heads = heads_alone(case.policy, params, row(part, i).inputs)
            own = {k: c[:, i : i + 1] if k == "action" else c[i] for k, c in cotangent.items()}
            total = total + dot(heads, own)
    torch.testing.assert_close(chain.vjp(w, along), differentiated(total, theta), **EXACT)


@cases(steps=(1, 3))
def test_vjp_is_the_adjoint_of_jvp(case: Case):
    chain, v = case.chain(), normal(case.theta, 2)
    w = normal(chain.params, 3)
    torch.testing.assert_close(dot(chain.jvp(v), w), dot(v, chain.vjp(w)), **EXACT)


@cases(steps=(2,))
def test_jvp_is_how_the_end_moves(case: Case):
    """By central differences of the steps taken again; without its derivative, the inner gradient
    stays behind.
    """
    v, step = normal(case.theta, 2), 1e-5
    chain = case.chain()
    ahead = chain.replay_from(tree_map(lambda x, y: x + step * y, case.theta, v)).params
    behind = chain.replay_from(tree_map(lambda x, y: x - step * y, case.theta, v)).params
    expected = tree_map(lambda x, y: (x - y) / (2 * step), ahead, behind)
    if not case.first_order:
        torch.testing.assert_close(chain.jvp(v), expected, **CLOSE)
        return
    moved = {name: v[name] for name in case.params}
    for factor, inner in zip(case.factors, chain.steps, strict=True):
        for name in moved:
            rate = append_axes(factor, 1 + v[name].dim()) * v[STEP_SIZE + name]
            moved[name] = moved[name] - rate * inner.loss.gradient[name]
    torch.testing.assert_close(chain.jvp(v), moved, **EXACT)
    assert all(
        not torch.allclose(moved[name], value, rtol=1e-3) for name, value in expected.items()
    )


def test_step_sizes_that_are_not_learned_do_not_move():
    case = Case("tanh, continuous", steps=2)
    v = normal(case.theta, 2)
    fixed = {
        name: torch.zeros_like(value) if name.startswith(STEP_SIZE) else value
        for name, value in v.items()
    }
    chain = case.chain()
    torch.testing.assert_close(
        chain.jvp({name: v[name] for name in case.params}), chain.jvp(fixed), **EXACT
    )
    assert not torch.allclose(chain.jvp(v)["action.bias"], chain.jvp(fixed)["action.bias"])


def test_no_step_at_all_is_the_identity():
    case = Case("tanh, discrete", steps=0)
    chain, v = case.chain(), normal(case.theta, 2)
    w = normal(chain.params, 3)
    assert all(torch.equal(moved, v[name].expand_as(moved)) for name, moved in chain.jvp(v).items())
    assert all(torch.equal(chain.vjp(w)[name], value.sum(0)) for name, value in w.items())


# -------------------------------------------------------------------------------------------------
# The losses


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("kind", LOSSES)
def test_losses_are_means_over_what_each_task_lived_through(kind: str, name: str):
    case = Case(name)
    heads = linearize(case.policy, case.chain().params, case.episodes[0].inputs).heads
    found = LOSSES[kind](case.episodes[0], from_heads(heads))
    for i in range(N):
        own = {k: v[i] for k, v in case.chain().params.items()}
        torch.testing.assert_close(
            found[i], loss_alone(kind, case.policy, own, row(case.episodes[0], i)), **EXACT
        )


@pytest.mark.parametrize("name", ["tanh, discrete", "tanh, continuous"])
def test_both_losses_have_one_gradient_but_two_hessians_where_the_episodes_come_from(name: str):
    """∇²ρ = ∇² log π + ∇ log π ∇ log πᵀ at ρ = 1 (Rothfuss et al. 2019, section 5)."""
    case = Case(name)
    here = linearize(case.policy, case.chain().params, case.episodes[0].inputs)
    log_prob = from_heads(here.heads).log_prob(case.episodes[0].action)
    episodes = replace(case.episodes[0], log_prob=log_prob)
    plain, ratio = (
        here.differentiate(lambda heads, f=f: f(episodes, from_heads(heads)))
        for f in LOSSES.values()
    )
    torch.testing.assert_close(plain.gradient, ratio.gradient, **EXACT)
    v = normal(case.chain().params, 2)

    score = leaves(here.heads)
    rate = dot_per_step(here.jvp(v), score, from_heads(score).log_prob(episodes.action))
    log_prob = from_heads(score).log_prob(episodes.action)
    expected = -episodes.mean(rate.detach() * log_prob * episodes.advantage).sum()
    extra = differentiated(expected, score)
    torch.testing.assert_close(
        tree_map(torch.sub, ratio.hvp(v), plain.hvp(v)), here.vjp(extra), **EXACT
    )
    assert float(dot(here.vjp(extra), here.vjp(extra))) > 1e-6


def dot_per_step(tangent: Params, heads: Params, log_prob: Tensor) -> Tensor:
    """[T, N, M]: how each log-probability moves when the heads move along `tangent`."""
    probe = torch.zeros_like(log_prob, requires_grad=True)
    slope = torch.autograd.grad((probe * log_prob).sum(), list(heads.values()), create_graph=True)
    moved = sum((slope[i] * tangent[name]).sum() for i, name in enumerate(heads))
    return torch.autograd.grad(moved, probe)[0]


def test_the_clipped_ratio_is_pessimistic():
    """min(ρ A, clip(ρ) A), step by step; no gradient where moving on would not be rewarded."""
    policy = small_policy()
    episodes = random_episodes(policy, 1)
    heads = leaves(linearize(policy, random_params(policy, N), episodes.inputs).heads)
    ratio = (from_heads(heads).log_prob(episodes.action) - episodes.log_prob).exp().detach()
    loss = clipped_ratio(episodes, from_heads(heads), 0.2)
    slope = torch.autograd.grad(loss.sum(), heads["action"])[0]
    for i in range(N):
        terms = []
        for t, lane in row(episodes, i).valid[:, 0].nonzero().tolist():
            r, advantage = float(ratio[t, i, lane]), float(episodes.advantage[t, i, lane])
            terms.append(min(r * advantage, min(max(r, 0.8), 1.2) * advantage))
            clipped = r > 1.2 if advantage > 0 else r < 0.8
            assert slope[t, i, lane].eq(0).all() == clipped
        assert float(loss[i].detach()) == pytest.approx(-sum(terms) / len(terms))
    assert 0 < int((slope.eq(0).all(-1) & episodes.valid).sum()) < int(episodes.valid.sum())
    assert slope[~episodes.valid].eq(0).all()


# -------------------------------------------------------------------------------------------------
# Known answers


def test_with_every_action_counted_the_ratio_has_the_hessian_of_the_expected_reward():
    """A bandit whose actions stand side by side, weighted by their probabilities: every mean is an
    expectation.

    J = Σ πₐ rₐ. The log-likelihood's Hessian is that of −Σ wₐ log πₐ with constant weights: J (diag
    π − π πᵀ).
    """
    policy = Policy(1, A, True, value_head=False)
    bias, reward = torch.tensor([[0.3, -0.8, 0.5], [1.0, 3.0, -2.0]], dtype=torch.float64)
    probs = bias.softmax(0)
    params = {"action.weight": torch.zeros(1, A, 1).double(), "action.bias": bias.unsqueeze(0)}
    every = (1, 1, A)
    episodes = Episodes(
        inputs=Inputs(torch.zeros(*every, 1).double()),
        action=torch.arange(A).view(every),
        log_prob=probs.log().view(every),
        advantage=(A * probs * reward).view(every),
        valid=torch.ones(every, dtype=torch.bool),
    )
    here, hessian = linearize(policy, params, episodes.inputs), {}
    for kind, loss in LOSSES.items():
        slope = here.differentiate(lambda heads, f=loss: f(episodes, from_heads(heads)))
        units = [
            {"action.weight": torch.zeros(1, A, 1).double(), "action.bias": e[None]}
            for e in torch.eye(A).double()
        ]
        hessian[kind] = torch.cat([slope.hvp(unit)["action.bias"] for unit in units])
        torch.testing.assert_close(
            slope.gradient["action.bias"][0], -probs * (reward - probs @ reward), **EXACT
        )
    exact = torch.autograd.functional.hessian(lambda b: -(b.softmax(0) @ reward), bias)
    torch.testing.assert_close(hessian["likelihood_ratio"], exact, **EXACT)
    torch.testing.assert_close(
        hessian["log_likelihood"],
        (probs @ reward) * (probs.diag() - torch.outer(probs, probs)),
        **EXACT,
    )
    assert float((hessian["log_likelihood"] - exact).abs().max()) > 0.1


ALPHA, GOALS = 0.3, torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)


def on_a_line(
    mean: float, log_std: float, kind: str, steps: int, alpha: float = ALPHA, centered: bool = False
) -> Chain:
    """A Gaussian policy N(μ, σ²) that is paid −(a − g)², its actions the nodes of an exact
    quadrature.
    """
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(8))
    weights = weights / weights.sum()
    policy = Policy(1, 1, False, value_head=False)
    start = {"action.weight": [[0.0]], "action.bias": [mean], "action.log_std": [log_std]}
    theta = {name: torch.tensor(value, dtype=torch.float64) for name, value in start.items()}
    rows, shape = len(GOALS), (1, len(GOALS), len(nodes))
    sizes = {name: torch.full_like(value, alpha) for name, value in theta.items()}
    chain = Chain(
        policy,
        LOSSES[kind],
        sizes,
        {name: value.expand(rows, *value.shape) for name, value in theta.items()},
    )
    for _ in range(steps):
        now = chain.params
        action = (now["action.bias"] + now["action.log_std"].exp() * nodes).view(*shape, 1)
        reward = -(action.squeeze(-1) - GOALS.unsqueeze(-1)).square()
        reward = reward - centered * (weights * reward).sum(-1, keepdim=True)
        inputs = Inputs(torch.zeros(*shape, 1).double())
        heads = {
            "action": now["action.bias"].view(1, rows, 1, 1).expand(*shape, 1),
            "log_std": now["action.log_std"],
        }
        log_prob = from_heads(heads).log_prob(action)
        episodes = Episodes(
            inputs, action, log_prob, len(nodes) * weights * reward, torch.ones(shape) > 0
        )
        chain = chain.step(episodes, torch.ones(rows).double())
    return chain


def unit(name: str) -> Params:
    zero = {
        "action.weight": torch.zeros(1, 1),
        "action.bias": torch.zeros(1),
        "action.log_std": torch.zeros(1),
    }
    return {key: (value + (key == name)).double() for key, value in zero.items()}


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_quadratic_reward_by_hand(steps: int):
    """J = −(μ − g)² − σ²: every step takes μ − g to (1 − 2α)(μ − g), and log σ to log σ − 2ασ².

    So the adapted policies' mean J has the meta-gradient −2 (1 − 2α)²ᵏ (μ − mean g), and its
    optimum at the goals' mean.
    """
    mean, log_std, shrink = 0.2, -0.5, (1 - 2 * ALPHA) ** steps
    chain = on_a_line(mean, log_std, "likelihood_ratio", steps)
    slope = 1.0
    for _ in range(steps):
        variance = math.exp(2 * log_std)
        log_std, slope = log_std - 2 * ALPHA * variance, slope * (1 - 4 * ALPHA * variance)
    variance = math.exp(2 * log_std)
    expected = GOALS + shrink * (mean - GOALS)
    torch.testing.assert_close(chain.params["action.bias"].squeeze(-1), expected, **EXACT)
    torch.testing.assert_close(
        chain.params["action.log_std"], torch.full((N, 1), log_std, dtype=torch.float64), **EXACT
    )
    for name, rate in (("action.bias", shrink), ("action.log_std", slope)):
        pushed, direction = chain.jvp(unit(name)), unit(name)
        for key, value in pushed.items():
            torch.testing.assert_close(value, (rate * direction[key]).expand_as(value), **EXACT)

    def meta_gradient(chain: Chain) -> Params:
        gap = (chain.params["action.bias"] - GOALS.unsqueeze(-1)) * 2 / N
        spread = 2 / N * (2 * chain.params["action.log_std"]).exp()
        zero = torch.zeros(N, 1, 1).double()
        return chain.vjp({"action.weight": zero, "action.bias": gap, "action.log_std": spread})

    found = meta_gradient(chain)
    assert float(found["action.bias"]) == pytest.approx(
        2 * shrink**2 * (mean - float(GOALS.mean())), abs=1e-10
    )
    assert float(found["action.log_std"]) == pytest.approx(2 * variance * slope)
    best = meta_gradient(on_a_line(float(GOALS.mean()), 0.0, "likelihood_ratio", steps))
    assert float(best["action.bias"]) == pytest.approx(0, abs=1e-10)


def test_the_perfect_step_size_forgets_where_it_began():
    """α = ½ leads to every goal at once, from wherever: nothing is left to be meta-learned in μ."""
    chain = on_a_line(0.2, -0.5, "likelihood_ratio", 1, alpha=0.5)
    torch.testing.assert_close(chain.params["action.bias"].squeeze(-1), GOALS, **EXACT)
    assert float(chain.jvp(unit("action.bias"))["action.bias"].abs().max()) < 1e-10


def test_the_log_likelihood_mistakes_the_curvature_of_the_reward():
    """Its step is the same, its derivative 1 − α mean A / σ²: of a centered advantage, none."""
    mean, log_std = 0.2, -0.5
    chain = on_a_line(mean, log_std, "log_likelihood", 1)
    torch.testing.assert_close(
        chain.params, on_a_line(mean, log_std, "likelihood_ratio", 1).params, **EXACT
    )
    variance = math.exp(2 * log_std)
    expected = 1 + ALPHA * ((mean - GOALS).square() + variance) / variance
    torch.testing.assert_close(
        chain.jvp(unit("action.bias"))["action.bias"].squeeze(-1), expected, **EXACT
    )
    centered = on_a_line(mean, log_std, "log_likelihood", 1, centered=True).jvp(unit("action.bias"))
    torch.testing.assert_close(centered["action.bias"], torch.ones(N, 1).double(), **EXACT)
