"""Several runs of one configuration, which differ in their seeds."""

import re
from pathlib import Path

from metarl.core.errors import ConfigError, MetaRLError, quoted
from metarl.experiments.processes import Job, run_jobs

_SEEDS = re.compile("([0-9]{1,19})(?:-([0-9]{1,19}))?")
_MOST = 1000


def read_seeds(text: str) -> list[int]:
    """Those of a list such as 0,1,2 or 0-4.

    Raises:
        ConfigError: no such list.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = _SEEDS.fullmatch(part.strip())
        first, last = (int(x or match[1]) for x in match.groups()) if match else (1, 0)
        if not first <= last < 2**63 or last - first >= _MOST:
            raise ConfigError(
                f"--seeds {quoted(text)}: write whole numbers from 0, such as 0,1,2 or 0-4"
            )
        seeds += range(first, last + 1)
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
    pictures: bool,
) -> None:
    """One process a seed, `jobs` of them at a time; see `run_jobs`.

    Raises:
        MetaRLError: some ended with an error.
        KeyboardInterrupt: after Ctrl-C, and SystemExit after the other signals.
    """
    flags = ["--resume"] * resume + ["--quiet"] * quiet + ["--no-pictures"] * (not pictures)
    flags.append(f"--grace={grace:g}")
    commands = [
        Job(
            [
                "train",
                config,
                *overrides,
                f"seed={seed}",
                "--out",
                str(out / f"seed-{seed}"),
                *flags,
            ]
        )
        for seed in seeds
    ]
    codes = run_jobs(commands, jobs, grace)
    failed = [str(seed) for seed, code in zip(seeds, codes, strict=True) if code]
    if failed:
        raise MetaRLError(f"seeds {', '.join(failed)} ended with an error; see above")
