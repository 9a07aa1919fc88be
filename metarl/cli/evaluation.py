"""Commands that measure what a run can do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from metarl.cli.app import command
from metarl.cli.completion import several_agents
from metarl.cli.options import (
    AsJson,
    Changes,
    Device,
    Episodes,
    Mode,
    Seed,
    Split,
    TestEpisodes,
    TestMode,
    Trust,
    opening_of,
    showing_progress,
    split_collecting,
    watch_ray,
)
from metarl.core.texts import to_json


@command
def evaluate(
    run: Annotated[Path, typer.Argument(help="run folder, or a folder of several seeds")],
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[family=FILE.py:CLASS] [collector=ray workers=W shard_rows=R]",
            help="in place of the run's family; and who evaluates",
        ),
    ] = None,
    split: Split = "test",
    tasks: Annotated[
        str | None,
        typer.Option(
            help="how many tasks (default: the run's test_tasks), or a file of task rows, .csv or "
            ".npy"
        ),
    ] = None,
    episodes: Episodes = None,
    test_episodes: TestEpisodes = None,
    seed: Seed = 0,
    mode: Mode = None,
    test_mode: TestMode = None,
    against: Annotated[
        str,
        typer.Option(
            "--against",
            "--beside",
            help="others on the same tasks: agents by name, runs by path",
            autocompletion=several_agents,
        ),
    ] = "",
    baselines: Annotated[
        bool,
        typer.Option(help="also random actions, the run without adaptation, and other splits"),
    ] = True,
    device: Device = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a run on unseen tasks, beside others; the folder keeps evaluation.json."""
    from metarl.core.disk import write_atomically
    from metarl.data.task_rows import which_tasks
    from metarl.experiments.comparison import compare
    from metarl.experiments.folder import EVALUATION
    from metarl.experiments.tables import print_comparison

    changes, collecting = split_collecting(changes)
    opening = replace(opening_of(device, trust, changes), collecting=collecting)
    collector = "ray" if "collector=ray" in collecting else "local"
    watch_ray("local", collector, grace=0.0, remedy="repeat it")
    with showing_progress():
        comparison = compare(
            run,
            [name for name in against.split(",") if name],
            baselines,
            opening,
            split=split,
            tasks=None if tasks is None else which_tasks(tasks, split),
            episodes=episodes,
            test_episodes=test_episodes,
            mode=mode,
            test_mode=test_mode,
            seed=seed,
        )
    if as_json:
        print(to_json({"run": str(run), **comparison.to_dict()}))
    else:
        print_comparison(comparison)
    if run.is_dir():
        kept = {"run": str(run), **comparison.to_dict(arrays=False)}
        write_atomically(run / EVALUATION, to_json(kept).encode())


@command
def options(
    run: Annotated[Path, typer.Argument(help="run folder of an agent that acts through options")],
    changes: Changes = None,
    out: Annotated[
        Path | None, typer.Option(help="also draw where each acts and goes: a picture, .png")
    ] = None,
    split: Split = "test",
    tasks: Annotated[int, typer.Option(min=1, help="how many tasks")] = 50,
    episodes: Episodes = None,
    seed: Seed = 0,
    mode: Mode = None,
    device: Device = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Say what the options of a run's agent do: how often, how long, what follows, and where."""
    from metarl.evaluation.option_usage import measure_option_usage
    from metarl.experiments.building import open_run
    from metarl.experiments.tables import print_usage

    loaded = open_run(run, opening_of(device, trust, changes))
    family = loaded.family()
    if out is not None:
        from metarl.viz.option_map import check_drawable, draw_option_map

        check_drawable(family, out)
    protocol = loaded.protocol(split=split, tasks=tasks, episodes=episodes, mode=mode, seed=seed)
    with showing_progress():
        usage = measure_option_usage(loaded.agent, family, protocol)
    content = {"run": str(run), **usage.to_dict()}
    if out is not None:
        content["picture"] = str(draw_option_map(usage, out))
    if as_json:
        print(to_json(content))
    else:
        print_usage(content)
