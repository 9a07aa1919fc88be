"""What there is to choose from, in words."""

from __future__ import annotations

import pytest
from helpers import FAMILIES, FILES

from metarl.config.catalogue import configurations, description, listing
from metarl.config.files import load_config, shipped
from metarl.config.measurements import read_measured
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
    assert "  family.horizon\n      steps of an episode, H (whole number > 0; default 15)" in told
    assert "variant maml: fastest=2.0" in description("family", "half-cheetah-vel")
    assert "[17]" not in description("agent", "rl2")


def test_a_file_is_described_too():
    file = FILES / "needle.py"
    assert "family.arms" in description("family", f"{file}:Needle")


def test_every_configuration_is_listed_with_its_family_and_what_it_costs():
    lines = configurations().splitlines()
    assert [line.split()[0] for line in lines] == shipped()
    for line in lines:
        name, told = line.split(maxsplit=1)
        config = load_config(name)
        assert told.startswith(f"{config.family.name}, ")
        if config.env_steps:
            assert f", {config.env_steps:,} env steps" in told
        if config.iterations:
            assert f"{config.iterations:,} iterations" in told
        assert ("reached" in told) == (name in read_measured())


def test_what_was_measured_stands_beside_it():
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in configurations().splitlines()}
    assert lines["rl2/gridnavi"] == (
        "gridnavi, 10,000,000 env steps; reached 37.08 (37.21, the optimum) after 10 M env steps, "
        "3 to 8 min; 3 seeds"
    )
    assert lines["rl2/half-cheetah-vel"] == "half-cheetah-vel, 10,000,000 env steps"
    assert "after 2 M (of 10 M) env steps, 3 min; 1 seed" in lines["rl2/point"]
    assert set(read_measured()) <= set(shipped())


def test_a_family_names_the_configurations_that_are_made_for_it():
    assert "\n  configurations: rl2/gridnavi, varibad/gridnavi\n" in description(
        "family", "gridnavi"
    )
    assert "configurations: none; metarl config --suggest taxi makes" in description(
        "family", "taxi"
    )
    assert "configurations" not in description("agent", "rl2")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int):
    texts = [listing("family", width), listing("agent", width), configurations(width)]
    texts += [description("agent", name, width) for name in names("agent")]
    texts += [description("family", name, width) for name in FAMILIES]
    for text in texts:
        for line in text.splitlines():
            assert len(line) <= width or "pip install" in line
    whole, folded = description("agent", "rl2"), description("agent", "rl2", width)
    assert folded.split() == whole.split()
    assert len(folded.splitlines()) > len(whole.splitlines())


def test_an_unknown_name_is_a_mistake():
    with pytest.raises(MetaRLError, match="did you mean 'gridnavi'"):
        description("family", "gridnav")
