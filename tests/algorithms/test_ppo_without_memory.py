"""Advantages of a policy without memory: every episode is a decision process of its own, cut at its
end, and worth what the true successor is where a time limit ended it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import CPU, Ragged, known_values
from torch import Tensor

from metarl.agents.rl2.agent import RL2
from metarl.algorithms import ppo
from metarl.collect.collector import collect
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Inputs, TaskInfo, replace, tree_map
from metarl.experiments.building import make_agent
from metarl.nn.normalizer import Normalizer

ROWS, EPISODES, GAMMA, LAMBDA = 5, 4, 0.9, 0.8
MEAN, STD = 3.0, 2.0  # of value targets so far

LAYERS = {
    "flat": {},
    "learned": {"options": 3, "termination": "learned", "option_length": 4},
    "fixed, ends at the limit": {"options": 3, "termination": "fixed", "option_length": 2},
    "fixed, goes on": {"options": 3, "termination": "fixed", "option_length": 3},
    "random": {"options": 3, "termination": "random", "option_length": 3},
    "heads": {"options": 3, "sub_hidden_sizes": None},
}


@pytest.fixture(autouse=True)
def raw_advantages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standardizing mixes all trials; without it each number can be followed."""
    monkeypatch.setattr(ppo, "standardize", lambda x, valid, **_: x)


def make(**options: Any) -> RL2:
    """An agent that is shown the task, with large weights and statistics that are not those of the
    beginning.
    """
    settings = {"memory": "none", "task_input": "row", "hidden_sizes": (6,), "gamma": GAMMA}
    agent: Any = make_agent("rl2", Ragged().spec, normalize_obs=True, **settings | options)
    generator = torch.Generator().manual_seed(0)
    for value in agent.params.values():
        value.data += 0.7 * torch.randn(value.shape, generator=generator)
    agent.ppo.inputs.obs = Normalizer(torch.arange(4.0), 1 + torch.arange(4.0), torch.ones(4))
    agent.ppo.values = Normalizer(
        torch.full((1,), MEAN), torch.full((1,), STD**2), torch.ones(1).double()
    )
    return agent


def trials_of(agent: RL2) -> Rollout:
    """Ragged trials; `extras` also hold the policy's memory [T, N, M] after each step."""
    act = agent.act

    def recording(*given: Any) -> Any:
        acted, after = act(*given)
        state = {f"state_{i}": x for i, x in enumerate(after.lane)}
        return replace(acted, extras=acted.extras | state), after

    agent.act = recording  # type: ignore[method-assign]
    family = Ragged()
    tasks = family.tasks("train", ROWS, Rng(0))
    belief = agent.begin(TaskInfo(ROWS, EPISODES, CPU, tasks.params), lanes=1)
    trials, _ = collect(agent, family.make(1), family.spec, belief, tasks, EPISODES, Rng(1))
    del agent.act
    assert (trials.terminated & trials.valid).any()
    assert (trials.truncated & trials.valid & ~trials.ends).any()
    assert (trials.truncated & trials.ends).any()
    assert not trials.valid.all()
    return trials


def lanes_of(trials: Rollout) -> Rollout:
    """The rows [T, N, 1, …] as lanes of one task [T, 1, N, …]."""
    lanes = tree_map(lambda x: x.movedim(1, 2), replace(trials, index=trials.valid))
    return replace(lanes, index=trials.index[:1])


def advantages(agent: RL2, trials: Rollout) -> dict[str, Tensor]:
    """Of each level: [T, N, M]."""
    levels = agent.ppo._prepare_batch(trials, LAMBDA).levels
    return {name: level.advantage for name, level in levels.items()}


def acting_value(agent: RL2, inputs: Inputs, state: tuple[Tensor, ...]) -> float:
    """V of one step's inputs [1, 1, …], as the policy that acts says it."""
    going_on = torch.zeros(1, 1, dtype=torch.bool)
    noise = Rng(0).streams(torch.arange(1), 1)
    with torch.no_grad():
        acted, _ = agent.ppo.act(inputs, state, going_on, noise, 0, "sample")
    value = acted.extras.get("option_value", acted.extras["value"])
    return MEAN + STD * float(value)


def successor_value(agent: RL2, trials: Rollout, t: int, n: int, m: int) -> float:
    """V of the successor, had the policy acted on it; the mean over the steps that an option of
    random length may have left.
    """
    here = tree_map(
        lambda x: x[t, n, m].view(1, 1, *x.shape[3:]), replace(trials, index=trials.valid)
    )
    inputs = replace(here.inputs, obs=here.next_obs, option=None)
    if agent.config.options == 0:
        return acting_value(agent, inputs, ())
    option, left = here.extras["state_0"], here.extras["state_1"]
    if agent.config.termination != "random":
        return acting_value(agent, inputs, (option, left))
    age = 1
    while not trials.inputs.option.ended[t - age + 1, n, m]:
        age += 1
    longest = 2 * agent.config.option_length - 1
    possible = [torch.full_like(left, more) for more in range(longest - age + 1)]
    values = [acting_value(agent, inputs, (option, more)) for more in possible]
    return sum(values) / len(values)


def looped(agent: RL2, trials: Rollout, value: Tensor) -> Tensor:
    """GAE by equation 16, episode by episode."""
    expected = torch.zeros_like(value)
    value = MEAN + STD * value
    steps, rows, lanes = value.shape
    for n in range(rows):
        for m in range(lanes):
            following, next_value = 0.0, 0.0
            for t in reversed(range(steps)):
                if not trials.valid[t, n, m]:
                    continue
                if trials.terminated[t, n, m]:
                    following, next_value = 0.0, 0.0
                elif trials.truncated[t, n, m]:
                    following, next_value = 0.0, successor_value(agent, trials, t, n, m)
                own = float(value[t, n, m])
                error = float(trials.reward[t, n, m]) + GAMMA * next_value - own
                following = error + GAMMA * LAMBDA * following
                expected[t, n, m] = following
                next_value = own
    return expected


@pytest.mark.parametrize("arranged", ["rows", "lanes"])
@pytest.mark.parametrize("layer", LAYERS)
def test_advantages_are_those_of_a_loop_over_episodes(layer: str, arranged: str):
    """Of both processes, if there are options; the value target is the advantage plus the value."""
    agent = make(**LAYERS[layer])
    trials = trials_of(agent)
    if arranged == "lanes":
        trials = lanes_of(trials)
    processes = agent.policy.decision_processes(trials)
    expected = {
        name: looped(agent, trials, process.extras["value"]) for name, process in processes.items()
    }
    levels = agent.ppo._prepare_batch(trials, LAMBDA).levels
    assert len(levels) == (1 if layer == "flat" else 2)
    for name, level in levels.items():
        torch.testing.assert_close(level.advantage, expected[name], rtol=1e-4, atol=1e-4)
        target = expected[name] + MEAN + STD * processes[name].extras["value"]
        found = agent.ppo.values.denormalize(level.value_target)
        torch.testing.assert_close(found[trials.valid], target[trials.valid], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", LAYERS)
def test_an_episode_is_worth_what_it_is_as_a_trial_of_its_own(layer: str):
    agent = make(**LAYERS[layer])
    trials = trials_of(agent)
    alone = trials.one_episode_per_lane()
    assert alone.valid.shape[2] == EPISODES
    together = advantages(agent, trials)
    agent = make(**LAYERS[layer])
    for name, advantage in advantages(agent, alone).items():
        moved = replace(trials, reward=together[name]).one_episode_per_lane().reward
        torch.testing.assert_close(advantage[alone.valid], moved[alone.valid])


@pytest.mark.parametrize("layer", ["flat", "random"])
def test_later_episodes_and_waiting_steps_change_nothing_before_them(layer: str):
    """Bit for bit, whatever happens there."""
    agent = make(**LAYERS[layer])
    trials = trials_of(agent)
    before = trials.valid & (trials.episode() < 2)
    spoilt = replace(
        trials,
        reward=torch.where(before, trials.reward, 1e3),
        next_obs=torch.where(before.unsqueeze(-1), trials.next_obs, 5.0),
        terminated=torch.where(trials.valid, trials.terminated, False),
        truncated=torch.where(trials.valid, trials.truncated, True),
        extras={name: torch.where(before, x, -x) for name, x in trials.extras.items()},
    )
    left, right = advantages(agent, trials), advantages(make(**LAYERS[layer]), spoilt)
    for name, advantage in left.items():
        assert torch.equal(advantage[before], right[name][before])
        assert not torch.equal(advantage[trials.valid], right[name][trials.valid])
        assert right[name][~trials.valid].eq(0).all()


def test_a_termination_at_the_time_limit_is_a_termination():
    agent = make()
    trials = trials_of(agent)
    ended = replace(trials, terminated=trials.done, truncated=torch.zeros_like(trials.done))
    both = replace(trials, terminated=trials.done)
    for left, right in zip(
        advantages(agent, ended).values(), advantages(make(), both).values(), strict=True
    ):
        assert torch.equal(left, right)


@pytest.mark.parametrize("remembers", ["memory", "latent", "cue"])
def test_what_outlasts_an_episode_is_credited_across_episodes(remembers: str):
    """By a memory, or by inputs that an agent carries on, such as tallies: over the whole trial,
    without a bootstrap at its end, and however its episodes end.
    """
    agent = make(memory="gru" if remembers == "memory" else "none")
    trials = trials_of(agent)
    inputs = replace(trials.inputs, cue=None)
    agent.ppo.values = known_values(len(trials.valid))
    if remembers != "memory":
        inputs = replace(inputs, **{remembers: torch.zeros(*trials.valid.shape, 4)})
    trials = replace(trials, inputs=inputs)
    value = agent.ppo.values.columns(1).denormalize(trials.extras["value"])
    expected = torch.zeros_like(value)
    following = next_value = torch.zeros(ROWS, 1)
    for t in reversed(range(len(value))):
        valid = trials.valid[t]
        error = trials.reward[t] + GAMMA * next_value - value[t]
        following = torch.where(valid, error + GAMMA * LAMBDA * following, 0.0)
        next_value = torch.where(valid, value[t], 0.0)
        expected[t] = following
    swapped = replace(trials, terminated=trials.truncated, truncated=trials.terminated)
    standing = agent.ppo.values
    (found,) = advantages(agent, trials).values()
    agent.ppo.values = standing
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(found, advantages(agent, swapped)["action"])
