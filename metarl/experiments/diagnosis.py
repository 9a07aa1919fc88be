"""Whether a training is dead, and why: from what its iterations report."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Mapping, Sequence
from math import isnan, nan, sqrt
from statistics import fmean, median

_LOOKS = (0.2, 0.5, 0.8)  # shares of the training after which is asked
_FEWEST = 12  # iterations that are enough to tell a rise from noise
_SIGNIFICANT = 2.0  # standard errors

Columns = Mapping[str, Sequence[float]]
"""A number an iteration by name; NaN where it was not reported."""
_READ = ("return", "saturated", "grad_norm", "kl", "entropy")


class Diagnosis:
    """Reads the records of a run one by one, and says once of each cause that learning is dead.

    Dead is a run whose return is neither above that of its first iteration, which the untrained
    policy earned, nor rising: both by two standard errors of what changes from one iteration to the
    next; or one whose policy has not moved at all. After a fifth of the training this is said if
    its cause is known, as some tasks take long.
    """

    def __init__(self) -> None:
        self._columns = {name: array("d") for name in _READ}
        self._looks = 0
        self._told: set[str] = set()

    def read(self, record: Mapping[str, float], progress: float) -> str | None:
        """A line with the likely cause and the next step, where there is news.

        `progress`: the share of the training that is over after this iteration.
        """
        if self._looks == len(_LOOKS):
            return None
        for name, column in self._columns.items():
            column.append(record.get(name, nan))
        returns = self._columns["return"]
        looks = sum(look <= progress for look in _LOOKS)
        if looks == self._looks or len(returns) < _FEWEST:
            return None
        self._looks = looks
        if any(map(isnan, returns)) or (_improves(returns) and not _unmoved(self._columns)):
            return None
        name, advice = next((n, line) for n, found, line in _CAUSES if found(self._columns))
        if name in self._told or (name == "unknown" and (looks == 1 or self._told)):
            return None
        self._told.add(name)
        late = fmean(returns[len(returns) // 2 :])
        return (
            f"no learning after {progress:.0%} of the training: return {returns[0]:.4g} at first, "
            f"{late:.4g} now; {advice}"
        )


def _improves(returns: Sequence[float]) -> bool:
    """Whether the later half is above the first return, or above the earlier half."""
    half = len(returns) // 2
    early, late = returns[:half], returns[half:]
    # changes from one to the next tell the noise also where the mean moves
    noise = sqrt(fmean((b - a) ** 2 for a, b in itertools.pairwise(late)) / 2)
    gained = fmean(late) - returns[0]
    risen = fmean(late) - fmean(early)
    count = len(late)
    return gained > _SIGNIFICANT * noise * sqrt(
        1 + 1 / count
    ) or risen > _SIGNIFICANT * noise * sqrt(2 / count)


# -------------------------------------------------------------------------------------------------
# Causes, the surest first: how each is recognized, and what to do about it


def _constant(columns: Columns) -> bool:
    """Every iteration earned the same, but for rounding errors."""
    returns = columns["return"]
    return max(returns) - min(returns) <= 1e-6 * max(map(abs, returns))


def _saturated(columns: Columns) -> bool:
    return _recent(columns, "saturated", 0.0) > 0.4


def _vanished(columns: Columns) -> bool:
    """Gradients are a thousandth of what they were, or of nothing at all."""
    first = median(_known(columns, "grad_norm", 1.0)[:3])
    return _recent(columns, "grad_norm", 1.0) <= 1e-3 * first


def _unmoved(columns: Columns) -> bool:
    """No update has changed the policy."""
    return max(_known(columns, "kl", 1.0)) < 1e-7


def _still(columns: Columns) -> bool:
    """The entropy has never left its first value."""
    entropies = columns["entropy"]
    return _unmoved(columns) or all(abs(h - entropies[0]) < 0.01 for h in entropies)


def _decided(columns: Columns) -> bool:
    """The policy's entropy is a twentieth of what it was."""
    first = _known(columns, "entropy", 0.0)[0]
    return 0 <= _recent(columns, "entropy", first) < 0.05 * first


def _recent(columns: Columns, name: str, default: float) -> float:
    """The median over the later half."""
    numbers = _known(columns, name, default)
    return median(numbers[len(numbers) // 2 :])


def _known(columns: Columns, name: str, default: float) -> list[float]:
    """With `default` where nothing was reported."""
    return [default if isnan(number) else number for number in columns[name]]


_CAUSES: tuple[tuple[str, Callable[[Columns], bool], str], ...] = (
    (
        "constant",
        _constant,
        "every iteration earns the same: no action changes the return, or none that does is "
        "found; check the rewards, or raise the number of trials and entropy_coef",
    ),
    (
        "saturated",
        _saturated,
        "the memory is saturated; set normalize_obs and normalize_reward, or lower learning_rate",
    ),
    (
        "vanished",
        _vanished,
        "gradients have vanished; set normalize_obs, or lower learning_rate",
    ),
    (
        "still",
        _still,
        "the policy has hardly moved; raise learning_rate, max_grad_norm or the number of trials",
    ),
    (
        "decided",
        _decided,
        "the policy became deterministic; raise entropy_coef, or lower learning_rate",
    ),
    (
        "unknown",
        lambda columns: True,
        "try more trials (tasks) an iteration, or another learning_rate",
    ),
)
