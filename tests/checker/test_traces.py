"""Wide observations: a sketch of each, fewer steps, and the same findings."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from test_check import FAULTS, Walk, broken

from metarl.checker import probe
from metarl.checker.check import check_family
from metarl.checker.probe import Probe
from metarl.checker.traces import Sketch
from metarl.core.types import replace

WIDE = 30_000


def test_a_sketch_tells_observations_apart_that_differ_in_one_entry():
    sketch = Sketch(WIDE)
    obs = torch.rand(1, 1, WIDE, generator=torch.Generator().manual_seed(0))
    other = obs.clone()
    other[..., 12_345] += 1e-6
    assert sketch(obs).shape == (1, 1, 66)
    assert not torch.equal(sketch(obs), sketch(other))
    assert torch.equal(sketch(obs), sketch(obs.clone()))
    assert torch.equal(sketch(sketch(obs)), sketch(obs))


def test_a_sketch_does_not_depend_on_the_place():
    """Rows and lanes are compared with each other."""
    lane = torch.rand(WIDE + 1, generator=torch.Generator().manual_seed(0))
    sketches = Sketch(WIDE + 1)(lane.expand(5, 3, -1)).flatten(0, 1)
    assert (sketches == sketches[0]).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_sketch_of_what_is_not_finite_is_not_finite(value: float):
    obs = torch.zeros(1, 1, WIDE)
    obs[..., -1] = value
    assert not Sketch(WIDE)(obs).isfinite().all()


def test_images_of_bytes_have_sketches():
    obs = torch.arange(WIDE).remainder(256).to(torch.uint8).view(1, 1, -1)
    assert torch.equal(Sketch(WIDE)(obs), Sketch(WIDE)(obs.float()))


@pytest.fixture
def sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """All observations count as wide; few of them are held."""
    monkeypatch.setattr(probe, "_KEPT", 0)
    monkeypatch.setattr("metarl.checker.traces._HELD", 0)


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize(
    "name",
    [
        *("in_place", "torn", "same_step", "idle_step", "rows share their randomness"),
        *("second hand", "pickled badly", "tired", "a reward of a trial"),
    ],
)
def test_the_same_is_found_by_sketches(name: str):
    assert broken(check_family(Walk(name))) == FAULTS[name][1]


@pytest.mark.usefixtures("sketched")
def test_a_family_that_keeps_every_promise_keeps_them_in_sketches():
    report = check_family(Walk())
    assert report.ok, report
    (steps,) = (finding for finding in report.findings if finding.rule == "steps")
    assert "; observations of 2 numbers are kept as sketches" in steps.observed


@pytest.mark.parametrize(
    ("shape", "horizon", "pace", "size", "steps", "said"),
    [
        ((84, 84, 3), 100, 0.0, (4, 2), 202, "observations of 21,168 numbers are kept as sketches"),
        ((400, 600, 3), 1000, 0.0, (3, 2), 124, "as sketches, and 1016 steps take too long"),
        ((2, 1), 1000, 0.0, (4, 2), 1016, ""),
        ((2, 1), 1000, 0.01, (3, 2), 250, "1016 steps take too long"),
        ((2, 1), 1000, 9.0, (3, 2), 16, "1016 steps take too long"),
    ],
)
def test_a_check_is_as_long_as_observations_and_steps_allow(
    shape: tuple[int, ...],
    horizon: int,
    pace: float,
    size: tuple[int, int],
    steps: int,
    said: str,
):
    width = int(torch.tensor(shape).prod())
    family = SimpleNamespace(spec=replace(Walk().spec, observation={"o": width}, horizon=horizon))
    examined = Probe(family)
    examined.pace = pace
    assert (examined.size, examined.steps) == (size, steps)
    assert examined.reduced.endswith(said)
    assert bool(examined.reduced) == bool(said)
    rows, lanes = examined.wide.size
    assert rows * lanes * width < 2**25


def test_the_pace_of_a_family_is_taken():
    """What cannot be stepped has none: the rule of steps tells."""
    assert 0 < Probe(Walk()).pace < 1
    assert Probe(SimpleNamespace(spec=Walk().spec, tasks=Walk().tasks, make=object)).pace == 0
