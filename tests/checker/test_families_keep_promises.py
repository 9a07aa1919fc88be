"""The contract of every registered family: it is tested by being registered."""

from __future__ import annotations

import pytest
from helpers import FAMILIES, same

from metarl.checker.check import check_family
from metarl.config.registry import find
from metarl.core.rng import Rng
from metarl.experiments.building import make_family

VARIANTS = [
    (name, variant)
    for name in FAMILIES
    for variant in find("family", name).settings.choices() or [""]
]

SHORT = 25
"""Steps of an episode of a robot: a trace holds two whole ones, and of the default's 200 one."""

DETERMINISTIC = {"factored-bandit", "gridnavi", "point:maml", "sparse-point", "taxi"}
"""Families, or variants of them, in which the same actions always lead to the same episode."""


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_a_registered_family_keeps_its_promises(name: str, variant: str):
    """And chance depends on the seed, but where there is none."""
    settings = find("family", name).settings
    options: dict[str, object] = {"variant": variant} if variant else {}
    if settings.__module__ == "metarl_envs.robot_config":
        options["horizon"] = SHORT
    report = check_family(make_family(name, **options))
    assert report.ok, str(report)
    assert "warn" not in [finding.verdict for finding in report.findings], str(report)
    (randomness,) = (
        finding.observed for finding in report.findings if finding.rule == "randomness"
    )
    assert ("deterministic" in randomness) == (
        name in DETERMINISTIC or f"{name}:{variant}" in DETERMINISTIC
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_another_seed_gives_other_tasks(name: str):
    """Of a few tasks it gives another order."""
    family = make_family(name)
    assert not same(family.tasks("train", 20, Rng(0)), family.tasks("train", 20, Rng(1)))
