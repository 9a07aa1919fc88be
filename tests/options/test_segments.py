"""What options did, and what agents that act through them learn of it.

The policy itself is in tests/test_options.py.
"""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from helpers import CPU, Ragged, same
from maml_by_hand import Uneven
from torch import Tensor

from metarl.algorithms.losses import ppo_loss
from metarl.algorithms.returns import discounted_returns
from metarl.collect.collector import collect
from metarl.collect.world import LocalWorld
from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import NONE, Belief, Params, TaskInfo, tree_map
from metarl.evaluation.meta_test import evaluate
from metarl.evaluation.session import Session
from metarl.experiments.building import make_agent
from metarl.nn.distributions import from_heads
from metarl.options.segments import segments, usage

ROWS, EPISODES, L = 5, 3, 3
SMALL: dict[str, dict[str, Any]] = {
    "rl2": {
        "trials": ROWS,
        "epochs": 2,
        "minibatches": 2,
        "memory_width": 8,
        "hidden_sizes": (6,),
        "learning_rate": 1e-2,
    },
    "maml": {"tasks": ROWS, "episodes_per_task": 6, "hidden_sizes": (6,), "step_sizes": (0.4,)},
}

AGENTS = pytest.mark.parametrize("name", ["rl2", "maml"])
TERMINATIONS = pytest.mark.parametrize("termination", ["fixed", "random", "learned"])
SPACES = pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])
BODIES = pytest.mark.parametrize("sub_hidden_sizes", [None, (4,)], ids=["heads", "apart"])


def family_of(name: str, discrete: bool = True) -> Any:
    """Episodes of 1 to 4 steps, and lanes that wait; MAML learns nothing where rewards do not
    depend on what is done.
    """
    return Uneven(discrete) if name == "maml" else Ragged(discrete)


def make(name: str, discrete: bool = True, seed: int = 0, **options: Any) -> Any:
    """An agent whose weights are so large that its decisions depend on all that it sees."""
    layer = {"options": L, "option_length": 2, "sub_hidden_sizes": (4,)}
    agent: Any = make_agent(
        name, family_of(name, discrete).spec, seed, **SMALL[name] | layer | options
    )
    generator = torch.Generator().manual_seed(seed)
    for value in agent.params.values():
        value.data += 0.4 * torch.randn(value.shape, generator=generator)
    return agent


def lived(
    agent: Any, family: Any, episodes: int = EPISODES, mode: Any = "sample"
) -> tuple[Rollout, Belief]:
    tasks = family.tasks("train", ROWS, Rng(0))
    belief = agent.begin(TaskInfo(ROWS, episodes, CPU), agent.lanes)
    return collect(
        agent, family.make(agent.lanes), family.spec, belief, tasks, episodes, Rng(0), mode
    )


def train(agent: Any, family: Any, iterations: range) -> list[dict[str, float]]:
    world = LocalWorld(family, EPISODES if agent.lanes == 1 else 2 * agent.lanes, None, CPU)
    return [agent.iterate(world, Rng(9).child("iteration", i)) for i in iterations]


def stretches(rollout: Rollout) -> list[list[list[list[int]]]]:
    """By hand: steps of each stretch, of each lane, of each row; one ends where its option is over
    or another follows.
    """
    running, found = rollout.inputs.option, []
    for row in range(rollout.valid.shape[1]):
        found.append([])
        for lane in range(rollout.valid.shape[2]):
            own: list[list[int]] = []
            for t in range(int(rollout.valid[:, row, lane].sum())):
                option = running.current[:, row, lane]
                if t == 0 or running.ended[t, row, lane] or option[t] != option[t - 1]:
                    own.append([])
                own[-1].append(t)
            found[-1].append(own)
    return found


# -------------------------------------------------------------------------------------------------
# Segments


def test_without_options_there_are_no_decisions():
    rollout, _ = lived(make("rl2", options=0), family_of("rl2"))
    with pytest.raises(MetaRLError, match="without options"):
        segments(rollout)


def test_a_lane_without_a_step_has_no_decisions():
    rollout, _ = lived(make("rl2"), family_of("rl2"))
    rollout.valid[:, 2] = False
    folded, others = segments(rollout), [0, 1, 3, 4]
    assert folded.duration[:, 2].eq(0).all()
    assert not folded.ended[:, 2].any()
    assert same(folded.duration[:, others].sum(0), rollout.valid[:, others].sum(0))


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@AGENTS
@TERMINATIONS
def test_segments_are_the_steps_of_each_option_folded(termination: str, name: str, gamma: float):
    """Stretch by stretch, by hand: none goes over the end of an episode, and every step lies in
    one.
    """
    rollout, _ = lived(make(name, termination=termination), family_of(name))
    folded, reward, ended = segments(rollout, gamma), rollout.reward, rollout.done
    assert not rollout.valid.all()
    lengths = set()
    for row, lanes in enumerate(stretches(rollout)):
        for lane, own in enumerate(lanes):
            duration = folded.duration[:, row, lane]
            assert duration.tolist() == [len(steps) for steps in own] + [0] * (
                len(duration) - len(own)
            )
            assert duration.sum() == rollout.valid[:, row, lane].sum()
            lengths |= set(duration.tolist())
            expanded = folded.option[:, row, lane].repeat_interleave(duration)
            assert torch.equal(expanded, rollout.inputs.option.current[: len(expanded), row, lane])
            for s, steps in enumerate(own):
                total = sum(gamma**i * float(reward[t, row, lane]) for i, t in enumerate(steps))
                assert float(folded.reward[s, row, lane]) == pytest.approx(
                    total, rel=1e-5, abs=1e-5
                )
                assert bool(folded.ended[s, row, lane]) == bool(ended[steps[-1], row, lane])
                assert not ended[steps[:-1], row, lane].any()
            assert folded.ended[:, row, lane].sum() == EPISODES
            assert folded.reward[len(own) :, row, lane].eq(0).all()
    assert {0, 1, 2} <= lengths


@AGENTS
@TERMINATIONS
def test_the_returns_of_decisions_are_those_of_their_steps(termination: str, name: str):
    """Sutton et al. 1999: at every decision, with γ to the power of how long it lasts; within
    episodes and across them.
    """
    rollout, _ = lived(make(name, termination=termination), family_of(name))
    folded, reward = segments(rollout, 0.9), rollout.reward * rollout.valid
    for cut, folded_cut in (
        (rollout.done, folded.ended),
        (rollout.done & False, folded.ended & False),
    ):
        steps = discounted_returns(reward, cut, 0.9)
        decisions = discounted_returns(folded.reward, folded_cut, 0.9**folded.duration)
        for row, lanes in enumerate(stretches(rollout)):
            for lane, own in enumerate(lanes):
                expected = steps[[at[0] for at in own], row, lane]
                torch.testing.assert_close(
                    decisions[: len(own), row, lane], expected, rtol=1e-4, atol=1e-4
                )


@AGENTS
def test_what_is_told_of_options(name: str):
    """Counted step by step."""
    rollout, _ = lived(make(name, termination="random"), family_of(name))
    found, running, own = usage(rollout, L), rollout.inputs.option, stretches(rollout)
    steps = [
        (t, r, m)
        for r, lanes in enumerate(own)
        for m, lane in enumerate(lanes)
        for at in lane
        for t in at
    ]
    shares = [sum(int(running.current[at]) == o for at in steps) / len(steps) for o in range(L)]
    inside = [(t, r, m) for t, r, m in steps if t and not rollout.done[t - 1, r, m]]
    switches = [running.current[t, r, m] != running.current[t - 1, r, m] for t, r, m in inside]
    assert [found[f"usage_{o}"] for o in range(L)] == pytest.approx(shares)
    assert found["usage_entropy"] == pytest.approx(
        float(torch.tensor(shares).log().neg() @ torch.tensor(shares))
    )
    assert found["option_duration"] == pytest.approx(
        len(steps) / sum(len(lane) for lanes in own for lane in lanes)
    )
    assert found["switch_rate"] == pytest.approx(sum(switches) / len(inside))
    assert 0 < found["switch_rate"] < 1


# -------------------------------------------------------------------------------------------------
# Agents: acting


@pytest.mark.parametrize("name", ["rl2", "maml"])
def test_a_memory_is_told_which_option_ran_and_that_none_did(name: str):
    """None before the first step of a trial, or of an episode where memories last no longer."""
    agent = make(name, memory="gru")
    rollout, _ = lived(agent, family_of(name), 1 if name == "maml" else EPISODES)
    before, option = rollout.inputs.option.previous, rollout.inputs.option.current
    assert before[0].eq(NONE).all()
    assert same(before[1:][rollout.valid[1:]], option[:-1][rollout.valid[1:]])
    told = agent.policy._with_previous_option(rollout.inputs, before).latent
    assert same(told.sum(-1) == 0, before == NONE)
    assert same(told[1:].argmax(-1), before[1:].clamp(min=0))


@SPACES
@BODIES
@TERMINATIONS
def test_views_split_what_the_agent_did(termination: str, sub_hidden_sizes: Any, discrete: bool):
    """Log-probabilities add up, nothing is decided while an option has its length, and unrolling
    the trial finds both.
    """
    agent = make("rl2", discrete, termination=termination, sub_hidden_sizes=sub_hidden_sizes)
    trial, _ = lived(agent, family_of("rl2", discrete))
    with torch.no_grad():
        found = agent.policy.unroll(
            agent.params, agent.ppo.normalize(trial.inputs), agent.policy.start(ROWS, 1, CPU)
        )
    decision_processes, valid, running = (
        agent.policy.decision_processes(trial),
        trial.valid,
        trial.inputs.option,
    )
    torch.testing.assert_close(
        decision_processes["option"].log_prob + decision_processes["action"].log_prob,
        trial.log_prob,
    )
    assert torch.equal(decision_processes["option"].action, running.current)
    assert same(decision_processes["action"].action, trial.action)
    assert torch.equal(decision_processes["action"].valid, valid)
    assert torch.equal(
        decision_processes["option"].valid,
        valid if termination == "learned" else valid & running.ended,
    )
    assert decision_processes["option"].valid.sum() < valid.sum() or termination == "learned"
    for name, process in decision_processes.items():
        again = found.levels[name].actions.log_prob(process.action)
        torch.testing.assert_close(again[valid], process.log_prob[valid], rtol=0, atol=1e-5)
        torch.testing.assert_close(
            found.levels[name].value[valid], process.extras["value"][valid], rtol=0, atol=1e-5
        )
    begins = torch.cat([torch.ones_like(valid[:1]), trial.done[:-1]])
    assert running.ended[begins & valid].all()


@TERMINATIONS
@AGENTS
def test_an_evaluation_has_the_agent_act_through_its_options(name: str, termination: str):
    """Every task as if it were alone, drawn or greedy."""
    agent, family = make(name, termination=termination), family_of(name)
    for mode in ("sample", "greedy"):
        few, many = (
            evaluate(agent, family, episodes=2 * agent.lanes, tasks=n, mode=mode).returns
            for n in (3, 6)
        )
        assert few == pytest.approx(many[..., :3], abs=1e-4)


@TERMINATIONS
def test_a_session_keeps_an_option_running(termination: str, monkeypatch: pytest.MonkeyPatch):
    """Step by step, as in a batch: until it ends, or the episode; and what was done can be
    recomputed.
    """
    family, rounds = Ragged(), []
    agent = make("rl2", termination=termination)
    monkeypatch.setattr(agent, "adapt", lambda belief, rollout: rounds.append(rollout) or belief)
    env, session = family.make(1), Session(agent, family.spec, episodes=8)
    obs = env.reset(family.tasks("test", 1, Rng(0)), Rng(0))
    while len(rounds) < 8:
        step = env.step(torch.tensor([[session.act(obs[0, 0].numpy())]]))
        session.observe(
            *(
                x[0, 0].numpy()
                for x in (step.reward, step.next_obs, step.terminated, step.truncated)
            )
        )
        obs = step.obs
    inputs, action, log_prob = tree_map(
        lambda *x: torch.cat(x), *((r.inputs, r.action, r.log_prob) for r in rounds)
    )
    running, begins = inputs.option, torch.cat([torch.arange(len(r.valid)) == 0 for r in rounds])
    assert torch.equal(running.previous[1:], running.current[:-1])
    assert running.ended[begins].all()
    assert torch.equal(running.ended.flatten(), begins) == (termination == "learned")
    with torch.no_grad():
        found = agent.policy.unroll(agent.params, inputs, agent.policy.start(1, 1, CPU))
    torch.testing.assert_close(
        from_heads(found.heads).log_prob((running.current, action)), log_prob
    )


def test_what_others_lived_through_can_be_remembered_and_not_be_learned_from():
    """Nobody knows which options ran there; after it, one is drawn."""
    agent = make("rl2", termination="fixed", option_length=4)
    trial, after = lived(agent, Ragged())
    told = agent.replay(agent.begin(TaskInfo(ROWS, EPISODES, CPU), 1), trial)
    assert same(told.cue, after.cue)
    noise = Ragged().tasks("train", ROWS, Rng(0)).streams(Rng(4), 1)
    acted, _ = agent.act(told, trial.inputs.obs[0], noise, 0, "sample")
    assert acted.inputs.option.ended.all()
    assert acted.inputs.option.previous.eq(NONE).all()
    learner = make("maml")
    rollout, belief = lived(learner, family_of("maml"), 1)
    with pytest.raises(MetaRLError, match="which options ran"):
        learner.replay(belief, rollout)


# -------------------------------------------------------------------------------------------------
# Agents: learning


@pytest.mark.parametrize("memory", ["gru", "none"])
@SPACES
def test_one_option_of_one_step_is_the_flat_agent(discrete: bool, memory: str):
    """The same parameters, actions and values, to the bit; the same updates, but for the order of
    sums over two views.
    """
    layer = {"options": 1, "sub_hidden_sizes": None, "termination": "fixed", "option_length": 1}
    flat, one = (
        make_agent("rl2", Ragged(discrete).spec, **SMALL["rl2"], memory=memory, **x)
        for x in ({}, layer)
    )
    assert set(one.params) - set(flat.params) == {"option.weight", "option.bias"}
    old = tree_map(lambda x: x.detach().clone(), flat.params)
    assert same({name: one.params[name] for name in old}, old)
    (here, _), (there, _) = (lived(agent, Ragged(discrete)) for agent in (flat, one))
    assert same(
        (here.action, here.log_prob, here.extras["value"]),
        (there.action, there.log_prob, there.extras["value"]),
    )
    logged, again = (train(agent, Ragged(discrete), range(3)) for agent in (flat, one))
    for name, value in old.items():
        torch.testing.assert_close(one.params[name], flat.params[name], rtol=0, atol=1e-4)
        assert (flat.params[name] - value).abs().max() > 1e-3
    for metrics, expected in zip(again, logged, strict=True):
        assert {name: metrics[name] for name in expected} == pytest.approx(
            expected, rel=1e-3, abs=1e-4
        )


@SPACES
@pytest.mark.parametrize("outer", ["trpo", "ppo", "reptile"])
def test_one_option_of_one_step_is_the_flat_maml(outer: str, discrete: bool):
    """Up to rounding: the one's perceptron is differentiated by hand, the other by autograd."""
    layer = {
        "options": 1,
        "sub_hidden_sizes": None,
        "termination": "fixed",
        "option_length": 1,
        "adapted": "all",
    }
    family, options = (
        Uneven(discrete),
        SMALL["maml"] | {"outer": outer, "cg_iterations": 3, "damping": 0.1},
    )
    flat, one = (make_agent("maml", family.spec, **options, **x) for x in ({}, layer))
    for agent in (flat, one):
        for seed, name in enumerate(sorted(flat.params)):
            generator = torch.Generator().manual_seed(seed)
            agent.params[name] += 0.3 * torch.randn(agent.params[name].shape, generator=generator)
    old = tree_map(torch.clone, flat.params)
    assert same({name: one.params[name] for name in old}, old)
    for agent in (flat, one):
        train(agent, family, range(1))
    assert float((flat.params["action.weight"] - old["action.weight"]).abs().max()) > 1e-3
    torch.testing.assert_close(
        {name: one.params[name] for name in old}, flat.params, rtol=0, atol=1e-5
    )


@BODIES
@TERMINATIONS
def test_each_process_teaches_its_own(termination: str, sub_hidden_sizes: Any):
    """Options: master and terminations; actions: sub-policies and worth. The worth of π̂ is no
    lesson to π̂.
    """
    agent = make("rl2", False, termination=termination, sub_hidden_sizes=sub_hidden_sizes)
    batch, taught = agent.ppo._prepare_batch(lived(agent, Ragged(False))[0], gae_lambda=0.9), {}
    for name, level in batch.levels.items():
        for of in ("policy", "value"):
            decision = agent.policy.unroll(
                agent.params, batch.inputs, agent.policy.start(ROWS, 1, CPU)
            ).levels[name]
            loss, _ = ppo_loss(
                decision,
                level.action,
                level.log_prob,
                level.advantage * (of == "policy"),
                level.value_target,
                level.valid,
                clip_range=0.2,
                value_coef=float(of == "value"),
                entropy_coef=0.01 * (of == "policy"),
            )
            slopes = torch.autograd.grad(loss, list(agent.params.values()), materialize_grads=True)
            taught[name, of] = {
                key
                for key, slope in zip(agent.params, slopes, strict=True)
                if slope.abs().max() > 0
            }

    def named(*starts: str) -> set[str]:
        return {key for key in agent.params if key.startswith(starts)}

    trunk, acting = (
        named("memory", "body"),
        named("memory", "body") if sub_hidden_sizes is None else named("sub.body"),
    )
    ends = named("termination", "sub.termination")
    assert taught["option", "policy"] == trunk | named("option") | ends | (
        acting if ends else set()
    )
    assert taught["option", "value"] == set()
    assert taught["action", "policy"] == acting | named("action", "sub.action")
    assert taught["action", "value"] == trunk | named("value")


@pytest.mark.parametrize("adapted", ["master", "all"])
@BODIES
@TERMINATIONS
def test_inner_steps_move_the_master_or_everything(
    termination: str, sub_hidden_sizes: Any, adapted: str
):
    agent = make(
        "maml", termination=termination, sub_hidden_sizes=sub_hidden_sizes, adapted=adapted
    )
    rollout, belief = lived(agent, family_of("maml"), 2)
    after = agent.adapt(belief, rollout).row.params
    moved = {name for name, value in belief.row.params.items() if not same(after[name], value)}
    assert moved == (
        agent.policy.master_parameters(agent.params) if adapted == "master" else set(agent.params)
    )


@pytest.mark.parametrize("adapted", ["master", "all"])
@BODIES
@SPACES
@TERMINATIONS
def test_the_meta_gradient_goes_through_the_masters_steps(
    termination: str,
    discrete: bool,
    sub_hidden_sizes: Any,
    adapted: str,
    monkeypatch: pytest.MonkeyPatch,
):
    """Autograd's, in double precision, through two inner steps on what options and actions were
    likely.
    """
    options = {"inner_steps": 2, "step_sizes": (0.4, 0.2), "adapted": adapted}
    agent, caught = (
        make(
            "maml", discrete, termination=termination, sub_hidden_sizes=sub_hidden_sizes, **options
        ),
        [],
    )
    monkeypatch.setattr(agent, "_trust_region", lambda *given: caught.append(given) or {})
    agent.iterate(LocalWorld(family_of("maml", discrete), 2 * agent.lanes, None, CPU), Rng(0))
    ((chain, query, _),) = caught
    _, found = agent._gradient(chain, query.policy, query)

    def loss(params: Params, episodes: Any, ratio: bool) -> Tensor:
        known = tree_map(lambda x: x.double() if x.is_floating_point() else x, episodes)
        heads = agent.policy.unroll(
            params, known.inputs, agent.policy.start(ROWS, agent.lanes, CPU)
        ).heads
        log_prob = from_heads(heads).log_prob(known.action)
        return -known.mean(
            ((log_prob - known.log_prob).exp() if ratio else log_prob) * known.advantage
        )

    theta = {name: value.double().requires_grad_() for name, value in agent.params.items()}
    params = {name: value.expand(ROWS, *value.shape) for name, value in theta.items()}
    names = list(theta) if adapted == "all" else sorted(agent.policy.master_parameters(theta))
    for step, size in zip(chain.steps, options["step_sizes"], strict=True):
        total = loss(params, step.episodes, ratio=False).sum()
        slopes = torch.autograd.grad(total, [params[name] for name in names], create_graph=True)
        params |= {
            name: params[name] - size * slope for name, slope in zip(names, slopes, strict=True)
        }
    outer = loss(params, query.episodes, ratio=True).mean()
    expected = torch.autograd.grad(outer, list(theta.values()))
    for name, slope in zip(theta, expected, strict=True):
        torch.testing.assert_close(found[name].double(), slope, rtol=1e-3, atol=1e-5)
        assert slope.abs().max() > 1e-4


@BODIES
@pytest.mark.parametrize(
    "options",
    [{"outer": "trpo"}, {"outer": "ppo"}, {"outer": "reptile", "adapted": "all"}],
    ids=["trpo", "ppo", "reptile"],
)
def test_a_master_that_is_not_learned_stays(sub_hidden_sizes: Any, options: dict[str, Any]):
    """Adaptation begins from where it began, while what options are is learned."""
    agent = make("maml", sub_hidden_sizes=sub_hidden_sizes, learn_master=False, **options)
    master, old = agent.policy.master_parameters(agent.params), tree_map(torch.clone, agent.params)
    train(agent, family_of("maml"), range(2))
    assert {name for name in old if same(agent.params[name], old[name])} == master


@AGENTS
@TERMINATIONS
def test_a_run_that_was_saved_goes_on_as_if_it_had_not_been(termination: str, name: str):
    """Bit for bit, through a file, in an agent that was something else before."""
    family = family_of(name)
    straight, interrupted, resumed = (
        make(name, seed=seed, termination=termination) for seed in (0, 0, 1)
    )
    logged = train(straight, family, range(2))
    assert train(interrupted, family, range(1)) == logged[:1]
    torch.save(interrupted.state_dict(), file := io.BytesIO())
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert train(resumed, family, range(1, 2)) == logged[1:]
    assert same(resumed.state_dict(), straight.state_dict())
