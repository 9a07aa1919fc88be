"""Trying a family out: what a few rows and lanes live through with random actions, recorded for many questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from metarl.collect.collector import check_array, check_step
from metarl.core.family import BatchEnv, Family
from metarl.core.rng import Rng, Streams
from metarl.core.types import Spec, Step, Tasks, replace, tree_map

LONGEST = 4000  # steps of a trace: episodes that are longer are not seen to their end
_HANDED_OUT = ("obs", "next_obs", "reward", "terminated", "truncated")

Choose = Callable[[int, Tensor, Tensor], Tensor]
"""(time, episode [N, M], age [N, M]) → action; the age is the number of steps since the episode began."""


# ---------------------------------------------------------------------------------------------------------------------
# What was lived through


@dataclass(frozen=True)
class Trace:
    """T steps of N rows × M lanes."""

    first: Tensor  # [N, M, O] what was acted on first
    action: Tensor  # [T, N, M] or [T, N, M, A]
    step: Step  # [T, N, M, …] what came of it
    changed: str = ""  # what was handed out and then changed in place

    @cached_property
    def obs(self) -> Tensor:
        """[T, N, M, O]: what was acted on."""
        return torch.cat([self.first.unsqueeze(0), self.step.obs[:-1]])

    @cached_property
    def age(self) -> Tensor:
        """[T, N, M] int64: how many steps of its episode were before."""
        age, ages = torch.zeros_like(self.step.done[0], dtype=torch.long), []
        for done in self.step.done:
            ages.append(age)
            age = (age + 1).masked_fill(done, 0)
        return torch.stack(ages)

    @cached_property
    def episode(self) -> Tensor:
        """[T, N, M] int64: which episode of its lane a step belongs to, from 0."""
        done = self.step.done.long()
        return done.cumsum(0) - done

    def part(
        self, steps: slice = slice(None), rows: Any = slice(None), lanes: slice = slice(None)
    ) -> Trace:
        """Some steps of some rows and lanes."""
        return Trace(
            self.obs[steps][0][rows][:, lanes],
            self.action[steps][:, rows][:, :, lanes],
            tree_map(lambda x: x[steps][:, rows][:, :, lanes], self.step),
        )


def difference(one: Trace, other: Trace, *, rounding: bool = False) -> str | None:
    """Where two traces of equal shape first part, in words, or None; `rounding` lets numbers differ a little."""
    tolerance = (1e-4, 1e-5) if rounding else (0.0, 0.0)
    pairs = [("first observation", one.first.unsqueeze(0), other.first.unsqueeze(0))]
    pairs += [(name, getattr(one.step, name), getattr(other.step, name)) for name in _HANDED_OUT]
    found: list[tuple[int, str]] = []
    for name, a, b in pairs:
        apart = ~torch.isclose(a, b, *tolerance) if a.is_floating_point() else a != b
        places = apart.flatten(3).any(-1).nonzero() if apart.dim() > 3 else apart.nonzero()
        if len(places):
            time, row, lane = places[0].tolist()
            when = "after the reset" if name == "first observation" else f"of step {time}"
            values = " and ".join(_short(x[time, row, lane]) for x in (a, b))
            found.append(
                (
                    -1 if when == "after the reset" else time,
                    f"{name} {when}, row {row}, lane {lane}: {values}",
                )
            )
    return min(found, key=lambda place: place[0])[1] if found else None


def _short(x: Tensor) -> str:
    """A number, or the first few of a vector."""
    numbers = [f"{value:.6g}" for value in x.flatten().tolist()]
    return (
        numbers[0]
        if x.dim() == 0
        else f"[{', '.join(numbers[:4])}{', …' if len(numbers) > 4 else ''}]"
    )


def live(
    env: BatchEnv, spec: Spec, tasks: Tasks, lanes: int, rng: Any, choose: Choose, steps: int
) -> Trace:
    """Reset `env` and go on for `steps` steps.

    Raises:
        MetaRLError: an array of the wrong shape or type.
    """
    obs = env.reset(tasks, rng)
    check_array(
        "the first observation", obs, (len(tasks), lanes, spec.obs_width), torch.float32, spec, 0
    )
    return go_on(env, spec, obs, choose, range(steps), rng)


def go_on(
    env: BatchEnv, spec: Spec, obs: Tensor, choose: Choose, times: range, rng: Any = None
) -> Trace:
    """Step a running environment, of which `obs` [N, M, O] was seen last."""
    handed_out, actions = [("first observation", obs, obs.clone())], []
    rows, lanes = obs.shape[:2]
    age = torch.zeros(rows, lanes, dtype=torch.long)
    episode = torch.zeros_like(age)
    for time in times:
        action = choose(time, episode, age)
        actions.append(action)
        if isinstance(rng, Still):
            rng.tick()
        step = env.step(action.clone())
        check_step(step, spec, (rows, lanes), time)
        now = [(name, getattr(step, name)) for name in _HANDED_OUT]
        handed_out += [(f"{name} of step {time}", x, x.clone()) for name, x in now]
        episode, age = episode + step.done.long(), (age + 1).masked_fill(step.done, 0)
    changed = next(
        (name for name, x, was in handed_out if not ((x == was) | was.isnan()).all()), ""
    )
    clones = [clone for _, _, clone in handed_out]
    arrays = [
        torch.stack(clones[1 + place :: len(_HANDED_OUT)]) for place in range(len(_HANDED_OUT))
    ]
    return Trace(clones[0], torch.stack(actions), Step(*arrays), changed)


# ---------------------------------------------------------------------------------------------------------------------
# Actions


def recorded(action: Tensor) -> Choose:
    """What was done [T, N, M, …] is done again."""
    return lambda time, episode, age: action[time]


def random(spec: Spec, rows: int, lanes: int, *, alike: bool = False) -> Choose:
    """Random actions; some lanes hold theirs for 4, 16 or 64 steps, and so get far.

    `alike`: every episode of a lane does what its first one did.
    """
    noise = Rng(0).child("action").streams(torch.arange(rows), lanes)
    table = torch.stack(
        [noise.uniform(t, 1 if spec.discrete else spec.action_width) for t in range(509)]
    )
    table = (
        (table.squeeze(-1) * spec.action_width).long() if spec.discrete else 2 * table - 1
    )  # [509, N, M, …]
    row, lane = torch.arange(rows).unsqueeze(1), torch.arange(lanes)
    hold = 4 ** ((row + lane) % 4)

    def choose(time: int, episode: Tensor, age: Tensor) -> Tensor:
        place = age // hold + (0 if alike else 7 * episode)
        return table[place % len(table), row, lane]

    return choose


# ---------------------------------------------------------------------------------------------------------------------
# Chance that stands still


_REJECTING = 100  # draws from one stream within one step


class _Watch:
    """Counts steps, and notes whether luck was made of keys, which no stand-in can hold still."""

    time = 0
    escaped = False


class Still:
    """Stands in for an `Rng`: each of its streams gives the same numbers at every counter.

    So every episode begins with the same luck and has it throughout; with the same actions it is the same episode.
    """

    def __init__(self, rng: Rng, watch: _Watch | None = None) -> None:
        self._rng = rng
        self._watch = watch or _Watch()

    @property
    def escaped(self) -> bool:
        """Whether seeds were made of it; what they bring about goes on changing."""
        return self._watch.escaped

    def tick(self) -> None:
        """The environment is about to make a step."""
        self._watch.time += 1

    @property
    def key(self) -> int:
        self._watch.escaped = True
        return self._rng.key

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        self._watch.escaped = True
        return self._rng.generator(device)

    def child(self, *names: str | int) -> Still:
        return Still(self._rng.child(*names), self._watch)

    def rows(self, count: int, width: int) -> Tensor:
        return self._rng.rows(count, width)

    def streams(self, index: Tensor, lanes: int = 1) -> _StillStreams:
        return _StillStreams(self._rng.streams(index, lanes), self._watch)


class _StillStreams:
    """Who draws very often within a step is rejecting what is drawn, and gets other numbers from then on."""

    def __init__(self, streams: Streams, watch: _Watch) -> None:
        self._streams = Streams(streams.keys, ahead=1)
        self._watch = watch
        self._step, self._draws = -1, 0

    @property
    def keys(self) -> Tensor:
        self._watch.escaped = True
        return self._streams.keys

    def uniform(self, counter: int, width: int) -> Tensor:
        return self._streams.uniform(self._place(), width)

    def normal(self, counter: int, width: int) -> Tensor:
        return self._streams.normal(self._place(), width)

    def split(self, counter: int, *shape: int) -> _StillStreams:
        return _StillStreams(self._streams.split(self._place(), *shape), self._watch)

    def _place(self) -> int:
        if self._step != self._watch.time:
            self._step, self._draws = self._watch.time, 0
        self._draws += 1
        return max(0, self._draws - _REJECTING)


# ---------------------------------------------------------------------------------------------------------------------
# One family


class Probe:
    """A family under examination, with N rows × M lanes: few where episodes are long, since a step may be slow."""

    def __init__(self, family: Family, size: tuple[int, int] | None = None) -> None:
        self.family = family
        self.rng = Rng(0).child("check")
        self._size = size

    def wide(self) -> Probe:
        """The same with many rows and lanes, to meet what is rarely met."""
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
        """T: two episodes and more, if they are not long, but always the beginning of a second one."""
        horizon = self.spec.horizon
        return min(max(64, 2 * horizon + 2), max(256, horizon + 16), LONGEST)

    @cached_property
    def tasks(self) -> Tasks:
        return self.family.tasks("train", self.size[0], self.rng)

    @cached_property
    def trace(self) -> Trace:
        """What everything else is compared with."""
        env, (rows, lanes) = self.family.make(self.size[1]), self.size
        return live(
            env, self.spec, self.tasks, lanes, self.rng, random(self.spec, rows, lanes), self.steps
        )

    @cached_property
    def other(self) -> Trace:
        """`trace` with the tasks exchanged, all luck and actions being equal."""
        return self.again(tasks=self.exchanged, steps=self.steps)

    @cached_property
    def effect(self) -> dict[str, Tensor]:
        """What depends on the task → where [T, N, M]."""
        one, other = self.trace, self.other
        return {
            "reward": ~torch.isclose(one.step.reward, other.step.reward),
            "dynamics": ~torch.isclose(
                one.step.next_obs - one.obs, other.step.next_obs - other.obs, atol=1e-5
            ).all(-1),
            "end": one.step.done != other.step.done,
        }

    @property
    def exchanged(self) -> Tasks:
        """The same rows, each with the task of the one before."""
        return replace(self.tasks, params=self.tasks.params.roll(1, 0))

    @cached_property
    def brief(self) -> int:
        """So many steps, a few of them after the first end of an episode."""
        ended = self.trace.step.done.flatten(1).any(1)
        first = int(ended.long().argmax()) if ended.any() else self.steps
        return min(max(first + 9, 24), self.steps)

    def again(
        self,
        action: Tensor | None = None,
        tasks: Tasks | None = None,
        *,
        env: BatchEnv | None = None,
        rng: Rng | None = None,
        steps: int | None = None,
    ) -> Trace:
        """What `trace` did, done again: other actions, tasks, environment, chance or number of steps where given."""
        action = self.trace.action if action is None else action
        lanes = action.shape[2]
        env = env or self.family.make(lanes)
        return live(
            env,
            self.spec,
            tasks or self.tasks,
            lanes,
            rng or self.rng,
            recorded(action),
            steps or self.brief,
        )
