"""What every family promises of repetition: same seed, same trajectory, whatever else runs.

Rules like those of `metarl.checker.task_rules`.
"""

import pickle

import torch

from metarl.checker.probe import Probe, Trace, difference, replay, run_from
from metarl.checker.rules import require, rule
from metarl.core.types import replace, tree_map


@rule(
    why="a result that cannot be repeated cannot be examined, and resuming a run would change it",
    fix="draw from tasks.streams(rng.child(…), lanes) with a counter, not from a global generator",
)
def seed(probe: Probe) -> str:
    """A fresh environment with the same tasks, seed and actions gives the same trace."""
    return _equal(probe, probe.run(), "two environments, same seed and actions")


@rule(
    why="one environment serves many iterations: what is left over from one leaks into the next",
    fix="set everything that step() changes in reset(), clocks and counters included",
)
def reset(probe: Probe) -> str:
    """An environment that was used with other tasks starts as a fresh one does."""
    env = probe.family.make(probe.size[1])
    some = slice(probe.size[0] // 2)
    actions = replay(probe.trace.action[:, some])
    probe.run(actions, tasks=probe.tasks[some], env=env, rng=probe.rng.child("other"), steps=3)
    return _equal(probe, probe.run(env=env), "a used environment after reset() and a fresh one")


@rule(
    why="batches are cut in any way, on any machine: a trajectory must not depend on other rows",
    fix="compute every row from its own params and from tasks.streams alone",
)
def rows(probe: Probe) -> str:
    """Two of the rows, in another order, give the same trace as among all."""
    count = probe.size[0]
    chosen = torch.tensor([2, 0])
    among = probe.trace.part(slice(probe.brief), chosen)
    alone = probe.run(replay(among.action), tasks=probe.tasks[chosen])
    what = f"rows 2 and 0 alone are not what they are among {count}"
    _require_equal(among, alone, what, rounding=True)
    return f"rows 2 and 0 are the same alone as among {count}"


@rule(
    why="an agent that is evaluated with more lanes must meet the same episodes in the first ones",
    fix="compute every lane from its own entry of tasks.streams(rng, lanes) alone",
)
def lanes(probe: Probe) -> str:
    """Without the last lane, the others give the same trace."""
    few = probe.size[1] - 1
    among = probe.trace.part(slice(probe.brief), lanes=slice(few))
    alone = probe.run(replay(among.action), lanes=few)
    what = f"lanes among {few} are not what they are among {few + 1}"
    _require_equal(among, alone, what, rounding=True)
    return f"lane 0 is the same among {few} as among {few + 1}, and so are the others"


@rule(
    why="lanes that share their randomness are one lane, however many there are",
    fix="draw [N, M] numbers from tasks.streams(rng, lanes), not one for all",
)
def randomness(probe: Probe) -> str:
    """If the seed matters, the lanes of a row differ, and so do rows of the same task."""
    count, width = probe.size
    same = replace(probe.tasks, params=probe.tasks.params[:1].expand(count, -1).clone())
    action = probe.trace.action[:, :1, :1]
    actions = replay(action.expand(-1, count, width, *action.shape[3:]))
    steps = min(probe.brief, 64)

    first = probe.run(actions, tasks=same, steps=steps)
    second = probe.run(actions, tasks=same, steps=steps, rng=probe.rng.child("another"))
    if difference(first, second) is None:
        return "deterministic: the seed changes nothing"

    lanes = difference(first, tree_map(lambda x: x.roll(1, 2), first))
    require(lanes, f"the seed matters, but all {width} lanes of a row are the same")
    rows = difference(first, tree_map(lambda x: x.roll(1, 1), first))
    require(rows, f"the seed matters, but {count} rows of one task are the same")
    return "every row and lane has its own"


@rule(
    why="runs are sent to other processes, and an environment may be saved within an episode",
    fix="keep plain data in family and environment (no lambda, no handle), or define __getstate__",
)
def state(probe: Probe) -> str:
    """Family and environment pickle, and a copy continues like the original."""
    family = pickle.loads(pickle.dumps(probe.family))  # noqa: S301  (just pickled)
    require(family.spec == probe.spec, "a pickled family has another spec")
    middle = probe.brief // 2
    env = family.make(probe.size[1])
    before = probe.run(env=env, steps=middle)

    copy = pickle.loads(pickle.dumps(env))  # noqa: S301  (just pickled)
    actions = replay(probe.trace.action)
    times = range(middle, probe.brief)
    after = run_from(copy, probe.spec, before.step.obs[-1], actions, times)

    what = f"a copy by pickle after {middle} steps continues differently"
    _require_equal(probe.trace.part(slice(middle)), before, what)
    _require_equal(probe.trace.part(slice(middle, probe.brief)), after, what)
    return f"family and environment pickle; a copy after {middle} steps continues as the original"


def _equal(probe: Probe, trace: Trace, what: str) -> str:
    _require_equal(probe.trace.part(slice(probe.brief)), trace, what)
    return f"{what}: {probe.brief} steps are equal"


def _require_equal(
    one: Trace,
    other: Trace,
    what: str,
    *,
    rounding: bool = False,
) -> None:
    """Raises CheckFailed, beginning with `what`, if the two differ."""
    differ = difference(one, other, rounding=rounding)
    require(differ is None, f"{what}: {differ}")
