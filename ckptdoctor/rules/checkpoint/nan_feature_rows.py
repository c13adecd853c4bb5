"""CKD102: kernel rows of single input features."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import fingerprint_of, votes
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD102",
    name="nan-feature-rows",
    severity=Severity.ERROR,
    needs={"census", "fingerprint"},
    since="0.1.0",
    doc="""
    ## What it finds
    A kernel next to the input whose non-finite entries fill exactly the rows of a few input features.
    ## Why it matters
    A row of such a kernel is multiplied by one input feature, and by nothing else. It can only become NaN alone when that
    feature was NaN or infinite in some batch, while the loss stayed finite (fused kernels and relu can swallow the NaN
    on its way forward). Tools that watch the loss cannot see this.
    ## How to confirm
    Look for non-finite values in that column of the training data: `np.flatnonzero(~np.isfinite(x[:, feature]))`.
    ## How to fix
    Repair or drop those rows in the data and continue from a checkpoint from before they were seen.
    ## References
    Gradient of a dense kernel: xᵀ·∂L/∂z; its row i holds x_i times finite numbers. Measured on TensorFlow 2.21.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    for pattern in fingerprint_of(evidence).patterns:
        if pattern.kind != "kernel_rows" or pattern.means != "input feature":
            continue
        named = ", ".join(str(i) for i in pattern.indices[:8]) + (", …" if pattern.count > 8 else "")
        plural = "s" if pattern.count > 1 else ""
        yield Finding(
            rule="CKD102",
            severity=Severity.ERROR,
            message=(
                f"In {pattern.layer}/{pattern.variable} exactly the row{plural} of input feature{plural} {named} "
                f"{'are' if plural else 'is'} non-finite: {'those features were' if plural else 'that feature was'} "
                "NaN or infinite in a batch."
            ),
            layer=pattern.layer,
            variable=pattern.variable,
            measured=float(pattern.count),
            threshold=0.0,
            unit=f"of {pattern.of} features",
            votes=votes(
                (Cause.DATA_NONFINITE, 5.0, "only a non-finite input can fill single feature rows of the first kernel"),
                (Cause.LEARNING_RATE, -2.0, "an overflow would not stop at single feature rows"),
                (Cause.EXPLODING_GRADIENTS, -2.0, "an overflow would not stop at single feature rows"),
                (Cause.LOSS_FUNCTION, -2.0, "a NaN loss would reach every row"),
                (Cause.LABELS, -2.0, "a NaN loss would reach every row"),
            ),
            data={"features": pattern.indices},
        )
