"""Pure functions from (truth, document) to scores, and from scores to figures."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

ECE_BINS = 10
UNSEEN = "d"
"""The half of which only figures are shown, never a single case."""
CERTAIN = 0.5
"""Confidence from which on a verdict counts as a certainty in the metamorphic checks."""

PHASES: Mapping[str, frozenset[str]] = {
    "data_nonfinite": frozenset({"input"}),
    "labels": frozenset({"loss", "input"}),
    "data_scale": frozenset({"update", "forward"}),
    "learning_rate": frozenset({"update"}),
    "optimizer": frozenset({"update"}),
    "exploding_gradients": frozenset({"backward", "forward"}),
    "vanishing_gradients": frozenset({"backward"}),
    "activation": frozenset({"forward", "backward"}),
    "architecture": frozenset({"forward", "backward"}),
    "initialization": frozenset({"forward", "backward"}),
    "loss_function": frozenset({"loss", "backward"}),
    "mixed_precision": frozenset({"forward", "loss", "backward", "update"}),
}
"""The part of a training step in which a fault of that cause acts. Where there are two: a trap may stand in a formula's
value or in its slope, signals may explode along the depth in both directions, large inputs overflow a product or the
updates made of them. Half precision can overflow anywhere."""


@dataclass(frozen=True)
class CaseScore:
    """One case, judged. None: the question does not arise for this case.

    Attributes:
        cause_right: faulty cases: the verdict's cause is the truth's or one it accepts.
        exact: it is the truth's own.
        false_alarm: healthy cases: the verdict says `sick`.
        layer_right: cases whose truth names a layer.
        fix_found: an experiment of an accepted cause heals. fix_replayed: the same, None where replay gave no experiments.
        reproduced: replay's status; on a healthy case True is a false alarm of replay.
        replayed: faulty cases: the recorded batches were replayed. failure_repeated: of those whose run went non-finite:
            the replay did, too. phase, phase_right: the part of the step named by the origin, and whether a fault of
            that cause acts there; asked of repeated failures, and of finite runs for which a part is named.
        last_healthy_right, first_bad_right: the checkpoints named by the timeline.
        claims: the verdict names something (not `unknown`), so that its confidence can be judged.
    """

    name: str
    category: str
    half: str | None
    status: str
    cause: str
    grade: str
    confidence: float
    seconds: float
    cause_right: bool | None = None
    exact: bool | None = None
    status_right: bool = False
    false_alarm: bool | None = None
    layer: str | None = None
    layer_right: bool | None = None
    fix_found: bool | None = None
    fix_replayed: bool | None = None
    reproduced: bool | None = None
    last_healthy_right: bool | None = None
    first_bad_right: bool | None = None
    error: str = ""
    replayed: bool | None = None
    failure_repeated: bool | None = None
    phase: str | None = None
    phase_right: bool | None = None

    @property
    def claims(self) -> bool:
        """Whether the verdict names something whose confidence can be judged."""
        return not self.error and self.cause != "unknown"

    @property
    def right(self) -> bool:
        """A faulty run whose cause was named, or a healthy one left in peace."""
        return bool(self.cause_right) if self.false_alarm is None else not self.false_alarm

    def record(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def accepted(truth: Mapping[str, Any]) -> set[str]:
    """The causes a fair judge would accept."""
    return {truth["category"], *(truth.get("also_acceptable") or ())}


def same_layer(named: str | None, truth: str) -> bool:
    """Whether a flattened layer name (`outer/inner`) means the truth's layer."""
    if named is None:
        return False
    return named == truth or named.endswith(f"/{truth}") or truth.endswith(f"/{named}")


def score(
    name: str,
    truth: Mapping[str, Any],
    document: Mapping[str, Any] | None,
    *,
    replay: bool = True,
    seconds: float = 0.0,
    error: str = "",
) -> CaseScore:
    """Judge one document against the truth; None as document (with `error`) is wrong in every respect.

    Args:
        replay: whether experiments were asked for; without them no fix can be expected.
    """
    faulty = truth["category"] != "healthy"
    if document is None:
        document = {"verdict": {"status": "unreadable", "cause": "unknown", "grade": "unknown", "confidence": 0.0}}
        error = error or "no document"
    verdict = document["verdict"]
    causes = accepted(truth)
    layer = (document.get("origin") or {}).get("layer")
    healthy_right, bad_right = _timeline(truth, document.get("timeline"))
    return CaseScore(
        name=name,
        category=truth["category"],
        half=truth.get("half"),
        status=verdict["status"],
        cause=verdict["cause"],
        grade=verdict["grade"],
        confidence=float(verdict["confidence"]),
        seconds=seconds,
        cause_right=verdict["cause"] in causes if faulty else None,
        exact=verdict["cause"] == truth["category"] if faulty else None,
        status_right=verdict["status"] == ("sick" if faulty else "healthy"),
        false_alarm=None if faulty else verdict["status"] == "sick",
        layer=layer,
        layer_right=same_layer(layer, truth["faulty_layer"]) if faulty and truth.get("faulty_layer") else None,
        fix_found=bool(_fix(truth, document)) if replay and faulty and truth.get("fix_verified") else None,
        fix_replayed=_fix(truth, document) if faulty and truth.get("fix_verified") else None,
        reproduced=_reproduced(document),
        last_healthy_right=healthy_right,
        first_bad_right=bad_right,
        error=error,
        **_replayed(truth, document) if faulty and replay else {},
    )


def _replayed(truth: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """How far replay came with a faulty run, and the part of the step that is named."""
    ran = _reproduced(document)
    finite = truth.get("observed") == "finite"
    phase = (document.get("origin") or {}).get("phase")
    asked = ran is not None and (phase is not None if finite else ran)
    return {
        "replayed": ran is not None,
        "failure_repeated": None if finite else ran,
        "phase": phase,
        "phase_right": phase in PHASES[truth["category"]] if asked else None,
    }


def _reproduced(document: Mapping[str, Any]) -> bool | None:
    replay = document.get("replay")
    if not replay or replay["status"] in ("not_run", "failed"):
        return None
    return bool(replay["status"] == "reproduced")


def _fix(truth: Mapping[str, Any], document: Mapping[str, Any]) -> bool | None:
    """Whether an experiment of an accepted cause heals: no NaN any more, or, without a NaN, learning."""
    experiments = (document.get("replay") or {}).get("experiments") or []
    if not experiments:
        return None
    heals = "learns" if truth.get("observed") == "finite" else "removes_failure"
    return any(e["cause"] in accepted(truth) and e[heals] is True for e in experiments)


def _number(path: str | None) -> int | None:
    digits = re.findall(r"\d+", path.rsplit("/", 1)[-1]) if path else []
    return int(digits[0]) if digits else None


def _timeline(truth: Mapping[str, Any], timeline: Mapping[str, Any] | None) -> tuple[bool | None, bool | None]:
    """Whether last healthy and first bad are the checkpoints on both sides of the truth's first bad step."""
    first = (truth.get("buggy") or {}).get("first_bad")
    if not timeline or not first or not truth["buggy"].get("nanw"):
        return None, None
    kept = sorted(n for n in (_number(point["path"]) for point in timeline["checkpoints"]) if n is not None)
    before = [n for n in kept if n < first["epoch"]]
    after = [n for n in kept if n >= first["epoch"]]
    expected_healthy, expected_bad = (before[-1] if before else None), (after[0] if after else None)
    return _number(timeline["last_healthy"]) == expected_healthy, _number(timeline["first_bad"]) == expected_bad


# --- figures over many cases -------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """So many of so many."""

    hits: int
    of: int

    @property
    def value(self) -> float | None:
        """0 to 1; None of none."""
        return self.hits / self.of if self.of else None

    def __str__(self) -> str:
        return f"{self.hits}/{self.of}" + (f" ({100 * self.hits / self.of:.0f} %)" if self.of else "")


def share(values: Iterable[bool | None]) -> Share:
    """How many of the answers that are not None are True."""
    known = [bool(v) for v in values if v is not None]
    return Share(sum(known), len(known))


@dataclass(frozen=True)
class Bin:
    """One row of the reliability table: verdicts whose confidence lies in [low, high)."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability(scores: Sequence[CaseScore], bins: int = ECE_BINS) -> list[Bin]:
    """Mean confidence against the share that was right, in bins of equal width; empty bins are left out."""
    table = []
    claims = [s for s in scores if s.claims]
    for i in range(bins):
        low, high = i / bins, (i + 1) / bins
        members = [s for s in claims if low <= s.confidence < high or (i == bins - 1 and s.confidence >= high)]
        if members:
            mean = sum(s.confidence for s in members) / len(members)
            table.append(Bin(low, high, len(members), mean, sum(s.right for s in members) / len(members)))
    return table


def calibration_error(table: Sequence[Bin]) -> float | None:
    """Expected calibration error: |confidence - accuracy| weighted by the bins' sizes (Naeini et al., AAAI 2015)."""
    total = sum(b.count for b in table)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in table) / total if total else None


@dataclass(frozen=True)
class Totals:
    """The figures over a set of cases."""

    cause: Share
    exact: Share
    layer: Share
    fix: Share
    fix_replayed: Share
    status: Share
    false_alarms: Share
    reproduced_on_healthy: Share
    last_healthy: Share
    first_bad: Share
    unknown: Share
    errors: int
    calibration_error: float | None
    seconds: float

    def record(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def totals(scores: Sequence[CaseScore]) -> Totals:
    """Sum up."""
    return Totals(
        cause=share(s.cause_right for s in scores),
        exact=share(s.exact for s in scores),
        layer=share(s.layer_right for s in scores),
        fix=share(s.fix_found for s in scores),
        fix_replayed=share(s.fix_replayed for s in scores),
        status=share(s.status_right for s in scores),
        false_alarms=share(s.false_alarm for s in scores),
        reproduced_on_healthy=share(s.reproduced for s in scores if s.false_alarm is not None),
        last_healthy=share(s.last_healthy_right for s in scores),
        first_bad=share(s.first_bad_right for s in scores),
        unknown=share(s.cause == "unknown" for s in scores),
        errors=sum(bool(s.error) for s in scores),
        calibration_error=calibration_error(reliability(scores)),
        seconds=sum(s.seconds for s in scores) / len(scores) if scores else 0.0,
    )


@dataclass(frozen=True)
class ReplayTotals:
    """What replay came to over a set of faulty cases. `layer`, `fix`: of those that were replayed."""

    replayed: Share
    repeated: Share
    phase: Share
    layer: Share
    fix: Share


def replay_totals(scores: Sequence[CaseScore]) -> ReplayTotals:
    """Sum up; cases that were not asked to be replayed are left out."""
    ran = [s for s in scores if s.replayed]
    return ReplayTotals(
        replayed=share(s.replayed for s in scores),
        repeated=share(s.failure_repeated for s in ran),
        phase=share(s.phase_right for s in ran),
        layer=share(s.layer_right for s in ran),
        fix=share(s.fix_found for s in ran),
    )


def by_cause(scores: Sequence[CaseScore]) -> dict[str, Totals]:
    """The same for each true cause, healthy last."""
    names = sorted({s.category for s in scores}, key=lambda c: (c == "healthy", c))
    return {name: totals([s for s in scores if s.category == name]) for name in names}


def confusions(scores: Sequence[CaseScore]) -> dict[tuple[str, str], list[str]]:
    """(true cause, named cause) → names of the cases that were got wrong, most frequent first; those of `UNSEEN` stay unnamed."""
    wrong: dict[tuple[str, str], list[str]] = {}
    for s in scores:
        if not s.right:
            name = s.name if s.half != UNSEEN else f"one of half {UNSEEN}"
            wrong.setdefault((s.category, s.cause if s.status != "healthy" else "healthy"), []).append(name)
    return dict(sorted(wrong.items(), key=lambda item: (-len(item[1]), item[0])))


# --- metamorphic checks ------------------------------------------------------------------------


def renamed_differs(
    original: Mapping[str, Any], renamed: Mapping[str, Any], layers: Mapping[str, str] | None = None
) -> str:
    """A sentence where renaming changed the verdict, else empty. `layers`: old name to new."""
    a, b = original["verdict"], renamed["verdict"]
    if (a["status"], a["cause"]) != (b["status"], b["cause"]):
        return f"verdict {a['status']}/{a['cause']} became {b['status']}/{b['cause']}"
    if abs(a["confidence"] - b["confidence"]) > 0.02:
        return f"confidence {a['confidence']:.2f} became {b['confidence']:.2f}"
    before, after = (d.get("origin") or {} for d in (original, renamed))
    expected = before.get("layer")
    if expected is not None:
        expected = "/".join((layers or {}).get(part, part) for part in expected.split("/"))
    return "" if expected == after.get("layer") else f"layer {expected} became {after.get('layer')}"


def removal_flips(full: Mapping[str, Any], reduced: Mapping[str, Any], right: Collection[str] = ()) -> str:
    """A sentence where less evidence led from one certainty to another one, not among those that are `right`, else empty."""
    a, b = full["verdict"], reduced["verdict"]
    if b["cause"] in ("unknown", "healthy", *right) or b["status"] != "sick":
        return ""
    if b["cause"] != a["cause"] and min(a["confidence"], b["confidence"]) >= CERTAIN and a["cause"] != "unknown":
        return f"{a['cause']} at {a['confidence']:.2f} became {b['cause']} at {b['confidence']:.2f}"
    return ""
