"""The command line. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from metarl.core.errors import ConfigError, MetaRLError, shown
from metarl.core.texts import open_streams, to_json
from metarl.experiments.interruption import GRACE

if TYPE_CHECKING:
    from metarl.config.registry import Kind
    from metarl.experiments.loading import Opening

app = typer.Typer(
    name="metarl",
    help="Meta-reinforcement learning: agents that adapt to a new task in a few episodes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_OUT_OF_MEMORY = re.compile("allocate|out of memory|storage size|array is too big", re.IGNORECASE)
"""What torch says, and NumPy."""

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="such as agent.memory_width=128"),
]
Split = Annotated[str, typer.Option(help="train, validation, test or ood")]
Episodes = Annotated[
    int | None, typer.Option(min=1, help="episodes of a trial (default: the run's)")
]
Mode = Annotated[
    Literal["sample", "greedy"] | None,
    typer.Option(help="how actions are chosen (default: the run's)"),
]
TestMode = Annotated[
    Literal["sample", "greedy"] | None,
    typer.Option(help="the same in the last round, after all adaptation (default: as --mode)"),
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
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


def main() -> None:
    """Entry point: what the user can fix ends in one clear line each and exit code 2."""
    open_streams()
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


@app.command()
def train(
    config: Annotated[
        str, typer.Argument(help="a .yaml file or a shipped name, such as rl2/bernoulli-bandit")
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
    jobs: Annotated[int, typer.Option(min=1, help="how many of several runs at once")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress display")] = False,
    grace: Annotated[
        float,
        typer.Option(min=0, help="seconds to finish an iteration after Ctrl-C, SIGTERM or SIGHUP"),
    ] = GRACE,
) -> None:
    """Train an agent as a configuration says."""
    from metarl.config.files import load_config

    chosen = list(overrides or [])
    if device:
        chosen.append(f"device={device}")
    loaded = load_config(config, chosen)
    name = Path(config).with_suffix("").as_posix().replace("/", "-").lstrip(".-")
    if seeds is not None:
        from metarl.experiments.launcher import read_seeds, train_seeds

        train_seeds(
            config,
            chosen,
            out or Path("runs") / name,
            read_seeds(seeds),
            jobs,
            resume,
            quiet,
            grace,
        )
        return
    folder = out or Path("runs") / f"{name}-{loaded.seed}"

    from metarl.experiments.runs import train as train_run
    from metarl.experiments.tables import print_result

    result = train_run(loaded, folder, resume=resume, quiet=quiet, grace=grace)
    print_result(result)
    print(f"run: {folder}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="run folder, or a folder of several seeds")],
    changes: Changes = None,
    split: Split = "test",
    tasks: Annotated[
        str | None,
        typer.Option(
            help="how many tasks (default: the run's test_tasks), or a file of task rows, .csv or "
            ".npy"
        ),
    ] = None,
    episodes: Episodes = None,
    seed: Seed = 0,
    mode: Mode = None,
    test_mode: TestMode = None,
    against: Annotated[
        str,
        typer.Option(
            "--against", "--beside", help="others on the same tasks: agents by name, runs by path"
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
    from metarl.data.task_rows import which_tasks
    from metarl.experiments.checkpoints import write_atomically
    from metarl.experiments.comparison import compare
    from metarl.experiments.folder import EVALUATION
    from metarl.experiments.tables import print_comparison

    comparison = compare(
        run,
        [name for name in against.split(",") if name],
        baselines,
        _opening(device, trust, changes),
        split=split,
        tasks=None if tasks is None else which_tasks(tasks, split),
        episodes=episodes,
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


@app.command()
def envs(name: Annotated[str | None, typer.Argument(help="family to describe")] = None) -> None:
    """List the families of tasks, or describe one with all its options."""
    _list_or_describe("family", name)


@app.command()
def agents(name: Annotated[str | None, typer.Argument(help="agent to describe")] = None) -> None:
    """List the agents, or describe one with all its options."""
    _list_or_describe("agent", name)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="a family or an agent by name, or my_file.py:Mine")],
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

    report = check_found(found, valid, family)
    print(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def config(
    name: Annotated[
        str | None, typer.Argument(help="configuration; without one, the shipped names are listed")
    ] = None,
    overrides: Overrides = None,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="NAME is a family: one to begin with, and why")
    ] = False,
) -> None:
    """Print a complete configuration, every key explained."""
    from metarl.config.files import load_config, shipped, to_yaml
    from metarl.config.overrides import read_options

    if suggest:
        from metarl.experiments.suggestion import suggest as suggest_for

        print(suggest_for(name or "", read_options(overrides or [], "family")["family"]), end="")
    elif name is None:
        print("\n".join(shipped()))
    else:
        print(to_yaml(load_config(name, overrides or [])), end="")


@app.command()
def plot(
    runs: Annotated[
        list[Path],
        typer.Argument(help="run folders, or folders of several seeds, each of which is one curve"),
    ],
    out: Annotated[
        Path | None, typer.Option(help="folder for the pictures (default: the first run's)")
    ] = None,
    x: Annotated[
        Literal["env_steps", "minutes", "iterations"],
        typer.Option("--x", help="what learning is drawn over"),
    ] = "env_steps",
    picture_format: Annotated[
        str, typer.Option("--format", help="png, svg or pdf, or several, such as png,pdf")
    ] = "png",
) -> None:
    """Draw learning curves, and how the first run adapts, as pictures with tables beside them."""
    from metarl.viz.curves import check_formats, draw_adaptation_curve, draw_learning_curve

    formats = check_formats(picture_format)
    folder = out or runs[0]
    for path in draw_learning_curve(runs, folder, x, formats):
        print(path)
    for path in draw_adaptation_curve(runs[0], folder, formats):
        print(path)


@app.command()
def infer(
    run: Annotated[
        Path, typer.Argument(help="run folder of an agent that infers a latent task variable")
    ],
    changes: Changes = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for the picture (default: the run's)")
    ] = None,
    split: Split = "test",
    tasks: Annotated[int, typer.Option(min=2, help="how many tasks")] = 100,
    episodes: Episodes = None,
    seed: Seed = 0,
    mode: Mode = None,
    device: Device = None,
    trust: Trust = False,
) -> None:
    """Draw what a run's agent inferred of tasks, episode by episode, beside what they are."""
    from metarl.evaluation.posteriors import infer as ask
    from metarl.experiments.building import open_run
    from metarl.viz.latent import draw_posteriors

    loaded = open_run(run, _opening(device, trust, changes))
    inference = ask(
        loaded.agent,
        loaded.family(),
        loaded.protocol(split=split, tasks=tasks, episodes=episodes, mode=mode, seed=seed),
    )
    folder = out or (run if run.is_dir() else run.parent)
    folder.mkdir(parents=True, exist_ok=True)
    print(draw_posteriors(inference, folder / "inferred.png"))


@app.command()
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

    loaded = open_run(run, _opening(device, trust, changes))
    family = loaded.family()
    if out is not None:
        from metarl.viz.option_map import check_drawable, draw_option_map

        check_drawable(family, out)
    usage = measure_option_usage(
        loaded.agent,
        family,
        loaded.protocol(split=split, tasks=tasks, episodes=episodes, mode=mode, seed=seed),
    )
    content = {"run": str(run), **usage.to_dict()}
    if out is not None:
        content["picture"] = str(draw_option_map(usage, out))
    if as_json:
        print(to_json(content))
    else:
        print_usage(content)


@app.command()
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

    opening = _opening(device, trust, [])
    print(write(run, out, opening))
    if onnx:
        from metarl.experiments.onnx_step import export_step

        print(export_step(run, out.with_suffix(".onnx"), opening))


@app.command()
def render(
    source: Annotated[
        str, typer.Argument(metavar="FAMILY|RUN", help="family, or a run folder, whose agent acts")
    ],
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="such as family.horizon=20; of a run family=FILE.py:CLASS",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="a picture, .png, or a video, .gif or .mp4")] = Path(
        "rollout.png"
    ),
    task: Annotated[int, typer.Option(min=0, help="which row of the split")] = 0,
    split: Split = "test",
    episodes: Annotated[
        int | None, typer.Option(min=1, help="episodes (default: the run's, or one a lane)")
    ] = None,
    agent: Annotated[
        str | None, typer.Option(help="who acts (default: the run's agent, or random)")
    ] = None,
    mode: Mode = None,
    seed: Seed = 0,
    lane: Annotated[
        int, typer.Option(min=0, help="which of the task's parallel episodes, from 0")
    ] = 0,
    fps: Annotated[
        int | None, typer.Option(min=1, max=50, help="steps a second in a video (default: 4 to 20)")
    ] = None,
    device: Device = None,
    trust: Trust = False,
) -> None:
    """Draw what an agent does on one task: a picture of its episodes, or a video."""
    from metarl.viz.rendering import render as draw

    changes = [text for text in options or [] if text.startswith("family=")]
    print(
        draw(
            source,
            out,
            [text for text in options or [] if text not in changes],
            opening=_opening(device, trust, changes),
            agent=agent,
            task=task,
            split=split,
            episodes=episodes,
            mode=mode,
            seed=seed,
            lane=lane,
            fps=fps,
        )
    )


def _opening(device: str | None, trust: bool, changes: list[str] | None) -> Opening:
    """How a run is opened."""
    from metarl.experiments.loading import Opening

    family = None
    for text in changes or []:
        key, _, family = text.partition("=")
        if key != "family" or not family:
            raise ConfigError(f"{text!r}: only the family of a run can be another one: family=NAME")
    return Opening(device, trust, family)


def _list_or_describe(kind: Kind, name: str | None) -> None:
    from metarl.config.catalogue import description, listing

    print(listing(kind) if name is None else description(kind, name))
