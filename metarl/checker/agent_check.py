"""Does an agent keep its contract? A report like that on a family."""

from contextlib import suppress

from metarl.checker import agent_learning_rules, agent_rules
from metarl.checker.agent_probe import CPU, AgentProbe, Build
from metarl.checker.report import Report, examine
from metarl.checker.rules import rules_of
from metarl.config.registry import Found, Settings, find
from metarl.core.agent import Agent
from metarl.core.errors import ConfigError
from metarl.core.family import Family
from metarl.core.types import Spec
from metarl.experiments.building import build_agent, make_family

AGENT_RULES = (*rules_of(agent_rules), *rules_of(agent_learning_rules))

LIGHT = {
    "point": {"horizon": 5},
    "gridnavi": {"horizon": 5},
    "tabular-mdp": {"states": 3, "horizon": 4},
    "bernoulli-bandit": {},
    "goal-maze": {"horizon": 5},
}
"""Families that agents are tried on quickly, and their options."""


def check_agent(
    build: Build,
    family: Family,
    name: str = "agent",
    needs_train_tasks: bool = True,
    needs_family: bool = False,
) -> Report:
    """Check every promise of the agents that ``build(spec, seed)`` makes, on a family of short
    episodes::

        check_agent(partial(make_agent, "maml", episodes_per_task=4), make_family("gridnavi"))
    """
    probe = AgentProbe(build, family, needs_train_tasks, needs_family)
    findings, unseen = examine(AGENT_RULES, probe)
    return Report(f"{name} on {family.spec.name}", findings, unseen)


def check_found_agent(
    found: Found,
    chosen: Settings,
    family: str | None = None,
) -> Report:
    """Check an agent with these options on the family called so, or on a light one that it accepts.

    Raises:
        ConfigError: it accepts none.
    """

    def build(spec: Spec, seed: int) -> Agent:
        return build_agent(found, chosen, spec, seed, CPU)

    candidates = LIGHT if family is None else {family: _brief(family)}
    for candidate, options in candidates.items():
        tried = make_family(candidate, **options)
        refusal = _refusal(build, tried)
        if refusal is None:
            needs = chosen.needs_train_tasks, chosen.needs_family
            return check_agent(build, tried, found.name, *needs)
    raise ConfigError(f"{found.name}: {refusal} (tried: {', '.join(candidates)}; see --family)")


def _brief(family: str) -> dict[str, int]:
    """Options of short episodes: in long ones, chaotic dynamics magnify rounding."""
    return {"horizon": 5} if "horizon" in find("family", family).settings.model_fields else {}


def _refusal(build: Build, family: Family) -> ConfigError | None:
    """Why an agent cannot act in a family; other errors are left to the rules."""
    with suppress(Exception):
        try:
            AgentProbe(build, family).trial()
        except ConfigError as error:
            return error
    return None
