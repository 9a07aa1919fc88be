"""Several runs of one configuration, which differ in their seeds."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from metarl.core.errors import ConfigError, MetaRLError, quoted

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
) -> None:
    """One process a seed, `jobs` of them at a time; the next begins when any has ended.

    Raises:
        MetaRLError: some ended with an error.
    """
    flags = ["--resume"] * resume + ["--quiet"] * quiet
    processes: list[subprocess.Popen[bytes]] = []

    def train_seed(seed: int) -> int:
        folder = str(out / f"seed-{seed}")
        command = [sys.executable, "-m", "metarl", "train", config, *overrides]
        process = subprocess.Popen([*command, f"seed={seed}", "--out", folder, *flags])  # noqa: S603  (our own program)
        processes.append(process)
        return process.wait()

    pool = ThreadPoolExecutor(jobs)
    try:
        codes = list(pool.map(train_seed, seeds))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()  # nothing to those that have ended
    failed = [str(seed) for seed, code in zip(seeds, codes, strict=True) if code]
    if failed:
        raise MetaRLError(f"seeds {', '.join(failed)} ended with an error; see above")
