"""`metarl check`: a family that keeps every promise, and one for every way to break one."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl import cli
from metarl.checker import probe
from metarl.checker.check import RULES, Report, check_family
from metarl.checker.probe import Probe
from metarl.checker.still import Still
from metarl.checker.values import difference
from metarl.core.predictions import Predictions, Questions
from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Scene, Spec, Step, Tasks, replace

# -------------------------------------------------------------------------------------------------
# A family, and what may be wrong with it


@dataclass(frozen=True)
class Fault:
    """What is changed: each function takes what was there and gives what shall be there instead."""

    spec: dict[str, Any] = field(default_factory=dict)
    tasks: Callable[..., Tasks] = lambda tasks, rng: tasks
    reset: Callable[..., Tensor] = lambda env, obs: obs
    step: Callable[..., Step] = lambda env, action: env.healthy_step(action)
    offers: dict[str, Callable[[Any], Any]] = field(default_factory=dict)


class Walk:
    """A walk against the wind to a hidden goal; a cliff may end it early. Task row: goal, wind."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.spec = replace(
            Spec(
                "walk",
                {"position": 1, "moved": 1},
                action_width=1,
                discrete=False,
                horizon=6,
                task_width=2,
                goal_width=1,
                achieved_goal="position",
                metrics=("gap",),
            ),
            **self.broken.spec,
        )

    @property
    def broken(self) -> Fault:
        return FAULTS[self.fault][0] if self.fault else Fault()

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        tasks = Tasks(2 * rng.child(split).rows(count, 2) - 1, torch.arange(count), split)
        return self.broken.tasks(tasks, rng)

    def make(self, lanes: int) -> WalkEnv:
        return WalkEnv(self, lanes)

    def optimum(self, tasks: Tasks) -> Tensor:
        return self.offer("optimum", torch.zeros(len(tasks)))

    def expected_reward(self, tasks: Tasks, rollout: Any) -> Tensor:
        return self.offer("expected_reward", rollout.reward)

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return self.offer("goal_reward", -(achieved - desired).abs().squeeze(-1))

    def questions(self) -> Questions:
        obs = torch.tensor([0.0, 0.5, 1.0]).unsqueeze(1).expand(3, self.spec.obs_width)
        action = torch.zeros(3, self.spec.action_width)
        asked = Questions(obs, action, next_obs=obs, successors=obs[:2])
        return self.offer("questions", asked)

    def posterior_predictions(self, rollout: Rollout, times: Tensor) -> Predictions:
        reward = torch.stack([rollout.reward[:time].sum(0) for time in times.tolist()])
        reward = reward.unsqueeze(-1).expand(*reward.shape, 3)
        likely = torch.tensor([0.25, 0.75]).expand(*reward.shape, 2)
        predicted = Predictions(reward, torch.ones_like(reward), likely)
        return self.offer("posterior_predictions", self.offer("of", (predicted, rollout))[0])

    def scene(self, params: Tensor, obs: Tensor) -> Scene:
        path = torch.stack([obs[:, 0], 0 * obs[:, 0]], dim=1)
        return self.offer(
            "scene", Scene(path, limits=(-2.0, 2.0, -1.0, 1.0), goal=torch.zeros(1, 2))
        )

    def offer(self, name: str, value: Any) -> Any:
        return self.broken.offers.get(name, lambda value: value)(value)


class WalkEnv:
    def __init__(self, family: Walk, lanes: int) -> None:
        self.family, self.lanes = family, lanes

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        self.tasks, (self.goal, self.wind) = tasks, tasks.params.unsqueeze(1).unbind(-1)  # [N, 1]
        self.rng = rng
        self.start, self.gusts = (
            tasks.streams(rng.child(name), self.lanes) for name in ("start", "gusts")
        )
        self.time, self.age = 0, torch.zeros(len(tasks), self.lanes, dtype=torch.long)
        self.position = self.first()
        return self.family.broken.reset(self, self.look(self.position, 0 * self.position))

    def step(self, action: Tensor) -> Step:
        return self.family.broken.step(self, action)

    def healthy_step(self, action: Tensor) -> Step:
        moved = (
            0.3 * action.squeeze(-1)
            + 0.1 * self.wind
            + 0.05 * self.gusts.normal(self.time, 1).squeeze(-1)
        )
        position = self.position + moved
        self.time, self.age = self.time + 1, self.age + 1
        terminated = position > 0.8
        truncated = (self.age >= 6) & ~terminated
        done = terminated | truncated
        self.age = self.age.masked_fill(done, 0)
        self.position = torch.where(done, self.first(), position)
        next_obs = self.look(position, moved)
        obs = torch.where(done.unsqueeze(-1), self.look(self.position, 0 * moved), next_obs)
        gap = (position - self.goal).abs()
        metrics = {"gap": gap.clone()}
        return Step(
            obs,
            next_obs,
            -gap,
            terminated,
            truncated,
            metrics=metrics,
        )

    def first(self) -> Tensor:
        return 0.2 * self.start.uniform(self.time, 1).squeeze(-1)

    def look(self, position: Tensor, moved: Tensor) -> Tensor:
        return torch.stack([position, moved], dim=-1)

    def frame(self, row: int, lane: int) -> np.ndarray:
        return self.family.offer("frame", np.zeros((4, 5, 3), np.uint8))


FAULTS: dict[str, tuple[Fault, set[str], str]] = {}
"""Name → what is broken, the rules that must fail, words that must be said."""


def plant(name: str, rules: str, words: str, **broken: Any) -> None:
    FAULTS[name] = (Fault(**broken), set(rules.split()), words)


def planted(
    rules: str, words: str, **broken: Any
) -> Callable[[Callable[..., Step]], Callable[..., Step]]:
    """A fault of `step`, called like the function."""

    def add(step: Callable[..., Step]) -> Callable[..., Step]:
        plant(step.__name__, rules, words, step=step, **broken)
        return step

    return add


def rows(change: Callable[[Tensor], Tensor]) -> Callable[[Tasks, Rng], Tasks]:
    """Tasks with other rows."""
    return lambda tasks, rng: replace(tasks, params=change(tasks.params))


def of_all_splits(tasks: Tasks, rng: Rng) -> Tasks:
    return replace(tasks, params=rng.child("all").rows(len(tasks), 2))


def shuffled(tasks: Tasks, rng: Rng) -> Tasks:
    return tasks[torch.randperm(len(tasks), generator=torch.Generator().manual_seed(len(tasks)))]


def more(**arrays: Callable[[Tensor], Tensor]) -> Callable[..., Step]:
    """The healthy step with some arrays changed."""

    def step(env: WalkEnv, action: Tensor) -> Step:
        healthy = env.healthy_step(action)
        return replace(
            healthy, **{name: change(getattr(healthy, name)) for name, change in arrays.items()}
        )

    return step


# -------------------------------------------------------------------------------------------------
# What is said

plant(
    "goal wider than the row",
    "spec",
    "goal_width 3 is not from 0 to task_width",
    spec={"goal_width": 3},
)
plant(
    "no such part",
    "spec",
    "achieved_goal 'place' is no part",
    spec={"achieved_goal": "place"},
)
plant(
    "goal of another width",
    "spec",
    "achieved_goal 'position' is no part of observation as wide as the goal, 2",
    spec={"goal_width": 2},
)
plant(
    "nothing to compare",
    "spec",
    "goal_reward: one without",
    spec={"achieved_goal": None},
)
plant(
    "unknown split",
    "spec",
    "'exam') are not (",
    spec={"splits": ("train", "validation", "test", "exam")},
)
plant("no test tasks", "spec", "'validation') are not (", spec={"splits": ("train", "validation")})
plant("no horizon", "spec", "horizon is 0", spec={"horizon": 0})

plant(
    "double rows",
    "tasks",
    "params of 9 train tasks is torch.float64 of shape [9, 2], not",
    tasks=rows(Tensor.double),
)
plant(
    "narrow rows", "tasks", "of shape [9, 1], not torch.float32 of", tasks=rows(lambda x: x[:, :1])
)
plant(
    "a row is NaN",
    "tasks",
    "params of 9 train tasks is not finite",
    tasks=rows(lambda x: x / (x != x[3])),
)
plant(
    "forgetful",
    "tasks",
    "asking twice for 9 train tasks gives other rows",
    tasks=rows(torch.rand_like),
)
plant(
    "another split",
    "tasks",
    "says that its split is 'x'",
    tasks=lambda tasks, rng: replace(tasks, split="x"),
)
plant("more are others", "tasks", "the first 4 of 9 train tasks are not those of 4", tasks=shuffled)
plant(
    "no identity",
    "tasks",
    "(index, copy) stands twice",
    tasks=lambda t, rng: replace(t, index=t.index // 2),
)
plant("trained on", "splits", "500 rows of train and validation are in both", tasks=of_all_splits)
plant(
    "not closed",
    "splits",
    "10000 rows of train and validation are in one only",
    spec={"closed": True},
)


@pytest.mark.parametrize("missing", ["spec", "tasks", "make"])
def test_what_is_no_family_is_told_so(missing: str):
    walk = Walk()
    parts = {
        name: getattr(walk, name)
        for name in ("spec", "tasks", "make", "goal_reward")
        if name != missing
    }
    report = check_family(SimpleNamespace(**parts))
    assert not report.ok
    assert f"has no attribute '{missing}'" in report.findings[-1].observed
    assert str(report).endswith("not looked at before this is fixed: all further promises")


# -------------------------------------------------------------------------------------------------
# Steps and episodes

plant(
    "double",
    "steps",
    "walk: reward at step 0 is torch.float64 of shape [8, 4]",
    step=more(reward=Tensor.double),
)
plant(
    "flat",
    "steps",
    "obs at step 0 is torch.float32 of shape [8, 4, 1]",
    step=more(obs=lambda x: x[..., :1]),
)
plant("numbers", "steps", "truncated at step 0 is torch.float32", step=more(truncated=Tensor.float))
plant(
    "first is flat", "steps", "the first observation at step 0", reset=lambda env, obs: obs[..., 0]
)
plant("never a number", "steps", "reward is not finite", step=more(reward=lambda x: x / 0))


plant(
    "metric that is not given",
    "steps",
    "walk: the metrics at step 0 are []; the family's spec names ['gap']",
    step=more(metrics=lambda x: {}),
)
plant(
    "metric that is not named",
    "steps",
    "the metrics at step 0 are ['gap']; the family's spec names []",
    spec={"metrics": ()},
)
plant(
    "metric in double",
    "steps",
    "metric gap at step 0 is torch.float64 of shape [8, 4]",
    step=more(metrics=lambda x: {"gap": x["gap"].double()}),
)
plant(
    "metric that is no number",
    "steps",
    "metric gap is not finite at [step, row, lane] [0, 0, 0]",
    step=more(metrics=lambda x: {"gap": x["gap"] / 0}),
)


@planted("steps", "changed in place later: metric gap [step, row, lane] differs at [0, 0, 0]")
def metric_in_place(env, action):
    step = env.healthy_step(action)
    if env.time > 1:
        env.handed_out.zero_()
    env.handed_out = step.metrics["gap"]
    return step


@planted("steps", "terminated and truncated at once at [step, row, lane] ")
def two_reasons(env, action):
    step = env.healthy_step(action)
    return replace(step, truncated=step.done)


@planted("steps", "changed in place later: next_obs [step, row, lane] differs at [0, 0, 0, ")
def in_place(env, action):
    step = env.healthy_step(action)
    if env.time > 1:
        env.handed_out.zero_()
    env.handed_out = step.next_obs
    return step


def kept_for_later(env: WalkEnv, obs: Tensor) -> Tensor:
    env.handed_out = obs
    return obs


@planted("steps", "changed in place later: obs before [step, row, lane]", reset=kept_for_later)
def start_in_place(env, action):
    if env.time > 1:
        env.handed_out.zero_()
    return env.healthy_step(action)


@planted("continuity", "no episode ended, but obs is not next_obs at [step, row, lane] [0, 0, 0]")
def torn(env, action):
    step = env.healthy_step(action)
    return replace(
        step, next_obs=torch.where(step.done.unsqueeze(-1), step.next_obs, step.next_obs + 1)
    )


plant(
    "in a hurry",
    "horizon",
    "truncated after 6 steps, but the spec's horizon is 7",
    spec={"horizon": 7},
)


@planted("horizon", "an episode goes on after 6 steps at [step, row, lane] [6, 0, 0]")
def endless(env, action):
    env.age = torch.zeros_like(env.age)
    return env.healthy_step(action)


@planted("successor", "next_obs is the same as obs at all")
def same_step(env, action):
    """What ends an episode is lost: the adapter of a vector environment that resets itself."""
    step = env.healthy_step(action)
    return replace(step, next_obs=step.obs)


@planted("successor", "truncated ends")
def same_step_at_the_time_limit(env, action):
    step = env.healthy_step(action)
    return replace(
        step, next_obs=torch.where(step.truncated.unsqueeze(-1), step.obs, step.next_obs)
    )


def late(env: WalkEnv, obs: Tensor) -> Tensor:
    env.over = torch.zeros_like(env.age, dtype=torch.bool)
    return obs


def late_step(env: WalkEnv, action: Tensor) -> tuple[Step, Tensor, Tensor]:
    """Each end is followed by a step that only resets.

    → the step, whether it reset [N, M, 1], the first observation.
    """
    before, age, over = env.position, env.age, env.over
    first = env.look(before, 0 * before)
    step = env.healthy_step(action)
    env.position, env.age = torch.where(over, before, env.position), torch.where(over, age, env.age)
    env.over = step.done & ~over
    quiet = {
        "terminated": step.terminated & ~over,
        "truncated": step.truncated & ~over,
        "reward": step.reward * ~over,
    }
    return replace(step, **quiet), over.unsqueeze(-1), first


@planted("successor", "next_obs is the same as obs at all", reset=late)
def next_step(env, action):
    """As Gymnasium's vectors have it: the last observation is acted on."""
    step, over, first = late_step(env, action)
    obs = torch.where(over, first, torch.where(step.done.unsqueeze(-1), step.next_obs, step.obs))
    return replace(step, obs=obs, next_obs=torch.where(over, first, step.next_obs))


@planted("autoreset", "a step followed with reward 0 and no movement", reset=late)
def idle_step(env, action):
    """The first observation of the next episode is acted on twice."""
    step, over, first = late_step(env, action)
    return replace(
        step,
        obs=torch.where(over, first, step.obs),
        next_obs=torch.where(over, first, step.next_obs),
    )


# -------------------------------------------------------------------------------------------------
# Tasks


def becalmed(env: WalkEnv, obs: Tensor) -> Tensor:
    env.goal, env.wind = 0 * env.goal, 0 * env.wind
    return obs


plant("one row", "variety", "all 500 rows of train are the same", tasks=rows(torch.zeros_like))


def shown(*places: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """The task row [N, 1, P] beside the position, in the first observation and in all others."""

    def see(env: WalkEnv, obs: Tensor) -> Tensor:
        row = env.tasks.params.unsqueeze(1).expand(-1, env.lanes, -1)
        return torch.cat([obs, *(place(row) for place in places)], dim=-1)

    def step(env: WalkEnv, action: Tensor) -> Step:
        healthy = env.healthy_step(action)
        return replace(healthy, obs=see(env, healthy.obs), next_obs=see(env, healthy.next_obs))

    width = len(places)
    return {
        "reset": see,
        "step": step,
        "spec": {"observation": {"position": 1, "moved": 1, "shown": width}},
    }


plant(
    "goal in the observation",
    "hidden",
    "tells entries [0]",
    **shown(lambda row: 3 - 2 * row[..., :1]),
)
angle = shown(lambda row: row[..., :1].sin(), lambda row: row[..., :1].cos())
plant("angle in the observation", "hidden", "tells entries [0]", **angle)
plant(
    "wind in the observation", "", "observations tells an entry", **shown(lambda row: row[..., 1:])
)


@planted("persistence", "a later episode is not the first one over again")
def resampled(env, action):
    """The task is drawn anew at the end of an episode."""
    step = env.healthy_step(action)
    drawn = 2 * env.start.split(env.time, 2).uniform(0, 1).squeeze(-1) - 1  # [N, M, 2]
    env.goal, env.wind = (
        torch.where(step.done, drawn[..., i], x) for i, x in enumerate((env.goal, env.wind))
    )
    return step


@planted("rows", "rows 2 and 0 among 8 and alone: not the same")
def swapped(env, action):
    """Whenever an episode ends, the tasks are handed on to the next row."""
    step = env.healthy_step(action)
    if step.done.any():
        env.goal, env.wind = env.goal.roll(1, 0), env.wind.roll(1, 0)
    return step


@planted("persistence", "a later episode is not the first one over again")
def tired(env, action):
    """Something else than the task outlives an episode."""
    if env.time == 0:
        env.walked = torch.zeros_like(env.position)
    env.walked = env.walked + 1
    step = env.healthy_step(action)
    return replace(step, reward=step.reward - 0.1 * (env.walked > 6).float())


def by_seeds(env: WalkEnv, obs: Tensor) -> Tensor:
    """Randomness made of keys, as adapters make their seeds."""
    env.gusts, env.start = Streams(env.gusts.keys), Streams(env.start.keys)
    return obs


plant("randomness of its own", "", " first episodes, later in ", reset=by_seeds)
plant(
    "randomness of its own, resampled",
    "persistence",
    "and never later",
    reset=by_seeds,
    step=resampled,
)


# -------------------------------------------------------------------------------------------------
# Chance, and what is kept


@planted("seed", "suspect: torch's global generator")
def drawn_from_torch(env, action):
    return noisy(env, action, torch.rand(()))


@planted("seed", "suspect: NumPy's global generator")
def drawn_from_numpy(env, action):
    return noisy(env, action, np.random.rand())


@planted("seed", "suspect: Python's global generator")
def drawn_from_python(env, action):
    return noisy(env, action, random.random())


@planted("seed", "torch.rand and the like) and Python's global generator")
def drawn_from_two(env, action):
    return noisy(env, action, torch.rand(()) + random.random())


@planted("seed", "suspect: a generator that the seed does not reach, or the clock")
def drawn_from_nowhere(env, action):
    return noisy(env, action, np.random.default_rng().uniform())


@planted("seed", "suspect: the clock: it reads time.perf_counter")
def hour_of_the_day(env, action):
    return noisy(env, action, time.perf_counter() % 1)


@planted("seed", "suspect: count, class attribute of Shared: it outlives the environment")
def shared_by_all(env, action):
    env.shared = Shared()
    env.shared.count[0] += 1
    return noisy(env, action, env.shared.count[0])


@planted("seed", "suspect: MET, global variable")
def met_before(env, action):
    MET.append(0)
    return noisy(env, action, len(MET))


@planted("seed", "suspect: walked, attribute of the family")
def walked_of_the_family(env, action):
    env.family.walked = getattr(env.family, "walked", 0) + 1
    return noisy(env, action, env.family.walked)


@planted("seed", "suspect: default argument of Shared.grow")
def default_argument(env, action):
    env.shared = Shared()
    return noisy(env, action, env.shared.grow())


@planted("reset", "suspect: WalkEnv.clock: reset() leaves it as it was")
def leftover_clock(env, action):
    env.clock = getattr(env, "clock", 0) + 1
    return noisy(env, action, env.clock % 64)


@planted(
    "persistence",
    "a later episode is not the first one over again: metric gap [step, row, lane] differs",
)
def metric_of_the_whole_trial(env, action):
    step = env.healthy_step(action)
    if env.time == 1:
        env.total = 0.0
    env.total = env.total + step.metrics["gap"]
    return replace(step, metrics={"gap": env.total})


def noisy(env: WalkEnv, action: Tensor, more: float | Tensor) -> Step:
    """The healthy step with more reward."""
    step = env.healthy_step(action)
    return replace(step, reward=step.reward + more)


class Shared:
    """What all environments have in common."""

    count = [0]  # noqa: RUF012

    def grow(self, seen: list[int] = []) -> int:  # noqa: B006
        seen.append(0)
        return len(seen)


MET: list[int] = []


def with_randomness(env: WalkEnv, randomness: Streams) -> Tensor:
    """The first observation with other randomness."""
    env.gusts = env.start = randomness
    env.position = env.first()
    return env.look(env.position, 0 * env.position)


def one_stream_for_all_lanes(env: WalkEnv, obs: Tensor) -> Tensor:
    return with_randomness(
        env, Streams(env.rng.streams(env.tasks.index).keys.expand(-1, env.lanes))
    )


def one_stream_for_all_rows(env: WalkEnv, obs: Tensor) -> Tensor:
    return with_randomness(env, env.rng.streams(torch.zeros_like(env.tasks.index), env.lanes))


def second_hand(env: WalkEnv, obs: Tensor) -> Tensor:
    env.used = hasattr(env, "used")
    env.position = env.position + 0.1 * env.used
    return env.look(env.position, 0 * env.position)


def with_a_lambda(env: WalkEnv, obs: Tensor) -> Tensor:
    env.note = lambda: None
    return obs


class Sieve:
    """Loses what it holds when it is pickled."""

    bonus = 0.0

    def __getstate__(self) -> dict[str, float]:
        return {}


def with_a_sieve(env: WalkEnv, obs: Tensor) -> Tensor:
    env.sieve = Sieve()
    env.sieve.bonus = 1.0
    return obs


def richer(env: WalkEnv, action: Tensor) -> Step:
    step = env.healthy_step(action)
    return replace(step, reward=step.reward + env.sieve.bonus)


@planted("rows", "rows 2 and 0 among 8 and alone: not the same; reward [step, row, lane]")
def rows_compete(env, action):
    step = env.healthy_step(action)
    return replace(step, reward=step.reward - env.goal.mean())


@planted("lanes", "3 of 4 lanes, among all and alone: not the same; reward [step, row, lane]")
def lanes_compete(env, action):
    step = env.healthy_step(action)
    return replace(step, reward=step.reward / env.lanes)


@planted("steps", "ZeroDivisionError: integer division or modulo by zero (test_check.py, line ")
def crash(env, action):
    return env.healthy_step(action / (1 // 0))


plant(
    "lanes share their randomness",
    "randomness",
    "all 4 lanes of a row are the same",
    reset=one_stream_for_all_lanes,
)
plant(
    "rows share their randomness",
    "randomness",
    "8 rows of one task are the same",
    reset=one_stream_for_all_rows,
)
plant(
    "second hand",
    "reset",
    "a used environment after reset() and a fresh one: not the same; obs before",
    reset=second_hand,
)
plant("cannot be pickled", "state", "ickle", reset=with_a_lambda)
plant(
    "pickled badly",
    "state",
    "an environment and its copy after 12 steps: not the same; reward",
    reset=with_a_sieve,
    step=richer,
)

# -------------------------------------------------------------------------------------------------
# What is offered

OFFERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "optimum": (
        lambda x: x.unsqueeze(1),
        "optimum is torch.float32 of shape [8, 1], not real numbers of shape [8]",
    ),
    "expected_reward": (lambda x: x / 0, "expected_reward is not finite"),
    "goal_reward": (
        lambda x: x[..., None],
        "goal_reward is torch.float32 of shape [64, 8, 4, 1]",
    ),
    "scene": (
        lambda x: replace(x, path=x.path[1:]),
        "scene: path is torch.float32 of shape [63, 2], not real",
    ),
    "frame": (np.float32, "frame is no array of uint8"),
}
for name, (change, words) in OFFERS.items():
    plant(f"wrong {name}", "frame" if name == "frame" else "offers", words, offers={name: change})
POSTERIORS: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "no questions": ("questions", lambda x: None, "questions gives NoneType, no Questions"),
    "a question too few": (
        "questions",
        lambda x: replace(x, action=x.action[1:]),
        "questions: action is torch.float32 of shape [2, 1], not real numbers of shape [3, 1]",
    ),
    "a flat successor": (
        "questions",
        lambda x: replace(x, successors=x.successors[0]),
        "questions: successors is torch.float32 of shape [2], not real numbers of shape [2, 2]",
    ),
    "three rewards": (
        "questions",
        lambda x: replace(x, rewards=(0.0, 1.0)),
        "questions: a step pays neither of the rewards (0.0, 1.0)",
    ),
    "rewards upside down": (
        "questions",
        lambda x: replace(x, rewards=(1.0, 0.0)),
        "questions: rewards (1.0, 0.0) are not the lower one first",
    ),
    "a chance below 0": (
        "posterior_predictions",
        lambda x: replace(x, successor=torch.tensor([-0.5, 1.5]).expand_as(x.successor)),
        "posterior_predictions: successor: probabilities are negative, or do not add up to 1",
    ),
    "no predictions": ("posterior_predictions", vars, "posterior_predictions gives dict"),
    "a reward of a trial": (
        "posterior_predictions",
        lambda x: replace(x, reward=x.reward[..., 0]),
        "posterior_predictions: reward is torch.float32 of shape [3, 8, 4], not",
    ),
    "a deviation below 0": (
        "posterior_predictions",
        lambda x: replace(x, variance=-x.variance),
        "posterior_predictions: a variance is negative",
    ),
    "no successors": (
        "posterior_predictions",
        lambda x: replace(x, successor=None),
        "posterior_predictions: successor is None, but questions has successors",
    ),
    "odds": (
        "posterior_predictions",
        lambda x: replace(x, successor=4 * x.successor),
        "posterior_predictions: successor: probabilities are negative, or do not add up to 1",
    ),
    "prophecy": (
        "of",
        lambda x: (replace(x[0], variance=x[0].variance + x[1].reward.square().sum()), None),
        "at times 0 and 1, with and without the steps after them; variance differs",
    ),
    "a prior that knows the row": (
        "of",
        lambda x: (replace(x[0], reward=x[0].reward + x[1].index[:, None, None]), None),
        "posterior_predictions at time 0 in all rows and lanes; reward differs",
    ),
}
for name, (offered, change, words) in POSTERIORS.items():
    plant(name, "offers", words, offers={offered: change})
plant(
    "wrong limits",
    "offers",
    "not left < right",
    offers={"scene": lambda x: replace(x, limits=(1.0, 0.0, 0.0, 1.0))},
)
plant(
    "wrong goal",
    "offers",
    "scene: goal is torch.float32 of",
    offers={"scene": lambda x: replace(x, goal=x.path[0])},
)


# -------------------------------------------------------------------------------------------------
# The report


def broken(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings if not finding.passed}


def test_a_family_that_keeps_every_promise_passes_every_rule():
    report = check_family(Walk())
    assert report.ok, report
    assert [finding.rule for finding in report.findings] == [rule.name for rule in RULES]
    assert str(report).startswith(f"walk: keeps all {len(RULES)} promises\nok    builds ")
    assert report.findings[1].observed.endswith("; metric gap")
    assert report.findings[-2].observed == "optimum, expected_reward, goal_reward, posterior, scene"


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_broken_is_found_and_nothing_else(name: str):
    _, rules, words = FAULTS[name]
    report = check_family(Walk(name))
    assert broken(report) == rules, report
    assert report.ok == (not rules)
    said = [finding for finding in report.findings if finding.passed == (not rules)]
    told = [f"{finding.observed} suspect: {finding.suspect}" for finding in said]
    assert any(words in text for text in told), report
    assert "warn" not in [finding.verdict for finding in report.findings]
    for finding in report.findings:
        assert ("why:" in str(finding)) == ("fix:" in str(finding)) == (not finding.passed)


def test_every_rule_can_be_broken():
    """`builds` by what is no family; `effect` only warns."""
    can = set().union(*(rules for _, rules, _ in FAULTS.values()))
    assert {rule.name for rule in RULES} == can | {"builds", "effect"}


def test_what_random_actions_do_not_meet_is_a_warning(monkeypatch: pytest.MonkeyPatch):
    """The task may matter where rewards are sparse."""
    monkeypatch.setitem(FAULTS, "becalmed", (Fault(reset=becalmed), set(), ""))
    report = check_family(Walk("becalmed"))
    assert report.ok
    (warned,) = (finding for finding in report.findings if finding.verdict == "warn")
    assert warned.rule == "effect"
    assert "nothing depends on the row" in warned.observed
    assert str(report).startswith(f"walk: keeps {len(RULES) - 1} promises; 1 warning\n")
    assert "\nwarn  effect\n        observed: in 64 steps" in str(report)


def test_a_family_of_one_task_promises_nothing_of_tasks(monkeypatch: pytest.MonkeyPatch):
    one = Fault({"closed": True}, tasks=rows(torch.zeros_like))
    monkeypatch.setitem(FAULTS, "one task", (one, set(), ""))
    report = check_family(Walk("one task"))
    assert str(report).startswith(f"walk: keeps all {len(RULES) - 3} promises\n"), report
    nothing = {finding.rule for finding in report.findings if finding.verdict == "-"}
    assert nothing == {"variety", "effect", "hidden"}


def test_what_rests_on_a_broken_promise_is_not_looked_at():
    report = check_family(Walk("drawn_from_torch"))
    assert report.unseen == (
        *("reset", "rows", "lanes", "randomness", "state", "successor", "autoreset"),
        *("horizon", "effect", "persistence"),
    )
    assert len(report.unseen) + len(report.findings) == len(RULES)
    assert str(report).startswith("walk: breaks 1 promise, keeps 10\n")


def test_what_cannot_be_tested_is_not_counted_as_kept(monkeypatch: pytest.MonkeyPatch):
    """Episodes are too long for the end of one to be seen."""

    def endless(env: WalkEnv, action: Tensor) -> Step:
        env.age, env.position = 0 * env.age, 0 * env.position
        return env.healthy_step(action)

    monkeypatch.setattr(probe, "LONGEST", 40)
    monkeypatch.setitem(FAULTS, "long", (Fault({"horizon": 500}, step=endless), set(), ""))
    report = check_family(Walk("long"))
    untested = {finding.rule for finding in report.findings if finding.verdict == "skip"}
    assert untested == {"successor", "autoreset", "horizon", "persistence"}
    kept = len(RULES) - len(untested)
    assert str(report).startswith(f"walk: keeps {kept} promises; 4 could not be tested\n")


def test_a_report_fits_a_terminal():
    for report in (check_family(Walk()), check_family(Walk("drawn_from_two"))):
        assert max(map(len, str(report).splitlines())) <= 80


def test_a_picture_that_this_machine_cannot_draw_is_no_fault(monkeypatch: pytest.MonkeyPatch):
    def frame(env: WalkEnv, row: int, lane: int) -> None:
        try:
            import pygame_that_is_not_there  # noqa: F401
        except ImportError as error:
            raise RuntimeError("pygame is not installed") from error

    monkeypatch.setattr(WalkEnv, "frame", frame)
    report = check_family(Walk())
    assert report.ok
    assert "nothing was drawn: pygame is not installed" in report.findings[-1].observed


# -------------------------------------------------------------------------------------------------
# The command

NEEDLE = """
import torch
from metarl import Settings, Spec, Step, Tasks

class Needle:
    "One arm of some pays."

    class Settings(Settings):
        arms: int = 4

    def __init__(self, options):
        self.arms = 12 // options.arms
        self.spec = Spec("needle", {"constant": 1}, options.arms, True, 1, 1, closed=True)

    def tasks(self, split, count, rng):
        arms = torch.arange(self.spec.action_width)
        return Tasks(arms.unsqueeze(1).float(), arms, split).draw(count, rng.child(split))

    def make(self, lanes):
        return NeedleEnv(lanes)

class NeedleEnv:
    def __init__(self, lanes):
        self.lanes = lanes

    def reset(self, tasks, rng):
        self.arm = tasks.params.long()
        return torch.ones(len(tasks), self.lanes, 1)

    def step(self, action):
        reward = (action == self.arm).float()
        ended = torch.ones_like(reward, dtype=torch.bool)
        obs = torch.ones(*reward.shape, 1)
        return Step(obs, obs, reward, terminated=ended, truncated=~ended)
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """`metarl check mine.py:Needle …` with this source → exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(source: str, *options: str, name: str = "mine.py:Needle") -> tuple[int, str, str]:
        (tmp_path / "mine.py").write_text(source)
        monkeypatch.setattr(sys, "argv", ["metarl", "check", name, *options])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (int(stop.value.code or 0), *capsys.readouterr())

    return run


def test_the_command_prints_a_line_a_rule(command):
    code, out, err = command(NEEDLE, "arms=3", "family.arms=6")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"needle: keeps {len(RULES) - 3} promises; 1 could not be tested"
    assert "action 6 choices" in out
    assert [line.split()[1] for line in lines[1:] if line[0] != " "] == [r.name for r in RULES]


def test_the_command_says_why_and_how_and_fails(command):
    code, out, _ = command(NEEDLE.replace("reward = ", "reward = 1 // 0 * "))
    assert code == 1
    found = out[out.index("FAIL  steps") :]
    assert " ".join(found.split()).startswith(
        "FAIL steps observed: ZeroDivisionError: integer division or modulo by zero "
        "(mine.py, line 31) why: "
    )
    assert "\n        fix: " in found


def test_a_family_that_cannot_be_built_is_a_finding(command):
    code, out, _ = command(NEEDLE, "arms=0")
    assert code == 1
    assert "FAIL  builds" in out
    said = " ".join(out.split())
    assert "ZeroDivisionError: integer division or modulo by zero (mine.py, line 12)" in said


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        (
            "import nowhere",
            [],
            "does not import: ModuleNotFoundError: No module named 'nowhere' (mine.py, line 1)",
        ),
        (NEEDLE, ["arms"], "'arms' is not an option: write key=value"),
        (NEEDLE, ["amrs=3"], "family.amrs: unknown key; did you mean 'arms'?"),
    ],
)
def test_a_mistake_is_one_clear_line(command, source: str, options: list[str], words: str):
    code, out, err = command(source, *options)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


def test_an_unknown_family_is_a_mistake(command):
    assert "did you mean gridnavi?" in command("", name="gridnavy")[2]


# -------------------------------------------------------------------------------------------------
# Probing


def test_still_randomness_is_the_same_at_every_counter_but_not_in_every_stream():
    still, tasks = Still(Rng(3)), Walk().tasks("train", 4, Rng(0))
    one, other = (tasks.streams(still.child(name), 2) for name in ("one", "other"))
    assert torch.equal(one.uniform(0, 3), one.uniform(17, 3))
    assert torch.equal(one.normal(5, 1), tasks.streams(Rng(3).child("one"), 2).normal(0, 1))
    assert not torch.equal(one.uniform(0, 3), other.uniform(0, 3))
    assert torch.equal(one.split(1, 2).uniform(2, 1), one.split(3, 2).uniform(4, 1))
    assert len(one.uniform(0, 1).unique()) == 8


def test_rejection_gets_other_numbers_and_the_same_in_every_step():
    """Else the rejection would never end."""
    still = Still(Rng(0))
    streams = still.streams(torch.arange(2), 1)

    def draw() -> list[Tensor]:
        still.time += 1
        return [streams.uniform(t, 1) for t in range(300)]

    first, second = draw(), draw()
    assert len(torch.stack(first).unique()) > 300
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("use", "escapes"),
    [
        (lambda still: still.streams(torch.arange(2)).uniform(0, 1), False),
        (lambda still: still.child("x").streams(torch.arange(2)).keys, True),
        (lambda still: still.child("x").generator(), True),
        (lambda still: still.key, True),
    ],
)
def test_randomness_that_is_made_of_seeds_escapes(use: Callable[[Still], Any], escapes: bool):
    still = Still(Rng(0))
    use(still)
    assert still.escaped == escapes


def test_the_first_difference_is_reported_and_rounding_is_forgiven():
    trace = Probe(Walk()).trace.seen
    name = "reward [step, row, lane]"
    reward = trace[name].clone()
    reward[5, 2, 1] += 1
    reward[7, 0, 0] += 1
    assert difference(trace, trace | {name: reward}).startswith(f"{name} differs at [5, 2, 1]: ")
    rounded = trace | {name: trace[name] * (1 + 1e-6)}
    assert difference(trace, rounded) is not None
    assert difference(trace, rounded, rounding=True) is None
    assert difference(trace, trace) is None


def test_few_lanes_are_tried_where_episodes_are_long_and_their_end_is_seen():
    family = SimpleNamespace(spec=Walk().spec)
    for horizon, size in ((1, (8, 4)), (20, (8, 4)), (1000, (4, 2))):
        family.spec = replace(family.spec, horizon=horizon)
        examined = Probe(family)
        assert examined.size == size
        assert horizon < examined.steps <= max(2 * horizon + 2, 64)
