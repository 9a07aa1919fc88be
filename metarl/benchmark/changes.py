"""What became worse or better between two versions of the same agents on the same tasks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from metarl.evaluation import stats
from metarl.evaluation.scores import Scores, met
from metarl.evaluation.stats import Array, Estimate

LEVEL = 0.05
"""How often some cell is called worse if nothing has changed; and how often better."""

Place = tuple[str, str]
"""Problem and agent."""
Verdict = Literal["worse", "better", "same", "not judged"]


@dataclass(frozen=True)
class Scored:
    """An agent on a problem."""

    scores: Scores
    score: str
    """The name of the figure that is compared, of which more is better."""
    trained: bool
    """Whether its runs are seeds; a strategy has none, and one run."""

    @property
    def rows(self) -> Array:
        """[R, N] the figure. Without seeds, rows of the same task are all there is to compare."""
        figure = self.scores.figure(self.score)
        by_row = self.scores.tasks_fixed and not self.trained
        return figure if by_row else self.scores.by_task(figure)


@dataclass(frozen=True)
class Change:
    """Of a cell between the versions; None where a version lacks it or it is not judged."""

    problem: str
    agent: str
    old: float | None
    new: float | None
    reason: str
    """Why it is not judged; "" if it is."""
    verdict: Verdict = "not judged"
    difference: Estimate | None = None
    """new − old: over runs with the tasks fixed, or of strategies over tasks."""
    p: float | None = None
    """That it is no worse, corrected for the number of cells (Holm 1979)."""


def find_changes(old: Mapping[Place, Scored], new: Mapping[Place, Scored]) -> list[Change]:
    """Each cell of either version, in the order of `old`; what is only in `new` comes last.

    A cell is worse if its corrected p is at most `LEVEL` and its interval lies below 0; better if
    so is the mirrored test.
    """
    reasons = {place: _obstacle(place, old, new) for place in dict.fromkeys([*old, *new])}
    places = [place for place, reason in reasons.items() if not reason]
    rows = [(old[place].rows, new[place].rows) for place in places]
    worse = stats.holm([stats.p_worse(after, before) for before, after in rows])
    better = stats.holm([stats.p_worse(before, after) for before, after in rows])

    judged = {}
    for place, (before, after), down, up in zip(places, rows, worse, better, strict=True):
        several = max(len(before), len(after)) > 1
        difference = stats.difference(after, before, tasks_fixed=several)
        low, high = next(filter(None, (difference.over_runs, difference.over_tasks)))
        verdict: Verdict = "same"
        if down <= LEVEL and high < 0:
            verdict = "worse"
        elif up <= LEVEL and low > 0:
            verdict = "better"
        means = float(before.mean()), float(after.mean())
        judged[place] = Change(*place, *means, "", verdict, difference, float(down))
    return [
        judged.get(place, Change(*place, _mean(old.get(place)), _mean(new.get(place)), reason))
        for place, reason in reasons.items()
    ]


def _mean(cell: Scored | None) -> float | None:
    return None if cell is None else float(cell.rows.mean())


def _obstacle(place: Place, old: Mapping[Place, Scored], new: Mapping[Place, Scored]) -> str:
    """Why the versions cannot be compared; "" if they can."""
    if place not in new:
        return "only in the old version"
    if place not in old:
        return "only in the new version"
    before, after = old[place], new[place]
    if (before.score, before.trained) != (after.score, after.trained):
        return "another score, or trained in one version alone"
    if met(before.scores) != met(after.scores):
        return "other tasks, episodes or modes"
    if not np.isfinite([before.rows.mean(), after.rows.mean()]).all():
        return "scores that are not finite"
    if before.trained and min(len(before.rows), len(after.rows)) == 1:
        return "a single run, which says nothing about others"
    if not before.trained and before.rows.shape[1] < stats.FEWEST_TASKS:
        return f"a strategy on fewer than {stats.FEWEST_TASKS} tasks"
    return ""
