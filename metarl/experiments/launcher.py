"""Several runs of one configuration, which differ in their seeds."""

import re
from pathlib import Path

from metarl.core.errors import ConfigError, MetaRLError, note, quoted
from metarl.experiments.folder import RunFolder
from metarl.experiments.processes import Ended, Job, Launch, run_jobs
from metarl.experiments.workers import ray_engine

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


def launch_of(launcher: str) -> Launch:
    """What runs jobs by this name, local or ray.

    Raises:
        ConfigError: another name, or Ray is not installed.
    """
    if launcher == "local":
        return run_jobs
    if launcher == "ray":
        launch: Launch = ray_engine().run_jobs_on_ray
        return launch
    raise ConfigError(f"--launcher {quoted(launcher)}: there is: local, ray")


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
    launcher: str = "local",
    cpus: float = 1.0,
) -> None:
    """One process a seed, `jobs` of them at a time; see `run_jobs`.

    With another `launcher` than local a seed that is lost goes on elsewhere, so every seed is one
    that goes on, and its output is in ``seed-0.log`` and so on.

    Raises:
        MetaRLError: some ended with an error.
        KeyboardInterrupt: after Ctrl-C, and SystemExit after the other signals.
    """
    launch, elsewhere = launch_of(launcher), launcher != "local"
    folders = [out / f"seed-{seed}" for seed in seeds]
    if elsewhere and not resume:
        for folder in folders:
            RunFolder(folder).require_empty()
    flags = ["--resume"] * (resume or elsewhere)
    flags += ["--quiet"] * (quiet or elsewhere) + ["--no-pictures"] * (not pictures)
    flags.append(f"--grace={grace:g}")
    commands = []
    for seed, folder in zip(seeds, folders, strict=True):
        arguments = ["train", config, *overrides, f"seed={seed}", "--out", str(folder), *flags]
        log = folder.with_suffix(".log").absolute() if elsewhere else None
        commands.append(Job(arguments, log, cpus=cpus))

    def tell(end: Ended) -> None:
        if elsewhere and not quiet:
            how = "ended" if end.code == 0 else f"failed (exit code {end.code})"
            note(f"seed {seeds[end.place]} has {how}: {commands[end.place].log}")

    codes = launch(commands, jobs, grace, tell)
    failed = [str(seed) for seed, code in zip(seeds, codes, strict=True) if code]
    if failed:
        raise MetaRLError(f"seeds {', '.join(failed)} ended with an error; see above")
