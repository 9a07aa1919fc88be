"""Commands that say what there is, and whether it is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from metarl.cli import completion
from metarl.cli.app import command
from metarl.cli.options import Overrides, showing_progress
from metarl.core.texts import terminal_width

if TYPE_CHECKING:
    from metarl.config.registry import Kind


@command
def envs(
    name: Annotated[
        str | None, typer.Argument(help="family to describe", autocompletion=completion.families)
    ] = None,
) -> None:
    """List the families of tasks, or describe one with all its options."""
    _list_or_describe("family", name)


@command
def agents(
    name: Annotated[
        str | None, typer.Argument(help="agent to describe", autocompletion=completion.agents)
    ] = None,
) -> None:
    """List the agents, or describe one with all its options."""
    _list_or_describe("agent", name)


@command
def config(
    name: Annotated[
        str | None,
        typer.Argument(
            help="configuration; without one, the shipped ones are listed",
            autocompletion=completion.configurations,
        ),
    ] = None,
    overrides: Overrides = None,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="NAME is a family: one to begin with, and why")
    ] = False,
) -> None:
    """Print a complete configuration, every key explained."""
    from metarl.config.files import load_config, to_yaml
    from metarl.config.overrides import read_options
    from metarl.config.yaml_text import fold_comments

    if suggest:
        from metarl.experiments.suggestion import suggest as suggest_for

        chosen = read_options(overrides or [], "family")["family"]
        print(fold_comments(suggest_for(name or "", chosen), terminal_width()), end="")
    elif name is None:
        from metarl.config.catalogue import configurations

        print(configurations(terminal_width()))
    else:
        text = to_yaml(load_config(name, overrides or []))
        print(fold_comments(text, terminal_width()), end="")


@command
def check(
    name: Annotated[
        str,
        typer.Argument(
            help="a family or an agent by name, or my_file.py:Mine",
            autocompletion=completion.families_and_agents,
        ),
    ],
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="its options, such as horizon=20"),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(help="that an agent is tried on (default: a small one that it accepts)"),
    ] = None,
) -> None:
    """Look at every promise that a family or an agent makes; exit code 1 if one is broken."""
    from metarl.config.overrides import read_options
    from metarl.config.registry import find_either

    found = find_either(name)
    chosen = read_options(options or [], found.kind)[found.kind]
    if found.kind == "agent":
        chosen = {**found.settings.small, **chosen}
    valid = found.configure(chosen)

    from metarl.checker.check import check_found  # imports torch, which no mistake above waits for

    with showing_progress():
        report = check_found(found, valid, family)
    print(report)
    if not report.ok:
        raise typer.Exit(1)


def _list_or_describe(kind: Kind, name: str | None) -> None:
    from metarl.config.catalogue import description, listing

    width = terminal_width()
    print(listing(kind, width) if name is None else description(kind, name, width))
