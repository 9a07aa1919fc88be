"""Probing a family: a few rows and lanes under random actions, recorded for all rules."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from metarl.checker.values import difference, part
from metarl.collect.collector import check_array, check_step
from metarl.core.family import BatchEnv, Family
from metarl.core.rng import Rng, Streams
from metarl.core.types import Spec, Step, Tasks, replace, static, tree, tree_map

LONGEST = 4000  # steps of a trace: longer episodes are not run to their end

Choose = Callable[[int, Tensor, Tensor], Tensor]
"""(time, episode [N, M], age [N, M]) → action; the age is the number of steps since the episode
began."""


# -------------------------------------------------------------------------------------------------
# Traces


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
        return self.step.next_obs - self.obs

    @property
    def seen(self) -> dict[str, Tensor]:
        """What comes from the family."""
        arrays = {"obs before": self.obs, **vars(self.step)}
        metrics = arrays.pop("metrics")
        arrays |= {f"metric {name}": x for name, x in metrics.items()}
        return {f"{name} [step, row, lane]": x for name, x in arrays.items()}


def _stack(*arrays: Tensor) -> Tensor:
    return torch.stack(arrays)


# -------------------------------------------------------------------------------------------------
# Actions


def replay(action: Tensor) -> Choose:
    """The recorded actions [T, N, M, …]."""
    return lambda time, episode, age: action[time]


# -------------------------------------------------------------------------------------------------
# Randomness that stands still


_REJECTING = 100  # draws from one stream within one step


class Still:
    """Stands in for an `Rng`: each of its streams gives the same numbers at every counter.

    So every episode has the same randomness; with the same actions it is the same episode.
    """

    def __init__(self, rng: Rng, root: Still | None = None):
        self._rng = rng
        self._root = root or self
        self.time = 0
        """Steps of the environment; of the root alone."""
        self.escaped = False
        """Whether seeds were made, which generate other numbers all the time; of the root alone."""

    @property
    def key(self) -> int:
        self._root.escaped = True
        return self._rng.key

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        self._root.escaped = True
        return self._rng.generator(device)

    def child(self, *names: str | int) -> Still:
        return Still(self._rng.child(*names), self._root)

    def rows(self, count: int, width: int) -> Tensor:
        return self._rng.rows(count, width)

    def streams(self, index: Tensor, lanes: int = 1) -> _StillStreams:
        return _StillStreams(self._rng.streams(index, lanes), self._root)


class _StillStreams:
    """The same numbers at every counter, except after very many draws within a step.

    Those are rejection sampling, which would never end.
    """

    def __init__(self, streams: Streams, root: Still):
        self._streams = Streams(streams.keys, ahead=1)
        self._root = root
        self._time = -1
        self._draws = 0

    @property
    def keys(self) -> Tensor:
        self._root.escaped = True
        return self._streams.keys

    @property
    def substream(self) -> _StillStreams:
        return _StillStreams(self._streams.substream, self._root)

    def uniform(self, counter: int, width: int) -> Tensor:
        return self._streams.uniform(self._place(), width)

    def normal(self, counter: int, width: int) -> Tensor:
        return self._streams.normal(self._place(), width)

    def split(self, counter: int, *shape: int) -> _StillStreams:
        return _StillStreams(self._streams.split(self._place(), *shape), self._root)

    def _place(self) -> int:
        if self._time != self._root.time:
            self._time = self._root.time
            self._draws = 0
        self._draws += 1
        return max(0, self._draws - _REJECTING)


# -------------------------------------------------------------------------------------------------
# One family


class Probe:
    """A family under examination, with N rows × M lanes: few if episodes are long, to save time."""

    def __init__(self, family: Family, size: tuple[int, int] | None = None):
        self.family = family
        self.rng = Rng(0).child("check")
        self._size = size

    def wide(self) -> Probe:
        """The same with many rows and lanes, to observe rare events."""
        return Probe(self.family, (8, 8))

    @property
    def spec(self) -> Spec:
        return self.family.spec

    @property
    def size(self) -> tuple[int, int]:
        """N, M."""
        return self._size or ((8, 4) if self.spec.horizon <= 20 else (4, 2))

    @property
    def steps(self) -> int:
        """T: two episodes and more, or at least the beginning of a second one if they are long."""
        horizon = self.spec.horizon
        return min(max(64, 2 * horizon + 2), max(256, horizon + 16), LONGEST)

    @cached_property
    def tasks(self) -> Tasks:
        return self.family.tasks("train", self.size[0], self.rng)

    @property
    def exchanged(self) -> Tasks:
        """The same rows, each with the task of the one before."""
        return replace(self.tasks, params=self.tasks.params.roll(1, 0))

    def random(self, *, alike: bool = False) -> Choose:
        """Random actions; some lanes repeat theirs for 4, 16 or 64 steps, to get far.

        `alike`: every episode of a lane has the actions of its first one.
        """
        rows, lanes = self.size
        spec = self.spec
        noise = Rng(0).child("action").streams(torch.arange(rows), lanes)
        table = torch.stack(
            [noise.uniform(t, spec.action_width) for t in range(509)]
        )  # [509, N, M, A]
        table = (table[..., 0] * spec.action_width).long() if spec.discrete else 2 * table - 1
        row = torch.arange(rows).unsqueeze(1)
        lane = torch.arange(lanes)
        hold = 4 ** ((row + lane) % 4)
        shift = 0 if alike else 7  # entries of the table, from one episode to the next

        def choose(time: int, episode: Tensor, age: Tensor) -> Tensor:
            place = age // hold + shift * episode
            return table[place % len(table), row, lane]

        return choose

    @cached_property
    def trace(self) -> Trace:
        """What everything else is compared with."""
        return self.run(self.random(), steps=self.steps)

    @cached_property
    def other(self) -> Trace:
        """`trace` with the tasks exchanged, but the same randomness and actions."""
        return self.run(tasks=self.exchanged, steps=self.steps)

    @cached_property
    def effect(self) -> dict[str, Tensor]:
        """What depends on the task → where [T, N, M]."""
        one = self.trace
        other = self.other
        return {
            "reward": ~torch.isclose(one.step.reward, other.step.reward),
            "dynamics": ~torch.isclose(one.moved, other.moved, atol=1e-5).all(-1),
            "end": one.step.done != other.step.done,
        }

    @cached_property
    def brief(self) -> int:
        """Number of steps of a short trace, a few of them after the first end of an episode."""
        for ended in self.trace.step.done.nonzero()[:1, 0].tolist():
            return min(max(ended + 9, 24), self.steps)
        return self.steps

    def short(self, *place: slice | Tensor) -> Trace:
        """`trace` for so long, of some rows and lanes."""
        return part(self.trace, slice(self.brief), *place)

    def run(
        self,
        choose: Choose | None = None,
        *,
        tasks: Tasks | None = None,
        lanes: int | None = None,
        env: BatchEnv | None = None,
        rng: Rng | Still | None = None,
        steps: int | None = None,
    ) -> Trace:
        """Reset an environment and step it; by default a short trace of the actions of `trace`.

        Raises:
            FamilyError: an array of the wrong shape or type.
        """
        choose = choose or replay(self.trace.action)
        tasks = tasks or self.tasks
        lanes = lanes or self.size[1]
        env = env or self.family.make(lanes)
        rng = rng or self.rng

        obs = env.reset(tasks, cast(Rng, rng))
        shape = (len(tasks), lanes, self.spec.obs_width)
        check_array("the first observation", obs, shape, self.spec.obs_type, self.spec, time=0)
        return self.go_on(env, obs, choose, range(steps or self.brief), rng)

    def go_on(
        self,
        env: BatchEnv,
        obs: Tensor,
        choose: Choose,
        times: range,
        rng: Rng | Still | None = None,
    ) -> Trace:
        """Step an environment whose present observation is `obs` [N, M, O]."""
        rows, lanes = obs.shape[:2]
        age = torch.zeros(rows, lanes, dtype=torch.long)
        episode = torch.zeros_like(age)
        returned = []
        copies = []
        for time in times:
            action = choose(time, episode, age)
            if isinstance(rng, Still):
                rng.time += 1
            before = obs.clone()
            step = env.step(action.clone())
            check_step(step, self.spec, (rows, lanes), time)

            step = replace(step, success=None, training_reward=None)
            now = Trace(obs, action, step, episode, age)
            returned.append(now)
            copies.append(replace(part(now, ...), obs=before))
            obs = step.obs
            episode = episode + step.done.long()
            age = (age + 1).masked_fill(step.done, 0)

        trace = tree_map(_stack, *copies)
        return replace(trace, changed=difference(trace.seen, tree_map(_stack, *returned).seen))
