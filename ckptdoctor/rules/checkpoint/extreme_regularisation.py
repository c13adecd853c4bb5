"""CKD133: layers that throw nearly everything away."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, ModelSpec, Severity
from ckptdoctor.rules.anatomy import HAS_KERNEL, head
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill

DROPOUTS = {"Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout", "GaussianDropout"}

STRONG = 0.005  # factor of a penalty on the kernel; hand-chosen: usual ones are 1e-5 to 1e-3


@rule(
    code="CKD133",
    name="information-thrown-away",
    severity=Severity.INFO,
    needs={"spec"},
    since="0.1.0",
    thresholds={
        "dropout": Threshold(0.8, unit="rate", source="UMLAUT warns above 0.5; hand-chosen higher"),
        "penalty": Threshold(0.1, unit="regularisation factor", source="hand-chosen: usual 1e-5 to 1e-2"),
        "neck": Threshold(2.0, unit="units", source="hand-chosen: one or two units before many outputs"),
    },
    doc="""
    ## What it finds
    A dropout that drops four fifths or more, a weight penalty that outweighs any loss, a hidden layer of one or two units before
    a head of many.
    ## Why it matters
    What is thrown away cannot be learned from: the output becomes the same for every row.
    ## How to confirm
    Train without it.
    ## How to fix
    Dropout of 0.1 to 0.5, penalties of 1e-5 to 1e-2, a neck as wide as the head.
    ## References
    Srivastava et al. 2014; UMLAUT.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    stuck = standstill(evidence) is not None
    found = head(spec)
    for layer in spec.layers:
        rate, penalty = layer.config.get("rate"), _penalty(layer.config.get("kernel_regularizer"))
        if layer.class_name in DROPOUTS and isinstance(rate, float) and rate >= limits["dropout"]:
            text, measured, unit = f"{layer.name} drops {rate:.0%} of its input", rate, "dropout"
        elif penalty is not None and penalty > limits["penalty"]:
            text, measured, unit = f"{layer.name} penalises its kernel by {penalty:g}", penalty, "penalty"
        elif (
            _is_neck(layer.class_name, layer.units, found[0].units if found else None, limits)
            and found
            and layer.name != found[0].name
        ):
            text, measured, unit = (
                f"{layer.name} squeezes everything through {layer.units} units before {found[0].units} outputs",
                float(layer.units or 0),
                "neck",
            )
        else:
            continue
        yield Finding(
            rule="CKD133",
            severity=Severity.WARNING if stuck else Severity.INFO,
            message=f"{text}.",
            layer=layer.name,
            measured=measured,
            threshold=limits[unit],
            unit=unit,
            votes=votes((Cause.ARCHITECTURE, 3.0 if stuck else 0.3, f"{text}")),
            data={"locates": stuck},
        )


def _is_neck(class_name: str, units: int | None, outputs: int | None, limits: Limits) -> bool:
    return (
        class_name in HAS_KERNEL
        and units is not None
        and outputs is not None
        and units <= limits["neck"]
        and outputs >= 2 * units + 1
    )


def heaviest_penalty(spec: ModelSpec | None) -> tuple[str, float]:
    """The layer with the strongest penalty on its kernel, and its factor; an empty name and 0 where none is strong."""
    found = (
        [(layer.name, _penalty(layer.config.get("kernel_regularizer")) or 0.0) for layer in spec.layers] if spec else []
    )
    strong = [one for one in found if one[1] >= STRONG]
    return max(strong, key=lambda one: one[1], default=("", 0.0))


def _penalty(config: object) -> float | None:
    inner = config.get("config") if isinstance(config, dict) else None
    if not isinstance(inner, dict):
        return None
    values = [v for k, v in inner.items() if k in ("l1", "l2", "factor") and isinstance(v, float)]
    return max(values, default=None)
