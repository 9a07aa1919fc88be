"""What every agent promises of its training and its copies.

Rules like those of `metarl.checker.agent_rules`; a strategy, which learns nothing, skips two.
"""

import io
import math
from pickle import UnpicklingError, dumps, loads
from typing import Any

import torch

from metarl.checker.agent_probe import AgentProbe
from metarl.checker.agent_rules import with_seed
from metarl.checker.rules import CheckFailed, Skipped, require, rule
from metarl.checker.values import difference, equal, named_leaves, part, require_same

_ONLY_FOR_TRAINING = ("replay", "optim")  # beginnings of keys


@rule(
    why="the loop logs these numbers, shows the return, and counts the steps of the world",
    fix="collect by world.collect, update the parameters, and return floats by name, such as "
    "return_metrics(rollouts) of metarl.agents.learning_agent",
    gate=True,
)
def iterate(probe: AgentProbe) -> str:
    """Collects steps, changes what acts, and gives finite metrics with a return."""
    if probe.strategy:
        return Skipped(f"it learns nothing: {probe.strategy}")
    agent = probe.fresh()
    before = part(agent.acting_state(), ...)
    for number in range(3):
        metrics, steps = probe.iterate(agent, number)
        for name, value in metrics.items():
            number_given = isinstance(value, float | int) and math.isfinite(value)
            require(number_given, f"metric {name!r} is {value!r}, no finite number")
        require("return" in metrics, f"no metric 'return' among {sorted(metrics)}; logs show it")
        require(steps, "no step was collected by world.collect")
        if difference(before, agent.acting_state()):
            return f"{steps} steps, {len(metrics)} metrics; acting_state() changes"
    raise CheckFailed("after three iterations, acting_state() is as before")


@rule(
    why="a run that cannot be repeated cannot be examined",
    fix="draw weights and minibatches from the rng that is given (rng.child(…).generator()), not "
    "from a global generator",
    gate=True,
)
def repeat(probe: AgentProbe) -> str:
    """Two agents of the same seed do the same in an iteration, whatever global generators do."""
    one, _ = with_seed(1, probe.outcome)
    other, _ = with_seed(2, probe.outcome)
    return equal(one, other, "metrics, state and trial of two agents built and trained alike")


@rule(
    why="an agent that looks up the answer does not adapt, and no new task is in its table",
    fix="learn of a task by obs and reward alone, or by world.task_info; rollout.index and "
    "tasks.index only name training tasks in iterate, and tasks.params are for no agent to read",
)
def hidden(probe: AgentProbe) -> str:
    """Neither the index nor the params of tasks change anything."""
    require_same(probe.trial(), probe.trial(renamed=1000), "adapt depends on rollout.index")
    disguised = probe.outcome(disguised=True)
    require_same(probe.outcome(), disguised, "iterate depends on tasks.params")
    return "adapt does not depend on rollout.index, nor iterate on tasks.params"


@rule(
    why="a run that is stopped and resumed must end where it would have ended",
    fix="put all that iterate changes into state_dict (parameters, optimizer, statistics, counters)"
    ", as tensors, numbers, strings, lists and dicts, and restore it all in load_state_dict",
)
def resume(probe: AgentProbe) -> str:
    """With its state, another agent goes on as the first one does."""
    if probe.strategy:
        return Skipped("it learns nothing")
    agent = probe.trained()
    saved = _plain("state_dict()", agent.state_dict())
    other = probe.fresh(seed=1)
    other.load_state_dict(saved)
    require_same(saved, other.state_dict(), "state_dict() after load_state_dict() is another")
    saved.pop("replay", None)
    probe.fresh(seed=1).load_state_dict(saved)
    what = "what an agent and another with its state_dict() learn next"
    return equal(probe.outcome(agent, 1), probe.outcome(other, 1), what)


@rule(
    why="other processes act with copies: they need all that acts, and nothing large besides",
    fix="return the part of state_dict that begin, act and adapt read: parameters and statistics "
    "of inputs; and let warm_start restore them",
)
def acting(probe: AgentProbe) -> str:
    """With its acting_state, an agent of other weights acts alike."""
    agent = probe.trained()
    given = _plain("acting_state()", agent.acting_state())
    large = [name for name in given if name.startswith(_ONLY_FOR_TRAINING)]
    require(not large, f"acting_state() holds {large}, which only training needs")
    more = named_leaves(given).keys() - named_leaves(agent.state_dict())
    require(not more, f"acting_state() holds what state_dict() does not: {more}")

    other = probe.fresh(seed=1)
    other.warm_start(given)
    what = "trials of an agent and of another after warm_start(acting_state())"
    return equal(probe.trial_of(agent), probe.trial_of(other), what)


@rule(
    why="agents are sent to other processes, which must act and learn as the original",
    fix="where two attributes share tensors, keep one of them, or rebuild the other in "
    "__setstate__; keep no lambda or handle",
)
def pickle(probe: AgentProbe) -> str:
    """A copy acts and learns alike, and leaves the original alone."""
    agent = probe.trained()
    clone = loads(dumps(agent))  # noqa: S301  (just pickled)
    acts = "a copy by pickle acts otherwise"
    require_same(probe.trial_of(agent), probe.trial_of(clone), acts)
    before = part(agent.state_dict(), ...)
    learned = probe.outcome(clone, 1)
    require_same(before, agent.state_dict(), "training a copy by pickle changes the original")
    return equal(probe.outcome(agent, 1), learned, "what an agent and its copy by pickle learn")


def _plain(name: str, content: dict[str, Any]) -> dict[str, Any]:
    """A copy, as a checkpoint keeps it.

    Raises:
        CheckFailed: something in it cannot be loaded without executing code.
    """
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    try:
        return dict(torch.load(file, weights_only=True))
    except UnpicklingError as error:
        named = str(error).partition("GLOBAL ")[2].partition(" ")[0]
        plain = "tensors, numbers, strings, lists and dicts"
        raise CheckFailed(f"{name} holds more than {plain}: {named}") from None
