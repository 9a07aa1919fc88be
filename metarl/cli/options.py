"""Arguments that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from metarl.core.errors import ConfigError

if TYPE_CHECKING:
    from metarl.experiments.loading import Opening

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="such as agent.memory_width=128"),
]
Split = Annotated[str, typer.Option(help="train, validation, test or ood")]
Episodes = Annotated[
    int | None, typer.Option(min=1, help="episodes of a trial (default: the run's)")
]
TestEpisodes = Annotated[
    int | None,
    typer.Option(min=0, help="further episodes, which only test (default: the run's)"),
]
Mode = Annotated[
    Literal["sample", "greedy"] | None,
    typer.Option(help="how actions are chosen (default: the run's)"),
]
TestMode = Annotated[
    Literal["sample", "greedy"] | None,
    typer.Option(help="the same in further episodes, or in the last round (default: as --mode)"),
]
Seed = Annotated[int, typer.Option(help="of the tasks and of all other randomness")]
Device = Annotated[
    str | None, typer.Option(help="where the agent acts, cpu or cuda (default: the run's)")
]
Trust = Annotated[
    bool, typer.Option("--trust", help="execute code that came with the run; look at it first")
]
Changes = Annotated[
    list[str] | None,
    typer.Argument(metavar="[family=FILE.py:CLASS]", help="in place of the run's family"),
]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="how many runs at once (default: 1; on Ray as many as have CPUs)"),
]
Launcher = Annotated[
    Literal["local", "ray"],
    typer.Option(help="where runs are run: here, or on a Ray cluster ($RAY_ADDRESS)"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


@contextmanager
def showing_progress() -> Iterator[None]:
    """On stderr, while a command works that prints its result at the end."""
    from metarl.core.progress import listening
    from metarl.experiments.logs import Display

    with Display(lasting=False) as display, listening(display.tell):
        yield


def at_once(jobs: int | None, launcher: str) -> int:
    """How many runs at once; 0: as many as have CPUs."""
    return jobs or (1 if launcher == "local" else 0)


def watch_ray(
    launcher: str, collector: str, grace: float, remedy: str = "go on with --resume"
) -> None:
    """Where Ray is used, the command goes on in a process of its own: Ray may end it at any time.

    `remedy`: what to do then.

    Raises:
        typer.Exit: in this process, when the other one has ended.
    """
    if "ray" not in (launcher, collector):
        return
    from metarl.experiments.processes import run_watched

    code = run_watched(sys.argv[1:], grace, remedy)
    if code is not None:
        raise typer.Exit(code)


def opening_of(device: str | None, trust: bool, changes: list[str] | None) -> Opening:
    """How a run is opened; `changes` may name another family."""
    from metarl.experiments.loading import Opening

    family = None
    for text in changes or []:
        key, _, family = text.partition("=")
        if key != "family" or not family:
            raise ConfigError(f"{text!r}: only the family of a run can be another one: family=NAME")
    return Opening(device, trust, family)


def split_collecting(changes: list[str] | None) -> tuple[list[str], tuple[str, ...]]:
    """The changes of a run's family, and those that say who evaluates it."""
    from metarl.experiments.loading import COLLECTING

    others: list[str] = []
    collecting: list[str] = []
    for text in changes or []:
        (collecting if text.partition("=")[0] in COLLECTING else others).append(text)
    return others, tuple(collecting)


def parse_steps(text: str | None) -> list[int] | None:
    """Such as 20,50,100.

    Raises:
        ConfigError: anything but numbers of steps.
    """
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise ConfigError(f"--times: {text!r} names no steps; write them such as 20,50,100")
    return sorted({int(word) for word in words})
