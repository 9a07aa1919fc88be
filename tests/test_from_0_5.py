"""What version 0.5 left behind still works: configurations, checkpoints, run folders, commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from from_0_5.make import RUNS, SMALL, actions
from test_cli import metarl

import metarl as package
from metarl.config.aliases import RENAMED
from metarl.config.files import load_config, shipped
from metarl.config.schema import parse, to_dict
from metarl.config.yaml_text import read_yaml
from metarl.experiments import checkpoints
from metarl.experiments.building import load
from metarl.experiments.logs import read_metrics
from metarl.experiments.runs import train

OLD = Path(__file__).parent / "from_0_5"
CONFIGURATIONS = json.loads((OLD / "configurations.json").read_text())
EXPECTED = json.loads((OLD / "expected.json").read_text())


def today(tree: dict[str, Any]) -> dict[str, Any]:
    """A complete configuration of 0.5 with the keys of today."""
    agent = {RENAMED.get(key, key): value for key, value in tree["agent"].items()}
    agent |= {"conv_channels": [16, 32, 32], "image_features": 64}  # which read no images
    if agent["name"] == "rl2":
        agent |= {  # which had none
            "preset": "rl2",
            "memory_keys": 0,
            "attention_layers": 2,
            "attention_heads": 4,
            "context": 128,
            "critic": "shared",
            "critic_sizes": [128, 128],
            "objective": "return",
        }
    if agent["name"] == "pearl":
        agent |= {
            "factors": "gaussian",
            "exploration_mode": "as-told",
            "mean_below": 0.0,
            "context_sampling": "steps",
            "context_visits": 1,
            "context_dropout": 0.0,
            "teacher": "none",
            "teacher_sizes": [64, 64],
            "teacher_std": 0.05,
            "decoder_coef": 1.0,
        }
    newer = {
        "world": {"name": "local"},
        "test_episodes": 0,
        "test_mode": None,
        "validation_window": 1,
        "collector": "local",
        "workers": 1,
        "worker_cpus": None,
        "shard_rows": None,
        "gradient_shards": 1,
    }
    return tree | newer | {"agent": agent}


def test_all_fifty_configurations_of_0_5_are_here():
    assert len(CONFIGURATIONS) == 50
    assert set(CONFIGURATIONS) <= set(shipped())


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_is_what_it_was_by_its_name_and_by_its_old_keys(name: str):
    old = CONFIGURATIONS[name]
    assert to_dict(load_config(name)) == today(old)
    assert to_dict(parse(old)) == today(old)


def test_metarl_config_prints_the_keys_of_today():
    code, out, err = metarl("config", OLD / "maml" / "config.yaml")
    assert code == 0, err
    printed = read_yaml(out, "printed")["agent"]
    assert not set(printed) & set(RENAMED)
    assert printed["episodes_per_task"] == 3
    assert printed["preset"] == "promp"


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_loaded_and_acts_as_it_did(name: str):
    run = load(OLD / name)
    taken = actions(run, run.spec.obs_width)
    np.testing.assert_allclose(taken, EXPECTED[name]["actions"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_as_it_would_have(name: str, tmp_path: Path):
    shutil.copytree(OLD / name, tmp_path / "run")
    config = parse(RUNS[name] | SMALL | {"iterations": 3})
    result = train(config, tmp_path / "run", resume=True, quiet=True)
    third = read_metrics(tmp_path / "run")[2]
    renamed = {"backtracks": "line_search_steps"}
    expected = {renamed.get(key, key): value for key, value in EXPECTED[name]["third"].items()}
    assert set(expected) <= set(third) <= set(expected) | {"grad_norm", "saturated"}  # newer
    for key, value in expected.items():
        if "second" not in key and key != "validation":  # since 0.8 with other randomness
            np.testing.assert_allclose(third[key], value, rtol=1e-3, atol=1e-3, err_msg=key)
    before = json.loads((OLD / name / "result.json").read_text())
    assert set(result) >= set(before)
    for split in before["scores"]:
        total = result["scores"][split]["summary"]["total"]["mean"]
        low, high = total["over_tasks"] or (total["value"], total["value"])  # or tasks are fixed
        assert low <= total["value"] <= high


@pytest.mark.parametrize("name", RUNS)
def test_what_scripts_read_from_a_checkpoint_stands_where_it_stood(name: str, tmp_path: Path):
    train(parse(RUNS[name] | SMALL | {"iterations": 1}), tmp_path, quiet=True)
    old = checkpoints.load(OLD / name / "checkpoints" / "best.pt")
    new = checkpoints.load(tmp_path / "checkpoints" / "best.pt")
    assert set(old) <= set(new)
    assert set(old["agent"]) == set(new["agent"])
    old_shapes = {key: value.shape for key, value in old["agent"]["params"].items()}
    assert {key: value.shape for key, value in new["agent"]["params"].items()} == old_shapes


def test_the_commands_of_0_5_work(tmp_path: Path):
    shutil.copytree(OLD / "rl2", tmp_path / "run")
    code, out, err = metarl("evaluate", tmp_path / "run", "--tasks", 3, "--beside", "random")
    assert code == 0, err
    assert "random" in out


def test_old_names_of_the_package_are_there():
    assert package.Mistake is package.MetaRLError
    for child in (package.ConfigError, package.FamilyError, package.CheckpointError):
        assert issubclass(child, package.Mistake)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["agent.trace=2x"], "agent.trace: "),
        (["agent.clip=-1"], "agent.clip: input should be greater than 0"),
        (["agent.clip_coef=0.1"], "agent.clip_coef: unknown key; here it is called 'clip_range'"),
        (["agent.lr=0.1"], "agent.lr: unknown key; here it is called 'learning_rate'"),
        (["agent.vf_coef=0.1"], "agent.vf_coef: unknown key; here it is called 'value_coef'"),
    ],
)
def test_a_message_names_the_key_as_it_was_written(overrides: list[str], words: str):
    with pytest.raises(package.ConfigError) as caught:
        load_config("rl2/bernoulli-bandit", overrides)
    assert words in str(caught.value)


def test_an_old_key_overrides_the_new_one_of_the_file():
    config = load_config("rl2/bernoulli-bandit", ["agent.trace=0.5", "agent.clip=0.3"])
    assert (config.agent.settings.gae_lambda, config.agent.settings.clip_range) == (0.5, 0.3)


def test_two_keys_of_one_meaning_are_a_mistake():
    tree = {"agent": {"name": "rl2", "clip": 0.1, "clip_range": 0.2}, "family": "point"}
    with pytest.raises(package.ConfigError, match=r"clip_range: means the same as agent\.clip"):
        parse(tree | {"episodes": 1, "iterations": 1})


def test_an_old_preset_drops_the_options_of_the_one_before():
    """As ``agent.variant=promp`` did, whichever of the two names stands in the file."""
    for key in ("variant", "preset"):
        chosen = load_config("maml/movement-bandits", [f"agent.{key}=promp"]).agent.settings
        assert (chosen.preset, chosen.outer, chosen.options) == ("promp", "ppo", 0)
    kept = load_config("maml/movement-bandits", ["agent.variant=mlsh"]).agent.settings
    assert kept == load_config("maml/movement-bandits").agent.settings
