"""Faults of a Ray cluster on this machine: what is killed, and what becomes of the run.

    python benchmarks/ray_faults.py [--actors 20] [--others 3] [--seed 0]

Workers are killed at random moments of one run after another; each run must equal the one without
workers. Then Ray's other processes are killed in a run each: raylet, gcs_server (the head), the
program that uses them, and a run that is a task. Each must end with equal results, or with one line
and a run that goes on with --resume to equal results. No process may stay.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from interruptions import numbers, same_state

RUN = """\
agent: {name: rl2, memory_width: 16, trials: 24, minibatches: 2}
family: {name: half-cheetah-vel, horizon: 60}
episodes: 1
iterations: 40
validate_every: 5
validation_tasks: 12
test_tasks: 12
checkpoint_every: 2
shard_rows: 6
"""
WORKERS = ("collector=ray", "workers=2", "worker_cpus=0.5")


class Program:
    """A command and all processes below it."""

    def __init__(self, folder: Path, arguments: Sequence[str]):
        self.process = subprocess.Popen(  # noqa: S603  (our own program)
            [sys.executable, "-m", "metarl", "train", "run.yaml", "--no-pictures", *arguments],
            cwd=folder,
            env=os.environ | {"RAY_ADDRESS": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )

    def below(self, title: str = "") -> list[int]:
        return [process for process in below(self.process.pid) if title in command_of(process)]

    def wait_until(self, run: Path, iterations: int) -> bool:
        """Whether so many iterations were finished before it ended."""
        while self.process.poll() is None:
            if (
                run.is_dir()
                and (run / "metrics.jsonl").is_file()
                and len(numbers(run)) >= iterations
            ):
                return True
            time.sleep(0.05)
        return False

    def ended(self) -> tuple[int, list[str], int]:
        """Exit code, the lines that it told, and how many processes stayed."""
        before = self.below()
        output, _ = self.process.communicate(timeout=600)
        told = [line for line in output.splitlines() if line.startswith("metarl: ")]
        time.sleep(1)
        stayed = [process for process in before if Path(f"/proc/{process}").exists()]
        return self.process.returncode, told, len(stayed)


def below(process: int) -> list[int]:
    found = []
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        for task in tasks:
            for child in map(int, (task / "children").read_text(encoding="utf-8").split()):
                found += [child, *below(child)]
    except OSError:
        pass
    return found


def command_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8").replace("\0", " ")
    except OSError:
        return ""


def kill_actors(folder: Path, count: int, chance: random.Random) -> None:
    killed = runs = unequal = 0
    while killed < count:
        run = folder / f"actors-{runs}"
        program = Program(folder, ["--out", run.name, "--quiet", *WORKERS])
        in_this = 0
        while in_this < 5 and killed < count and program.wait_until(run, 1 + 6 * in_this):
            time.sleep(chance.random())
            actors = program.below("ray::Actor")
            if actors:
                os.kill(chance.choice(actors), signal.SIGKILL)
                killed += 1
            in_this += 1
        code, told, stayed = program.ended()
        same = code == 0 and same_run(run, folder / "alone")
        unequal += not same
        runs += 1
        if not same or stayed:
            print(f"  exit code {code}, {stayed} processes stayed: {told}")
    print(f"actors: {killed} killed in {runs} runs, {runs - unequal} equal to the one without")


def kill_other(folder: Path, what: str, number: int, chance: random.Random) -> None:
    """One of Ray's processes, or the program below the one that watches."""
    run = folder / f"{what}-{number}".replace(" ", "-")
    program = Program(folder, ["--out", run.name, "--quiet", *WORKERS])
    program.wait_until(run, chance.randrange(1, 30))
    titles = {"raylet": "raylet/raylet", "head": "gcs/gcs_server", "program": "-m metarl train"}
    victims = program.below(titles[what])
    began = time.monotonic()
    if victims:
        os.kill(victims[0], signal.SIGKILL)
    code, told, stayed = program.ended()
    seconds = time.monotonic() - began
    how = f"exit code {code} after {seconds:.0f} s, {stayed} processes stayed"
    if code != 0:
        again = Program(folder, ["--out", run.name, "--quiet", "--resume"])
        again.ended()
        how += f"; told: {' / '.join(told)}; resumed without workers"
    print(f"{what}: {how}; equal: {same_run(run, folder / 'alone')}")


def kill_task(folder: Path, chance: random.Random) -> None:
    """Of a run that is a task of the cluster: Ray runs it again, and it goes on."""
    arguments = ["--seeds", "0", "--launcher", "ray", "--out", "tasks"]
    program = Program(folder, arguments)
    run = folder / "tasks" / "seed-0"
    program.wait_until(run, chance.randrange(2, 30))
    victims = program.below("ray::_run_command")
    if victims:
        os.kill(victims[0], signal.SIGKILL)
    code, told, stayed = program.ended()
    same = same_run(run, folder / "alone")
    print(f"task: {len(victims)} killed, exit code {code}, {stayed} stayed, equal: {same} {told}")


def same_run(run: Path, other: Path) -> bool:
    latest = [folder / "checkpoints" / "latest.pt" for folder in (run, other)]
    if not all(path.is_file() for path in latest):
        return False
    return same_state(run, other) and numbers(run) == numbers(other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actors", type=int, default=20)
    parser.add_argument("--others", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)  # noqa: S311  (moments, not secrets)
    folder = Path(tempfile.mkdtemp(prefix="metarl-ray-"))
    (folder / "run.yaml").write_text(RUN, encoding="utf-8")
    code, told, _ = Program(folder, ["--out", "alone", "--quiet"]).ended()
    assert code == 0, told
    kill_actors(folder, arguments.actors, chance)
    for what in ("raylet", "head", "program"):
        for number in range(arguments.others):
            kill_other(folder, what, number, chance)
    kill_task(folder, chance)


if __name__ == "__main__":
    main()
