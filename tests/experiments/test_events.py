"""What TensorBoard shows of a run."""

from __future__ import annotations

import errno
import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from metarl.config.files import to_yaml
from metarl.config.schema import parse
from metarl.core.errors import MetaRLError
from metarl.experiments import events
from metarl.experiments.logs import read_metrics
from metarl.experiments.runs import train
from metarl.experiments.tags import final_scores, flat, grouped


def config(**changes):
    agent = {"name": "rl2", "memory_width": 4, "trials": 4, "minibatches": 1, "epochs": 1}
    family = {"name": "bernoulli-bandit", "arms": 3}
    small = {"episodes": 2, "validation_tasks": 4, "test_tasks": 4, "validate_every": 2}
    return parse({"agent": agent, "family": family, "iterations": 3, **small, **changes})


def shown(run):
    return EventAccumulator(str(run / "tensorboard")).Reload()


def points(run, tag):
    return [(event.step, pytest.approx(event.value)) for event in shown(run).Scalars(tag)]


def hyperparameters(run):
    start = shown(run).summary_metadata[metadata.SESSION_START_INFO_TAG]
    return metadata.parse_session_start_info_plugin_data(start.plugin_data.content).hparams


def finished(run):
    return metadata.SESSION_END_INFO_TAG in shown(run).summary_metadata


@pytest.fixture
def run(tmp_path):
    """Of an earlier process, whose files have other names."""
    train(config(), tmp_path / "run", quiet=True)
    for file in (tmp_path / "run" / "tensorboard").iterdir():
        file.rename(file.with_name(f"events.out.tfevents.1.1{file.suffix}"))
    return tmp_path / "run"


def test_curves_are_over_environment_steps_in_groups(run):
    records = read_metrics(run)
    for tag, key in [
        ("rollout/return", "return"),
        ("train/policy_loss", "policy_loss"),
        ("time/iteration", "iteration"),
        ("validation/score", "validation"),
    ]:
        logged = [(record["env_steps"], record[key]) for record in records if key in record]
        assert points(run, tag) == logged
    assert all("/" in tag for tag in shown(run).Tags()["scalars"])


def test_a_metric_may_bring_a_group_of_its_own():
    record = {"env_steps": 5, "goal/distance": 1.0, "kl": 2.0}
    assert grouped(record) == {"goal/distance": 1.0, "train/kl": 2.0}


def test_scores_are_those_of_the_result_where_training_ended(run):
    result = json.loads((run / "result.json").read_text())
    end = result["last"]["env_steps"]
    summaries = {split: scores["summary"] for split, scores in result["scores"].items()}
    assert points(run, "validation/best") == [(end, result["validation"])]
    assert points(run, "test/return") == [(end, summaries["test"]["total"]["mean"]["value"])]
    assert points(run, "test/regret") == [(end, summaries["test"]["regret"]["mean"]["value"])]
    ood = summaries["ood"]["last"]["mean"]["value"]
    assert points(run, "test_ood/last_return") == [(end, ood)]
    assert set(final_scores(result)) <= set(shown(run).Tags()["scalars"])


def test_success_and_the_familys_metrics_are_scores():
    part = {"mean": {"value": 0.5}}
    summary = {"total": part, "success": part, "optimum": 3.0, "metrics": {"distance": part}}
    scores = final_scores({"validation": 1.0, "scores": {"test": {"summary": summary}}})
    assert set(scores) == {"validation/best", "test/return", "test/success", "test/distance"}


def test_the_configuration_is_text_and_hyperparameters(run):
    (text,) = shown(run).Tensors("config/text_summary")
    lines = text.tensor_proto.string_val[0].decode().splitlines()
    assert [line.removeprefix("    ") for line in lines] == to_yaml(config()).splitlines()
    values = hyperparameters(run)
    assert values["agent.name"].string_value == "rl2"
    assert values["agent.memory_width"].number_value == 4
    assert values["agent.normalize_reward"].WhichOneof("kind") == "bool_value"
    assert values["agent.hidden_sizes"].string_value.startswith("[")
    assert "minutes" not in values  # which is null
    assert finished(run)


def test_a_run_that_goes_on_shows_its_new_limits_and_no_old_scores(run):
    seen = []

    def look(update):
        seen.append((finished(run), "test/return" in shown(run).Tags()["scalars"]))

    train(config(iterations=5), run, resume=True, quiet=True, callbacks=[look])
    assert seen == [(False, False)] * 2
    assert hyperparameters(run)["iterations"].number_value == 5
    assert len(shown(run).Tensors("config/text_summary")) == 1
    ((step, _),) = points(run, "test/return")
    steps = [record["env_steps"] for record in read_metrics(run)]
    assert step == steps[-1]
    assert [step for step, _ in points(run, "rollout/return")] == steps


def test_a_run_that_was_lost_just_before_its_end_shows_its_scores_once(run):
    (run / "result.json").unlink()
    before = points(run, "test/return"), points(run, "rollout/return")
    train(config(), run, resume=True, quiet=True)
    assert (points(run, "test/return"), points(run, "rollout/return")) == before


def test_a_disk_that_is_full_at_the_end_is_one_line_and_resumes(tmp_path, monkeypatch):
    def full(run, kind):
        if kind == "result":
            raise OSError(errno.ENOSPC, "")
        return path(run, kind)

    path = events._path
    with monkeypatch.context() as patch:
        patch.setattr(events, "_path", full)
        with pytest.raises(MetaRLError, match=r"^the disk is full"):
            train(config(), tmp_path, quiet=True)
    train(config(), tmp_path, resume=True, quiet=True)
    assert finished(tmp_path)


def test_keys_are_those_of_the_command_line():
    tree = {"agent": {"name": "rl2", "hidden_sizes": [8]}, "seed": 0}
    assert flat(tree) == {"agent.name": "rl2", "agent.hidden_sizes": [8], "seed": 0}
