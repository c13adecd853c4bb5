"""CKD410: token ids outside the vocabulary of their embedding."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.batches.input_scale import first_layers
from ckptdoctor.rules.parts import batches_of, spec_of, votes
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD410",
    name="token-ids-out-of-range",
    severity=Severity.ERROR,
    needs={"batches", "spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    Token ids that are negative or not below the embedding's `input_dim`.
    ## Why it matters
    The CPU raises an error; a GPU returns zeros or NaN for them, silently.
    ## How to confirm
    `x.min(), x.max()` against `input_dim`.
    ## How to fix
    `input_dim = vocabulary size + 1` where id 0 is padding; map unknown words to one id.
    ## References
    TensorFlow's documentation of `tf.gather` on CPU and GPU.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec, batches = spec_of(evidence), batches_of(evidence)
    embeddings = [layer for layer in first_layers(spec) if layer.class_name == "Embedding"]
    if len(embeddings) != 1 or len(batches.inputs) != 1:
        return
    size, array = embeddings[0].config.get("input_dim"), batches.inputs[0]
    if not isinstance(size, int) or array.min is None or array.max is None or (array.min >= 0 and array.max < size):
        return
    yield Finding(
        rule="CKD410",
        severity=Severity.ERROR,
        message=f"Token ids of {array.name} run from {array.min:g} to {array.max:g}, but {embeddings[0].name} holds 0 to {size - 1}.",
        layer=embeddings[0].name,
        measured=array.max if array.max >= size else array.min,
        threshold=float(size - 1),
        unit="token id",
        votes=votes(
            (Cause.ARCHITECTURE, 3.5, "the embedding is too small for the ids"),
            (Cause.DATA_NONFINITE, 2.0, "ids the model does not have"),
        ),
    )
