"""The short form of `fuzz/spaces.py`; METARL_FUZZ=10000 draws so many examples of each property."""

from __future__ import annotations

import os

import pytest
from fuzz.spaces import PROPERTIES
from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("METARL_FUZZ", "100"))


@pytest.mark.parametrize("name", PROPERTIES)
def test_it_works_or_is_told_in_one_line(name: str):
    settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))(PROPERTIES[name])()
