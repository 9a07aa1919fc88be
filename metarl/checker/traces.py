"""What was seen of a family: the steps of some rows and lanes; of wide observations, a sketch."""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import Tensor

from metarl.checker.values import difference
from metarl.core.rng import Rng
from metarl.core.types import Step, replace, static, tree

_HELD = 2**24  # numbers of returned observations that are held until they are looked at again


_OBSERVED = ("obs", "next_obs")
_RETURNED = ("reward", "terminated", "truncated")


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
        arrays = {name: x for name, x in arrays.items() if x is not None}
        arrays |= {f"metric {name}": x for name, x in metrics.items()}
        return {f"{name} [step, row, lane]": x for name, x in arrays.items()}


class Sketch:
    """Little of wide observations, by which two of them can be told apart.

    64 of the entries, and two sums of all entries with random weights, in which one that differs
    shows. What is not finite stays so.
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
        # One lane after another, so that rounding does not depend on the place in the batch.
        sums = torch.stack([self._weights @ lane.double() for lane in obs.flatten(0, 1)])
        chosen = obs[..., self._columns].double()
        return torch.cat([chosen, sums.view(*obs.shape[:2], -1)], dim=-1)


class _Tape:
    """Arrays of `length` steps, allocated at the first one.

    Small arrays of every step, kept among large ones that are freed, would leave holes in memory
    that no large one fits into.
    """

    def __init__(self, length: int):
        self._length = length
        self.written = 0
        self.arrays: dict[str, Tensor] = {}  # [T, …] each

    def write(self, now: dict[str, Tensor]) -> None:
        """Copy one step."""
        if not self.arrays:
            self.arrays = {name: x.new_empty(self._length, *x.shape) for name, x in now.items()}
        for name, x in now.items():
            self.arrays[name][self.written] = x
        self.written += 1


class Recorder:
    """Writes a trace of so many steps, from a first observation [N, M, O] on.

    With `watched`, it looks at returned arrays again, when the trace is complete or the memory for
    wide observations is full: whether they were changed in place.
    """

    def __init__(self, obs: Tensor, steps: int, sketch: Sketch | None, watched: bool):
        self._sketch = sketch
        self._watched = watched
        self._first = obs
        self._now = self._seen(obs).clone()
        self._known, self._results, self._later = (_Tape(steps) for _ in range(3))
        self._returned: deque[dict[str, Tensor]] = deque()

    def write(self, action: Tensor, step: Step, episode: Tensor, age: Tensor) -> None:
        """Copy one step [N, M, …], which began where the last one led."""
        known = {"obs": self._now, "action": action, "episode": episode, "age": age}
        self._known.write(known)
        returned = _returned(step)
        self._results.write(self._all_seen(returned))
        self._now = self._results.arrays["obs"][self._results.written - 1]
        if self._watched:
            self._returned.append(returned)
            numbers = len(self._returned) * step.obs.numel()
            if self._sketch and numbers > _HELD and len(self._returned) > 2:
                self._later.write(self._all_seen(self._returned.popleft()))

    def trace(self) -> Trace:
        """All steps [T, N, M, …]."""
        known = self._known.arrays
        obs, action, episode, age = (known[name] for name in ("obs", "action", "episode", "age"))
        trace = Trace(obs, action, _step(self._results.arrays), episode, age)
        if not self._watched:
            return trace
        for returned in self._returned:
            self._later.write(self._all_seen(returned))
        began = torch.cat([self._seen(self._first).unsqueeze(0), obs[1:]])
        became = replace(trace, obs=began, step=_step(self._later.arrays))
        return replace(trace, changed=difference(trace.seen, became.seen))

    def _all_seen(self, returned: dict[str, Tensor]) -> dict[str, Tensor]:
        obs, next_obs = (returned[name] for name in _OBSERVED)
        seen = self._seen(obs)
        return {
            **returned,
            "obs": seen,
            "next_obs": seen if next_obs is obs else self._seen(next_obs),
        }

    def _seen(self, obs: Tensor) -> Tensor:
        return self._sketch(obs) if self._sketch else obs


def _returned(step: Step) -> dict[str, Tensor]:
    """The arrays that every family returns, by name; metrics by theirs behind a space."""
    metrics = {f" {name}": x for name, x in step.metrics.items()}
    return {name: vars(step)[name] for name in (*_OBSERVED, *_RETURNED)} | metrics


def _step(arrays: dict[str, Tensor]) -> Step:
    """The reverse."""
    plain = {name: x for name, x in arrays.items() if not name.startswith(" ")}
    metrics = {name[1:]: x for name, x in arrays.items() if name.startswith(" ")}
    return Step(**plain, metrics=metrics)
