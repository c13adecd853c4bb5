"""CKD421: an embedding that is given fractions."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.batches.input_scale import takers
from ckptdoctor.rules.parts import batches_of, spec_of, votes
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD421",
    name="token-fractions",
    severity=Severity.ERROR,
    needs={"batches", "spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    Inputs of an Embedding that are no whole numbers.
    ## Why it matters
    An embedding looks rows up: what it is given is cut off to a whole number, without a word. Ids that went through a scaler
    with the other columns all become 0, or 0 and 1, and every row looks the same.
    ## How to confirm
    `np.unique(x.astype("int32"))` against the size of the vocabulary.
    ## How to fix
    Scale the numeric columns only; hand ids over as they are.
    ## References
    Keras' documentation of Embedding: its inputs are whole numbers.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    inputs = batches_of(evidence).inputs
    for array in inputs:
        layers = takers(spec_of(evidence), array, len(inputs))
        if array.integral or array.min is None or array.max is None or not layers:
            continue
        if any(layer.class_name != "Embedding" for layer in layers):
            continue
        why = f"{layers[0].name} cuts them off to whole numbers"
        yield Finding(
            rule="CKD421",
            severity=Severity.ERROR,
            message=f"{layers[0].name} (Embedding) is given fractions: {array.name} runs from {array.min:.3g} to {array.max:.3g}, and "
            "is cut off to whole numbers.",
            layer=layers[0].name,
            measured=array.max,
            unit="input",
            votes=votes((Cause.DATA_SCALE, 4.5, why), (Cause.ARCHITECTURE, 1.0, why)),
            data={
                "locates": True,
                "confirms": Cause.DATA_SCALE.value,
                "fix": f"Hand the ids of {array.name} over as they are; scale the numeric columns only.",
            },
        )
