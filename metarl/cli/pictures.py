"""Commands that draw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from metarl.cli.app import command
from metarl.cli.completion import agents, families
from metarl.cli.options import (
    Changes,
    Device,
    Episodes,
    Mode,
    Seed,
    Split,
    Trust,
    opening_of,
    parse_steps,
    showing_progress,
)


@command
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
    from metarl.viz.adaptation import draw_adaptation_curve
    from metarl.viz.curves import check_formats
    from metarl.viz.learning import draw_learning_curve

    formats = check_formats(picture_format)
    folder = out or runs[0]
    for path in draw_learning_curve(runs, folder, x, formats):
        print(path)
    for path in draw_adaptation_curve(runs[0], folder, formats):
        print(path)


@command
def infer(
    run: Annotated[
        Path, typer.Argument(help="run folder of an agent that infers a task variable or predicts")
    ],
    changes: Changes = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for the pictures (default: the run's)")
    ] = None,
    split: Split = "test",
    tasks: Annotated[int, typer.Option(min=2, help="how many tasks")] = 100,
    episodes: Episodes = None,
    times: Annotated[
        str | None,
        typer.Option(help="steps of the trial to compare with Bayes' rule at, such as 20,50,100"),
    ] = None,
    task: Annotated[int, typer.Option(min=0, help="whose beliefs to draw, beside Bayes'")] = 0,
    seed: Seed = 0,
    mode: Mode = None,
    device: Device = None,
    trust: Trust = False,
) -> None:
    """Draw what a run's agent believes of tasks, beside what they are and what Bayes' rule says."""
    from metarl.core.agent import InfersLatent
    from metarl.core.disk import make_folder
    from metarl.core.errors import ConfigError
    from metarl.core.predictions import KnowsPosterior, Predicts
    from metarl.evaluation.beliefs import compare_beliefs
    from metarl.evaluation.posteriors import infer as ask
    from metarl.experiments.building import open_run
    from metarl.experiments.tables import print_beliefs
    from metarl.viz.beliefs import draw_beliefs
    from metarl.viz.latent import draw_posteriors

    loaded = open_run(run, opening_of(device, trust, changes))
    agent, family = loaded.agent, loaded.family()
    protocol = loaded.protocol(split=split, tasks=tasks, episodes=episodes, mode=mode, seed=seed)
    if task >= tasks:
        raise ConfigError(f"--task {task}: there are {tasks} tasks, and the first is task 0")
    beliefs, inference = None, None
    predicts = isinstance(agent, Predicts) and agent.predicts
    beside_bayes = predicts and isinstance(family, KnowsPosterior)
    with showing_progress():
        if beside_bayes or times is not None:
            beliefs = compare_beliefs(agent, family, protocol, parse_steps(times))
        if isinstance(agent, InfersLatent) or not beside_bayes:
            inference = ask(agent, family, protocol)

    folder = out or (run if run.is_dir() else run.parent)
    make_folder(folder)
    if beliefs is not None:
        print_beliefs(beliefs)
        print(draw_beliefs(beliefs, folder / "beliefs.png", task))
    if inference is not None:
        print(draw_posteriors(inference, folder / "inferred.png"))


@command
def render(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FAMILY|RUN",
            help="family, or a run folder, whose agent acts",
            autocompletion=families,
        ),
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
        str | None,
        typer.Option(help="who acts (default: the run's agent, or random)", autocompletion=agents),
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
    with showing_progress():
        written = draw(
            source,
            out,
            [text for text in options or [] if text not in changes],
            opening=opening_of(device, trust, changes),
            agent=agent,
            task=task,
            split=split,
            episodes=episodes,
            mode=mode,
            seed=seed,
            lane=lane,
            fps=fps,
        )
    print(written)
