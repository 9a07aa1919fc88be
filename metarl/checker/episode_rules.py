"""What every family promises of the ends of its episodes.

Rules like those of `metarl.checker.task_rules`.
"""

import torch

from metarl.checker import fixes
from metarl.checker.probe import Probe
from metarl.checker.rules import CheckFailed, Skipped, rule
from metarl.checker.values import IMPROBABLE, require_nowhere
from metarl.core.rollout import gather_times
from metarl.core.types import append_axes


@rule(
    why="values are bootstrapped from next_obs, the agent acts on obs: both are one state",
    fix=fixes.CONTINUITY,
)
def continuity(probe: Probe) -> str:
    """Within an episode, the next observation that is acted on is the successor."""
    step = probe.trace.step
    torn = (step.obs != step.next_obs).any(-1) & ~step.done
    require_nowhere(torn, "no episode ended, but obs is not next_obs")
    return "obs is next_obs wherever no episode ended"


@rule(
    why="the value after truncation is bootstrapped from next_obs, never from another episode",
    fix=fixes.SUCCESSOR,
    rests=("seed",),
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
        if same.all() and usual ** len(same) < IMPROBABLE:
            raise CheckFailed(f"next_obs is the same as obs at all {len(same)} {name} ends")
    if not step.done.any():
        return Skipped(f"no episode ended within {probe.steps} steps")
    if usual == 1:
        return Skipped("nothing to compare: all observations of an episode are its first one")
    return f"{int(step.done.sum())} ends: next_obs is not what the next episode begins with"


@rule(
    why="a step that only resets teaches an agent that its action had neither effect nor reward",
    fix=fixes.AUTORESET,
    rests=("successor",),
)
def autoreset(probe: Probe) -> str:
    """The step after an end is not always idle (reward 0, no movement), unless first steps are."""
    step = probe.trace.step
    idle = (step.reward == 0) & (step.next_obs == probe.trace.obs).all(-1)
    after = idle[1:][step.done[:-1]]
    count = len(after)
    if after.all() and float(idle[0].float().mean()) ** count < IMPROBABLE:
        raise CheckFailed(f"after all {count} ends a step followed with reward 0 and no movement")
    if not count:
        return Skipped(f"no step followed an end within {probe.steps} steps")
    return f"{count} episodes began in the step that ended one"


@rule(
    why="memory, evaluation and baselines rely on episodes of at most `horizon` steps",
    fix=fixes.HORIZON,
    rests=("seed", "successor", "autoreset"),
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
        return Skipped(f"no episode ended within {probe.steps} steps, and none had to")
    return f"{terminated} episodes terminated, {truncated} truncated after {longest} steps"
