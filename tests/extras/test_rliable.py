"""Aggregates beside rliable's."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.evaluation import aggregates

library = pytest.importorskip(
    "rliable.library", reason="rliable is not installed: pip install 'metarl-torch[rliable]'"
)
metrics = pytest.importorskip("rliable.metrics")

SHAPES = [(1, 1), (3, 1), (1, 8), (5, 3), (10, 8)]
close = {"rel": 0, "abs": 1e-12}


def draw(shape, seed=0):
    """[R, P], of which some are equal and some are more than 1."""
    return np.round(np.random.default_rng(seed).normal(0.7, 0.3, shape), 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_those_of_rliable(shape):
    scores = draw(shape)
    by_problem = list(scores.T)
    iqm = aggregates.iqm(by_problem).value
    assert iqm == pytest.approx(metrics.aggregate_iqm(scores), **close)
    for gamma in (1.0, 0.8):
        gap = aggregates.optimality_gap(by_problem, gamma).value
        expected = metrics.aggregate_optimality_gap(scores, gamma)
        assert gap == pytest.approx(expected, **close)
    taus = np.linspace(0, 1.5, 16)
    profile = [estimate.value for estimate in aggregates.performance_profile(by_problem, taus)]
    assert profile == pytest.approx(library.score_distributions(scores, taus), **close)


@pytest.mark.parametrize(("first", "second"), [(x, (x[0] + 1, x[1])) for x in SHAPES])
def test_improvement_is_that_of_rliable(first, second):
    for x, y in ((draw(first), draw(second, 1)), (draw(first), draw(first))):
        ours = aggregates.probability_of_improvement(list(x.T), list(y.T)).value
        assert ours == pytest.approx(metrics.probability_of_improvement(x, y), **close)
