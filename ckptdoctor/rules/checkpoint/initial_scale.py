"""CKD119: weights before training far from the scale that suits their layer."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckptdoctor.evidence.initializers import fans
from ckptdoctor.model import Cause, Census, Evidence, Finding, ModelSpec, Role, Severity, TensorStats, Timeline
from ckptdoctor.rules.anatomy import NORMALISING, RECURRENT, head
from ckptdoctor.rules.parts import maybe_spec, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import went_nonfinite

SMALLER_THAN_GLOROT = 0.5
"""Of He's spread: Glorot's is 0.7 of it for layers of equal width, 0.5 where the next is three times as wide."""

OFF = 1.5
"""Times the usual spread from which a kernel counts as off beside others of the same initialiser; hand-chosen."""

CONSTANT = 1e-6  # std ÷ He std below which all entries are one number
LARGER_THAN_HE = 1.8  # std ÷ He std of a kernel that grows its signal clearly; hand-chosen
FEW = 3  # kernels that make a trend


def initial_census(evidence: Evidence) -> Census | None:
    """The checkpoint from before the first step, where the run kept one."""
    if isinstance(evidence.timeline, Timeline):
        for point in evidence.timeline.points:
            if isinstance(point.census, Census) and point.census.iterations == 0:
                return point.census
    if isinstance(evidence.census, Census) and evidence.census.iterations == 0:
        return evidence.census
    return None


@rule(
    code="CKD119",
    name="initial-scale",
    severity=Severity.WARNING,
    needs={"census"},
    since="0.1.0",
    thresholds={
        "large": Threshold(
            4.0, unit="std ÷ He std", source="hand-chosen; each layer multiplies the signal by about this factor"
        ),
        "entries": Threshold(8.0, unit="entries", source="the spread of fewer is chance"),
        "embedding": Threshold(
            5.0, unit="rms", source="Keras starts embeddings within 0.05; tables with unit variance are common"
        ),
        "bias": Threshold(1.5, unit="|mean|", source="biases start at 0, forget gates at 1"),
        "set_bias": Threshold(
            7.0, unit="|bias|", source="the log-odds of a class with a share of one in a thousand is -6.9"
        ),
        "together": Threshold(
            0.01, unit="product of std ÷ He std", source="hand-chosen: a signal that shrinks a hundredfold on its way"
        ),
        "together_large": Threshold(
            300.0,
            unit="product of std ÷ He std",
            source="hand-chosen: a signal that grows to hundreds on its way, without a normalisation",
        ),
        "small": Threshold(
            0.08, unit="std ÷ He std", source="hand-chosen; each layer divides the signal by about this factor"
        ),
    },
    doc="""
    ## What it finds
    Kernels that, before the first step, are constant, or whose spread is far above or below √(2 / fan-in), each alone or
    all together; biases and embeddings that start far from zero.
    ## Why it matters
    With that spread a relu layer keeps the size of its signal. A factor of four too large in every layer makes the
    signal, and the gradient, grow fourfold a layer; a factor of ten too small makes them vanish; a constant makes all units equal.
    ## How to confirm
    The checkpoint from before training; the initialiser in the configuration.
    ## How to fix
    `kernel_initializer="he_normal"` before relu, `"glorot_uniform"` otherwise.
    ## References
    He et al. 2015; Glorot and Bengio 2010; DeepDiagnosis' and SageMaker Debugger's variance checks at start.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    yield from _by_configuration(evidence, limits)
    census = initial_census(evidence)
    if census is None:
        return
    yield from _empty_table(census, evidence)
    judged = [
        t
        for t in census.of_role(Role.WEIGHT)
        if t.std is not None and t.info.size >= limits["entries"] and _judged(evidence, t.info.layer)
    ]
    kernels = [
        t
        for t in judged
        if len(t.info.shape) > 1 and "embedding" not in t.info.variable and "bias" not in t.info.variable
    ]
    odd = [(t, r) for t in kernels if (r := spread_ratio(t)) > limits["large"] or r < limits["small"]]
    odd = [(t, r) for t, r in odd if not (r < CONSTANT and _is_head(t, evidence, alone=len(odd) == 1))]
    if odd:
        yield _kernels(odd, kernels, evidence, limits)
    elif (together := _together(kernels, evidence, limits)) is not None:
        yield together
    for t in judged:
        embedding = "embedding" in t.info.variable and (t.rms or 0.0) > limits["embedding"]
        bias = t.info.variable == "bias" and len(t.info.shape) == 1 and abs(t.mean or 0.0) > limits["bias"]
        if embedding or bias:
            yield _other(t, limits["embedding" if embedding else "bias"])
            return


def _is_head(t: TensorStats, evidence: Evidence, *, alone: bool) -> bool:
    """Whether it is the kernel of the last layer, and the only odd one: its units are told apart by their targets.

    Linear and softmax regressions are usually begun at zero, and so are the last layers of residual branches.
    """
    found = head(maybe_spec(evidence))
    return alone and found is not None and t.info.layer == found[0].name


def _empty_table(census: Census, evidence: Evidence) -> Iterator[Finding]:
    """An embedding that holds zeros only: whatever is looked up, the layers behind it are given nothing."""
    for t in census.of_role(Role.WEIGHT):
        if "embedding" in t.info.variable and t.rms == 0 and len(t.info.shape) == 2 and not went_nonfinite(evidence):
            frozen = t.info.trainable is False
            yield Finding(
                rule="CKD119",
                severity=Severity.WARNING,
                message=f"Before training, {t.info.label} held zeros only{', and it is frozen' if frozen else ''}.",
                layer=t.info.layer,
                variable=t.info.variable,
                step=0,
                measured=0.0,
                unit="rms",
                votes=votes(
                    (Cause.INITIALIZATION, 5.0 if frozen else 2.0, "every row looks the same to the layers behind it"),
                    (Cause.ACTIVATION, -1.0, "dead units follow from it"),
                ),
                data={"locates": True},
            )
            return


def spread_ratio(t: TensorStats) -> float:
    """Spread over that of He (or, for recurrences, orthogonal) initialisation."""
    gain = 1.0 if "recurrent" in t.info.variable else 2.0
    return float((t.std or 0.0) / math.sqrt(gain / max(fans(t.info.shape)[0], 1)))


def _first_of_its_kind(t: TensorStats, kernels: list[TensorStats], evidence: Evidence) -> TensorStats:
    """The first kernel that was drawn by the same hand-set initialiser and is off in the same direction."""
    spec = maybe_spec(evidence)
    drawn = _initialiser(spec, t.info.layer)
    if spec is None or drawn is None:
        return t
    large = spread_ratio(t) > 1
    order = {layer.name: n for n, layer in enumerate(spec.layers)}
    alike = [
        k
        for k in kernels
        if k.info.layer in order
        and _initialiser(spec, k.info.layer) == drawn
        and (spread_ratio(k) > OFF if large else spread_ratio(k) < 1 / OFF)
    ]
    return min(alike, key=lambda k: order[str(k.info.layer)], default=t)


def _initialiser(spec: ModelSpec | None, layer: str | None) -> object:
    known = spec.layer(layer) if spec is not None and layer is not None else None
    config = known.config.get("kernel_initializer") if known is not None else None
    if not isinstance(config, dict):
        return config
    return config.get("class_name"), {k: v for k, v in (config.get("config") or {}).items() if k != "seed"}


def _kernels(
    odd: list[tuple[TensorStats, float]], kernels: list[TensorStats], evidence: Evidence, limits: Limits
) -> Finding:
    failing = went_nonfinite(evidence)
    t, ratio = max(odd, key=lambda o: o[1]) if failing else odd[0]
    first = _first_of_its_kind(t, kernels, evidence)
    constant = ratio < CONSTANT
    what = "constant" if constant else f"{ratio:.2g} times the usual spread"
    most = len(odd) >= 0.5 * len(kernels)
    loud = (
        min((2.2 if most else 1.6) + 0.8 * abs(math.log10(ratio / limits["large" if ratio > 1 else "small"])), 3.0)
        if not constant
        else 3.0
    )
    return Finding(
        rule="CKD119",
        severity=Severity.WARNING,
        message=f"Before training, {len(odd)} of {len(kernels)} kernels had an unusual scale; {t.info.label} was {what}.",
        layer=first.info.layer,
        variable=first.info.variable,
        step=0,
        measured=ratio,
        threshold=limits["large"] if ratio > 1 else limits["small"],
        unit="std ÷ √(2 / fan-in)",
        votes=votes(
            (Cause.INITIALIZATION, loud if most or failing else 1.2, "the state at step 0 is already unusual"),
            (
                Cause.VANISHING_GRADIENTS,
                0.8 if not constant and ratio < 1 else 0.0,
                "small initial kernels shrink signal and gradient",
            ),
            (
                Cause.EXPLODING_GRADIENTS,
                0.0 if ratio <= 1 else 0.3 if most else 0.8,  # where most are large, the growth has its explanation
                "large initial kernels grow signal and gradient",
            ),
        ),
        data={"locates": most or failing},  # where it overflows is only where it showed
    )


def _other(t: TensorStats, limit: float) -> Finding:
    return Finding(
        rule="CKD119",
        severity=Severity.WARNING,
        message=f"Before training, {t.info.label} had rms {t.rms:.3g}, far from the usual.",
        layer=t.info.layer,
        variable=t.info.variable,
        step=0,
        measured=t.rms,
        threshold=limit,
        unit="rms",
        votes=votes((Cause.INITIALIZATION, 2.8, "the state at step 0 is already unusual")),
        data={"locates": True},
    )


def _judged(evidence: Evidence, layer: str | None) -> bool:
    """Pre-trained, frozen and custom layers are not judged by an initialiser's scale."""
    spec = maybe_spec(evidence)
    known = spec.layer(layer) if spec is not None and layer is not None else None
    return known is None or (known.trainable and known.registered is None)


def _by_configuration(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    """A bias set by hand to more than the log-odds of any class; the configuration tells it without a first checkpoint."""
    spec = maybe_spec(evidence)
    for layer in spec.layers if spec is not None else ():
        config = layer.config.get("bias_initializer")
        inner = config.get("config") if isinstance(config, dict) else None
        value = inner.get("value") if isinstance(inner, dict) else None
        if isinstance(value, int | float) and abs(value) > limits["set_bias"] and layer.registered is None:
            yield Finding(
                rule="CKD119",
                severity=Severity.WARNING,
                message=f"{layer.name} starts with a bias of {value:g}, set by its initialiser.",
                layer=layer.name,
                variable="bias",
                step=0,
                measured=float(value),
                threshold=limits["set_bias"],
                unit="|bias|",
                votes=votes((Cause.INITIALIZATION, 2.8, "the bias starts far outside the usual")),
                data={"locates": True},
            )
            return


def _growing(large: list[tuple[TensorStats, float]], first: TensorStats, limits: Limits) -> Finding:
    product = math.prod(r for _, r in large)
    why = "large initial kernels grow signal and gradient from layer to layer"
    return Finding(
        rule="CKD119",
        severity=Severity.WARNING,
        message=f"Before training, {len(large)} kernels had {min(r for _, r in large):.2g} times the usual spread or more; one after another they grow the signal {product:.1g} times.",
        layer=first.info.layer,
        variable=first.info.variable,
        step=0,
        measured=product,
        threshold=limits["together_large"],
        unit="product of std ÷ √(2 / fan-in)",
        votes=votes(
            (Cause.INITIALIZATION, 2.8, why),
            (Cause.EXPLODING_GRADIENTS, 1.2, why),
            (Cause.ACTIVATION, -0.8, "saturated and dead units follow from it"),
        ),
    )


def _together(kernels: list[TensorStats], evidence: Evidence, limits: Limits) -> Finding | None:
    """Kernels of which none is far off by itself, but the signal that passes all of them is."""
    spec = maybe_spec(evidence)
    if spec is None or any(layer.class_name in NORMALISING for layer in spec.layers):
        return None
    order = {layer.name: n for n, layer in enumerate(spec.layers)}
    gated = {layer.name for layer in spec.layers if layer.class_name in RECURRENT}  # four kernels drawn as one
    judged = [(t, spread_ratio(t)) for t in kernels if t.info.layer in order and t.info.layer not in gated]
    large = [(t, r) for t, r in judged if r > LARGER_THAN_HE]
    if len(large) >= FEW and math.prod(r for _, r in large) > limits["together_large"]:
        return _growing(large, min((t for t, _ in large), key=lambda t: order[str(t.info.layer)]), limits)
    small = [(t, r) for t, r in judged if r < SMALLER_THAN_GLOROT]
    product = math.prod(r for _, r in small)
    if len(small) < FEW or product > limits["together"]:
        return None
    first = min((t for t, _ in small), key=lambda t: order[str(t.info.layer)])
    return Finding(
        rule="CKD119",
        severity=Severity.WARNING,
        message=f"Before training, {len(small)} kernels had less than the usual spread; together they shrink the signal to {product:.1g} of its size.",
        layer=first.info.layer,
        variable=first.info.variable,
        step=0,
        measured=product,
        threshold=limits["together"],
        unit="product of std ÷ √(2 / fan-in)",
        votes=votes(
            (Cause.INITIALIZATION, 2.4, "small initial kernels shrink signal and gradient"),
            (Cause.VANISHING_GRADIENTS, 0.8, "small initial kernels shrink signal and gradient"),
        ),
    )
