"""What a result depends on beside its configuration: versions, commits, the machine."""

import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import metarl
from metarl.core.errors import DISTRIBUTION

_PACKAGES = (
    "torch",
    "mujoco",
    "gymnasium",
    "numpy",
    "scipy",
    "metaworld",
    "gymnasium-robotics",
    "minigrid",
)


def provenance() -> dict[str, Any]:
    """Versions of packages, the git commits of metarl and of the project that uses it, the machine,
    and the command."""
    return {
        "versions": dict(_versions()),
        "git_commit": {
            "metarl": git_commit(Path(metarl.__file__).resolve().parent),
            "project": git_commit(Path.cwd()),
        },
        "machine": _machine(),
        "command": " ".join(sys.argv),
    }


def core_seconds() -> float:
    """Processor time of this process, and of those that it has waited for."""
    return sum(os.times()[:4])


def peak_mebibytes() -> float | None:
    """The most memory that this process has held; None where Linux does not tell it."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    held = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))
    return int(held[1]) / 1024 if held else None


def git_commit(folder: Path) -> str | None:
    """The commit that `folder` is at, with a + where files differ from it.

    None where git has no file of the folder.
    """
    git = ["git", "-C", str(folder)]
    try:
        if not _output([*git, "ls-files", "."]):
            return None
        commit = _output([*git, "rev-parse", "HEAD"])
        changed = _output([*git, "status", "--porcelain", "--untracked-files=no"])
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + "+" if changed else commit


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, check=True, timeout=10)  # noqa: S603  (git)
    return done.stdout.decode(errors="replace").strip()


@cache
def _versions() -> dict[str, str]:
    versions = {"metarl": version(DISTRIBUTION), "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue  # an extra that is not installed
    return versions


def _machine() -> dict[str, Any]:
    """Not its name: results are handed on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": gpu,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    for line in (
        cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        if cpuinfo.is_file()
        else []
    ):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
