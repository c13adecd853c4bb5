"""CKD212: logged gradient norms that explode or vanish."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from ckptdoctor.evidence.log_signals import gradient_norm_series
from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.log.series import before_first_nonfinite
from ckptdoctor.rules.parts import logs_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD212",
    name="gradient-norms-logged",
    severity=Severity.WARNING,
    needs={"logs"},
    since="0.1.0",
    thresholds={
        "spike": Threshold(
            10.0,
            unit="× the median before",
            source="peft-doctor and runmedic: gradient spikes above 10 and 5 times the median",
        ),
        "vanished": Threshold(1e-7, unit="gradient norm", source="SageMaker Debugger: mean gradient below 1e-7"),
    },
    doc="""
    ## What it finds
    A logged gradient norm that jumped to ten times its median before the failure, or stays near zero.
    ## Why it matters
    A jump is the explosion itself; near zero nothing learns.
    ## How to confirm
    The gradient norm curve in the report.
    ## How to fix
    Clip by global norm below the usual value of the curve.
    ## References
    peft-doctor, runmedic, SageMaker Debugger.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    series = next((s for log in logs_of(evidence) if (s := gradient_norm_series(log)) is not None), None)
    if series is None:
        return
    values = before_first_nonfinite(series)
    if len(values) < 5:
        return
    usual = median(values[: max(len(values) // 2, 3)])
    if values[-1] > limits["spike"] * max(usual, 1e-30) and (series.first_nonfinite or went_nonfinite(evidence)):
        yield Finding(
            rule="CKD212",
            severity=Severity.WARNING,
            message=f"{series.name} jumped to {values[-1]:.3g}, {values[-1] / max(usual, 1e-30):.3g} times its median, before the failure.",
            measured=values[-1] / max(usual, 1e-30),
            threshold=limits["spike"],
            unit="× the median before",
            votes=votes(
                (Cause.EXPLODING_GRADIENTS, 2.5, "the gradient norm jumped"),
                (Cause.DATA_NONFINITE, -0.7, "bad data gives NaN, not a jump"),
            ),
        )
    elif median(values[-5:]) < limits["vanished"]:
        yield Finding(
            rule="CKD212",
            severity=Severity.INFO,
            message=f"{series.name} is {median(values[-5:]):.1e} at the end.",
            measured=median(values[-5:]),
            threshold=limits["vanished"],
            unit="gradient norm",
        )
