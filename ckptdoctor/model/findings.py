"""What rules say, what follows from it, and the report that carries all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ckptdoctor.model.base import Cause, Grade, Group, JsonObject, Missing, Phase, Severity, Status
from ckptdoctor.model.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Vote:
    """What a finding adds to a cause's log-odds, and why. Positive speaks for, negative against."""

    cause: Cause
    weight: float
    reason: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a rule found.

    Attributes:
        rule: code, e.g. `CKD101`.
        message: one or two sentences of plain language with the numbers in them.
        layer, variable, epoch, step: what it is about.
        measured, threshold, unit: the number that was judged, against what.
        votes: log-odds for and against causes.
        confidence: how sure the rule is of the fact itself (not of a cause), 0 to 1.
        id: set by `conclude`: code and running number, e.g. `CKD101-1`; the anchor in reports.
        data: small extra values for renderers.
    """

    rule: str
    severity: Severity
    message: str
    layer: str | None = None
    variable: str | None = None
    epoch: int | None = None
    step: int | None = None
    measured: float | str | None = None
    threshold: float | str | None = None
    unit: str | None = None
    votes: tuple[Vote, ...] = ()
    confidence: float = 1.0
    id: str = ""
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A rule that was not run, and why."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class RuleFailure:
    """A rule that crashed. It never hides another's finding."""

    rule: str
    error: str


@dataclass(frozen=True, slots=True)
class Fix:
    """What to do about a cause, for this model. `code` may be empty. `tested`: an experiment removed the failure with it."""

    text: str
    code: str = ""
    tested: bool = False
    watch: str = ""  # what to watch when continuing


@dataclass(frozen=True, slots=True)
class Contribution:
    """One term of a cause's sum: a prior or a vote."""

    finding_id: str | None  # None for the prior
    weight: float
    reason: str


@dataclass(frozen=True, slots=True)
class RankedCause:
    """One cause in the ranking. `log_odds` is the sum of `contributions`."""

    cause: Cause
    confidence: float
    grade: Grade
    log_odds: float
    contributions: tuple[Contribution, ...]
    fix: Fix

    @property
    def supporting(self) -> tuple[str, ...]:
        """Ids of the findings that speak for it."""
        return tuple(c.finding_id for c in self.contributions if c.finding_id and c.weight > 0)

    @property
    def opposing(self) -> tuple[str, ...]:
        """Ids of the findings that speak against it."""
        return tuple(c.finding_id for c in self.contributions if c.finding_id and c.weight < 0)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where it broke. Any part may be None: not known."""

    layer: str | None = None
    variable: str | None = None
    phase: Phase | None = None
    op: str | None = None
    epoch: int | None = None
    step: int | None = None
    batch: int | None = None
    rows: tuple[int, ...] = ()
    how: str = ""  # how this was established: "replay", "fingerprint of …", "recorded batch", …


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer.

    Attributes:
        headline: one sentence in plain language.
        next_step: what to do now, one sentence; for `unknown` the one measurement that would decide.
    """

    status: Status
    cause: Cause
    grade: Grade
    confidence: float
    headline: str
    next_step: str

    @property
    def group(self) -> Group:
        """The cause's group."""
        return self.cause.group


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Ranked causes and the verdict drawn from them."""

    verdict: Verdict
    causes: tuple[RankedCause, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a renderer needs. Renderers compute nothing about causes."""

    evidence: Evidence
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    failures: tuple[RuleFailure, ...]
    diagnosis: Diagnosis
    tool_version: str
    seconds: float = 0.0
    options: JsonObject = field(default_factory=dict)  # the options that matter for repeating the inspection

    @property
    def verdict(self) -> Verdict:
        """The answer."""
        return self.diagnosis.verdict

    def exit_status(self, fail_on: Severity | Missing = Severity.ERROR) -> int:
        """0 nothing at or above `fail_on`, 1 otherwise, 2 where nothing could be read."""
        if self.verdict.status is Status.UNREADABLE:
            return 2
        if not isinstance(fail_on, Severity):
            return 0
        return int(any(f.severity >= fail_on for f in self.findings))
