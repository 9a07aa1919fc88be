"""What was found out about the promises of a family or an agent."""

from collections.abc import Sequence
from dataclasses import dataclass

from metarl.checker.rules import P, Rule, Skipped
from metarl.core.errors import MetaRLError, one_line


@dataclass(frozen=True)
class Finding:
    """What was observed of one promise."""

    rule: str
    passed: bool
    observed: str
    why: str
    fix: str
    skipped: bool = False
    """It says nothing of what is examined, which is no fault."""

    def __str__(self) -> str:
        if self.passed:
            word = "skip" if self.skipped else "ok"
            return f"{word:5} {self.rule:12} {self.observed}"
        return (
            f"FAIL  {self.rule}\n"
            f"        observed: {self.observed}\n"
            f"        why: {self.why}\n"
            f"        fix: {self.fix}"
        )


@dataclass(frozen=True)
class Report:
    """The findings, in the order of the rules, up to a broken promise that is a gate."""

    name: str
    findings: tuple[Finding, ...]
    rules: int
    """How many there are."""

    @property
    def ok(self) -> bool:
        """Every promise is kept."""
        return all(finding.passed for finding in self.findings)

    def __str__(self) -> str:
        kept = sum(finding.passed and not finding.skipped for finding in self.findings)
        summary = f"keeps all {kept} promises"
        if not self.ok:
            broken = sum(not finding.passed for finding in self.findings)
            summary = f"{broken} of its promises broken"
        lines = [f"{self.name}: {summary}", *map(str, self.findings)]
        if len(self.findings) < self.rules:
            lines.append("nothing more can be checked before this is fixed")
        return "\n".join(lines)


def examine(rules: Sequence[Rule[P]], probe: P) -> tuple[Finding, ...]:
    """Check the rules in order; whatever the code of others raises becomes a finding."""
    findings = []
    for rule in rules:
        finding = _check(rule, probe)
        findings.append(finding)
        if rule.gate and not finding.passed:
            break
    return tuple(findings)


def _check(rule: Rule[P], probe: P) -> Finding:
    passed = False
    try:
        observed = rule.check(probe)
        passed = True
    except MetaRLError as error:  # CheckFailed, or one of what is examined
        observed = str(error)
    except Exception as error:  # so may any method
        observed = one_line(error)
    skipped = isinstance(observed, Skipped)
    return Finding(rule.name, passed, observed, rule.why, rule.fix, skipped)
