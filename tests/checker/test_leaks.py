"""Which observations tell the task, and which only show what it does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from metarl.checker.adaptation_rules import hidden
from metarl.checker.leaks import most_telling
from metarl.checker.probe import Probe
from metarl.checker.rules import CheckFailed
from metarl.core.rng import Rng
from metarl.core.types import Spec, Step, Tasks

See = Callable[["FallEnv"], list[Tensor]]
"""The parts of an observation, [N, M] each."""


class Fall:
    """Something falls: how fast is hidden, and a thrust changes it."""

    def __init__(self, see: See, horizon: int = 20, goal_width: int = 1, parts: int = 0):
        self.see = see
        parts = parts or len(see(FallEnv(self).begun(self.tasks("train", 2, Rng(0)), Rng(0))))
        self.spec = Spec("fall", {"all": parts}, 1, False, horizon, 2, goal_width=goal_width)

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        return Tasks.numbered(1 + rng.child(split).rows(count, 2), split)

    def make(self, lanes: int) -> FallEnv:
        return FallEnv(self)


class FallEnv:
    def __init__(self, family: Fall) -> None:
        self.family = family

    def begun(self, tasks: Tasks, rng: Rng) -> FallEnv:
        self.row = tasks.params.unsqueeze(1).unbind(-1)  # [N, 1] each
        self.noise = tasks.streams(rng, 1)
        self.time, self.thrust = 0, torch.zeros(len(tasks), 1)
        return self

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        self.begun(tasks, rng)
        return torch.stack(self.family.see(self), dim=-1)

    def step(self, action: Tensor) -> Step:
        self.time += 1
        self.thrust = self.thrust + 0.3 * action.squeeze(-1)
        obs = torch.stack(self.family.see(self), dim=-1)
        over = torch.full(self.thrust.shape, self.time == self.family.spec.horizon)
        return Step(obs, obs, self.thrust, torch.zeros_like(over), over)

    @property
    def goal(self) -> Tensor:
        return self.row[0]

    @property
    def after(self) -> Tensor:
        """Numbers that say how long it has been, in a form that no linear map of them undoes."""
        return torch.full_like(self.goal, float(self.time))


def since(first: int, shown: Callable[[FallEnv], list[Tensor]]) -> See:
    """Thrust, and what is `shown` from a step on."""
    return lambda env: [env.thrust, *(float(env.time >= first) * x for x in shown(env))]


LEAKS: dict[str, tuple[See, str]] = {
    "first": (since(0, lambda env: [env.goal]), "the first observation tells entries [0]"),
    "second": (since(1, lambda env: [3 - 2 * env.goal]), "every observation from step 1 on"),
    "fourth": (since(3, lambda env: [env.goal]), "every observation from step 4 on"),
    "mixed with the action": (
        since(1, lambda env: [env.thrust + env.goal]),
        "every observation from step 1 on tells entries [0]",
    ),
    "angle": (since(1, lambda env: [env.goal.sin(), env.goal.cos()]), "from step 1 on"),
    "distance": (since(1, lambda env: [env.goal - env.thrust]), "from step 1 on"),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_goal_that_is_shown_at_any_time_is_found(leak: str):
    see, words = LEAKS[leak]
    with pytest.raises(CheckFailed) as told:
        hidden.check(Probe(Fall(see)))
    assert words in str(told.value)


LEGITIMATE: dict[str, See] = {
    "a speed that grows": lambda env: [env.goal * env.after],
    "beside a clock": lambda env: [env.goal * env.after, env.after],
    "a fall": lambda env: [env.goal * env.after**2, env.goal * env.after, env.after],
    "with a thrust": lambda env: [env.goal + env.thrust] if env.time else [env.thrust],
    "with noise": lambda env: [
        env.goal * (env.time > 0) + 0.1 * env.noise.normal(env.time, 1)[..., 0]
    ],
    "nothing": lambda env: [env.thrust, env.after],
}


@pytest.mark.parametrize("see", LEGITIMATE)
def test_dynamics_that_tell_the_task_are_no_leak(see: str):
    """After a known number of steps the speed of a fall is a linear map of its acceleration."""
    hidden.check(Probe(Fall(LEGITIMATE[see])))


def test_without_a_goal_the_whole_row_must_be_told():
    half: See = since(1, lambda env: [env.row[0]])
    hidden.check(Probe(Fall(half, goal_width=0)))
    whole: See = since(1, lambda env: list(env.row))
    with pytest.raises(CheckFailed, match=r"tells entries \[0, 1\] of the task row"):
        hidden.check(Probe(Fall(whole, goal_width=0)))


@pytest.mark.parametrize("first", [0, 1])
def test_a_goal_is_found_among_a_thousand_entries(first: int):
    """And where it is only told by two of them together."""

    def shown(env: FallEnv) -> list[Tensor]:
        noise = env.noise.split(env.time, 1000).uniform(0, 1).squeeze(-1)  # [N, M, 1000]
        entries = list(noise.unbind(-1))
        entries[700] = env.goal - entries[300]
        return entries

    with pytest.raises(CheckFailed, match=r"tells entries \[0\]"):
        hidden.check(Probe(Fall(since(first, shown))))


def test_themost_telling_entries_are_those_that_leave_least_unexplained():
    generator = torch.Generator().manual_seed(0)
    row, obs = (torch.randn(32, width, generator=generator) for width in (1, 500))
    obs[:, 20] = row[:, 0] - 0.5 * obs[:, 10]
    assert {10, 20} <= set(most_telling(obs.unsqueeze(0), row.double()).tolist())
