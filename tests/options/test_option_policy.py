"""The option layer by its formulas: what it draws, how likely that was, and its two decision
processes.

What agents tell of options and learn through them is in tests/test_segments.py.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CPU, same
from scipy import stats
from torch import Tensor

from metarl.algorithms.returns import gae
from metarl.config.schema import parse
from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import NONE, Acted, Inputs, OptionState, Params, Spec, replace, tree_map
from metarl.nn.distributions import from_heads
from metarl.nn.policy import Policy
from metarl.options.config import OptionsConfig
from metarl.options.option_policy import Hierarchy, OptionPolicy, with_options

N, M, O, A, L = 3, 2, 3, 2, 3  # noqa: E741  (letters of metarl.core.types; L options)
EXACT = {"rtol": 1e-10, "atol": 1e-12}
SIGNIFICANT = 1e-3
SPEC = Spec("plane", {"place": O}, A, discrete=True, horizon=9, task_width=1)

TERMINATIONS = pytest.mark.parametrize("termination", ["fixed", "random", "learned"])
SPACES = pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])
BODIES = pytest.mark.parametrize("sub_hidden_sizes", [None, (4,)], ids=["heads", "apart"])
MEMORIES = pytest.mark.parametrize("memory", ["none", "gru"])
COPIES = pytest.mark.parametrize("copies", [(), (N,)], ids=["shared", "per task"])


def make_policy(
    discrete: bool = True, memory: str = "none", count: int = L, body: Any = (4,), **layer: Any
) -> Any:
    flat = Policy(O, A, discrete, memory, memory_width=5, hidden_sizes=body, obs_width=O)
    return with_options(flat, OptionsConfig(options=count, **{"option_length": 3} | layer), None)


def random_params(policy: OptionPolicy, *copies: int) -> Params:
    """Not close to any special point."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: value
        + 0.7 * torch.randn(*copies, *value.shape, generator=generator, dtype=torch.float64)
        for name, value in policy.init(generator).items()
    }


def empty(policy: OptionPolicy, rows: int, lanes: int) -> tuple[Tensor, ...]:
    """The state before the first step, in double precision."""
    return tuple(x.double() if x.is_floating_point() else x for x in policy.start(rows, lanes, CPU))


def live(
    policy: OptionPolicy, params: Params, obs: Tensor, begins: Tensor, mode: str = "sample"
) -> Acted:
    """What is done on obs [T, N, M, O], whatever came of it: [T, N, M, …]."""
    rows, lanes = begins.shape[1:]
    noise, state, done = Rng(0).streams(torch.arange(rows), lanes), empty(policy, rows, lanes), []
    for t, (seen, begin) in enumerate(zip(obs, begins, strict=True)):
        acted, state = policy.act(params, Inputs(seen), state, begin, noise, t, mode)
        done.append(acted)
    return tree_map(lambda *x: torch.stack(x), *done)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def now_and_then(steps: int, rows: int = N, lanes: int = M) -> Tensor:
    """[T, N, M] bool: where episodes begin, at other times in every lane."""
    begins = torch.rand(steps, rows, lanes, generator=torch.Generator().manual_seed(2)) < 0.3
    return begins | (torch.arange(steps) == 0).view(-1, 1, 1)


def told(
    policy: OptionPolicy, params: Params, obs: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """By hand, on obs [..., O]: π(o | s) [..., L], β(s, ·) [..., L], heads of sub-policies [..., L,
    A], q(s, ·) [..., L].
    """

    def affine(name: str, x: Tensor) -> Tensor:
        return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]

    seen = affine("body.0", obs).tanh() if policy.trunk.hidden_sizes else obs
    own, before = (
        (seen, "") if policy.sub_policy is None else (affine("sub.body.0", obs).tanh(), "sub.")
    )
    learned = policy.termination == "learned"
    beta = (
        affine(f"{before}termination", own).sigmoid()
        if learned
        else torch.zeros(*obs.shape[:-1], policy.count)
    )
    heads = affine(f"{before}action", own).unflatten(-1, (policy.count, -1))
    return affine("option", seen).softmax(-1), beta, heads, affine("value", seen)


def pi_hat(master: Tensor, beta: Tensor, before: Tensor, over: Tensor) -> Tensor:
    """(1 − β(s, o′)) 1[o = o′] + β(s, o′) π(o | s), with β = 1 where the option before is over or
    there was none.
    """
    known = before.clamp(min=0)
    ends = torch.where(over, 1.0, beta.gather(-1, known.unsqueeze(-1)).squeeze(-1)).unsqueeze(-1)
    return (1 - ends) * torch.nn.functional.one_hot(known, master.shape[-1]) + ends * master


# -------------------------------------------------------------------------------------------------
# What is said and drawn


@COPIES
@BODIES
@SPACES
@TERMINATIONS
def test_decisions_are_those_of_the_formula(
    termination: str, discrete: bool, sub_hidden_sizes: Any, copies: tuple[int, ...]
):
    """The option by π̂, normalized; the action by the option's own head; Σ π̂ q before the option
    is drawn, q(s, o) after.
    """
    policy = make_policy(discrete, termination=termination, sub_hidden_sizes=sub_hidden_sizes)
    params, obs, generator = (
        random_params(policy, *copies),
        normal(9, N, M, O),
        torch.Generator().manual_seed(3),
    )
    before, option = torch.randint(L, (2, 9, N, M), generator=generator)
    inputs = Inputs(obs, option=OptionState(before, now_and_then(9), option))
    found = policy.unroll(params, inputs, empty(policy, N, M))
    torch.testing.assert_close(
        found.levels["option"].heads["option"].exp().sum(-1), torch.ones(9, N, M).double(), **EXACT
    )
    for i in range(N):
        own = {name: value[i] for name, value in params.items()} if copies else params
        master, beta, heads, q_values = told(policy, own, obs[:, i])
        probs = pi_hat(master, beta, before[:, i], inputs.option.ended[:, i])
        chosen = option[:, i].unsqueeze(-1)
        torch.testing.assert_close(
            found.levels["option"].actions.logits[:, i].exp(), probs, **EXACT
        )
        torch.testing.assert_close(
            found.levels["option"].value[:, i], (probs * q_values).sum(-1), **EXACT
        )
        torch.testing.assert_close(
            found.levels["action"].value[:, i], q_values.gather(-1, chosen).squeeze(-1), **EXACT
        )
        head = heads.take_along_dim(chosen.unsqueeze(-1), -2).squeeze(-2)
        torch.testing.assert_close(found.heads["action"][:, i], head, **EXACT)
        if not discrete:
            spread = own[
                "action.log_std" if sub_hidden_sizes is None else "sub.action.log_std"
            ].view(L, A)
            torch.testing.assert_close(found.heads["log_std"][:, i], spread[option[:, i]], **EXACT)


@COPIES
@MEMORIES
@BODIES
@SPACES
@TERMINATIONS
def test_what_was_done_is_recomputed(
    termination: str, discrete: bool, sub_hidden_sizes: Any, memory: str, copies: tuple[int, ...]
):
    """Over several episodes of a lane, whose memory goes on; and every episode begins with an
    option of its own.
    """
    policy = make_policy(
        discrete, memory, termination=termination, sub_hidden_sizes=sub_hidden_sizes
    )
    params, begins = random_params(policy, *copies), now_and_then(9)
    acted = live(policy, params, normal(9, N, M, O), begins)
    running = acted.inputs.option
    assert running.ended[begins].all()
    assert torch.equal(running.previous[1:], running.current[:-1])
    found: Hierarchy = policy.unroll(params, acted.inputs, empty(policy, N, M))
    log_prob = from_heads(found.heads).log_prob((running.current, acted.action))
    torch.testing.assert_close(log_prob, acted.log_prob, **EXACT)
    torch.testing.assert_close(
        found.levels["option"].actions.log_prob(running.current),
        acted.extras["option_log_prob"],
        **EXACT,
    )
    torch.testing.assert_close(found.levels["option"].value, acted.extras["option_value"], **EXACT)
    torch.testing.assert_close(found.levels["action"].value, acted.extras["value"], **EXACT)
    kept = ~running.ended & (running.current == running.previous)
    assert kept.any()
    if termination != "learned":
        assert torch.equal(kept, ~running.ended)
        assert acted.extras["option_log_prob"][kept].abs().max() < 1e-12


@COPIES
@MEMORIES
@TERMINATIONS
def test_rows_and_lanes_do_not_depend_on_their_neighbors(
    termination: str, memory: str, copies: tuple[int, ...]
):
    policy = make_policy(memory=memory, termination=termination)
    params, obs, begins = random_params(policy, *copies), normal(9, N, M, O), now_and_then(9)
    together = live(policy, params, obs, begins)
    first = {name: value[:1] for name, value in params.items()} if copies else params
    alone = live(policy, first, obs[:, :1, :1], begins[:, :1, :1])
    part = tree_map(lambda x: x[:, :1, :1], together)
    assert same((alone.inputs.option, alone.action), (part.inputs.option, part.action))
    torch.testing.assert_close(alone.log_prob, part.log_prob, **EXACT)


@MEMORIES
@TERMINATIONS
def test_after_what_somebody_else_did_a_new_option_begins(termination: str, memory: str):
    """Even in mid-episode: nobody knows what ran, so that none goes on, and a memory is told of
    none.
    """
    policy = make_policy(memory=memory, termination=termination)
    params = random_params(policy)
    obs, noise, here = normal(5, N, M, O), Rng(0).streams(torch.arange(N), M), torch.zeros(N, M) > 0
    own, held = policy.act(params, Inputs(obs[0]), empty(policy, N, M), ~here, noise, 0, "sample")
    going_on, _ = policy.act(params, Inputs(obs[2]), held, here, noise, 2, "sample")
    assert same(going_on.inputs.option.previous, own.inputs.option.current)
    assert not going_on.inputs.option.ended.all()
    _, held = policy.attend(params, Inputs(obs[1]), held)
    acted, _ = policy.act(params, Inputs(obs[2]), held, here, noise, 2, "sample")
    assert acted.inputs.option.previous.eq(NONE).all()
    assert acted.inputs.option.ended.all()
    if memory != "none":
        assert (
            policy._with_previous_option(acted.inputs, acted.inputs.option.previous)
            .latent.eq(0)
            .all()
        )


@TERMINATIONS
def test_the_greedy_mode_takes_what_is_most_likely(termination: str):
    policy = make_policy(termination=termination)
    params, obs, begins = random_params(policy), normal(9, N, M, O), now_and_then(9)
    acted = live(policy, params, obs, begins, "greedy")
    running, (master, beta, heads, _) = acted.inputs.option, told(policy, params, obs)
    assert torch.equal(
        running.current, pi_hat(master, beta, running.previous, running.ended).argmax(-1)
    )
    best = heads.argmax(-1).gather(-1, running.current.unsqueeze(-1)).squeeze(-1)
    assert torch.equal(acted.action, best)
    if termination != "random":
        assert same(live(policy, params, obs, begins, "greedy"), acted)


def test_options_and_actions_are_drawn_by_their_probabilities():
    """After each option that ran before, the next one by π̂, and the action by it: independent of
    one another given o.
    """
    policy = make_policy(termination="learned", option_length=2)
    params, lanes, steps = random_params(policy), 30_000, 3
    obs = normal(steps, 1, 1, O).expand(-1, -1, lanes, -1)
    acted = live(
        policy, params, obs, (torch.arange(steps) == 0).view(-1, 1, 1).expand(steps, 1, lanes)
    )
    running, (master, beta, heads, _) = acted.inputs.option, told(policy, params, obs[:, 0, 0])
    for t, before in itertools.product(range(steps), range(L)):
        mine = running.previous[t, 0] == before
        if not mine.any():
            continue  # before the first step, nothing ran
        drawn = running.current[t, 0][mine] * A + acted.action[t, 0][mine]
        options = pi_hat(master[t], beta[t], torch.tensor(before), torch.tensor(t == 0))
        probs = (options.unsqueeze(-1) * heads[t].softmax(-1)).flatten()
        counts = torch.bincount(drawn, minlength=L * A)
        assert (
            stats.chisquare(counts, probs.numpy() / probs.sum().item() * len(drawn)).pvalue
            > SIGNIFICANT
        )


@pytest.mark.parametrize("termination", ["fixed", "learned"])
def test_the_probability_of_actions_is_the_filtered_one(termination: str):
    """All sequences of three options and actions, summed over options, and how often lanes acted
    like that.
    """
    policy, steps, options = make_policy(count=2, termination=termination, option_length=2), 3, 2
    params, one = random_params(policy), normal(steps, 1, 1, O)
    over = torch.tensor([True, False, termination == "fixed"])
    master, beta, heads, _ = told(policy, params, one[:, 0, 0])
    sequences = torch.tensor(
        list(itertools.product(range(options), repeat=steps))
    )  # [8, T]; of actions too
    filtered = []
    for actions in sequences:
        ran = torch.tensor([1.0, 0.0]).double()
        for t in range(steps):
            follows = torch.stack(
                [pi_hat(master[t], beta[t], torch.tensor(o), over[t]) for o in range(options)]
            )
            ran = (ran @ follows) * heads[t].softmax(-1)[:, actions[t]]
        filtered.append(ran.sum())

    size = len(sequences) ** 2
    option = sequences.repeat_interleave(len(sequences), 0).T.unsqueeze(1)  # [T, 1, 64]
    action = sequences.repeat(len(sequences), 1).T.unsqueeze(1)
    before = torch.cat([torch.zeros_like(option[:1]), option[:-1]])
    running = OptionState(before, over.view(-1, 1, 1).expand_as(option), option)
    found = policy.unroll(
        params, Inputs(one.expand(-1, -1, size, -1), option=running), empty(policy, 1, size)
    )
    joint = (
        from_heads(found.heads)
        .log_prob((option, action))
        .sum((0, 1))
        .exp()
        .view(-1, len(sequences))
    )
    torch.testing.assert_close(joint.sum(0), torch.stack(filtered), **EXACT)
    torch.testing.assert_close(joint.sum(), torch.tensor(1.0).double(), **EXACT)

    lanes = 40_000
    begins = (torch.arange(steps) == 0).view(-1, 1, 1).expand(steps, 1, lanes)
    acted = live(policy, params, one.expand(-1, -1, lanes, -1), begins)
    assert torch.equal(acted.inputs.option.ended, over.view(-1, 1, 1).expand_as(begins))
    place = (acted.action.squeeze(1).T * torch.tensor([4, 2, 1])).sum(-1)
    expected = torch.stack(filtered).numpy() * lanes
    assert stats.chisquare(torch.bincount(place, minlength=8), expected).pvalue > SIGNIFICANT


def test_values_of_both_processes_obey_their_bellman_equations():
    """Two states, a choice between them, q(s, o) solved for: what a temporal difference is in the
    mean, whatever ran.

    In the first, q(s, o) − V(s, o′), and the state after is that with the option that ran; in the
    second, 0, and it is that with the option drawn then.
    """
    policy: Any = make_policy(
        count=2, body=(), termination="learned", sub_hidden_sizes=None, option_length=2
    )
    policy = replace(policy, trunk=replace(policy.trunk, input_width=2, obs_width=2))
    params, reward, gamma = random_params(policy), np.array([[1.0, -2.0], [0.5, 3.0]]), 0.8
    master, beta, heads, _ = told(policy, params, torch.eye(2).double())
    follows = torch.stack(
        [pi_hat(master, beta, torch.full((2,), o), torch.tensor([False, False])) for o in range(2)],
        1,
    ).numpy()
    acts = heads.softmax(
        -1
    ).numpy()  # [state, option, action], which leads to the state of its number
    step = np.einsum("soa,aop->soap", acts, follows).reshape(4, 4)  # (s, o) → (s′, o′)
    q_values = np.linalg.solve(
        np.eye(4) - gamma * step, np.einsum("soa,sa->so", acts, reward).ravel()
    ).reshape(2, 2)
    params |= {
        "value.weight": torch.tensor(q_values.T.copy()),
        "value.bias": torch.zeros(2).double(),
    }

    lanes, noise = 40_000, Rng(0).streams(torch.arange(1), 40_000)
    place, state, seen = torch.zeros(1, lanes, dtype=torch.long), empty(policy, 1, lanes), []
    for t in range(5):
        begins = torch.full((1, lanes), t == 0)
        acted, state = policy.act(
            params, Inputs(torch.eye(2).double()[place]), state, begins, noise, t, "sample"
        )
        seen.append((acted, torch.tensor(reward)[place, acted.action]))
        place = acted.action
    acted, paid = (tree_map(lambda *x: torch.stack(x), *part) for part in zip(*seen, strict=True))
    no = torch.zeros(paid.shape, dtype=torch.bool)
    rollout = Rollout(
        acted.inputs,
        acted.action,
        acted.log_prob,
        paid,
        acted.inputs.obs,
        no,
        no,
        ~no,
        torch.arange(1),
        extras=acted.extras,
    )
    running, where_now = acted.inputs.option, acted.inputs.obs.argmax(-1)
    for name, process in policy.decision_processes(rollout).items():
        value = process.extras["value"]
        difference = gae(paid[:-1], value[:-1], value[1:], no[:-1], gamma, gae_lambda=0.0)
        for t, at, before, option in itertools.product(range(1, 4), range(2), range(2), range(2)):
            mine = (
                (where_now[t] == at)
                & (running.previous[t] == before)
                & (running.current[t] == option)
            )
            gain = (
                q_values[at, option] - follows[at, before] @ q_values[at] if name == "option" else 0
            )
            found = difference[t][mine]
            assert len(found) > 100
            assert abs(found.mean() - gain) < 4 * found.std() / len(found) ** 0.5, (
                name,
                t,
                at,
                before,
                option,
            )


# -------------------------------------------------------------------------------------------------
# How long options run


@pytest.mark.parametrize("length", [1, 2, 4])
@pytest.mark.parametrize("termination", ["fixed", "random"])
def test_options_last_as_long_as_they_should(termination: str, length: int):
    """Exactly so many steps, or uniformly 1 … 2·length − 1, less where an episode ends first; each
    episode begins anew.
    """
    policy, lanes, drawn = make_policy(termination=termination, option_length=length), 300, []
    begins = (torch.arange(36) % 9 == 0).view(-1, 1, 1).expand(36, 1, lanes)
    running = live(
        policy, random_params(policy), torch.zeros(36, 1, lanes, O).double(), begins
    ).inputs.option
    for lane in range(lanes):
        over = [*running.ended[:, 0, lane].nonzero().flatten().tolist(), 36]
        assert {0, 9, 18, 27} <= set(over)
        for first, following in itertools.pairwise(over):
            assert running.current[first:following, 0, lane].unique().numel() == 1
            if termination == "fixed":
                assert following - first == min(length, 9 - first % 9)
            elif 9 - first % 9 >= 2 * length - 1:  # no episode can have cut it short
                drawn.append(following - first)
    if termination == "random":
        counts = torch.bincount(torch.tensor(drawn), minlength=2 * length)[1:]
        assert len(counts) == 2 * length - 1
        assert abs(sum(drawn) / len(drawn) - length) < 4 * length / len(drawn) ** 0.5
        assert length == 1 or stats.chisquare(counts).pvalue > SIGNIFICANT


@BODIES
def test_options_that_learn_to_end_last_so_long_at_first(sub_hidden_sizes: Any):
    """Geometric with β = 1 / length; of eight options, one in eight is followed by itself, which
    nobody sees.
    """
    policy = make_policy(
        count=8, termination="learned", option_length=5, sub_hidden_sizes=sub_hidden_sizes
    )
    params = {
        name: value.double()
        for name, value in policy.init(torch.Generator().manual_seed(0)).items()
    }
    begins = (torch.arange(400) == 0).view(-1, 1, 1).expand(400, 1, 60)
    running = live(policy, params, torch.zeros(400, 1, 60, O).double(), begins).inputs.option
    follows = (running.current != running.previous)[1:].double().mean()
    assert 1 / float(follows) == pytest.approx(5 * 8 / 7, rel=0.05)


@MEMORIES
def test_a_memory_is_told_which_option_ran(memory: str):
    """It is the master's own last action; without a memory, π(o | s) does not depend on it."""
    policy = make_policy(memory=memory, termination="fixed")
    params, option = random_params(policy), torch.zeros(2, N, M, dtype=torch.long)
    over, inputs = torch.ones(2, N, M, dtype=torch.bool), Inputs(normal(2, N, M, O))
    here, there = (
        policy.unroll(
            params,
            replace(inputs, option=OptionState(option + o, over, option)),
            empty(policy, N, M),
        ).heads
        for o in range(2)
    )
    assert same(here, there) == (memory == "none")


# -------------------------------------------------------------------------------------------------
# What can be asked for


def test_without_options_the_policy_is_the_flat_one():
    flat = Policy(O, A, True, hidden_sizes=(4,), obs_width=O)
    assert with_options(flat, OptionsConfig(), None) == flat
    assert with_options(flat, OptionsConfig(initial_gain=2.0), None) == replace(
        flat, initial_gain=2.0
    )


@BODIES
@TERMINATIONS
def test_the_first_options_are_alike_and_end_as_often_as_their_length_says(
    termination: str, sub_hidden_sizes: Any
):
    """A master close to uniform, β close to 1 / length; at length 1, close to 1."""
    for length, beta in ((1, 1.0), (2, 0.5), (10, 0.1)):
        policy = make_policy(
            termination=termination, sub_hidden_sizes=sub_hidden_sizes, option_length=length
        )
        params = policy.init(torch.Generator().manual_seed(0))
        master, ends, heads, q_values = told(policy, params, normal(50, O).float())
        assert (master - 1 / L).abs().max() < 0.01
        assert (heads.softmax(-1) - 1 / A).abs().max() < 0.02
        assert q_values.eq(0).all()
        if termination == "learned":
            assert (ends - beta).abs().max() < 0.02


@BODIES
@TERMINATIONS
def test_what_belongs_to_the_master(termination: str, sub_hidden_sizes: Any):
    """All that is not a sub-policy's, where these are apart; else what reads options from features,
    and nothing else.
    """
    policy = make_policy(memory="gru", termination=termination, sub_hidden_sizes=sub_hidden_sizes)
    names = policy.init(torch.Generator().manual_seed(0))
    master = policy.master_parameters(names)
    if sub_hidden_sizes is None:
        assert master == {"option.weight", "option.bias"}
    else:
        assert {name.partition(".")[0] for name in master} == {"memory", "body", "value", "option"}
        assert {name.partition(".")[0] for name in set(names) - master} == {"sub"}
    assert any("termination" in name for name in names) == (termination == "learned")


@pytest.mark.parametrize("agent", ["rl2", "maml"])
@pytest.mark.parametrize(
    "option",
    [
        {"options": -1},
        {"option_length": 0},
        {"termination": "never"},
        {"sub_hidden_sizes": "wide"},
        {"initial_gain": 0},
    ],
)
def test_nonsense_is_refused_in_a_line(agent: str, option: dict[str, Any]):
    with pytest.raises(MetaRLError) as caught:
        parse(
            {"agent": {"name": agent, **option}, "family": "point", "episodes": 20, "iterations": 1}
        )
    (line,) = str(caught.value).splitlines()
    assert f"agent.{next(iter(option))}: " in line
