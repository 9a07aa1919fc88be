"""What every agent promises of a trial: checks, each with its reason and a fix.

No rule knows how an agent works inside; all look at what it returns, as an `AgentProbe` calls it.
"""

import inspect
import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from metarl.checker.agent_probe import ROWS, AgentProbe, acting
from metarl.checker.rules import CheckFailed, Skipped, require, rule
from metarl.checker.values import difference, equal, part, require_same
from metarl.core.agent import Agent
from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng, seeding_globals
from metarl.core.rollout import stack_lanes
from metarl.core.types import Belief, Inputs, Spec, replace

_TASK_INPUTS = ("none", "row", "goal", "onehot")
_OTHERS = torch.tensor([2, 0])  # rows, in another order


@rule(
    why="training, evaluation and deployment use these, and nothing else",
    fix="add what is missing; the protocol and its docstrings are metarl.core.agent.Agent",
    gate=True,
)
def attributes(probe: AgentProbe) -> str:
    """It is built, and has the attributes and methods of the protocol."""
    agent = probe.fresh()
    offered = dict(inspect.getmembers_static(type(agent), callable))
    stubs = [stub for stub in vars(Agent).items() if inspect.isfunction(stub[1])]
    absent = [name for name, stub in stubs if offered.get(name, stub) is stub]
    missing = [name for name in absent if not name.startswith("_")]
    require(not missing, f"these methods are missing: {', '.join(missing)}")
    shown = agent.task_input
    require(shown in _TASK_INPUTS, f"task_input is {shown!r}, none of {_TASK_INPUTS}")
    lanes = agent.lanes
    require(isinstance(lanes, int) and lanes > 0, f"lanes is {lanes!r}, no number from 1 on")
    require(isinstance(agent.spec, Spec), "spec is not the Spec that it was built with")
    return f"task_input {shown}, lanes {lanes}, spec, and all methods"


@rule(
    why="every trial starts alike, and trials of any rows and lanes are cut and joined",
    fix="return Belief(first_cue(spec, rows, lanes, device), row=…, lane=…) of new tensors, and "
    "keep nothing of a trial on the agent",
    gate=True,
)
def begin(probe: AgentProbe) -> str:
    """Belief of the right shape; the agent stays as it is."""
    belief = probe.begin()
    few = probe.on(_OTHERS).begin()
    require_same(part(belief, _OTHERS), few, "two rows do not begin as among all")
    require_same(belief, probe.begin(), "begin gives another belief when called again")
    return f"a belief about rows × lanes: {ROWS} × {probe.agent.lanes}"


@rule(
    why="one loop steps every agent; it records what act returns, and lanes that wait keep theirs",
    fix="return new tensors: Acted(Inputs(obs, …), action, log_prob), replace(belief, lane=…); if "
    "the agent is not for such families, let its constructor raise a ConfigError",
    gate=True,
)
def act(probe: AgentProbe) -> str:
    """Shapes, types and range of a decision; only the belief's lane changes, nothing in place.

    Whether mode greedy makes actions independent of the noise is only reported.
    """
    belief = probe.begin()
    probe.collect(belief)
    rollout, _ = probe.collect(belief, mode="greedy")
    obs = rollout.inputs.obs[0]
    chosen = []
    for seed in (1, 2):
        noise = probe.tasks.streams(Rng(seed), probe.agent.lanes)
        chosen.append(probe.agent.act(belief, obs, noise, 0, "greedy")[0].action)
    depends = "depend" if difference(*chosen) else "do not depend"
    return f"valid actions; in mode greedy they {depends} on the noise"


@rule(
    why="learners, evaluation and sessions adapt beliefs and rollouts that they use again",
    fix="return replace(belief, row=…) of new tensors; sum over the lanes of the rollout, which "
    "may be more than those of the belief",
    gate=True,
)
def adapt(probe: AgentProbe) -> str:
    """Only the belief's row changes, nothing in place; lanes may come one after another."""
    agent = probe.agent
    probe.trial()
    belief = before = probe.begin(lanes=1)
    episodes = []
    for number in range(agent.lanes):
        episode, belief = probe.collect(belief, number)
        episodes.append(episode)
    after = agent.adapt(belief, stack_lanes(episodes))
    row = "changes the row" if difference(before.row, after.row) else "leaves the row as it is"
    return f"{row}; episodes of one lane may come one after another, here {agent.lanes}"


@rule(
    why="a result that cannot be repeated cannot be examined; rows must not share their randomness",
    fix="draw noise.uniform(counter, width) or noise.normal in act, nothing in begin and adapt",
    gate=True,
)
def randomness(probe: AgentProbe) -> str:
    """A trial is the same whatever the global generators do, and leaves them alone."""
    one, left = with_seed(1, probe.trial)
    other, _ = with_seed(2, probe.trial)
    require_same(one, other, "two trials with the same noise are not the same")
    _, untouched = with_seed(1, tuple)
    require(left == untouched, "begin, act or adapt draw from a global random generator")
    return "all from noise and counter"


@rule(
    why="batches are cut in any way: what is done on a task must not depend on other tasks",
    fix="compute every row from its own belief, noise and rollout: no mean over the rows",
)
def rows(probe: AgentProbe) -> str:
    """Two of the rows, in another order, have the same trial as among all."""
    among = part(probe.trial(), _OTHERS)
    alone = probe.on(_OTHERS).trial()
    return equal(among, alone, "a trial of rows 2 and 0, among all and alone", rounding=True)


@rule(
    why="a deployed agent has one lane: it must act there as in any lane of training",
    fix="compute every lane from its own cue, lane, obs and noise: no mean over the lanes",
)
def lanes(probe: AgentProbe) -> str:
    """The first lane acts alone as among all."""
    among, alone = (_episode(probe, probe.begin(count)) for count in (probe.agent.lanes, 1))
    first = part(among, slice(None), slice(1))
    return equal(first, alone, f"lane 0 among {probe.agent.lanes} and alone", rounding=True)


@rule(
    why="evaluation and sessions interleave trials: what an agent keeps of one leaks into others",
    fix="keep what is known of a task in the belief's row and lane, nothing on the agent",
)
def trials(probe: AgentProbe) -> str:
    """Another trial in the middle of one changes nothing."""
    disturbed = probe.trial(between=probe.on(ROWS + probe.rows).trial)
    return equal(probe.trial(), disturbed, "a trial, without and with another in its middle")


@rule(
    why="what was recorded elsewhere must count as if it had happened here",
    fix="in replay, do what acting and adapting do to row and lane, and set the cue to "
    "rollout.reshape_lanes(M).last_cue(spec); log_prob and extras are missing, inputs are obs, cue",
)
def replay(probe: AgentProbe) -> str:
    """From obs, cue, action and outcome alone, something is learned; the cue is the last one.

    An agent that says why it cannot learn from recorded rollouts is not asked to.
    """
    agent = probe.agent
    before = probe.begin()
    live, belief = probe.collect(before)
    lived = agent.adapt(belief, live)
    inputs = Inputs(live.inputs.obs, cue=live.inputs.cue)
    recorded = replace(live, inputs=inputs, log_prob=0 * live.log_prob, extras={})
    try:
        after = agent.replay(before, recorded)
    except CheckFailed:
        raise
    except MetaRLError as error:
        return Skipped(f"it refuses to: {error}")
    agent.replay(probe.begin(lanes=1), recorded)

    beliefs = (replace(before, cue=after.cue), lived, after)
    without, wanted, found = (_episode(probe, belief, 1) for belief in beliefs)
    forgot = difference(without, wanted) and not difference(without, found)
    require(not forgot, "replay changes nothing in the next episode; acting and adapting do")
    like = "not as" if difference(wanted, found, rounding=True) else "as"
    return f"the cue is the last one; the next episode is {like} after acting and adapting"


def _episode(probe: AgentProbe, belief: Belief, number: int = 0) -> dict[str, Tensor]:
    """What is done in an episode that begins with `belief`."""
    return acting(probe.collect(belief, number)[0])


def with_seed(seed: int, call: Callable[[], object]) -> tuple[object, object]:
    """The result with global generators seeded like this, and what they draw afterwards."""
    with seeding_globals(seed):
        return call(), (float(torch.rand(())), np.random.rand(), random.getstate())
