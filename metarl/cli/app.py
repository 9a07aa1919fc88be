"""The program that the commands belong to, and how it ends."""

import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer

from metarl.core.errors import DISTRIBUTION, MetaRLError, shown
from metarl.core.texts import open_streams
from metarl.experiments.processes import follow_parent

app = typer.Typer(
    name="metarl",
    help="Meta-reinforcement learning: agents that adapt to a new task in a few episodes.",
    no_args_is_help=True,
    context_settings={"max_content_width": 120},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_OUT_OF_MEMORY = re.compile("allocate|out of memory|storage size|array is too big", re.IGNORECASE)
"""What torch says, and NumPy."""


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command of the program; the list of commands has its docstring, uncut."""
    return app.command(short_help=" ".join((function.__doc__ or "").split()))(function)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"{DISTRIBUTION} {version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="say which version it is"
        ),
    ] = False,
) -> None:
    """What all commands share."""


def main() -> None:
    """Entry point: what the user can fix ends in one clear line each and exit code 2."""
    open_streams()
    follow_parent()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except MetaRLError as error:
        _exit(str(error))
    except OSError as error:
        with suppress(OSError):  # what could not be printed is not tried again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _exit("" if isinstance(error, BrokenPipeError) else str(error))  # the reader has gone
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        reason = shown(" ".join(str(error).split()), 200)
        _exit(f"memory ran out; choose smaller sizes ({reason})")


def _exit(lines: str) -> NoReturn:
    for line in lines.splitlines():
        print(f"metarl: {line}", file=sys.stderr)
    sys.exit(2)
