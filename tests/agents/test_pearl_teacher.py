"""PEARL's encoder with a teacher, natural factors and prefixes as contexts: options, whose losses
and gradients are held against torch.distributions and networks by hand.
"""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from helpers import CPU, same
from pearl_by_hand import SPACES, ByHand, Dense, begin, lived, make, spy, world_of
from test_pearl_updates import (
    BATCH,
    CONTEXT,
    TASKS,
    _double_chance,  # noqa: F401  (a fixture)
    close,
    double_agent,
    generator,
    gradients,
    of,
    transitions,
    watch,
)
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from metarl.agents.pearl.agent import PEARL
from metarl.agents.pearl.teacher import standardized
from metarl.collect.world import LocalWorld
from metarl.config.registry import find
from metarl.core.errors import ConfigError
from metarl.core.predictions import Questions
from metarl.core.protocol import EvalProtocol
from metarl.core.rng import Rng
from metarl.core.types import Tasks, replace, tree_map
from metarl.data.transitions import Transitions
from metarl.evaluation.meta_test import evaluate
from metarl.experiments.building import make_agent

TEACHERS = pytest.mark.parametrize("teacher", ["none", "task", "outcomes"])
TAUGHT = {
    "teacher": "task",
    "teacher_sizes": (6,),
    "factors": "natural",
    "context_sampling": "prefixes",
    "context_visits": 2,
    "context_dropout": 0.3,
}


class Wide(Dense):
    """Task rows of three entries, the second of which is the same in all tasks."""

    def __init__(self, discrete: bool = True) -> None:
        super().__init__(discrete)
        self.spec = replace(self.spec, task_width=3)

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        tasks = super().tasks(split, count, rng)
        entries = [tasks.params, torch.full_like(tasks.params, 0.1), tasks.params.square()]
        return replace(tasks, params=torch.cat(entries, dim=1))


def taught(teacher: str, discrete: bool, **options: Any) -> PEARL:
    """An agent in double precision with a teacher, of rows of three entries."""
    given = {"gamma": 0.75, "teacher": teacher, "teacher_sizes": (5,)} | options
    return make(Wide(discrete), dtype=torch.float64, **given)


class Hand(ByHand):
    """Teachers, too."""

    def __init__(self, agent: PEARL) -> None:
        super().__init__(agent)
        given = {name: x.detach().double().clone() for name, x in agent.params.items()}
        self.decoder = self.net("decoder", given)
        if agent.config.teacher == "task":
            self.teacher = self.net("teacher", given)

    def of_row(self, rows: Tensor) -> Normal:
        """q(z|x)."""
        mean, spread = self.teacher(rows).chunk(2, -1)
        return Normal(mean, (nn.functional.softplus(spread) + 1e-4).sqrt())

    def drawn(self, agent: PEARL, seed: int) -> tuple[Tensor, Tensor | None]:
        """The normal numbers of an update: of z, and of the actions that follow."""
        noise = generator(seed)
        z = torch.randn(TASKS, self.latent, generator=noise)
        width = agent.spec.action_width
        if agent.spec.discrete:
            return z, None
        return z, torch.randn(TASKS * BATCH, width, generator=noise)


def together(each: list[Normal]) -> Normal:
    """[N, Z]."""
    return Normal(torch.stack([q.loc for q in each]), torch.stack([q.scale for q in each]))


# -------------------------------------------------------------------------------------------------
# The teacher that knows the task


@SPACES
@pytest.mark.parametrize("kl_coef", [0.0, 0.6])
def test_who_knows_the_task_teaches_the_encoder(discrete: bool, kl_coef: float):
    """The loss is that of torch.distributions; critics learn on the teacher's z, and each network
    from its own terms: none of the decoder's reaches the encoder, none of the context's the
    teacher, and none of the critics' either.
    """
    agent = taught("task", discrete, kl_coef=kl_coef, teacher_std=0.3)
    hand, seen = Hand(agent), watch(agent)
    batch, context = transitions(agent, BATCH), transitions(agent, CONTEXT, 1)
    rows = torch.randn(TASKS, 3, generator=generator(9), dtype=torch.float64)
    logged = agent._update(batch, context, kl_coef, generator(2), rows)

    normal, actions = hand.drawn(agent, 2)
    q, inferred = hand.of_row(rows), together(hand.believed(context, TASKS))
    z = q.loc + q.scale * normal
    error = (hand.decoder(z) - rows).square().sum(-1).mean()
    prior_kl = kl_divergence(q, Normal(0.0, 1.0)).sum(-1).mean()
    fixed = Normal(q.loc.detach(), q.scale.detach())
    context_kl = kl_divergence(fixed, inferred).sum(-1).mean()
    critic_error, _ = hand.error(batch, list(z.detach()), actions)
    kl = hand.kl(hand.believed(context, TASKS))
    by_row = error / (2 * 0.3**2) + prior_kl
    close(seen[0].loss, critic_error + by_row + context_kl + kl_coef * kl)
    close([logged[name] for name in ("row_kl", "context_kl")], [prior_kl, context_kl])
    close(logged["row_error"], error.sqrt())
    guess = (hand.decoder(inferred.loc) - rows).square().sum(-1).mean().sqrt()
    close(logged["inferred_row_error"], guess)

    terms = {
        "encoder": context_kl + kl_coef * kl,
        "teacher": by_row,
        "decoder": by_row,
        "q1": critic_error,
        "q2": critic_error,
    }
    for name, term in terms.items():
        expected = gradients(term, hand.of(f"{name}."))
        found = of(seen[0].reached, f"{name}.")
        assert set(found) == set(expected)
        close(found, expected)
        assert max(float(x.abs().max()) for x in found.values()) > 1e-4


@SPACES
@TEACHERS
def test_critics_and_policy_are_given_the_same_z(discrete: bool, teacher: str):
    """The teacher's, without a gradient, where it knows the task; else the encoder's."""
    agent = taught(teacher, discrete)
    given = spy(agent.sac, "update")
    batch, context = transitions(agent, BATCH), transitions(agent, CONTEXT, 1)
    rows = torch.randn(TASKS, 3, generator=generator(9), dtype=torch.float64)
    normal = torch.randn(TASKS, 3, generator=generator(3))
    if teacher == "task":
        q = Hand(agent).of_row(rows)
    else:
        q = together(ByHand(agent).believed(context, TASKS))
    agent._update(batch, context, 0.1, generator(3), rows)
    updated = given[0][0]
    z = (q.loc + q.scale * normal).repeat_interleave(BATCH, 0)
    close([updated.inputs.latent, updated.next_inputs.latent], [z, z])
    assert updated.inputs.latent.requires_grad == (teacher != "task")
    assert not updated.next_inputs.latent.requires_grad


def test_a_teacher_is_no_part_of_acting():
    """Other weights of it, and the agent does the same."""
    for teacher in ("task", "outcomes"):
        agent, family = make(Dense(), teacher=teacher), Dense()
        before = lived(agent, family)
        for name, value in agent.params.items():
            if name.startswith(("teacher", "decoder")):
                value.data += 1
        assert same(lived(agent, family), before)


# -------------------------------------------------------------------------------------------------
# The teacher that knows outcomes


@SPACES
def test_outcomes_teach_the_encoder(discrete: bool):
    """A decoder of the environment's reward, scaled, and the next observation; its error comes
    beside that of the critics.
    """
    agent = taught("outcomes", discrete, kl_coef=0.6, decoder_coef=0.7, reward_scale=3.0)
    with torch.no_grad():
        agent.params["noise.log_std"].fill_(0.3)
    hand, seen = Hand(agent), watch(agent)
    batch, context = transitions(agent, BATCH), transitions(agent, CONTEXT, 1)
    logged = agent._update(batch, context, 0.6, generator(2))

    normal, actions = hand.drawn(agent, 2)
    beliefs = hand.believed(context, TASKS)
    z = [q.loc + q.scale * n for q, n in zip(beliefs, normal, strict=True)]
    errors, of_rewards = [], []
    for n in range(TASKS):
        for b in range(BATCH):
            action = batch.action[n, b]
            taken = torch.eye(2)[action] if discrete else action
            found = hand.decoder(torch.cat([batch.obs[n, b], taken, z[n]]))
            outcome = torch.cat([3 * batch.reward[n, b].view(1), batch.next_obs[n, b]])
            errors.append((found - outcome).square().mean())
            of_rewards.append((found[0] - outcome[0]).square())
    error = torch.stack(errors).mean()
    left = torch.stack(of_rewards).mean().detach()
    log_std = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    noise_loss = -Normal(0.0, log_std.exp()).log_prob(left.sqrt()) - 0.5 * math.log(2 * math.pi)
    critic_error, _ = hand.error(batch, z, actions)
    kl = hand.kl(beliefs)
    close(logged["outcome_error"], error)
    close(seen[0].loss, critic_error + 0.6 * kl + 0.7 * error + noise_loss)
    noise_loss.backward()
    close(seen[0].reached["noise.log_std"], log_std.grad)

    terms = {"encoder": critic_error + 0.6 * kl + 0.7 * error, "decoder": 0.7 * error}
    for name, term in terms.items():
        found = of(seen[0].reached, f"{name}.")
        close(found, gradients(term, hand.of(f"{name}.")))
    by_outcomes = gradients(error, hand.of("encoder."))
    assert max(float(x.abs().max()) for x in by_outcomes.values()) > 1e-4


@SPACES
def test_who_was_taught_outcomes_predicts_rewards(discrete: bool):
    """In the environment's units, over what z may be; the deviation that is left is noise."""
    agent = taught("outcomes", discrete, reward_scale=3.0)
    with torch.no_grad():
        agent.params["noise.log_std"].fill_(-0.5)
    hand = Hand(agent)
    belief = begin(agent, Wide(discrete).tasks("test", 2, Rng(0)))
    context = transitions(agent, CONTEXT)
    factors = agent._context_factors(tree_map(lambda x: x[:2], context))
    known = replace(belief.row, posterior=belief.row.posterior.update(factors))
    belief = replace(belief, row=known)
    rows, lanes = belief.cue.shape[:2]
    spec = agent.spec
    obs = torch.linspace(-1, 1, 2 * spec.obs_width, dtype=torch.float64).view(2, -1)
    taken = torch.eye(2, dtype=torch.float64)[:, : spec.action_width]
    action = torch.tensor([0, 1]) if discrete else taken
    predicted = agent.predict(belief, obs.new_zeros(rows, lanes, 1), Questions(obs, action, obs))

    mean, std = agent.inferred(belief)
    normal = torch.randn(64, 1, mean.shape[-1], generator=generator(0)).to(mean)
    z = mean + std * normal
    for n in range(rows):
        for q in range(2):
            asked = torch.cat([obs[q], taken[q]]).expand(64, -1)
            found = hand.decoder(torch.cat([asked, z[:, n]], dim=-1))[:, 0] / 3
            close(predicted.reward[n, 0, q], found.mean())
            close(predicted.variance[n, 0, q], found.var(correction=0) + math.exp(-1) / 9)
    assert predicted.reward.shape == (rows, lanes, 2)
    assert predicted.successor is None


@pytest.mark.parametrize("teacher", ["none", "task"])
def test_who_was_not_predicts_nothing(teacher: str):
    agent = taught(teacher, discrete=True)
    belief = begin(agent, Wide().tasks("test", 1, Rng(0)))
    obs = torch.zeros(1, agent.spec.obs_width)
    questions = Questions(obs, torch.zeros(1, dtype=torch.long), obs)
    with pytest.raises(ConfigError, match=f"agent.teacher={teacher} predicts no outcomes; train"):
        agent.predict(belief, obs.unsqueeze(0), questions)


@pytest.mark.parametrize(
    ("options", "acting"),
    [
        ({}, "z from the prior in the first episode; then z from the posterior"),
        ({"exploration_episodes": 0}, "z from the posterior"),
        (
            {"exploration_episodes": 5, "exploration_mode": "sample", "prior_episodes": 5},
            "z from the prior in the first 5 episodes, actions sampled; then z from the posterior",
        ),
        (
            {"exploration_episodes": 0, "mean_below": 0.4},
            "z from the posterior, or its mean where deviations are below 0.4",
        ),
        ({"latent_width": 0, "exploration_episodes": 0, "extra_episodes": 0}, ""),
    ],
)
def test_it_says_how_it_acts(options: dict[str, Any], acting: str):
    assert make_agent("pearl", Wide().spec, **options).acting == acting


# -------------------------------------------------------------------------------------------------
# What it is told of the tasks


def test_rows_are_standardized_by_what_the_training_set_is():
    """Entries that do not vary are 0, whatever rounding does to their mean; so is a single row."""
    torch.manual_seed(0)
    rows = torch.cat([5 + 3 * torch.randn(80, 2), torch.full((80, 1), 1 / 3)], dim=1)
    found = standardized(rows, 0)
    assert found[:, 2].eq(0).all()
    torch.testing.assert_close(found[:, :2].mean(0), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(found[:, :2].square().mean(0), torch.ones(2))
    slope = (rows[1:, :2] - rows[:-1, :2]) / (found[1:, :2] - found[:-1, :2])
    torch.testing.assert_close(slope, slope[:1].expand_as(slope), rtol=1e-3, atol=0)
    assert standardized(rows[:1], 2).eq(0).all()


def test_the_entries_of_a_goal_have_one_scale():
    """Distances between goals keep their ratios; what is beside the goal has a scale of its own."""
    angle = torch.linspace(0, math.pi, 40).unsqueeze(1)
    rows = torch.cat([angle.cos(), angle.sin(), 100 * angle.sin()], dim=1)
    found = standardized(rows, 2)
    scale = rows[:, 0].std(correction=0)
    expected = (rows[:, :2] - rows[:, :2].mean(0)) / scale
    torch.testing.assert_close(found[:, :2], expected)
    torch.testing.assert_close(found[:, 2].std(correction=0), torch.tensor(1.0))


def test_it_learns_from_the_rows_of_the_training_tasks_by_their_number():
    """Whatever order the tasks of a batch have; the spread of every row comes from all of them."""
    family = Wide()
    agent, world = make(family, **TAUGHT), world_of(family, 5)
    learned = spy(agent, "_update", lambda batch, _, __, ___, rows, *____: (batch, rows))
    agent.iterate(world, Rng(0))
    expected = standardized(world.train_set.params, 0)
    assert expected[:, 1].eq(0).all()
    for batch, rows in learned:
        number = batch.obs[:, 0, 0].long()
        assert same(rows, expected[number])


class Poisoned(Wide):
    """No row but those for training is a number."""

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        tasks = super().tasks(split, count, rng)
        if split == "train":
            return tasks
        return replace(tasks, params=torch.full_like(tasks.params, torch.nan))


class Strict(LocalWorld):
    """Reveals no other rows than those of the training set."""

    def task_rows(self, tasks: Tasks) -> Tensor:
        assert tasks is self.train_set
        return super().task_rows(tasks)


@pytest.mark.parametrize("teacher", ["task", "outcomes"])
def test_no_row_of_validation_or_test_is_ever_seen(teacher: str):
    """They are not even numbers, and nothing changes: neither what it learns nor how it acts."""
    found = []
    for family in (Wide(), Poisoned()):
        agent = make(family, **TAUGHT | {"teacher": teacher})
        world = Strict(family, 3, world_of(family).train_set, CPU)
        lives = []
        for k in range(2):
            agent.iterate(world, Rng(k))
            for split in ("validation", "test"):
                scores = evaluate(agent, family, EvalProtocol(3, 4, split))
                lives.append(scores.to_dict()["returns"])
        params = agent.state_dict()["params"]
        assert all(value.isfinite().all() for value in params.values())
        found.append((params, lives))
    assert same(*found)


def test_a_world_that_reveals_nothing_is_told_in_one_line():
    family = Dense()

    class Silent:
        """Everything but rows."""

        def __init__(self, world: LocalWorld) -> None:
            self._world = world
            for name in ("episodes", "env_steps", "progress", "train_set"):
                setattr(self, name, getattr(world, name))
            self.tasks, self.task_info = world.tasks, world.task_info
            self.collect = world.collect

    agent = make(family, **TAUGHT)
    with pytest.raises(ConfigError, match=r"^world: Silent has no task_rows.*teacher=task.*; set"):
        agent.iterate(Silent(world_of(family)), Rng(0))
    make(family, **TAUGHT | {"teacher": "outcomes"}).iterate(Silent(world_of(family)), Rng(0))


@pytest.mark.parametrize("teacher", ["task", "outcomes"])
@pytest.mark.parametrize("name", ["sac", "mtsac", "pearl"])
def test_nothing_can_be_taught_where_nothing_is_inferred(name: str, teacher: str):
    nothing = {"latent_width": 0} if name == "pearl" else {}
    with pytest.raises(ConfigError, match=rf"teacher {teacher} .* latent_width is 0; set") as error:
        find("agent", name).configure({"teacher": teacher} | nothing)
    assert "\n" not in str(error.value)


def test_a_teacher_of_tasks_is_refused_where_the_task_is_shown():
    with pytest.raises(ConfigError, match="task_input onehot shows which training task it is"):
        find("agent", "pearl").configure({"teacher": "task", "task_input": "onehot"})


# -------------------------------------------------------------------------------------------------
# Natural factors


def natural_belief(hand: ByHand, context: Transitions, row: int) -> Normal:
    """The exact posterior of N(0, 1) and factors of (shift, precision), in a loop."""
    precision, shift = torch.ones(hand.latent).double(), torch.zeros(hand.latent).double()
    for b in range(len(context.reward[row])):
        action = context.action[row, b]
        taken = torch.eye(hand.spec.action_width)[action] if hand.spec.discrete else action
        seen = [context.obs[row, b], taken, context.reward[row, b].view(1)]
        more, raw = hand.encoder(torch.cat(seen).double()).chunk(2)
        shift = shift + more
        precision = precision + nn.functional.softplus(raw - 4) + 1e-4
    return Normal(shift / precision, precision**-0.5)


@SPACES
def test_natural_factors_are_multiplied_with_the_prior(discrete: bool):
    agent = double_agent(discrete, factors="natural")
    context = transitions(agent, CONTEXT)
    posterior, hand = agent._infer_posterior(context, TASKS), ByHand(agent)
    for row in range(TASKS):
        expected = natural_belief(hand, context, row)
        close([posterior.mean[row], posterior.std[row]], [expected.loc, expected.scale])
    prior = agent._infer_posterior(None, TASKS)
    assert prior.mean.eq(0).all()
    assert prior.variance.eq(1).all()


def test_natural_and_gaussian_factors_of_the_same_parameters_are_the_same():
    """Where the encoder says the same of every step: the posterior differs by the prior alone."""
    mean, variance = torch.tensor([0.3, -2.0, 0.0]), torch.tensor([0.5, 2.0, 30.0])
    agents = [double_agent(True, factors=name) for name in ("gaussian", "natural")]
    heads = [
        torch.cat([mean, variance.double().expm1().log().float()]),
        torch.cat([mean / variance, (1 / variance.double() - 1e-4).expm1().log().float() + 4]),
    ]
    found = []
    for agent, head in zip(agents, heads, strict=True):
        agent.params["encoder.head.weight"].data.zero_()
        agent.params["encoder.head.bias"].data.copy_(head)
        found.append(agent._infer_posterior(transitions(agent, CONTEXT), TASKS))
    gaussian, natural = found
    torch.testing.assert_close(natural.precision, gaussian.precision + 1, rtol=1e-5, atol=0)
    torch.testing.assert_close(natural.shift, gaussian.shift, rtol=1e-5, atol=1e-6)
    assert float(gaussian.precision[0, 0].detach()) == pytest.approx(CONTEXT / 0.5, rel=1e-5)


def test_the_belief_with_natural_factors_grows_from_the_prior():
    """In a trial: before anything N(0, 1), then ever narrower, in any order."""
    agent, family = make(Dense(), factors="natural"), Dense()
    rollout, belief = lived(agent, family)
    assert same(agent.inferred(belief), (torch.zeros(6, 3), torch.ones(6, 3)))
    once = agent.adapt(belief, rollout)
    last, other = torch.ones(6, 3), belief
    for part in rollout.rounds():
        other = agent.adapt(other, part)
        deviation = agent.inferred(other)[1]
        assert (deviation < last).all()
        last = deviation
    torch.testing.assert_close(agent.inferred(other), agent.inferred(once), rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------------------------------------
# Prefixes


@SPACES
@pytest.mark.parametrize("factors", ["gaussian", "natural"])
def test_only_valid_steps_of_a_context_count(discrete: bool, factors: str):
    """As many as every task has, even none; what stands in the other places does not matter."""
    agent = double_agent(discrete, factors=factors)
    context = transitions(agent, CONTEXT)
    valid = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]) > 0
    spoilt = replace(context, reward=context.reward.masked_fill(~valid, torch.nan), valid=valid)
    found = agent._infer_posterior(spoilt, TASKS)
    for row in range(TASKS):
        mine = tree_map(lambda x, row=row: x[row : row + 1, valid[row]], context)
        alone = agent._infer_posterior(mine, 1)
        close([found.mean[row], found.std[row]], [alone.mean[0], alone.std[0]])
    found.kl().sum().backward()
    assert all(x.grad.isfinite().all() for x in of(agent.params, "encoder").values())


@pytest.mark.parametrize("visits", [1, 3])
def test_contexts_of_training_are_the_first_episodes_of_newest_visits(visits: int):
    """Those on the prior and those on the posterior, in their order; extra ones never. Episodes
    have lengths of their own.
    """
    family = Dense()
    options = TAUGHT | {"context_visits": visits, "context_dropout": 0.0}
    agent = make(family, updates=60, prior_episodes=2, posterior_episodes=2, **options)
    world = world_of(family)
    collected = spy(world, "collect", lambda *given: given[-1][0])
    learned = spy(agent, "_update", lambda batch, context, *_: context)
    contexts: dict[int, list[list[tuple[float, ...]]]] = {task: [] for task in range(5)}
    for iteration in range(4):
        collected.clear(), learned.clear()
        agent.iterate(world, Rng(iteration))
        parts = [collected[:1], collected[1:]] if not iteration else [collected]
        for rollouts in parts:
            known = rollouts[:1] if len(rollouts) == 1 else rollouts[:3]
            for row, task in enumerate(rollouts[0].index.tolist()):
                episodes = []
                for rollout in known:
                    for one in rollout.rounds():
                        there = one.valid[:, row, 0]
                        episodes.append(tuple(one.inputs.obs[there, row, 0, 3].tolist()))
                contexts[task].append(episodes)
        prefixes: dict[tuple[float, ...], tuple[int, int]] = {}
        for visited in contexts.values():
            for age, episodes in enumerate(visited[::-1][:visits]):
                for k in range(1, min(4, len(episodes)) + 1):
                    prefixes[sum(episodes[:k], ())] = (age, k)
        met = set()
        for context in learned:
            for row, valid in enumerate(context.valid):
                assert len(context.obs[row, :, 0].unique()) == 1
                met.add(prefixes[tuple(context.obs[row, valid, 3].tolist())])
        assert met == set(prefixes.values())


@pytest.mark.parametrize("dropout", [0.0, 0.8])
def test_as_much_of_a_context_is_left_out_as_asked_for(dropout: float):
    family, options = Dense(), TAUGHT | {"context_dropout": dropout}
    agent = make(family, updates=50, **options)
    learned = spy(agent, "_update", lambda batch, context, *_: context.valid)
    agent.iterate(world_of(family), Rng(0))
    left_out = [
        float((~valid).logical_and(valid.flip(1).cummax(1).values.flip(1)).float().mean())
        for valid in learned
    ]
    assert (max(left_out) > 0.1) == (dropout > 0)


# -------------------------------------------------------------------------------------------------
# Keeping


@pytest.mark.parametrize("options", [TAUGHT, {"teacher": "outcomes"}], ids=["task", "outcomes"])
def test_a_copy_and_a_restored_agent_learn_alike(options: dict[str, Any]):
    """Through a pickle, and through a state; both with what the teacher has learned."""
    family = Wide()
    agent = make(family, **options)
    agent.iterate(world_of(family), Rng(0))
    twin = pickle.loads(pickle.dumps(agent))
    other = make(family, seed=1, **options)
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    after = [each.iterate(world_of(family), Rng(1)) for each in (agent, twin, other)]
    assert after[0] == after[1] == after[2]
    for each in (twin, other):
        assert same(each.state_dict()["params"], agent.state_dict()["params"])
        assert same(each.state_dict()["optimisers"], agent.state_dict()["optimisers"])
    fresh = make(family, seed=1, **options)
    fresh.warm_start(agent.acting_state())
    assert same(lived(fresh, family), lived(agent, family))


def test_a_teacher_changes_no_first_weight_of_the_others():
    """So that runs with and without one begin alike."""
    plain = make_agent("pearl", Wide().spec, latent_width=2).params
    for teacher, networks in (("task", {"teacher", "decoder"}), ("outcomes", {"decoder", "noise"})):
        agent = make_agent("pearl", Wide().spec, latent_width=2, teacher=teacher)
        own = {name: x for name, x in agent.params.items() if name in plain}
        assert same(own, dict(plain))
        more = {name.partition(".")[0] for name in agent.params} - {
            name.partition(".")[0] for name in plain
        }
        assert more == networks
