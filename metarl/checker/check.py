"""Does a family keep its contract? A report: what was observed, why it matters, how to fix it."""

from dataclasses import dataclass

import torch

from metarl.checker import determinism_rules, task_rules
from metarl.checker.optional_rules import offers
from metarl.checker.probe import Probe
from metarl.checker.rules import Rule
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
    """What was observed of one promise."""

    rule: str
    passed: bool
    observed: str
    why: str
    fix: str

    def __str__(self) -> str:
        if self.passed:
            return f"ok    {self.rule:12} {self.observed}"
        lines = [
            f"FAIL  {self.rule}",
            f"observed: {self.observed}",
            f"why: {self.why}",
            f"fix: {self.fix}",
        ]
        return "\n        ".join(lines)


@dataclass(frozen=True)
class Report:
    """The findings on a family, in the order of `RULES`, up to a broken promise that is a gate."""

    family: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Every promise is kept."""
        return all(finding.passed for finding in self.findings)

    def __str__(self) -> str:
        summary = f"keeps all {len(self.findings)} promises"
        if not self.ok:
            broken = sum(not finding.passed for finding in self.findings)
            summary = f"{broken} of its promises broken"
        lines = [f"{self.family}: {summary}", *map(str, self.findings)]
        if len(self.findings) < len(RULES):
            lines.append("nothing more can be checked before this is fixed")
        return "\n".join(lines)


@torch.no_grad()
def check_family(family: Family) -> Report:
    """Check every promise of a family; whatever its code raises becomes a finding."""
    probe = Probe(family)
    findings = []
    for rule in RULES:
        finding = _check(rule, probe)
        findings.append(finding)
        if rule.gate and not finding.passed:
            break
    name = probe.spec.name if findings[0].passed else type(family).__name__
    return Report(name, tuple(findings))


def check_found(found: Found, chosen: Settings) -> Report:
    """Build a family with these options and check it; if that fails, it is the only finding.

    Raises:
        MetaRLError: its module does not import, or it refuses the options by a MetaRLError.
    """
    found.load()
    try:
        family = found.build(chosen)
    except MetaRLError:
        raise
    except Exception as error:  # a constructor may raise anything
        why = "without the family there is nothing to check"
        fix = "fix the constructor, or give other options"
        return Report(found.name, (Finding("builds", False, one_line(error), why, fix),))
    return check_family(family)


def _check(rule: Rule, probe: Probe) -> Finding:
    passed = False
    try:
        observed = rule.check(probe)
        passed = True
    except MetaRLError as error:  # CheckFailed, or one of the family
        observed = str(error)
    except Exception as error:  # so may any method
        observed = one_line(error)
    return Finding(rule.name, passed, observed, rule.why, rule.fix)
