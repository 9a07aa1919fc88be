"""Processes side by side: how many at once, how they end, and whom they do not outlive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from metarl.experiments import processes
from metarl.experiments.processes import PARENT, Job, run_jobs

SCRIPT = """
import os, pathlib, signal, sys, time
folder, name, seconds, code, *rest = sys.argv[1:]
if "deaf" in rest:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(folder, name).write_text(str(os.getpid()))
print("here", name, flush=True)
time.sleep(float(seconds))
sys.exit(int(code))
"""


@pytest.fixture(autouse=True)
def program(monkeypatch):
    monkeypatch.setattr(processes, "PROGRAM", (sys.executable, "-c", SCRIPT))
    monkeypatch.setattr(processes, "KILL_AFTER", 0.3)


def job(folder: Path, name: str, lasts: float = 0.0, code: int = 0, *rest: str, **more) -> Job:
    return Job([str(folder), name, str(lasts), str(code), *rest], **more)


def wait_for(path: Path) -> None:
    for _ in range(200):
        if path.is_file() and path.read_text(encoding="utf-8"):
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} was not written")


def is_alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return (
        state.is_file() and state.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    )


def test_codes_are_in_the_order_of_the_jobs(tmp_path):
    ended = []
    jobs = [job(tmp_path, str(code), 0.2 * (2 - code), code) for code in range(3)]
    assert run_jobs(jobs, 3, 0.1, lambda end: ended.append(end.place)) == [0, 1, 2]
    assert sorted(ended) == [0, 1, 2]


def test_the_next_job_begins_when_any_has_ended(tmp_path):
    """Job 0 is slow, and the others pass it."""
    ended: list[int] = []
    jobs = [job(tmp_path, "0", 1.5), *[job(tmp_path, str(i)) for i in (1, 2, 3)]]
    run_jobs(jobs, 2, 0.1, lambda end: ended.append(end.place))
    assert ended == [1, 2, 3, 0]


def test_output_goes_to_the_log(tmp_path):
    run_jobs([job(tmp_path, "a", log=tmp_path / "deep" / "a.log")], 1, 0.1)
    assert (tmp_path / "deep" / "a.log").read_text(encoding="utf-8") == "here a\n"


def test_a_job_past_its_limit_is_ended_and_killed_if_it_does_not_listen(tmp_path):
    ends = {}
    jobs = [
        job(tmp_path, "slow", 60, seconds=2),
        job(tmp_path, "deaf", 60, 0, "deaf", seconds=2),
        job(tmp_path, "quick", 0, seconds=30),
    ]
    codes = run_jobs(jobs, 3, 0.1, lambda end: ends.update({end.place: end}))
    assert codes == [-signal.SIGTERM, -signal.SIGKILL, 0]
    assert [ends[place].too_long for place in range(3)] == [True, True, False]


def test_a_signal_ends_all_and_begins_no_other(tmp_path):
    def send() -> None:
        wait_for(tmp_path / "a")
        wait_for(tmp_path / "b")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send).start()
    jobs = [job(tmp_path, name, 60) for name in "abc"]
    with pytest.raises(SystemExit) as caught:
        run_jobs(jobs, 2, 0.1)
    assert caught.value.code == 128 + signal.SIGTERM
    assert not is_alive(int((tmp_path / "a").read_text(encoding="utf-8")))
    assert not (tmp_path / "c").exists()


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's end"
)
def test_a_process_does_not_outlive_the_one_that_began_it(tmp_path):
    follow = "from metarl.experiments.processes import follow_parent; follow_parent()\n"
    begin = (
        "import subprocess, sys, os, time; "
        f"subprocess.Popen([sys.executable, '-c', sys.argv[1], *sys.argv[2:]], "
        f"env=os.environ | {{'{PARENT}': str(os.getpid())}}, start_new_session=True); "
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", begin, follow + SCRIPT, str(tmp_path), "child", "60", "0"]
    parent = subprocess.Popen(command)
    wait_for(tmp_path / "child")
    child = int((tmp_path / "child").read_text(encoding="utf-8"))
    assert is_alive(child)
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not is_alive(child):
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the child lives on")
