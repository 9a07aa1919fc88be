"""What every family promises first: it can be built, and its tasks and steps have their shapes.

No rule knows how a family works inside; all look at the traces of a `Probe`.
"""

import itertools
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from metarl.checker import fixes
from metarl.checker.causes import require_repeated
from metarl.checker.probe import MANY, Probe
from metarl.checker.rules import CheckFailed, NotOffered, require, require_array, rule
from metarl.checker.values import require_nowhere, require_same
from metarl.core.errors import MetaRLError, one_line
from metarl.core.family import HasGoalReward
from metarl.core.rng import Rng
from metarl.core.types import SPLITS, Spec, Tasks

_ALL = 5000  # more than a closed family has


# -------------------------------------------------------------------------------------------------
# Spec and tasks


@rule(why="", fix="", gate=True)
def builds(probe: Probe) -> str:
    """It says its Spec; for that, an adapter builds an environment and takes a step."""
    family = probe.family
    try:
        name, _ = probe.spec.name, (family.tasks, family.make)
    except MetaRLError as error:  # names the next step, but for a missing package
        raise CheckFailed(str(error), **_missing_package(error)) from error
    except AttributeError as error:
        fix = "give it spec, tasks and make, as in metarl.core.family.Family"
        raise CheckFailed(one_line(error), fix=fix) from error
    except Exception as error:
        raise CheckFailed(one_line(error), **_missing_package(error)) from error
    return f"{name} has spec, tasks and make"


def _missing_package(error: BaseException) -> dict[str, str]:
    """The suspect and the fix, where a package is not there."""
    for cause in _causes(error):
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            package = cause.name.partition(".")[0]
            fix = f"install the package that holds {package!r}, beside metarl"
            return {"suspect": f"a missing package: there is no module {package!r}", "fix": fix}
    return {}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@rule(
    why="agents, evaluation and hindsight are built from the spec before they meet a task",
    fix=fixes.SPEC,
    gate=True,
)
def spec(probe: Probe) -> str:
    """Complete; its parts fit each other and what the family offers."""
    spec = probe.spec
    require(isinstance(spec, Spec), f"spec is {type(spec).__name__}, no metarl.Spec")
    parts = spec.observation
    narrow = min(parts.values(), default=0) < 1
    goal = spec.goal_width
    achieved = spec.achieved_goal
    named = achieved is not None
    known = set(SPLITS[:3]) <= set(spec.splits) <= set(SPLITS)
    offered = isinstance(probe.family, HasGoalReward)
    part = f"achieved_goal {achieved!r} is no part of observation as wide as the goal, {goal}"
    faults = {
        "the name is empty": not spec.name,
        f"observation {parts} has no part, or one without width": narrow,
        f"action_width is {spec.action_width}": spec.action_width < 1,
        f"horizon is {spec.horizon}": spec.horizon < 1,
        f"task_width is {spec.task_width}": spec.task_width < 1,
        f"goal_width {goal} is not from 0 to task_width": not 0 <= goal <= spec.task_width,
        f"splits {spec.splits} are not {SPLITS}, with or without ood": not known,
        part: named and parts.get(str(achieved)) != goal,
        "achieved_goal in the spec and goal_reward: one without the other": named != offered,
    }
    found = [fault for fault, present in faults.items() if present]
    require(not found, "; ".join(found))
    mask = f"; mask {spec.action_mask}" if spec.action_mask else ""
    metrics = "".join(f"; metric {name}" for name in spec.metrics)
    row = f"row [{spec.task_width}]"
    shape = f"observation {spec.observation_words}; action {spec.action_words}{mask}"
    return f"{shape}; horizon {spec.horizon}; {row}{metrics}"


@rule(
    why="evaluation compares agents on the same tasks; every (index, copy) has a random stream",
    fix=fixes.TASKS,
    gate=True,
)
def tasks(probe: Probe) -> str:
    """Rows of the right shape, the same in every call; more rows begin with the same ones."""
    draw = probe.family.tasks
    for split in probe.spec.splits:
        many = draw(split, 9, probe.rng)
        kind = type(many).__name__
        require(isinstance(many, Tasks), f"tasks({split!r}, …) gives {kind}, no metarl.Tasks")
        shape = (9, probe.spec.task_width)
        require_array(f"params of 9 {split} tasks", many.params, shape, torch.float32)
        require_array(f"index of 9 {split} tasks", many.index, (9,), torch.int64)
        if many.copy is not None:
            require_array(f"copy of 9 {split} tasks", many.copy, (9,), torch.int64)
        require(many.split == split, f"tasks({split!r}, …) says that its split is {many.split!r}")

        run = partial(_drawn, probe, split)
        twice = f"asking twice for 9 {split} tasks gives other rows"
        require_repeated(_content(many), run(), twice, run, probe.family)
        few = _content(draw(split, 4, probe.rng))
        require_same(_content(many[:4]), few, f"the first 4 of 9 {split} tasks are not those of 4")
        streams = _content(draw(split, 200, probe.rng))["(index, copy)"]
        unique = len(streams.unique()) == 200
        require(unique, f"(index, copy) stands twice among 200 {split} tasks")
    return f"rows of {', '.join(probe.spec.splits)}"


@rule(
    why="rows without any difference are one task, and there is nothing to adapt to",
    fix=fixes.VARIETY,
)
def variety(probe: Probe) -> str:
    """Not all rows are the same, unless the spec says `closed`: there may be but one task."""
    one = probe.one_task
    require(probe.spec.closed or not one, f"all {MANY} rows of train are the same")
    return NotOffered("there is but one task, which closed allows") if one else "rows differ"


@rule(
    why="a score on test tasks that were trained on does not measure generalization",
    fix=fixes.SPLITS,
    rests=("variety",),
)
def splits(probe: Probe) -> str:
    """No row in two splits, or all rows in every split if the spec says `closed`."""
    closed = probe.spec.closed
    count = _ALL if closed else MANY
    rows = {}
    for split in probe.spec.splits:
        params = probe.family.tasks(split, count, probe.rng).params
        rows[split] = set(map(tuple, params.tolist()))

    for one, other in itertools.combinations(rows, 2):
        odd = rows[one] ^ rows[other] if closed else rows[one] & rows[other]
        place = "one only, and the spec says closed" if closed else "both"
        require(not odd, f"{len(odd)} rows of {one} and {other} are in {place}")
    sizes = ", ".join(f"{split} {len(found)}" for split, found in rows.items())
    kind = "closed: the same in all" if closed else "none in two"
    return f"different rows among {count}: {sizes}; {kind}"


def _drawn(probe: Probe, split: str) -> dict[str, Tensor]:
    return _content(probe.family.tasks(split, 9, probe.rng))


def _content(tasks: Tasks) -> dict[str, Tensor]:
    """Rows and, in place of (index, copy), the keys [N, 1] of the random streams made from it."""
    return {"params": tasks.params, "(index, copy)": tasks.streams(Rng(0), lanes=1).keys}


# -------------------------------------------------------------------------------------------------
# Steps


@rule(
    why="the rollout is allocated from the first step, and one NaN corrupts an agent for good",
    fix=fixes.STEPS,
    gate=True,
)
def steps(probe: Probe) -> str:
    """Shapes, types, finite numbers, one reason to end, and no later change of returned arrays."""
    trace = probe.trace
    step = trace.step
    numbers = {"obs": trace.obs, "next_obs": step.next_obs, "reward": step.reward}
    numbers |= {f"metric {name}": x for name, x in step.metrics.items()}
    for name, x in numbers.items():
        require_nowhere(~x.isfinite(), f"{name} is not finite")
    require_nowhere(step.terminated & step.truncated, "terminated and truncated at once")
    require(trace.changed is None, f"returned arrays are changed in place later: {trace.changed}")
    rows, lanes = probe.size
    reduced = f"; {probe.reduced}" if probe.reduced else ""
    return f"{len(trace.action)} steps of {rows} rows × {lanes} lanes with random actions{reduced}"
