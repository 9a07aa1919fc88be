"""Whether a training is dead, and why: from what its iterations report."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from math import nan, sqrt
from statistics import fmean, median

_LOOKS = (0.2, 0.5, 0.8)  # shares of the training after which is asked
_FEWEST = 12  # iterations that are enough to tell a rise from noise
_SIGNIFICANT = 2.0  # standard errors

Records = list[Mapping[str, float]]


class Diagnosis:
    """Reads the records of a run one by one, and says once of each cause that learning is dead.

    Dead is a run whose return is neither above that of its first iteration, which the untrained
    policy earned, nor rising: both by two standard errors of what changes from one iteration to the
    next; or one whose policy has not moved at all. After a fifth of the training this is said if
    its cause is known, as some tasks take long.
    """

    def __init__(self) -> None:
        self._records: Records = []
        self._looks = 0
        self._told: set[str] = set()

    def read(self, record: Mapping[str, float], progress: float) -> str | None:
        """A line with the likely cause and the next step, where there is news.

        `progress`: the share of the training that is over after this iteration.
        """
        self._records.append(record)
        looks = sum(look <= progress for look in _LOOKS)
        if looks == self._looks or len(self._records) < _FEWEST:
            return None
        self._looks = looks
        returns = [record["return"] for record in self._records if "return" in record]
        if len(returns) < len(self._records):
            return None
        if _improves(returns) and not _unmoved(self._records):
            return None
        name, advice = next((n, line) for n, found, line in _CAUSES if found(self._records))
        if name in self._told or (name == "unknown" and (looks == 1 or self._told)):
            return None
        self._told.add(name)
        late = fmean(returns[len(returns) // 2 :])
        return (
            f"no learning after {progress:.0%} of the training: return {returns[0]:.4g} at first, "
            f"{late:.4g} now; {advice}"
        )


def _improves(returns: list[float]) -> bool:
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


def _constant(records: Records) -> bool:
    """Every iteration earned the same, but for rounding errors."""
    returns = [record["return"] for record in records]
    return max(returns) - min(returns) <= 1e-6 * max(map(abs, returns))


def _saturated(records: Records) -> bool:
    return _recent(records, "saturated", 0.0) > 0.4


def _vanished(records: Records) -> bool:
    """Gradients are a thousandth of what they were, or of nothing at all."""
    first = median(record.get("grad_norm", 1.0) for record in records[:3])
    return _recent(records, "grad_norm", 1.0) <= 1e-3 * first


def _unmoved(records: Records) -> bool:
    """No update has changed the policy."""
    return all(record.get("kl", 1.0) < 1e-7 for record in records)


def _still(records: Records) -> bool:
    """The entropy has never left its first value."""
    entropies = [record.get("entropy", nan) for record in records]
    return _unmoved(records) or all(abs(h - entropies[0]) < 0.01 for h in entropies)


def _decided(records: Records) -> bool:
    """The policy's entropy is a twentieth of what it was."""
    first = records[0].get("entropy", 0.0)
    return 0 <= _recent(records, "entropy", first) < 0.05 * first


def _recent(records: Records, name: str, default: float) -> float:
    """The median over the later half."""
    return median(record.get(name, default) for record in records[len(records) // 2 :])


_CAUSES: tuple[tuple[str, Callable[[Records], bool], str], ...] = (
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
        lambda records: True,
        "try more trials (tasks) an iteration, or another learning_rate",
    ),
)
