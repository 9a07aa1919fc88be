"""A film shows what evaluation finds, whole, and its files can be played."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from helpers import CPU, FILES, Adapting, Counting, figure_of
from PIL import Image
from test_cli import metarl, mistake

from metarl.collect.collector import collect
from metarl.config.schema import parse
from metarl.core.errors import MetaRLError
from metarl.core.protocol import EvalProtocol
from metarl.core.rng import Rng
from metarl.core.types import Scene, TaskInfo
from metarl.evaluation.episodes import record_episodes
from metarl.evaluation.meta_test import evaluate
from metarl.experiments.building import load, make_agent, make_family
from metarl.experiments.runs import train
from metarl.viz import film, rendering, video
from metarl.viz.film import animate, draw_storyboard
from metarl.viz.rendering import describe, render
from metarl.viz.scene import fit_limits, limits_of
from metarl.viz.video import speed, write_video

ERRAND = f"{FILES / 'errand.py'}:Errand"
MAPPED = ERRAND.replace(":Errand", ":Mapped")
DOOR = 3


def filmed(name, agent="random", episodes=1, task=0, lane=0, **protocol):
    family = make_family(name)
    acting = make_agent(agent, family.spec)
    return list(
        record_episodes(acting, family, EvalProtocol(episodes, **protocol), task, lane).episodes
    )


def pictures_of(path):
    """Every picture of a video, as often as it is seen, and how many are seen in a second."""
    if path.suffix == ".mp4":
        from imageio_ffmpeg import get_ffmpeg_exe

        with TemporaryDirectory() as folder:
            command = [get_ffmpeg_exe(), "-loglevel", "info", "-i", path, f"{folder}/%04d.png"]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stderr
            shots = [
                np.asarray(Image.open(file)).astype(int) for file in sorted(Path(folder).iterdir())
            ]
        return shots, float(re.findall(r"([\d.]+) fps", output)[0])
    with Image.open(path) as file:  # in which equal pictures are one that lasts
        shots, durations = [], []
        for place in range(file.n_frames):
            file.seek(place)
            shots.append(np.asarray(file.convert("RGB")).astype(int))
            durations.append(file.info["duration"])
    beat = min(durations)
    return [
        shot for shot, lasts in zip(shots, durations, strict=True) for _ in range(lasts // beat)
    ], 1000 / beat


# -------------------------------------------------------------------------------------------------
# What a film shows


@pytest.mark.parametrize(
    ("agent", "mode"), [("random", "sample"), ("rl2", "sample"), ("rl2", "greedy")]
)
@pytest.mark.parametrize("name", [ERRAND, MAPPED])
def test_a_film_shows_what_evaluation_finds(name, agent, mode):
    family = make_family(name)
    choices = {"episodes": 3, "split": "ood", "seed": 7, "mode": mode}
    scores = evaluate(make_agent(agent, family.spec), family, tasks=4, **choices)
    for task in range(4):
        shown = [episode.return_after() for episode in filmed(name, agent, task=task, **choices)]
        np.testing.assert_allclose(shown, scores.returns[0, :, task], rtol=1e-6)


def test_a_path_reaches_the_place_where_the_episode_ended():
    episodes = filmed(MAPPED, episodes=12)
    ended = {bool(episode.scene.path[-1, 0] == DOOR) for episode in episodes}
    assert ended == {True, False}, "choose another seed"
    for episode in episodes:
        path = episode.scene.path
        assert path.shape == (episode.steps + 1, 2)
        assert path[0, 0] == 0
        assert path[-1, 0] == DOOR or episode.steps == 6
        assert (path[:, 1] == path[0, 1]).all(), "a place of the next episode"


def test_frames_show_what_was_the_case_before_each_step():
    """The camera stands in the same rollout as the map."""
    for lane in (0, 2):
        for seen, mapped in zip(
            *(filmed(x, episodes=5, lane=lane) for x in (ERRAND, MAPPED)), strict=True
        ):
            place, line = mapped.scene.path[:-1].numpy().T
            assert [int(frame[0, :, 0].argmax()) for frame in seen.frames] == place.tolist()
            assert {int(frame.max()) for frame in seen.frames} == {round(255 * float(line[0]))}
            np.testing.assert_array_equal(seen.rewards, mapped.rewards)


def test_another_lane_is_that_of_collect():
    """Beside the lanes before it, which end at other times."""
    family, agent = make_family(MAPPED), Counting(make_family(MAPPED).spec)
    rng = Rng(3).child("evaluate", "test")
    tasks = family.tasks("test", 3, rng.child("tasks"))[2:]
    belief = agent.begin(TaskInfo(1, 4, CPU), lanes=3)
    shots = list(
        record_episodes(agent, family, EvalProtocol(episodes=4, seed=3), task=2, lane=2).episodes
    )
    for k, shot in enumerate(shots):
        rollout, belief = collect(
            agent, family.make(3), family.spec, belief, tasks, 1, rng.child("episode", k)
        )
        assert shot.steps == rollout.valid[:, 0, 2].sum()
        assert torch.equal(shot.scene.path[1:], rollout.next_obs[: shot.steps, 0, 2])


@pytest.mark.parametrize("lane", [0, 2])
def test_one_lane_is_shown_of_an_agent_that_has_several(lane, tmp_path, monkeypatch):
    """The agent adapts to all lanes; the film has the rounds, not the episodes of all lanes."""
    family = make_family(MAPPED)
    agent = Adapting(family.spec, lanes=3)
    scores = evaluate(agent, family, episodes=6, tasks=3, seed=3)
    agent.rollouts.clear()
    shot = record_episodes(agent, family, EvalProtocol(episodes=6, seed=3), task=2, lane=lane)
    assert (shot.title, shot.length) == (f"Adapting on test task 2 of errand, lane {lane} of 3", 2)
    shots = list(shot.episodes)
    for k, rollout in enumerate(agent.rollouts):
        assert shots[k].steps == rollout.valid[:, 0, lane].sum()
        assert torch.equal(shots[k].scene.path[1:], rollout.next_obs[: shots[k].steps, 0, lane])
        assert rollout.extras["adapted"].eq(k).all()
        assert float(rollout.episode_returns().mean()) == pytest.approx(scores.returns[0, k, 2])
    assert len(shots) == len(agent.rollouts) == 2
    with pytest.raises(MetaRLError, match="lane 3: Adapting has 3 lanes, and the first is lane 0"):
        record_episodes(agent, family, EvalProtocol(episodes=6), lane=3)
    with pytest.raises(MetaRLError, match="cannot be shared out among the 3 lanes"):
        record_episodes(agent, family, EvalProtocol(episodes=4))


def test_a_picture_takes_frames_far_apart_and_says_of_which_steps(monkeypatch):
    family = make_family(ERRAND)
    agent = make_agent("random", family.spec)
    whole = list(record_episodes(agent, family, EvalProtocol(3)).episodes)
    some = record_episodes(agent, family, EvalProtocol(3), every=2)
    for full, thinned in zip(whole, list(some.episodes), strict=True):
        assert len(thinned.frames) == len(full.frames[::2])
        for frame, expected in zip(thinned.frames, full.frames[::2], strict=True):
            np.testing.assert_array_equal(frame, expected)
    shot = record_episodes(agent, family, EvalProtocol(3), every=2)
    figure = figure_of(monkeypatch, film, draw_storyboard, shot)
    for part, episode in zip(figure.subfigs, whole, strict=True):
        titles = [axes.get_title() for axes in part.axes]
        assert titles == [f"step {t}" for t in range(0, episode.steps, 2)]
    assert film.frames_apart(200) == 12
    assert film.frames_apart(6) == 1


def test_without_a_run_an_agent_has_one_episode_in_every_lane(tmp_path, monkeypatch):
    films = []
    monkeypatch.setattr(rendering, "draw_storyboard", lambda shot, out: films.append(shot) or out)
    monkeypatch.setattr("metarl.agents.rl2.agent.RL2.lanes", 3)
    render(MAPPED, tmp_path / "x.png", agent="rl2", lane=1)
    assert films[0].length == len(list(films[0].episodes)) == 1


def test_an_agent_adapts_between_the_episodes_of_a_film():
    family, adapted = make_family(MAPPED), []

    class Adapting(Counting):
        def adapt(self, belief, rollout):
            adapted.append(int(rollout.valid.sum()))
            return replace(belief, row=(torch.full((1,), float(len(adapted))),))

        def act(self, belief, obs, noise, counter, mode):
            seen.append(float(belief.row[0]) if belief.row else 0.0)
            return super().act(belief, obs, noise, counter, mode)

    seen: list[float] = []
    shot = record_episodes(Adapting(family.spec), family, EvalProtocol(episodes=3))
    assert not seen, "the film was rolled out before it was asked for"
    steps = [episode.steps for episode in shot.episodes]
    assert adapted == steps
    assert seen == [float(k) for k in range(3) for _ in range(steps[k])]


def test_the_tasks_of_a_fixed_training_set_can_be_filmed():
    """An agent that is shown a one-hot of the task meets them alone."""
    family = make_family(MAPPED)
    fixed = family.tasks("train", 3, Rng(5))
    agent = Counting(family.spec)
    agent.task_input = "onehot"
    shot = record_episodes(agent, family, EvalProtocol(1, split="train", train_set=fixed), task=2)
    assert next(shot.episodes).rewards[0] == -fixed.params[2]
    with pytest.raises(MetaRLError, match="task 3: there are 3 train tasks"):
        record_episodes(agent, family, EvalProtocol(1, split="train", train_set=fixed), task=3)
    with pytest.raises(MetaRLError, match="no place in a one-hot"):
        record_episodes(agent, family, EvalProtocol(1, train_set=fixed), task=2)


# -------------------------------------------------------------------------------------------------
# Pictures


def drawn(name, tmp_path, monkeypatch, **choices):
    """The figure of a storyboard, before it became a file."""
    figures = []
    monkeypatch.setattr(film, "save", lambda figure, out: figures.append(figure) or out)
    render(name, tmp_path / "x.png", **choices)
    return figures[0]


def test_a_panel_an_episode_with_its_return(tmp_path, monkeypatch):
    figure = drawn(MAPPED, tmp_path, monkeypatch, episodes=3, task=1)
    paid = [episode.return_after() for episode in filmed(MAPPED, episodes=3, task=1)]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [f"episode {k + 1}: return −{-paid[k]:.2f}" for k in range(3)]
    assert figure.get_suptitle() == "Random on test task 1 of errand"
    assert {axes.get_aspect() for axes in figure.axes} == {1.0}
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}) == 1


def test_of_many_episodes_eight_are_drawn_the_last_among_them(tmp_path, monkeypatch):
    for name, axes_each in ((MAPPED, 1), (ERRAND, 3)):
        figure = drawn(name, tmp_path, monkeypatch, episodes=20)
        if axes_each == 1:
            titles = [axes.get_title(loc="left") for axes in figure.axes]
        else:
            titles = [part.get_suptitle() for part in figure.subfigs]
        numbers = [int(title.split()[1].rstrip(":")) for title in titles]
        assert numbers == [1, 4, 6, 9, 12, 15, 17, 20]


def test_a_panel_holds_the_whole_path_the_goal_and_the_walls(tmp_path, monkeypatch):
    figure = drawn(MAPPED, tmp_path, monkeypatch, episodes=1)
    (axes,) = figure.axes
    (episode,) = filmed(MAPPED)
    lines, dots = axes.collections
    np.testing.assert_array_equal(dots.get_offsets(), episode.scene.path)
    assert [segment[1].tolist() for segment in lines.get_segments()] == episode.scene.path[
        1:
    ].tolist()
    luminance = lines.get_colors()[:, :3].sum(1)
    assert (np.diff(luminance) < 0).all(), "from light to dark"
    marks = [line.get_xydata().tolist() for line in axes.lines]
    others, goal, start, end = marks
    assert (start, end) == ([episode.scene.path[0].tolist()], [episode.scene.path[-1].tolist()])
    assert goal == episode.scene.goal.tolist()
    assert others == episode.scene.others.tolist()
    assert len(axes.patches) == 3  # two walls and the goal's circle
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["start", "path, darker with time", "end", "goal", "not the goal"]


def test_limits_give_way_to_a_path_that_leaves_them(tmp_path, monkeypatch):
    family = make_family(MAPPED)
    scene = next(
        record_episodes(make_agent("random", family.spec), family, EvalProtocol(1)).episodes
    ).scene
    far = replace(scene, path=torch.tensor([[0.0, 0.0], [-9.0, 5.0]]))
    assert limits_of([scene]) == pytest.approx((-0.5, 3.5, -0.2, 1.2))
    assert limits_of([scene, far]) == pytest.approx((-9.0, 3.5, -0.2, 5.0))


def test_without_walls_a_picture_is_close_to_what_happens():
    path, goal = torch.tensor([[0.0, 0.0], [0.2, 0.0]]), torch.tensor([[0.0, 0.8]])
    scene = Scene(path, (-5.0, 5.0, -2.0, 2.0), goal, goal_radius=0.1)
    margin = 0.15 * 0.9  # of the longer side: from the path up to the edge of the goal
    fitted = fit_limits([scene])
    assert fitted == pytest.approx((-0.1 - margin, 0.2 + margin, 0 - margin, 0.9 + margin))
    wide = replace(scene, path=torch.tensor([[-4.0, 0.0], [4.0, 0.0]]))
    assert fit_limits([scene, wide])[:2] == (-5, 5), "most of the width is needed"
    walled = replace(scene, walls=torch.zeros(1, 4))
    assert fit_limits([walled]) == limits_of([walled])


@pytest.mark.parametrize(
    ("family", "options", "row", "says"),
    [
        ("half-cheetah-vel", {}, [1.834], "target velocity 1.83 m/s, 20 steps/s: × 1 real time"),
        ("half-cheetah-dir", {}, [-1.0], "target direction backward, 20 steps/s: × 1 real time"),
        ("ant-dir", {}, [1.0, 0.0], "target direction forward, 20 steps/s: × 1 real time"),
        (
            "ant-dir",
            {"variant": "plane"},
            [0.0, -1.0],
            "target direction 90° right of forward, ",
        ),
        ("ant-goal", {}, [1.5, -0.25], "goal at x 1.50 m, y −0.25 m, 20 steps/s"),
        ("ant-vel", {}, [0.5], "target velocity 0.50 m/s"),
        ("humanoid-dir", {}, [-1.0, 0.0], "target direction backward, 20 steps/s: × 0.3 real time"),
        ("point", {}, [0.1, 0.2], "20 steps/s"),
    ],
)
def test_a_video_says_the_task_and_the_speed(family, options, row, says):
    words = describe(make_family(family, **options), torch.tensor(row), 20)
    assert words.startswith(says)


def test_dynamics_are_said_by_their_factors():
    family = make_family("walker-params")
    row = torch.zeros(family.spec.task_width)
    row[:2], row[-1] = torch.tensor([1.0, -1.0]), 1.0
    assert describe(family, row) == (
        "mass × 0.67 to 1.5, inertia × 1 to 1, friction × 1 to 1, damping × 1 to 1.3, "
        "0.008 s a step"
    )


def test_a_row_of_few_numbers_stands_for_itself_where_frames_alone_are_seen():
    assert describe(make_family(ERRAND), torch.tensor([0.5])) == "task row (0.50)"
    assert describe(make_family(MAPPED), torch.tensor([0.5])) == ""


def test_a_title_of_several_lines_stands_above_the_frame():
    family = make_family(ERRAND)
    shot = record_episodes(make_agent("random", family.spec), family, EvalProtocol(1))
    plain = next(animate(shot, hold=0)).shape[0]
    long = "word " * 30
    shot = record_episodes(make_agent("random", family.spec), family, EvalProtocol(1))
    titled = replace(shot, title=f"{shot.title}\n{long}")
    assert next(animate(titled, hold=0)).shape[0] == plain + 3 * 24


def test_the_speed_is_that_of_the_file():
    assert speed(Path("x.mp4"), 15) == 15
    assert speed(Path("x.gif"), 15) == pytest.approx(100 / 7), "counted in 10 ms"


# -------------------------------------------------------------------------------------------------
# Files


SUFFIXES = [
    ".gif",
    pytest.param(
        ".mp4",
        marks=pytest.mark.skipif(find_spec("imageio_ffmpeg") is None, reason="no imageio-ffmpeg"),
    ),
]


@pytest.mark.parametrize("name", [ERRAND, MAPPED])
def test_a_picture_is_a_png(name, tmp_path):
    out = render(name, tmp_path / "x.png", episodes=2)
    with Image.open(out) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 200
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", [ERRAND, MAPPED])
def test_a_video_has_every_moment_of_every_episode(name, suffix, tmp_path):
    """T + 1 of them, and a second to see how it ended."""
    fps = 5
    shots, speed = pictures_of(render(name, tmp_path / f"x{suffix}", episodes=2, fps=fps))
    moments = [episode.steps + 1 for episode in filmed(name, episodes=2)]
    assert speed == fps
    assert len(shots) == sum(moments) + 2 * fps
    assert {shot.shape for shot in shots} == {shots[0].shape}
    assert all(side % 2 == 0 for side in shots[0].shape[:2])
    changes = [np.abs(b - a).max() > 60 for a, b in pairwise(shots)]
    first, last = moments
    still = [False] * fps
    assert changes[: first - 1] == [True] * (first - 1), "every step changes the picture"
    assert changes[first - 1 : first - 1 + fps] == still
    assert changes[first - 1 + fps :] == [True] * last + still
    assert [path.name for path in tmp_path.iterdir()] == [f"x{suffix}"]


def test_a_path_grows():
    family = make_family(MAPPED)
    shot = record_episodes(make_agent("random", family.spec), family, EvalProtocol(1))
    blue = [
        int((picture[..., 2].astype(int) - picture[..., 0] > 40).sum())
        for picture in animate(shot, hold=0)
    ]
    assert blue[-1] > blue[0] + 500
    assert all(b >= a - 100 for a, b in pairwise(blue))


def test_the_speed_follows_the_length(tmp_path):
    """The horizon is 6 steps: slow enough to be watched."""
    _, speed = pictures_of(render(MAPPED, tmp_path / "x.gif"))
    assert speed == 4


@pytest.mark.parametrize("suffix", [".png", *SUFFIXES])
def test_a_film_that_breaks_off_leaves_the_old_file(suffix, tmp_path):
    family, out, scenes = make_family(MAPPED), tmp_path / f"x{suffix}", []

    class Breaking(type(family)):
        def scene(self, params, obs):
            scenes.append(family.scene(params, obs))
            if len(scenes) == 3:
                raise MetaRLError("in the third episode")
            return scenes[-1]

    out.write_text("old")
    shot = record_episodes(make_agent("random", family.spec), Breaking(), EvalProtocol(episodes=4))
    with pytest.raises(MetaRLError, match="in the third episode"):
        draw_storyboard(shot, out) if suffix == ".png" else write_video(
            out, animate(shot, hold=1), fps=4
        )
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


# -------------------------------------------------------------------------------------------------
# Runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("render") / "run"
    agent = {"name": "rl2", "memory_width": 4, "trials": 8, "minibatches": 2}
    config = {
        "agent": agent,
        "family": MAPPED,
        "episodes": 3,
        "iterations": 2,
        "mode": "greedy",
        "train_tasks": 6,
    }
    train(parse({**config, "validation_tasks": 10, "test_tasks": 10}), folder, quiet=True)
    return folder


def test_a_run_shows_its_best_agent_on_its_family(run, tmp_path, monkeypatch):
    films = []
    monkeypatch.setattr(
        rendering,
        "draw_storyboard",
        lambda shot, out: films.append((shot.title, list(shot.episodes))) or out,
    )
    loaded = load(run)
    protocol = loaded.protocol(split="test", tasks=10, seed=4)
    scores = evaluate(loaded.agent, loaded.family(), protocol)
    render(str(run), tmp_path / "x.png", task=5, seed=4)
    render(str(run), tmp_path / "x.png", task=5, seed=4, agent="random", episodes=8, mode="sample")
    (title, episodes), (other_title, others) = films
    assert (title, other_title) == (
        "RL2 on test task 5 of errand",
        "Random on test task 5 of errand",
    )
    np.testing.assert_allclose(
        [e.return_after() for e in episodes], scores.returns[0, :, 5], rtol=1e-6
    )
    assert len(others) == 8
    assert {e.steps for e in others} - {DOOR, 6}, "that was the run's own agent"


@pytest.mark.parametrize("split", ["train", "ood"])
def test_a_run_meets_its_own_training_tasks(split, run, tmp_path, monkeypatch):
    films = []
    monkeypatch.setattr(
        rendering, "draw_storyboard", lambda shot, out: films.append(list(shot.episodes)) or out
    )
    loaded = load(run)
    protocol = loaded.protocol(split=split, tasks=6)
    scores = evaluate(loaded.agent, loaded.family(), protocol)
    render(str(run), tmp_path / "x.png", task=5, split=split)
    np.testing.assert_allclose(
        [e.return_after() for e in films[0]], scores.returns[0, :, 5], rtol=1e-6
    )


def test_a_run_is_drawn_from_the_command_line(run, tmp_path):
    code, out, err = metarl("render", run, "--task", 2, "--out", tmp_path / "x.gif")
    assert (code, out) == (0, f"{tmp_path / 'x.gif'}\n"), err
    assert (tmp_path / "x.gif").read_bytes().startswith(b"GIF89a")


def test_options_reach_the_family_the_agent_and_the_film(tmp_path, monkeypatch):
    films = []
    monkeypatch.setattr(
        rendering, "draw_storyboard", lambda shot, out: films.append(list(shot.episodes)) or out
    )
    options = ["family.horizon=7", "family.arrival=0", "agent.memory_width=3"]
    render("point", tmp_path / "x.png", options, agent="rl2")
    assert films[0][0].steps == 7
    render(MAPPED, tmp_path / "x.png", lane=2)
    assert torch.equal(films[1][0].scene.path, filmed(MAPPED, lane=2)[0].scene.path)


# -------------------------------------------------------------------------------------------------
# Mistakes


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "'nowhere' is neither a run folder nor a family"),
        (
            ["bernoulli-bandit"],
            "bernoulli-bandit offers neither scene nor frame: give the family scene(params, obs)",
        ),
        (["point", "horizon=3"], "write family.key=value"),
        (["point", "family.horizn=3"], "did you mean 'horizon'?"),
        (["point", "--out", "x.jpg"], "its name must end in .png or .gif or .mp4"),
        (["point", "--out", "absent/x.png"], "there is no folder absent"),
        (["point", "--out", "x.png", "--fps", 3], "a picture does not move"),
        (["point", "--split", "tset"], "point has no split 'tset': did you mean 'test'?"),
        (["point", "--agent", "rl3"], "did you mean 'rl2'?"),
        (["point", "--agent", "thompson"], "choose another agent"),
    ],
)
def test_a_mistake_is_one_clear_line(tmp_path, arguments, says):
    (line,) = mistake("render", *arguments, cwd=tmp_path)
    assert says in line
    assert not list(tmp_path.iterdir()), "a mistake left something behind"


def test_the_options_of_a_run_are_fixed(run, tmp_path):
    (line,) = mistake("render", run, "family.horizon=3", cwd=tmp_path)
    assert "its options are fixed" in line


def test_an_mp4_needs_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    (line,) = mistake("render", MAPPED, "--out", "x.mp4", cwd=tmp_path)
    assert "pip install 'metarl-torch[video]', or write a .gif" in line


@pytest.mark.parametrize(
    ("line", "instead", "says"),
    [
        (
            "        return picture",
            "        return picture[..., 0]",
            r"frame is uint8 of shape \[2, 4\]",
        ),
        (
            "        return picture",
            "        return picture / 255",
            r"frame is float64 of shape \[2, 4, 3\]",
        ),
        ("        return picture", "        raise Mistake('no screen')", "^no screen$"),
    ],
)
def test_a_camera_that_does_not_work_says_so(line, instead, says, tmp_path):
    source = "from metarl import Mistake\n" + Path(ERRAND.split(":")[0]).read_text(encoding="utf-8")
    assert line in source
    (tmp_path / "mine.py").write_text(source.replace(line, instead))
    with pytest.raises(MetaRLError, match=says):
        render(f"{tmp_path / 'mine.py'}:Errand", tmp_path / "x.png")
