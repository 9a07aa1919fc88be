"""What there is to choose from, in words."""

from __future__ import annotations

import pytest
from helpers import FILES

from metarl.config.catalogue import description, listing
from metarl.config.registry import names
from metarl.core.errors import MetaRLError


def test_the_listing_names_everything_once_with_its_variants():
    lines = listing("family").splitlines()
    assert [line.split()[0] for line in lines] == names("family")
    assert next(line for line in lines if line.startswith("half-cheetah-vel")).endswith(
        "[pearl, maml, promp]"
    )


def test_a_family_is_described_with_its_shape_variants_and_options():
    told = description("family", "gridnavi")
    assert "observation  position [2]" in told
    assert "action       5 choices" in told
    assert "task row     [2], the first 2 its goal" in told
    assert "splits       train, validation, test (closed: all hold the same tasks)" in told
    assert "variant all: the defaults below" in told
    assert "  family.horizon\n      steps of an episode, H (int, > 0; default 15)" in told
    assert "variant maml: fastest=2.0" in description("family", "half-cheetah-vel")
    assert "[17]" not in description("agent", "rl2")


def test_a_file_is_described_too():
    file = FILES / "needle.py"
    assert "family.arms" in description("family", f"{file}:Needle")


def test_an_unknown_name_is_a_mistake():
    with pytest.raises(MetaRLError, match="did you mean 'gridnavi'"):
        description("family", "gridnav")
