"""CKD143: a loss of one's own takes a spread from a linear unit."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, LayerSpec, ModelSpec, Replay, Severity
from ckptdoctor.rules.anatomy import output_layers
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.symptoms import own_losses, went_nonfinite

SPREAD = re.compile(r"sigma|std|stdev|spread|scale|var(iance)?(_|$|\d)|deviation|precision|width", re.IGNORECASE)
LOGARITHM = re.compile(r"log|raw", re.IGNORECASE)
JOINS = {"Concatenate", "Stack"}


@rule(
    code="CKD143",
    name="unbounded-spread",
    severity=Severity.WARNING,
    needs={"spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    In a run that went non-finite under a loss of its own: an output that is named as a spread (sigma, std, variance, scale) and
    comes from a linear unit.
    ## Why it matters
    A likelihood takes the logarithm of its spread and divides by it. A linear unit goes below zero for some row sooner or later,
    and the logarithm is NaN.
    ## How to confirm
    The smallest value of that output over the recorded batches.
    ## How to fix
    `softplus(...) + 1e-3` on that unit, or let it give the logarithm of the variance.
    ## References
    Nix and Weigend 1994 let the unit give the logarithm; a failure that is often reported for mean-and-variance networks.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    if not own_losses(spec) or not went_nonfinite(evidence):
        return
    for layer in _heads(spec):
        if layer.activation != "linear" or not SPREAD.search(layer.name) or LOGARITHM.search(layer.name):
            continue
        why = f"{layer.name} may go below zero, where a spread has no logarithm"
        yield Finding(
            rule="CKD143",
            severity=Severity.WARNING,
            message=f"{layer.name} is linear: a spread that the loss takes the logarithm of may come out below zero{_lowest(evidence, layer)}.",
            layer=layer.name,
            votes=votes((Cause.ACTIVATION, 2.5, why), (Cause.LOSS_FUNCTION, 1.5, why)),
            data={
                "locates": True,
                "fix": f"Keep {layer.name} above zero.",
                "code": f'keras.ops.softplus(x) + 1e-3  # instead of the linear output of "{layer.name}"',
            },
        )
        return


def _heads(spec: ModelSpec) -> Iterator[LayerSpec]:
    """The layers that give the outputs; where an output joins several, those."""
    for layer in output_layers(spec):
        if layer.class_name in JOINS:
            yield from (one for name in layer.inbound if (one := spec.layer(name)) is not None)
        else:
            yield layer


def _lowest(evidence: Evidence, layer: LayerSpec) -> str:
    """What a replay saw of that output, in words; empty without one."""
    replay = evidence.replay
    seen = (*replay.activity_end, *replay.activity) if isinstance(replay, Replay) else ()
    low = next((a.output.min for a in seen if a.layer == layer.name and a.output.min is not None), None)
    return f" (its lowest on the recorded batches is {low:.3g})" if low is not None and low < 0 else ""
