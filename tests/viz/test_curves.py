"""Curves draw the numbers of runs: means over seeds, their intervals, and a quantity an axis."""

from __future__ import annotations

import csv
import inspect
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats
from test_cli import metarl, mistake

from metarl.config.files import load_config, to_yaml
from metarl.viz.adaptation import draw_adaptation_curve
from metarl.viz.learning import common_places, draw_learning_curve, smooth


def write_run(folder, x, returns, validation=None, config="maml/point", trial=False, **changes):
    """A run with records at env_steps `x`, a second each; those of a trial log its whole return."""
    (folder / "checkpoints").mkdir(parents=True)
    overrides = [f"{key}={value}" for key, value in changes.items()]
    (folder / "config.yaml").write_text(to_yaml(load_config(config, overrides)))
    with (folder / "metrics.jsonl").open("w") as file:
        for i, (steps, gained) in enumerate(zip(x, returns, strict=True), start=1):
            record = {"iteration": i, "env_steps": steps, "seconds": 60.0 * i, "return": gained}
            record["last_return"] = gained - trial
            if validation is not None:
                record["validation"] = validation[i - 1]
            file.write(json.dumps(record) + "\n")
    return folder


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """(draw, …) → its figure and the rows of its table."""

    def drawn(function, *given, **choices):
        figures = []
        monkeypatch.setattr(
            inspect.getmodule(function), "save", lambda figure, out: figures.append(figure) or out
        )
        *_, table = function(*given, tmp_path / "out", **choices)
        with table.open() as file:
            return figures[0], list(csv.DictReader(file))

    return drawn


def column(rows, name, group, quantity="validation"):
    return [
        float(row[name])
        for row in rows
        if row["group"] == group and row["quantity"].startswith(quantity)
    ]


def panels_of(figure):
    return {axes.get_title(loc="left").split(":")[0]: axes for axes in figure.axes}


def test_several_seeds_are_one_curve_with_the_interval_of_their_mean(tmp_path, draw):
    values = np.array([[1.0, 4.0], [2.0, 4.0], [6.0, 7.0]])
    for seed, own in enumerate(values):
        write_run(tmp_path / f"three/seed-{seed}", [2e6, 4e6], own + 50, own, seed=seed)
    figure, rows = draw(draw_learning_curve, [tmp_path / "three"])
    mean = values.mean(0)
    half = stats.t.ppf(0.975, 2) * values.std(0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(column(rows, "mean", "three"), mean)
    np.testing.assert_allclose(column(rows, "low", "three"), mean - half)
    np.testing.assert_allclose(column(rows, "high", "three"), mean + half)
    assert column(rows, "runs", "three") == [3, 3]
    assert column(rows, "env_steps", "three") == [2e6, 4e6]
    assert column(rows, "mean", "three/seed-2") == [6, 7]

    panels = panels_of(figure)
    assert list(panels) == ["training", "validation"]
    *behind, line = panels["validation"].lines
    np.testing.assert_allclose(line.get_xydata(), np.stack([[2, 4], mean], axis=1))
    np.testing.assert_allclose([run.get_ydata() for run in behind], values)
    (band,) = panels["validation"].collections
    corners = band.get_paths()[0].vertices
    for x, low, high in zip((2, 4), mean - half, mean + half, strict=True):
        at = corners[corners[:, 0] == x, 1]
        assert (at.min(), at.max()) == pytest.approx((low, high))
    np.testing.assert_allclose(panels["training"].lines[-1].get_ydata(), mean + 50)
    assert {axes.get_ylabel() for axes in figure.axes} == {
        "return of an episode after adaptation",
        "return of a trial's last episode",
    }
    assert panels["validation"].get_title(loc="left") == "validation: mean over 40 validation tasks"
    assert panels["validation"].get_xlabel() == "environment steps (millions)"
    assert panels["validation"].get_legend().get_texts()[0].get_text() == "three: 3 runs"
    assert figure.get_suptitle() == "point: maml"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "95 % Student t interval of the mean over runs",
        "a single run",
    ]


def test_one_run_has_no_band(tmp_path, draw):
    run = write_run(tmp_path / "alone", [10, 20], [1.0, 2.0], [3.0, 4.0])
    figure, rows = draw(draw_learning_curve, [run])
    assert [row["low"] + row["high"] for row in rows] == [""] * 4
    assert not figure.legends
    for axes in figure.axes:
        assert not axes.collections
        assert axes.get_legend().get_texts()[0].get_text() == "alone: 1 run"
        assert axes.get_xlabel() == "environment steps"


def test_without_validation_there_is_no_panel_of_it(tmp_path, draw):
    write_run(tmp_path / "pair/a", [1, 2], [1.0, 2.0])
    write_run(tmp_path / "pair/b", [1, 2], [1.0, 2.0], [3.0, 4.0], seed=1)
    figure, rows = draw(draw_learning_curve, [tmp_path / "pair/a"])
    assert list(panels_of(figure)) == ["training"]
    figure, rows = draw(draw_learning_curve, [tmp_path / "pair"])
    assert column(rows, "runs", "pair", "training") == [2, 2]
    assert column(rows, "mean", "pair") == [], "a mean of one"
    legend = panels_of(figure)["validation"].get_legend()
    assert legend.get_texts()[0].get_text() == "pair: 1 run"


def test_runs_at_different_places_are_interpolated_where_all_have_data(tmp_path, draw):
    assert common_places([np.array([1.0, 3, 5, 7]), np.array([2.0, 6])]).tolist() == [2, 6]
    assert common_places([np.array([1.0, 5, 9]), np.array([2.0, 3, 4, 8])]).tolist() == [2, 5, 8]
    assert common_places([np.array([1.0]), np.array([2.0])]).tolist() == []
    write_run(tmp_path / "two/a", [0, 4, 8], [0.0] * 3, [0.0, 4.0, 8.0])
    write_run(tmp_path / "two/b", [2, 3, 5, 6], [0.0] * 4, [10.0] * 4, seed=1)
    figure, rows = draw(draw_learning_curve, [tmp_path / "two"])
    assert column(rows, "env_steps", "two") == [2, 4, 6]
    assert column(rows, "mean", "two") == [6, 7, 8]
    assert "interpolated linearly" in figure.legends[0].get_texts()[2].get_text()


def test_runs_that_never_meet_have_no_mean(tmp_path, draw):
    write_run(tmp_path / "two/a", [4], [0.0], [0.0])
    write_run(tmp_path / "two/b", [5], [0.0], [0.0], seed=1)
    figure, rows = draw(draw_learning_curve, [tmp_path / "two"])
    assert {row["group"] for row in rows} == {"two/a", "two/b"}
    (text,) = panels_of(figure)["validation"].get_legend().get_texts()
    assert text.get_text() == "two: 2 runs that have no x in common, so no mean"


def test_what_is_another_quantity_has_another_axis_and_a_group_one_color(tmp_path, draw):
    x, values = [10, 20], [1.0, 2.0]
    write_run(tmp_path / "adapting", x, values, values)
    write_run(tmp_path / "remembering", x, values, values, "rl2/point", trial=True)
    write_run(tmp_path / "total", x, values, values, score="total")
    names = ["adapting", "remembering", "total"]
    figure, rows = draw(draw_learning_curve, [tmp_path / name for name in names])
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "return of an episode after adaptation",
        "return of a trial",
        "return of a trial's last episode",
        "return of a trial",
    ]
    colors = {}
    for axes in figure.axes:
        for line in axes.lines:
            colors.setdefault(line.get_label(), set()).add(line.get_color())
    assert colors == {f"{name}: 1 run": {f"C{i}"} for i, name in enumerate(names)}
    assert len(rows) == 12
    assert figure.get_suptitle() == "point: maml, rl2"


@pytest.mark.parametrize(
    ("x", "places", "label"),
    [
        ("env_steps", [10, 20], "environment steps (thousands)"),
        ("minutes", [1, 2], "minutes of training"),
        ("iterations", [1, 2], "iterations"),
    ],
)
def test_x_is_steps_minutes_or_iterations(x, places, label, tmp_path, draw):
    run = write_run(tmp_path / "run", [10_000, 20_000], [1.0, 2.0])
    figure, rows = draw(draw_learning_curve, [run], x=x)
    (axes,) = figure.axes
    assert axes.lines[0].get_xdata().tolist() == places
    assert axes.get_xlabel() == label
    scale = 1000 if x == "env_steps" else 1
    assert [float(row[x]) for row in rows] == [scale * place for place in places]


def test_training_is_a_running_mean():
    values = np.arange(200.0)
    smoothed = smooth(values)
    assert smoothed[:3].tolist() == [0, 0.5, 1], "of what there is"
    for end in range(4, 201):
        assert smoothed[end - 1] == pytest.approx(values[end - 4 : end].mean())
    assert smooth(values[:10]).tolist() == values[:10].tolist()


def test_every_format_is_one_and_the_same_twice(tmp_path):
    run = write_run(tmp_path / "run", [10, 20], [1.0, 2.0], [3.0, 4.0])
    files = draw_learning_curve([run], tmp_path / "a", formats=["png", "svg", "pdf"])
    again = draw_learning_curve([run], tmp_path / "b", formats=["png", "svg", "pdf"])
    assert [path.name for path in files] == [
        "learning.png",
        "learning.svg",
        "learning.pdf",
        "learning.csv",
    ]
    for one, other in zip(files, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    png, svg, pdf, _ = files
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF-")
    texts = [element.text for element in ElementTree.parse(svg).iter() if "text" in element.tag]
    assert "point: maml" in texts


# -------------------------------------------------------------------------------------------------
# Adaptation


def score(**changes):
    curve = {"mean": [1.0, 3.0], "low": [0.5, 2.0], "high": [2.0, 5.0], "interval": "over tasks"}
    return {
        "summary": {"curve": curve, "optimum": 7.0},
        "episodes_consumed": [20, 40],
        "returns": [[[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]]],
        "closed": False,
        "split": "test",
        "mode": "sample",
        "test_mode": "greedy",
    } | changes


@pytest.fixture
def evaluated(tmp_path):
    """(scores by agent) → a run that was evaluated so."""

    def write(**scores):
        run = tmp_path / "run"
        if not run.exists():
            write_run(run, [10], [1.0])
        (run / "evaluation.json").write_text(json.dumps({"scores": scores}))
        return run

    return write


def test_adaptation_is_what_evaluation_found(evaluated, draw):
    bare = {"mean": [0.0, 0.5], "low": None, "high": None, "interval": None}
    random = score(summary={"curve": bare, "optimum": 7.0})
    maml = score(acting="as it likes")
    figure, rows = draw(draw_adaptation_curve, evaluated(maml=maml, random=random))
    (axes,) = figure.axes
    maml, optimum, other = axes.lines
    assert maml.get_xydata().tolist() == [[20, 1], [40, 3]]
    assert other.get_xydata().tolist() == [[20, 0], [40, 0.5]]
    assert optimum.get_ydata().tolist() == [7, 7]
    assert len(axes.collections) == 1, "a band without an interval"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "maml: 1 run, 95 % interval over tasks",
        "task known (optimum)",
        "random: 1 run, no interval",
    ]
    assert figure.get_suptitle() == "point: adaptation to 3 test tasks"
    assert axes.get_title(loc="left") == (
        "actions: sample, greedy in the last round\nmaml: as it likes"
    )
    assert [list(row.values()) for row in rows[:3]] == [
        ["return of an episode", "maml", "20.0", "1.0", "0.5", "2.0", "1"],
        ["return of an episode", "maml", "40.0", "3.0", "2.0", "5.0", "1"],
        ["return of an episode", "random", "20.0", "0.0", "", "", "1"],
    ]


def test_scores_that_were_kept_without_returns(evaluated, draw):
    """Old ones say neither how many runs and tasks they are of, nor what their interval means."""
    old = score()
    del old["returns"], old["summary"]["curve"]["interval"], old["test_mode"]
    figure, rows = draw(draw_adaptation_curve, evaluated(maml=old))
    assert figure.legends[0].get_texts()[0].get_text() == "maml, 95 % interval"
    assert figure.get_suptitle() == "point: adaptation to test tasks"
    assert rows[0]["runs"] == ""
    old["summary"]["total"], old["tasks"] = {"runs": [1.0, 2.0]}, 9
    figure, rows = draw(draw_adaptation_curve, evaluated(maml=old))
    assert figure.legends[0].get_texts()[0].get_text() == "maml: 2 runs, 95 % interval"
    assert figure.get_suptitle() == "point: adaptation to 9 test tasks"


def test_more_episodes_than_in_training_are_marked(evaluated, draw):
    figure, _ = draw(draw_adaptation_curve, evaluated(maml=score(trained_episodes=20)))
    (line,) = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert list(line.get_xdata()) == [20, 20]
    figure, _ = draw(draw_adaptation_curve, evaluated(maml=score(trained_episodes=40)))
    assert "--" not in [line.get_linestyle() for line in figure.axes[0].lines]


def test_optima_of_different_tasks_are_told_apart(evaluated, draw):
    other = score(split="ood", summary=score()["summary"] | {"optimum": 9.0})
    figure, rows = draw(draw_adaptation_curve, evaluated(test=score(), ood=other))
    dotted = [line for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert [(line.get_color(), line.get_ydata()[0]) for line in dotted] == [("C0", 7), ("C1", 9)]
    assert figure.get_suptitle() == "point: adaptation to 3 test tasks, 3 ood tasks"
    assert [row["group"] for row in rows if row["quantity"] == "optimum"] == [
        *["test"] * 2,
        *["ood"] * 2,
    ]


# -------------------------------------------------------------------------------------------------
# Mistakes


def test_runs_that_share_no_curve_or_axis_are_refused(tmp_path):
    write_run(tmp_path / "mixed/a", [1], [1.0])
    write_run(tmp_path / "mixed/b", [1], [1.0], seed=1, **{"agent.discount": 0.5})
    (line,) = mistake("plot", tmp_path / "mixed")
    assert re.search("mixed/b differs from a in its agent: .*name every run by itself", line)
    other = write_run(tmp_path / "other", [1], [1.0], config="rl2/gridnavi")
    (line,) = mistake("plot", tmp_path / "mixed/a", other)
    assert line == "gridnavi and point have returns of their own: draw one family at a time"


@pytest.mark.parametrize(
    ("text", "says"),
    [(None, "config.yaml: No such file or directory"), ("agent: [", "config.yaml"), ("a: 1", "a")],
)
def test_a_configuration_that_cannot_be_read_is_one_line(text, says, tmp_path):
    run = write_run(tmp_path / "run", [1], [1.0])
    (run / "config.yaml").unlink()
    if text is not None:
        (run / "config.yaml").write_text(text)
    lines = mistake("plot", run)
    assert says in lines[0]


def test_the_command_writes_what_it_is_asked_for(tmp_path):
    run = write_run(tmp_path / "run", [10, 20], [1.0, 2.0])
    (run / "evaluation.json").write_text(json.dumps({"scores": {"maml": score()}}))
    code, out, err = metarl("plot", run, "--format", "svg,pdf", "--x", "minutes")
    assert code == 0, err
    names = ["learning.svg", "learning.pdf", "learning.csv"]
    names += [name.replace("learning", "adaptation") for name in names]
    assert out.splitlines() == [str(run / name) for name in names]
    (line,) = mistake("plot", run, "--format", "jpg")
    assert line == "format 'jpg': did you mean 'png'?"
    (line,) = mistake("plot", run, "--out", tmp_path / "out", "--format", "bmp,png")
    assert line.startswith("format 'bmp'")
    assert not (tmp_path / "out").exists()
