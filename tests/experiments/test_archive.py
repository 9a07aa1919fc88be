"""An exported agent is one file: the same agent, opened without code, damaged or whole."""

from __future__ import annotations

import json
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors

import metarl
from metarl.config.schema import parse
from metarl.core.errors import CheckpointError, ConfigError
from metarl.experiments import archive
from metarl.experiments.card import export
from metarl.experiments.onnx_step import export_step

SMALL = {
    "rl2": {"memory_width": 4, "trials": 4, "minibatches": 1, "epochs": 1, "normalize_obs": True},
    "maml": {"tasks": 2, "episodes_per_task": 2, "hidden_sizes": [4]},
    "pearl": {"tasks": 2, "updates": 2, "hidden_sizes": [4], "encoder_sizes": [4]},
    "dac": {"trials": 4, "minibatches": 1, "epochs": 1, "options": 2},
    "lstm": {"name": "rl2", "memory": "lstm", "memory_width": 4, "trials": 4, "pair_input": True},
    "keyed": {
        "name": "rl2",
        "memory": "gru+keyed",
        "memory_width": 4,
        "memory_keys": 3,
        "trials": 4,
        "minibatches": 1,
    },
    "hypernetwork": {
        "name": "rl2",
        "memory_width": 4,
        "hidden_sizes": [5],
        "pair_input": True,
        "readout": "hypernetwork",
        "task_input": "row",
        "trials": 4,
        "minibatches": 1,
    },
    "slots": {"name": "rl2", "memory": "slots", "memory_width": 8, "trials": 4, "minibatches": 1},
    "transformer": {
        "name": "rl2",
        "memory": "transformer",
        "memory_width": 8,
        "attention_heads": 2,
        "trials": 4,
        "minibatches": 1,
    },
    "told": {"name": "ppo", "task_input": "row", "trials": 4, "hidden_sizes": [4]},
}


def run_of(kind, folder, family="point", **changes):
    chosen = {
        "agent": {"name": kind, **SMALL[kind]},
        "family": {"name": "point", "horizon": 20} if family == "point" else family,
        "episodes": 2,
        "iterations": 1,
        "train_tasks": 3,
        "validation_tasks": 4,
        "test_tasks": 4,
    }
    metarl.train(parse({**chosen, **changes}), folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Gives runs that nobody changes: each is trained once."""
    folder = tmp_path_factory.mktemp("kept")

    @cache
    def run(kind, family):
        return run_of(kind, folder / f"{kind}-{family}", family)

    return run


def actions(loaded):
    """What the agent does on given observations and rewards, in two episodes."""
    draw = np.random.default_rng(0)
    task = draw.normal(size=loaded.spec.task_width) if loaded.agent.task_input != "none" else None
    session = metarl.Session(loaded.agent, loaded.spec, episodes=2, task=task)
    chosen = []
    for step in range(10):
        chosen.append(session.act(draw.normal(size=loaded.spec.obs_width)))
        successor = draw.normal(size=loaded.spec.obs_width)
        session.observe(draw.normal(), successor, terminated=False, truncated=step % 5 == 4)
    return np.array(chosen)


@pytest.mark.parametrize("agent", [name for name in SMALL if name != "slots"])
def test_an_exported_agent_acts_as_the_original(agent, kept, tmp_path):
    run = kept(agent, "point")
    file = export(run, tmp_path / "agent.zip")
    original, opened = metarl.load(run), metarl.load(file)
    assert (actions(original) == actions(opened)).all()
    assert opened.spec == original.spec
    assert opened.counters == original.counters
    again = export(file, tmp_path / "again.zip")
    assert zipfile.ZipFile(again).read(archive.WEIGHTS) == zipfile.ZipFile(file).read(
        archive.WEIGHTS
    )


def test_the_parts_can_be_read_without_metarl(kept, tmp_path):
    run = kept("rl2", "point")
    with zipfile.ZipFile(export(run, tmp_path / "agent.zip")) as file:
        card = json.loads(file.read("card.json"))
        content = json.loads(file.read("agent.json"))
        tensors = load_tensors(file.read("weights.safetensors"))
    result = json.loads((run / "result.json").read_bytes())
    assert card["scores"]["test"] == result["scores"]["test"]["summary"]
    assert card["family"]["name"] == "point"
    assert content["config"] == result["config"]
    params = metarl.load(run).agent.params
    assert all(torch.equal(tensors[f"params/{name}"], value) for name, value in params.items())
    assert export(run, tmp_path / "same.zip").read_bytes() == (tmp_path / "agent.zip").read_bytes()


def test_it_acts_where_its_familys_file_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "from metarl_envs.point import Point\n\n\nclass Mine(Point):\n    pass\n",
        encoding="utf-8",
    )
    file = export(run_of("rl2", tmp_path / "run", family="mine.py:Mine"), tmp_path / "agent.zip")
    expected = actions(metarl.load("run"))
    Path("mine.py").unlink()
    opened = metarl.load(file)
    assert (actions(opened) == expected).all()
    with pytest.raises(ConfigError, match="holds no code: give family="):
        opened.family()
    assert metarl.load(file, family="point").family().spec.obs_width == opened.spec.obs_width


def test_pretrained_options_come_along(tmp_path):
    flat = run_of("told", tmp_path / "flat", agent={"name": "ppo", "trials": 4})
    above = {"name": "rl2", "memory_width": 4, "trials": 4, "pretrained_options": [str(flat)] * 2}
    run = run_of("rl2", tmp_path / "run", agent=above)
    file = export(run, tmp_path / "agent.zip")
    expected = actions(metarl.load(run))
    flat.rename(tmp_path / "gone")
    assert (actions(metarl.load(file)) == expected).all()


def test_an_agent_that_is_code_is_not_exported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "from metarl.agents.rl2.agent import RL2\n"
        "from metarl.agents.rl2.config import RL2Config\n\n\n"
        "class Mine(RL2):\n    Settings = RL2Config\n",
        encoding="utf-8",
    )
    own = {"name": "mine.py:Mine", **SMALL["rl2"]}
    run = run_of("rl2", tmp_path / "run", agent=own)
    with pytest.raises(ConfigError, match=r"mine\.py:Mine is code.*hand on the run folder"):
        export(run, "agent.zip")
    with pytest.raises(ConfigError, match=r"must end in \.zip"):
        export(run, "agent.pt")


def test_a_damaged_file_is_told_wherever_a_bit_is_flipped(kept, tmp_path):
    file = export(kept("rl2", "point"), tmp_path / "agent.zip")
    data, expected = file.read_bytes(), metarl.load(file).agent.params
    refused = 0
    for place in range(3, len(data), len(data) // 60):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        file.write_bytes(flipped)
        try:
            params = metarl.load(file).agent.params
        except CheckpointError:
            refused += 1
        else:
            assert all(torch.equal(params[name], value) for name, value in expected.items())
    assert refused > 50


@pytest.mark.parametrize(
    ("agent", "family"),
    [
        ("rl2", "point"),
        ("lstm", "bernoulli-bandit"),
        ("keyed", "point"),
        ("hypernetwork", "point"),
        ("slots", "bernoulli-bandit"),
        ("told", "point"),
    ],
)
def test_the_graph_does_what_torch_does(agent, family, kept, tmp_path):
    """Over a whole trial of observations that it has never met."""
    import onnxruntime

    run = kept(agent, family)
    graph = onnxruntime.InferenceSession(export_step(run, tmp_path / "step.onnx"))
    loaded = metarl.load(run)
    draw = np.random.default_rng(0)
    names = [x.name for x in graph.get_inputs()]
    shapes = {x.name: x.shape[1:] for x in graph.get_inputs()}
    memory = {x: np.zeros((1, *shapes[x]), np.float32) for x in names if "memory" in x}
    task = draw.normal(size=loaded.spec.task_width).astype(np.float32)
    shown = loaded.agent.task_input != "none"
    session = metarl.Session(loaded.agent, loaded.spec, mode="greedy", task=task if shown else None)
    cue = np.zeros((1, loaded.spec.cue_width), np.float32)
    cue[0, -1] = 1
    for _ in range(min(loaded.spec.horizon, 10)):
        obs = draw.normal(size=(1, loaded.spec.obs_width)).astype(np.float32)
        feed = {"obs": obs, "cue": cue, "task": task[None], **memory}
        outputs = graph.run(None, {name: feed[name] for name in names})
        found = dict(zip([x.name for x in graph.get_outputs()], outputs, strict=True))
        action, reward = session.act(obs[0]), float(draw.normal())
        assert np.allclose(found["action"][0], action, atol=1e-5)
        last = loaded.spec.horizon == 1
        session.observe(reward, obs[0], terminated=False, truncated=last)
        taken = np.eye(loaded.spec.action_width)[action] if loaded.spec.discrete else action
        cue = np.concatenate([taken, [reward], [last]])[None].astype(np.float32)
        memory = {name: found[f"next_{name}"] for name in memory}


@pytest.mark.parametrize(
    ("agent", "words"),
    [("maml", "MAML acts or adapts by more"), ("transformer", "a transformer reads a cache")],
)
def test_an_agent_that_adapts_otherwise_has_no_graph(agent, words, kept, tmp_path):
    run = kept(agent, "point")
    with pytest.raises(ConfigError, match=f"--onnx: {words}"):
        export_step(run, tmp_path / "step.onnx")
    assert not (tmp_path / "step.onnx").exists()
