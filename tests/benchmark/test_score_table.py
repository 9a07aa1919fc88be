"""The numbers of a report: computed by hand, written once, equal in every format."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from benchmark_folders import ODD, write_benchmark

from metarl.benchmark.results import read_benchmark
from metarl.benchmark.score_table import (
    DIFFERENCE,
    OPTIMUM,
    decimals,
    difference,
    measure,
    not_worse,
)
from metarl.benchmark.table_texts import (
    COLUMNS,
    Table,
    Text,
    latex_text,
    markdown_text,
    to_csv,
    to_latex,
    to_markdown,
)
from metarl.evaluation import stats

TASKS = np.linspace(-1, 1, 8)
OPTIMUM_OF_TASK = np.full(8, 10.0)


def runs(*means):
    """[R][2, 8]: of each run the returns of two episodes, the second 2 higher; tasks differ."""
    return [np.stack([mean - 1 + TASKS, mean + 1 + TASKS]) for mean in means]


@pytest.fixture
def results(tmp_path):
    agents = {"random": runs(2.0), "good": runs(7.0, 7.2, 7.4), "near": runs(6.9, 7.1, 7.5)}
    agents |= {"poor": runs(4.0, 4.1, 4.2), "told": runs(9.0, 9.0, 9.0)}
    folder = write_benchmark(
        tmp_path / "known",
        {"bandit": agents},
        optimum=OPTIMUM_OF_TASK,
        shown={"told": "goal"},
    )
    return read_benchmark(folder)


def quantities(results, agent):
    return {row.quantity: row for row in measure(results) if row.agent == agent}


def test_quantities_are_those_of_a_hand_computation(results):
    found = quantities(results, "good")  # 2 × 7.2 a trial; random has 4, the optimum 20
    values = {name: row.value for name, row in found.items()}
    assert values == {
        "score": "14.40",
        "scaled score": "0.650",
        "no adaptation": "12.40",
        "first episode": "6.20",
        "last episode": "8.20",
        "regret": "5.60",
        "train − test": "2.000",
        "test − ood": "4.000",
    }
    score = found["score"]
    assert (score.runs, score.tasks, score.episodes, score.env_steps) == ("3", "8", "2", "1000")
    own = results.entries["bandit", "good"]
    low, high = own.estimate.over_runs_and_tasks
    assert (score.low, score.high) == (f"{low:.2f}", f"{high:.2f}")
    assert score.interval == "over runs and tasks"
    scaled = found["scaled score"]
    assert scaled.low == f"{(low - 4) / 16:.3f}"
    assert quantities(results, "random")["score"].interval == "over tasks"


def test_the_known_optimum_has_a_row(results):
    values = {name: row.value for name, row in quantities(results, OPTIMUM).items()}
    assert values == {
        "score": "20.00",
        "scaled score": "1.000",
        "first episode": "10.00",
        "last episode": "10.00",
        "regret": "0.00",
    }


def test_success_is_of_the_last_episode_where_it_is_known(tmp_path):
    success = np.stack([np.zeros((1, 8)), np.tile([0.0, 1.0, 1.0, 1.0], (1, 2))], axis=1)
    problems = {"maze": {"one": runs(7.0, 7.0)}}
    folder = write_benchmark(
        tmp_path, problems, success=success, suite={"problem": {"score": "success", "one": 1}}
    )
    found = quantities(read_benchmark(folder), "one")
    assert found["success"].value == found["score"].value == "0.750"
    assert "scaled score" not in found  # which asks for random actions


def test_not_worse_is_who_is_within_the_paired_interval_of_the_best(results):
    assert not_worse(results, "bandit") == ["good", "near"]
    first, second = (results.entries["bandit", name] for name in ("good", "poor"))
    estimate = difference(first, second)
    assert estimate == stats.difference(first.rows, second.rows)
    assert estimate.over_runs_and_tasks[0] > 0


def test_of_a_single_run_seeds_of_others_are_not_asked(tmp_path):
    agents = {"one": runs(7.0), "three": runs(5.0, 7.0, 9.0)}
    results = read_benchmark(write_benchmark(tmp_path, {"bandit": agents}))
    estimate = difference(*results.entries.values())
    assert estimate.over_runs is None
    assert estimate.over_tasks == pytest.approx((0, 0), abs=1e-9)


def test_other_tasks_are_not_compared(tmp_path):
    here = read_benchmark(write_benchmark(tmp_path / "a", {"bandit": {"one": runs(7.0)}}))
    there = write_benchmark(tmp_path / "b", {"bandit": {"one": runs(7.0)}}, task_hash="other")
    (first,), (second,) = here.entries.values(), read_benchmark(there).entries.values()
    assert difference(first, second) is None


@pytest.mark.parametrize(
    ("values", "digits"),
    [([13.7, -2], 2), ([0.9], 3), ([1.0], 3), ([1234.5], 0), ([0.0123], 4), ([], 2), ([0.0], 2)],
)
def test_a_column_has_four_digits(values, digits):
    assert decimals(values) == digits


def test_csv_is_long_and_holds_no_times(results):
    text = to_csv(measure(results))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 5 * 8 + 4 + 5  # four differ from the best; the optimum has five
    assert not {"seconds", "minutes"} & set(rows[0])


def test_texts_are_no_markup():
    table = Table("odd", ODD, (ODD, "n"), [(Text(ODD), Text("-1.5 [-2.0, 1.0]", -1.5, bold=True))])
    markdown = to_markdown([table])
    assert "<" not in markdown
    assert "\\$x\\_1\\$ \\| " in markdown
    assert "**-1.5 [-2.0, 1.0]**" in markdown
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {3}

    latex = to_latex([table])
    assert r"\textbf{$-$1.5 [$-$2.0, 1.0]}" in latex
    assert r"\textless{}script\textgreater{}" in latex
    assert latex.index(r"\toprule") < latex.index(r"\midrule") < latex.index(r"\bottomrule")
    for name in ("table", "tabular"):
        assert latex.count(rf"\begin{{{name}}}") == latex.count(rf"\end{{{name}}}") == 1


def test_every_special_letter_is_escaped():
    assert latex_text(r"\ & % $ # _ { } ~ ^") == (
        r"\textbackslash{} \& \% \$ \# \_ \{ \} \textasciitilde{} \textasciicircum{}"
    )
    assert markdown_text("a|b\nc <d> & e") == r"a\|b c &lt;d&gt; &amp; e"


def test_differences_are_from_the_best_on_the_same_tasks(results):
    good, poor = (results.entries["bandit", name] for name in ("good", "poor"))
    row = quantities(results, "poor")[DIFFERENCE]
    expected = stats.difference(poor.rows, good.rows)
    assert row.number == expected.value < 0
    assert float(row.high) == pytest.approx(expected.over_runs_and_tasks[1], abs=0.01)
    assert DIFFERENCE not in quantities(results, "good")
