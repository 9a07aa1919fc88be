"""Algorithms of Stable-Baselines3 as an agent: beside its own predictions, files and evaluation."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
import torch
from families.reach import Reach
from helpers import CPU, same
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from test_cli import metarl, mistake

from metarl.adapters.sb3 import SpacesVecEnv, to_vec_env
from metarl.agents.sb3.agent import SB3
from metarl.checker.agent_probe import SmallWorld
from metarl.collect.collector import task_info
from metarl.collect.world import LocalWorld
from metarl.config.schema import parse
from metarl.core.errors import ConfigError, MetaRLError
from metarl.core.protocol import EvalProtocol
from metarl.core.rng import Rng
from metarl.core.types import Belief, Tasks, replace
from metarl.evaluation.meta_test import evaluate
from metarl.experiments.building import build, make_agent, make_family, train_set
from metarl.experiments.loop import learn
from metarl.experiments.runs import train

SMALL = {"policy_kwargs": {"net_arch": [8]}}
ON = {**SMALL, "n_steps": 12, "batch_size": 24, "n_epochs": 2}
OFF = {**SMALL, "buffer_size": 500, "learning_starts": 30, "batch_size": 16}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "ppo": {"arguments": ON},
    "sac": {"arguments": OFF, "iteration_steps": 60},
    "td3": {"arguments": OFF, "iteration_steps": 60, "action_noise": 0.1},
    "recurrent-ppo": {"arguments": ON, "lanes": 2},
    "tqc": {"arguments": OFF, "iteration_steps": 60},
    "crossq": {"arguments": OFF, "iteration_steps": 60},
}
EVERY = pytest.mark.parametrize("algorithm", ALGORITHMS)
POINT = make_family("point", horizon=6, goal_range=0.3)
CLASSES = {
    "ppo": PPO,
    "sac": SAC,
    "td3": stable_baselines3.TD3,
    "recurrent-ppo": sb3_contrib.RecurrentPPO,
    "tqc": sb3_contrib.TQC,
    "crossq": sb3_contrib.CrossQ,
}


def make(algorithm: str, family: Any = POINT, seed: int = 0, **more: Any) -> SB3:
    options = {"algorithm": algorithm, "tasks": 2} | ALGORITHMS[algorithm] | more
    agent = make_agent("sb3", family.spec, seed, **options)
    assert isinstance(agent, SB3)
    return agent


def world_of(family: Any = POINT, fixed: Tasks | None = None, episodes: int = 2) -> LocalWorld:
    return LocalWorld(family, episodes, fixed, CPU)


def trained(algorithm: str, iterations: int = 1, family: Any = POINT, **more: Any) -> SB3:
    agent, world = make(algorithm, family, **more), world_of(family)
    for number in range(iterations):
        world.progress = number / 10
        agent.iterate(world, Rng(1).child(number))
    return agent


def begin(agent: SB3, tasks: Tasks, lanes: int = 1) -> Belief:
    return agent.begin(task_info(agent, agent.spec, tasks, 1), lanes)


# -------------------------------------------------------------------------------------------------
# Acting


@EVERY
def test_the_most_likely_action_is_that_of_predict(algorithm: str):
    """Bit for bit; a recurrent policy also sees the cue, and keeps its state over three steps."""
    agent = trained(algorithm, 2, task_input="row")
    tasks = POINT.tasks("test", 5, Rng(3))
    belief, generator = begin(agent, tasks), Rng(0).generator()
    noise = tasks.streams(Rng(4), 1)
    state, start = None, np.ones(5, bool)
    for time in range(3):
        obs = torch.randn(5, 1, POINT.spec.obs_width, generator=generator)
        belief = replace(belief, cue=torch.randn(5, 1, POINT.spec.cue_width, generator=generator))
        seen = [obs[:, 0], tasks.params, belief.cue[:, 0]][: 2 + (algorithm == "recurrent-ppo")]
        observed = torch.cat(seen, 1).numpy()
        action, state = agent.model.predict(observed, state, start, deterministic=True)
        acted, belief = agent.act(belief, obs, noise, time, "greedy")
        np.testing.assert_array_equal(acted.action[:, 0], action)
        assert len(np.unique(action)) > 1
        start = np.zeros(5, bool)
    if algorithm == "recurrent-ppo":
        for ours, theirs in zip(belief.lane, state, strict=True):
            np.testing.assert_array_equal(ours[:, 0].transpose(0, 1), theirs)


def test_discrete_actions_and_goals_are_predicted_too():
    family = make_family("tabular-mdp", states=4, actions=3, horizon=4)
    agent = trained("ppo", family=family)
    tasks = family.tasks("test", 6, Rng(0))
    obs = torch.eye(4)[torch.arange(6) % 4].unsqueeze(1)
    acted, _ = agent.act(begin(agent, tasks), obs, tasks.streams(Rng(0), 1), 0, "greedy")
    action, _ = agent.model.predict(obs[:, 0].numpy(), deterministic=True)
    assert acted.action[:, 0].tolist() == action.tolist()

    agent = make("sac", Reach(), task_input="goal", hindsight=True)
    tasks = Reach().tasks("test", 6, Rng(0))
    obs = torch.randn(6, 1, 3, generator=Rng(0).generator())
    acted, _ = agent.act(begin(agent, tasks), obs, tasks.streams(Rng(0), 1), 0, "greedy")
    goals = {
        "observation": obs[:, 0].numpy(),
        "achieved_goal": Reach().spec.achieved(obs[:, 0]).numpy(),
        "desired_goal": tasks.params[:, :2].numpy(),
    }
    action, _ = agent.model.predict(goals, deterministic=True)
    np.testing.assert_array_equal(acted.action[:, 0], action)


def drawn(agent: SB3, obs: torch.Tensor, lanes: int = 40_000) -> Any:
    tasks = POINT.tasks("test", 1, Rng(0))
    noise = tasks.streams(Rng(7), lanes)
    belief = begin(agent, tasks, lanes)
    acted, _ = agent.act(belief, obs.expand(1, lanes, -1), noise, 3, "sample")
    return acted


def test_gaussian_actions_are_drawn_as_its_distribution_says():
    agent = make("ppo")
    obs = torch.tensor([0.3, -2.0])
    with torch.no_grad():
        agent.model.policy.log_std.copy_(torch.tensor([-1.5, 0.5]))
        theirs = agent.model.policy.get_distribution(obs.unsqueeze(0)).distribution
    acted = drawn(agent, obs)
    assert acted.action.abs().max() == 1
    clipped = acted.action[0].clamp(-1, 1)
    expected = torch.distributions.Normal(theirs.mean[0], theirs.stddev[0])
    for level in (-0.9, -0.3, 0.2, 0.8):
        share = (clipped <= level).float().mean(0)
        assert torch.allclose(share, expected.cdf(torch.tensor(level)), atol=0.01)
    inside = (acted.action[0].abs() < 1).all(-1)
    log_prob = expected.log_prob(acted.action[0][inside]).sum(-1)
    assert torch.allclose(acted.log_prob[0][inside], log_prob, atol=1e-4)


@pytest.mark.parametrize("algorithm", ["sac", "tqc", "crossq"])
def test_squashed_actions_are_drawn_as_its_distribution_says(algorithm: str):
    agent = trained(algorithm, 2)
    obs = torch.tensor([0.3, -0.4])
    with torch.no_grad():
        mean, log_std, _ = agent.model.policy.actor.get_action_dist_params(obs.unsqueeze(0))
    acted = drawn(agent, obs)
    expected = torch.distributions.Normal(mean[0], log_std[0].exp())
    for level in (-0.8, -0.3, 0.2, 0.7):
        share = (acted.action[0] <= level).float().mean(0)
        assert torch.allclose(share, expected.cdf(torch.tensor(level).atanh()), atol=0.01)
    theirs = agent.model.policy.actor.action_dist.proba_distribution(mean, log_std)
    inside = (acted.action[0].abs() < 0.9).all(-1)  # theirs is inexact close to ±1
    log_prob = theirs.log_prob(acted.action[0][inside])
    assert torch.allclose(acted.log_prob[0][inside], log_prob, atol=1e-3)


def test_choices_are_drawn_as_its_distribution_says():
    family = make_family("tabular-mdp", states=4, actions=3, horizon=4)
    agent = trained("ppo", 3, family=family)
    agent.params["action_net.bias"].data += torch.tensor([1.0, 0.0, -0.5])
    tasks = family.tasks("test", 1, Rng(0))
    obs = torch.eye(4)[[1]].expand(1, 40_000, -1)
    noise = tasks.streams(Rng(0), 40_000)
    acted, _ = agent.act(begin(agent, tasks, 40_000), obs, noise, 0, "sample")
    theirs = agent.model.policy.get_distribution(obs[0, :1]).distribution
    shares = torch.bincount(acted.action[0], minlength=3) / 40_000
    assert torch.allclose(shares, theirs.probs[0], atol=0.01)
    assert torch.allclose(acted.log_prob[0], theirs.logits[0][acted.action[0]], atol=1e-6)


def test_td3_draws_nothing():
    agent = trained("td3")
    acted = drawn(agent, torch.tensor([0.3, -0.4]), 3)
    assert (acted.action == acted.action[:, :1]).all()
    assert (acted.log_prob == 0).all()


@pytest.mark.parametrize("algorithm", ["ppo", "sac", "recurrent-ppo"])
def test_our_evaluation_scores_as_theirs_does(algorithm: str):
    """Where nothing is random, the same return of every task; of RecurrentPPO of every trial."""
    recurrent = algorithm == "recurrent-ppo"
    agent, tasks = trained(algorithm, 2, task_input="row"), POINT.tasks("test", 12, Rng(5))
    scores = evaluate(agent, POINT, EvalProtocol(2 if recurrent else 1, tasks, mode="greedy"))
    theirs = []
    for row in range(12):
        if recurrent:
            envs = to_vec_env(POINT, tasks[row : row + 1], task_input="row", trial_episodes=2)
        else:
            envs = to_vec_env(POINT, tasks[row : row + 1], task_input="row")
        rewards, _ = evaluate_policy(agent.model, envs, 1, return_episode_rewards=True, warn=False)
        theirs += rewards
    np.testing.assert_allclose(scores.totals[0], theirs, rtol=1e-5)
    assert np.std(theirs) > 0


# -------------------------------------------------------------------------------------------------
# Training


@EVERY
def test_an_iteration_counts_its_steps_and_leaves_global_generators(algorithm: str):
    agent, world = make(algorithm), world_of()
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(()), np.random.rand()
    torch.manual_seed(3)
    np.random.seed(3)
    metrics = agent.iterate(world, Rng(0))
    assert (torch.rand(()), np.random.rand()) == expected
    count = {"ppo": 24, "recurrent-ppo": 24}.get(algorithm, 60)
    assert world.env_steps == agent.model.num_timesteps == count
    assert metrics["return"] < 0
    assert metrics["learning_rate"] == pytest.approx(agent.model.learning_rate)
    assert all(isinstance(value, float) for value in metrics.values())


def test_schedules_see_the_progress_of_the_run():
    for algorithm in ("ppo", "sac"):
        arguments = ALGORITHMS[algorithm]["arguments"] | {"learning_rate": [1e-2, 0.0, 0.5]}
        agent, world = make(algorithm, arguments=arguments), world_of()
        for progress, rate in ((0.0, 1e-2), (0.25, 5e-3), (0.75, 0.0)):
            world.progress = progress
            assert agent.iterate(world, Rng(0))["learning_rate"] == pytest.approx(rate)


def test_the_return_is_that_of_whole_trials():
    """RecurrentPPO's two lanes have two episodes of one pull each."""
    family = make_family("bernoulli-bandit", arms=2)
    agent = make("recurrent-ppo", family, tasks=30, lanes=10)
    assert 0 < agent.iterate(world_of(family), Rng(0))["return"] < 2
    assert agent.model._last_lstm_states.pi[0].shape[1] == 10


def test_a_onehot_tells_which_training_task_it_is():
    tasks = replace(POINT.tasks("train", 4, Rng(0)), index=torch.arange(4))
    family = make_family("point", horizon=6)
    spec = replace(family.spec, task_width=4)
    agent = make_agent(
        "sb3", spec, task_input="onehot", tasks=3, lanes=2, arguments=ON | {"batch_size": 72}
    )
    seen = []
    agent.model._update_info_buffer = lambda *given: seen.append(agent.model._last_obs.copy())
    agent.iterate(world_of(family, tasks), Rng(0))
    del agent.model._update_info_buffer
    onehots = seen[0][:, -4:]
    assert (onehots.sum(1) == 1).all()
    assert (onehots[::2] == onehots[1::2]).all(), "two lanes of each"
    assert len(np.unique(onehots, axis=0)) == 3
    many = make_agent("sb3", spec, task_input="onehot", tasks=5, arguments=ON | {"batch_size": 60})
    with pytest.raises(ConfigError, match=r"agent.tasks: 5 of 4 training tasks"):
        many.iterate(world_of(family, tasks), Rng(0))


def test_hindsight_relabels_whole_episodes_and_episodes_that_an_iteration_cut():
    """Of an iteration of two and a half episodes, also the half: it ends as by a time limit."""
    family = Reach()
    horizon = family.spec.horizon
    arguments = OFF | {"learning_starts": 3 * horizon}
    steps = 2 * horizon + horizon // 2
    more = {"task_input": "goal", "hindsight": True, "iteration_steps": 2 * steps}
    agent = make("sac", family, **more | {"arguments": arguments})
    world = world_of(family)
    agent.iterate(world, Rng(0))
    agent.iterate(world, Rng(1))
    buffer = agent.model.replay_buffer
    ends = np.cumsum([horizon, horizon, horizon // 2, horizon, horizon])
    assert buffer.pos == 2 * steps
    assert np.flatnonzero(buffer.dones[: buffer.pos, 0]).tolist() == (ends - 1).tolist()
    assert (buffer.timeouts[ends - 1] == 1).all()
    lengths = buffer.ep_length[: ends[-1], 0]
    assert lengths[ends - 1].tolist() == np.diff(ends, prepend=0).tolist()
    assert (lengths > 0).all()
    assert (buffer.ep_length[ends[-1] :] == 0).all(), "still under way"


# -------------------------------------------------------------------------------------------------
# Files


@EVERY
def test_its_file_is_one_of_stable_baselines(algorithm: str, tmp_path: Path):
    agent = trained(algorithm, 2, task_input="row")
    (tmp_path / "model.zip").write_bytes(bytes(agent.state_dict()["model_zip"].tolist()))
    model = CLASSES[algorithm].load(tmp_path / "model.zip", device="cpu")
    obs = np.random.default_rng(0).normal(size=(4, *agent.model.observation_space.shape))
    expected, _ = agent.model.predict(obs, deterministic=True)
    np.testing.assert_array_equal(model.predict(obs, deterministic=True)[0], expected)
    assert model.num_timesteps == agent.model.num_timesteps
    assert same(model.get_parameters(), agent.model.get_parameters())
    assert model.learning_rate == agent.model.learning_rate


@EVERY
def test_a_loaded_state_is_the_same_state(algorithm: str):
    agent = trained(algorithm, 2)
    state = agent.state_dict()
    other = make(algorithm, seed=5)
    assert not same(other.acting_state(), agent.acting_state())
    other.load_state_dict(state)
    assert same(other.state_dict(), state)
    assert other.model._n_updates == agent.model._n_updates > 0


def small_config(algorithm: str, iterations: int) -> Any:
    agent = {"name": "sb3", "algorithm": algorithm, "tasks": 2, **ALGORITHMS[algorithm]}
    family = {"name": "point", "horizon": 6}
    tasks = {"validation_tasks": 4, "test_tasks": 4, "validate_every": 2}
    return parse(
        {"agent": agent, "family": family, "episodes": 2, "iterations": iterations} | tasks
    )


def test_a_run_of_ppo_resumes_bit_by_bit(tmp_path: Path, capsys: Any):
    whole = train(small_config("ppo", 4), tmp_path / "whole", quiet=True)
    train(small_config("ppo", 2), tmp_path / "parts", quiet=True)
    parts = train(small_config("ppo", 4), tmp_path / "parts", resume=True, quiet=True)
    assert parts["last"]["scores"] == whole["last"]["scores"]
    assert "bit-exact" not in capsys.readouterr().err


def test_a_run_of_sac_resumes_with_an_empty_replay_buffer_and_says_so_once(
    tmp_path: Path, capsys: Any
):
    train(small_config("sac", 2), tmp_path / "run", quiet=True)
    assert "bit-exact" not in capsys.readouterr().err
    result = train(small_config("sac", 5), tmp_path / "run", resume=True, quiet=True)
    assert capsys.readouterr().err.count("not bit-exact") == 1
    assert result["last"]["env_steps"] == 5 * 60 + 30


def test_an_exported_agent_acts_alike(tmp_path: Path):
    train(small_config("sac", 2), tmp_path / "run", quiet=True)
    assert metarl("export", "run", "agent.zip", cwd=tmp_path)[0] == 0
    code, out, _ = metarl("evaluate", "agent.zip", "--tasks", 4, "--json", cwd=tmp_path)
    assert code == 0
    _, expected, _ = metarl("evaluate", "run", "--tasks", 4, "--json", cwd=tmp_path)
    scores, others = (json.loads(text)["scores"] for text in (out, expected))
    name = next(iter(others))
    assert scores[name]["returns"] == others[name]["returns"]


class Payload:
    """What executes code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def poisoned(data: bytes, mark: Path) -> bytes:
    """A file of Stable-Baselines3 that executes code where its pickles are read."""
    import base64

    import cloudpickle

    with zipfile.ZipFile(io.BytesIO(data)) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    content = json.loads(parts["data"])
    pickled = base64.b64encode(cloudpickle.dumps(Payload(mark))).decode()
    content["more"] = {":type:": "", ":serialized:": pickled}
    parts["data"] = json.dumps(content).encode()
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return written.getvalue()


def test_a_checkpoint_executes_nothing(tmp_path: Path):
    agent = trained("ppo")
    state = agent.state_dict()
    mark = tmp_path / "executed"
    data = poisoned(bytes(state["model_zip"].tolist()), mark)
    state["model_zip"] = torch.tensor(list(data), dtype=torch.uint8)
    other = make("ppo", seed=3)
    other.load_state_dict(state)
    assert same(other.acting_state(), agent.acting_state())
    assert not mark.exists()
    PPO.load(io.BytesIO(data), device="cpu")
    assert mark.exists()


# -------------------------------------------------------------------------------------------------
# Models of a user's own


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("own") / "run"
    train(small_config("ppo", 1), folder, quiet=True)
    return folder


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "a2c", "her"])
def test_a_model_of_ones_own_is_scored_beside_a_run(algorithm: str, run: Path):
    family = make_family("point", horizon=6)
    file = run.parent / f"{algorithm}.zip"
    tasks, options = family.tasks("train", 2, Rng(0)), {"device": "cpu", "seed": 0}
    if algorithm == "recurrent-ppo":
        envs: Any = to_vec_env(family, tasks, trial_episodes=2)
        model: Any = sb3_contrib.RecurrentPPO("MlpLstmPolicy", envs, **options)
    elif algorithm == "her":
        envs = to_vec_env(family, tasks, task_input="goal")
        her = stable_baselines3.HerReplayBuffer
        model = SAC("MultiInputPolicy", envs, replay_buffer_class=her, buffer_size=99, **options)
    else:
        envs = to_vec_env(family, tasks, task_input="row")
        model = {**CLASSES, "a2c": A2C}[algorithm]("MlpPolicy", envs, **options)
    model.save(file)
    words = ("evaluate", "run", "--against", file.name, "--tasks", 6, "--mode", "greedy")
    (line,) = mistake(*words, cwd=run.parent)
    assert "files are pickles: opening it executes" in line
    assert line.endswith("add --trust")
    code, out, err = metarl(*words, "--trust", "--json", "--no-baselines", cwd=run.parent)
    assert code == 0, err
    shown = "" if algorithm == "recurrent-ppo" else " (shown the task)"
    scores = json.loads(out)["scores"][file.name + shown]
    theirs = []
    row = EvalProtocol(2, 6).rows(family)
    for place in range(6):
        task = row[place : place + 1]
        if algorithm == "recurrent-ppo":
            envs = to_vec_env(family, task, trial_episodes=2)
        else:
            envs = to_vec_env(family, task, task_input="goal" if algorithm == "her" else "row")
        rewards, _ = evaluate_policy(model, envs, 1, return_episode_rewards=True, warn=False)
        theirs += [rewards[0] * (1 if algorithm == "recurrent-ppo" else 2)]
    np.testing.assert_allclose(np.array(scores["returns"])[0].sum(0), theirs, rtol=1e-4)


def test_a_model_of_ones_own_executes_nothing_before_it_is_trusted(run: Path):
    family = make_family("point", horizon=6)
    written = io.BytesIO()
    PPO("MlpPolicy", to_vec_env(family, family.tasks("train", 1, Rng(0))), device="cpu").save(
        written
    )
    mark = run.parent / "executed"
    (run.parent / "bad.zip").write_bytes(poisoned(written.getvalue(), mark))
    mistake("evaluate", "run", "--against", "bad.zip", cwd=run.parent)
    assert not mark.exists()
    metarl("evaluate", "run", "--against", "bad.zip", "--tasks", 2, "--trust", cwd=run.parent)
    assert mark.exists()


def test_a_model_that_does_not_fit_is_told_in_a_line(run: Path):
    words = ("evaluate", "run", "--trust", "--against")
    other = make_family("tabular-mdp", states=4, horizon=3)
    model = PPO("MlpPolicy", to_vec_env(other, other.tasks("train", 1, Rng(0))), device="cpu")
    model.save(run.parent / "other.zip")
    (line,) = mistake(*words, "other.zip", cwd=run.parent)
    assert "observations of shape (4,)" in line or "has actions" in line
    from stable_baselines3 import DQN

    DQN("MlpPolicy", SpacesVecEnv(1, model.observation_space, model.action_space)).save(
        run.parent / "dqn.zip"
    )
    (line,) = mistake(*words, "dqn.zip", cwd=run.parent)
    assert "has a policy of stable_baselines3.dqn.policies" in line


# -------------------------------------------------------------------------------------------------
# Mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"arguments": {"learning_rat": 1}}, "unexpected keyword argument 'learning_rat'"),
        ({"arguments": {"policy_kwargs": {"nett": 1}}}, "unexpected keyword argument 'nett'"),
        ({"arguments": {"seed": 1}}, "seed cannot be given: set seed"),
        ({"arguments": {"learning_rate": [1, "x"]}}, "give a number, \\[first, last\\]"),
        ({"arguments": {"policy_kwargs": {"activation_fn": "Relu"}}}, "a class of torch.nn"),
        ({"hindsight": True}, "set algorithm to sac, td3 or tqc, and task_input to goal"),
        ({"action_noise": 0.1}, "ppo draws actions from its policy"),
    ],
)
def test_wrong_options_are_told_in_a_line(options: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words) as caught:
        make_agent("sb3", POINT.spec, **options)
    assert "\n" not in str(caught.value)


def test_a_family_that_the_algorithm_is_not_for_is_told_in_a_line():
    spec = make_family("bernoulli-bandit").spec
    with pytest.raises(ConfigError, match=r"only supports .*Box") as caught:
        make_agent("sb3", spec, algorithm="sac")
    assert "\n" not in str(caught.value)


def test_an_activation_is_called_by_its_name():
    networks = {"net_arch": [8], "activation_fn": "ELU"}
    agent = make("ppo", arguments=ON | {"policy_kwargs": networks})
    assert any(isinstance(part, torch.nn.ELU) for part in agent.model.policy.modules())


@pytest.mark.parametrize("algorithm", ["recurrent-ppo", "tqc", "crossq"])
def test_without_sb3_contrib_its_installation_is_told(algorithm: str, monkeypatch: Any):
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(ConfigError, match=r"pip install 'metarl-torch\[contrib\]'"):
        make(algorithm)


def test_what_stable_baselines_warns_of_is_told_in_a_line(capsys: Any):
    make("ppo", arguments=ON | {"batch_size": 23})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("metarl: Stable-Baselines3: You have specified a mini-batch size of 23")


def test_iterations_that_see_no_end_of_an_episode_are_refused():
    for algorithm, more in (
        ("ppo", {"arguments": ON | {"n_steps": 5, "batch_size": 10}}),
        ("recurrent-ppo", {"arguments": ON | {"n_steps": 11, "batch_size": 22}}),
        ("sac", {"iteration_steps": 11}),
    ):
        with pytest.raises(ConfigError, match=r"they last up to .*: raise it"):
            make(algorithm, **more).iterate(world_of(), Rng(0))
    arguments = OFF | {"learning_starts": 11}
    with pytest.raises(ConfigError, match="hindsight needs whole episodes; set 12"):
        make("sac", task_input="goal", hindsight=True, arguments=arguments).iterate(
            world_of(), Rng(0)
        )


def test_a_world_without_a_family_is_refused():
    world = SmallWorld(POINT, 2, POINT.tasks("train", 4, Rng(0)), told=True, disguised=False)
    with pytest.raises(MetaRLError, match="train in a world that has a family"):
        make("ppo").iterate(world, Rng(0))


def test_a_warm_start_needs_the_same_architecture():
    state = trained("td3").acting_state()
    agent = make("td3")
    agent.warm_start(state)
    assert same(agent.model.policy.actor_target.state_dict(), state["params"])
    with pytest.raises(ConfigError, match="warm_start: "):
        make("td3", arguments=OFF | {"policy_kwargs": {"net_arch": [9]}}).warm_start(state)


# -------------------------------------------------------------------------------------------------
# Learning


@pytest.mark.learning
def test_ppo_that_is_shown_the_task_reaches_its_goals():
    """Standing still is −38 and random actions −67; who knows the goal has about −0.5."""
    config = parse(
        {
            "agent": {
                "name": "sb3",
                "task_input": "row",
                "tasks": 32,
                "arguments": {
                    "n_steps": 100,
                    "batch_size": 320,
                    "learning_rate": 1e-3,
                    "gamma": 0.95,
                    "policy_kwargs": {"log_std_init": -0.7},
                },
            },
            "family": "point",
            "episodes": 1,
            "mode": "greedy",
            "env_steps": 60_000,
        }
    )
    family, agent = build(config)
    world = LocalWorld(family, 1, train_set(config, family), CPU)
    for _ in learn(agent, world, Rng(0), env_steps=config.env_steps):
        pass
    scores = evaluate(agent, family, episodes=1, tasks=500, mode="greedy")
    assert scores.totals.mean() > -2
