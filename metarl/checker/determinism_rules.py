"""What every family promises of repetition: same seed, same trajectory, whatever else runs.

Rules like those of `metarl.checker.task_rules`.
"""

import pickle
from functools import partial

import torch
from torch import Tensor

from metarl.checker import fixes
from metarl.checker.causes import left_over, require_repeated
from metarl.checker.probe import Probe, replay
from metarl.checker.rules import CheckFailed, Skipped, require, rule
from metarl.checker.values import difference, equal, part
from metarl.core.types import replace, tree_map


@rule(
    why="a result that cannot be repeated cannot be examined, and resuming a run would change it",
    fix=fixes.SEED,
)
def seed(probe: Probe) -> str:
    """A fresh environment with the same tasks, seed and actions gives the same trace."""
    what = "two environments, same seed and actions"
    env = probe.fresh()
    one, other = probe.short().seen, probe.run(env=env).seen

    def again() -> dict[str, Tensor]:
        return probe.run(env=probe.fresh_here()).seen

    require_repeated(one, other, f"{what}: not the same", again, probe.family, env)
    return f"{what}: the same"


@rule(
    why="one environment serves many iterations: what is left over from one leaks into the next",
    fix=fixes.RESET,
    rests=("seed",),
)
def reset(probe: Probe) -> str:
    """An environment that was used with other tasks starts as a fresh one does."""
    env = probe.family.make(probe.size[1])
    some = slice(probe.size[0] // 2)
    actions = replay(probe.trace.action[:, some])
    probe.run(actions, tasks=probe.tasks[some], env=env, rng=probe.rng.child("other"), steps=3)
    what = "a used environment after reset() and a fresh one"
    differs = difference(probe.short().seen, probe.run(env=env).seen)
    if differs is None:
        return f"{what}: the same"
    fresh = probe.fresh()
    for one in (env, fresh):
        one.reset(probe.tasks, probe.rng)
    left = left_over(env, fresh)
    suspect = f"{', '.join(left)}: reset() leaves it as it was" if left else ""
    raise CheckFailed(f"{what}: not the same; {differs}", suspect)


@rule(
    why="batches are cut in any way, on any machine: a trajectory must not depend on other rows",
    fix=fixes.ROWS,
    rests=("seed", "reset"),
)
def rows(probe: Probe) -> str:
    """Two of the rows, in another order, give the same trace as among all."""
    count = probe.size[0]
    chosen = torch.tensor([2, 0])
    among = probe.short(chosen)
    alone = probe.run(replay(among.action), tasks=probe.tasks[chosen])
    return equal(among.seen, alone.seen, f"rows 2 and 0 among {count} and alone", rounding=True)


@rule(
    why="an agent that is evaluated with more lanes must meet the same episodes in the first ones",
    fix=fixes.LANES,
    rests=("seed", "reset", "rows"),
)
def lanes(probe: Probe) -> str:
    """Without the last lane, the others give the same trace."""
    few = probe.size[1] - 1
    among = probe.short(slice(None), slice(few))
    alone = probe.run(replay(among.action), lanes=few)
    return equal(
        among.seen, alone.seen, f"{few} of {few + 1} lanes, among all and alone", rounding=True
    )


@rule(
    why="lanes that share their randomness are one lane, however many there are",
    fix=fixes.RANDOMNESS,
    rests=("seed", "reset", "rows", "lanes"),
)
def randomness(probe: Probe) -> str:
    """If the seed matters, the lanes of a row differ, and so do rows of the same task."""
    if probe.spec.action_mask is not None:
        return Skipped("an action that is valid in one lane may not be so in another")
    count, width = probe.size
    same = replace(probe.tasks, params=probe.tasks.params[:1].repeat(count, 1))
    action = probe.trace.action[:, :1, :1].expand_as(probe.trace.action)
    run = partial(probe.run, replay(action), tasks=same, steps=min(probe.brief, 64))
    first = run()
    if difference(first.seen, run(rng=probe.rng.child("another")).seen) is None:
        return "deterministic: the seed changes nothing"

    for axis, all_of in ((2, f"all {width} lanes of a row"), (1, f"{count} rows of one task")):
        next_one = tree_map(partial(torch.roll, shifts=1, dims=axis), first)
        differs = difference(first.seen, next_one.seen)
        require(differs, f"the seed matters, but {all_of} are the same")
    return "every row and lane has its own"


@rule(
    why="runs are sent to other processes, and an environment may be saved within an episode",
    fix=fixes.STATE,
    rests=("seed", "reset"),
)
def state(probe: Probe) -> str:
    """Family and environment pickle, and a copy continues like the original."""
    family = pickle.loads(pickle.dumps(probe.family))  # noqa: S301  (just pickled)
    require(family.spec == probe.spec, "a pickled family has another spec")
    middle = probe.brief // 2
    env = family.make(probe.size[1])
    before = probe.run(env=env, steps=middle)

    copy = pickle.loads(pickle.dumps(env))  # noqa: S301  (just pickled)
    times = range(middle, probe.brief)
    after = probe.go_on(copy, before.step.obs[-1], replay(probe.trace.action), times)

    equal(part(probe.trace, slice(middle)).seen, before.seen, "a family and its copy by pickle")
    rest = part(probe.trace, slice(middle, probe.brief))
    return equal(rest.seen, after.seen, f"an environment and its copy after {middle} steps")
