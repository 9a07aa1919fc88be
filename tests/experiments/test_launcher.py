"""Runs of several seeds: which, and what becomes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarl.core.errors import ConfigError, MetaRLError
from metarl.experiments import launcher
from metarl.experiments.launcher import read_seeds, train_seeds


def test_seeds_are_whole_numbers_each_once():
    assert read_seeds("0, 1,12") == [0, 1, 12]
    assert read_seeds("3,5-7") == [3, 5, 6, 7]
    wrong = ("", "1,,2", "-1", "1;2", "1_0", "٣", "1.0", str(2**63), "9" * 5000, "0,1,", "4-2")
    for text in (*wrong, "0-9999999", "1-2-3"):
        with pytest.raises(ConfigError, match="write whole numbers from 0") as caught:
            read_seeds(text)
        assert len(str(caught.value)) < 250
    with pytest.raises(ConfigError, match="give it once"):
        read_seeds("0,1,00")


def test_a_command_a_seed_and_those_that_failed_are_named(monkeypatch):
    given = {}

    def run_jobs(jobs, at_once, grace, ended):
        given.update(jobs=jobs, at_once=at_once, grace=grace)
        return [1, 0, 2]

    monkeypatch.setattr(launcher, "run_jobs", run_jobs)
    with pytest.raises(MetaRLError, match="seeds 4, 6 ended with an error; see above"):
        train_seeds("c.yaml", ["x=1"], Path("out"), [4, 5, 6], 2, True, True, 20.0, False)
    assert (given["at_once"], given["grace"]) == (2, 20.0)
    assert given["jobs"][1].arguments == [
        *("train", "c.yaml", "x=1", "seed=5", "--out", "out/seed-5"),
        *("--resume", "--quiet", "--no-pictures", "--grace=20"),
    ]
