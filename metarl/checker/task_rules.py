"""What every family promises of its tasks and episodes, rule by rule: how it is seen, why it matters, how to mend it.

No rule knows how a family works inside; all look at what a `Probe` lives through.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from metarl.checker.probe import Probe, Still, difference, live, random
from metarl.checker.rules import CheckFailed, require, rule
from metarl.core.types import SPLITS, Spec, Tasks, replace, tree_map

_MANY = 500  # rows of a split: enough to see whether another has some of them
_ALL = 5000  # more than a closed family has
_IMPROBABLE = 1e-3  # what chance brings about less often than this is not laid to chance
_FEW = 4  # lanes that meet the task are too few to see that it persists


# ---------------------------------------------------------------------------------------------------------------------
# What is said


@rule(
    why="agents, evaluation and hindsight are built from the spec before they see a task",
    fix="correct the Spec of the family",
    gate=True,
)
def spec(probe: Probe) -> str:
    """Complete, and its parts fit each other and what the family offers."""
    said, offered = probe.spec, hasattr(probe.family, "goal_reward")
    require(isinstance(said, Spec), f"spec is {type(said).__name__}, no metarl.Spec")
    parts, goal, achieved = said.observation, said.goal_width, said.achieved_goal
    promises = {
        "the name is empty": bool(said.name),
        f"observation {parts} has no part, or one without width": min(parts.values(), default=0)
        > 0,
        f"action_width is {said.action_width}": said.action_width >= 1,
        f"horizon is {said.horizon}": said.horizon >= 1,
        f"task_width is {said.task_width}": said.task_width >= 1,
        f"goal_width {goal} is not from 0 to task_width {said.task_width}": 0
        <= goal
        <= said.task_width,
        f"splits {said.splits} are not among {SPLITS}": set(said.splits) <= set(SPLITS),
        f"splits {said.splits} lack one of {SPLITS[:3]}": set(said.splits) >= set(SPLITS[:3]),
        f"achieved_goal {achieved!r} is no part of the observation": achieved is None
        or achieved in parts,
        f"achieved_goal {achieved!r} is not as wide as the goal, {goal}": parts.get(
            str(achieved), goal
        )
        == goal,
        "achieved_goal without a method goal_reward": achieved is None or offered,
        "goal_reward without achieved_goal in the spec": achieved is not None or not offered,
    }
    broken = [seen for seen, kept in promises.items() if not kept]
    require(not broken, "; ".join(broken))
    observed = ", ".join(f"{name} [{width}]" for name, width in parts.items())
    kind = "choices" if said.discrete else "entries"
    return f"observation {observed}; {said.action_width} action {kind}; horizon {said.horizon}; row [{said.task_width}]"


@rule(
    why="evaluation compares agents on the same tasks, and every (index, copy) has a stream of luck of its own",
    fix="make row i from rng.child(split).streams(torch.arange(count)), or return Tasks(all rows, …).draw(count, …)",
    gate=True,
)
def tasks(probe: Probe) -> str:
    """Rows of the right shape, the same whenever asked for, and the first ones however many are asked for."""
    width = probe.spec.task_width
    for split in probe.spec.splits:
        many, few = (probe.family.tasks(split, count, probe.rng) for count in (9, 4))
        require(
            isinstance(many, Tasks),
            f"tasks({split!r}, …) gives {type(many).__name__}, no metarl.Tasks",
        )
        for name, x, shape, dtype in (
            ("params", many.params, (9, width), torch.float32),
            ("index", many.index, (9,), torch.int64),
            ("copy", many.index if many.copy is None else many.copy, (9,), torch.int64),
        ):
            seen = f"{x.dtype} of shape {list(x.shape)}, not {dtype} of shape {list(shape)}"
            require(x.shape == shape and x.dtype == dtype, f"{name} of 9 {split} tasks is {seen}")
        require(bool(many.params.isfinite().all()), f"a row of split {split} is not finite")
        require(many.split == split, f"tasks({split!r}, …) says that its split is {many.split!r}")
        require(
            _same(many, probe.family.tasks(split, 9, probe.rng)),
            f"asking twice for 9 {split} tasks gives other rows",
        )
        require(
            _same(many[:4], few), f"the first 4 of 9 {split} tasks are not those of asking for 4"
        )
        identity = _identity(probe.family.tasks(split, 200, probe.rng))
        require(
            len(identity.unique(dim=0)) == 200,
            f"(index, copy) stands twice among 200 {split} tasks",
        )
    return f"rows of {', '.join(probe.spec.splits)}"


@rule(
    why="a score on test tasks that were trained on says nothing of generalisation",
    fix="draw each split from rng.child(split), or set closed=True in the Spec and let every split hold all tasks",
)
def splits(probe: Probe) -> str:
    """No row in two splits, or all rows in every split where the spec says `closed`."""
    count = _ALL if probe.spec.closed else _MANY
    drawn = {
        split: probe.family.tasks(split, count, probe.rng).params for split in probe.spec.splits
    }
    rows = {split: {tuple(row) for row in params.tolist()} for split, params in drawn.items()}
    for (one, a), (other, b) in itertools.combinations(rows.items(), 2):
        if probe.spec.closed:
            require(
                a == b,
                f"closed, but {len(a ^ b)} rows of {one} and {other} are in one of them alone",
            )
        else:
            require(not a & b, f"{len(a & b)} rows are both in {one} and in {other}")
    sizes = ", ".join(f"{split} {len(found)}" for split, found in rows.items())
    return f"different rows among {count}: {sizes}; {'closed: the same in all' if probe.spec.closed else 'none in two'}"


def _same(a: Tasks, b: Tasks) -> bool:
    return torch.equal(a.params, b.params) and torch.equal(_identity(a), _identity(b))


def _identity(tasks: Tasks) -> Tensor:
    """[N, 2]: index and copy."""
    return torch.stack(
        [tasks.index, torch.zeros_like(tasks.index) if tasks.copy is None else tasks.copy], dim=1
    )


# ---------------------------------------------------------------------------------------------------------------------
# Steps and episodes


@rule(
    why="every array of a rollout is allocated from the first step, and a NaN spoils an agent for good",
    fix="return float32 and bool tensors of shape [N, M, …] as in metarl.Step, made anew in every step",
    gate=True,
)
def steps(probe: Probe) -> str:
    """Shapes and types, finite numbers, one reason to end, and nothing changed after it was handed out."""
    trace = probe.trace
    step = trace.step
    for name, x in (
        ("the first observation", trace.first),
        ("next_obs", step.next_obs),
        ("reward", step.reward),
    ):
        require(bool(x.isfinite().all()), f"{name} is not finite")
    both = (step.terminated & step.truncated).flatten(1).any(1)
    require(
        not both.any(),
        f"terminated and truncated at once, first at step {int(both.long().argmax())}",
    )
    require(not trace.changed, f"{trace.changed} was changed in place after it was handed out")
    rows, lanes = probe.size
    return f"{len(trace.action)} steps of {rows} rows × {lanes} lanes with random actions"


@rule(
    why="values are bootstrapped from next_obs and the agent acts on obs: within an episode they are one state",
    fix="return the same observation as obs and next_obs, except where an episode ended",
)
def continuity(probe: Probe) -> str:
    """Where no episode ended, what is acted on next is the successor."""
    step = probe.trace.step
    torn = ((step.obs != step.next_obs).any(-1) & ~step.done).nonzero()
    if len(torn):
        time, row, lane = torn[0].tolist()
        raise CheckFailed(
            f"obs is not next_obs at step {time}, row {row}, lane {lane}, where no episode ended"
        )
    return "obs is next_obs wherever no episode ended"


@rule(
    why="memory, evaluation and the time features of baselines are made for episodes of at most `horizon` steps",
    fix="count steps in every lane, truncate at spec.horizon and nowhere else, and begin to count anew at every end",
)
def horizon(probe: Probe) -> str:
    """No episode outlives the horizon, and no time limit comes before it."""
    trace, longest = probe.trace, probe.spec.horizon
    length = trace.age + 1
    late = (length > longest).nonzero()
    if len(late):
        time, row, lane = late[0].tolist()
        which = int(trace.episode[time, row, lane]) + 1
        raise CheckFailed(
            f"episode {which} of row {row}, lane {lane} goes on after {longest} steps"
        )
    early = length[trace.step.truncated & (length < longest)]
    if len(early):
        raise CheckFailed(
            f"truncated after {int(early[0])} steps, but the spec's horizon is {longest}"
        )
    terminated, truncated = int(trace.step.terminated.sum()), int(trace.step.truncated.sum())
    if not terminated + truncated:
        return f"no end of an episode within {probe.steps} steps; none was due"
    return f"{terminated} episodes terminated, {truncated} truncated after {longest} steps"


@rule(
    why="the value of the last state of a truncated episode is bootstrapped from next_obs, never from another episode",
    fix="compute next_obs first; then begin the next episode where one ended, and return its first observation as obs",
)
def successor(probe: Probe) -> str:
    """At no kind of end is next_obs always what the next episode begins with, though within episodes it seldom is."""
    trace = probe.trace
    step, start = trace.step, trace.obs.clone()
    for time in range(1, len(start)):
        start[time] = torch.where((trace.age[time] > 0).unsqueeze(-1), start[time - 1], start[time])
    within = (step.next_obs == start).all(-1)[~step.done]
    usual = float(within.float().mean()) if len(within) else 1.0
    for name, ended in (("terminated", step.terminated), ("truncated", step.truncated)):
        alike = (step.next_obs == step.obs).all(-1)[ended]
        if len(alike) and alike.all() and usual ** len(alike) < _IMPROBABLE:
            raise CheckFailed(f"next_obs is the same as obs at all {len(alike)} {name} ends")
    if usual == 1:
        return "nothing to compare: every observation within an episode is its first one"
    return f"{int(step.done.sum())} ends: next_obs is not what the next episode begins with"


@rule(
    why="a step that only resets spends an action, pays nothing and teaches the agent that both are its doing",
    fix="begin the next episode in the very step that ends one (Gymnasium's vectors: autoreset_mode DISABLED, and reset)",
)
def autoreset(probe: Probe) -> str:
    """The step after an end is not always idle, unless first steps are: reward 0 and nothing moved."""
    trace = probe.trace
    idle = (trace.step.reward == 0) & (trace.step.next_obs == trace.obs).all(-1)
    after = idle[1:][trace.step.done[:-1]]
    if len(after) and after.all() and float(idle[0].float().mean()) ** len(after) < _IMPROBABLE:
        raise CheckFailed(
            f"after all {len(after)} ends of an episode a step followed that paid 0 and moved nothing"
        )
    return f"{len(after)} episodes began in the step that ended one"


# ---------------------------------------------------------------------------------------------------------------------
# Tasks


@rule(
    why="rows that are played alike are one task, and there is nothing to adapt to",
    fix="let reward or dynamics depend on tasks.params; random actions must be able to meet the difference",
)
def effect(probe: Probe) -> str:
    """With tasks exchanged, all luck and actions being equal, something is paid, moves or ends differently."""
    if torch.equal(probe.tasks.params, probe.exchanged.params):
        require(probe.spec.closed, f"all {len(probe.tasks)} rows are the same")
        return "there is but one task"
    for size in (probe, probe.wide()):
        seen = [name for name, apart in size.effect.items() if apart.any()]
        if seen:
            return f"another row changes {', '.join(seen)}"
    raise CheckFailed(
        f"in {size.steps} steps of {len(size.tasks)} rows × {size.size[1]} lanes nothing depends on the row"
    )


@rule(
    why="a hidden task must be found out; an agent that reads it from the observation does not adapt",
    fix="take the goal out of the observation; who wants it shown sets task_input: goal or row",
)
def hidden(probe: Probe) -> str:
    """No linear map of the first observation gives an entry of the goal, or, where there is none, the whole row.

    A start may depend on the task, as a taxi's does, as long as something of the task remains to be found out.
    """
    if torch.equal(_first(probe, probe.tasks), _first(probe, probe.exchanged)):
        return "the first observation is the same for other tasks"
    goal = probe.spec.goal_width
    known = _explained(probe)
    told = [entry for entry, share in known.items() if share > 0.99 and (not goal or entry < goal)]
    needed = 1 if goal else len(known)
    if told and len(told) >= needed:
        raise CheckFailed(f"the first observation tells entries {told} of the task row")
    return f"the start depends on the task, but tells entries {told or 'none'} of {sorted(known)}"


def _first(probe: Probe, tasks: Tasks) -> Tensor:
    return probe.family.make(probe.size[1]).reset(tasks, probe.rng).clone()


def _explained(probe: Probe) -> dict[int, float]:
    """Entry of the row that varies → share of its variance that a linear map from the first observation explains.

    The map is fitted on half of many rows and tried on the others; an angle is also tried by its sine and cosine.
    """
    rows = probe.family.tasks("train", 4 * probe.spec.obs_width + 200, probe.rng)
    env = probe.family.make(1)
    few = (
        env.reset(rows[first : first + 32], probe.rng).clone() for first in range(0, len(rows), 32)
    )
    obs = torch.cat(list(few)).squeeze(1).double()
    seen, row = torch.cat([obs, torch.ones_like(obs[:, :1])], dim=1), rows.params.double()

    def share(target: Tensor) -> Tensor:  # [N, P] → [P]
        fit: Tensor = torch.linalg.lstsq(seen[::2], target[::2], driver="gelsd").solution
        wrong = (seen[1::2] @ fit - target[1::2]).square().mean(0)
        return 1 - wrong / target[1::2].var(0).clamp(min=1e-12)

    shares = torch.maximum(share(row), torch.minimum(share(row.sin()), share(row.cos())))
    return {
        entry: float(shares[entry])
        for entry in range(row.shape[1])
        if len(row[:, entry].unique()) > 1
    }


@rule(
    why="an agent adapts over the episodes of a trial: the task must outlive them, and nothing else may",
    fix="keep the tasks of reset() until the next reset(), put all else back at the end of an episode, and draw all luck "
    "from tasks.streams(rng, lanes)",
)
def persistence(probe: Probe) -> str:
    """With luck that stands still and the same actions, every episode is the first one over again.

    Luck made of seeds does not stand still. There, rows with exchanged tasks must differ in later episodes too.
    """
    if int(_apart(probe).any(0).sum()) < _FEW:
        probe = probe.wide()
    (rows, lanes), still = probe.size, Still(probe.rng)
    choose = random(probe.spec, rows, lanes, alike=True)
    lived = live(
        probe.family.make(lanes), probe.spec, probe.tasks, lanes, still, choose, probe.steps
    )
    if not lived.episode.any():
        return f"no second episode within {probe.steps} steps"
    steps, age = replace(lived.step, obs=lived.obs), lived.age
    over_again = tree_map(
        lambda x: x.gather(0, age if x.dim() == 3 else age.unsqueeze(-1).expand_as(x)), steps
    )
    apart = difference(replace(lived, step=over_again), replace(lived, step=steps))
    if apart is not None and still.escaped:
        return _task_outlives_episodes(probe)
    require(
        apart is None,
        f"with the same luck and actions, a later episode is not the first one over again: {apart}",
    )
    return f"{int(lived.step.done.sum())} ends: with the same luck and actions, the next episode was the same"


def _apart(probe: Probe) -> Tensor:
    """[T, N, M] bool: something depends on the task."""
    return torch.stack(list(probe.effect.values())).any(0)


def _task_outlives_episodes(probe: Probe) -> str:
    """Seen in lanes whose first episode ends at the same step with either task, so that the luck to come is equal.

    As many steps as are seen of later episodes must in first episodes have sufficed to see that the task matters.
    """
    apart, (first, other) = (
        _apart(probe),
        (trace.episode == 0 for trace in (probe.trace, probe.other)),
    )
    together = (first == other).all(0)
    as_long = first & (probe.trace.age < (~first).sum(0))
    sooner, later = ((apart & within).any(0)[together] for within in (as_long, ~first))
    chance = (1 - float(sooner.float().mean())) ** len(sooner) if len(sooner) else 1.0
    seen = f"the task matters in {int(sooner.sum())} of {len(sooner)} first episodes"
    require(bool(later.any()) or chance >= _IMPROBABLE, f"{seen}, and never later")
    return f"{seen}, later in {int(later.sum())}{'' if later.any() else ': too rarely to be sure that it persists'}"
