"""How agents are evaluated, as a value."""

from dataclasses import dataclass

import torch

from metarl.core.agent import Mode
from metarl.core.errors import ConfigError, suggest
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.types import Tasks


@dataclass(frozen=True)
class EvalProtocol:
    """Which tasks an agent meets, and how; all agents meet the same ones by the same protocol."""

    episodes: int
    """Of a trial, in all lanes together: all that an agent may use to adapt to one task."""
    tasks: int = 1000
    split: str = "test"
    mode: Mode = "sample"
    seed: int = 0
    """Of the tasks and of all other randomness."""
    train_set: Tasks | None = None
    """The fixed tasks that an agent was trained on: they are the split train."""
    device: str | torch.device = "cpu"

    @property
    def rng(self) -> Rng:
        """Where all randomness of the evaluation comes from."""
        return Rng(self.seed).child("evaluate")

    def rows(self, family: Family) -> Tasks:
        """The first `tasks` rows of the split.

        Raises:
            ConfigError: a split that the family does not have.
        """
        split, splits = self.split, family.spec.splits
        if split not in splits:
            raise ConfigError(
                f"{family.spec.name} has no split {split!r}: {suggest(split, splits)}"
            )
        if self.train_set is not None and split == "train":
            rows = self.train_set[: self.tasks]
        else:
            rows = family.tasks(split, self.tasks, self.rng.child("tasks"))
        return rows.to(torch.device(self.device))
