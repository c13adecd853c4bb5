"""CKD139: a normalisation whose stored variance is below zero."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Census, Evidence, Finding, LayerSpec, Role, Severity, TensorStats
from ckptdoctor.rules.checkpoint.initial_scale import initial_census
from ckptdoctor.rules.parts import census_of, maybe_spec, votes
from ckptdoctor.rules.registry import Limits, rule

EPSILON = 1e-3
"""Keras' default, added before the square root."""


@rule(
    code="CKD139",
    name="negative-variance",
    severity=Severity.ERROR,
    needs={"census"},
    since="0.1.0",
    doc="""
    ## What it finds
    Entries of a moving variance that lie below zero by more than the epsilon that is added to them.
    ## Why it matters
    A variance is never negative, and its square root would be NaN: every prediction of that channel is, and in training too
    where the layer is frozen. No training step can make it so: the weights were filled from the wrong numbers (an offset in
    a file, swapped tensors), or the layer's momentum is not between 0 and 1.
    ## How to confirm
    `layer.moving_variance.numpy().min()`.
    ## How to fix
    Load the weights again and compare a few values with their source; let momentum lie between 0 and 1.
    ## References
    Ioffe & Szegedy 2015: y = (x - mean) / sqrt(variance + epsilon).
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    for census in (initial_census(evidence), census_of(evidence)):
        found = _worst(evidence, census)
        if found is None:
            continue
        stats, layer = found
        momentum = layer.config.get("momentum") if layer is not None else None
        outside = isinstance(momentum, int | float) and not 0 <= momentum <= 1
        why = f"a variance of {stats.min:.3g} has no square root"
        yield Finding(
            rule="CKD139",
            severity=Severity.ERROR,
            message=f"{stats.info.label} reaches down to {stats.min:.3g}: the layer divides by the square root of a negative number.",
            layer=stats.info.layer,
            variable=stats.info.variable,
            step=census.iterations if census is not None else None,
            measured=stats.min,
            threshold=0.0,
            unit="variance",
            votes=votes(
                (Cause.INITIALIZATION, 1.0 if outside else 6.0, why),
                (Cause.ARCHITECTURE, 6.0 if outside else 2.0, why),
                (Cause.LOSS_FUNCTION, -2.0, "the forward pass explains it"),
                (Cause.LABELS, -2.0, "the forward pass explains it"),
            ),
            data={"locates": True},
        )
        return


def _worst(evidence: Evidence, census: Census | None) -> tuple[TensorStats, LayerSpec | None] | None:
    spec = maybe_spec(evidence)
    found = []
    for stats in census.of_role(Role.STATISTIC) if census is not None else ():
        layer = spec.layer(stats.info.layer) if spec is not None and stats.info.layer else None
        epsilon = layer.config.get("epsilon", EPSILON) if layer is not None else EPSILON
        bound = float(epsilon) if isinstance(epsilon, int | float) else EPSILON
        if "variance" in stats.info.variable and stats.min is not None and stats.min < -bound:
            found.append((stats, layer))
    return min(found, key=lambda f: f[0].min or 0.0, default=None)
