"""Commands that train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metarl.cli.app import command
from metarl.cli.completion import configurations
from metarl.cli.options import (
    Device,
    Jobs,
    Launcher,
    Overrides,
    Trust,
    at_once,
    opening_of,
    watch_ray,
)
from metarl.core.errors import ConfigError, install_command
from metarl.experiments.interruption import GRACE


@command
def train(
    config: Annotated[
        str,
        typer.Argument(
            help="a .yaml file or a shipped name, such as rl2/bernoulli-bandit",
            autocompletion=configurations,
        ),
    ],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="run folder (default: runs/CONFIG-SEED)")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on where the run in the folder was stopped")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda")] = None,
    seeds: Annotated[
        str | None, typer.Option(help="several runs, such as 0,1,2, in folders seed-0 … of --out")
    ] = None,
    jobs: Jobs = None,
    launcher: Launcher = "local",
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress display")] = False,
    grace: Annotated[
        float,
        typer.Option(min=0, help="seconds to finish an iteration after Ctrl-C, SIGTERM or SIGHUP"),
    ] = GRACE,
    pictures: Annotated[
        bool,
        typer.Option(help="draw adaptation and a rollout for TensorBoard when the run has ended"),
    ] = True,
) -> None:
    """Train an agent as a configuration says."""
    from metarl.config.files import load_config

    chosen = list(overrides or [])
    if device:
        chosen.append(f"device={device}")
    loaded = load_config(config, chosen)
    name = _folder_name(config)
    if launcher == "ray" and (seeds is None or loaded.collector == "ray"):
        raise ConfigError(
            "--launcher ray runs several --seeds, each in one process: leave collector=ray, which "
            "shares out a single run"
        )
    watch_ray(launcher, loaded.collector, grace)
    if seeds is not None:
        from metarl.experiments.launcher import read_seeds, train_seeds

        train_seeds(
            config,
            chosen,
            out or Path("runs") / name,
            read_seeds(seeds),
            at_once(jobs, launcher),
            resume,
            quiet,
            grace,
            pictures,
            launcher,
            loaded.threads,
        )
        return
    folder = out or Path("runs") / f"{name}-{loaded.seed}"

    from metarl.experiments.runs import train as train_run
    from metarl.experiments.tables import print_result
    from metarl.viz.run_pictures import RunPictures

    drawing = [RunPictures()] if pictures else []
    result = train_run(loaded, folder, resume=resume, callbacks=drawing, quiet=quiet, grace=grace)
    print_result(result)
    print(f"run: {folder}")


@command
def tune(
    config: Annotated[
        str,
        typer.Argument(
            help="a .yaml file or a shipped name, such as rl2/bernoulli-bandit",
            autocompletion=configurations,
        ),
    ],
    overrides: Overrides = None,
    space: Annotated[
        Path,
        typer.Option(
            help="a .yaml file: keys of the configuration, and for each {low: …, high: …} (log: "
            "true, step: …) or a list of choices"
        ),
    ] = Path("space.yaml"),
    trials: Annotated[int, typer.Option(min=1, help="runs in all, finished ones included")] = 50,
    jobs: Annotated[int, typer.Option(min=1, help="how many of them at once")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="folder of the runs (default: runs/tune-CONFIG)")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Optuna's, such as sqlite:///t.db (default: a file in --out)")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="of the search; that of all runs is the configuration's")
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress display")] = False,
    worker: Annotated[bool, typer.Option("--worker", hidden=True)] = False,
) -> None:
    """Find hyperparameters by the validation score; repeated, it goes on."""
    try:
        from metarl.experiments.space import read_space
    except ModuleNotFoundError:
        raise ConfigError(f"tune needs optuna: {install_command('tune')}") from None

    searched = read_space(space, config, overrides or [])
    folder = out or Path("runs") / f"tune-{_folder_name(config)}"

    from metarl.experiments.tables import print_trials
    from metarl.experiments.tuning import opened
    from metarl.experiments.tuning import tune as search

    if worker:
        with opened(searched, folder, trials, storage, seed) as shared:
            shared.work(quiet=True, silent=quiet)
        return
    print_trials(
        search(searched, folder, trials, jobs=jobs, storage=storage, seed=seed, quiet=quiet)
    )


def _folder_name(config: str) -> str:
    """Of what is made of a configuration."""
    return Path(config).with_suffix("").as_posix().replace("/", "-").lstrip(".-")


@command
def export(
    run: Annotated[Path, typer.Argument(help="run folder, or a checkpoint")],
    out: Annotated[Path, typer.Argument(help="file to write, such as agent.zip")],
    onnx: Annotated[
        bool, typer.Option("--onnx", help="also one step of the agent as ONNX, beside it")
    ] = False,
    device: Device = None,
    trust: Trust = False,
) -> None:
    """Write the agent of a run to one file, which is opened anywhere without its code."""
    from metarl.experiments.card import export as write

    opening = opening_of(device, trust, [])
    print(write(run, out, opening))
    if onnx:
        from metarl.experiments.onnx_step import export_step

        print(export_step(run, out.with_suffix(".onnx"), opening))
