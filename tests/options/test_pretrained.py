"""Options that are ready: of one's own, and of trained runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import CPU
from torch import Tensor

from metarl.collect.collector import collect, task_info
from metarl.config.schema import parse
from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng
from metarl.core.types import Inputs, Spec, replace
from metarl.evaluation.meta_test import evaluate
from metarl.experiments import checkpoints
from metarl.experiments.building import (
    build,
    load,
    load_pretrained_options,
    make_agent,
    make_family,
)
from metarl.experiments.runs import train
from metarl.options.segments import segments

SPEC = Spec("two-numbers", {"x": 2}, action_width=3, discrete=True, horizon=5, task_width=1)

MINE = """\
import torch


class Always:
    action = 0

    def __init__(self, spec):
        self.spec = spec

    def act(self, obs, noise, counter):
        return torch.full(obs.shape[:2], self.action)

    def ends(self, obs):
        return obs[..., 0] > 0


class Second(Always):
    action = 1


class ToTheRight(Always):
    action = 2


class Dice(Always):
    def act(self, obs, noise, counter):
        return (noise.uniform(counter, 1)[..., 0] * 3).long()


class TooFar(Always):
    action = 3


class Nowhere(Always):
    def act(self, obs, noise, counter):
        return torch.full((*obs.shape[:2], 3), torch.nan)


class Flat(Always):
    def act(self, obs, noise, counter):
        return torch.zeros(len(obs), dtype=torch.long)


class Lost(Always):
    def __init__(self):
        pass


class Silent(Always):
    def act(self, obs, noise, counter):
        obs.mean()


class Broken(Always):
    def ends(self, obs):
        return obs[..., 7] > 0


class Floats(Always):
    def ends(self, obs):
        return obs[..., 0]


class Endless:
    def __init__(self, spec):
        pass

    def act(self, obs, noise, counter):
        return torch.zeros(obs.shape[:2], dtype=torch.long)


class Towards:
    \"\"\"One of the two goals of movement-bandits, along the axis on which it is farther.\"\"\"

    goal = 0

    def __init__(self, spec):
        pass

    def act(self, obs, noise, counter):
        gap = obs[..., 2 + 2 * self.goal : 4 + 2 * self.goal] - obs[..., :2]
        along = gap.abs().argmax(-1)
        sign = (gap.gather(-1, along.unsqueeze(-1)).squeeze(-1) < 0).long()
        return torch.where(gap.abs().amax(-1) < 0.025, 0, 1 + 2 * along + sign)

    def ends(self, obs):
        return torch.zeros(obs.shape[:2], dtype=torch.bool)


class TowardsTheOther(Towards):
    goal = 1
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def noise(rows: int = 4, lanes: int = 2) -> Any:
    return Rng(0).streams(torch.arange(rows), lanes)


def obs(rows: int = 4, lanes: int = 2) -> Tensor:
    return torch.randn(rows, lanes, 2, generator=torch.Generator().manual_seed(1))


def test_options_of_ones_own_stand_in_the_order_of_their_names(mine: Path):
    options = load_pretrained_options([f"{mine}:Second", f"{mine}:Always"], SPEC, CPU)
    assert options.count == 2
    assert torch.equal(
        options.act(obs(), noise(), 0, "sample"), torch.tensor([1, 0]).expand(4, 2, 2)
    )
    assert torch.equal(options.ends(obs(), noise(), 0), (obs()[..., :1] > 0).expand(4, 2, 2))


def test_each_has_chance_of_its_own(mine: Path):
    options = load_pretrained_options([f"{mine}:Dice", f"{mine}:Dice"], SPEC, CPU)
    first, second = options.act(obs(500), noise(500), 3, "sample").unbind(-1)
    assert abs(float((first == second).float().mean()) - 1 / 3) < 0.05
    assert torch.equal(options.act(obs(500), noise(500), 3, "sample")[..., 0], first)


def test_an_action_that_is_no_number_is_named(mine: Path):
    options = load_pretrained_options([f"{mine}:Nowhere"], replace(SPEC, discrete=False), CPU)
    with pytest.raises(MetaRLError, match="Nowhere: act gives an action that is not finite"):
        options.act(obs(), noise(), 0, "sample")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nobody", "has no 'Nobody'"),
        ("Endless", "needs the methods act and ends"),
        ("Lost", r"cannot be made from the family's Spec: TypeError"),
        ("Silent", "act fails: .*NoneType"),
        ("Broken", "ends fails: IndexError"),
        ("TooFar", "outside 0 to 2"),
        ("Flat", r"act gives torch.int64 of shape \[4\] .* give torch.int64 of shape \[4, 2\]"),
        ("Floats", r"ends gives torch.float32 .* give torch.bool"),
    ],
)
def test_what_is_wrong_with_ones_own_is_said_in_a_line(name: str, message: str, mine: Path):
    def used() -> None:
        options = load_pretrained_options([f"{mine}:{name}"], SPEC, CPU)
        options.act(obs(), noise(), 0, "sample")
        options.ends(obs(), noise(), 0)

    with pytest.raises(MetaRLError, match=message) as raised:
        used()
    assert "\n" not in str(raised.value)


def test_they_end_where_they_say_and_where_their_length_does(mine: Path):
    family = make_family("gridnavi")
    agent = make_agent(
        "rl2",
        family.spec,
        pretrained_options=(f"{mine}:ToTheRight", f"{mine}:Always"),
        termination="fixed",
        option_length=3,
    )
    tasks = family.tasks("train", 6, Rng(0))
    begun = agent.begin(task_info(agent, family.spec, tasks, 4), lanes=1)
    rollout, _ = collect(agent, family.make(1), family.spec, begun, tasks, 4, Rng(1))
    running = rollout.inputs.option
    begins = torch.cat([torch.ones_like(rollout.done[:1]), rollout.done[:-1]])
    ended_itself = rollout.inputs.obs[..., 0] > 0
    assert ended_itself[~begins].any()
    assert running.ended[ended_itself | begins].all()
    assert torch.equal(rollout.action, 2 - 2 * running.current)
    durations = segments(rollout).duration
    assert durations.max() == 3
    assert torch.equal(durations.sum(0), rollout.valid.sum(0))


def test_nothing_learns_but_the_master(mine: Path, tmp_path: Path):
    config = parse(
        {
            "agent": {
                "name": "rl2",
                "trials": 6,
                "memory_width": 8,
                "pretrained_options": [f"{mine}:Second", f"{mine}:Always"],
                "termination": "fixed",
            },
            "family": "gridnavi",
            "episodes": 2,
            "iterations": 2,
            "validation_tasks": 2,
            "test_tasks": 2,
        }
    )
    train(config, tmp_path / "run", quiet=True)
    agent: Any = load(tmp_path / "run").agent
    assert not [
        name for name in agent.params if name.startswith(("sub.", "action.", "termination."))
    ]
    _, fresh = build(config)
    assert not torch.equal(agent.params["option.weight"], fresh.params["option.weight"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["rl2", "maml"])
@torch.no_grad()
def test_a_runs_options_act_and_end_as_they_did_there(name: str, tmp_path: Path):
    small = (
        {"trials": 4, "memory_width": 8, "normalize_obs": True}
        if name == "rl2"
        else {"tasks": 2, "episodes_per_task": 2}
    )
    run = tmp_path / "run"
    config = {
        "agent": {
            "name": name,
            "options": 3,
            "sub_hidden_sizes": [8],
            "option_length": 2,
            "initial_gain": 3.0,
            **small,
        },
        "family": {"name": "four-rooms", "horizon": 10},
        "episodes": 4,
        "iterations": 2,
        "validation_tasks": 2,
        "test_tasks": 2,
    }
    with torch.enable_grad():
        train(parse(config), run, quiet=True)
    best = run / "checkpoints" / "best.pt"
    content = checkpoints.load(best)
    content["agent"]["params"]["sub.termination.weight"] = (
        torch.randn(3, 8, generator=torch.Generator().manual_seed(5)) * 3
    )
    checkpoints.save(best, content)  # where options end depends on the cell, too
    loaded = load(run)
    agent: Any = loaded.agent
    options = load_pretrained_options([str(run)], loaded.spec, CPU)
    assert options.count == 3

    rows = 4000
    seen = torch.eye(104)[:2].repeat(rows // 2, 1).unsqueeze(1)
    scaled = agent.ppo.normalize(Inputs(seen)) if name == "rl2" else Inputs(seen)
    own = {
        key.removeprefix("sub."): value
        for key, value in agent.params.items()
        if key.startswith("sub.")
    }
    features, _ = agent.policy.sub_policy.attend(own, scaled, ())
    probs = (
        agent.policy.sub_policy.decide(own, features, scaled.obs)
        .heads["action"]
        .view(rows, 1, 3, 4)
        .softmax(-1)
    )
    beta = torch.sigmoid(features @ own["termination.weight"].T + own["termination.bias"])
    acted = options.act(seen, noise(rows, 1), 0, "sample")
    over = options.ends(seen, noise(rows, 1), 0).float()
    for cell in range(2):
        shares = torch.nn.functional.one_hot(acted[cell::2], 4).float().mean((0, 1))
        torch.testing.assert_close(shares, probs[cell, 0], rtol=0, atol=0.05)
        torch.testing.assert_close(over[cell::2].mean((0, 1)), beta[cell, 0], rtol=0, atol=0.05)
    assert float((probs[0] - probs[1]).abs().max()) > 0.1  # or the cells could be confused
    assert float((beta[0] - beta[1]).abs().max()) > 0.1
    assert float(beta[0].std()) > 0.1
    greedy = options.act(seen, noise(rows, 1), 0, "greedy")
    assert torch.equal(greedy, probs.argmax(-1))


@torch.no_grad()
def test_a_flat_run_is_one_option_that_does_not_end(tmp_path: Path):
    config = {
        "agent": {
            "name": "rl2",
            "memory": "none",
            "trials": 4,
            "initial_gain": 3.0,
            "initial_std": 0.3,
        },
        "family": {"name": "point", "variant": "pearl"},
        "episodes": 1,
        "iterations": 1,
        "validation_tasks": 2,
        "test_tasks": 2,
    }
    with torch.enable_grad():
        train(parse(config), tmp_path / "run", quiet=True)
    loaded = load(tmp_path / "run")
    options = load_pretrained_options([str(tmp_path / "run")], loaded.spec, CPU)
    seen = obs(2000, 1)
    acted = options.act(seen, noise(2000, 1), 0, "sample")
    assert acted.shape == (2000, 1, 1, 2)
    assert not options.ends(seen, noise(2000, 1), 0).any()
    agent: Any = loaded.agent
    actions = agent.policy.step(agent.params, agent.ppo.normalize(Inputs(seen)), ())[0].actions
    z = (acted[:, 0, 0] - actions.mean[:, 0]) / actions.log_std.exp()
    assert float(z.mean().abs()) < 0.1
    assert abs(float(z.std()) - 1) < 0.1
    assert float(actions.mean.std()) > 1
    assert torch.equal(options.act(seen, noise(2000, 1), 0, "greedy")[:, 0, 0], actions.mean[:, 0])


def test_heads_of_what_sees_the_observation_alone_are_options(tmp_path: Path):
    run = run_of(
        tmp_path,
        memory="none",
        options=2,
        sub_hidden_sizes=None,
        hidden_sizes=[8],
        initial_gain=3.0,
    )
    options, agent = load_pretrained_options([run], (loaded := load(run)).spec, CPU), loaded.agent
    seen = torch.randn(6, 1, loaded.spec.obs_width, generator=torch.Generator().manual_seed(1))
    features, _ = agent.policy.trunk.attend(agent.params, Inputs(seen), ())
    heads = (
        agent.policy.trunk.decide(agent.params, features, seen).heads["action"].view(6, 1, 2, -1)
    )
    assert torch.equal(options.act(seen, noise(6, 1), 0, "greedy"), heads.argmax(-1))
    beta = (
        features @ agent.params["termination.weight"].T + agent.params["termination.bias"]
    ).sigmoid()
    ends = torch.stack([options.ends(seen, noise(6, 1), t) for t in range(2000)]).float().mean(0)
    torch.testing.assert_close(ends, beta, rtol=0, atol=0.05)


def test_two_runs_side_by_side_share_no_chance(tmp_path: Path):
    """What ends an option of one says nothing of what an option of the other does."""
    run = run_of(tmp_path, options=2, sub_hidden_sizes=[4], option_length=4)
    options = load_pretrained_options([run, run], load(run).spec, CPU)
    rows = 4000
    seen = torch.zeros(rows, 1, load(run).spec.obs_width)
    acted, over = (
        options.act(seen, noise(rows, 1), 0, "sample")[:, 0],
        options.ends(seen, noise(rows, 1), 0)[:, 0],
    )
    for one in range(4):
        for other in range(4):
            shares = [
                torch.bincount(acted[over[:, one] == ended, other], minlength=5)[:5].double()
                for ended in (0, 1)
            ]
            shares = [share / share.sum() for share in shares]
            torch.testing.assert_close(shares[0], shares[1], rtol=0, atol=0.08)


def run_of(tmp_path: Path, **agent: Any) -> str:
    config = {
        "agent": {"name": "rl2", "trials": 2, "memory_width": 4, **agent},
        "family": "gridnavi",
        "episodes": 1,
    }
    rest = {"iterations": 1, "validation_tasks": 2, "test_tasks": 2}
    train(parse(config | rest), tmp_path / "run", quiet=True)
    return str(tmp_path / "run")


@pytest.mark.parametrize(
    "agent",
    [{}, {"memory": "none", "task_input": "row"}, {"options": 2, "sub_hidden_sizes": None}],
    ids=["memory", "shown", "heads of a memory"],
)
def test_what_sees_more_than_the_observation_is_no_option(agent: dict[str, Any], tmp_path: Path):
    with pytest.raises(MetaRLError, match="depends on more than the observation"):
        load_pretrained_options([run_of(tmp_path, **agent)], make_family("gridnavi").spec, CPU)


def test_a_run_of_another_shape_is_no_option(tmp_path: Path):
    with pytest.raises(MetaRLError, match="trained on gridnavi"):
        load_pretrained_options([run_of(tmp_path, memory="none")], SPEC, CPU)


def test_a_run_that_is_not_there(tmp_path: Path):
    with pytest.raises(MetaRLError, match="there is no run"):
        load_pretrained_options([str(tmp_path / "nothing")], SPEC, CPU)


def test_a_master_finds_out_which_of_two_ready_options_pays(mine: Path):
    """Towards either goal: before it learns, a master wavers between them; after two steps it is
    close to the oracle.
    """
    family = make_family("movement-bandits")
    agent = make_agent(
        "maml",
        family.spec,
        pretrained_options=(f"{mine}:Towards", f"{mine}:TowardsTheOther"),
        termination="fixed",
        option_length=10,
        lanes=50,
        step_sizes=(50.0,),
        gae_lambda=0.98,
    )
    scores = evaluate(agent, family, episodes=150, tasks=4, split="test")
    before, _, after = scores.returns.mean((0, 2))
    assert before < 30
    assert after > 42  # 43.82 by the fewest moves
