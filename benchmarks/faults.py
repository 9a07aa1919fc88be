"""Disks that are full, read-only or gone, files cut short, a clock that jumps, two at once.

    python benchmarks/faults.py [--rounds 3] [--seed 0] [--only full readonly …]

Runs as root on Linux, as it mounts small disks. A command that meets a fault must end with exit
code 2 (1 where it names what failed) and lines of ours, no traceback. What was there must still be
whole, and the command, repeated when the fault is gone, must give what an undisturbed one gives.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from interruptions import numbers, same_state

METARL = [sys.executable, "-m", "metarl"]
SMALL = """\
agent: {name: rl2, memory_width: 8, trials: 6, epochs: 1, minibatches: 2}
family: {name: point, horizon: 10}
episodes: 2
iterations: 30
validate_every: 4
validation_tasks: 10
test_tasks: 10
checkpoint_every: 3
"""
SUITE = """\
title: Small
seeds: [0]
problems:
  point:
    family: {name: point, horizon: 10}
    settings: {episodes: 2, iterations: 10, env_steps: null, test_tasks: 10, validation_tasks: 10}
    agents:
      rl2: {config: rl2/point, settings: {agent.trials: 6, agent.minibatches: 2}}
      ppo-goal: {config: ppo/point, settings: {agent.trials: 6, agent.minibatches: 2}}
"""
SPACE = "agent.learning_rate: {low: 1e-4, high: 1e-2, log: true}\n"
CLOCK = """\
import random, time
real, chance = time.time, random.Random({seed})
time.time = lambda: real() + chance.uniform(-1e6, 1e6)
from metarl.cli import main
main()
"""
PROGRESS = re.compile(" *[0-9]+%")
DAMAGED = (
    "checkpoints/latest.pt",
    "checkpoints/previous.pt",
    "checkpoints/best.pt",
    "metrics.jsonl",
    "config.yaml",
    "result.json",
)


@dataclass(frozen=True)
class Command:
    """One that writes into DISK; RUN is a finished run there, BENCH a finished benchmark."""

    name: str
    arguments: str
    resume: str = ""
    """What is added when it is repeated."""

    def start(self, work: Path, disk: Path, *more: str) -> subprocess.Popen[str]:
        places = {"DISK": str(disk), "RUN": str(disk / "run"), "BENCH": str(disk / "bench")}
        words = self.arguments.split()
        words = [place_in(word, places) for word in words]
        return subprocess.Popen(  # noqa: S603  (ourselves)
            [*METARL, *words, *more],
            cwd=work,
            text=True,
            encoding="utf-8",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def again(self, work: Path, disk: Path) -> bool:
        """Whether it works when it is repeated."""
        process = self.start(work, disk, *self.resume.split())
        _, said = process.communicate()
        if process.returncode:
            print(f"    repeated: {said.strip()[-300:]}")
        return process.returncode == 0


TRAIN = Command("train", "train small.yaml --quiet --out DISK/new", "--resume")
COMMANDS = (
    TRAIN,
    Command("train --seeds", "train small.yaml --quiet --seeds 0,1 --out DISK/new", "--resume"),
    Command("benchmark", "benchmark suite.yaml --quiet --out DISK/new", "--resume"),
    Command("tune", "tune small.yaml --quiet --space space.yaml --trials 2 --out DISK/new"),
    Command("evaluate", "evaluate RUN --tasks 5"),
    Command("plot", "plot RUN --out DISK/new --format png,svg"),
    Command("render", "render RUN --out DISK/new.png"),
    Command("video", "render RUN --out DISK/new.gif"),
    Command("export", "export RUN DISK/new.zip --onnx"),
    Command(
        "report",
        "report BENCH --out DISK/new.html --csv DISK/new.csv --latex DISK/new.tex "
        "--markdown DISK/new.md --figures DISK/new",
    ),
)


def place_in(word: str, places: dict[str, str]) -> str:
    for name, path in places.items():
        if word == name or word.startswith((f"{name}/", f"{name}.")):
            return path + word.removeprefix(name)
    return word


def told(process: subprocess.Popen[str]) -> str | None:
    """The last line of a command that has ended with lines of ours alone; else None, and it is
    shown."""
    _, said = process.communicate()
    lines = [x for x in said.strip().splitlines() if not PROGRESS.match(x)]
    clear = process.returncode in (1, 2) and lines and all(x.startswith("metarl: ") for x in lines)
    if clear and len(lines) <= 6:
        return lines[-1]
    print(f"    exit code {process.returncode}: {said.strip()[-600:]}")
    return None


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)  # noqa: S603, S607


@contextmanager
def small_disk(work: Path, mebibytes: int = 24) -> Iterator[Path]:
    """With the finished run and the finished benchmark."""
    disk = work / "disk"
    disk.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", disk)
    try:
        for name in ("run", "bench"):
            shutil.copytree(work / name, disk / name)
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)  # noqa: S603, S607


def fill(disk: Path, left: int) -> Path:
    """Leave `left` bytes free → the file to remove."""
    filler = disk / "filler"
    free = shutil.disk_usage(disk).free
    with filler.open("wb") as file:
        file.write(bytes(max(0, free - left)))
    return filler


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def whole_still(before: dict[str, bytes], disk: Path) -> bool:
    """Whether the finished run and benchmark are as they were, but for what a command replaces."""
    now = contents(disk / "run") | contents(disk / "bench")
    changed = [
        name for name, data in before.items() if now.get(name) != data and "evaluation" not in name
    ]
    if changed:
        print(f"    changed: {changed}")
    return not changed


def same_run(whole: Path, other: Path) -> bool:
    return same_state(whole, other) and numbers(whole) == numbers(other)


# -------------------------------------------------------------------------------------------------
# Faults: each yields (what was tried, whether it was survived)

Outcome = Iterator[tuple[str, bool]]


def full(work: Path, chance: random.Random, rounds: int) -> Outcome:
    """A disk with a random number of free bytes, which are too few; then with enough."""
    for command in COMMANDS:
        most = 400_000 if command in COMMANDS[:4] else 60_000
        for _ in range(rounds):
            left = chance.choice([0, 4096, chance.randrange(most)])
            with small_disk(work) as disk:
                before = contents(disk / "run") | contents(disk / "bench")
                filler = fill(disk, left)
                process = command.start(work, disk)
                line = told(process)
                enough = process.returncode == 0
                good = enough or (line is not None and "Traceback" not in line)
                good &= whole_still(before, disk)
                filler.unlink()
                good &= command.again(work, disk)
                if command is TRAIN:
                    good &= same_run(work / "whole", disk / "new")
                yield f"full: {command.name}", good
                print(f"  {command.name}, {left} bytes: {line}", flush=True)


def readonly(work: Path, chance: random.Random, rounds: int) -> Outcome:
    """A disk that is mounted read-only; training also when it becomes so."""
    for command in COMMANDS:
        with small_disk(work) as disk:
            before = contents(disk)
            mount("-o", "remount,ro", disk)
            line = told(command.start(work, disk))
            good = line is not None and contents(disk) == before
            mount("-o", "remount,rw", disk)
            good &= command.again(work, disk)
            yield f"read-only: {command.name}", good
            print(f"  {command.name}: {line}", flush=True)
    for _ in range(rounds):
        with small_disk(work) as disk:
            process = TRAIN.start(work, disk)
            wait_for(disk / "new" / "metrics.jsonl")
            time.sleep(chance.uniform(0, 0.5))
            # what is open for writing keeps a disk from being remounted, but not in this way
            mount("--bind", disk, disk)
            mount("-o", "remount,bind,ro", disk)
            line = told(process)
            subprocess.run(["umount", "-l", str(disk)], check=True)  # noqa: S603, S607
            good = TRAIN.again(work, disk) and same_run(work / "whole", disk / "new")
            yield "read-only in mid-run", good and line is not None
            print(f"  in mid-run: {line}", flush=True)


def gone(work: Path, chance: random.Random, rounds: int) -> Outcome:
    """A run folder that is moved away in mid-run, and back."""
    for _ in range(rounds):
        folder = work / "gone"
        shutil.rmtree(folder, ignore_errors=True)
        process = TRAIN.start(work, folder)
        wait_for(folder / "new" / "metrics.jsonl")
        time.sleep(chance.uniform(0, 0.5))
        (folder / "new").rename(folder / "away")
        line = told(process)
        shutil.rmtree(folder / "new", ignore_errors=True)
        (folder / "away").rename(folder / "new")
        good = TRAIN.again(work, folder) and same_run(work / "whole", folder / "new")
        yield "vanished in mid-run", good and line is not None
        print(f"  gone: {line}", flush=True)


def twice(work: Path, chance: random.Random, rounds: int) -> Outcome:
    """Two of the same at once: of those that train one is refused; else the files are whole."""
    for command in COMMANDS:
        with small_disk(work) as disk:
            first = command.start(work, disk)
            if command in COMMANDS[:4]:
                wait_for(disk / "new")
                time.sleep(chance.uniform(0.2, 1.0))
            second = command.start(work, disk)
            said = [one.communicate()[1] for one in (first, second)]
            codes = [first.returncode, second.returncode]
            refused = codes[1] in (1, 2) and "is in use" in said[1] and "Traceback" not in said[1]
            good = codes[0] == 0 and (refused if command in COMMANDS[:4] else codes[1] == 0)
            if command is TRAIN:
                good &= same_run(work / "whole", disk / "new")
            good &= not list(disk.rglob(".*.partial"))
            yield f"two at once: {command.name}", good
            print(f"  {command.name}: {codes} {said[1].strip()[-160:]}", flush=True)


def clock(work: Path, chance: random.Random, rounds: int) -> Outcome:
    """A clock that jumps by days at every look."""
    for _ in range(rounds):
        folder = work / "clock"
        shutil.rmtree(folder, ignore_errors=True)
        program = CLOCK.format(seed=chance.randrange(1000))
        arguments = ["train", "small.yaml", "--quiet", "--out", str(folder)]
        subprocess.run(  # noqa: S603  (ourselves)
            [sys.executable, "-c", program, *arguments, "--resume"],
            cwd=work,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        yield "clock that jumps", same_run(work / "whole", folder)


def damage(work: Path, chance: random.Random, rounds: int) -> Outcome:
    """A run of which a file is cut short or overwritten in part: resumed, it ends the same."""
    for name in DAMAGED:
        for _ in range(rounds):
            folder = work / "damaged"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(work / "whole", folder / "new")
            file = folder / "new" / name
            if name != "result.json":
                (folder / "new" / "result.json").unlink()
            data = bytearray(file.read_bytes())
            place = chance.randrange(len(data))
            if chance.random() < 0.5:
                del data[place:]
            else:
                data[place : place + 64] = chance.randbytes(len(data[place : place + 64]))
            file.write_bytes(data)
            process = TRAIN.start(work, folder, "--resume")
            _, said = process.communicate()
            lines = said.strip().splitlines()
            good = all(line.startswith("metarl: ") for line in lines) and process.returncode == 0
            good = good and same_state(work / "whole", folder / "new")
            if name not in ("metrics.jsonl", "checkpoints/best.pt"):
                good = good and numbers(work / "whole") == numbers(folder / "new")
            if not good:
                print(f"    exit code {process.returncode}: {said.strip()[-400:]}")
            yield f"damaged: {name}", good
            print(f"  {name}: {lines}", flush=True)


def wait_for(path: Path) -> None:
    while not (path.exists() and (path.is_dir() or path.stat().st_size)):
        time.sleep(0.01)


def prepare(work: Path) -> None:
    """Configurations, an undisturbed run, and a finished one and a benchmark to be read."""
    (work / "small.yaml").write_text(SMALL, encoding="utf-8")
    (work / "suite.yaml").write_text(SUITE, encoding="utf-8")
    (work / "space.yaml").write_text(SPACE, encoding="utf-8")
    for words in (
        "train small.yaml --quiet --out whole",
        "benchmark suite.yaml --quiet --out bench",
    ):
        command = [*METARL, *words.split()]
        subprocess.run(command, cwd=work, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    shutil.copytree(work / "whole", work / "run")


FAULTS: dict[str, Callable[[Path, random.Random, int], Outcome]] = {
    fault.__name__: fault for fault in (full, readonly, gone, twice, clock, damage)
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS))
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    tried: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        prepare(work)
        for name in chosen.only:
            for what, good in FAULTS[name](work, random.Random(chosen.seed), chosen.rounds):  # noqa: S311
                tried[what] += 1
                survived[what] += good
                if not good:
                    print(f"FAILED: {what}", flush=True)
    for what, count in tried.items():
        print(f"| {what} | {count} | {survived[what]} |")
    print(json.dumps({"tried": sum(tried.values()), "survived": sum(survived.values())}))
    sys.exit(tried != survived)


if __name__ == "__main__":
    main()
