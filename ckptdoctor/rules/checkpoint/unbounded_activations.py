"""CKD124: hidden activations that grow exponentially."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import RECURRENT, hidden_activations
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD124",
    name="unbounded-activations",
    severity=Severity.WARNING,
    needs={"spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    The exponential function as a hidden activation, or relu inside a recurrent layer.
    ## Why it matters
    exp passes float32's largest number at 88.7; two of them in a row need an input of 4.5. A relu recurrence multiplies its
    state by the recurrent kernel at every time step with nothing to bound it.
    ## How to confirm
    The range of that layer's output on one batch; replay shows it.
    ## How to fix
    relu or gelu in feed-forward layers; tanh in recurrent ones.
    ## References
    ln(3.4e38) = 88.7; Le, Jaitly and Hinton 2015 for relu recurrences.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    exponential = [layer for layer, activation in hidden_activations(spec) if activation in ("exponential", "exp")]
    recurrent = [
        layer
        for layer in spec.layers
        if layer.class_name in RECURRENT and layer.activation in ("relu", "linear", "exponential", "elu", "selu")
    ]
    failing = went_nonfinite(evidence)
    if exponential:
        yield Finding(
            rule="CKD124",
            severity=Severity.WARNING,
            message=f"{len(exponential)} hidden layer{'s use' if len(exponential) > 1 else ' uses'} the exponential activation, first {exponential[0].name}.",
            layer=exponential[0].name,
            measured=float(len(exponential)),
            unit="exponential activations",
            votes=votes(
                (
                    Cause.ACTIVATION,
                    (2.0 if len(exponential) == 1 else 4.0) if failing else 1.0,
                    "exp overflows above 88.7 in float32",
                ),
                (Cause.LEARNING_RATE, -0.5, "no learning rate tames a stack of exponentials"),
            ),
            data={"locates": len(exponential) > 1},
        )
    if recurrent:
        yield Finding(
            rule="CKD124",
            severity=Severity.WARNING,
            message=f"The recurrent layer {recurrent[0].name} uses {recurrent[0].activation}: its state is not bounded.",
            layer=recurrent[0].name,
            measured=recurrent[0].activation,
            votes=votes(
                (
                    Cause.EXPLODING_GRADIENTS,
                    1.8 if failing else 0.5,
                    "an unbounded recurrence grows with every time step",
                ),
                (Cause.ACTIVATION, 1.5 if failing else 0.5, "an unbounded recurrence grows with every time step"),
            ),
        )
