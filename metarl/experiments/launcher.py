"""Several runs of one configuration, which differ in their seeds."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from metarl.core.errors import ConfigError, MetaRLError, quoted
from metarl.experiments.interruption import ending, on_signals

_SEED = re.compile("[0-9]{1,19}")


def read_seeds(text: str) -> list[int]:
    """Those of a list such as 0,1,2.

    Raises:
        ConfigError: no such list.
    """
    seeds = [int(part) if _SEED.fullmatch(part.strip()) else -1 for part in text.split(",")]
    if min(seeds) < 0 or max(seeds) >= 2**63:
        raise ConfigError(
            f"--seeds {quoted(text)}: write whole numbers from 0 with commas, such as 0,1,2"
        )
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {quoted(text)}: the same seed gives the same run; give it once")
    return seeds


def train_seeds(
    config: str,
    overrides: list[str],
    out: Path,
    seeds: list[int],
    jobs: int,
    resume: bool,
    quiet: bool,
    grace: float,
) -> None:
    """One process a seed, `jobs` of them at a time; the next begins when any has ended.

    Signals are handed on: every run is saved, and no other begins.

    Raises:
        MetaRLError: some ended with an error.
        KeyboardInterrupt: after Ctrl-C, and SystemExit after the other signals.
    """
    flags = ["--resume"] * resume + ["--quiet"] * quiet + [f"--grace={grace:g}"]
    processes: list[subprocess.Popen[bytes]] = []
    signals: list[int] = []

    def end_all(number: int, _: object) -> None:
        signals.append(number)
        for process in processes:
            process.terminate()  # nothing to those that have ended

    def train_seed(seed: int) -> int:
        if signals:
            return 0
        folder = str(out / f"seed-{seed}")
        command = [sys.executable, "-m", "metarl", "train", config, *overrides]
        process = subprocess.Popen(  # noqa: S603  (our own program)
            [*command, f"seed={seed}", "--out", folder, *flags],
            start_new_session=True,  # or Ctrl-C would reach it twice
        )
        processes.append(process)
        if signals:  # since it was asked above
            process.terminate()
        return process.wait()

    pool = ThreadPoolExecutor(jobs)
    try:
        with on_signals(end_all):
            codes = list(pool.map(train_seed, seeds))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
    if signals:
        raise ending(signals[0])
    failed = [str(seed) for seed, code in zip(seeds, codes, strict=True) if code]
    if failed:
        raise MetaRLError(f"seeds {', '.join(failed)} ended with an error; see above")
