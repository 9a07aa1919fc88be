"""Pictures and films show which option runs; those of agents without options stay the same."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from helpers import figure_of
from test_rendering import ERRAND, MAPPED

from metarl.collect.collector import collect
from metarl.core.protocol import EvalProtocol
from metarl.core.rng import Rng
from metarl.core.types import TaskInfo
from metarl.evaluation.episodes import record_episodes
from metarl.experiments.building import make_agent, make_family
from metarl.viz import film, scene
from metarl.viz.film import animate, draw_storyboard
from metarl.viz.style import option_colors
from metarl.viz.timeline import Timeline

OPTIONS = {"options": 3, "option_length": 2, "termination": "random", "initial_gain": 5.0}


def shot_of(name, episodes=3, task=0, seed=0, lane=0):
    family = make_family(name)
    agent = make_agent("rl2", family.spec, **OPTIONS)
    return record_episodes(agent, family, EvalProtocol(episodes, seed=seed), task, lane)


@pytest.fixture
def drawn(monkeypatch):
    """film → the figure of its storyboard, before it became a file."""
    return partial(figure_of, monkeypatch, film, draw_storyboard)


def strip_colors(axes):
    """[T, 3]"""
    (image,) = axes.images
    return np.asarray(image.get_array())[0]


@pytest.mark.parametrize("lane", [0, 2])
def test_a_film_knows_what_ran(lane):
    family = make_family(MAPPED)
    agent = make_agent("rl2", family.spec, **OPTIONS)
    rng = Rng(3).child("evaluate", "test")
    tasks = family.tasks("test", 2, rng.child("tasks"))[1:]
    belief = agent.begin(TaskInfo(1, 4, torch.device("cpu")), lanes=lane + 1)
    shot = shot_of(MAPPED, 4, task=1, seed=3, lane=lane)
    ran = set()
    for k, episode in enumerate(shot.episodes):
        rollout, belief = collect(
            agent, family.make(lane + 1), family.spec, belief, tasks, 1, rng.child("episode", k)
        )
        expected = rollout.inputs.option.current[rollout.valid[:, 0, lane], 0, lane]
        assert episode.options.tolist() == expected.tolist()
        assert len(episode.options) == episode.steps
        ran |= set(expected.tolist())
    assert shot.num_options == 3
    assert len(ran) > 1, "choose another seed"


def test_a_flat_agent_has_none(drawn):
    family = make_family(MAPPED)
    for name in ("random", "rl2"):
        shot = record_episodes(make_agent(name, family.spec), family, EvalProtocol(1))
        assert shot.num_options == 0
        assert [episode.options for episode in shot.episodes] == [None]
    figure = drawn(record_episodes(make_agent("rl2", family.spec), family, EvalProtocol(1)))
    assert len(figure.legends) == 1
    assert not figure.axes[0].child_axes


@pytest.mark.parametrize("episodes", [1, 6])
def test_a_panel_shows_the_options_on_the_path_and_below(episodes, drawn):
    figure = drawn(shot_of(MAPPED, episodes))
    lived = list(shot_of(MAPPED, episodes).episodes)
    longest = max(episode.steps for episode in lived)
    assert len(figure.axes) == episodes
    for axes, episode in zip(figure.axes, lived, strict=True):
        color, (strip,) = option_colors(episode.options), axes.child_axes
        np.testing.assert_array_equal(strip_colors(strip), color)
        assert strip.images[0].get_extent()[:2] == [0, episode.steps]
        assert strip.get_xlim() == (0, longest), "all strips have one measure"
        lines, _ = axes.collections
        share = (1 - lines.get_colors()[: episode.steps, :3]) / (1 - color)
        np.testing.assert_allclose(share, share[:, :1] * np.ones(3), atol=1e-9)
        assert (np.diff(share[:, 0]) > 0).all(), "from faint to strong"
    marks, options = sorted(
        ([x.get_text() for x in legend.get_texts()] for legend in figure.legends), key=len
    )[::-1]
    assert options == ["option 0", "option 1", "option 2"]
    assert marks == ["start", "path, darker with time", "end", "goal", "not the goal"]
    patches = next(
        legend for legend in figure.legends if len(legend.get_texts()) == 3
    ).get_patches()
    np.testing.assert_array_equal(
        [patch.get_facecolor()[:3] for patch in patches], option_colors(np.arange(3))
    )


@pytest.mark.parametrize("episodes", [1, 3, 7])
def test_a_strip_is_as_wide_as_its_panel_and_below_it_and_meets_nothing(episodes, drawn):
    figure = drawn(shot_of(MAPPED, episodes))
    figure.draw_without_rendering()
    legends = [legend.get_window_extent() for legend in figure.legends]
    panels = [axes.get_window_extent() for axes in figure.axes]
    for axes, panel in zip(figure.axes, panels, strict=True):
        strip = axes.child_axes[0].get_window_extent()
        assert (strip.x0, strip.x1) == pytest.approx((panel.x0, panel.x1))
        labels = [
            x.get_window_extent()
            for x in axes.get_xticklabels()
            if x.get_visible() and x.get_text()
        ]
        assert strip.y1 < min([panel.y0, *(label.y0 for label in labels)])
        assert strip.height == pytest.approx(9 * figure.dpi / 72)
        whole = axes.child_axes[0].get_tightbbox()
        assert not whole.overlaps(legends[0])
        assert not whole.overlaps(legends[1])
        assert not any(whole.overlaps(other) for other in panels)


@pytest.mark.parametrize("episodes", [1, 3])
def test_frames_have_a_strip_below(episodes, drawn):
    figure = drawn(shot_of(ERRAND, episodes))
    lived = list(shot_of(ERRAND, episodes).episodes)
    assert len(figure.subfigs) == episodes
    for part, episode in zip(figure.subfigs, lived, strict=True):
        *frames, strip = part.axes
        np.testing.assert_array_equal(strip_colors(strip), option_colors(episode.options))
        assert len(frames) == episode.steps
        figure.draw_without_rendering()
        assert strip.get_window_extent().y1 < min(axes.get_window_extent().y0 for axes in frames)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "option 0",
        "option 1",
        "option 2",
    ]


@pytest.mark.parametrize("name", [ERRAND, MAPPED])
def test_in_a_video_the_strip_grows(name, monkeypatch):
    """And is that of the episode on show alone."""
    strips = []

    class Watched(Timeline):
        def __init__(self, axes, options, length):
            super().__init__(axes, options, length)
            assert length == len(options)
            strips.append((options, axes, []))

        def show(self, steps):
            super().show(steps)
            strips[-1][2].append(strip_colors(strips[-1][1]).copy())

    for module in (film, scene):
        monkeypatch.setattr(module, "Timeline", Watched)
    pictures = list(animate(shot_of(name), hold=0))
    lived = list(shot_of(name).episodes)
    assert len(pictures) == sum(episode.steps + 1 for episode in lived)
    assert len({picture.shape for picture in pictures}) == 1
    for (options, _, shown), episode in zip(strips, lived, strict=True):
        assert options.tolist() == episode.options.tolist()
        for steps, colors in enumerate(shown):
            np.testing.assert_array_equal(colors[:steps], option_colors(options[:steps]))
            assert len(np.unique(colors[steps:])) <= 1, "the future is gray"
    last = strips[-1][1]
    assert len(last.images) == 1
    if name == MAPPED:
        (panel,) = (axes for axes in last.get_figure().axes if axes.child_axes)
        assert panel.child_axes == [last]


def test_colors_differ_and_return_after_eight():
    colors = option_colors(np.arange(16))
    np.testing.assert_array_equal(colors[:8], colors[8:])
    apart = np.linalg.norm(colors[:8, None] - colors[None, :8], axis=-1) + 9 * np.eye(8)
    assert apart.min() > 0.25
