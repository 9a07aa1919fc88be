"""Is this a family? The contract as a report: what was seen of each promise, why it matters, how to mend it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metarl.checker import determinism_rules, task_rules
from metarl.checker.optional_rules import offers
from metarl.checker.probe import Probe
from metarl.checker.rules import CheckFailed, Rule
from metarl.config.registry import Found, Settings, one_line
from metarl.core.errors import MetaRLError
from metarl.core.family import Family

RULES = (
    task_rules.spec,
    task_rules.tasks,
    task_rules.splits,
    task_rules.steps,
    task_rules.continuity,
    task_rules.horizon,
    task_rules.successor,
    task_rules.autoreset,
    task_rules.effect,
    task_rules.hidden,
    task_rules.persistence,
    determinism_rules.seed,
    determinism_rules.randomness,
    determinism_rules.reset,
    determinism_rules.rows,
    determinism_rules.lanes,
    determinism_rules.state,
    offers,
)


@dataclass(frozen=True)
class Finding:
    """What was seen of one promise."""

    rule: str
    passed: bool
    seen: str
    why: str
    fix: str

    def __str__(self) -> str:
        if self.passed:
            return f"ok    {self.rule:12} {self.seen}"
        return f"FAIL  {self.rule}\n        seen: {self.seen}\n        why:  {self.why}\n        mend: {self.fix}"


@dataclass(frozen=True)
class Report:
    """What was found of a family, in the order in which it is looked for; what nothing can be built on ends it."""

    family: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Every promise is kept."""
        return all(finding.passed for finding in self.findings)

    def __str__(self) -> str:
        broken = sum(not finding.passed for finding in self.findings)
        told = (
            f"{broken} of its promises broken"
            if broken
            else f"keeps all {len(self.findings)} promises"
        )
        lines = [f"{self.family}: {told}", *map(str, self.findings)]
        if len(self.findings) < len(RULES):
            lines.append("nothing more can be looked at before this is mended")
        return "\n".join(lines)


@torch.no_grad()
def check_family(family: Family) -> Report:
    """Look at every promise of a family; whatever its code raises becomes a finding."""
    probe, findings = Probe(family), list[Finding]()
    for rule in RULES:
        findings.append(_look(rule, probe))
        if rule.gate and not findings[-1].passed:
            break
    name = probe.spec.name if findings[0].passed else type(family).__name__
    return Report(name, tuple(findings))


def check_found(found: Found, chosen: Settings) -> Report:
    """The same for a family that has yet to be built with these options; where that fails, it is the only finding.

    Raises:
        MetaRLError: its module does not import, or it refuses the options by a MetaRLError of its own.
    """
    found.load()
    try:
        family = found.build(chosen)
    except MetaRLError:
        raise
    except Exception as error:  # a constructor may raise anything
        why, fix = (
            "without the family there is nothing to look at",
            "mend the constructor, or give other options",
        )
        return Report(found.name, (Finding("builds", False, one_line(error), why, fix),))
    return check_family(family)


def _look(rule: Rule, probe: Probe) -> Finding:
    try:
        return Finding(rule.name, True, rule.look(probe), rule.why, rule.fix)
    except (CheckFailed, MetaRLError) as error:
        seen = str(error)
    except Exception as error:  # so may any method
        seen = one_line(error)
    return Finding(rule.name, False, seen, rule.why, rule.fix)
