"""CKD144: attention over tokens that nothing tells their places."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, ModelSpec, Severity
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.standstill import standstill

ATTENTION = {"MultiHeadAttention", "GroupedQueryAttention", "Attention", "AdditiveAttention"}
ORDERED = (
    "Conv",
    "SeparableConv",
    "LSTM",
    "GRU",
    "SimpleRNN",
    "Bidirectional",
    "RNN",
    "TimeDistributed",
    "Flatten",
    "Position",
)
"""Beginnings of class names of layers whose output depends on the order of their input."""


@rule(
    code="CKD144",
    name="attention-without-positions",
    severity=Severity.INFO,
    needs={"spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    Attention over embedded tokens in a model where nothing depends on their order: no embedding of positions, no convolution, no
    recurrence, no flattening.
    ## Why it matters
    Attention treats its input as a bag: any order of the same tokens gives the same answer, so what depends on the order cannot
    be learned. For tasks that do not, it is no fault.
    ## How to confirm
    Shuffle the tokens of a row: the prediction stays the same.
    ## How to fix
    Add an embedding of the position (0, 1, 2 …) to that of the token.
    ## References
    Vaswani et al. 2017, section 3.5.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    found = next((layer for layer in spec.layers if layer.class_name in ATTENTION), None)
    if found is None or not spec.graph_known or not _unordered(spec):
        return
    stuck = standstill(evidence) is not None
    why = "the order of the tokens reaches no layer"
    yield Finding(
        rule="CKD144",
        severity=Severity.WARNING if stuck else Severity.INFO,
        message=f"{found.name} attends to tokens whose places nothing tells: the answer does not depend on their order.",
        layer=found.name,
        votes=votes((Cause.ARCHITECTURE, 1.8 if stuck else 0.0, why)),
        data={
            "fix": "Add an embedding of the position to that of the token.",
            "code": "x = tokens + keras.layers.Embedding(length, width)(keras.ops.arange(length))",
        },
    )


def _unordered(spec: ModelSpec) -> bool:
    embeddings = [layer for layer in spec.layers if layer.class_name == "Embedding"]
    own = any(layer.registered is not None for layer in spec.layers)
    ordered = any(layer.class_name.startswith(ORDERED) for layer in spec.layers)
    return len(embeddings) == 1 and not own and not ordered and len(spec.inputs) == 1
