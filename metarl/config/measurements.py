"""What shipped configurations cost and reached, where that was measured."""

import csv
import io
from dataclasses import dataclass

from metarl.config.files import SHIPPED
from metarl.core.texts import read_text


@dataclass(frozen=True)
class Measured:
    """A row of configs/measured.csv: texts, for figures have words beside them."""

    configuration: str
    problem: str
    seeds: str
    env_steps: str
    """Of one seed, in millions."""
    minutes: str
    """Of one seed on one core beside other work; empty: not kept."""
    reached: str
    """Mean of the seeds, or from the worst to the best."""
    beside: str
    """What others reach, such as the optimum; empty: unknown."""
    source: str
    """Where the figures are, with their intervals."""

    def in_words(self) -> str:
        """Such as «reached 37.1 (37.2, the optimum) after 10 M env steps, 3 to 8 min; 3 seeds»."""
        beside = f" ({self.beside})" if self.beside else ""
        minutes = f", {self.minutes} min" if self.minutes else ""
        seeds = "1 seed" if self.seeds == "1" else f"{self.seeds} seeds"
        return f"reached {self.reached}{beside} after {self.env_steps} env steps{minutes}; {seeds}"


def read_measured() -> dict[str, Measured]:
    """By configuration."""
    rows = csv.DictReader(io.StringIO(read_text(SHIPPED / "measured.csv")))
    return {row["configuration"]: Measured(**row) for row in rows}
