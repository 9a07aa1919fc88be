"""Runs survive being stopped, at any moment, bit for bit; and lose nothing."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from filelock import FileLock
from helpers import same

from metarl.config.files import load_config
from metarl.config.schema import parse, to_dict
from metarl.core.errors import CheckpointError, FamilyError, MetaRLError
from metarl.evaluation.meta_test import evaluate
from metarl.experiments import checkpoints, logs
from metarl.experiments.building import build, load
from metarl.experiments.logs import read_metrics
from metarl.experiments.provenance import git_commit
from metarl.experiments.runs import train

SMALL = {
    "agent": {
        "name": "rl2",
        "memory_width": 8,
        "trials": 12,
        "minibatches": 2,
        "epochs": 2,
        "normalize_reward": True,
    },
    "family": {"name": "bernoulli-bandit", "arms": 3},
    "episodes": 5,
    "validate_every": 2,
    "validation_tasks": 20,
    "test_tasks": 20,
    "checkpoint_every": 1,
}


def config(**changes):
    return parse({**SMALL, "iterations": 6, **changes})


def numbers(folder):
    """The log without what the clock says."""
    return [{k: v for k, v in r.items() if "second" not in k} for r in read_metrics(folder)]


def trained(folder):
    return checkpoints.load(folder / "checkpoints" / "latest.pt")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of six iterations that nobody stopped; it is only read."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(config(), folder, quiet=True)
    return folder


def test_a_run_folder_holds_everything(tmp_path):
    result = train(config(), tmp_path, quiet=True)
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {
        "latest.pt",
        "previous.pt",
        "best.pt",
    }
    assert [record["iteration"] for record in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert to_dict(load_config(tmp_path / "config.yaml")) == to_dict(config())
    assert list((tmp_path / "tensorboard").iterdir())
    assert json.loads((tmp_path / "result.json").read_text()) == json.loads(json.dumps(result))
    assert set(result["versions"]) >= {"metarl", "torch", "mujoco", "gymnasium"}
    for split in ("test", "ood"):
        score = result["scores"][split]
        assert (len(score["returns"]), len(score["returns"][0]), len(score["returns"][0][0])) == (
            1,
            5,
            20,
        )
        assert len(score["task_hash"]) == 16


def test_without_test_a_run_is_judged_by_validation_alone_until_it_resumes(tmp_path, monkeypatch):
    from metarl.experiments import runs

    asked = []

    def counted(agent, family, protocol, pool, **changes):
        asked.append((protocol.changed(**changes).split, protocol.purpose))
        return evaluate(agent, family, protocol, pool, **changes)

    expected = train(config(), tmp_path / "whole", quiet=True)
    monkeypatch.setattr(runs, "evaluate", counted)
    best = []
    parts = tmp_path / "parts"
    result = train(
        config(),
        parts,
        quiet=True,
        test=False,
        callbacks=[lambda update: best.append(update.best)],
    )
    assert asked == [("validation", "validation")] * 3
    assert not (parts / "result.json").exists()
    assert not {"scores", "gaps", "no_adaptation"} & set(result)
    for key in ("validation", "best_iteration", "best_env_steps", "config"):
        assert result[key] == expected[key]
    assert result["last"] == {"iteration": 6, "env_steps": expected["last"]["env_steps"]}
    logged = [record.get("validation", -1) for record in numbers(parts)]
    assert best == [None, *(max(logged[: i + 1]) for i in range(1, 6))]
    whole = train(config(), parts, quiet=True, resume=True)
    assert whole["scores"] == expected["scores"]
    assert json.loads((parts / "result.json").read_text())["gaps"]


@pytest.mark.parametrize("agent", ["rl2"])
def test_three_iterations_stop_and_three_more_equal_six(tmp_path, whole, agent):
    parts = tmp_path / "parts"
    train(config(), parts, quiet=True, callbacks=[lambda update: update.counters.iterations == 3])
    assert trained(parts)["counters"]["iterations"] == 3
    train(config(), parts, resume=True, quiet=True)
    assert same(trained(whole)["agent"], trained(parts)["agent"])
    assert numbers(whole) == numbers(parts)


def test_resume_falls_back_on_the_previous_checkpoint_and_says_so(tmp_path, whole, capsys):
    parts = tmp_path / "parts"
    train(config(), parts, quiet=True, callbacks=[lambda update: update.counters.iterations == 4])
    latest = parts / "checkpoints" / "latest.pt"
    latest.write_bytes(latest.read_bytes()[:1000])
    train(config(), parts, resume=True, quiet=True)
    assert "going on from previous.pt" in capsys.readouterr().err
    assert same(trained(whole)["agent"], trained(parts)["agent"])
    assert numbers(whole) == numbers(parts)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """A configuration that trains for a second or more, and its run."""
    many, whole = config(iterations=24), tmp_path_factory.mktemp("long") / "whole"
    train(many, whole, quiet=True)
    return many, whole


@pytest.mark.parametrize("delay", [0.2, 0.6])
def test_kill_at_any_moment_leaves_a_run_that_resumes(tmp_path, long_run, delay):
    many, whole = long_run
    killed = tmp_path / "killed"
    (tmp_path / "c.yaml").write_text((whole / "config.yaml").read_text())
    command = [
        sys.executable,
        "-m",
        "metarl",
        "train",
        str(tmp_path / "c.yaml"),
        "--out",
        str(killed),
        "--quiet",
    ]
    process = subprocess.Popen(command)
    while not read_metrics(killed) and process.poll() is None:
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    train(many, killed, resume=True, quiet=True)
    assert same(trained(whole)["agent"], trained(killed)["agent"])
    assert numbers(whole) == numbers(killed)


def test_an_existing_run_is_not_overwritten(tmp_path):
    train(config(iterations=1), tmp_path, quiet=True)
    before = (tmp_path / "result.json").read_bytes()
    with pytest.raises(MetaRLError, match="holds a run already: continue it with --resume"):
        train(config(iterations=1), tmp_path, quiet=True)
    with pytest.raises(MetaRLError, match="holds a run with another seed"):
        train(config(iterations=1, seed=5), tmp_path, resume=True, quiet=True)
    assert (tmp_path / "result.json").read_bytes() == before


def test_a_finished_run_can_be_extended_and_else_stays_as_it_is(tmp_path):
    first = train(config(iterations=2), tmp_path, quiet=True)
    assert train(config(iterations=2), tmp_path, resume=True, quiet=True) == json.loads(
        json.dumps(first)
    )
    train(config(iterations=3), tmp_path, resume=True, quiet=True)
    assert trained(tmp_path)["counters"]["iterations"] == 3


def test_a_run_that_was_refused_in_its_first_iteration_is_no_run(tmp_path):
    """Nothing was learned, so nothing can be lost: the same folder takes the corrected one."""
    file = tmp_path / "broken.py"
    file.write_text(
        "import torch\nfrom metarl import Spec, Tasks\n\n\nclass Broken:\n"
        "    spec = Spec('broken', {'x': 1}, 2, True, 3, 1)\n\n"
        "    def tasks(self, split, count, rng):\n"
        "        return Tasks(torch.zeros(count, 1), torch.arange(count), split)\n\n"
        "    def make(self, lanes):\n        return self\n\n"
        "    def reset(self, tasks, rng):\n        return torch.zeros(len(tasks), 1, 7)\n\n"
        "    def step(self, action):\n        return None\n"
    )
    folder = tmp_path / "run"
    for resume in (False, False, True):
        with pytest.raises(FamilyError, match="obs at step 0"):
            train(config(family=f"{file}:Broken"), folder, resume=resume, quiet=True)
    train(config(iterations=1), folder, quiet=True)
    assert trained(folder)["counters"]["iterations"] == 1
    with pytest.raises(CheckpointError, match="holds a run already"):
        train(config(iterations=1), folder, quiet=True)


def test_a_folder_in_use_is_refused(tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(CheckpointError, match="is in use"):
        train(config(), tmp_path, quiet=True)
    train(config(iterations=1), tmp_path, quiet=True)


def test_the_best_checkpoint_is_the_best_on_validation_tasks(tmp_path):
    result = train(config(iterations=8), tmp_path, quiet=True)
    scores = {r["iteration"]: r["validation"] for r in read_metrics(tmp_path) if "validation" in r}
    assert set(scores) == {2, 4, 6, 8}
    assert result["best_iteration"] == max(scores, key=scores.get)


def test_a_window_chooses_by_the_mean_of_the_last_validations(tmp_path):
    result = train(config(iterations=12, validation_window=3), tmp_path / "a", quiet=True)
    scores = {
        r["iteration"]: r["validation"] for r in read_metrics(tmp_path / "a") if "validation" in r
    }
    values = list(scores.values())
    means = [np.mean(values[max(0, i - 2) : i + 1]) for i in range(len(values))]
    assert result["best_iteration"] == list(scores)[int(np.argmax(means))]
    assert result["validation"] == pytest.approx(max(means))


def test_a_stopped_run_remembers_its_window(tmp_path):
    chosen = config(iterations=8, validation_window=3)
    whole = train(chosen, tmp_path / "a", quiet=True)
    train(chosen, tmp_path / "b", quiet=True, callbacks=[lambda u: u.counters.iterations == 5])
    parts = train(chosen, tmp_path / "b", quiet=True, resume=True)
    for key in ("validation", "best_iteration", "scores", "last"):
        assert parts[key] == whole[key]


@pytest.mark.parametrize(
    ("score", "sign"), [("success", 1), ("-distance", -1), ("distance", 1), ("last", 1)]
)
def test_the_checkpoint_is_chosen_by_what_the_score_names(tmp_path, score, sign):
    chosen = config(family={"name": "point", "horizon": 10}, episodes=2, iterations=6, score=score)
    result = train(chosen, tmp_path, quiet=True)
    scores = {r["iteration"]: r["validation"] for r in read_metrics(tmp_path) if "validation" in r}
    assert result["best_iteration"] == max(scores, key=scores.get)
    assert all(sign * value >= 0 for value in scores.values()) or score == "last"


@pytest.mark.parametrize("score", ["success", "speed"])
def test_a_score_that_the_family_does_not_report_is_refused_before_training(tmp_path, score):
    with pytest.raises(MetaRLError, match=f"score: the family reports no '{score}'"):
        train(config(score=score), tmp_path, quiet=True)
    assert not read_metrics(tmp_path)


def test_the_last_checkpoint_is_reported_beside_the_best(tmp_path):
    result = train(config(iterations=8), tmp_path, quiet=True)
    last = load(tmp_path / "checkpoints" / "latest.pt")
    assert result["last"]["iteration"] == 8
    for split, summary in result["last"]["scores"].items():
        again = evaluate(last.agent, last.family(), last.protocol(split=split)).summary()
        assert json.loads(json.dumps(summary)) == json.loads(json.dumps(again))
    if result["best_iteration"] == 8:
        assert result["last"]["scores"]["test"] == result["scores"]["test"]["summary"]


def test_a_result_says_where_it_comes_from(tmp_path):
    result = train(config(iterations=2), tmp_path, quiet=True)
    assert set(result["git_commit"]) == {"metarl", "project"}
    assert {"system", "processor", "cores", "gpu"} == set(result["machine"])
    assert socket.gethostname() not in json.dumps(result["machine"])
    assert 0 < result["training_seconds"] < result["wall_seconds"]
    assert set(result["gaps"]) == {"train − test", "test − ood"}


def test_a_commit_is_that_of_the_files_in_the_folder(tmp_path):
    assert git_commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "a.py").write_text("1\n")
    (tmp_path / "inside").mkdir()  # of a package that is installed there
    (tmp_path / "inside" / "b.py").write_text("1\n")
    subprocess.run([*git, "add", "a.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "a"], check=True)
    commit = git_commit(tmp_path)
    assert len(commit) == 40
    assert git_commit(tmp_path / "inside") is None
    (tmp_path / "a.py").write_text("2\n")
    assert git_commit(tmp_path) == commit + "+"


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, whole, monkeypatch):
    real, calls = os.fsync, []

    def full_later(descriptor):
        calls.append(descriptor)
        if len(calls) > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full_later)
    with pytest.raises(MetaRLError, match="the disk is full"):
        train(config(), tmp_path / "a", quiet=True)
    monkeypatch.undo()
    iterations = trained(tmp_path / "a")["counters"]["iterations"]
    assert 0 < iterations < trained(whole)["counters"]["iterations"]
    train(config(), tmp_path / "a", resume=True, quiet=True)
    assert same(trained(tmp_path / "a")["agent"], trained(whole)["agent"])


def test_warm_start_takes_the_weights_and_nothing_else(whole):
    warm = config(warm_start=str(whole))
    _, agent = build(warm)
    best = checkpoints.load(whole / "checkpoints" / "best.pt")["agent"]
    assert same(agent.state_dict()["params"], best["params"])
    assert agent.state_dict()["optimiser"]["state"] == {}
    with pytest.raises(MetaRLError, match=r"state.params.memory.* in the checkpoint"):
        build(parse({**to_dict(warm), "agent": {"name": "rl2", "memory_width": 9}}))


def test_episodes_that_cannot_be_shared_out_are_told_before_anything_is_trained(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("metarl.agents.rl2.agent.RL2.lanes", 2)
    with pytest.raises(
        MetaRLError,
        match=r"^episodes: 5 cannot be shared out among the 2 lanes of RL2; .* such as 6$",
    ):
        train(config(), tmp_path, quiet=True)
    assert not (tmp_path / "config.yaml").exists()
    result = train(config(episodes=6), tmp_path, quiet=True)
    assert [score["episodes_consumed"] for score in result["scores"].values()] == [[2, 4, 6]] * 3


def test_loading_a_run_gives_the_agent_that_was_evaluated(tmp_path):
    train(config(), tmp_path, quiet=True)
    loaded = load(tmp_path)
    best = checkpoints.load(tmp_path / "checkpoints" / "best.pt")
    assert same(loaded.agent.state_dict(), best["agent"])
    assert loaded.family().spec == loaded.spec
    with pytest.raises(MetaRLError, match="is no run folder"):
        load(tmp_path / "tensorboard")


def test_a_run_of_another_device_is_loaded_where_there_is_none(tmp_path, monkeypatch):
    train(config(iterations=1), tmp_path, quiet=True)
    best = tmp_path / "checkpoints" / "best.pt"
    content = checkpoints.load(best)
    content["config"]["device"] = "cuda"
    checkpoints.save(best, content)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in (None, "cpu", torch.device("cpu")):
        loaded = load(tmp_path, device)
        assert loaded.config.device == "cpu"
        assert loaded.protocol().device == "cpu"


def test_a_family_shown_as_one_hot_trains_on_a_fixed_set(tmp_path):
    shown = {**SMALL, "agent": {**SMALL["agent"], "task_input": "onehot"}, "iterations": 2}
    with pytest.raises(MetaRLError, match="set train_tasks"):
        train(parse(shown), tmp_path / "a", quiet=True)
    result = train(
        parse({**shown, "train_tasks": 7, "validation_tasks": 7, "test_tasks": 7}),
        tmp_path / "b",
        quiet=True,
    )
    assert set(result["scores"]) == {"train"}


@pytest.mark.parametrize(
    ("limit", "iterations"),
    [({"iterations": 2}, 2), ({"env_steps": 100}, 2), ({"minutes": 1e-4}, 1)],
)
def test_runs_stop_at_the_first_limit(tmp_path, limit, iterations):
    train(parse({**SMALL, **limit}), tmp_path, quiet=True)
    assert len(read_metrics(tmp_path)) == iterations


def test_metrics_of_work_that_will_be_done_again_are_dropped(tmp_path):
    records = [{"iteration": i, "env_steps": 10 * i} for i in (1, 2, 3)]
    lines = [json.dumps(record) for record in records]
    (tmp_path / logs.METRICS).write_text("\n".join([*lines, '{"itera']))
    with logs.MetricsLog(tmp_path, resume_at=2):
        pass
    assert read_metrics(tmp_path) == records[:2]


def test_callbacks_see_every_iteration(tmp_path):
    seen = []
    train(
        config(iterations=3), tmp_path, quiet=True, callbacks=[lambda update: seen.append(update)]
    )
    assert [update.counters.iterations for update in seen] == [1, 2, 3]
    assert all(torch.isfinite(torch.tensor(update.metrics["return"])) for update in seen)


@pytest.mark.parametrize("agent", ["rl2", "maml", "pearl"])
def test_an_agent_whose_parameters_are_no_numbers_is_no_finished_run(tmp_path, agent):
    """Whenever it happens: no result is written, and what was good stays."""
    small = {
        "rl2": {"trials": 4},
        "maml": {"tasks": 2, "episodes_per_task": 1},
        "pearl": {"tasks": 2, "updates": 2, "hidden_sizes": [8], "encoder_sizes": [8]},
    }
    chosen = config(
        agent={"name": agent, **small[agent]}, iterations=3, train_tasks=3, validate_every=1
    )

    def break_it(update):
        if update.counters.iterations == 2:
            next(iter(update.agent.params.values())).data.fill_(float("nan"))

    with pytest.raises(MetaRLError, match="not finite") as error:
        train(chosen, tmp_path, quiet=True, callbacks=[break_it])
    assert "learning rate" in str(error.value)
    assert not (tmp_path / "result.json").exists()
    assert trained(tmp_path)["counters"]["iterations"] == 1
    params = load(tmp_path).agent.params
    assert all(value.isfinite().all() for value in params.values())


def test_a_broken_agent_of_an_old_checkpoint_is_told(tmp_path):
    train(config(iterations=1), tmp_path, quiet=True)
    path = tmp_path / "checkpoints" / "best.pt"
    content = checkpoints.load(path)
    content["agent"]["params"]["action.bias"].fill_(float("nan"))
    checkpoints.save(path, content)
    with pytest.raises(MetaRLError, match=r"action\.bias is not finite in the checkpoint"):
        load(tmp_path)


@pytest.mark.parametrize("left", ["best.pt", "metrics.jsonl", "result.json", "latest.pt"])
def test_whatever_is_left_of_a_run_is_not_overwritten(tmp_path, left):
    """Also without its latest checkpoint, which may have been deleted for its size, or damaged."""
    train(config(iterations=2), tmp_path, quiet=True)
    checkpoint = tmp_path / "checkpoints"
    for path in (*checkpoint.iterdir(), tmp_path / "metrics.jsonl", tmp_path / "result.json"):
        if path.name != left:
            path.unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="holds a run already"):
        train(config(iterations=2), tmp_path, quiet=True)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_what_a_users_own_code_raised_is_kept_in_full(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from metarl_envs.bandit import BernoulliBandit\n\n\n"
        "class Mine(BernoulliBandit):\n"
        "    def make(self, lanes):\n"
        "        return {}['nothing']\n",
        encoding="utf-8",
    )
    folder = tmp_path / "run"
    with pytest.raises(FamilyError, match=r"KeyError: 'nothing' \(mine.py, line 6\)") as error:
        train(config(family=f"{file}:Mine"), folder, quiet=True)
    assert "\n" not in str(error.value)
    assert str(folder / "traceback.txt") in str(error.value)
    kept = (folder / "traceback.txt").read_text(encoding="utf-8")
    assert "return {}['nothing']" in kept
