"""VariBAD against its paper: two gradients that never meet, and a belief that acts."""

from __future__ import annotations

import pytest
import torch
from helpers import CPU, same

from metarl.agents.varibad.agent import VariBAD
from metarl.collect.world import LocalWorld
from metarl.config.schema import parse
from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import tree_map
from metarl.experiments.building import make_agent, make_family
from metarl.nn.distributions import Gaussian

MDP = make_family("tabular-mdp", horizon=4)
SMALL = {
    "trials": 6,
    "minibatches": 2,
    "epochs": 2,
    "hidden_sizes": (6,),
    "memory_width": 8,
    "latent_width": 3,
    "decoder_sizes": (5,),
    "next_obs_decoder": "onehot",
    "elbo_minibatches": 2,
}
MEMORIES = ["gru", "lstm", "set", "keyed", "gru+keyed", "transformer"]


def make(seed: int = 0, **options: object) -> VariBAD:
    agent = make_agent("varibad", MDP.spec, seed, **{**SMALL, **options})
    assert isinstance(agent, VariBAD)
    return agent


def world() -> LocalWorld:
    return LocalWorld(MDP, 3, None, CPU)


def learn(agent: VariBAD, iterations: range) -> list[dict[str, float]]:
    training = world()
    return [agent.iterate(training, Rng(k)) for k in iterations]


def acted_out(agent: VariBAD):
    training = world()
    tasks = training.tasks(4, Rng(9))
    belief = agent.begin(training.task_info(agent, tasks), lanes=1)
    return training.collect(agent, belief, tasks, 3, Rng(9))


def test_the_policy_does_not_train_the_belief():
    agent = make(elbo_learning_rate=0.0)
    before = tree_map(torch.clone, agent.elbo.params)
    first = tree_map(torch.clone, agent.params)
    learn(agent, range(2))
    assert same(before, agent.elbo.params)
    assert not same(first, agent.params)


def test_the_belief_does_not_train_the_policy():
    agent = make(learning_rate=0.0)
    before = tree_map(torch.clone, agent.params)
    first = tree_map(torch.clone, agent.elbo.params)
    learn(agent, range(2))
    assert same(before, agent.params)
    assert not same(first, agent.elbo.params)


def test_the_policy_sees_mean_and_log_variance_and_never_the_reward():
    agent = make()
    learn(agent, range(2))
    rollout, _ = acted_out(agent)
    assert rollout.inputs.cue is None
    assert rollout.inputs.latent.shape[-1] == 6
    belief = agent.elbo.model.unroll(
        agent.elbo.params, agent._encoder_inputs(rollout), agent.model.start(4, 1, CPU)
    )
    seen = torch.cat([belief.mean, 2 * belief.log_std], -1)
    torch.testing.assert_close(rollout.extras["belief"], seen, rtol=0, atol=1e-5)
    expected = agent.elbo.beliefs.normalize(rollout.extras["belief"])
    torch.testing.assert_close(rollout.inputs.latent, expected)


def test_credit_flows_from_an_episode_to_those_before_it():
    """As in RL²: a trial is one decision process, whose steps have values of their own."""
    agent = make()
    learn(agent, range(1))
    assert len(agent.ppo.values.mean) == 3 * 4


FORMS: list[dict[str, object]] = [
    *({"memory": memory} for memory in MEMORIES),
    {"targets": "replayed", "target_trials": 4, "normalize_obs": True},
    {"novelty_coef": [0.1, 0.0], "surprise_coef": 0.1},
]


@pytest.mark.parametrize("options", FORMS)
def test_it_resumes_bit_for_bit(options: dict[str, object], tmp_path):
    straight, interrupted, resumed = (make(seed, **options) for seed in (0, 0, 1))
    logged = learn(straight, range(4))
    assert learn(interrupted, range(2)) == logged[:2]
    torch.save(interrupted.state_dict(), tmp_path / "state.pt")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert same(resumed.state_dict(), interrupted.state_dict())
    assert learn(resumed, range(2, 4)) == logged[2:]
    assert same(resumed.state_dict(), straight.state_dict())


def test_a_copy_of_the_acting_state_acts_and_believes_alike():
    agent, other = make(0), make(1)
    learn(agent, range(2))
    other.warm_start(agent.acting_state())
    (mine, belief), (its, others) = acted_out(agent), acted_out(other)
    assert same(mine, its)
    assert same(agent.inferred(belief), other.inferred(others))


def test_its_belief_begins_as_the_prior():
    agent = make()
    training = world()
    belief = agent.begin(training.task_info(agent, training.tasks(4, Rng(0))), lanes=1)
    mean, std = agent.inferred(belief)
    assert bool((mean == 0).all())
    assert bool((std == 1).all())


def test_second_trials_are_of_the_same_tasks_with_the_actions_of_others_and_counted():
    agent, training = make(targets="replayed", target_trials=4), world()
    seen = []
    collect = training.collect

    def watched(actor, belief, tasks, episodes, rng):
        rollout, belief = collect(actor, belief, tasks, episodes, rng)
        seen.append((tasks, rollout))
        return rollout, belief

    training.collect = watched
    agent.iterate(training, Rng(0))
    (tasks, trials), (again, targets) = seen
    assert same(tasks[:4], again)
    for row in range(4):
        assert targets.action[:, row].tolist() in trials.action.movedim(1, 0).tolist()
    assert not torch.equal(targets.reward, trials.reward[:, :4])
    assert training.env_steps == 10 * 3 * 4


def test_bonuses_are_for_what_is_new_and_what_was_not_expected(monkeypatch):
    """They are in PPO's rewards, and not in what is logged."""
    plain, curious = make(), make(novelty_coef=2.0, surprise_coef=0.5)
    learn(curious, range(1))
    rollout, _ = acted_out(curious)
    bonus, _ = curious._bonus(rollout, 0.0)
    expected = 0.5 * curious.elbo.surprise(belief_of(rollout), rollout)
    first = curious.novelty.bonus(inputs_of(rollout))
    found = curious._bonus(rollout, 0.0)[0]
    torch.testing.assert_close(found, expected + 2.0 * first, rtol=1e-4, atol=1e-5)
    assert bool((bonus - expected > 0).all())
    for _ in range(60):
        curious.novelty.update(inputs_of(rollout), rollout.valid, 1e-3)
    assert float(curious.novelty.bonus(inputs_of(rollout)).mean()) < 0.3 * float(first.mean())
    unseen = inputs_of(rollout) + 3.0
    assert float(curious.novelty.bonus(unseen).mean()) > float(first.mean()) / 3
    assert not plain._bonus(rollout, 0.0)[0].any()


def test_bonuses_do_not_change_the_scale_of_what_is_seen():
    """The encoder hears the environment's rewards; the policy learns from more."""
    plain, curious = (make(normalize_reward=True, novelty_coef=c) for c in (0.0, 50.0))
    for agent in (plain, curious):
        learn(agent, range(1))
    assert same(plain.ppo.inputs.state_dict(), curious.ppo.inputs.state_dict())
    assert not same(plain.params, curious.params)


def test_the_policy_is_given_beliefs_on_one_scale():
    """Of means and log-variances, which the last iterations had; the newest count most."""
    agent = make()
    learn(agent, range(1))
    raw = acted_out(agent)[0].extras["belief"]
    scaled = agent.elbo.beliefs.normalize(raw)
    spread = scaled.flatten(0, -2).std(0)
    assert float(spread.max()) > 3 * float(raw.flatten(0, -2).std(0).max())
    for _ in range(100):
        agent.elbo.rescale(raw + 7.0, torch.ones(raw.shape[:-1], dtype=torch.bool))
    torch.testing.assert_close(
        agent.elbo.beliefs.normalize(raw + 7.0).flatten(0, -2).mean(0),
        torch.zeros(6),
        atol=0.02,
        rtol=0,
    )


def belief_of(rollout: Rollout) -> Gaussian:
    mean, log_variance = rollout.extras["belief"].chunk(2, -1)
    return Gaussian(mean, log_variance / 2)


def inputs_of(rollout: Rollout) -> torch.Tensor:
    return torch.cat([rollout.inputs.obs, rollout.inputs.latent], -1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "none"}, "memory none holds no belief"),
        ({"memory": "slots"}, "memory slots holds no belief"),
        ({"task_input": "row"}, "leave task_input"),
        ({"readout": "hypernetwork", "hidden_sizes": [4]}, "set readout"),
        ({"reward_values": [1, 0]}, "the lower one first"),
        ({"next_obs_decoder": "onehot"}, "observations of point are not one-hot"),
        ({"reward_values": [0, 1]}, "which is neither 0 nor 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options: dict[str, object], message: str):
    family = make_family("point", horizon=3)
    agent = {"name": "varibad", "trials": 2, **options}

    def try_it() -> None:
        config = parse({"agent": agent, "family": "point", "episodes": 2, "iterations": 1})
        made = make_agent("varibad", family.spec, 0, **config.agent.settings.model_dump())
        made.iterate(LocalWorld(family, 2, None, CPU), Rng(0))

    with pytest.raises(MetaRLError) as caught:
        try_it()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
