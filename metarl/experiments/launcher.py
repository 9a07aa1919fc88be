"""Several runs of one configuration, which differ in their seeds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from metarl.core.errors import MetaRLError


def read_seeds(text: str) -> list[int]:
    """Those of a list such as 0,1,2.

    Raises:
        MetaRLError: no such list.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise MetaRLError(
            f"--seeds {text!r}: write whole numbers with commas, such as 0,1,2"
        ) from None


def train_seeds(
    config: str,
    overrides: list[str],
    out: Path,
    seeds: list[int],
    jobs: int,
    resume: bool,
    quiet: bool,
) -> None:
    """One process a seed, `jobs` of them at a time.

    Raises:
        MetaRLError: some ended with an error.
    """
    waiting, running, failed = list(seeds), dict[int, "subprocess.Popen[bytes]"](), list[int]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                seed = waiting.pop(0)
                folder = out / f"seed-{seed}"
                flags = ["--resume"] * resume + ["--quiet"] * quiet
                command = [
                    sys.executable,
                    "-m",
                    "metarl",
                    "train",
                    config,
                    *overrides,
                    f"seed={seed}",
                    "--out",
                    str(folder),
                ]
                running[seed] = subprocess.Popen([*command, *flags])  # noqa: S603  (our own program)
            seed, process = next(iter(running.items()))
            if process.wait() != 0:
                failed.append(seed)
            del running[seed]
    finally:
        for process in running.values():
            process.terminate()
    if failed:
        raise MetaRLError(f"seeds {', '.join(map(str, failed))} ended with an error; see above")
