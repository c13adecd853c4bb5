"""CKD146: a spread, or its logarithm, from a unit that is cut off at zero."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, LayerSpec, ModelSpec, Severity
from ckptdoctor.rules.anatomy import HAS_KERNEL
from ckptdoctor.rules.checkpoint.unbounded_spread import SPREAD
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import went_nonfinite

CUT = frozenset({"relu", "relu6", "threshold"})
LOGARITHM = re.compile(r"log_?(var|sigma|std|scale)", re.IGNORECASE)


@rule(
    code="CKD146",
    name="clipped-spread",
    severity=Severity.INFO,
    needs={"spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    In a run that fails: a unit that is named as a spread (sigma, std, variance) or as its logarithm, ends in relu, and is drawn
    from by a layer behind it or taken by a loss of one's own.
    ## Why it matters
    relu gives exactly 0 for about half of what it is given. A spread of 0 has no logarithm and nothing can be divided by it; a
    logarithm that cannot be below 0 is a spread of at least 1, noise as large as the code itself.
    ## How to confirm
    The smallest value of that layer's output on one batch.
    ## How to fix
    A spread: `softplus(...) + 1e-3`. Its logarithm: no activation at all.
    ## References
    Kingma and Welling 2014 let the encoder give the logarithm of the variance by a linear unit.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec, failing = spec_of(evidence), went_nonfinite(evidence)
    if not failing and standstill(evidence) is None:
        return
    for layer in spec.layers:
        if layer.class_name not in HAS_KERNEL or layer.activation not in CUT or not SPREAD.search(layer.name):
            continue
        logarithm = LOGARITHM.search(layer.name) is not None
        if not _is_drawn_from(spec, layer) or (failing and logarithm):
            continue
        why = (
            "it is never below 0: a spread of 1 or more" if logarithm else "it is 0 for many rows: it has no logarithm"
        )
        yield Finding(
            rule="CKD146",
            severity=Severity.WARNING,
            message=f"{layer.name} ends in {layer.activation}; as {'the logarithm of a spread' if logarithm else 'a spread'} {why}.",
            layer=layer.name,
            measured=layer.activation,
            threshold="linear" if logarithm else "softplus",
            votes=votes((Cause.ACTIVATION, 4.5, why), (Cause.LOSS_FUNCTION, 0.5, why)),
            data={
                "locates": True,
                "fix": f"Give {layer.name} no activation." if logarithm else f"Keep {layer.name} above zero.",
                "code": f'keras.layers.Dense({layer.units}, name="{layer.name}")'
                if logarithm
                else f'keras.ops.softplus(x) + 1e-3  # instead of the {layer.activation} of "{layer.name}"',
            },
        )
        return


def _is_drawn_from(spec: ModelSpec, layer: LayerSpec) -> bool:
    """An output, or taken together with another by a layer behind it; True where the graph is not known."""
    behind = [other for other in spec.layers if layer.name in other.inbound]
    return not spec.graph_known or layer.name in spec.outputs or any(len(other.inbound) > 1 for other in behind)
