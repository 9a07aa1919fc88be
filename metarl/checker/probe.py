"""Probing a family: a few rows and lanes under random actions, recorded for all rules."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cached_property
from time import perf_counter
from typing import Any, cast

import torch
from torch import Tensor

from metarl.adapters.from_gymnasium.family import AdaptedFamily
from metarl.adapters.gymnasium import GymnasiumFamily
from metarl.checker.still import Still
from metarl.checker.traces import Recorder, Sketch, Trace
from metarl.checker.values import part
from metarl.collect.collector import check_array, check_step
from metarl.core.family import BatchEnv, Family
from metarl.core.rng import Rng
from metarl.core.types import Spec, Tasks, replace

MANY = 500  # rows of a split: enough to find some that are in another, too
_TIMED = 5  # steps whose time is taken
LONGEST = 4000  # steps of a trace: longer episodes are not run to their end
_MOST = 2**29  # numbers in the observations of a trace, which take their time
_KEPT = 2**24  # those that are kept; of more, there is a sketch
_ONE_STEP = 2**24  # those of all lanes of one step
_SECONDS = 15.0  # of a trace, roughly

Choose = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(time, episode [N, M], age [N, M], obs [N, M, O]) → action; the age is the number of steps since
the episode began."""


def replay(action: Tensor) -> Choose:
    """The recorded actions [T, N, M, …]."""
    return lambda time, episode, age, obs: action[time]


class Probe:
    """A family under examination, with N rows × M lanes: few if episodes are long, to save time."""

    def __init__(self, family: Family, size: tuple[int, int] | None = None):
        self.family = family
        self.rng = Rng(0).child("check")
        self._size = size

    @cached_property
    def wide(self) -> Probe:
        """The same with many rows and lanes, to observe rare events, if memory and time allow."""
        small = 64 * self.spec.obs_width <= _ONE_STEP
        quick = self._due * 64 * self.pace <= _SECONDS
        return Probe(self.family, (8, 8) if small and quick else self.size)

    @property
    def spec(self) -> Spec:
        return self.family.spec

    @cached_property
    def pace(self) -> float:
        """Seconds that a step of a lane takes; 0 if it raises, which the rule `steps` tells."""
        try:
            env = copy(self.family).make(1)  # whose environments nobody uses later
            tasks = self.family.tasks("train", 2, self.rng)
            obs = env.reset(tasks, self.rng)
            middle = torch.full((len(tasks), 1, self.spec.action_width), 0.5)
            began = perf_counter()
            for _ in range(_TIMED):
                obs = env.step(self.spec.random_action(middle, obs)).obs
            return (perf_counter() - began) / (_TIMED * len(tasks))
        except Exception:
            return 0.0

    @property
    def size(self) -> tuple[int, int]:
        """N, M."""
        if self._size:
            return self._size
        rows, lanes = (8, 4) if self.spec.horizon <= 20 else (4, 2)
        count = self._due * rows * lanes
        affordable = count * self.spec.obs_width <= _MOST and count * self.pace <= _SECONDS
        return (rows, lanes) if affordable else (3, 2)

    @property
    def steps(self) -> int:
        """T: two episodes and more, or at least the beginning of a second one if they are long.

        Fewer, if observations are so wide or steps so slow that this would take minutes.
        """
        rows, lanes = self.size
        in_time = int(_SECONDS / (rows * lanes * max(self.pace, 1e-9)))
        return min(self._due, max(16, min(in_time, _MOST // self._step_width)))

    @property
    def reduced(self) -> str:
        """What wide observations and slow steps leave undone, in words; empty for others."""
        said = []
        if self.sketch is not None:
            said.append(f"observations of {self.spec.obs_width:,} numbers are kept as sketches")
        if self.steps < self._due:
            said.append(f"{self._due} steps take too long")
        return ", and ".join(said)

    @property
    def _due(self) -> int:
        horizon = self.spec.horizon
        return min(max(64, 2 * horizon + 2), max(256, horizon + 16), LONGEST)

    @property
    def _step_width(self) -> int:
        """Numbers in the observations of all lanes."""
        rows, lanes = self.size
        return rows * lanes * self.spec.obs_width

    @cached_property
    def sketch(self) -> Sketch | None:
        """What stands for observations that are too wide to be kept."""
        return Sketch(self.spec.obs_width) if self.steps * self._step_width > _KEPT else None

    @cached_property
    def tasks(self) -> Tasks:
        return self.family.tasks("train", self.size[0], self.rng)

    @cached_property
    def one_task(self) -> bool:
        """Whether all rows of train are the same."""
        params = self.family.tasks("train", MANY, self.rng).params
        return bool((params == params[0]).all())

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
        row = torch.arange(rows).unsqueeze(1)
        lane = torch.arange(lanes)
        hold = 4 ** ((row + lane) % 4)
        shift = 0 if alike else 7  # entries of the table, from one episode to the next

        def choose(time: int, episode: Tensor, age: Tensor, obs: Tensor) -> Tensor:
            place = age // hold + shift * episode
            return spec.random_action(table[place % len(table), row, lane], obs)

        return choose

    @cached_property
    def trace(self) -> Trace:
        """What everything else is compared with."""
        return self.run(self.random(), steps=self.steps, watched=True)

    @cached_property
    def whole(self) -> Trace:
        """`trace`, or the first steps of it with whole observations where it has but sketches."""
        if self.sketch is None:
            return self.trace
        return self.run(steps=2, whole=True)

    @cached_property
    def other(self) -> Trace:
        """`trace` with the tasks exchanged, but the same randomness and actions.

        Of masked actions, those that are valid there.
        """
        choose = None if self.spec.action_mask is None else self.random()
        return self.run(choose, tasks=self.exchanged, steps=self.steps)

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

    def fresh(self) -> BatchEnv:
        """A new environment; that of a Gymnasium family shares none with one that was used."""
        if isinstance(self.family, AdaptedFamily):
            self.family.idle_lanes.clear()
        return self.family.make(self.size[1])

    def fresh_here(self) -> BatchEnv:
        """A new environment in this process, where generators and clocks can be set."""
        if not isinstance(self.family, GymnasiumFamily) or not self.family.workers:
            return self.fresh()
        family = copy(self.family)
        family.workers = 0
        return family.make(self.size[1])

    def run(
        self,
        choose: Choose | None = None,
        *,
        tasks: Tasks | None = None,
        lanes: int | None = None,
        env: BatchEnv | None = None,
        rng: Rng | Still | None = None,
        steps: int | None = None,
        **recording: Any,
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
        return self.go_on(env, obs, choose, range(steps or self.brief), rng, **recording)

    def go_on(
        self,
        env: BatchEnv,
        obs: Tensor,
        choose: Choose,
        times: range,
        rng: Rng | Still | None = None,
        *,
        watched: bool = False,
        whole: bool = False,
    ) -> Trace:
        """Step an environment whose present observation is `obs` [N, M, O].

        Args:
            watched: returned arrays are looked at again later.
            whole: of wide observations no sketch is made.
        """
        rows, lanes = obs.shape[:2]
        age = torch.zeros(rows, lanes, dtype=torch.long)
        episode = torch.zeros_like(age)
        recorder = Recorder(obs, len(times), None if whole else self.sketch, watched)
        for time in times:
            action = choose(time, episode, age, obs)
            if isinstance(rng, Still):
                rng.time += 1
            step = env.step(action.clone())
            check_step(step, self.spec, (rows, lanes), time)
            recorder.write(action, step, episode, age)
            obs = step.obs
            episode = episode + step.done.long()
            age = (age + 1).masked_fill(step.done, 0)
        return recorder.trace()
