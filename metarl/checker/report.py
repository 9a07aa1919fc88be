"""What was found out about the promises of a family or an agent."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from metarl.checker.rules import CheckFailed, NotOffered, P, Rule, Skipped, Warned
from metarl.core.errors import MetaRLError, one_line
from metarl.core.progress import tell

Verdict = Literal["ok", "-", "skip", "warn", "FAIL"]
"""Kept; nothing was promised; could not be tested; may be a fault; broken."""

ALL_OTHERS = "all further promises"
"""What a broken gate keeps from a look."""

_WIDTH = 79  # columns of a report


@dataclass(frozen=True)
class Finding:
    """What was observed of one promise; `suspect` is the cause of a broken one, if it is known."""

    rule: str
    verdict: Verdict
    observed: str
    why: str
    fix: str
    suspect: str = ""

    @property
    def passed(self) -> bool:
        """It is not broken."""
        return self.verdict != "FAIL"

    def __str__(self) -> str:
        if self.verdict not in ("warn", "FAIL"):
            return _wrapped(f"{self.verdict:5} {self.rule:12} ", self.observed)
        parts = {name: vars(self)[name] for name in ("observed", "suspect", "why", "fix")}
        lines = [_wrapped(f"        {name}: ", text) for name, text in parts.items() if text]
        return "\n".join([f"{self.verdict:5} {self.rule}", *lines])


@dataclass(frozen=True)
class Report:
    """The findings, in the order of the rules, and the rules that one of them kept from a look."""

    name: str
    findings: tuple[Finding, ...]
    unseen: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """No promise is broken."""
        return all(finding.passed for finding in self.findings)

    def __str__(self) -> str:
        lines = [_wrapped("", f"{self.name}: {self._summary()}"), *map(str, self.findings)]
        if self.unseen:
            lines.append(_wrapped("not looked at before this is fixed: ", ", ".join(self.unseen)))
        return "\n".join(lines)

    def _summary(self) -> str:
        count = Counter(finding.verdict for finding in self.findings)
        kept = _counted(count["ok"], "promise")
        if count["FAIL"]:
            parts = [f"breaks {_counted(count['FAIL'], 'promise')}, keeps {count['ok']}"]
        elif count["skip"] or count["warn"]:
            parts = [f"keeps {kept}"]
        else:
            parts = [f"keeps all {kept}"]
        if count["skip"]:
            parts.append(f"{count['skip']} could not be tested")
        if count["warn"]:
            parts.append(_counted(count["warn"], "warning"))
        return "; ".join(parts)


def examine(rules: Sequence[Rule[P]], probe: P) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Check the rules in order → findings, and the rules that a broken one kept from a look.

    Whatever the code of others raises becomes a finding. It tells which rule is looked at now.
    """
    findings = []
    unseen: list[str] = []
    broken: set[str] = set()
    for number, rule in enumerate(rules):
        if not broken.isdisjoint(rule.rests):
            unseen.append(rule.name)
            broken.add(rule.name)
            continue
        tell(f"checking {rule.name}", number / len(rules))
        finding = _check(rule, probe)
        findings.append(finding)
        if not finding.passed:
            broken.add(rule.name)
            if rule.gate:
                unseen.append(ALL_OTHERS)
                break
    return tuple(findings), tuple(unseen)


_SAID: dict[type[str], Verdict] = {Skipped: "skip", Warned: "warn", NotOffered: "-"}


def _check(rule: Rule[P], probe: P) -> Finding:
    suspect, fix = "", None
    verdict: Verdict = "FAIL"
    try:
        observed = rule.check(probe)
        verdict = _SAID.get(type(observed), "ok")
    except CheckFailed as error:
        observed, suspect, fix = str(error), error.suspect, error.fix
    except MetaRLError as error:  # of what is examined
        observed = str(error)
    except Exception as error:  # so may any method
        observed = one_line(error)
    fix = rule.fix_of(probe) if fix is None else fix
    return Finding(rule.name, verdict, observed, rule.why, fix, suspect)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _wrapped(first: str, text: str) -> str:
    """`text` behind `first`, at most 79 columns wide; further lines begin below it."""
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=" " * min(len(first), 19),
        break_long_words=False,
        break_on_hyphens=False,
    )
