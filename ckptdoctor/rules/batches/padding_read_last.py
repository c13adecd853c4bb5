"""CKD420: a recurrence that reads padding after the last word."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, LayerSpec, ModelSpec, Severity
from ckptdoctor.rules.parts import batches_of, spec_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill

RECURRENT = {"SimpleRNN", "LSTM", "GRU"}


@rule(
    code="CKD420",
    name="padding-read-last",
    severity=Severity.INFO,
    needs={"batches", "spec"},
    since="0.1.0",
    thresholds={
        "share": Threshold(0.5, unit="share of a row's steps that are padding at its end", source="hand-chosen"),
        "steps": Threshold(
            15.0, unit="time steps", source="hand-chosen: a fresh LSTM halves what it holds with every step or two"
        ),
    },
    doc="""
    ## What it finds
    Sequences filled up with zeros at their end, read by a recurrent layer without a mask whose last state is all that is used.
    ## Why it matters
    A fresh forget gate lets about half of the state through at every step: after dozens of empty steps nothing of the sequence
    is left, every row looks the same, and there is no gradient back to the words.
    ## How to confirm
    Compare the layer's output for two rows, with and without the padding cut off.
    ## How to fix
    `mask_zero=True` in the embedding (or a Masking layer), or pad in front: `pad_sequences(x, padding="pre")`.
    ## References
    Keras' guide to masking and padding; a failure that is often reported for text classifiers.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    reader = _reads_last_state(spec)
    if reader is None or _masked(spec) or standstill(evidence) is None:
        return
    for array in batches_of(evidence).inputs:
        steps = array.shape[2] if len(array.shape) >= 3 else 0
        if array.padding is None or array.padding < limits["share"] or array.padding * steps < limits["steps"]:
            continue
        empty = round(array.padding * steps)
        yield Finding(
            rule="CKD420",
            severity=Severity.WARNING,
            message=f"{reader.name} ({reader.class_name}) reads about {empty} steps of padding after the last step of {array.name} "
            "that says something, and nothing masks them.",
            layer=reader.name,
            measured=array.padding,
            threshold=limits["share"],
            unit="share of a row's steps that are padding at its end",
            votes=votes(
                (Cause.ARCHITECTURE, 2.4, "the padding is not masked, and the recurrence ends with it"),
                (Cause.VANISHING_GRADIENTS, 1.0, f"{empty} empty steps lie between the words and the loss"),
            ),
            data={
                "fix": f"Mask the padding, or put it in front, so that {reader.name} ends with a word.",
                "code": 'keras.layers.Embedding(..., mask_zero=True)  # or pad_sequences(x, padding="pre")',
            },
        )
        return


def _reads_last_state(spec: ModelSpec) -> LayerSpec | None:
    """The first recurrent layer that gives only its last state; in both directions, one of them is spared the padding."""
    for layer in spec.layers:
        if layer.class_name in RECURRENT and not layer.config.get("return_sequences"):
            return None if layer.config.get("go_backwards") else layer
    return None


def _masked(spec: ModelSpec) -> bool:
    return any(layer.class_name == "Masking" or layer.config.get("mask_zero") for layer in spec.layers)
