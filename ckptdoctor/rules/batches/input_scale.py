"""CKD403: inputs far from unit scale, or of very different scales."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckptdoctor.model import ArrayStats, Cause, Census, Evidence, Finding, LayerSpec, ModelSpec, Role, Severity
from ckptdoctor.rules.anatomy import NORMALISING
from ckptdoctor.rules.parts import batches_of, maybe_spec, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import went_nonfinite

RESCALING = NORMALISING | {"Normalization", "Rescaling", "Discretization"}
LOOKUPS = {"Embedding", "StringLookup", "IntegerLookup", "Hashing", "TextVectorization", "CategoryEncoding"}


def rms(array: ArrayStats) -> float | None:
    """Root mean square of an array over its finite entries."""
    if array.mean is None or array.std is None:
        return None
    return math.hypot(array.mean, array.std)


def first_layers(spec: ModelSpec | None) -> list[LayerSpec]:
    """The layers that take the model's inputs."""
    if spec is None:
        return []
    inputs = {layer.name for layer in spec.layers if layer.class_name == "InputLayer"}
    taking = [layer for layer in spec.layers if inputs & set(layer.inbound)]
    return taking or [layer for layer in spec.layers if layer.class_name != "InputLayer"][:1]


def feeds(spec: ModelSpec | None, classes: set[str] | frozenset[str]) -> bool:
    """Whether the inputs go straight into one of these layer classes."""
    return any(layer.class_name in classes for layer in first_layers(spec))


def takers(spec: ModelSpec | None, array: ArrayStats, inputs: int) -> list[LayerSpec]:
    """The layers that take one recorded input: by its name (`x_<input>`), else by its position (`x_0`), else all."""
    if spec is None:
        return []
    sources = [layer for layer in spec.layers if layer.class_name == "InputLayer"]
    key = array.name.removeprefix("x_")
    named = [layer for layer in sources if layer.name.rsplit("/", 1)[-1] == key]
    if not named and key.isdigit() and inputs == len(spec.inputs) and int(key) < len(spec.inputs):
        named = [layer for layer in sources if layer.name == spec.inputs[int(key)]]
    if not named or inputs == 1:
        return first_layers(spec)
    return [layer for layer in spec.layers if {n.name for n in named} & set(layer.inbound)]


def _looks_up(array: ArrayStats, evidence: Evidence) -> bool:
    """Without a configuration: whole numbers from 0, and a weight with a row for each of them, are tokens and an embedding."""
    census = evidence.census
    if not array.integral or array.min is None or array.min < 0 or array.max is None or not isinstance(census, Census):
        return False
    tables = [t.info.shape for t in census.of_role(Role.WEIGHT) if len(t.info.shape) == 2]
    return any(array.max < rows <= 2 * array.max + 16 and rows != array.shape[-1] for rows, _ in tables)


TWICE = 0.02
"""rms after a `Rescaling` layer below which its input was rescaled already: pixels have about 0.5 (hand-chosen)."""


def _rescaled_to(array: ArrayStats, size: float, taking: list[LayerSpec]) -> tuple[LayerSpec, float] | None:
    """The `Rescaling` layer that makes tiny numbers of an input of ordinary size, and their rms."""
    for layer in taking:
        scale, offset = layer.config.get("scale"), layer.config.get("offset", 0.0)
        if layer.class_name == "Rescaling" and isinstance(scale, int | float) and offset == 0 and array.max:
            after = size * abs(float(scale))
            if 0 < after < TWICE and abs(float(scale)) < TWICE:
                return layer, after
    return None


def _rescaled_twice(array: ArrayStats, layer: LayerSpec, after: float, limit: float) -> Finding:
    why = f"{layer.name} makes numbers of size {after:.1g} of inputs that were scaled before"
    return Finding(
        rule="CKD403",
        severity=Severity.WARNING,
        message=f"The inputs {array.name} reach {array.max:.3g}, and {layer.name} multiplies them by {layer.config.get('scale'):.3g}: they are scaled twice.",
        layer=layer.name,
        measured=after,
        threshold=limit,
        unit="rms",
        votes=votes((Cause.DATA_SCALE, 2.8, why)),
        data={"locates": True},
    )


@rule(
    code="CKD403",
    name="input-scale",
    severity=Severity.WARNING,
    needs={"batches"},
    since="0.1.0",
    thresholds={
        "rms": Threshold(
            8.0,
            unit="rms",
            source="initialisers assume inputs of about unit size; hand-chosen, DeepDiagnosis warns outside [-1, 1]",
        ),
        "targets": Threshold(50.0, unit="rms of targets", source="as CKD404"),
        "tiny_targets": Threshold(0.03, unit="rms of targets", source="as CKD404"),
        "tiny": Threshold(0.03, unit="rms", source="hand-chosen: signals and gradients shrink with the inputs"),
        "ordinary": Threshold(3.0, unit="rms", source="standardised features have 1; hand-chosen"),
        "disparity": Threshold(
            1e3, unit="largest ÷ median feature std", source="hand-chosen: curvature differs by the square"
        ),
    },
    doc="""
    ## What it finds
    Inputs whose values are far larger than 1, or features whose spreads differ by a factor of a thousand, where the first
    layer does not rescale them.
    ## Why it matters
    The curvature of the loss grows with the square of the input's size, so the learning rate that is stable shrinks with
    it. Large inputs also push tanh and sigmoid into their flat parts at the first step.
    ## How to confirm
    Train again on `(x - mean) / std`; replay does that.
    ## How to fix
    A `Normalization` layer adapted on the training data, `Rescaling(1/255)` for images.
    ## References
    LeCun et al. 1998, Efficient BackProp; DeepDiagnosis; SageMaker Debugger's input check.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = maybe_spec(evidence)
    failing = went_nonfinite(evidence)
    inputs = batches_of(evidence).inputs
    for array in inputs:
        size = rms(array)
        taking = takers(spec, array, len(inputs))
        if size is not None and (twice := _rescaled_to(array, size, taking)) is not None and not failing:
            yield _rescaled_twice(array, *twice, limits["tiny"])
            continue
        if size is None or any(layer.class_name in RESCALING | LOOKUPS for layer in taking):
            continue
        if spec is None and _looks_up(array, evidence):
            continue
        stds = sorted(f.std for f in array.features if f.std is not None and f.std > 0)
        disparity = stds[-1] / stds[len(stds) // 2] if len(stds) > 1 else 1.0
        if size > limits["rms"]:
            decades = math.log10(size / limits["rms"])
            weight = min(1.3 + 0.9 * decades, 3.5)
            yield Finding(
                rule="CKD403",
                severity=Severity.WARNING,
                message=f"The inputs {array.name} are not scaled: rms {size:.3g}, from {array.min:.3g} to {array.max:.3g}.",
                measured=size,
                threshold=limits["rms"],
                unit="rms",
                votes=votes(
                    (Cause.DATA_SCALE, weight, f"inputs are {size:.3g} in size where initialisers assume 1"),
                    (Cause.EXPLODING_GRADIENTS, 0.3 if failing else 0.0, "gradients grow with the inputs"),
                ),
            )
        elif 0 < size < limits["tiny"]:
            yield Finding(
                rule="CKD403",
                severity=Severity.WARNING,
                message=f"The inputs {array.name} are tiny: rms {size:.2g}, from {array.min:.2g} to {array.max:.2g}.",
                measured=size,
                threshold=limits["tiny"],
                unit="rms",
                votes=votes(
                    (
                        Cause.DATA_SCALE,
                        0.0 if failing else 2.5,
                        f"inputs are {size:.2g} in size where initialisers assume 1",
                    )
                ),
            )
        elif disparity > limits["disparity"]:
            yield Finding(
                rule="CKD403",
                severity=Severity.WARNING,
                message=f"Features of {array.name} differ {disparity:.2g}-fold in spread.",
                measured=disparity,
                threshold=limits["disparity"],
                unit="largest ÷ median feature std",
                votes=votes((Cause.DATA_SCALE, 1.2, "a few features outweigh all others")),
            )
        else:
            yield Finding(
                rule="CKD403",
                severity=Severity.INFO,
                message=f"The inputs {array.name} are of ordinary size: rms {size:.3g}.",
                measured=size,
                threshold=limits["rms"],
                unit="rms",
                votes=votes((Cause.DATA_SCALE, *_ordinary(size, evidence, limits))),
            )


def _ordinary(size: float, evidence: Evidence, limits: Limits) -> tuple[float, str]:
    """What inputs of ordinary size say against the scale of the data: little, where the targets' is another."""
    if size >= limits["ordinary"]:
        return 0.0, ""
    sizes = [rms(t) or 0.0 for t in batches_of(evidence).targets if not t.classes]
    odd = any(s > limits["targets"] or 0 < s < limits["tiny_targets"] for s in sizes)
    return (-0.3, "inputs are of ordinary size, targets are not") if odd else (-1.2, "inputs are of ordinary size")
