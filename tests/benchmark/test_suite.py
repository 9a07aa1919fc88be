"""Suites: what a file asks for, cell by cell, and the mistakes that it may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarl.benchmark.references import read_references
from metarl.benchmark.suite import config_hash, read_suite, shipped_suites
from metarl.config.files import load_config, to_yaml
from metarl.config.schema import to_dict
from metarl.core.errors import ConfigError

SMALL = """
title: Small
seeds: [3, 5]
problems:
  bandit:
    family: {name: bernoulli-bandit, arms: 4}
    settings: {episodes: 10, env_steps: 5_000, test_tasks: 20}
    agents:
      rl2: rl2/bernoulli-bandit
      wide:
        config: rl2/bernoulli-bandit
        settings: {agent.memory_width: 16, env_steps: 2_000}
      thompson: thompson
"""


def suite_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(tmp_path: Path, old: str, new: str) -> str:
    assert old in SMALL
    with pytest.raises(ConfigError) as caught:
        read_suite(suite_of(tmp_path, SMALL.replace(old, new))).cells()
    return str(caught.value)


# -------------------------------------------------------------------------------------------------
# Cells


def test_cells_are_complete_configurations(tmp_path):
    suite = read_suite(suite_of(tmp_path, SMALL))
    cells = suite.cells()
    names = [(cell.agent, cell.seed) for cell in cells]
    trained = [("rl2", 3), ("rl2", 5), ("wide", 3), ("wide", 5)]
    assert names == [("random", 0), *trained, ("thompson", 0)]
    wide = cells[3].config
    plain = to_dict(wide)
    assert (plain["agent"]["memory_width"], wide.env_steps, wide.seed) == (16, 2000, 3)
    assert plain["family"] == {"name": "bernoulli-bandit", "arms": 4}
    assert (wide.episodes, wide.test_tasks) == (10, 20)
    assert not cells[5].trained
    assert cells[5].config.episodes == 10
    assert len({cell.hash for cell in cells}) == len(cells)
    assert cells[3].folder == Path("bandit/wide/seed-3")
    assert config_hash(plain) == cells[3].hash
    assert config_hash(dict(reversed(plain.items()))) == cells[3].hash
    assert config_hash(plain | {"seed": 4}) != cells[3].hash


@pytest.mark.parametrize("name", shipped_suites())
def test_a_cell_is_the_same_after_it_was_written_as_yaml(name, tmp_path):
    """As its run reads it; options may be mappings, whose order YAML does not keep."""
    cells = {(cell.problem, cell.agent): cell for cell in read_suite(name).cells(seeds=[1])}
    for cell in cells.values():
        path = suite_of(tmp_path, to_yaml(cell.config))
        assert config_hash(to_dict(load_config(path))) == cell.hash


def test_seeds_and_agents_can_be_chosen(tmp_path):
    suite = read_suite(suite_of(tmp_path, SMALL))
    chosen = suite.cells(seeds=[7], only=["wide"])
    assert [(cell.agent, cell.seed) for cell in chosen] == [("random", 0), ("wide", 7)]
    assert len(suite.cells(only=["bandit"])) == 6


def test_limits_of_a_suite_replace_those_of_the_configuration(tmp_path):
    """pearl/point-short stops after its iterations, which are no limit of the suite."""
    text = SMALL.replace("rl2/bernoulli-bandit\n        settings: {", "X").replace(
        "      rl2: rl2/bernoulli-bandit", "      maml: maml/bernoulli-bandit"
    )
    text = text.partition("      wide:")[0]
    maml = read_suite(suite_of(tmp_path, text)).cells()[1].config
    assert (maml.env_steps, maml.iterations, maml.minutes) == (5000, None, None)


def test_budgets_are_problems_of_their_own(tmp_path):
    budgets = "    budgets: {steps: {env_steps: 9_000}, time: {minutes: 2}}\n    agents:"
    text = SMALL.replace("env_steps: 5_000, ", "").replace("    agents:", budgets)
    cells = read_suite(suite_of(tmp_path, text)).cells(seeds=[0], only=["rl2"])
    limits = {cell.problem: (cell.config.env_steps, cell.config.minutes) for cell in cells[1::2]}
    assert limits == {"bandit-steps": (9000, None), "bandit-time": (None, 2.0)}


def test_checkpoints_are_chosen_by_what_agents_are_compared_by(tmp_path):
    text = SMALL.replace("    settings: {episodes", "    score: last\n    settings: {episodes")
    assert {cell.config.score for cell in read_suite(suite_of(tmp_path, text)).cells()} == {"last"}


# -------------------------------------------------------------------------------------------------
# Mistakes


def test_all_mistakes_are_told_with_their_place(tmp_path):
    text = SMALL.replace("agent.memory_width: 16", "agent.width: 16").replace(
        "rl2: rl2/bernoulli-bandit", "rl2: rl2/bernouli-bandit"
    )
    with pytest.raises(ConfigError) as caught:
        read_suite(suite_of(tmp_path, text)).cells()
    first, second = str(caught.value).splitlines()
    assert first.startswith("mine: bandit / rl2: configuration 'rl2/bernouli-bandit' is unknown")
    assert second.startswith("mine: bandit / wide: ")
    assert "agent.width" in second


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("title: Small", "titel: Small", "titel"),
        ("  bandit:", "  ../bandit:", "a label is made of letters"),
        ("thompson: thompson", "thompson: {}", "give either config"),
        ("env_steps: 2_000}", "episodes: 20}", "total needs equal episodes"),
        ("env_steps: 2_000}", "test_tasks: 30}", "agents meet different tasks"),
        ("[3, 5]", "3", "seeds"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, old, new, told):
    assert told in refused(tmp_path, old, new)


def test_an_unknown_suite_is_answered_with_a_near_one():
    with pytest.raises(ConfigError, match="did you mean 'smoke'"):
        read_suite("smok")


def test_references_say_whether_the_protocol_is_the_same():
    head = "problem,agent,quantity,value,source,protocol\n"
    (one,) = read_references(head + 'bandit,rl2,total,78.7,"Duan, table 1",same\n', "r.csv")
    assert (one.value, one.source, one.same_protocol) == (78.7, "Duan, table 1", True)
    with pytest.raises(ConfigError, match="line 2: value: write a number"):
        read_references(head + "bandit,rl2,total,much,x,same\n", "r.csv")
    with pytest.raises(ConfigError, match="line 2: protocol: write same or similar"):
        read_references(head + "bandit,rl2,total,1,x,nearly\n", "r.csv")
    with pytest.raises(ConfigError, match="the column source is missing"):
        read_references(head.replace("source,", ""), "r.csv")


# -------------------------------------------------------------------------------------------------
# Those that come with metarl


@pytest.mark.parametrize("name", shipped_suites())
def test_shipped_suites_are_right(name):
    suite = read_suite(name)
    cells = suite.cells()
    assert {cell.problem for cell in cells} == set(suite.problems)
    assert len({cell.folder for cell in cells}) == len(cells)


def test_every_reference_is_of_a_problem():
    suites = [read_suite(name) for name in shipped_suites()]
    problems = {problem for suite in suites for problem in suite.problems}
    assert {reference.problem for suite in suites for reference in suite.references} <= problems


def test_the_hash_of_a_configuration_does_not_tell_who_computed():
    plain = to_dict(load_config("rl2/bernoulli-bandit"))
    on_workers = plain | {"collector": "ray", "workers": 4, "worker_cpus": 0.5}
    assert config_hash(on_workers) == config_hash(plain)
    before_0_14 = {key: value for key, value in plain.items() if "shard" not in key}
    assert config_hash(before_0_14) == config_hash(plain)
    for change in ({"shard_rows": 5}, {"gradient_shards": 2}, {"seed": 1}):
        assert config_hash(plain | change) != config_hash(plain)
