"""CKD101: weights that are NaN or infinite."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Census, Evidence, Finding, Role, Severity, TensorStats, Vote
from ckptdoctor.rules.parts import census_of, votes
from ckptdoctor.rules.registry import Limits, rule

MOST_LISTED = 5


@rule(
    code="CKD101",
    name="nonfinite-weights",
    severity=Severity.ERROR,
    needs={"census"},
    since="0.1.0",
    doc="""
    ## What it finds
    Layer weights or BatchNormalization statistics that hold NaN or an infinity. The count is exact: every entry is read.
    ## Why it matters
    One NaN in a weight makes every prediction that touches it NaN, and the next training step spreads it. Nothing
    can be continued from this checkpoint.
    ## How to confirm
    `np.isfinite(w).all()` over `model.get_weights()`.
    ## How to fix
    Do not repair the numbers: continue from the last healthy checkpoint after the cause is removed.
    ## References
    IEEE 754: every arithmetic operation on NaN gives NaN.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    census = census_of(evidence)
    bad = [t for t in census.of_role(Role.WEIGHT, Role.STATISTIC, Role.STATE) if t.nonfinite]
    if not bad:
        return
    layers = list(dict.fromkeys(t.info.layer or t.info.path for t in bad))
    first = _first(evidence, bad)
    total = sum(t.nonfinite for t in bad)
    shown = ", ".join(layers[:MOST_LISTED]) + (
        f" and {len(layers) - MOST_LISTED} more" if len(layers) > MOST_LISTED else ""
    )
    entries = "entry is" if total == 1 else "entries are"
    yield Finding(
        rule="CKD101",
        severity=Severity.ERROR,
        message=f"{total:,} {entries} {_kinds(bad)} in {len(bad)} of {_weights(census)} tensors, in {shown}.",
        layer=first.info.layer,
        variable=first.info.variable,
        step=census.iterations,
        measured=float(total),
        threshold=0.0,
        unit="non-finite entries",
        votes=(*_overflow(bad), *_company(census)),
    )


def _weights(census: Census) -> int:
    return len(census.of_role(Role.WEIGHT, Role.STATISTIC, Role.STATE))


def _first(evidence: Evidence, bad: list[TensorStats]) -> TensorStats:
    first_layer = getattr(evidence.fingerprint, "first_layer", None)
    return next((t for t in bad if t.info.layer == first_layer), bad[0])


def _kinds(bad: list[TensorStats]) -> str:
    words = [
        word
        for word, count in (("NaN", sum(t.nan for t in bad)), ("infinite", sum(t.posinf + t.neginf for t in bad)))
        if count
    ]
    return " or ".join(words)


def _overflow(bad: list[TensorStats]) -> tuple[Vote, ...]:
    """Infinities in half-precision weights: a value passed 65,504."""
    half = [t for t in bad if t.info.dtype.endswith("float16") and t.posinf + t.neginf and t.info.dtype != "bfloat16"]
    if not half:
        return ()
    return votes((Cause.MIXED_PRECISION, 1.0, "float16 weights hold infinities: values passed 65,504"))


ORDINARY = 100.0  # largest magnitude of an ordinary weight; hand-chosen, initialisers stay below 5
OVERFLOWING = 1e8  # TheDeepChecker calls weights of that size diverged


def _company(census: Census) -> tuple[Vote, ...]:
    """What the finite entries beside the bad ones tell: huge ones were on the same way, ordinary ones were not."""
    partly = [
        t
        for t in census.of_role(Role.WEIGHT)
        if t.absmax is not None and (t.nonfinite or len(t.info.shape) > 1) and t.finite >= 4
    ]
    if not partly:
        return ()
    largest = max(t.absmax or 0.0 for t in partly)
    if largest > OVERFLOWING:
        why = f"finite weights beside them reach {largest:.1e}: they overflowed"
        return votes(
            (Cause.LEARNING_RATE, 1.0, why),
            (Cause.EXPLODING_GRADIENTS, 1.2, why),
            (Cause.DATA_SCALE, 0.6, why),
            (Cause.DATA_NONFINITE, -3.0, why),
            (Cause.LABELS, -1.5, why),
            (Cause.LOSS_FUNCTION, -1.5, why),
        )
    if largest < ORDINARY:
        why = f"finite weights beside them stay below {largest:.2g}: nothing was growing"
        return votes(
            (Cause.LEARNING_RATE, -0.8, why), (Cause.EXPLODING_GRADIENTS, -0.8, why), (Cause.DATA_NONFINITE, 0.5, why)
        )
    return ()
