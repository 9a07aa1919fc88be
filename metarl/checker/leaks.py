"""Whether a task can be read from observations, by a linear map that it shares with other tasks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.checker.probe import Probe
from metarl.core.types import Tasks

_WIDEST = 64  # entries of an observation that all are looked at; of more, the most telling ones
_MOST_TELLING = 24
_SCREENED = 32  # tasks by which they are found
_TOLD = 4  # entries of the row, the goal's first, that they should tell
_STEPS = 1600  # of all tasks together
_NUMBERS = 2**30  # in all observations: wide ones take their time
_SECONDS = 30.0  # of all steps, roughly
_IN_FLIGHT = 2**23  # numbers in the observations of one step
_AGES = 6  # that one map must hold for
_FEWEST = 8  # tasks that a map is tested on


@dataclass(frozen=True)
class Glimpses:
    """First episodes of R tasks with random actions, up to A steps."""

    obs: Tensor  # [A + 1, R, W] float64: some entries of the observation after so many steps
    there: Tensor  # [A + 1, R] bool: the episode had so many
    row: Tensor  # [R, P] float64

    @staticmethod
    def of(probe: Probe) -> Glimpses:
        """Of training tasks; how many, and how many steps, depends on the observation's width."""
        width = probe.spec.obs_width
        together = min(32, max(4, _IN_FLIGHT // width))
        looked_at = width if width <= _WIDEST else _MOST_TELLING
        turns = -(-(2 * looked_at + 32) // together)
        tasks = probe.family.tasks("train", turns * together, probe.rng)
        in_time = int(_SECONDS / max(probe.pace, 1e-9))
        affordable = min(_STEPS, _NUMBERS // width, in_time) // len(tasks)
        steps = min(probe.spec.horizon, max(4, affordable))
        watch = _Watch(Probe(probe.family, (together, 1)), steps)
        parts = list(torch.arange(len(tasks)).split(together))
        chosen: Tensor | slice = slice(None)
        if width > _WIDEST:
            few = parts[: -(-_SCREENED // together)]
            row = tasks.params[torch.cat(few)].double()
            first_and_last = [watch(tasks[rows], (0, steps)) for rows in few]
            chosen = most_telling(torch.cat([obs for obs, _ in first_and_last], dim=1), row)
        seen = [watch(tasks[rows], range(steps + 1), chosen) for rows in parts]
        obs, there = (torch.cat(arrays, dim=1) for arrays in zip(*seen, strict=True))
        return Glimpses(obs.double(), there, tasks.params.double())

    def told(self, first: int, last: int) -> dict[int, float]:
        """Entry of the row that varies → R² of one map from observations of ages `first` to `last`.

        It is fitted on half of the tasks and tested on the others, at every age; the worst counts.
        For angles, sine and cosine are predicted as well.
        """
        ages = torch.linspace(first, last, min(_AGES, last - first + 1)).long()
        obs, there = self.obs[ages], self.there[ages]
        features = torch.cat([obs, torch.ones_like(obs[..., :1])], dim=-1)
        target = _target(self.row)
        taught = there[:, ::2]
        wanted = target[::2].expand(len(ages), -1, -1)[taught]
        fit = torch.linalg.lstsq(features[:, ::2][taught], wanted, driver="gelsd").solution
        worst = torch.ones(target.shape[1], dtype=torch.float64)
        for x, here in zip(features[:, 1::2], there[:, 1::2], strict=True):
            tested = target[1::2][here]
            error = (x[here] @ fit - tested).square().mean(0)
            spread = tested.var(0)
            nothing = torch.full_like(spread, -torch.inf)  # is told where all are the same
            worst = torch.minimum(worst, (1 - error / spread).where(spread > 1e-12, nothing))
        straight, sine, cosine = worst.view(3, -1)
        shares = torch.maximum(straight, torch.minimum(sine, cosine))
        varies = (self.row != self.row[0]).any(0).nonzero().flatten()
        return dict(zip(varies.tolist(), shares[varies].tolist(), strict=True))

    def spans(self) -> list[tuple[int, int]]:
        """(first, last) ages after the start, doubled at least, that enough episodes live to see.

        From 1 on, from 2 on, from 4 on, …
        """
        seen = self.there[:, 1::2].sum(1)
        last = int((seen >= min(_FEWEST, int(seen[0]))).sum()) - 1
        firsts = [2**power for power in range(32) if 2 ** (power + 1) <= last]
        return [(first, last) for first in firsts]


class _Watch:
    """Looks at some tasks in one environment, from the start of an episode up to its end."""

    def __init__(self, probe: Probe, steps: int):
        self._probe = probe
        self._steps = steps
        self._choose = probe.random()

    def __call__(
        self,
        tasks: Tasks,
        ages: Collection[int],
        chosen: Tensor | slice = slice(None),
    ) -> tuple[Tensor, Tensor]:
        """[ages, N, W] the `chosen` entries, [ages, N] bool whether the episode had such an age."""
        env = self._probe.family.make(1)
        now = env.reset(tasks, self._probe.rng)
        start = now[:, 0, chosen].float()
        obs = start.new_zeros(len(ages), *start.shape)
        there = torch.zeros(obs.shape[:2], dtype=torch.bool)
        places = {age: place for place, age in enumerate(ages)}
        obs[places[0]], there[places[0]] = start, True
        lives = torch.ones(len(tasks), dtype=torch.bool)
        age = torch.zeros(len(tasks), 1, dtype=torch.long)
        for time in range(self._steps):
            step = env.step(self._choose(time, torch.zeros_like(age), age + time, now))
            now = step.obs
            if time + 1 in places:
                place = places[time + 1]
                obs[place] = step.next_obs[:, 0, chosen]
                there[place] = lives
            lives = lives & ~step.done[:, 0]
            if not lives.any():
                break
        return obs, there


def _target(row: Tensor) -> Tensor:
    """[R, 3·P]: the row, its sine and its cosine."""
    return torch.cat([row, row.sin(), row.cos()], dim=1)


def most_telling(obs: Tensor, row: Tensor) -> Tensor:
    """[W] entries of `obs` [ages, R, O] that tell most of a row [R, P], one after another.

    At every age, those most correlated with what the entries before them leave unexplained.
    """
    target = _target(row[:, :_TOLD])
    target = target - target.mean(0)
    found: list[int] = []
    for x in obs:
        x = x - x.mean(0)
        unit = x / x.norm(dim=0).clamp(min=1e-9)
        mine: list[int] = []
        left = target
        while len(mine) < _MOST_TELLING // len(obs):
            alike = (left / left.norm(dim=0).clamp(min=1e-9)).float().T @ unit  # [3·P, O]
            new = sorted(set(alike.abs().argmax(1).tolist()) - set(mine))
            if not new:
                break
            mine += new
            known = x[:, mine].double()
            left = target - known @ torch.linalg.lstsq(known, target, driver="gelsd").solution
        found += mine
    return torch.tensor(sorted(set(found)))
