"""A benchmark that is killed at random moments ends with the numbers of one that is not.

    python benchmarks/killed_benchmark.py [--suite smoke] [--kills 10] [--out bench/killed]
        [--disturbed=--launcher=ray]

Prints whether the tables are the same bytes, and whether a result was written twice. An option of
--disturbed is given to the killed benchmark alone.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

METARL = [sys.executable, "-m", "metarl"]


def command(suite: str, out: Path, jobs: int, *more: str) -> list[str]:
    command = [*METARL, "benchmark", suite, "--out", str(out), "--jobs", str(jobs), "--resume"]
    return [*command, *more]


def table(out: Path) -> bytes:
    """What `metarl report` writes as CSV."""
    path = out / "scores.csv"
    report = [*METARL, "report", str(out), "--csv", str(path)]
    subprocess.run(report, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  (ourselves)
    return path.read_bytes()


def results(out: Path) -> dict[Path, int]:
    """When each was written."""
    return {path: path.stat().st_mtime_ns for path in out.glob("*/*/*/result.json")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="smoke")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("bench/killed"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--disturbed", action="append", default=[], metavar="OPTION")
    chosen = parser.parse_args()
    whole, killed = chosen.out / "whole", chosen.out / "killed"

    began = time.monotonic()
    subprocess.run(command(chosen.suite, whole, chosen.jobs), check=True)  # noqa: S603  (ourselves)
    seconds = time.monotonic() - began

    again = command(chosen.suite, killed, chosen.jobs, *chosen.disturbed)
    rng = random.Random(0)  # noqa: S311  (moments, not secrets)
    known: dict[Path, int] = {}
    rewritten = 0
    for number in range(chosen.kills):
        process = subprocess.Popen(again)  # noqa: S603
        time.sleep(rng.uniform(2, max(20, 2 * seconds / chosen.kills)))  # most begin to learn
        ended = process.poll() is not None
        process.kill()
        process.wait()
        now = results(killed)
        rewritten += sum(now[path] != written for path, written in known.items())
        known = now
        print(f"kill {number + 1}: {len(now)} results{', it was over' * ended}", flush=True)
    subprocess.run(again, check=True)  # noqa: S603
    now = results(killed)
    rewritten += sum(now[path] != written for path, written in known.items())
    print(f"same table: {table(whole) == table(killed)}; results written again: {rewritten}")


if __name__ == "__main__":
    main()
