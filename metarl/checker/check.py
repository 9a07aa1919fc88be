"""Does a family keep its contract? A report: what was observed, why it matters, how to fix it."""

import torch

from metarl.checker import (
    adaptation_rules,
    determinism_rules,
    episode_rules,
    optional_rules,
    task_rules,
)
from metarl.checker.agent_check import check_found_agent
from metarl.checker.probe import Probe
from metarl.checker.report import ALL_OTHERS, Finding, Report, examine
from metarl.checker.rules import rules_of
from metarl.config.registry import Found, Settings
from metarl.core.errors import ConfigError, MetaRLError, one_line
from metarl.core.family import Family

RULES = (
    *rules_of(task_rules),
    *rules_of(determinism_rules),
    *rules_of(episode_rules),
    *rules_of(adaptation_rules),
    *rules_of(optional_rules),
)


@torch.no_grad()
def check_family(family: Family) -> Report:
    """Check every promise of a family; whatever its code raises becomes a finding."""
    probe = Probe(family)
    findings, unseen = examine(RULES, probe)
    name = probe.spec.name if findings[0].passed else type(family).__name__
    return Report(name, findings, unseen)


def check_found(
    found: Found,
    chosen: Settings,
    family: str | None = None,
) -> Report:
    """Check a family with these options, or an agent, which is tried on the `family` called so.

    A family that cannot be built has that as its only finding.

    Raises:
        MetaRLError: its module does not import, or it refuses the options by a MetaRLError; an
            agent that suits no family.
    """
    found.load()
    if found.kind == "agent":
        return check_found_agent(found, chosen, family)
    if family is not None:
        raise ConfigError(f"--family: {found.name} is a family itself; only an agent needs one")
    try:
        built = found.build(chosen)
    except MetaRLError as error:
        if error.__cause__ is None:  # it is its own
            raise
        why = "without the family there is nothing to check"
        fix = "fix the constructor, or give other options"
        finding = Finding("builds", "FAIL", one_line(error.__cause__), why, fix)
        return Report(found.name, (finding,), (ALL_OTHERS,))
    return check_family(built)
