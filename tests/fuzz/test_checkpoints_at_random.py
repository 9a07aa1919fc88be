"""A short form of what benchmarks/fuzz.py does with very many checkpoints."""

from __future__ import annotations

import pytest
from fuzz.checkpoints import PROPERTIES
from hypothesis import HealthCheck, settings


@pytest.mark.parametrize(("name", "inputs"), [("flips", 60), ("truncations", 20), ("contents", 60)])
def test_what_is_loaded_works_and_all_else_is_refused(name, inputs):
    checks = settings(max_examples=inputs, suppress_health_check=list(HealthCheck))
    checks(PROPERTIES[name])()
