"""Runs of all agents that are killed or interrupted at random moments, and resumed.

    python benchmarks/interruptions.py [--kills 20] [--times 1] [--signals 20] [--stops 6]
        [--seed 0] [--disturbed KEY=VALUE …]

Each must end as the undisturbed run did: the same parameters, the same numbers in its log. After a
signal that can be caught, no finished iteration may be lost. A stopped run (SIGSTOP) goes on after
a second. With --times each run is killed so often. What --disturbed says, such as another
collector, holds for the disturbed runs alone.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_flatten

from metarl.experiments.checkpoints import load
from metarl.experiments.logs import METRICS, read_metrics

SMALL = {
    "rl2": {"memory_width": 8, "trials": 6, "epochs": 1, "minibatches": 2},
    "ppo": {"trials": 6, "epochs": 1, "minibatches": 2},
    "dac": {"trials": 6, "epochs": 1, "minibatches": 2, "options": 2},
    "maml": {"tasks": 2, "episodes_per_task": 2, "hidden_sizes": [8]},
    "promp": {"tasks": 2, "episodes_per_task": 2, "hidden_sizes": [8]},
    "meta-sgd": {"tasks": 2, "episodes_per_task": 2, "hidden_sizes": [8]},
    "reptile": {"tasks": 2, "episodes_per_task": 2, "hidden_sizes": [8]},
    "famp": {"tasks": 2, "episodes_per_task": 2, "options": 2, "hidden_sizes": [8]},
    "pearl": {"tasks": 2, "updates": 3, "hidden_sizes": [8], "encoder_sizes": [8]},
    "sac": {"tasks": 2, "updates": 3, "hidden_sizes": [8]},
}


def configuration(agent: str) -> dict[str, Any]:
    chosen = {
        "agent": {"name": agent, **SMALL[agent]},
        "family": {"name": "point", "horizon": 10},
        "episodes": 2,
        "iterations": 60,
        "validate_every": 4,
        "validation_tasks": 10,
        "test_tasks": 10,
        "checkpoint_every": 3,
    }
    if agent in ("pearl", "sac"):
        chosen["train_tasks"] = 4
    return chosen


def numbers(folder: Path) -> list[dict[str, Any]]:
    """The log without what the clock says."""
    return [
        {key: value for key, value in record.items() if "second" not in key}
        for record in read_metrics(folder)
    ]


def same_state(first: Path, second: Path) -> bool:
    """Whether two runs ended with the same agent."""
    leaves = []
    for folder in (first, second):
        state = load(folder / "checkpoints" / "latest.pt")["agent"]
        leaves.append(tree_flatten(state)[0])
    pairs = zip(*leaves, strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def start(config: Path, folder: Path, overrides: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "metarl", "train", str(config), *overrides]
    command += ["--out", str(folder), "--quiet", "--resume", "--no-pictures"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603  (ourselves)


def disturb(
    config: Path, folder: Path, overrides: Sequence[str], number: int, delay: float
) -> tuple[int, int]:
    """Send a signal some seconds after learning began → iterations logged, and those kept."""
    log = folder / METRICS
    before = log.stat().st_ino if log.is_file() else None
    process = start(config, folder, overrides)
    while process.poll() is None and not (log.is_file() and log.stat().st_ino != before):
        time.sleep(0.01)  # a run that is resumed writes its log anew
    time.sleep(delay)
    process.send_signal(number)
    if number == signal.SIGSTOP:
        time.sleep(1)
        process.send_signal(signal.SIGCONT)
    process.wait()
    logged = read_metrics(folder)
    kept = load(folder / "checkpoints" / "latest.pt")["counters"]["iterations"]
    return int(logged[-1]["iteration"]) if logged else 0, int(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--signals", type=int, default=20)
    parser.add_argument("--stops", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--disturbed", nargs="+", default=[], metavar="KEY=VALUE")
    chosen = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or, in the background, all ignore it
    chance = random.Random(chosen.seed)  # noqa: S311  (no secret)
    kinds = [signal.SIGKILL] * chosen.kills
    kinds += [[signal.SIGTERM, signal.SIGINT, signal.SIGHUP][i % 3] for i in range(chosen.signals)]
    kinds += [signal.SIGSTOP] * chosen.stops
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        wholes: dict[str, tuple[Path, float]] = {}
        for place, kind in enumerate(kinds):
            agent = list(SMALL)[place % len(SMALL)]
            config = Path(scratch, f"{agent}.yaml")
            if agent not in wholes:
                config.write_text(json.dumps(configuration(agent)), encoding="utf-8")
                whole = Path(scratch, agent)
                start(config, whole).wait()
                wholes[agent] = whole, read_metrics(whole)[-1]["seconds"]
            whole, seconds = wholes[agent]
            disturbed = Path(scratch, f"disturbed-{place}")
            for _ in range(chosen.times if kind == signal.SIGKILL else 1):
                delay = chance.uniform(0, seconds / chosen.times)
                logged, kept = disturb(config, disturbed, chosen.disturbed, kind, delay)
            start(config, disturbed, chosen.disturbed).wait()
            good = same_state(whole, disturbed) and numbers(whole) == numbers(disturbed)
            good &= kind == signal.SIGKILL or kept >= logged
            failed += not good
            verdict = "equal" if good else "DIFFERS"
            moment = f"{agent:9} {kind.name} after {delay:4.1f} s"
            print(f"{moment}: {logged} logged, {kept} kept, {verdict}", flush=True)
    print(f"{len(kinds) - failed} of {len(kinds)} as undisturbed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
