"""CKD135: the optimizer has only ever seen gradients of zero."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Census, Evidence, Finding, Role, Severity
from ckptdoctor.rules.anatomy import computes_in_half, units_can_die
from ckptdoctor.rules.parts import maybe_spec, optimizer_of, optimizer_spec_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import own_losses


@rule(
    code="CKD135",
    name="zero-gradients",
    severity=Severity.ERROR,
    needs={"optimizer"},
    since="0.1.0",
    thresholds={
        "steps": Threshold(
            10.0, unit="optimizer steps", source="hand-chosen: a few empty batches may give zero gradients"
        )
    },
    doc="""
    ## What it finds
    Optimizer slots that are all exactly zero although the optimizer took steps.
    ## Why it matters
    Momentum and second moments keep every gradient they have seen. If all of them are zero, so was every gradient: nothing
    was learned, whatever the loss shows.
    ## How to confirm
    The gradient of one batch.
    ## How to fix
    In float16 scale the loss (the global policy `mixed_float16` does). Otherwise look for a dead layer, a loss that does
    not depend on the weights, or a learning phase that stops the gradient.
    ## References
    Definition of the moments; numbers below 6e-8 are zero in float16.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    state = optimizer_of(evidence)
    if not state.untouched_slots or (state.iterations or 0) < limits["steps"]:
        return
    spec = maybe_spec(evidence)
    half = computes_in_half(spec)
    optimizer = optimizer_spec_of(spec)
    scaled = optimizer is not None and optimizer.loss_scaled
    dying = units_can_die(spec)
    wanted = optimizer.config.get("gradient_accumulation_steps") if optimizer is not None else None
    if isinstance(wanted, int) and wanted > (state.iterations or 0):
        yield _never_enough(wanted, state.iterations or 0)
        return
    zero = _zero_kernels(evidence)
    if len(zero) > 1:
        yield _nothing_to_multiply(state.iterations or 0, zero)
        return
    yield Finding(
        rule="CKD135",
        severity=Severity.ERROR,
        message=f"After {state.iterations:,} steps every slot of the optimizer is zero: all gradients were exactly 0.",
        measured=0.0,
        threshold=limits["steps"],
        unit="optimizer steps",
        votes=votes(
            (Cause.MIXED_PRECISION, 3.5 if half and not scaled else 0.0, "gradients below 6e-8 are zero in float16"),
            (Cause.ACTIVATION, 1.5 if dying else -1.0, DEAD if dying else "no activation of the model is exactly flat"),
            (Cause.VANISHING_GRADIENTS, 1.0, "no gradient arrives"),
            (
                Cause.LOSS_FUNCTION,
                _loss_weight(dying=dying, own=own_losses(spec)),
                "a loss may not depend on the weights",
            ),
        ),
    )


def _zero_kernels(evidence: Evidence) -> list[str]:
    """Trainable weights of two axes or more that are zero throughout, as they still are after training."""
    census = evidence.census
    if not isinstance(census, Census):
        return []
    return [
        t.info.label
        for t in census.of_role(Role.WEIGHT)
        if len(t.info.shape) > 1 and t.absmax == 0 and t.info.trainable is not False
    ]


def _nothing_to_multiply(taken: int, zero: list[str]) -> Finding:
    why = "the gradient of a weight is multiplied by the weights after it: where both are zero, neither ever moves"
    return Finding(
        rule="CKD135",
        severity=Severity.ERROR,
        message=f"After {taken:,} steps every slot of the optimizer is zero, and {len(zero)} kernels are zero throughout, first {zero[0]}.",
        layer=zero[0].rpartition("/")[0] or None,
        measured=float(len(zero)),
        threshold=1.0,
        unit="kernels that are zero",
        votes=votes(
            (Cause.INITIALIZATION, 6.0, why),
            (Cause.ACTIVATION, -1.5, "zero kernels explain it"),
            (Cause.VANISHING_GRADIENTS, 1.0, "no gradient arrives"),
        ),
        data={
            "locates": True,
            "fix": "Draw one of the kernels that are multiplied at random; only the other may begin at zero.",
        },
    )


def _never_enough(wanted: int, taken: int) -> Finding:
    why = f"an update comes every {wanted} steps, and {taken} were taken"
    return Finding(
        rule="CKD135",
        severity=Severity.ERROR,
        message=f"The optimizer adds up gradients over {wanted} steps before it changes a weight, and only {taken:,} were taken: no update was ever made.",
        measured=float(taken),
        threshold=float(wanted),
        unit="optimizer steps",
        votes=votes((Cause.OPTIMIZER, 6.0, why), (Cause.LEARNING_RATE, 0.5, why)),
        data={"confirms": Cause.OPTIMIZER.value},
    )


DEAD = "dead units pass no gradient"


def _loss_weight(*, dying: bool, own: bool) -> float:
    """A step, a sign or a rounding in a loss of one's own has no slope; no built-in loss is like that."""
    return 0.8 if dying and not own else 1.2 if dying else 3.0 if own else 1.0
