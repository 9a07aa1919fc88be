"""How far a training has come, and the limits that end it."""

from dataclasses import dataclass

from pydantic import NonNegativeFloat, NonNegativeInt

LIMITS = ("env_steps", "iterations", "minutes")
"""What may change when a run is resumed."""

WORKERS = ("collector", "workers", "worker_cpus")
"""Who computes: it may change as well, and changes no number."""


@dataclass(frozen=True)
class Counters:
    """How far training has come."""

    iterations: NonNegativeInt = 0
    env_steps: NonNegativeInt = 0
    seconds: NonNegativeFloat = 0.0

    def progress(
        self, env_steps: int | None, iterations: int | None, minutes: float | None
    ) -> float:
        """The share of the nearest limit that is used up: at 1, training is over."""
        shares = [
            used / limit if limit else 1.0
            for used, limit in (
                (self.env_steps, env_steps),
                (self.iterations, iterations),
                (self.seconds / 60, minutes),
            )
            if limit is not None
        ]
        return max(shares, default=0.0)


BEGINNING = Counters()
"""Nothing was done yet."""
