"""The usage of options is measured on the tasks of evaluation; the picture shows these numbers."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import CPU, FILES, Counting, Ragged, figure_of
from matplotlib.collections import EllipseCollection, PolyCollection
from matplotlib.quiver import Quiver
from test_cli import metarl, mistake

from metarl.collect.collector import collect
from metarl.config.schema import parse
from metarl.core.errors import MetaRLError
from metarl.core.protocol import EvalProtocol
from metarl.core.rng import Rng
from metarl.core.types import OptionState, Scene, TaskInfo, replace
from metarl.evaluation.option_usage import Moves, Usage, measure_option_usage
from metarl.experiments.building import load, make_agent, make_family, train_set
from metarl.experiments.runs import train
from metarl.nn.policy import Policy
from metarl.options.option_policy import OptionPolicy
from metarl.viz import option_map
from metarl.viz.option_map import Lattice, count_by_cell, draw_option_map, fit_lattice
from metarl.viz.style import option_colors

MAPPED = f"{FILES / 'errand.py'}:Mapped"


class Planned(Counting):
    """Its three options follow one another by a plan, which begins anew with every episode::

    option  1 1 1 0 0 2        stretches  1 1 | 1 | 0 0 | 2
    """

    policy = OptionPolicy(3, Policy(104, 4, discrete=True), None, None, "fixed", 1)
    plan = torch.tensor([1, 1, 1, 0, 0, 2])
    over = torch.tensor([True, False, True, True, False, False])

    def __init__(self, spec, lanes=1):
        super().__init__(spec)
        self.lanes = lanes

    def act(self, belief, obs, noise, counter, mode):
        step = torch.where(belief.cue[..., -1] == 1, 0, belief.lane[0].long())
        acted, _ = super().act(belief, obs, noise, counter, mode)
        running = OptionState(self.plan[(step - 1).clamp(min=0)], self.over[step], self.plan[step])
        return replace(acted, inputs=replace(acted.inputs, option=running)), replace(
            belief, lane=(step + 1.0,)
        )


# -------------------------------------------------------------------------------------------------
# What options did


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_plan_that_can_be_followed_by_hand(lanes):
    """The first episode of task i has 1, 2, 3, 4, 4 steps, and every round begins with a reset."""
    family = Ragged()
    usage = measure_option_usage(
        Planned(family.spec, lanes), family, EvalProtocol(episodes=4, tasks=5)
    )
    assert usage.title == "What the options of Planned do on 5 test tasks of ragged"
    assert usage.steps == 4 * 14
    assert usage.begun.tolist() == [4 * 2, 4 * (1 + 1 + 2 + 2 + 2), 0]
    np.testing.assert_allclose(usage.shares, [2 / 14, 12 / 14, 0])
    np.testing.assert_allclose(usage.durations, [1, 12 / 8, np.nan])
    assert usage.followed.tolist() == [[0, 0, 0], [4 * 2, 4 * 3, 0], [0, 0, 0]]
    assert usage.entropy == pytest.approx(-(np.log(2 / 14) * 2 + np.log(12 / 14) * 12) / 14)
    assert usage.duration == pytest.approx(14 / 10)
    assert usage.switch_rate == pytest.approx(2 / 9), "of the steps at which no episode begins"
    assert usage.moves is None


def test_episodes_do_not_follow_each_other():
    """Two options that never meet within an episode."""
    family = make_family(MAPPED)
    agent = Planned(family.spec)
    agent.plan, agent.over = torch.zeros(6, dtype=torch.long), torch.tensor([True] + [False] * 5)
    assert not measure_option_usage(agent, family, EvalProtocol(episodes=5, tasks=3)).followed.any()


@pytest.mark.parametrize("mode", ["sample", "greedy"])
@pytest.mark.parametrize("termination", ["learned", "random"])
def test_all_is_counted_as_a_loop_counts_it(termination, mode):
    family = make_family("four-rooms", horizon=30)
    agent = make_agent(
        "rl2", family.spec, options=3, termination=termination, option_length=4, initial_gain=5.0
    )
    usage = measure_option_usage(
        agent, family, EvalProtocol(episodes=3, tasks=6, split="ood", mode=mode, seed=5)
    )

    rng = Rng(5).child("evaluate", "ood")
    tasks = family.tasks("ood", 6, rng.child("tasks"))
    belief = agent.begin(TaskInfo(6, 3, CPU), 1)
    steps, begun, followed, moves = Counter(), Counter(), Counter(), []
    for k in range(3):
        rollout, belief = collect(
            agent, family.make(1), family.spec, belief, tasks, 1, rng.child("episode", k), mode
        )  # fmt: skip
        running = rollout.inputs.option
        for row in range(6):
            stretches = []
            for t in range(int(rollout.valid[:, row, 0].sum())):
                option = int(running.current[t, row, 0])
                begins = (
                    t == 0
                    or bool(running.ended[t, row, 0])
                    or option != int(running.current[t - 1, row, 0])
                )
                stretches += [option] if begins else []
                steps[option] += 1
                path = family.scene(
                    tasks.params[row],
                    torch.stack([rollout.inputs.obs[t, row, 0], rollout.next_obs[t, row, 0]]),
                ).path.tolist()
                moves.append((*path, option, begins))
            begun.update(stretches)
            followed.update(pairwise(stretches))
    assert usage.steps == sum(steps.values())
    np.testing.assert_allclose(usage.shares, [steps[o] / usage.steps for o in range(3)], rtol=1e-6)
    assert usage.begun.tolist() == [begun[o] for o in range(3)]
    np.testing.assert_allclose(
        usage.durations, [steps[o] / begun[o] if begun[o] else np.nan for o in range(3)]
    )
    assert usage.followed.tolist() == [[followed[o, p] for p in range(3)] for o in range(3)]
    before, after, options, begins = zip(*moves, strict=True)
    np.testing.assert_array_equal(usage.moves.before, before)
    np.testing.assert_array_equal(usage.moves.after, after)
    assert usage.moves.option.tolist() == list(options)
    assert usage.moves.begins.tolist() == list(begins)


def test_agents_that_adapt_in_many_lanes_are_observed_too():
    family = make_family("goal-maze", horizon=10)
    options = {"options": 2, "option_length": 3, "termination": "fixed"}
    sizes = {"hidden_sizes": [8], "sub_hidden_sizes": [8]}
    agent = make_agent("maml", family.spec, lanes=4, **options, **sizes)
    usage = measure_option_usage(agent, family, EvalProtocol(episodes=8, tasks=3))
    assert usage.steps == len(usage.moves.option) == 8 * 3 * 10
    assert usage.duration == pytest.approx(10 / 4), "three, three, three and one"


def test_the_ground_is_what_all_episodes_share():
    family = make_family("four-rooms", horizon=5)
    agent = make_agent("rl2", family.spec, options=2)
    one, many = (
        measure_option_usage(agent, family, EvalProtocol(episodes=3, tasks=tasks)).moves.ground
        for tasks in (1, 6)
    )
    assert one.goal.shape == (1, 2)
    assert many.goal is None, "every task has another"
    assert len(one.walls) == len(many.walls) > 20
    assert one.limits == many.limits == (-0.5, 12.5, -0.5, 12.5)


def test_an_agent_without_options_says_so():
    family = make_family("gridnavi")
    for agent in ("rl2", "random"):
        with pytest.raises(
            MetaRLError,
            match=r"acts without options; train one that has some, such as rl2 with agent\.op",
        ):
            measure_option_usage(make_agent(agent, family.spec), family, EvalProtocol(episodes=2))
    with pytest.raises(MetaRLError, match="no split 'tset'"):
        measure_option_usage(Planned(family.spec), family, EvalProtocol(episodes=2, split="tset"))


# -------------------------------------------------------------------------------------------------
# Cells


def moves_of(before, after, options=None, begins=None, limits=(0.0, 1.0, 0.0, 1.0)):
    before, after = np.asarray(before, float), np.asarray(after, float)
    path = torch.tensor(np.concatenate([before, after]))
    options = np.zeros(len(before), np.int64) if options is None else np.asarray(options)
    begins = np.zeros(len(before), bool) if begins is None else np.asarray(begins)
    return Moves(Scene(path, limits), before, after, options, begins)


@pytest.mark.parametrize(("width", "corner"), [(1.0, (0, 0)), (0.05, (0.5, -3.0)), (2.5, (-10, 7))])
def test_places_on_a_lattice_have_cells_of_their_own(width, corner):
    places = corner + width * np.array([[0, 0], [3, 1], [1, 4], [2, 2], [2, 3]])
    on = fit_lattice(moves_of(places[:-1], places[1:]))
    assert on.width == pytest.approx(width)
    np.testing.assert_allclose(on.centers(on.cells(places)), places, atol=1e-6)


@pytest.mark.parametrize(
    ("limits", "width"), [((0, 5, 0, 5), 1 / 3), ((0, 8, 0, 6), 1 / 2), ((0, 1.1, 0, 1), 1.1 / 15)]
)
def test_cells_of_places_anywhere_follow_the_ground(limits, width):
    """Walls on whole numbers are not cut."""
    places = np.random.default_rng(0).uniform(0, 1, size=(50, 2))
    on = fit_lattice(moves_of(places[:-1], places[1:], limits=limits))
    assert on.width == pytest.approx(width)
    np.testing.assert_array_equal(on.corner, [0, 0])


def test_an_agent_that_never_moves_has_one_cell():
    on = fit_lattice(moves_of([[0.5, 0.5]] * 3, [[0.5, 0.5]] * 3))
    assert len(np.unique(on.cells(np.array([[0.5, 0.5]] * 3)), axis=0)) == 1


def test_steps_count_in_the_cell_where_they_begin():
    draw = np.random.default_rng(2)
    before, after = draw.uniform(-1, 2, size=(2, 400, 2))
    options, begins = draw.integers(3, size=400), draw.random(400) < 0.3
    moves, on = moves_of(before, after, options, begins), Lattice(np.array([0.1, -0.2]), 0.4)
    for option in range(3):
        cells = count_by_cell(moves, option, on)
        assert cells.steps.sum() == (options == option).sum()
        for center, steps, begun, move in zip(
            cells.centers, cells.steps, cells.begun, cells.move, strict=True
        ):
            inside = (options == option) & (np.abs(before - center) <= 0.2).all(1)
            assert steps == inside.sum() > 0
            assert begun == (inside & begins).sum()
            np.testing.assert_allclose(move, (after - before)[inside].mean(0))
    assert len(count_by_cell(moves, 3, on).steps) == 0


# -------------------------------------------------------------------------------------------------
# The picture


def example(count=3, steps=300):
    """The last option never runs, the one before it twice, in a place of its own."""
    draw = np.random.default_rng(1)
    before = draw.integers(4, size=(steps, 2)).astype(float)
    after = (before + draw.integers(-1, 2, size=(steps, 2))).clip(0, 3)
    options = draw.integers(count - 2, size=steps)
    options[-2:], before[-2:], after[-2:] = count - 2, [3, 4], [3, 3]
    shares = np.bincount(options, minlength=count) / steps
    durations = np.where(shares > 0, 2.5, np.nan)
    moves = moves_of(before, after, options, draw.random(steps) < 0.4, (-0.5, 3.5, -0.5, 4.5))
    begun, followed = (shares > 0).astype(int), np.zeros((count, count), int)
    return Usage("What options do", steps, shares, begun, durations, followed, 1.0, 2.5, 0.1, moves)


@pytest.fixture
def drawn(monkeypatch):
    """usage → the figure before it became a file."""
    return partial(figure_of, monkeypatch, option_map, draw_option_map)


def part(axes, kind):
    (found,) = (x for x in axes.collections if type(x) is kind)
    return found


def test_a_panel_an_option_in_its_color(drawn):
    usage = example()
    figure = drawn(usage)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:2] == [
        f"option {o}: {100 * usage.shares[o]:.0f} % of steps, 2.5 at a time" for o in range(2)
    ]
    assert titles[2] == "option 2: never ran"
    assert figure.get_suptitle() == f"{usage.title}, one run"
    assert len({(axes.get_xlim(), axes.get_ylim(), axes.get_aspect()) for axes in figure.axes}) == 1
    for option, axes in enumerate(figure.axes[:2]):
        shades = 1 - part(axes, PolyCollection).get_facecolors()[:, :3]
        full = 1 - option_colors(np.array(option))
        strength = shades / full
        np.testing.assert_allclose(strength, strength[:, :1] * np.ones(3), atol=1e-9)
        cells = count_by_cell(usage.moves, option, fit_lattice(usage.moves))
        assert (np.diff(strength[cells.steps.argsort(kind="stable"), 0]) >= 0).all(), (
            "stronger where it acts more"
        )
        squares = np.array([path.vertices[:4] for path in part(axes, PolyCollection).get_paths()])
        np.testing.assert_allclose(squares.mean(1), cells.centers)
        np.testing.assert_allclose(np.ptp(squares, axis=1), 1.0)


def test_all_panels_have_one_measure(drawn):
    """Cells of equal steps are equally strong; the strongest of all has the full color."""
    usage = example()
    strength = {}
    for option, axes in enumerate(drawn(usage).axes[:2]):
        shades = 1 - part(axes, PolyCollection).get_facecolors()[:, 0]
        cells = count_by_cell(usage.moves, option, fit_lattice(usage.moves))
        for steps, shade in zip(
            cells.steps.tolist(), shades / (1 - option_colors(np.array(option))[0]), strict=True
        ):
            assert strength.setdefault(steps, shade) == pytest.approx(shade)
    assert strength[max(strength)] == pytest.approx(1)
    assert strength[2] < 0.6


def test_needles_are_mean_moves_of_three_steps_or_more(drawn):
    usage = example()
    figure = drawn(usage)
    longest = 0.0
    for option, axes in enumerate(figure.axes[:2]):
        cells = count_by_cell(usage.moves, option, fit_lattice(usage.moves))
        needles = part(axes, Quiver)
        found = np.stack([needles.U, needles.V], axis=-1)
        assert (found[cells.steps < 3] == 0).all()
        often = cells.steps >= 3
        np.testing.assert_allclose(needles.get_offsets(), cells.centers)
        lengths = np.linalg.norm(found[often], axis=1), np.linalg.norm(cells.move[often], axis=1)
        np.testing.assert_allclose(
            found[often] * lengths[1][:, None], cells.move[often] * lengths[0][:, None]
        )
        longest = max(longest, *lengths[0], 0)
        widths = part(axes, EllipseCollection).get_widths()
        np.testing.assert_allclose(
            (widths / option_map._RING) ** 2,
            np.where(often, cells.begun / cells.steps, 0),
            atol=1e-9,
        )
    assert longest == pytest.approx(0.5), "half a cell"
    (text,) = (x.get_text() for x in figure.legends[0].get_texts() if "move" in x.get_text())
    moves = [count_by_cell(usage.moves, option, fit_lattice(usage.moves)) for option in range(2)]
    most = max(
        np.linalg.norm(cells.move[cells.steps >= 3], axis=1).max(initial=0) for cells in moves
    )
    assert text == f"mean move of a step, at most {most:.2g}"


def test_of_many_options_the_eight_most_used_are_drawn(drawn):
    usage = example(count=12)
    figure = drawn(usage)
    numbers = [int(axes.get_title(loc="left").split()[1].rstrip(":")) for axes in figure.axes]
    assert numbers == sorted(numbers)
    assert len(numbers) == 8
    left = set(range(12)) - set(numbers)
    assert max(usage.shares[list(left)]) <= min(usage.shares[numbers])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_whole_legend_is_inside_the_picture(count, drawn):
    usage = example(count + 2)
    usage = replace(usage, shares=usage.shares[:count])
    figure = drawn(usage)
    figure.draw_without_rendering()
    for text in [*figure.legends[0].get_texts(), figure._suptitle]:
        box = text.get_window_extent()
        assert box.x0 > 0
        assert box.x1 < figure.bbox.width
        assert box.y0 > 0


# -------------------------------------------------------------------------------------------------
# The command


SMALL = {"episodes": 3, "iterations": 1, "validation_tasks": 4, "test_tasks": 4}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with options, one without, and one with options on a family that has no scene."""
    folder = tmp_path_factory.mktemp("options")
    tiny = {"name": "rl2", "memory_width": 4, "trials": 4, "minibatches": 1}
    for name, family, options in (
        ("run", MAPPED, 3),
        ("flat", MAPPED, 0),
        ("unseen", "bernoulli-bandit", 3),
    ):
        agent = tiny | {"options": options, "termination": "fixed", "option_length": 2}
        train(
            parse({"agent": agent, "family": family, "mode": "greedy", **SMALL}),
            folder / name,
            quiet=True,
        )
    return folder


def test_a_table_and_a_picture(runs, tmp_path):
    code, out, err = metarl("options", runs / "run", "--tasks", 5, "--out", tmp_path / "x.png")
    assert code == 0, err
    for word in (
        "then 2",
        "5 test tasks of errand",
        "usage entropy",
        "steps at a time",
        "% of steps",
    ):
        assert word in out
    rows = [line.split() for line in out.splitlines() if line.strip()[:2] in ("0 ", "1 ", "2 ")]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert sum(float(row[1]) for row in rows) == pytest.approx(100, abs=0.2)
    assert out.splitlines()[-1] == str(tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_the_commands_options_reach_the_agent(runs):
    loaded = load(runs / "run")
    family = loaded.family()
    fixed = train_set(loaded.config, family)

    def see(**chosen):
        return measure_option_usage(loaded.agent, family, EvalProtocol(train_set=fixed, **chosen))

    for arguments, expected in (
        ((), see(episodes=3, tasks=50, mode="greedy")),
        (
            ("--split", "ood", "--tasks", 6, "--episodes", 2, "--seed", 4, "--mode", "sample"),
            see(episodes=2, tasks=6, mode="sample", split="ood", seed=4),
        ),
    ):
        code, out, err = metarl("options", runs / "run", "--json", *arguments)
        assert code == 0, err
        assert json.loads(out) == {"run": str(runs / "run"), **expected.to_dict()}


def test_a_family_without_a_scene_has_a_table_and_no_picture(runs, tmp_path):
    code, out, _ = metarl("options", runs / "unseen", "--tasks", 3)
    assert code == 0
    assert "share of steps" in out
    (line,) = mistake("options", runs / "unseen", "--out", tmp_path / "x.png")
    assert line.startswith(
        "bernoulli-bandit offers no scene to draw options in: leave out --out, or give"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "checkpoint nowhere: there is no such file"),
        (["flat"], "RL2 acts without options"),
        (["run", "--out", "x.jpg"], "x.jpg: its name must end in .png"),
        (["run", "--out", "absent/x.png"], "there is no folder absent"),
        (["run", "--split", "tset"], "errand has no split 'tset': did you mean 'test'?"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments, says, runs, tmp_path):
    run, *more = arguments
    (line,) = mistake("options", runs / run if run != "nowhere" else run, *more, cwd=tmp_path)
    assert says in line
    assert not list(tmp_path.iterdir())
