"""Workers and commands on a Ray cluster of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import FILES, same
from test_runs import config, numbers, trained

from metarl.config.files import to_yaml
from metarl.config.schema import Config, parse, to_dict
from metarl.core.errors import ConfigError, FamilyError, MetaRLError
from metarl.core.texts import read_json
from metarl.experiments.launcher import train_seeds
from metarl.experiments.runs import train
from metarl.experiments.workers import workers_of

ray = pytest.importorskip("ray")

from metarl.experiments import ray_engine  # noqa: E402
from metarl.experiments.ray_engine.workers import RayPool  # noqa: E402

joining = sys.modules["metarl.experiments.ray_engine.cluster"]

NEEDLE = (FILES / "needle.py").read_text()

QUARTERS = {"collector": "ray", "worker_cpus": 0.25}
"""Of a CPU each, so that there are more workers than CPUs."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One of two CPUs for all tests of this file: starting it takes seconds."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=50)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def sharded() -> Config:
    return config(shard_rows=3, gradient_shards=2, iterations=4)


@pytest.fixture(scope="module")
def alone(sharded: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that no worker helped with."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(sharded, folder, quiet=True)
    return folder


def with_workers(config: Config, workers: int, **changes: Any) -> Config:
    return parse(to_dict(config) | QUARTERS | {"workers": workers} | changes)


def test_a_run_of_four_workers_is_the_same_by_bytes(sharded: Config, alone: Path, tmp_path: Path):
    train(with_workers(sharded, 4), tmp_path / "run", quiet=True)
    assert same(trained(tmp_path / "run")["agent"], trained(alone)["agent"])
    assert numbers(tmp_path / "run") == numbers(alone)
    own, other = read_json(tmp_path / "run" / "result.json"), read_json(alone / "result.json")
    assert own["scores"] == other["scores"]


def test_a_run_begun_by_four_workers_is_ended_by_none(sharded: Config, alone: Path, tmp_path: Path):
    def stop(update: Any) -> bool:
        return update.counters.iterations == 2

    begun = with_workers(sharded, 4)
    train(begun, tmp_path / "run", quiet=True, callbacks=[stop], test=False)
    train(sharded, tmp_path / "run", quiet=True, resume=True)
    assert same(trained(tmp_path / "run")["agent"], trained(alone)["agent"])
    assert numbers(tmp_path / "run") == numbers(alone)


def test_a_killed_worker_is_replaced_and_its_rows_done_again(
    sharded: Config, alone: Path, tmp_path: Path
):
    killed: list[int] = []

    def kill_one(update: Any) -> bool:
        for process in _processes("ray::Actor")[:1]:
            os.kill(process, signal.SIGKILL)
            killed.append(process)
        return False

    train(with_workers(sharded, 2), tmp_path / "run", quiet=True, callbacks=[kill_one])
    assert killed
    assert same(trained(tmp_path / "run")["agent"], trained(alone)["agent"])


def test_a_mistake_in_a_worker_arrives_as_itself(tmp_path: Path):
    faulty = tmp_path / "faulty.py"
    faulty.write_text(
        NEEDLE.replace(
            "    def step(",
            "    def step(self, action):\n        return 1 / 0\n\n    def other(",
            1,
        )
    )
    wrong = with_workers(config(family={"name": f"{faulty}:Needle"}), 1)
    with pytest.raises(FamilyError, match=r"step 0: ZeroDivisionError.*\(faulty.py, line"):
        train(wrong, tmp_path / "run", quiet=True)
    assert "return 1 / 0" in (tmp_path / "run" / "traceback.txt").read_text()


def test_a_file_that_a_node_has_not_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its workers load it from a copy, and what they send back is read here."""
    own = tmp_path / "own.py"
    own.write_text(NEEDLE)
    chosen = config(family={"name": f"{own}:Needle"}, shard_rows=3, iterations=1)
    train(chosen, tmp_path / "alone", quiet=True)
    run = RayPool.run

    def run_elsewhere(pool: RayPool, agent: Any, jobs: Any) -> Any:
        own.unlink(missing_ok=True)
        return run(pool, agent, jobs)

    monkeypatch.setattr(RayPool, "run", run_elsewhere)
    train(with_workers(chosen, 2), tmp_path / "run", quiet=True, test=False)
    assert not own.exists()
    assert numbers(tmp_path / "run") == numbers(tmp_path / "alone")


def test_more_workers_than_cpus_are_refused(sharded: Config):
    with (
        pytest.raises(ConfigError, match=r"3 of 1 CPUs each are more than the 2 .*workers=2"),
        workers_of(with_workers(sharded, 3, worker_cpus=1)),
    ):
        pass


def test_workers_that_others_leave_no_cpu_for_are_given_up(monkeypatch: pytest.MonkeyPatch):
    @ray.remote(num_cpus=2)
    class Greedy:
        def ready(self) -> bool:
            return True

    greedy = Greedy.remote()
    ray.get(greedy.ready.remote())
    try:
        with pytest.raises(
            MetaRLError, match="no worker has started for 1 s: other work has the CPUs"
        ):
            ray_engine.RayWorkers(1, 1, 1, patience=1.0)
    finally:
        ray.kill(greedy)


def test_a_head_that_does_not_answer_ends_the_run(
    sharded: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also where a worker is at work, which may take as long as it needs otherwise."""
    engine = sys.modules["metarl.experiments.ray_engine.workers"]
    monkeypatch.setattr(engine, "_HEAD_SECONDS", 0.1)
    monkeypatch.setattr(engine, "_LOOK_SECONDS", 0.1)
    with workers_of(with_workers(sharded, 1)) as workers:
        actor = workers.idle[0]
        held = actor.__ray_call__.remote(lambda _: time.sleep(5))
        assert workers.is_reachable()
        monkeypatch.setattr(type(workers), "is_reachable", lambda _: False)
        with pytest.raises(MetaRLError, match=r"the head at .* has not answered .*--resume"):
            workers.wait({held: None})


def test_seeds_are_tasks_of_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(to_yaml(config(iterations=1)))
    train_seeds("c.yaml", [], Path("out"), [3], 0, False, True, 20.0, False, "ray", 0.5)
    assert (tmp_path / "out" / "seed-3" / "result.json").is_file()
    assert "test" in (tmp_path / "out" / "seed-3.log").read_text()
    with pytest.raises(MetaRLError, match="holds a run already"):
        train_seeds("c.yaml", [], Path("out"), [3], 0, False, True, 20.0, False, "ray")


# -------------------------------------------------------------------------------------------------
# Clusters that are not there


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("127.0.0.1:1", "127.0.0.1:1: Connection refused; start Ray there"),
        ("nonsense", "nonsense is no host:port"),
        ("ray://127.0.0.1:10001", "name a node as host:port"),
    ],
)
def test_addresses_without_a_cluster(address: str, line: str):
    with pytest.raises(ConfigError, match=line):
        joining.check_address(address)


def test_an_address_that_never_answers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(joining, "_PROBE_SECONDS", 0.2)

    def silent(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", silent)
    with pytest.raises(ConfigError, match="nothing answers"):
        joining.check_address("10.255.255.1:6379")


def test_a_port_that_is_not_of_ray(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(joining, "_JOIN_SECONDS", 0.5)
    monkeypatch.setattr(joining.ray, "init", lambda *_, **__: time.sleep(60))
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS=h:1 does not take this process within"):
        joining.join("h:1", threading.Event())


# -------------------------------------------------------------------------------------------------
# The command that sees another one end


@pytest.mark.parametrize("how", ["raylet", "SIGTERM"])
def test_a_command_on_ray_leaves_no_process(tmp_path: Path, how: str):
    """However it ends; where Ray itself ends it, a line says how to go on."""
    (tmp_path / "c.yaml").write_text(to_yaml(config(iterations=100_000)))
    command = ["train", "c.yaml", "collector=ray", "worker_cpus=0.5", "--out", "run", "--quiet"]
    program = subprocess.Popen(
        [sys.executable, "-m", "metarl", *command, "--no-pictures", "--grace=5"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"RAY_ADDRESS": ""},
    )
    log = tmp_path / "run" / "metrics.jsonl"
    while not (log.is_file() and log.stat().st_size):
        assert program.poll() is None, program.stderr.read()
        time.sleep(0.05)
    below = _below(program.pid)
    if how == "raylet":
        [raylet] = [process for process in below if "raylet" in _command(process).split(" ")[0]]
        os.kill(raylet, signal.SIGKILL)
    else:
        program.terminate()
    _, errors = program.communicate(timeout=120)
    told = [line for line in errors.splitlines() if line.startswith("metarl: ")]
    assert program.returncode == (2 if how == "raylet" else 128 + signal.SIGTERM), errors
    assert any("go on with --resume" in line for line in told)
    assert not [process for process in below if Path(f"/proc/{process}").exists()]


def _processes(title: str) -> list[int]:
    """Those below this one."""
    return [process for process in _below(os.getpid()) if title in _command(process)]


def _below(process: int) -> list[int]:
    """Its children, and theirs."""
    children = []
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            children += [child, *_below(child)]
    return children


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8").replace("\0", " ")
    except OSError:
        return ""
