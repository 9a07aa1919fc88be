"""What was seen of a family: the steps of some rows and lanes; of wide observations, a sketch."""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import Tensor

from metarl.checker.values import difference, part
from metarl.core.rng import Rng
from metarl.core.types import Step, replace, static, tree, tree_map

_HELD = 2**24  # numbers of returned observations that are held until they are looked at again


@tree
class Trace:
    """T steps of N rows × M lanes."""

    obs: Tensor  # [T, N, M, O] observations that were acted on
    action: Tensor  # [T, N, M] or [T, N, M, A]
    step: Step  # [T, N, M, …] the results
    episode: Tensor  # [T, N, M] int64: which episode of its lane a step belongs to, from 0
    age: Tensor  # [T, N, M] int64: number of steps since the episode began
    changed: str | None = static(default=None)  # a returned array that was changed in place later

    @property
    def moved(self) -> Tensor:
        """[T, N, M, O]"""
        return self.step.next_obs.double() - self.obs.double()

    @property
    def seen(self) -> dict[str, Tensor]:
        """What comes from the family."""
        arrays = {"obs before": self.obs, **vars(self.step)}
        metrics = arrays.pop("metrics")
        arrays |= {f"metric {name}": x for name, x in metrics.items()}
        return {f"{name} [step, row, lane]": x for name, x in arrays.items()}


class Sketch:
    """Little of wide observations, by which two of them can be told apart.

    64 of the entries, and two sums of all entries with random weights: a single entry that differs
    by 10⁻⁵ times the root of the width, or more, is seen in them. What is not finite stays so.
    """

    def __init__(self, width: int):
        generator = Rng(0).child("sketch").generator()
        self._columns = torch.randperm(width, generator=generator)[:64].sort().values
        weights = torch.randn(2, width, generator=generator, dtype=torch.float64)
        self._weights = weights / math.sqrt(width)

    def __call__(self, obs: Tensor) -> Tensor:
        """[N, M, O] → [N, M, 66] float64; a sketch, by its type, stays as it is."""
        if obs.dtype == torch.float64:
            return obs
        sums = [self._sums(lane) for lane in obs.flatten(0, 1)]
        chosen = obs[..., self._columns].double()
        return torch.cat([chosen, torch.stack(sums).view(*obs.shape[:2], -1)], dim=-1)

    def _sums(self, lane: Tensor) -> Tensor:
        """[2], without the last digits, which depend on where the observation lies in memory."""
        return ((self._weights @ lane.double()) * 2.0**24).round() / 2.0**24


class Recorder:
    """Writes a trace, step by step, of a first observation [N, M, O].

    With `watched`, it looks at returned arrays again, when the trace is complete or the memory for
    wide observations is full: whether they were changed in place.
    """

    def __init__(self, obs: Tensor, sketch: Sketch | None, watched: bool):
        self._sketch = sketch
        self._watched = watched
        self._now = self._copy(obs)
        self._copies: list[Trace] = []
        self._returned: deque[Trace] = deque()
        self._later: list[Trace] = []

    def write(self, step: Trace) -> None:
        """Copy one step [N, M, …], which began where the last one led."""
        copied = replace(step, obs=self._now, step=self._copy_step(step.step))
        self._copies.append(part(copied, ...))
        self._now = copied.step.obs
        if self._watched:
            self._returned.append(step)
            numbers = len(self._returned) * step.obs.numel()
            if self._sketch and numbers > _HELD and len(self._returned) > 2:
                self._look_again()

    def trace(self) -> Trace:
        """All steps [T, N, M, …]."""
        trace = tree_map(_stack, *self._copies)
        if not self._watched:
            return trace
        while self._returned:
            self._look_again()
        later = tree_map(_stack, *self._later)
        return replace(trace, changed=difference(trace.seen, later.seen))

    def _look_again(self) -> None:
        step = self._returned.popleft()
        self._later.append(replace(step, obs=self._copy(step.obs), step=self._copy_step(step.step)))

    def _copy_step(self, step: Step) -> Step:
        next_obs = self._copy(step.next_obs)
        obs = next_obs if step.obs is step.next_obs else self._copy(step.obs)
        return replace(step, obs=obs, next_obs=next_obs)

    def _copy(self, obs: Tensor) -> Tensor:
        return self._sketch(obs) if self._sketch else obs.clone()


def _stack(*arrays: Tensor) -> Tensor:
    return torch.stack(arrays)
