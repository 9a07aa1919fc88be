"""What every family promises of its tasks: they matter, are hidden, and persist through a trial.

Rules like those of `metarl.checker.task_rules`.
"""

from functools import partial

import torch
from torch import Tensor

from metarl.checker import fixes
from metarl.checker.leaks import Glimpses
from metarl.checker.probe import Probe
from metarl.checker.rules import CheckFailed, NotOffered, Skipped, Warned, require, rule
from metarl.checker.still import Still
from metarl.checker.values import IMPROBABLE, difference
from metarl.core.rollout import gather_times
from metarl.core.types import tree_map

_FEW = 4  # lanes in which the task matters: too few to test whether it persists


@rule(
    why="where rows make no difference, there is nothing to adapt to",
    fix=fixes.EFFECT,
    rests=("variety", "seed", "reset"),
)
def effect(probe: Probe) -> str:
    """With tasks exchanged, same randomness and actions, a reward, a movement or an end differs.

    If random actions meet no difference, a family may still have one, where its rewards are sparse.
    """
    if probe.one_task:
        return NotOffered("there is but one task")
    if torch.equal(probe.tasks.params, probe.exchanged.params):
        return Skipped(f"the {len(probe.tasks)} rows that were tried are the same")
    for size in (probe, probe.wide):
        changed = [name for name, differs in size.effect.items() if differs.any()]
        if changed:
            return f"another row changes {', '.join(changed)}"
    rows, lanes = size.size
    tried = f"{size.steps} steps of {rows} rows × {lanes} lanes"
    return Warned(f"in {tried} with random actions nothing depends on the row")


@rule(
    why="a hidden task must be inferred; an agent that reads it from observations does not adapt",
    fix=fixes.HIDDEN,
    rests=("variety",),
)
def hidden(probe: Probe) -> str:
    """No linear map of observations gives an entry of the goal, or else the whole row.

    One that starts an episode must tell nothing at all. Later ones depend on the task as soon as
    dynamics do, and may tell it: that is what adaptation is made of. Then the map depends on how
    many steps were taken, as the speed of a fall does; so only a map that is exact, whatever the
    actions were, at ages from one to at least its double is a leak.

    The whole row counts for families without a goal: a start may depend on the task, as a taxi's
    does, if something is left to infer.
    """
    if probe.one_task:
        return NotOffered("there is but one task")
    seen = Glimpses.of(probe)
    secret = probe.spec.goal_width or probe.spec.task_width
    places = {"the first observation": (0, 0, 0.99)}
    for first, last in seen.spans():
        places[f"every observation from step {first} on"] = (first, last, 0.999)
    for place, (first, last, enough) in places.items():
        told = seen.told(first, last)
        known = [entry for entry, share in told.items() if share > enough and entry < secret]
        needed = 1 if probe.spec.goal_width else len(told)
        if known and len(known) >= needed:
            raise CheckFailed(f"{place} tells entries {known} of the task row")
    what = "an entry of the goal" if probe.spec.goal_width else "the task row"
    return f"no linear map of one of the first {len(seen.obs)} observations tells {what}"


@rule(
    why="an agent adapts over the episodes of a trial: the task must persist, and nothing else may",
    fix=fixes.PERSISTENCE,
    rests=("seed", "reset", "rows", "lanes", "successor", "autoreset", "horizon"),
)
def persistence(probe: Probe) -> str:
    """With the same randomness and actions in every episode, all episodes are the same.

    Randomness that is made of seeds cannot be repeated. There, rows with exchanged tasks must
    differ in later episodes, too.
    """
    if int(_differs(probe).any(0).sum()) < _FEW:
        probe = probe.wide
    still = Still(probe.rng)
    trace = probe.run(probe.random(alike=True), rng=still, steps=probe.steps)
    if not trace.episode.any():
        return Skipped(f"no second episode within {probe.steps} steps")

    first = tree_map(partial(gather_times, time=trace.age), trace)  # the first episode, repeated
    differs = difference(first.seen, trace.seen)
    if differs and still.escaped:
        return _task_persists(probe)
    same = "with the same randomness and actions"
    require(not differs, f"{same}, a later episode is not the first one over again: {differs}")
    return f"{int(trace.step.done.sum())} ends: {same}, the next episode was the same"


def _differs(probe: Probe) -> Tensor:
    """[T, N, M] bool: something depends on the task."""
    return torch.stack(list(probe.effect.values())).any(0)


def _task_persists(probe: Probe) -> str:
    """Whether the task matters in later episodes, as it does in first ones.

    Only in lanes whose first episode ends at the same step with either task, so that the randomness
    that follows is equal. Of first episodes, only as many steps as there are of later ones.
    """
    differs = _differs(probe)
    first = probe.trace.episode == 0
    together = (first == (probe.other.episode == 0)).all(0)  # [N, M]
    as_long = first & (probe.trace.age < (~first).sum(0))
    sooner = (differs & as_long).any(0)[together]
    later = (differs & ~first).any(0)[together]

    observed = f"the task matters in {int(sooner.sum())} of {len(sooner)} first episodes"
    if later.any():
        return f"{observed}, later in {int(later.sum())}"
    share = float(sooner.float().mean())  # if there are none, NaN ** 0 is 1
    require((1 - share) ** len(sooner) >= IMPROBABLE, f"{observed}, and never later")
    return Skipped(f"{observed}, later in 0: too rarely to be sure that it persists")
