"""The short form of `fuzz/texts.py`; benchmarks/fuzz.py is the long one."""

from __future__ import annotations

import pytest
from fuzz.texts import PROPERTIES
from hypothesis import HealthCheck, settings


@pytest.mark.parametrize("name", PROPERTIES)
def test_it_is_a_configuration_or_says_in_short_lines_why_not(name: str):
    examples = 60 if name == "configurations" else 200
    settings(max_examples=examples, suppress_health_check=list(HealthCheck))(PROPERTIES[name])()
