"""Points of a model's graph that separate healthy layers from bad ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckptdoctor.evidence.graph import Order, downstream, upstream
from ckptdoctor.evidence.names import words
from ckptdoctor.model import LayerSpec, ModelSpec, Pattern, TensorStats

_NAMED = 8
"""Layers that a sentence spells out."""

_TAME = words(
    """linear relu relu6 leaky_relu prelu elu selu gelu silu tanh sigmoid hard_sigmoid hard_silu softmax softsign softplus
    mish celu"""
)
"""Activations that give finite values and gradients for every finite input of usual size."""


def downstream_only(spec: ModelSpec | None, order: Order, statistics: Sequence[TensorStats]) -> Iterator[Pattern]:
    """Moving statistics finite up to a point of the graph and bad behind it: the forward pass broke in between.

    The layer named is the first in between that can turn finite inputs into Inf or NaN, else the first in between.
    """
    if spec is None or not spec.graph_known:
        return
    bad = _names(order, (t for t in statistics if t.nonfinite))
    finite = _names(order, (t for t in statistics if not t.nonfinite)) - bad
    if not bad or not finite or finite & downstream(spec, *bad):
        return
    first = min(bad, key=order.rank)
    before = upstream(spec, first)
    last_finite = max(finite & before, key=order.rank, default=None)
    if last_finite is None:
        return
    passed = upstream(spec, last_finite) | {last_finite}
    between = [layer for layer in spec.layers if layer.name in before and layer.name not in passed]
    suspects = [layer.name for layer in between if _is_wild(layer)]
    named = [layer.name for layer in between]
    yield Pattern(
        kind="downstream_only",
        message=(
            f"Moving statistics are finite up to {last_finite} and non-finite from {first} on: the forward pass became "
            f"non-finite in {listed(named) if named else f'{first} itself'}."
        ),
        layer=(suspects or named or [first])[0],
        means="layer",
        count=len(bad),
        of=len(bad) + len(finite),
    )


def upstream_only(spec: ModelSpec | None, order: Order, trainable: Sequence[TensorStats]) -> Iterator[Pattern]:
    """Bad layers that are exactly those before a point of the graph, bad in every variable: the way back broke there.

    The layer named is the one that was passed last: one without weights that can make a gradient non-finite by itself,
    else the last bad one, whose own activation was.
    """
    if spec is None or not spec.graph_known:
        return
    bad = _names(order, (t for t in trainable if t.nonfinite))
    healthy = _names(order, (t for t in trainable if not t.nonfinite)) - bad
    in_bad = [t for t in trainable if (layer := order.layer(t.info.layer)) is not None and layer.name in bad]
    if not bad or not healthy or not all(_is_poisoned(t) for t in in_bad) or healthy & upstream(spec, *bad):
        return
    last = max(bad, key=order.rank)
    behind = downstream(spec, last)
    following = min(behind & healthy, key=order.rank, default=None)
    if following is None:
        return
    before = upstream(spec, following)
    between = [layer for layer in spec.layers if layer.name in behind and layer.name in before]
    suspects = [layer.name for layer in between if _is_wild(layer)]
    passing = f", passing {listed([layer.name for layer in between])}" if between else ""
    plural = "s" if len(bad) > 1 else ""
    yield Pattern(
        kind="upstream_only",
        message=(
            f"The {len(bad)} layer{plural} with weights up to {last} {'are' if plural else 'is'} non-finite, {following} and "
            f"what follows is finite: a gradient became non-finite on its way back from {following} to {last}{passing}."
        ),
        layer=suspects[0] if suspects else last,
        means="layer",
        count=len(bad),
        of=len(bad) + len(healthy),
    )


def listed(values: Sequence[object], count: int | None = None) -> str:
    """The first values with commas, and an ellipsis where there are more."""
    named = ", ".join(str(v) for v in values[:_NAMED])
    return named + (", …" if (count or len(values)) > _NAMED else "")


def _names(order: Order, tensors: Iterator[TensorStats]) -> set[str]:
    return {layer.name for t in tensors if (layer := order.layer(t.info.layer)) is not None}


def _is_wild(layer: LayerSpec) -> bool:
    """Whether a layer can turn finite values or gradients into Inf or NaN by itself."""
    return (
        layer.registered is not None
        or layer.class_name in ("Lambda", "TFOpLambda", "TensorFlowOpLayer")
        or (layer.activation is not None and layer.activation not in _TAME)
    )


def _is_poisoned(t: TensorStats) -> bool:
    """Bad throughout, or in whole rows of an embedding."""
    if not t.finite:
        return True
    rows = next((a for a in t.axes if a.axis == 0), None)
    return t.info.variable.rpartition("/")[2] == "embeddings" and rows is not None and 0 < rows.touched == rows.full
