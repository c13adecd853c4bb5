"""CKD304: trainable weights that never moved."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Census, Evidence, Finding, Severity, TensorInfo
from ckptdoctor.rules.parts import maybe_spec, timeline_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import learning_rate, nothing_moved


@rule(
    code="CKD304",
    name="unmoved-weights",
    severity=Severity.INFO,
    needs={"timeline"},
    since="0.1.0",
    doc="""
    ## What it finds
    Trainable kernels whose statistics are the same in all checkpoints although the optimizer took steps.
    ## Why it matters
    They receive no gradient: dead units before or after them, a branch that does not reach the loss, or gradients that vanish.
    Layers frozen in the configuration are not counted.
    ## How to confirm
    Gradient norms per layer on one batch.
    ## How to fix
    Depends on the cause; see the other findings.
    ## References
    Exact equality of the census over checkpoints.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    unmoved = [info for info in _unmoved(evidence) if len(info.shape) > 1 and not _frozen(evidence, info)]
    if not unmoved:
        return
    stuck = standstill(evidence) is not None
    first = unmoved[0]
    loops = _loops_unused(evidence, unmoved)
    if stuck and nothing_moved(evidence):
        yield _all_of_them(unmoved, evidence)
        return
    yield Finding(
        rule="CKD304",
        severity=Severity.WARNING if stuck else Severity.INFO,
        message=f"{len(unmoved)} trainable kernels never moved, first {first.label}.",
        layer=first.layer,
        variable=first.variable,
        measured=float(len(unmoved)),
        threshold=0.0,
        unit="unmoved kernels",
        votes=votes(
            (Cause.ACTIVATION, 1.2 if stuck and not loops else 0.0, "no gradient reaches them: dead units"),
            (Cause.VANISHING_GRADIENTS, 1.0 if stuck and not loops else 0.0, "no gradient reaches them"),
            (
                Cause.ARCHITECTURE,
                3.5 if stuck and loops else 0.0,
                f"{first.layer} learns from its inputs but never from its own state: only its first step is used",
            ),
        ),
        data={"locates": stuck and loops},
    )


def _all_of_them(unmoved: list[TensorInfo], evidence: Evidence) -> Finding:
    rate = learning_rate(evidence)
    why = "not even the bias of the head moved, which every batch with an error gives a gradient: the step is zero"
    return Finding(
        rule="CKD304",
        severity=Severity.WARNING,
        message=f"No trainable weight ever moved, the bias of the head included{f'; the learning rate is {rate:g}' if rate is not None else ''}.",
        variable="learning_rate",
        measured=float(len(unmoved)),
        threshold=0.0,
        unit="unmoved kernels",
        votes=votes(
            (Cause.LEARNING_RATE, 3.5, why),
            (Cause.OPTIMIZER, 1.5, why),
            (Cause.ACTIVATION, -2.0, why),
            (Cause.VANISHING_GRADIENTS, -2.0, why),
        ),
    )


def _loops_unused(evidence: Evidence, unmoved: list[TensorInfo]) -> bool:
    """All that never moved are recurrent kernels whose layers' other kernels did: the sequence ends after one step."""
    went = {d.layer for d in timeline_of(evidence).displacement if d.variable.endswith("kernel") and d.distance > 0}
    return all("recurrent" in info.variable and info.layer in went for info in unmoved)


def _unmoved(evidence: Evidence) -> list[TensorInfo]:
    timeline = timeline_of(evidence)
    census = next((p.census for p in timeline.points if isinstance(p.census, Census)), None)
    if census is None:
        return []
    known = {t.info.path: t.info for t in census.tensors}
    return [known[path] for path in timeline.unmoved if path in known]


def _frozen(evidence: Evidence, info: TensorInfo) -> bool:
    spec = maybe_spec(evidence)
    if info.trainable is False:
        return True
    if spec is None or info.layer is None:
        return False
    parts = info.layer.split("/")
    above = [spec.layer("/".join(parts[: n + 1])) for n in range(len(parts))]
    return any(layer is not None and not layer.trainable for layer in above)
