"""RL²: the mistakes that published implementations make (SPECS 1.4, items 1 to 5, 19), and its
state.
"""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from helpers import CPU, Ragged, known_values, same
from torch import Tensor

from metarl.agents.rl2.agent import RL2
from metarl.algorithms import ppo
from metarl.algorithms.returns import discounted_returns
from metarl.collect.collector import collect
from metarl.collect.world import LocalWorld
from metarl.core.errors import ConfigError, FamilyError
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Belief, Inputs, TaskInfo, one_hot, replace, tree_map
from metarl.experiments.building import make_agent, make_family
from metarl.nn.normalizer import Normalizer

ROWS, EPISODES = 6, 3
SMALL = {"trials": ROWS, "epochs": 2, "minibatches": 2, "memory_width": 8, "learning_rate": 1e-2}

KEYS = {"memory_keys": 3}  # observations of these families are not one-hot
KINDS: dict[str, dict[str, Any]] = {
    "gru": {"memory": "gru"},
    "lstm": {"memory": "lstm"},
    "keyed": {"memory": "keyed", **KEYS},
    "gru+keyed": {"memory": "gru+keyed", **KEYS},
    "slots": {"memory": "slots", **KEYS},
    "transformer": {"memory": "transformer", "attention_heads": 2, "attention_layers": 1},
    "hypernetwork": {"readout": "hypernetwork", "hidden_sizes": (5,)},
}
MEMORIES = pytest.mark.parametrize("memory", KINDS)
SPACES = pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])
BOTH = pytest.mark.parametrize(
    ("memory", "discrete"),
    [
        (name, discrete)
        for name in KINDS
        for discrete in (True, False)
        if discrete or name != "slots"
    ],
)


def make(family: Family, seed: int = 0, **options: Any) -> RL2:
    """An agent whose weights are so large that its decisions depend on what it remembers."""
    agent = make_agent("rl2", family.spec, seed, **SMALL | options)
    generator = torch.Generator().manual_seed(seed)
    for value in agent.params.values():
        value.data += 0.5 * torch.randn(value.shape, generator=generator)
    return agent


def begin(agent: RL2, rows: int = ROWS) -> Belief:
    return agent.begin(TaskInfo(rows, EPISODES, CPU), lanes=1)


def trial_of(
    agent: RL2,
    family: Family,
    belief: Belief | None = None,
    *,
    episodes: int = EPISODES,
    rows: int = ROWS,
    seed: int = 0,
) -> tuple[Rollout, Belief]:
    tasks = family.tasks("train", rows, Rng(0))
    belief = belief or begin(agent, rows)
    return collect(agent, family.make(1), family.spec, belief, tasks, episodes, Rng(seed))


def log_probs(agent: RL2, inputs: Inputs, action: torch.Tensor) -> torch.Tensor:
    """Of the actions of whole trials, their memory recomputed from the start."""
    with torch.no_grad():
        start = agent.policy.start(action.shape[1], 1, CPU)
        return agent.policy.unroll(
            agent.params, agent.ppo.normalize(inputs), start
        ).actions.log_prob(action)


def train(agent: RL2, world: LocalWorld, iterations: range) -> list[dict[str, float]]:
    return [agent.iterate(world, Rng(9).child("iteration", i)) for i in iterations]


def small_world(family: Family | None = None, train_tasks: int | None = None) -> LocalWorld:
    family = family or Ragged()
    return LocalWorld(
        family, EPISODES, train_tasks and family.tasks("train", train_tasks, Rng(5)), CPU
    )


# -------------------------------------------------------------------------------------------------
# 1. Memory


@MEMORIES
def test_memory_is_carried_over_the_episodes_of_a_trial(memory: str):
    """One unroll from zero explains every decision of ten pulls; a memory that starts again at the
    sixth does not.
    """
    family = make_family("bernoulli-bandit")
    agent = make(family, **KINDS[memory])
    trial, _ = trial_of(agent, family, episodes=10)
    torch.testing.assert_close(
        log_probs(agent, trial.inputs, trial.action), trial.log_prob, rtol=0, atol=1e-5
    )
    restarted = log_probs(agent, tree_map(lambda x: x[5:], trial.inputs), trial.action[5:])
    assert float((restarted - trial.log_prob[5:]).abs().max()) > 1e-2


@MEMORIES
def test_a_trial_may_be_lived_in_parts(memory: str):
    """Meta-testing collects one episode at a time: memory and cue go on where they stopped."""
    family, belief, parts = make_family("bernoulli-bandit"), None, []
    agent = make(family, **KINDS[memory])
    for seed, episodes in enumerate((1, 5, 2)):
        part, belief = trial_of(agent, family, belief, episodes=episodes, seed=seed)
        parts.append((part.inputs, part.action, part.log_prob))
    inputs, action, stored = tree_map(lambda *pieces: torch.cat(pieces), *parts)
    torch.testing.assert_close(log_probs(agent, inputs, action), stored, rtol=0, atol=1e-5)


@MEMORIES
def test_a_new_trial_knows_nothing_of_the_old_one(memory: str):
    """The reset comes after the old trial's last step (varibad starts from its encoding)."""
    family = Ragged()
    agent = make(family, **KINDS[memory])
    before = trial_of(agent, family)
    trial_of(agent, family, seed=1)
    assert same(trial_of(agent, family), before)
    assert not same(before[1].lane, begin(agent).lane)


def test_acting_changes_the_lane_and_adapting_nothing():
    family = Ragged()
    agent = make(family, task_input="row")
    belief = agent.begin(
        TaskInfo(ROWS, EPISODES, CPU, family.tasks("train", ROWS, Rng(0)).params), lanes=1
    )
    trial, after = trial_of(agent, family, belief)
    assert same(after.row, belief.row)
    assert agent.adapt(after, trial) is after
    assert torch.equal(
        trial.inputs.task, belief.row.unsqueeze(1).expand(len(trial.valid), -1, -1, -1)
    )


# -------------------------------------------------------------------------------------------------
# 2, 5. What ends an episode reaches the policy


def test_the_pull_of_a_bandit_is_seen_by_the_next():
    """With episodes of one step, a wrapper that clears the cue at resets would show the agent a
    constant.
    """
    family = make_family("bernoulli-bandit")
    agent = make(family)
    trial, after = trial_of(agent, family, episodes=10)
    cue = torch.cat([trial.inputs.cue, after.cue.unsqueeze(0)])
    assert torch.equal(cue[1:, ..., :-2], one_hot(trial.action, 5))
    assert torch.equal(cue[1:, ..., -2], trial.reward)
    assert cue[..., -1].eq(1).all()
    assert 0 < trial.reward.mean() < 1


def test_a_time_limit_is_seen_as_an_end():
    family = make_family("tabular-mdp", horizon=4)
    trial, _ = trial_of(make(family), family)
    assert not trial.terminated.any()
    assert trial.inputs.cue[:, 0, 0, -1].tolist() == [1, 0, 0, 0] * EPISODES


# -------------------------------------------------------------------------------------------------
# 3. Credit


def advantages(trial: Rollout, **options: Any) -> torch.Tensor:
    """By a fresh agent, so that no running moments differ."""
    agent = make(Ragged(), **options)
    agent.ppo.values = known_values(len(trial.valid))
    return agent.ppo._prepare_batch(trial, gae_lambda=0.8).levels["action"].advantage


@pytest.fixture
def raw_advantages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standardizing mixes all trials; without it each number can be followed."""
    monkeypatch.setattr(ppo, "standardize", lambda x, valid, **_: x)


@pytest.mark.usefixtures("raw_advantages")
def test_credit_flows_over_the_ends_of_episodes_and_not_over_trials():
    """Exploring in the first episode is paid for by the later ones: dA_t / dr_u = (γ λ)^(u − t)."""
    trial, _ = trial_of(make(Ragged()), Ragged())
    row, bump = 2, 6
    assert trial.episode()[bump, row] == 1
    assert trial.valid[bump, row]
    reward = trial.reward.clone()
    reward[bump, row] += 1.0
    change = advantages(replace(trial, reward=reward), gamma=0.9) - advantages(trial, gamma=0.9)
    expected = torch.zeros_like(change)
    expected[: bump + 1, row, 0] = 0.72 ** torch.arange(bump, -1, -1.0)
    torch.testing.assert_close(change, expected, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("raw_advantages")
def test_between_episodes_the_value_of_the_next_first_observation_is_bootstrapped():
    """A_t at the last step of an episode holds γ V of what the policy saw next; at the trial's end
    it holds nothing.
    """
    trial, _ = trial_of(make(Ragged()), Ragged())
    value, end = trial.extras["value"], int(trial.valid[:, 2].sum()) - 1
    for t in torch.arange(end + 1):
        following = advantages(trial)[t + 1, 2] if t < end else 0.0
        next_value = value[t + 1, 2] if t < end else 0.0
        error = trial.reward[t, 2] + 0.99 * next_value - value[t, 2]
        torch.testing.assert_close(advantages(trial)[t, 2], error + 0.99 * 0.8 * following)


# -------------------------------------------------------------------------------------------------
# 4. Whole trials, memory recomputed


@BOTH
def test_recomputed_log_probs_are_those_of_acting(memory: str, discrete: bool):
    """The ratio is 1 before the first update, whatever the order of the trials."""
    family = Ragged(discrete)
    encoder = {} if memory == "slots" else {"encoder_sizes": (5,)}
    agent = make(family, **{**KINDS[memory], **encoder, "hidden_sizes": (7,)})
    trial, _ = trial_of(agent, family)
    for order in (torch.arange(ROWS), torch.tensor([3, 0, 5]), torch.arange(ROWS).flip(0)):
        part = trial.rows(order)
        again = log_probs(agent, part.inputs, part.action)
        torch.testing.assert_close(again[part.valid], part.log_prob[part.valid], rtol=0, atol=1e-5)


@BOTH
def test_without_steps_every_minibatch_has_ratio_one(memory: str, discrete: bool):
    """The same through `iterate`: shuffled minibatches of whole trials, several passes, normalized
    inputs.
    """
    agent = make(
        Ragged(discrete),
        **KINDS[memory],
        learning_rate=0.0,
        epochs=3,
        normalize_obs=True,
        normalize_reward=True,
    )
    for logged in train(agent, small_world(Ragged(discrete)), range(2)):
        assert abs(logged["kl"]) < 1e-6
        assert logged["clipped"] == 0
        assert logged["grad_norm"] > 0


def test_every_pass_makes_as_many_updates_as_said():
    """Trials that do not divide evenly: 6 trials in 4 minibatches; and never more minibatches than
    trials.
    """
    for minibatches, updates in ((4, 4), (100, ROWS)):
        agent = make(Ragged(), minibatches=minibatches, epochs=3)
        train(agent, small_world(), range(1))
        assert agent.state_dict()["optimiser"]["state"][0]["step"] == 3 * updates


# -------------------------------------------------------------------------------------------------
# 19. Ragged trials


def test_what_stands_in_waiting_steps_means_nothing():
    """Neither advantages, nor targets, nor running moments, nor the update may depend on it."""
    family = Ragged()
    trial, _ = trial_of(make(family), family)
    assert not trial.valid.all()
    spoilt = replace(
        trial,
        reward=torch.where(trial.valid, trial.reward, 1e3),
        extras={"value": torch.where(trial.valid, trial.extras["value"], -1e3)},
        log_prob=torch.where(trial.valid, trial.log_prob, -5.0),
        inputs=tree_map(lambda x: torch.where(trial.valid.unsqueeze(-1), x, 7.0), trial.inputs),
    )
    agents = []
    for lived in (trial, spoilt):
        agent = make(family, normalize_obs=True, normalize_reward=True)
        batch = agent.ppo._prepare_batch(lived, gae_lambda=0.8)
        agent.ppo.inputs.update(lived)
        metrics, level = agent.ppo._step(batch, 0.01, {"action": 0.01}), batch.levels["action"]
        agents.append(
            (agent, level.advantage[trial.valid], level.value_target[trial.valid], metrics)
        )
    for left, right in zip(agents[0][1:], agents[1][1:], strict=True):
        torch.testing.assert_close(left, right)
    torch.testing.assert_close(agents[0][0].params, agents[1][0].params)
    torch.testing.assert_close(
        agents[0][0].state_dict()["moments"], agents[1][0].state_dict()["moments"]
    )


def test_advantages_are_standardized_over_the_steps_lived_through():
    trial, _ = trial_of(make(Ragged()), Ragged())
    lived = advantages(trial)[trial.valid]
    torch.testing.assert_close(lived.mean(), torch.tensor(0.0), rtol=0, atol=1e-5)
    torch.testing.assert_close(lived.std(unbiased=False), torch.tensor(1.0))


def test_the_scale_of_values_outlasts_trials_of_other_lengths():
    """Where episodes terminate, no two iterations need have the same T; what is known of the
    targets must stay.
    """
    agent = make(Ragged(), trials=2)
    world = small_world(train_tasks=5)
    lengths = {len(trial_of(agent, Ragged(), rows=rows)[0].valid) for rows in (2, 5)}
    assert len(lengths) == 2
    train(agent, world, range(5))
    assert agent.ppo.values.count[0] == 5 * 2


@pytest.mark.parametrize("layer", [{}, {"options": 2}], ids=["flat", "options"])
def test_without_memory_a_state_is_worth_the_same_at_every_step(layer: dict[str, Any]):
    """Nothing tells such a policy how much of the trial is to come: its values have one scale, that
    of the return to come within an episode.
    """
    agent = make(Ragged(), memory="none", **layer)
    agent.ppo.values = Normalizer.initial(1, CPU).update(
        torch.tensor([[1.0], [3.0]]), torch.ones(2, 1) > 0
    )
    trial, _ = trial_of(agent, Ragged())
    trial = replace(trial, terminated=trial.done, truncated=torch.zeros_like(trial.done))
    levels, valid = agent.ppo._prepare_batch(trial, gae_lambda=1.0).levels, trial.valid
    ahead = discounted_returns(trial.reward * valid, trial.done, agent.config.gamma)
    standing = Normalizer.initial(1, CPU).update(torch.tensor([[1.0], [3.0]]), torch.ones(2, 1) > 0)
    standing = standing.update(
        ahead[valid].repeat(len(levels)).unsqueeze(-1), torch.ones(1) > 0, 10.0
    )
    for level in levels.values():
        expected = standing.normalize(ahead.unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(level.value_target[valid], expected[valid], rtol=0, atol=1e-4)
    torch.testing.assert_close(agent.ppo.values.mean, standing.mean)
    torch.testing.assert_close(agent.ppo.values.std, standing.std)


# -------------------------------------------------------------------------------------------------
# State


NORMALIZED = {"normalize_obs": True, "normalize_reward": True}


PRIVILEGED = {"critic": "privileged", "critic_sizes": (8,)}


@pytest.mark.parametrize(
    "options",
    [*KINDS.values(), {**KINDS["hypernetwork"], "options": 2}, NORMALIZED, PRIVILEGED],
    ids=[*KINDS, "options over a hypernetwork", "normalized", "privileged critic"],
)
def test_three_iterations_saved_and_three_more_equal_six(options: dict[str, Any]):
    """Bit for bit, through a file, in an agent that was something else before."""
    straight, interrupted, resumed = (make(Ragged(), seed, **options) for seed in (0, 0, 1))
    logged = train(straight, small_world(), range(6))
    assert train(interrupted, small_world(), range(3)) == logged[:3]
    torch.save(interrupted.state_dict(), file := io.BytesIO())
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert same(resumed.state_dict(), interrupted.state_dict())
    assert train(resumed, small_world(), range(3, 6)) == logged[3:]
    assert same(resumed.state_dict(), straight.state_dict())


def test_two_agents_of_one_state_go_their_own_ways():
    """Nothing is shared with the agent that the state was taken from."""
    first, second = make(Ragged()), make(Ragged(), seed=1)
    train(first, small_world(), range(2))
    second.load_state_dict(first.state_dict())
    state = copy.deepcopy(second.state_dict())
    train(first, small_world(), range(2, 4))
    assert same(second.state_dict(), state)
    train(second, small_world(), range(2, 4))
    assert same(second.state_dict(), first.state_dict())


def test_a_warm_start_takes_the_parameters_and_a_fresh_optimizer():
    old, new = make(Ragged(), **NORMALIZED), make(Ragged(), seed=1, **NORMALIZED)
    train(old, small_world(), range(2))
    new.warm_start(old.state_dict())
    assert same(new.params, old.params)
    assert same(new.state_dict()["moments"], old.state_dict()["moments"])
    assert old.state_dict()["optimiser"]["state"]
    assert not new.state_dict()["optimiser"]["state"]
    train(new, small_world(), range(1))
    assert not same(new.params, old.params)


def test_moments_of_observations_and_rewards_are_learned_and_saved():
    agent = make(Ragged(), **NORMALIZED)
    world = small_world()
    train(agent, world, range(2))
    moments = agent.state_dict()["moments"]
    assert moments["obs"]["count"].eq(world.env_steps).all()
    assert moments["reward"]["count"].eq(world.env_steps).all()
    trial, _ = trial_of(agent, Ragged())
    assert float(moments["obs"]["mean"][0]) == pytest.approx(
        float(trial.inputs.obs[..., 0][trial.valid].mean()), abs=1e-4
    )


def test_what_the_policy_sees_is_put_on_a_common_scale():
    """Observations lose mean and spread, the reward in the cue its spread only, so that its sign
    stays.
    """
    agent = make(Ragged(), **NORMALIZED)
    train(agent, small_world(), range(2))
    trial, _ = trial_of(agent, Ragged())
    seen, scaled = trial.inputs, agent.ppo.normalize(trial.inputs)
    torch.testing.assert_close(scaled.obs, agent.ppo.inputs.obs.normalize(seen.obs))
    torch.testing.assert_close(scaled.cue[..., -2], seen.cue[..., -2] / agent.ppo.inputs.reward.std)
    assert float(agent.ppo.inputs.reward.std) > 2
    assert same(scaled.cue[..., [0, 1, 3]], seen.cue[..., [0, 1, 3]])


def test_the_same_seed_gives_the_same_agent():
    assert train(make(Ragged()), small_world(), range(2)) == train(
        make(Ragged()), small_world(), range(2)
    )


@pytest.mark.parametrize("task_input", ["row", "goal", "onehot"])
def test_an_agent_that_is_shown_the_task_trains(task_input: str):
    """A one-hot is as wide as the fixed training set, which the spec that the agent is built for
    then says.
    """
    family = Ragged()
    family.spec = replace(family.spec, task_width=4 if task_input == "onehot" else 1, goal_width=1)
    agent = make(family, task_input=task_input)
    assert train(agent, small_world(family, train_tasks=4), range(1))[0]["grad_norm"] > 0


# -------------------------------------------------------------------------------------------------
# Episodes recorded elsewhere


@BOTH
@pytest.mark.parametrize(
    "options", [{}, {"pair_input": True}, NORMALIZED], ids=["plain", "pairs", "normalized"]
)
def test_replaying_a_trial_leaves_what_living_through_it_did(
    memory: str, discrete: bool, options: dict[str, Any]
):
    """Bit for bit, from the arrays alone: rows of other lengths wait, and nothing that the actor
    knew is looked at.
    """
    family = Ragged(discrete)
    if memory == "slots" and "pair_input" in options:
        options = {}
    agent = make(family, **KINDS[memory], **options)
    train(agent, small_world(family), range(1))
    trial, after = trial_of(agent, family)
    assert not trial.valid.all()
    nothing = torch.full_like(trial.log_prob, torch.nan)
    bare = replace(trial, inputs=Inputs(trial.inputs.obs), log_prob=nothing, extras={})
    assert same(agent.replay(begin(agent), bare), after)
    assert not same(after, begin(agent))
    first, middle = trial_of(agent, family, episodes=1)
    assert same(agent.replay(begin(agent), first), middle)
    rest, end = trial_of(agent, family, middle, episodes=2, seed=1)
    assert same(agent.replay(middle, rest), end)


def test_an_agent_that_is_shown_the_task_replays_with_it():
    family = Ragged()
    agent = make(family, task_input="row")
    belief = agent.begin(
        TaskInfo(ROWS, EPISODES, CPU, family.tasks("train", ROWS, Rng(0)).params), lanes=1
    )
    trial, after = trial_of(agent, family, belief)
    assert same(agent.replay(belief, replace(trial, inputs=Inputs(trial.inputs.obs))), after)


def test_lanes_that_were_recorded_side_by_side_are_remembered_one_after_another():
    """A memory belongs to one stream: the cue of a lane's start is how the lane before it ended."""
    family, lanes = Ragged(), 3
    agent = make(family)
    tasks = family.tasks("train", ROWS, Rng(0))
    rollout, beside = collect(
        agent,
        family.make(lanes),
        family.spec,
        agent.begin(TaskInfo(ROWS, 2, CPU), lanes),
        tasks,
        2,
        Rng(0),
    )
    assert same(agent.replay(agent.begin(TaskInfo(ROWS, 2, CPU), lanes), rollout), beside)
    expected = begin(agent)
    for lane in range(lanes):
        expected = agent.replay(
            expected, rollout._map(lambda x, lane=lane: x[:, :, lane : lane + 1])
        )
    assert same(agent.replay(begin(agent), rollout), expected)
    assert torch.equal(expected.cue[:, 0], beside.cue[:, -1])


# -------------------------------------------------------------------------------------------------
# What only training knows


def privileged_values(agent: RL2, trial: Rollout, task: Tensor) -> Tensor:
    return agent.ppo._decide(trial.inputs, task.unsqueeze(0)).levels["action"].value


@BOTH
def test_a_privileged_critic_teaches_the_memory_nothing(memory: str, discrete: bool):
    """Its values follow the task row; their gradient ends at what the memory has read."""
    family = Ragged(discrete)
    agent = make(family, **KINDS[memory], **PRIVILEGED)
    trial, _ = trial_of(agent, family)
    task = torch.randn(ROWS, 1)
    value = privileged_values(agent, trial, task)
    assert value.shape == trial.reward.shape
    moved = privileged_values(agent, trial, task + 1)
    assert not torch.isclose(moved.detach(), value.detach(), rtol=0, atol=1e-6).all(0).any()
    value.square().sum().backward()
    for name, parameter in agent.params.items():
        learns = parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
        assert learns == name.startswith("critic."), name


def test_a_privileged_critic_learns_what_the_row_says():
    """The return of a bandit's one pull at random is the mean of its arms: values find it."""
    family = make_family("bernoulli-bandit", arms=2)
    agent = make_agent(
        "rl2",
        family.spec,
        critic="privileged",
        critic_sizes=(16,),
        entropy_coef=10.0,  # keeps the policy uniform
        trials=500,
        memory_width=4,
        learning_rate=1e-2,
    )
    world = LocalWorld(family, 1, None, CPU)
    train(agent, world, range(15))
    tasks = family.tasks("validation", 200, Rng(0))
    trial, _ = collect(agent, family.make(1), family.spec, begin(agent, 200), tasks, 1, Rng(0))
    rows = agent.ppo.tasks.normalize(tasks.params)
    value = privileged_values(agent, trial, rows).detach().squeeze()
    value = agent.ppo.values.denormalize(value.unsqueeze(-1)).squeeze(-1)
    error = value - tasks.params.mean(-1)
    assert float(error.square().mean().sqrt()) < 0.05  # the means deviate by 0.2


def test_pseudo_regret_is_what_expected_rewards_are_short_of_the_optimum(monkeypatch: Any):
    """PPO is given it in the place of rewards; the return that is logged, and the scale of what the
    memory hears, are those of rewards.
    """
    family = make_family("tabular-mdp")
    agent = make(family, objective="pseudo-regret", normalize_reward=True)
    plain = make(family, normalize_reward=True)
    world, given = LocalWorld(family, EPISODES, None, CPU), []
    plain.iterate(world, Rng(0))
    update = agent.ppo.update

    def spy(
        trials: Rollout, progress: float, shuffle: Any, task: Any, reward: Tensor, shards: None
    ) -> dict[str, float]:
        given.append(reward)
        return update(trials, progress, shuffle, task, reward, shards)

    monkeypatch.setattr(agent.ppo, "update", spy)
    logged = agent.iterate(world, Rng(0))
    tasks = world.tasks(ROWS, Rng(0))
    trial, _ = world.collect(
        make(family, objective="pseudo-regret", normalize_reward=True),
        begin(agent),
        tasks,
        EPISODES,
        Rng(0),
    )
    expected = family.expected_reward(tasks, trial).sum((0, 2))
    regret = EPISODES * family.optimum(tasks) - expected
    torch.testing.assert_close(-given[0].sum((0, 2)), regret, rtol=0, atol=1e-3)
    assert logged["return"] == pytest.approx(float(trial.reward.sum(0).mean()), abs=1e-4)
    assert same(agent.ppo.inputs.state_dict(), plain.ppo.inputs.state_dict())


def test_a_family_without_optimum_has_no_pseudo_regret():
    agent = make(Ragged(), objective="pseudo-regret")
    with pytest.raises(FamilyError, match="objective pseudo-regret: ragged needs methods optimum"):
        agent.iterate(small_world(), Rng(0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory": "slots", "task_input": "row"}, "leave task_input"),
        ({"memory": "slots", "encoder_sizes": [4]}, "leave encoder_sizes"),
        ({"memory": "slots", "options": 2}, "a feature for each action"),
        ({"memory": "none", "critic": "privileged"}, "reads what a memory holds"),
        ({"critic": "privileged", "options": 2}, "set options to 0"),
        ({"memory": "transformer", "memory_width": 60, "attention_heads": 8}, "no multiple of"),
        ({"memory": "lookup"}, "memory"),
        ({"readout": "hypernetwork"}, "readout: the memory makes .* set hidden_sizes, such as"),
        ({**KINDS["hypernetwork"], "memory": "none"}, "readout: memory none makes no weights"),
        ({**KINDS["hypernetwork"], "memory": "slots"}, "readout: memory slots makes no weights"),
    ],
)
def test_what_does_not_go_together_is_one_clear_line(options: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        make_agent("rl2", Ragged().spec, **options)


def test_slots_are_of_discrete_actions():
    with pytest.raises(ConfigError, match=r"ragged are no single choice; set agent\.memory"):
        make_agent("rl2", Ragged(discrete=False).spec, memory="slots")


def test_a_trial_longer_than_the_window_is_told_once(capsys: Any):
    options = {**KINDS["transformer"], "context": 11}  # of up to 12 steps
    agent = make(Ragged(), **options)
    begin(agent)
    begin(agent)
    said = capsys.readouterr().err
    assert said.count("trials of up to 12 steps are seen through a window of 11") == 1
    begin(make(Ragged(), **options | {"context": 12}))
    assert not capsys.readouterr().err


class Discreet:
    """A world that reveals nothing."""

    def __init__(self, world: LocalWorld):
        for name in ("episodes", "progress", "tasks", "task_info", "collect"):
            setattr(self, name, getattr(world, name))


@pytest.mark.parametrize("options", [PRIVILEGED, {"objective": "pseudo-regret"}])
def test_a_world_that_reveals_nothing_is_told_in_one_line(options: dict[str, Any]):
    with pytest.raises(ConfigError, match="world: Discreet has no task_rows and pseudo_regret"):
        make(Ragged(), **options).iterate(Discreet(small_world()), Rng(0))
