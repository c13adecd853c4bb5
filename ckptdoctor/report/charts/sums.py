"""The sum of evidence for each cause: terms for and against, as bars on both sides of zero."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ckptdoctor.model import Cause, Contribution, RankedCause, Report
from ckptdoctor.report import numbers, story

MOST_CAUSES = 6
_MOST_TERMS = 12
BAR = 60  # pixels of the longest bar on either side


@dataclass(frozen=True, slots=True)
class Term:
    """One term: its signed weight, its bar (x and width in pixels from the left end), its reason and source."""

    weight: str
    x: float
    width: float
    favours: bool
    reason: str
    finding: str


@dataclass(frozen=True, slots=True)
class CauseSum:
    """A cause with its terms and their total."""

    cause: Cause
    title: str
    group: str
    grade: str
    percent: str
    bar: int
    total: str
    terms: tuple[Term, ...]
    total_term: Term
    wins: bool


def cause_sums(report: Report) -> tuple[CauseSum, ...]:
    """The leading causes, their sums drawn on one scale."""
    causes = report.diagnosis.causes[:MOST_CAUSES]
    weights = [abs(v) for c in causes for v in (c.log_odds, *(t.weight for t in c.contributions)) if math.isfinite(v)]
    unit = BAR / max([*weights, 1.0])
    best = story.winner(report)
    return tuple(_sum(c, unit, wins=c is best) for c in causes)


def _sum(cause: RankedCause, unit: float, *, wins: bool) -> CauseSum:
    from ckptdoctor.report.charts.bars import share

    terms = sorted(cause.contributions, key=lambda t: (t.finding_id is not None, -abs(t.weight)))
    shown, rest = terms[:_MOST_TERMS], terms[_MOST_TERMS:]
    rows = [_term(t, unit) for t in shown]
    if rest:
        left = Contribution(None, sum(t.weight for t in rest), f"{numbers.count(len(rest), 'smaller term')} together")
        rows.append(_term(left, unit))
    return CauseSum(
        cause.cause,
        story.cause_title(cause.cause),
        cause.cause.group.value,
        cause.grade.value,
        numbers.percent(cause.confidence),
        share(cause.confidence, 1.0),
        f"{cause.log_odds:+.1f}",
        tuple(rows),
        _term(Contribution(None, cause.log_odds, "sum"), unit),
        wins,
    )


def _term(term: Contribution, unit: float) -> Term:
    length = min(round(abs(term.weight) * unit, 1), BAR) if math.isfinite(term.weight) else BAR
    favours = term.weight >= 0
    return Term(
        f"{term.weight:+.1f}",
        BAR if favours else round(BAR - length, 1),
        length,
        favours,
        term.reason,
        term.finding_id or "",
    )


def margin(report: Report) -> str:
    """By how much the winner leads, in words; empty without a second cause."""
    best = story.winner(report)
    others = [c for c in report.diagnosis.causes if c is not best]
    if best is None or not others:
        return ""
    second = max(others, key=lambda c: c.log_odds)
    lead = best.log_odds - second.log_odds
    if lead <= 0:
        return ""
    strongest = max((t for t in best.contributions if t.finding_id), key=lambda t: t.weight, default=None)
    odds = f"about {numbers.number(math.exp(lead), 2)} to 1" if lead < math.log(1000) else "more than 1,000 to 1"
    words = f"It leads {second.cause.value} by {lead:.1f} log-odds, {odds}."
    if strongest is not None and strongest.weight > 0:
        without = lead - strongest.weight
        end = "would still lead" if without > 0 else "would no longer lead"
        words += f" Without its strongest term ({strongest.finding_id}, {strongest.weight:+.1f}) it {end}."
    return words
