"""Benchmarks: every cell a run, done once, whatever becomes of the others."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import FILES
from test_cli import metarl

from metarl.benchmark import runner
from metarl.benchmark.forecast import forecast, forecast_table
from metarl.benchmark.results import read_benchmark
from metarl.benchmark.runner import Benchmark
from metarl.benchmark.suite import read_suite
from metarl.benchmark.table_texts import print_table
from metarl.core.errors import CheckpointError
from metarl.evaluation.meta_test import evaluate
from metarl.experiments.building import load, make_agent, make_family
from metarl.experiments.processes import Ended

SUITE = f"""
title: Tiny
seeds: [0, 1]
limit_minutes: 5
problems:
  bandit:
    family: {{name: bernoulli-bandit, arms: 3}}
    settings: {{episodes: 8, env_steps: 800, validation_tasks: 10, test_tasks: 30}}
    agents:
      ucb1: ucb1
      rl2: {{config: rl2/bernoulli-bandit, settings: {{agent.trials: 50, agent.memory_width: 8}}}}
      raises: {{agent: '{FILES}/failing_agents.py:Raises'}}
      hangs: {{agent: '{FILES}/failing_agents.py:Hangs', limit_minutes: 0.05}}
"""
CELLS = 6


def benchmark_of(folder: Path, text: str = SUITE) -> Benchmark:
    path = folder / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    suite = read_suite(path)
    return Benchmark(suite, suite.cells(), folder / "bench")


def results_in(benchmark: Benchmark) -> dict[str, int]:
    """When each result was written."""
    files = benchmark.out.glob("*/*/*/result.json")
    return {str(file): file.stat().st_mtime_ns for file in files}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A benchmark that was killed after its first results, and then gone on with.

    With what it had done until then, and the cells that failed.
    """
    folder = tmp_path_factory.mktemp("benchmark")
    benchmark = benchmark_of(folder)
    command = [sys.executable, "-m", "metarl", "benchmark", str(folder / "tiny.yaml")]
    process = subprocess.Popen([*command, "--out", str(benchmark.out), "--quiet"])
    for _ in range(1200):
        if results_in(benchmark):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = results_in(benchmark)
    failed = benchmark.run(3, resume=True, quiet=False, grace=0.5)
    return benchmark, before, failed


def test_its_runs_draw_no_pictures(ran):
    benchmark, _, _ = ran
    assert list(benchmark.out.rglob("*.result"))
    assert not list(benchmark.out.rglob("*.pictures"))


def test_after_a_kill_what_is_missing_is_done_and_nothing_twice(ran):
    benchmark, before, _ = ran
    assert 0 < len(before) < CELLS - 2
    after = results_in(benchmark)
    assert len(after) == CELLS - 2
    assert before.items() <= after.items()


def test_a_folder_that_holds_a_benchmark_is_gone_on_with_only_if_asked(ran):
    with pytest.raises(CheckpointError, match="holds a benchmark already: go on with --resume"):
        ran[0].run(1, resume=False, quiet=True)


def test_cells_are_ordinary_runs_whose_results_are_read(ran):
    results = read_benchmark(ran[0].out)
    assert (results.problems, results.agents) == (["bandit"], ["random", "ucb1", "rl2"])
    rl2 = results.entries["bandit", "rl2"]
    assert rl2.rows.shape == (2, 30)
    assert [cell.seed for cell in rl2.cells] == [0, 1]
    assert rl2.test.task_hash == results.entries["bandit", "ucb1"].test.task_hash
    assert rl2.no_adaptation is not None
    run = load(rl2.cells[1].folder)
    expected = evaluate(run.agent, run.family(), run.protocol(adapt=False))
    assert rl2.no_adaptation.returns[1] == pytest.approx(expected.returns[0], abs=1e-6)
    assert rl2.gaps.keys() == {"train − test", "test − ood"}


def test_0_and_1_of_scaled_scores(ran):
    results = read_benchmark(ran[0].out)
    rl2 = results.entries["bandit", "rl2"]
    family = make_family("bernoulli-bandit", arms=3)
    random = evaluate(make_agent("random", family.spec), family, episodes=8, tasks=30)
    zero, one = results.scale("bandit")
    assert zero == pytest.approx(random.totals.mean(), abs=1e-4)
    assert one == pytest.approx(8 * 3 / 4)
    assert results.scaled(rl2) == pytest.approx((rl2.rows.mean(1) - zero) / (one - zero))
    assert np.all(results.scaled(results.entries["bandit", "random"]) == 0)


def test_what_fails_leaves_its_error_and_the_others_go_on(ran):
    benchmark, _, failed = ran
    assert [cell.agent for cell in failed] == ["raises", "hangs"]
    raises, hangs = read_benchmark(benchmark.out).failures
    assert "no such <thing>" in raises.error
    assert hangs.error == "ended after the limit of 0.05 minutes (limit_minutes)"


def test_what_is_done_and_what_is_missing_is_foretold(ran, capsys):
    benchmark = ran[0]
    rows = forecast(benchmark, seconds=0.0)
    counts = {row.agent: (row.done, row.failed, row.missing) for row in rows}
    done, failed = (1, 0, 0), (0, 1, 1)
    assert counts == {
        "random": done,
        "ucb1": done,
        "rl2": (2, 0, 0),
        "raises": failed,
        "hangs": failed,
    }
    print_table(forecast_table(rows, benchmark.suite))
    assert "Tiny: 6 runs" in capsys.readouterr().out


def test_the_time_of_a_run_is_foretold_by_trying_it(tmp_path):
    """50 trials of 8 steps an iteration: 800 steps are two, of which the second is timed."""
    benchmark = benchmark_of(tmp_path, SUITE.replace("env_steps: 800", "env_steps: 720_000_000"))
    (row,) = [row for row in forecast(benchmark, seconds=0.0) if row.agent == "rl2"]
    assert (row.limit, row.missing) == ("720,000,000 env steps", 2)
    assert 0.1 < row.hours < 1000  # 200 to 2 million steps a second
    assert not benchmark.out.exists()


def test_a_cell_of_another_configuration_is_not_done(ran):
    benchmark = ran[0]
    text = SUITE.replace("ucb1: ucb1", "ucb1: thompson")
    other = benchmark_of(benchmark.out.parent, text)
    waiting = [cell.agent for cell in other.cells if not other.is_done(cell)]
    assert waiting == ["ucb1", "raises", "hangs"]


def run_here(jobs, at_once, grace, ended):
    """The jobs one after the other, in this process."""
    for place, job in enumerate(jobs):
        code, *_ = metarl(*job.arguments)
        ended(Ended(place, code, 1.0, too_long=False))


def test_what_a_suite_no_longer_has_is_no_part_of_its_results(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "run_jobs", run_here)
    text = SUITE.partition("      rl2:")[0]
    benchmark_of(tmp_path, text + "      ucb: {agent: ucb1}\n").run(2, resume=False, quiet=True)
    benchmark_of(tmp_path, text).run(2, resume=True, quiet=True)
    results = read_benchmark(tmp_path / "bench")
    assert (results.agents, results.failures) == (["random", "ucb1"], ())
