"""The posteriors are the agent's, on the tasks of evaluation; the picture shows these numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import CPU, Counting, Ragged, figure_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection
from test_cli import metarl, mistake

from metarl.collect.collector import collect
from metarl.config.schema import parse
from metarl.core.errors import MetaRLError
from metarl.core.protocol import EvalProtocol
from metarl.core.rng import Rng
from metarl.core.types import TaskInfo, replace
from metarl.evaluation.meta_test import evaluate
from metarl.evaluation.posteriors import Inference, infer
from metarl.experiments.building import load, make_agent, make_family, train_set
from metarl.experiments.runs import train
from metarl.viz import latent
from metarl.viz.latent import draw_posteriors

TINY = {"encoder_sizes": [16], "hidden_sizes": [16], "latent_width": 3}


class Summing(Counting):
    """Believes in the sum of rewards, which it is the surer of the more episodes it saw."""

    def __init__(self, spec, lanes=1):
        super().__init__(spec)
        self.lanes = lanes

    def begin(self, info, lanes):
        self.info = info
        return replace(super().begin(info, lanes), row=torch.zeros(info.rows, 2))

    def adapt(self, belief, rollout):
        rewards = torch.where(rollout.valid, rollout.reward, 0.0).sum((0, 2))
        return replace(
            belief,
            row=belief.row
            + torch.stack([rewards, (rollout.done & rollout.valid).sum((0, 2))], dim=1),
        )

    def inferred(self, belief):
        episodes = belief.row[:, 1:]
        return belief.row, torch.cat([1 / episodes, 2 / episodes], dim=1)


# -------------------------------------------------------------------------------------------------
# What was inferred


def test_a_belief_that_can_be_followed_by_hand():
    """The first episode of task i pays 1, 3, 6, 10, 10, and every round begins with a reset."""
    family = Ragged()
    inference = infer(Summing(family.spec), family, EvalProtocol(episodes=3, tasks=5))
    episodes = np.arange(1, 4)[:, None] * np.ones(5)
    np.testing.assert_array_equal(
        inference.means, np.stack([episodes * [1, 3, 6, 10, 10], episodes], axis=-1)
    )
    stds = np.stack([1 / episodes, 2 / episodes], axis=-1)
    np.testing.assert_allclose(inference.stds, stds, rtol=1e-6)
    np.testing.assert_array_equal(inference.params, np.arange(5.0)[:, None])
    assert {x.dtype for x in (inference.means, inference.stds, inference.params)} == {
        np.dtype("float64")
    }
    assert inference.episodes_consumed == (1, 2, 3)
    assert inference.title == "What Summing inferred of 5 test tasks of ragged"


def test_lanes_share_the_episodes():
    family = Ragged()
    agent = Summing(family.spec, lanes=2)
    inference = infer(agent, family, EvalProtocol(episodes=6, tasks=4))
    assert inference.episodes_consumed == (2, 4, 6)
    assert inference.means[:, 0].tolist() == [[2, 2], [4, 4], [6, 6]]
    assert agent.info.episodes == 3
    with pytest.raises(MetaRLError, match="cannot be shared out among the 2 lanes"):
        infer(agent, family, EvalProtocol(episodes=5))


@pytest.mark.parametrize("mode", ["sample", "greedy"])
@pytest.mark.parametrize("split", ["test", "ood"])
def test_pearl_is_asked_after_every_adaptation(split, mode):
    family = make_family("point", variant="pearl")
    agent = make_agent("pearl", family.spec, **TINY)
    inference = infer(
        agent, family, EvalProtocol(episodes=3, tasks=4, split=split, mode=mode, seed=5)
    )

    rng = Rng(5).child("evaluate", split)
    tasks = family.tasks(split, 4, rng.child("tasks"))
    belief = agent.begin(TaskInfo(4, 3, CPU), 1)
    for k in range(3):
        rollout, belief = collect(
            agent, family.make(1), family.spec, belief, tasks, 1, rng.child("episode", k), mode
        )  # fmt: skip
        belief = agent.adapt(belief, rollout)
        mean, std = agent.inferred(belief)
        np.testing.assert_array_equal(inference.means[k], mean.numpy())
        np.testing.assert_array_equal(inference.stds[k], std.numpy())
    np.testing.assert_array_equal(inference.params, tasks.params.numpy())
    assert (inference.stds[0] > inference.stds[-1]).all()
    assert inference.names == ("goal, entry 1 of 2", "goal, entry 2 of 2")


def test_the_tasks_are_those_of_evaluation():
    family = make_family("point", variant="pearl")
    fixed = family.tasks("train", 3, Rng(8))
    agent = Summing(family.spec)
    for split in ("test", "train"):
        met = {"episodes": 2, "tasks": 3, "split": split, "seed": 2, "train_set": fixed}
        returns = evaluate(agent, family, **met).returns[0]
        inference = infer(agent, family, EvalProtocol(**met))
        np.testing.assert_allclose(inference.means[..., 0], returns.cumsum(0), rtol=1e-5)
    np.testing.assert_array_equal(inference.params, fixed.params.numpy())


def test_names_tell_goals_from_the_rest_of_the_row():
    def names(**widths):
        family = Ragged()
        family.spec = replace(family.spec, **widths)
        given = family.tasks
        family.tasks = lambda *asked: replace(
            given(*asked), params=given(*asked).params.expand(-1, widths["task_width"])
        )  # fmt: skip
        return infer(Summing(family.spec), family, EvalProtocol(episodes=1, tasks=2)).names

    assert names(task_width=1) == ("task row",)
    assert names(task_width=1, goal_width=1) == ("goal",)
    assert names(task_width=2, goal_width=1) == ("goal", "task row, entry 2 of 2")


def test_an_agent_that_infers_nothing_says_so():
    family = make_family("point", variant="pearl")
    with pytest.raises(
        MetaRLError,
        match=r"^RL2 infers no latent task variable; choose an agent that does, such as pearl$",
    ):
        infer(make_agent("rl2", family.spec), family, EvalProtocol(episodes=2))
    plain = make_agent("pearl", family.spec, **TINY | {"latent_width": 0})
    with pytest.raises(
        MetaRLError,
        match=r"^PEARL was trained without a latent task variable.*agent\.latent_width above 0$",
    ):
        infer(plain, family, EvalProtocol(episodes=2, tasks=2))
    with pytest.raises(MetaRLError, match="no split 'tset'"):
        infer(Summing(family.spec), family, EvalProtocol(episodes=2, split="tset"))


# -------------------------------------------------------------------------------------------------
# The picture


def example(rounds=3, tasks=12, latent=4, entries=2):
    """Means that vary most along a slanted plane, and widths that differ between tasks."""
    draw = np.random.default_rng(3).normal
    means = (
        draw(size=(rounds, tasks, latent))
        @ np.diag([3, 2, *[0.2] * latent][:latent])
        @ draw(size=(latent, latent))
    )
    stds = np.exp(draw(size=means.shape) - 1)
    names = tuple(f"entry {p}" for p in range(entries))
    consumed = tuple(range(1, rounds + 1))
    return Inference("What was inferred", means, stds, draw(size=(tasks, entries)), names, consumed)


@pytest.fixture
def drawn(monkeypatch):
    """inference → the figure before it became a file, and its panels [rows, columns]."""

    def draw(inference):
        figure = figure_of(monkeypatch, latent, draw_posteriors, inference)
        panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
        rows = len({axes.get_subplotspec().rowspan.start for axes in panels})
        return figure, np.array(panels).reshape(rows, -1)

    return draw


def ellipses_of(axes):
    (found,) = (shape for shape in axes.collections if isinstance(shape, EllipseCollection))
    return found


def dots_of(axes):
    (found,) = (dots for dots in axes.collections if not isinstance(dots, EllipseCollection))
    return found


def principal_plane(inference, axes):
    """[2, Z] by a singular value decomposition, turned as the dots are."""
    last = inference.means[-1]
    plane = np.linalg.svd(last - last.mean(0))[2][:2]
    signs = np.sign(
        (np.asarray(dots_of(axes).get_offsets()) * ((last - last.mean(0)) @ plane.T)).sum(0)
    )
    return signs[:, None] * plane


def test_dots_and_ellipses_are_the_posteriors_on_the_principal_plane(drawn):
    inference = example()
    _, panels = drawn(inference)
    plane = principal_plane(inference, panels[0, -1])
    assert panels.shape == (2, 3)
    for row in panels:
        for k, axes in enumerate(row):
            shapes, places = ellipses_of(axes), inference.means[k] @ plane.T
            np.testing.assert_allclose(dots_of(axes).get_offsets(), places)
            np.testing.assert_allclose(shapes.get_offsets(), places)
            turn = np.radians(shapes.get_angles())
            turn = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            along = np.stack([shapes.get_widths(), shapes.get_heights()]) / 2
            found = np.einsum("adn,dn,bdn->nab", turn, along**2, turn)
            np.testing.assert_allclose(
                found, [plane @ np.diag(std**2) @ plane.T for std in inference.stds[k]]
            )


def test_an_ellipse_is_as_large_as_the_axes_say(drawn):
    """In pixels: colored just within its outline, white just outside."""
    inference = example(rounds=1, tasks=2)
    inference = Inference(
        **vars(inference)
        | {"means": np.array([[[-9.0, 0, 0, 0], [9, 0, 0, 0]]]), "stds": inference.stds + 1}
    )
    figure, panels = drawn(inference)
    axes = panels[0, 0]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)

    def colored(place):
        column, row = np.round(axes.transData.transform(place)).astype(int)
        return np.ptp(picture[picture.shape[0] - 1 - row, column]) > 8

    shapes = ellipses_of(axes)
    sizes = zip(
        shapes.get_offsets(),
        shapes.get_widths(),
        shapes.get_heights(),
        np.radians(shapes.get_angles()),
        strict=True,
    )
    for place, width, height, angle in sizes:
        long, short = (
            np.array([np.cos(angle), np.sin(angle)]),
            np.array([-np.sin(angle), np.cos(angle)]),
        )
        for reach in (long * width / 2, -long * width / 2, short * height / 2, -short * height / 2):
            assert colored(place + 0.93 * reach)
            assert not colored(place + 1.07 * reach)


def test_colors_are_the_truth_of_the_row(drawn):
    inference = example()
    figure, panels = drawn(inference)
    bars = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
    assert [bar.get_ylabel() for bar in bars] == ["entry 0", "entry 1"]
    for row, bar, truth in zip(panels, bars, inference.params.T, strict=True):
        assert bar.get_ylim() == pytest.approx((truth.min(), truth.max()))
        for axes in row:
            colors = dots_of(axes).get_facecolors()
            luminance = colors[:, :3] @ [0.2126, 0.7152, 0.0722]
            assert (np.diff(luminance[truth.argsort()]) >= 0).all(), "from dark to light"
            assert np.ptp(luminance) > 0.6
            np.testing.assert_array_equal(ellipses_of(axes).get_facecolors()[:, :3], colors[:, :3])
            assert (ellipses_of(axes).get_facecolors()[:, 3] < 0.2).all()


def test_all_columns_have_the_same_axes_which_hold_every_ellipse(drawn):
    inference = example(rounds=2)
    figure, panels = drawn(inference)
    assert [axes.get_title(loc="left") for axes in panels[0]] == [
        "after 1 episode",
        "after 2 episodes",
    ]
    assert {axes.get_title(loc="left") for axes in panels[1]} == {""}
    assert len({(axes.get_xlim(), axes.get_ylim(), axes.get_aspect()) for axes in panels.flat}) == 1
    assert panels[0, 0].get_aspect() == 1.0
    spread = np.linalg.svd(inference.means[-1] - inference.means[-1].mean(0))[1] ** 2
    first, second = (
        f"principal axis {k + 1} ({100 * spread[k] / spread.sum():.0f} % of variance)"
        for k in range(2)
    )
    assert {axes.get_xlabel() for axes in panels[-1]} == {first}
    assert {axes.get_ylabel() for axes in panels[:, 0]} == {second}
    plane = principal_plane(inference, panels[0, -1])
    limits = np.array([panels[0, 0].get_xlim(), panels[0, 0].get_ylim()])
    reach = np.sqrt(np.stack([inference.stds**2 @ axis**2 for axis in plane], axis=-1))
    places = inference.means @ plane.T
    assert (places - reach > limits[:, 0]).all()
    assert (places + reach < limits[:, 1]).all()
    assert figure.get_suptitle() == "What was inferred, one run"


def test_means_that_never_move_are_drawn_too(drawn):
    inference = example()
    still = Inference(**vars(inference) | {"means": np.zeros_like(inference.means)})
    _, panels = drawn(still)
    assert panels[-1, 0].get_xlabel() == "principal axis 1 (0 % of variance)"


def test_of_many_moments_and_entries_some_are_shown(drawn):
    inference = example(rounds=20, entries=6)
    inference.params[:, [0, 2]] = 7.0
    figure, panels = drawn(inference)
    assert panels.shape == (3, 6)
    titles = [axes.get_title(loc="left") for axes in panels[0]]
    assert titles == ["after 1 episode", *(f"after {k} episodes" for k in (5, 9, 12, 16, 20))]
    bars = [axes.get_ylabel() for axes in figure.axes if axes.get_label() == "<colorbar>"]
    assert bars == ["entry 1", "entry 3", "entry 4"]
    np.testing.assert_allclose(
        dots_of(panels[0, 1]).get_offsets(),
        inference.means[4] @ principal_plane(inference, panels[0, -1]).T,
    )
    inference.params[:] = 7.0
    assert drawn(inference)[1].shape == (1, 6), "all tasks are equal"


def test_a_latent_variable_of_one_entry_stands_over_the_truth(drawn):
    inference = example(latent=1)
    _, panels = drawn(inference)
    assert panels.shape == (2, 3)
    for p, row in enumerate(panels):
        for k, axes in enumerate(row):
            mean, std, truth = (
                inference.means[k, :, 0],
                inference.stds[k, :, 0],
                inference.params[:, p],
            )
            (dots,), (bars,) = axes.lines, axes.collections
            np.testing.assert_array_equal(dots.get_xydata(), np.stack([truth, mean], axis=-1))
            ends = np.array(bars.get_segments())
            np.testing.assert_allclose(ends[..., 0], np.stack([truth, truth], axis=-1))
            np.testing.assert_allclose(ends[..., 1], np.stack([mean - std, mean + std], axis=-1))
            assert axes.get_xlabel() == f"entry {p}"
    assert len({axes.get_ylim() for axes in panels.flat}) == 1


# -------------------------------------------------------------------------------------------------
# The command


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inference") / "run"
    agent = {
        "name": "pearl",
        "encoder_sizes": [16],
        "hidden_sizes": [16],
        "updates": 3,
        "meta_batch_size": 2,
        "batch_size": 8,
        "context_size": 8,
        "initial_episodes": 1,
        "prior_episodes": 1,
        "tasks": 2,
    }
    small = {
        "train_tasks": 4,
        "episodes": 3,
        "mode": "greedy",
        "iterations": 1,
        "validation_tasks": 2,
        "test_tasks": 5,
    }
    train(
        parse({"agent": agent, "family": {"name": "point", "variant": "pearl"}, **small}),
        folder,
        quiet=True,
    )
    return folder


def test_a_run_is_drawn_into_its_folder(run, tmp_path):
    for arguments, folder in (((), run), (("--out", tmp_path / "new"), tmp_path / "new")):
        code, out, err = metarl("infer", run, "--tasks", 7, *arguments)
        assert (code, out) == (0, f"{folder / 'inferred.png'}\n"), err
        assert (folder / "inferred.png").read_bytes().startswith(b"\x89PNG")


def test_the_commands_options_reach_the_agent(run, monkeypatch):
    asked = []
    monkeypatch.setattr(
        latent, "draw_posteriors", lambda inference, out: asked.append(inference) or out
    )
    loaded = load(run)
    family = loaded.family()
    fixed = train_set(loaded.config, family)

    def meet(**chosen):
        return infer(loaded.agent, family, EvalProtocol(train_set=fixed, **chosen))

    assert metarl("infer", run)[0] == 0
    assert (
        metarl("infer", run / "checkpoints" / "best.pt", "--split", "train", "--tasks", 3)[0] == 0
    )
    assert (
        metarl(
            "infer",
            run,
            "--split",
            "ood",
            "--tasks",
            6,
            "--episodes",
            2,
            "--seed",
            4,
            "--mode",
            "sample",
        )[0]
        == 0
    )
    expected = [
        meet(episodes=3, tasks=100, mode="greedy"),
        meet(episodes=3, tasks=3, mode="greedy", split="train"),
        meet(episodes=2, tasks=6, mode="sample", split="ood", seed=4),
    ]
    for found, wanted in zip(asked, expected, strict=True):
        np.testing.assert_array_equal(found.means, wanted.means)
        np.testing.assert_array_equal(found.params, wanted.params)
    assert asked[0].means.shape == (3, 100, 5)


def test_a_mistake_leaves_nothing_behind(run, tmp_path):
    (line,) = mistake("infer", "nowhere", cwd=tmp_path)
    assert line == "checkpoint nowhere: there is no such file"
    (line,) = mistake("infer", run, "--split", "tset", "--out", tmp_path / "new")
    assert "point has no split 'tset': did you mean 'test'?" in line
    assert not list(tmp_path.iterdir())
