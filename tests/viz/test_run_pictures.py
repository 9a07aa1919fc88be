"""What TensorBoard shows of a run that has ended, as pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from helpers import FILES
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_cli import metarl

from metarl.config.schema import parse
from metarl.experiments.runs import train
from metarl.viz.run_pictures import RunPictures

SMALL = {"iterations": 2, "validation_tasks": 2, "test_tasks": 3}
AGENT = {"name": "rl2", "memory_width": 4, "trials": 4, "minibatches": 1, "epochs": 1}


def config(family, **changes):
    return parse({"agent": AGENT, "family": family, "episodes": 2, **SMALL, **changes})


def pictures(run):
    """Step and pixels by tag; each is there once."""
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    shown = {}
    for tag in events.Tags()["images"]:
        (event,) = events.Images(tag)
        pixels = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        assert pixels.shape[:2] == (event.height, event.width)
        assert pixels[..., :3].std() > 0
        shown[tag] = event.step, pixels
    return shown


@pytest.mark.parametrize(
    ("family", "tags"),
    [
        ("gridnavi", {"pictures/adaptation", "pictures/rollout"}),
        ("bernoulli-bandit", {"pictures/adaptation"}),
        (f"{FILES / 'errand.py'}:Errand", {"pictures/adaptation", "pictures/rollout"}),
    ],
)
def test_adaptation_and_a_rollout_are_drawn_where_the_family_has_a_look(family, tags, tmp_path):
    result = train(config(family), tmp_path, quiet=True, callbacks=[RunPictures()])
    shown = pictures(tmp_path)
    assert set(shown) == tags
    assert {step for step, _ in shown.values()} == {result["last"]["env_steps"]}


def test_a_run_that_goes_on_shows_the_pictures_of_its_end_alone(tmp_path):
    train(config("gridnavi"), tmp_path, quiet=True, callbacks=[RunPictures()])
    seen = []
    train(
        config("gridnavi", iterations=3),
        tmp_path,
        resume=True,
        quiet=True,
        callbacks=[lambda update: seen.append(pictures(tmp_path)), RunPictures()],
    )
    assert seen == [{}]
    assert set(pictures(tmp_path)) == {"pictures/adaptation", "pictures/rollout"}


def test_a_look_that_fails_costs_no_result(tmp_path, capsys):
    (tmp_path / "blind.py").write_text(BLIND)
    family = f"{tmp_path / 'blind.py'}:Blind"
    train(config(family), tmp_path / "run", quiet=True, callbacks=[RunPictures()])
    (line,) = capsys.readouterr().err.splitlines()
    assert "no picture of a rollout" in line
    assert "no eyes" in line
    assert (tmp_path / "run" / "result.json").is_file()
    assert set(pictures(tmp_path / "run")) == {"pictures/adaptation"}


BLIND = """
from metarl_envs.gridnavi import GridNavi


class Blind(GridNavi):
    def scene(self, params, obs):
        raise RuntimeError("no eyes")
"""


def test_a_run_that_is_not_tested_is_not_drawn(tmp_path):
    train(config("gridnavi"), tmp_path, quiet=True, callbacks=[RunPictures()], test=False)
    assert pictures(tmp_path) == {}


@pytest.mark.parametrize(("flags", "count"), [([], 2), (["--no-pictures"], 0)])
def test_the_command_draws_unless_it_is_told_not_to(flags, count, tmp_path):
    words = ["agent.trials=4", "iterations=1", "validation_tasks=2", "test_tasks=3", "--quiet"]
    code, _, _ = metarl("train", "rl2/gridnavi", *words, "--out", tmp_path / "run", *flags)
    assert code == 0
    assert len(pictures(tmp_path / "run")) == count
