"""How agents are evaluated, as a value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from metarl.core.agent import Agent, Mode, device_of
from metarl.core.errors import ConfigError, suggest
from metarl.core.family import Family, draw_tasks
from metarl.core.rng import Rng
from metarl.core.types import Tasks


@dataclass(frozen=True)
class EvalProtocol:
    """Which tasks an agent meets, and how; all agents meet the same ones by the same protocol."""

    episodes: int
    """Of a trial, in all lanes together: all that an agent may use to adapt to one task."""
    tasks: int | Tasks = 1000
    """How many of the split, or these and no others."""
    split: str = "test"
    """Of the tasks; given `tasks` say it themselves."""
    mode: Mode = "sample"
    test_episodes: int = 0
    """Further episodes in all lanes together, which only test: the agent does not adapt to them."""
    test_mode: Mode | None = None
    """Of the further episodes, or without any of the last round, which tests what those before
    adapted; None: the same mode."""
    adapt: bool = True
    """False: every round begins with the prior, as a baseline that does not adapt."""
    seed: int = 0
    """Of the tasks and of all other randomness."""
    purpose: str | None = None
    """Protocols of different purposes share no randomness; None: the purpose is the split."""
    train_set: Tasks | None = None
    """The fixed tasks that an agent was trained on: they are the split train."""
    device: str | torch.device | None = None
    """Of the tasks; None: where the agent acts."""
    shard_rows: int | None = None
    """Most tasks that are evaluated side by side, as one job; None: as many as fit. Sizes differ in
    rounding."""

    @property
    def rng(self) -> Rng:
        """Where all randomness of the evaluation comes from: no split shares it with another."""
        split = self.tasks.split if isinstance(self.tasks, Tasks) else self.split
        return Rng(self.seed).child("evaluate", self.purpose or split)

    def changed(self, **given: Any) -> EvalProtocol:
        """With what is `given` and not None; a `mode` alone is that of all rounds."""
        chosen = {name: value for name, value in given.items() if value is not None}
        if "mode" in chosen:
            chosen.setdefault("test_mode", None)
        return replace(self, **chosen)

    def mode_of(self, testing: bool) -> Mode:
        """How actions are chosen: while the agent adapts, or in the rounds that test it."""
        return self.test_mode or self.mode if testing else self.mode

    def rows(self, family: Family, agent: Agent | None = None) -> Tasks:
        """The tasks of `agent`: those given, or the first `tasks` rows of the split.

        Raises:
            ConfigError: a split that the family does not have, or rows that cannot be its tasks.
        """
        device = device_of(agent) if self.device is None else torch.device(self.device)
        if isinstance(self.tasks, Tasks):
            shape, width = list(self.tasks.params.shape), family.spec.task_width
            if shape[1:] != [width]:
                raise ConfigError(
                    f"tasks: rows of shape {shape}; {family.spec.name} has rows of {width} numbers"
                )
            if not self.tasks.params.isfinite().all():
                raise ConfigError("tasks: a row is not finite")
            return self.tasks.to(device)
        split, splits = self.split, family.spec.splits
        if split not in splits:
            raise ConfigError(
                f"{family.spec.name} has no split {split!r}: {suggest(split, splits)}"
            )
        if self.train_set is not None and split == "train":
            rows = self.train_set[: self.tasks]
        else:
            rows = draw_tasks(family, split, self.tasks, self.rng.child("tasks"))
        return rows.to(device)

    def row(self, family: Family, place: int, agent: Agent | None = None) -> Tasks:
        """The task at `place`, alone.

        Raises:
            ConfigError: there are not so many.
        """
        protocol = self if isinstance(self.tasks, Tasks) else replace(self, tasks=place + 1)
        rows = protocol.rows(family, agent)
        if place >= len(rows):
            raise ConfigError(
                f"task {place}: there are {len(rows)} {rows.split} tasks, and the first is task 0"
            )
        return rows[place : place + 1]
