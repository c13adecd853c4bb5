"""The registry of rules: one object feeds `explain`, `rules`, the docs, the report and the run itself."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from ckptdoctor.model import CkptDoctorError, Evidence, Finding, Missing, RuleFailure, Severity, Skipped

DOC_SECTIONS = ("What it finds", "Why it matters", "How to confirm", "How to fix", "References")
PARTS = frozenset({"census", "spec", "fingerprint", "optimizer", "timeline", "logs", "batches", "replay"})


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number a rule judges by, and where it comes from."""

    value: float
    unit: str
    source: str


class Limits:
    """The thresholds of one rule as plain numbers, the user's overrides applied."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> float:
        return self._values[name]


Check = Callable[[Evidence, Limits], Iterator[Finding]]


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A check with everything that is said about it."""

    code: str
    name: str
    severity: Severity
    needs: frozenset[str]
    since: str
    doc: str
    check: Check
    thresholds: Mapping[str, Threshold] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first sentence of *What it finds*."""
        return self.section("What it finds").split(". ")[0].rstrip(".").replace("\n", " ") + "."

    def section(self, title: str) -> str:
        """The text under one heading of the doc."""
        after = self.doc.split(f"## {title}\n", 1)[1]
        return after.split("\n## ", 1)[0].strip()


_RULES: dict[str, Rule] = {}


def rule(
    *,
    code: str,
    name: str,
    severity: Severity,
    needs: Collection[str],
    since: str,
    doc: str,
    thresholds: Mapping[str, Threshold] | None = None,
) -> Callable[[Check], Check]:
    """Register a check.

    Args:
        code: `CKD` and three digits, unique. First digit: 1 checkpoint, 2 log, 3 timeline, 4 batches,
            5 replay, 6 all of it together, 7 the file itself.
        name: kebab-case, unique.
        severity: of its findings, unless a finding says otherwise.
        needs: parts of `Evidence` without which it is skipped.
        since: first version with it.
        doc: Markdown with the headings of `DOC_SECTIONS`, each as `## Heading`.
        thresholds: numbers it judges by, each with its source.

    Raises:
        ValueError: duplicate code or name, unknown part, or a doc without one of its sections.
    """
    text = "\n".join(line.strip() for line in doc.strip().splitlines())
    for title in DOC_SECTIONS:
        if f"## {title}\n" not in text + "\n":
            raise ValueError(f"rule {code}: its doc lacks the section '## {title}'")
    if unknown := set(needs) - PARTS:
        raise ValueError(f"rule {code}: needs {sorted(unknown)}, which Evidence does not have")

    def register(check: Check) -> Check:
        if code in _RULES or any(r.name == name for r in _RULES.values()):
            raise ValueError(f"rule {code} ({name}) is registered twice")
        _RULES[code] = Rule(code, name, severity, frozenset(needs), since, text, check, dict(thresholds or {}))
        return check

    return register


def all_rules() -> tuple[Rule, ...]:
    """Every rule, by code. Imports the rule modules on first use."""
    _import_rules()
    return tuple(_RULES[code] for code in sorted(_RULES))


@cache
def _import_rules() -> None:
    """Once a process: looking through the package's folders costs as much as measuring a small checkpoint."""
    import ckptdoctor.rules as package

    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name != __name__:
            importlib.import_module(module.name)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What all rules together said."""

    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    failures: tuple[RuleFailure, ...]


def run_rules(
    evidence: Evidence,
    *,
    select: Collection[str] = (),
    ignore: Collection[str] = (),
    overrides: Mapping[str, float] | None = None,
) -> Outcome:
    """Run every selected rule on the evidence.

    Args:
        evidence: what was measured.
        select: code prefixes or names to run; empty for all. ignore: prefixes or names to leave out.
        overrides: `CODE.threshold` → number.

    Raises:
        CkptDoctorError: a selection or override that names no rule or threshold.
    """
    rules = all_rules()
    chosen = _choose(rules, select, ignore)
    values = _limits(rules, overrides or {})
    findings: list[Finding] = []
    skipped: list[Skipped] = []
    failures: list[RuleFailure] = []
    for r in rules:
        if r not in chosen:
            skipped.append(Skipped(r.code, "not selected"))
            continue
        absent = [part for part in sorted(r.needs) if isinstance(getattr(evidence, part), Missing)]
        if absent:
            reason = getattr(evidence, absent[0]).reason
            skipped.append(Skipped(r.code, f"needs {', '.join(absent)}: {reason}"))
            continue
        try:
            found = list(r.check(evidence, Limits(values[r.code])))
        except Exception as error:  # noqa: BLE001 - a crashed rule must never hide another's finding
            failures.append(RuleFailure(r.code, f"{type(error).__name__}: {error}"))
            continue
        findings.extend(_numbered(r, found))
    return Outcome(tuple(findings), tuple(skipped), tuple(failures))


def check_words(
    *, select: Collection[str] = (), ignore: Collection[str] = (), overrides: Mapping[str, float] | None = None
) -> None:
    """Refuse a selection or override that names nothing, before any slow work is done.

    Raises:
        CkptDoctorError: naming the word that matches no rule or threshold.
    """
    if select or ignore or overrides:
        rules = all_rules()
        _choose(rules, select, ignore)
        _limits(rules, overrides or {})


def _numbered(r: Rule, found: list[Finding]) -> Iterator[Finding]:
    for n, finding in enumerate(found, 1):
        yield replace(finding, rule=r.code, id=f"{r.code}-{n}")


def _matches(r: Rule, word: str) -> bool:
    return r.code.startswith(word.upper()) or r.name == word


def _choose(rules: tuple[Rule, ...], select: Collection[str], ignore: Collection[str]) -> set[Rule]:
    for word in (*select, *ignore):
        if not any(_matches(r, word) for r in rules):
            raise CkptDoctorError(f"no rule matches '{word}'; `ckptdoctor rules` lists them")
    chosen = {r for r in rules if not select or any(_matches(r, w) for w in select)}
    return {r for r in chosen if not any(_matches(r, w) for w in ignore)}


def _limits(rules: tuple[Rule, ...], overrides: Mapping[str, float]) -> dict[str, dict[str, float]]:
    values = {r.code: {name: t.value for name, t in r.thresholds.items()} for r in rules}
    for key, value in overrides.items():
        code, _, name = key.partition(".")
        if name not in values.get(code, {}):
            raise CkptDoctorError(f"'{key}' is not a threshold; write CODE.NAME as `ckptdoctor explain CODE` shows it")
        values[code][name] = float(value)
    return values
