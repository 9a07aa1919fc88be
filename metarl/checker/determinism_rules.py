"""What every family promises of repetition: chance has its place, nobody disturbs anybody, and copies go on alike.

Rules like those of `metarl.checker.task_rules`.
"""

from __future__ import annotations

import pickle

import torch

from metarl.checker.probe import Probe, Trace, difference, go_on, recorded
from metarl.checker.rules import require, rule
from metarl.core.types import replace


@rule(
    why="a result that cannot be repeated cannot be examined, and resuming a run would change it",
    fix="draw from tasks.streams(rng.child(…), lanes) with a counter, never from a global generator",
)
def seed(probe: Probe) -> str:
    """A fresh environment with the same tasks, seed and actions lives through the same."""
    return _equal(probe, probe.again(), "two environments, same seed and actions")


@rule(
    why="one environment serves many iterations: what is left over from one leaks into the next",
    fix="set everything that step() changes in reset(), clocks and counters included",
)
def reset(probe: Probe) -> str:
    """An environment that was used with other tasks starts as a fresh one does."""
    env, some = probe.family.make(probe.size[1]), slice(probe.size[0] // 2)
    probe.again(
        probe.trace.action[:, some],
        probe.tasks[some],
        env=env,
        rng=probe.rng.child("other"),
        steps=3,
    )
    return _equal(probe, probe.again(env=env), "a used environment after reset() and a fresh one")


@rule(
    why="batches are cut in any way, on one machine or many; what a task meets must not depend on its neighbours",
    fix="compute every row from its own params and from tasks.streams alone",
)
def rows(probe: Probe) -> str:
    """Two of the rows, in another order, live through what they did among all."""
    chosen = torch.tensor([2, 0])
    alone = probe.again(probe.trace.action[:, chosen], probe.tasks[chosen])
    among = probe.trace.part(slice(probe.brief), chosen)
    _alike(
        among,
        alone,
        f"rows 2 and 0 alone are not what they are among {probe.size[0]}",
        rounding=True,
    )
    return f"rows 2 and 0 are the same alone as among {probe.size[0]}"


@rule(
    why="an agent that is evaluated with more lanes must meet the same luck in the first ones",
    fix="compute every lane from its own entry of tasks.streams(rng, lanes) alone",
)
def lanes(probe: Probe) -> str:
    """One lane less leaves the others as they are."""
    few = probe.size[1] - 1
    alone = probe.again(probe.trace.action[:, :, :few])
    among = probe.trace.part(slice(probe.brief), lanes=slice(few))
    _alike(among, alone, f"lanes among {few} are not what they are among {few + 1}", rounding=True)
    return f"lane 0 is the same among {few} as among {few + 1}, and so are the others"


@rule(
    why="lanes that share their luck are one lane, however many there are",
    fix="draw [N, M] numbers from tasks.streams(rng, lanes), not one for all",
)
def randomness(probe: Probe) -> str:
    """Where the seed matters, not all lanes of a row and not all rows of one task have the same luck."""
    count, width = probe.size
    same = replace(probe.tasks, params=probe.tasks.params[:1].expand(count, -1).clone())
    actions = probe.trace.action[:, :1, :1].expand(-1, count, width, *probe.trace.action.shape[3:])
    steps = min(probe.brief, 64)
    first, second = (
        probe.again(actions, same, rng=rng, steps=steps)
        for rng in (probe.rng, probe.rng.child("another"))
    )
    if difference(first, second) is None:
        return "no chance: the seed changes nothing"
    shared = first.part(lanes=slice(1, None)), first.part(lanes=slice(width - 1))
    require(
        difference(*shared) is not None,
        f"the seed matters, but all {width} lanes of a row live through the same",
    )
    shared = first.part(rows=slice(1, None)), first.part(rows=slice(count - 1))
    require(
        difference(*shared) is not None,
        f"the seed matters, but {count} rows of one task live through the same",
    )
    return "every row and lane has its own"


def _equal(probe: Probe, again: Trace, what: str) -> str:
    _alike(probe.trace.part(slice(probe.brief)), again, what)
    return f"{what}: {probe.brief} steps alike"


def _alike(first: Trace, second: Trace, what: str, *, rounding: bool = False) -> None:
    """The rule is broken where the two differ, `what` they are being said first."""
    apart = difference(first, second, rounding=rounding)
    require(apart is None, f"{what}: {apart}")


# ---------------------------------------------------------------------------------------------------------------------
# Keeping


@rule(
    why="runs are sent to other processes, and an environment may be saved in the middle of an episode",
    fix="keep plain data in the family and its environment (no lambdas, no open handles), or define __getstate__",
)
def state(probe: Probe) -> str:
    """Family and environment pickle, and a copy goes on as the original."""
    family, middle = pickle.loads(pickle.dumps(probe.family)), probe.brief // 2  # noqa: S301  (just pickled)
    require(family.spec == probe.spec, "a pickled family has another spec")
    env = family.make(probe.size[1])
    before = probe.again(env=env, steps=middle)
    copy = pickle.loads(pickle.dumps(env))  # noqa: S301
    after = go_on(
        copy,
        probe.spec,
        before.step.obs[-1],
        recorded(probe.trace.action),
        range(middle, probe.brief),
    )
    for part, steps in ((before, slice(middle)), (after, slice(middle, probe.brief))):
        _alike(
            probe.trace.part(steps),
            part,
            f"a copy by pickle after {middle} steps goes on otherwise",
        )
    return f"family and environment pickle; a copy after {middle} steps goes on as the original"
