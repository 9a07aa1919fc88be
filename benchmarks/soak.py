"""Long runs that must stay as they began: their memory, open files, threads and speed.

    python benchmarks/soak.py [--minutes 20] [--out bench/soak] [--runs rl2 maml pearl]

A run of short iterations validates and writes a checkpoint all the time. From outside, every ten
seconds, Linux is asked what its process holds and how much processor time it has used. After a
fifth of the time as warm-up, by when PEARL's replay is full:

* memory: the slope of the means of every minute, with Student's interval of 95 %;
* open files and threads: the fewest and the most;
* speed: environment steps per processor second, the fastest minute of the last third over the
  fastest one of the first. Other work on the machine slows down processor seconds, too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median

from scipy.stats import linregress, t

OFTEN = ["validate_every=5", "checkpoint_every=2", "validation_tasks=50"]
ENDLESS = ["env_steps=null", "iterations=null", "minutes=100000"]
RUNS = {
    "rl2": [
        "rl2/bernoulli-bandit-k10-n10",
        "agent.trials=100",
        "agent.epochs=2",
        "agent.minibatches=2",
    ],
    "maml": ["maml/point", "agent.tasks=10", "agent.episodes_per_task=5"],
    "pearl": ["pearl/point-short", "agent.updates=20", "agent.capacity=2000", "train_tasks=100"],
}
EVERY = 10.0  # seconds between two samples
GROWTH = 5.0  # MiB an hour that are told from zero, and are still no leak
SLOWER = 0.9  # of the speed of the first third


@dataclass(frozen=True)
class Sample:
    """What a process held and had done at one moment."""

    seconds: float
    mebibytes: float  # resident
    files: int
    threads: int
    core_seconds: float
    env_steps: int
    iterations: int


def last_record(path: Path) -> dict:
    """The last whole line, read from the end: the log grows long."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return json.loads(file.read().rpartition(b"\n")[0].rpartition(b"\n")[2])


def sample(process: int, log: Path, began: float) -> Sample:
    folder = Path("/proc", str(process))
    status = dict(
        line.split(":", 1) for line in (folder / "status").read_text(encoding="utf-8").splitlines()
    )
    times = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
    record = last_record(log)
    return Sample(
        seconds=time.monotonic() - began,
        mebibytes=int(status["VmRSS"].split()[0]) / 1024,
        files=len(list((folder / "fd").iterdir())),
        threads=int(status["Threads"]),
        core_seconds=sum(map(int, times)) / os.sysconf("SC_CLK_TCK"),
        env_steps=record["env_steps"],
        iterations=record["iteration"],
    )


def watch(name: str, minutes: float, out: Path) -> list[Sample]:
    """Train for so long → what was seen, kept as NAME.jsonl."""
    folder = out / name
    command = [sys.executable, "-m", "metarl", "train", *RUNS[name], *OFTEN, *ENDLESS]
    process = subprocess.Popen(  # noqa: S603  (ourselves)
        [*command, "--out", str(folder), "--quiet"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,  # of the end that we ask for
    )
    log = folder / "metrics.jsonl"
    while process.poll() is None and not (log.is_file() and log.read_bytes().endswith(b"\n")):
        time.sleep(0.1)
    samples: list[Sample] = []
    began = time.monotonic()
    with (out / f"{name}.jsonl").open("w", encoding="utf-8") as file:
        while time.monotonic() - began < 60 * minutes:
            time.sleep(EVERY)
            if process.poll() is not None:
                sys.exit(f"{name} ended after {time.monotonic() - began:.0f} s")
            samples.append(sample(process.pid, log, began))
            print(json.dumps(asdict(samples[-1])), file=file, flush=True)
    process.send_signal(signal.SIGTERM)
    process.wait()
    return samples


def slope(samples: list[Sample]) -> tuple[float, float]:
    """MiB an hour, and half of its interval. The means of a minute are taken as independent."""
    minutes: dict[int, list[Sample]] = {}
    for seen in samples:
        minutes.setdefault(int(seen.seconds // 60), []).append(seen)
    hours = [mean(seen.seconds for seen in minute) / 3600 for minute in minutes.values()]
    held = [mean(seen.mebibytes for seen in minute) for minute in minutes.values()]
    fit = linregress(hours, held)
    return fit.slope, fit.stderr * t.ppf(0.975, len(hours) - 2)


def speeds(samples: list[Sample]) -> list[float]:
    """Environment steps per processor second, of each minute."""
    minutes = zip(samples, samples[round(60 / EVERY) :], strict=False)
    return [(b.env_steps - a.env_steps) / (b.core_seconds - a.core_seconds) for a, b in minutes]


def verdict(name: str, samples: list[Sample]) -> bool:
    """Print a row of the table → whether the run stayed as it began."""
    settled = samples[len(samples) // 5 :]
    growth, half = slope(settled)
    of_minutes = speeds(settled)
    third = len(of_minutes) // 3
    change = max(of_minutes[-third:]) / max(of_minutes[:third])
    files = {seen.files for seen in settled}
    threads = {seen.threads for seen in settled}
    leaks = growth - half > 0 and growth > GROWTH
    good = not leaks and len(threads) == 1 and max(files) - min(files) <= 1 and change > SLOWER
    held = [settled[0].mebibytes, settled[-1].mebibytes]
    cells = [
        name,
        f"{settled[-1].iterations:,}",
        f"{held[0]:.1f} → {held[1]:.1f}",
        f"{growth:+.1f} ± {half:.1f}",
        f"{min(files)}–{max(files)}",
        f"{min(threads)}–{max(threads)}",
        f"{median(of_minutes):,.0f}",
        f"{change:.3f}",
        "steady" if good else "NOT STEADY",
    ]
    print("|", " | ".join(cells), "|", flush=True)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=RUNS)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--out", type=Path, default=Path("bench/soak"))
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    heads = "run, iterations, MiB, MiB/h, files, threads, steps/core s, last/first, verdict"
    print("|", " | ".join(heads.split(", ")), "|")
    print("|---" * len(heads.split(", ")) + "|", flush=True)
    good = [verdict(name, watch(name, chosen.minutes, chosen.out)) for name in chosen.runs]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
