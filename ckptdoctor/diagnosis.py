"""From findings to ranked causes: a sum of log-odds that a reader can follow, then calibrated."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ckptdoctor.advice import advise
from ckptdoctor.model import (
    FAULTS,
    Cause,
    Census,
    Contribution,
    Diagnosis,
    Evidence,
    Finding,
    Grade,
    Origin,
    ProblemKind,
    RankedCause,
    Severity,
    Status,
)
from ckptdoctor.origin import locate
from ckptdoctor.rules.registry import Outcome
from ckptdoctor.wording import unjudged_loss, unrelated_rows, verdict_words

PRIORS: Mapping[Cause, float] = {
    # How often each cause stands behind a reported failure, as log-odds against an even share. Counted over the
    # re-created public reports this tool was developed on; rounded, since such counts are small.
    Cause.DATA_NONFINITE: 0.2,
    Cause.DATA_SCALE: 0.2,
    Cause.LABELS: 0.0,
    Cause.LEARNING_RATE: 0.4,
    Cause.EXPLODING_GRADIENTS: 0.1,
    Cause.VANISHING_GRADIENTS: -0.3,
    Cause.ACTIVATION: 0.1,
    Cause.LOSS_FUNCTION: 0.1,
    Cause.MIXED_PRECISION: -0.8,
    Cause.OPTIMIZER: -0.6,
    Cause.INITIALIZATION: -0.4,
    Cause.ARCHITECTURE: -0.4,
}
UNKNOWN_LOG_ODDS = 0.5
"""What a cause's sum must pass to be preferred over `unknown`: more than its prior. Set on the case book."""

TEMPERATURE = 0.5
"""Sums are divided by this before they become probabilities. Single votes are set with caution, so that sums understate how
often the leading cause is right; this makes confidence match the share of right answers. Between what fits the runs that rules
were set on (0.4) and what fits reported runs that nobody had looked at (0.7 and more); see the evaluation page."""

CEILING = {True: 0.98, False: 0.95}
"""How sure a cause is at most, observed directly or proved by experiment (True) or only pointed at. A sum of log-odds knows
only the causes and reasons it was taught: of untouched reported runs whose sum said 0.9 and more, 92 in 100 were right, and
13 in 14 of those observed directly (see the evaluation page)."""

HEALTHY = 0.95
"""How sure `healthy` is at most: of untouched reported runs called healthy with replay, 92 in 100 were."""

UNJUDGED = 0.15
"""What `healthy` loses where the loss is the run's own and its code is not at hand, or where no simple model finds the targets
in the inputs and no validation shows that the run does: a run that does not learn cannot be told then. Hand-chosen."""

LIKELY = 0.55
POSSIBLE = 0.2
"""Confidence from which a cause is `likely` or `possible`. Hand-chosen: more likely than not, and one in five."""


def conclude(outcome: Outcome, evidence: Evidence) -> Diagnosis:
    """Rank causes by the findings and draw the verdict."""
    status = _status(outcome.findings, evidence)
    causes = _rank(outcome.findings, evidence) if status is Status.SICK else ()
    cause, grade, confidence = _winner(status, causes, outcome, evidence)
    origin = locate(outcome.findings, evidence, cause) if status is Status.SICK else Origin()
    verdict = verdict_words(status, cause, grade, confidence, causes, outcome.findings, evidence)
    return Diagnosis(verdict=verdict, causes=causes, origin=origin)


def _status(findings: Sequence[Finding], evidence: Evidence) -> Status:
    """Sick with any error; damaged files without one are unreadable, since part of them was not seen.

    Weights that were changed after saving tell nothing of the training: what was found in them is no error of it.
    """
    census = evidence.census
    altered = isinstance(census, Census) and any(p.altered for p in census.info.problems)
    passed = ("CKD701", *(("CKD1", "CKD3") if altered else ()))
    if any(f.severity is Severity.ERROR and not f.rule.startswith(passed) for f in findings):
        return Status.SICK
    if not isinstance(evidence.census, Census):
        return Status.UNREADABLE
    problems = evidence.census.info.problems
    if evidence.census.info.coverage < 1 or any(p.kind is ProblemKind.DAMAGED for p in problems):
        return Status.UNREADABLE
    return Status.HEALTHY


def _rank(findings: Sequence[Finding], evidence: Evidence) -> tuple[RankedCause, ...]:
    terms: dict[Cause, list[Contribution]] = defaultdict(list)
    for cause in FAULTS:
        terms[cause].append(Contribution(None, PRIORS[cause], "how often this cause is met"))
    for finding in findings:
        for vote in finding.votes:
            if vote.weight and vote.cause in PRIORS:
                terms[vote.cause].append(Contribution(finding.id, vote.weight, vote.reason))
    sums = {cause: math.fsum(c.weight for c in contributions) for cause, contributions in terms.items()}
    shares = softmax({**sums, Cause.UNKNOWN: UNKNOWN_LOG_ODDS})
    confirmed = confirmed_causes(findings)
    ranked = [
        RankedCause(
            cause=cause,
            confidence=shares[cause] * CEILING[cause in confirmed],
            grade=_grade(shares[cause], confirmed=cause in confirmed),
            log_odds=sums[cause],
            contributions=tuple(sorted(terms[cause], key=lambda c: -abs(c.weight))),
            fix=advise(cause, evidence, findings),
        )
        for cause in FAULTS
    ]
    return tuple(sorted(ranked, key=lambda r: -r.log_odds))


def softmax(sums: Mapping[Cause, float]) -> dict[Cause, float]:
    """Shares of the causes from their sums of log-odds, tempered by `TEMPERATURE`."""
    top = max(sums.values())
    weights = {cause: math.exp((value - top) / TEMPERATURE) for cause, value in sums.items()}
    total = math.fsum(weights.values())
    return {cause: weight / total for cause, weight in weights.items()}


def confirmed_causes(findings: Sequence[Finding]) -> frozenset[Cause]:
    """Causes that a finding observed directly or proved by experiment (`data["confirms"]`)."""
    return frozenset(Cause(str(f.data["confirms"])) for f in findings if f.data.get("confirms"))


def _grade(confidence: float, *, confirmed: bool) -> Grade:
    if confirmed and confidence >= LIKELY:
        return Grade.CONFIRMED
    if confidence >= LIKELY:
        return Grade.LIKELY
    if confidence >= POSSIBLE:
        return Grade.POSSIBLE
    return Grade.UNKNOWN


def _winner(
    status: Status, causes: Sequence[RankedCause], outcome: Outcome, evidence: Evidence
) -> tuple[Cause, Grade, float]:
    if status is Status.HEALTHY:
        return Cause.HEALTHY, Grade.LIKELY, healthy_confidence(outcome, evidence)
    if status is Status.UNREADABLE or not causes:
        return Cause.UNKNOWN, Grade.UNKNOWN, 0.0
    best = causes[0]
    if best.log_odds <= UNKNOWN_LOG_ODDS or best.grade is Grade.UNKNOWN:
        return Cause.UNKNOWN, Grade.UNKNOWN, 1.0 - sum(c.confidence for c in causes)
    return best.cause, best.grade, best.confidence


def healthy_confidence(outcome: Outcome, evidence: Evidence) -> float:
    """How sure `healthy` is.

    Less with every family of evidence that could not be looked at, with warnings, and where a replay could not put
    predictions beside targets, so that nobody asked whether the run learned.
    """
    families = {"CKD2", "CKD4", "CKD5"}  # log, batches, replay
    unseen = {s.rule[:4] for s in outcome.skipped if s.reason != "not selected"} & families
    warnings = sum(f.severity is Severity.WARNING for f in outcome.findings)
    doubt = UNJUDGED if unjudged_loss(evidence) or unrelated_rows(evidence) else 0.0
    return round(max(0.5, HEALTHY - 0.03 * len(unseen) - 0.03 * warnings - doubt), 3)
