"""Commands that compare agents on suites of problems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metarl.cli.app import command
from metarl.cli.options import AsJson, Jobs, Launcher, at_once, watch_ray
from metarl.core.errors import CheckpointError


@command
def benchmark(
    suite: Annotated[str, typer.Argument(help="a shipped name, such as smoke, or a .yaml file")],
    only: Annotated[
        str, typer.Option(help="agents or problems, such as rl2,maml; random actions stay")
    ] = "",
    seeds: Annotated[
        str | None, typer.Option(help="such as 0-4 or 0,1,2 (default: the suite's)")
    ] = None,
    jobs: Jobs = None,
    launcher: Launcher = "local",
    out: Annotated[Path | None, typer.Option(help="folder (default: bench/SUITE)")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print what would be run, and the expected hours")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with what is missing in the folder")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress display")] = False,
) -> None:
    """Train and evaluate all agents of a suite; exit code 1 if a run has failed."""
    from metarl.benchmark.suite import read_suite
    from metarl.experiments.interruption import GRACE
    from metarl.experiments.launcher import launch_of, read_seeds

    read = read_suite(suite)
    names = [name for name in only.split(",") if name]
    cells = read.cells(None if seeds is None else read_seeds(seeds), names)

    from metarl.benchmark.forecast import forecast, forecast_table
    from metarl.benchmark.results import read_error
    from metarl.benchmark.runner import Benchmark
    from metarl.benchmark.table_texts import print_table

    run = Benchmark(read, cells, out or Path("bench") / read.name)
    if dry_run:
        print_table(forecast_table(forecast(run), read))
        return
    watch_ray(launcher, "local", GRACE)
    failed = run.run(at_once(jobs, launcher), resume, quiet, launch=launch_of(launcher))
    print(f"benchmark: {run.out} (metarl report {run.out})")
    if failed:
        print(f"{len(failed)} runs failed:")
        for cell in failed:
            print(f"  {cell}: {read_error(run.out / cell.folder)}")
        raise typer.Exit(1)


@command
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="folder of a benchmark; then older ones, to tell what has changed"),
    ],
    out: Annotated[Path | None, typer.Option(help="page (default: FOLDER/report.html)")] = None,
    latex: Annotated[Path | None, typer.Option(help="also the tables of scores, .tex")] = None,
    csv: Annotated[Path | None, typer.Option(help="also all scores, a row a quantity")] = None,
    markdown: Annotated[Path | None, typer.Option(help="also the tables of scores, .md")] = None,
    figures: Annotated[
        Path | None, typer.Option(help="also the figures: a folder for .svg and .pdf")
    ] = None,
) -> None:
    """Write what a benchmark has found as one HTML page."""
    from metarl.viz.report import write_report

    written = write_report(folders, out, latex=latex, csv=csv, markdown=markdown, figures=figures)
    for path in written:
        print(path)


@command
def compare(
    old: Annotated[Path, typer.Argument(help="folder of the older benchmark")],
    new: Annotated[Path, typer.Argument(help="folder of the newer one")],
    as_json: AsJson = False,
) -> None:
    """Say what became worse or better between two benchmarks; exit code 1 if something is worse,
    2 if nothing can be compared."""
    from metarl.benchmark.change_table import change_table, changes_between, changes_to_dict
    from metarl.benchmark.results import read_benchmark
    from metarl.benchmark.table_texts import print_table

    before, after = read_benchmark(old), read_benchmark(new)
    changes = changes_between(before, after)
    if as_json:
        from metarl.core.texts import to_json

        print(to_json(changes_to_dict(before, after, changes)))
    else:
        print_table(change_table(before, after, changes))
    if all(change.verdict == "not judged" for change in changes):
        raise CheckpointError(f"{old} and {new} share no cell that can be compared")
    if any(change.verdict == "worse" for change in changes):
        raise typer.Exit(1)
