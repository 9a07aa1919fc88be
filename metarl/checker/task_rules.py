"""What every family promises of its tasks and episodes: checks, each with its reason and a fix.

No rule knows how a family works inside; all look at the traces of a `Probe`.
"""

import itertools
from functools import partial

import torch
from torch import Tensor

from metarl.checker.probe import Probe, Still
from metarl.checker.rules import CheckFailed, require, require_array, rule
from metarl.checker.values import difference, require_nowhere, require_same
from metarl.core.family import HasGoalReward
from metarl.core.rng import Rng
from metarl.core.rollout import gather_times
from metarl.core.types import SPLITS, Spec, Tasks, append_axes, tree_map

_MANY = 500  # rows of a split: enough to find some that are in another, too
_ALL = 5000  # more than a closed family has
_IMPROBABLE = 1e-3  # what is less probable than this is not put down to randomness
_FEW = 4  # lanes in which the task matters: too few to test whether it persists


# -------------------------------------------------------------------------------------------------
# Spec and tasks


@rule(
    why="agents, evaluation and hindsight are built from the spec before they meet a task",
    fix="correct the Spec of the family",
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
    observed = ", ".join(f"{name} [{width}]" for name, width in parts.items())
    kind = "choices" if spec.discrete else "entries"
    action = f"{spec.action_width} action {kind}"
    metrics = "".join(f"; metric {name}" for name in spec.metrics)
    row = f"row [{spec.task_width}]"
    return f"observation {observed}; {action}; horizon {spec.horizon}; {row}{metrics}"


@rule(
    why="evaluation compares agents on the same tasks; every (index, copy) has a random stream",
    fix="make row i from rng.child(split).streams(torch.arange(count)), or return "
    "Tasks(all rows, …).draw(count, …)",
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

        again = _content(draw(split, 9, probe.rng))
        require_same(_content(many), again, f"asking twice for 9 {split} tasks gives other rows")
        few = _content(draw(split, 4, probe.rng))
        require_same(_content(many[:4]), few, f"the first 4 of 9 {split} tasks are not those of 4")
        streams = _content(draw(split, 200, probe.rng))["(index, copy)"]
        unique = len(streams.unique()) == 200
        require(unique, f"(index, copy) stands twice among 200 {split} tasks")
    return f"rows of {', '.join(probe.spec.splits)}"


@rule(
    why="a score on test tasks that were trained on does not measure generalization",
    fix="draw each split from rng.child(split), or set closed=True in the Spec and let every split "
    "hold all tasks",
)
def splits(probe: Probe) -> str:
    """No row in two splits, or all rows in every split if the spec says `closed`."""
    closed = probe.spec.closed
    count = _ALL if closed else _MANY
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


def _content(tasks: Tasks) -> dict[str, Tensor]:
    """Rows and, in place of (index, copy), the keys [N, 1] of the random streams made from it."""
    return {"params": tasks.params, "(index, copy)": tasks.streams(Rng(0), lanes=1).keys}


# -------------------------------------------------------------------------------------------------
# Steps and episodes


@rule(
    why="the rollout is allocated from the first step, and one NaN corrupts an agent for good",
    fix="return new float32 and bool tensors of shape [N, M, …] in every step, as in metarl.Step, "
    "and the metrics that the Spec names",
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
    return f"{len(trace.action)} steps of {rows} rows × {lanes} lanes with random actions"


@rule(
    why="values are bootstrapped from next_obs, the agent acts on obs: both are one state",
    fix="return the same observation as obs and next_obs, except at the end of an episode",
)
def continuity(probe: Probe) -> str:
    """Within an episode, the next observation that is acted on is the successor."""
    step = probe.trace.step
    torn = (step.obs != step.next_obs).any(-1) & ~step.done
    require_nowhere(torn, "no episode ended, but obs is not next_obs")
    return "obs is next_obs wherever no episode ended"


@rule(
    why="memory, evaluation and baselines rely on episodes of at most `horizon` steps",
    fix="count steps in every lane, from 0 in every episode, and truncate at spec.horizon only",
)
def horizon(probe: Probe) -> str:
    """No episode is longer than the horizon, and none is truncated before it."""
    trace = probe.trace
    step = trace.step
    longest = probe.spec.horizon
    length = trace.age + 1
    require_nowhere(length > longest, f"an episode goes on after {longest} steps")
    for early in length[step.truncated & (length < longest)][:1].tolist():
        raise CheckFailed(f"truncated after {early} steps, but the spec's horizon is {longest}")
    terminated = int(step.terminated.sum())
    truncated = int(step.truncated.sum())
    if not terminated + truncated:
        return f"no end of an episode within {probe.steps} steps; none was due"
    return f"{terminated} episodes terminated, {truncated} truncated after {longest} steps"


@rule(
    why="the value after truncation is bootstrapped from next_obs, never from another episode",
    fix="compute next_obs first; then start the next episode, whose first observation is obs",
)
def successor(probe: Probe) -> str:
    """At an end, next_obs is not always the next episode's first observation.

    Families whose observations within an episode are mostly the first one pass.
    """
    step = probe.trace.step
    time = append_axes(torch.arange(probe.steps), 3)
    start = gather_times(probe.trace.obs, time - probe.trace.age)  # [T, N, M, O]
    within = (step.next_obs == start).all(-1)[~step.done]
    usual = float(within.float().mean()) if len(within) else 1.0
    for name, ended in (("terminated", step.terminated), ("truncated", step.truncated)):
        same = (step.next_obs == step.obs).all(-1)[ended]
        if same.all() and usual ** len(same) < _IMPROBABLE:
            raise CheckFailed(f"next_obs is the same as obs at all {len(same)} {name} ends")
    if usual == 1:
        return "nothing to compare: every observation within an episode is its first one"
    return f"{int(step.done.sum())} ends: next_obs is not what the next episode begins with"


@rule(
    why="a step that only resets teaches an agent that its action had neither effect nor reward",
    fix="start the next episode in the step that ends one (Gymnasium's vectors: autoreset_mode "
    "DISABLED, and reset)",
)
def autoreset(probe: Probe) -> str:
    """The step after an end is not always idle (reward 0, no movement), unless first steps are."""
    step = probe.trace.step
    idle = (step.reward == 0) & (step.next_obs == probe.trace.obs).all(-1)
    after = idle[1:][step.done[:-1]]
    count = len(after)
    if after.all() and float(idle[0].float().mean()) ** count < _IMPROBABLE:
        raise CheckFailed(f"after all {count} ends a step followed with reward 0 and no movement")
    return f"{count} episodes began in the step that ended one"


# -------------------------------------------------------------------------------------------------
# Tasks


@rule(
    why="rows without any difference are one task, and there is nothing to adapt to",
    fix="let reward or dynamics depend on tasks.params, in a way that random actions can reach",
)
def effect(probe: Probe) -> str:
    """With tasks exchanged, same randomness and actions, a reward, a movement or an end differs."""
    if torch.equal(probe.tasks.params, probe.exchanged.params):
        require(probe.spec.closed, f"all {len(probe.tasks)} rows are the same")
        return "there is but one task"
    for size in (probe, probe.wide()):
        changed = [name for name, differs in size.effect.items() if differs.any()]
        if changed:
            return f"another row changes {', '.join(changed)}"
    rows, lanes = size.size
    tried = f"{size.steps} steps of {rows} rows × {lanes} lanes"
    raise CheckFailed(f"in {tried} nothing depends on the row")


@rule(
    why="a hidden task must be inferred; an agent that reads it from observations does not adapt",
    fix="remove the goal from the observation; task_input: goal or row shows it to an agent",
)
def hidden(probe: Probe) -> str:
    """No linear map of the first observation gives an entry of the goal, or else the whole row.

    The whole row counts for families without a goal: a start may depend on the task, as a taxi's
    does, if something is left to infer.
    """
    if torch.equal(_starts(probe, probe.tasks), _starts(probe, probe.exchanged)):
        return "the first observation is the same for other tasks"
    goal = probe.spec.goal_width
    explained = _explained(probe)
    secret = goal or probe.spec.task_width
    known = [entry for entry, share in explained.items() if share > 0.99 and entry < secret]
    needed = 1 if goal else len(explained)
    if known and len(known) >= needed:
        raise CheckFailed(f"the first observation tells entries {known} of the task row")
    entries = f"{known or 'none'} of {sorted(explained)}"
    return f"the start depends on the task, but tells entries {entries}"


def _starts(probe: Probe, tasks: Tasks) -> Tensor:
    """[N, O]: the first observations; many tasks take turns in one environment."""
    env = probe.family.make(1)
    turns = torch.arange(len(tasks)).split(32)
    return torch.cat([env.reset(tasks[rows], probe.rng)[:, 0].clone() for rows in turns])


def _explained(probe: Probe) -> dict[int, float]:
    """Entry of the row that varies → R² of a linear map from the first observation.

    The map is fitted on half of many rows and tested on the others; for angles, sine and cosine are
    predicted as well.
    """
    tasks = probe.family.tasks("train", 4 * probe.spec.obs_width + 200, probe.rng)
    obs = _starts(probe, tasks).double()
    features = torch.cat([obs, torch.ones_like(obs[:, :1])], dim=1)
    row = tasks.params.double()
    target = torch.cat([row, row.sin(), row.cos()], dim=1)
    fit = torch.linalg.lstsq(features[::2], target[::2], driver="gelsd").solution
    error = (features[1::2] @ fit - target[1::2]).square().mean(0)
    r_squared = 1 - error / target[1::2].var(0).clamp(min=1e-12)
    straight, sine, cosine = r_squared.view(3, -1)
    shares = torch.maximum(straight, torch.minimum(sine, cosine))
    varies = (row != row[0]).any(0).nonzero().flatten()
    return dict(zip(varies.tolist(), shares[varies].tolist(), strict=True))


@rule(
    why="an agent adapts over the episodes of a trial: the task must persist, and nothing else may",
    fix="keep the tasks of reset() until the next reset(), reset everything else at the end of an "
    "episode, and draw all random numbers from tasks.streams(rng, lanes)",
)
def persistence(probe: Probe) -> str:
    """With the same randomness and actions in every episode, all episodes are the same.

    Randomness that is made of seeds cannot be repeated. There, rows with exchanged tasks must
    differ in later episodes, too.
    """
    if int(_differs(probe).any(0).sum()) < _FEW:
        probe = probe.wide()
    still = Still(probe.rng)
    trace = probe.run(probe.random(alike=True), rng=still, steps=probe.steps)
    if not trace.episode.any():
        return f"no second episode within {probe.steps} steps"

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
    require((1 - share) ** len(sooner) >= _IMPROBABLE, f"{observed}, and never later")
    return f"{observed}, later in 0: too rarely to be sure that it persists"
