"""A run that was trained on a GPU opens where there is none, whatever opens it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import metarl as command

import metarl
from metarl.config.schema import parse
from metarl.evaluation.session import Session
from metarl.experiments import checkpoints

BRIEF = {"trials": 4, "epochs": 1, "minibatches": 1}
POINT = {"name": "point", "horizon": 4}
BANDIT = {"name": "bernoulli-bandit", "arms": 3}

RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "options": ({"name": "dac", "options": 2, **BRIEF}, POINT),
    "beliefs": ({"name": "varibad", "memory_width": 4, "latent_width": 2, **BRIEF}, BANDIT),
}


def config_of(agent: dict[str, Any], family: dict[str, Any], **changes: Any) -> metarl.Config:
    tree = {"agent": agent, "family": family, "episodes": 2, "iterations": 1}
    return parse(tree | {"validation_tasks": 4, "test_tasks": 4} | changes)


def put_on_gpu(folder: Path) -> None:
    """What a GPU leaves behind differs in this word alone: checkpoints are read to the CPU."""
    for file in (folder / "checkpoints").glob("*.pt"):
        content = checkpoints.load(file)
        content["config"]["device"] = "cuda"
        checkpoints.save(file, content)
    config = folder / "config.yaml"
    text = config.read_text()
    assert "\ndevice: cpu" in text
    config.write_text(text.replace("\ndevice: cpu", "\ndevice: cuda"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of such runs."""
    folder = tmp_path_factory.mktemp("gpu")
    for name, (agent, family) in RUNS.items():
        metarl.train(config_of(agent, family), folder / name, quiet=True)
        put_on_gpu(folder / name)
    metarl.export(folder / "options", folder / "options.zip")
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that may be written to, as the working folder of a machine without a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folder = tmp_path / "here"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    "line",
    [
        "evaluate options --tasks 4",
        "evaluate options --tasks 4 --against options,options.zip",
        "evaluate options.zip --tasks 4",
        "infer beliefs --tasks 4 --times 2",
        "options options --tasks 4",
        "options options.zip --tasks 4",
        "render options --out film.gif",
        "plot options",
        "export options again.zip",
        "export options.zip again.zip",
    ],
)
def test_every_command_opens_it(here: Path, line: str) -> None:
    code, _, err = command(*line.split(), cwd=here)
    assert code == 0, err


@pytest.mark.parametrize("run", ["options", "options.zip"])
@pytest.mark.parametrize("use", ["warm_start", "pretrained_options", "teacher"])
def test_a_run_on_the_cpu_begins_from_it(here: Path, use: str, run: str) -> None:
    agent, family = RUNS["options"]
    changes: dict[str, Any] = {}
    if use == "warm_start":
        changes["warm_start"] = run
    elif use == "pretrained_options":
        agent = {"name": "ppo", "pretrained_options": [run], **BRIEF}
    else:
        agent = {"name": "distill", "teacher": run, **BRIEF}
    result = metarl.train(config_of(agent, family, **changes), here / "next", quiet=True)
    assert np.isfinite(result["scores"]["test"]["returns"]).all()


@pytest.mark.parametrize("run", ["options", "options.zip"])
def test_a_session_acts_by_it(here: Path, run: str) -> None:
    loaded = metarl.load(run)
    session = Session(loaded.agent, loaded.spec)
    assert np.isfinite(session.act(np.zeros(loaded.spec.obs_width, np.float32))).all()
    assert all(x.device.type == "cpu" for x in loaded.agent.acting_state()["params"].values())


def test_only_a_device_that_is_asked_for_is_missed(here: Path) -> None:
    with pytest.raises(metarl.ConfigError, match=r"^device: cuda is not available here"):
        metarl.load("options", "cuda")
