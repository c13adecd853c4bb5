"""CKD119: weights before training far from the scale that suits their layer."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.evidence.initializers import fans
from ckptdoctor.model import Cause, Census, Evidence, Finding, Role, Severity, Timeline
from ckptdoctor.rules.parts import maybe_spec, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import went_nonfinite


def initial_census(evidence: Evidence) -> Census | None:
    """The checkpoint from before the first step, where the run kept one."""
    if isinstance(evidence.timeline, Timeline):
        for point in evidence.timeline.points:
            if isinstance(point.census, Census) and point.census.iterations == 0:
                return point.census
    if isinstance(evidence.census, Census) and evidence.census.iterations == 0:
        return evidence.census
    return None


@rule(
    code="CKD119",
    name="initial-scale",
    severity=Severity.WARNING,
    needs={"census"},
    since="0.1.0",
    thresholds={
        "large": Threshold(
            4.0, unit="std ÷ He std", source="hand-chosen; each layer multiplies the signal by about this factor"
        ),
        "small": Threshold(
            0.08, unit="std ÷ He std", source="hand-chosen; each layer divides the signal by about this factor"
        ),
    },
    doc="""
    ## What it finds
    Kernels that, before the first step, are constant, or whose spread is far above or below √(2 / fan-in).
    ## Why it matters
    With that spread a relu layer keeps the size of its signal. A factor of four too large in every layer makes the
    signal, and the gradient, grow fourfold a layer; a factor of ten too small makes them vanish; a constant makes all units equal.
    ## How to confirm
    The checkpoint from before training; the initialiser in the configuration.
    ## How to fix
    `kernel_initializer="he_normal"` before relu, `"glorot_uniform"` otherwise.
    ## References
    He et al. 2015; Glorot and Bengio 2010; DeepDiagnosis' and SageMaker Debugger's variance checks at start.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    census = initial_census(evidence)
    if census is None:
        return
    odd: list[tuple[str, str, float]] = []
    kernels = 0
    for t in census.of_role(Role.WEIGHT):
        if (
            len(t.info.shape) < 2
            or t.std is None
            or "embedding" in t.info.variable
            or not _judged(evidence, t.info.layer)
        ):
            continue
        kernels += 1
        ratio = t.std / (2.0 / max(fans(t.info.shape)[0], 1)) ** 0.5
        if ratio > limits["large"] or ratio < limits["small"]:
            odd.append((t.info.layer or t.info.path, t.info.variable, ratio))
    if not odd:
        return
    layer, variable, ratio = max(odd, key=lambda o: o[2]) if went_nonfinite(evidence) else odd[0]
    constant = ratio < 1e-6
    what = "constant" if constant else f"{ratio:.2g} times the usual spread"
    most = len(odd) >= 0.5 * kernels
    yield Finding(
        rule="CKD119",
        severity=Severity.WARNING,
        message=f"Before training, {len(odd)} of {kernels} kernels had an unusual scale; {layer}/{variable} was {what}.",
        layer=layer,
        variable=variable,
        step=0,
        measured=ratio,
        threshold=limits["large"] if ratio > 1 else limits["small"],
        unit="std ÷ √(2 / fan-in)",
        votes=votes(
            (
                Cause.INITIALIZATION,
                (3.0 if constant else 2.0) if most else 1.0,
                "the state at step 0 is already unusual",
            ),
            (
                Cause.VANISHING_GRADIENTS,
                1.0 if not constant and ratio < 1 else 0.0,
                "small initial kernels shrink signal and gradient",
            ),
            (Cause.EXPLODING_GRADIENTS, 1.0 if ratio > 1 else 0.0, "large initial kernels grow signal and gradient"),
        ),
    )


def _judged(evidence: Evidence, layer: str | None) -> bool:
    """Pre-trained, frozen and custom layers are not judged by an initialiser's scale."""
    spec = maybe_spec(evidence)
    known = spec.layer(layer) if spec is not None and layer is not None else None
    return known is None or (known.trainable and known.registered is None)
