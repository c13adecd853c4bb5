"""Where the non-finite entries stand, and what regularity there is in it.

Why patterns tell anything, measured on TensorFlow 2.21 after one bad step: row i of the first kernel is multiplied by
input feature i and nothing else; a NaN loss reaches every trainable weight but no moving statistic; a gradient that turns
NaN on its way back reaches only the layers it still has to pass; an overflow of a squared gradient shows in the second
moment before any weight. Later steps spread the NaN, hence `steps_since`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ckptdoctor.evidence.graph import Order, reads_input
from ckptdoctor.evidence.splits import downstream_only, listed, upstream_only
from ckptdoctor.model import (
    AxisNonfinite,
    Census,
    CompileSpec,
    Fingerprint,
    Missing,
    ModelSpec,
    OptimizerSpec,
    Pattern,
    Role,
    TensorStats,
)

_MAX_PATTERNS = 64
"""Per-tensor patterns that are kept; the whole-model ones come on top."""


def fingerprint(census: Census, spec: ModelSpec | Missing, *, before: Census | None = None) -> Fingerprint:
    """The geometry of the non-finite entries.

    Args:
        census: with `axes` on every tensor that holds a non-finite entry.
        spec: the model; without it nothing is said about order and graph.
        before: the last healthy checkpoint of the run, for the number of steps in between.
    """
    model = spec if isinstance(spec, ModelSpec) else None
    scene = _Scene(census, model)
    patterns = (
        *islice(scene.tensor_patterns(), _MAX_PATTERNS),
        *scene.optimizer_patterns(),
        *scene.model_patterns(),
    )
    if not patterns and scene.bad:
        patterns = (scene.scattered(),)
    return Fingerprint(
        patterns=patterns,
        layers=scene.bad_layers,
        first_layer=scene.bad_layers[0] if scene.bad_layers and scene.order.known else None,
        steps_since=_steps(census, before),
    )


def _steps(census: Census, before: Census | None) -> int | None:
    if before is None or before.iterations is None or census.iterations is None:
        return None
    return max(census.iterations - before.iterations, 0)


class _Scene:
    """The tensors of a checkpoint, sorted by what they are for and by whether they are bad."""

    def __init__(self, census: Census, spec: ModelSpec | None) -> None:
        self.census = census
        self.spec = spec
        self.order = Order(census, spec)
        measured = [t for t in census.tensors if t.error is None and t.info.size]
        self.weights = [t for t in measured if t.info.role is Role.WEIGHT]
        self.statistics = [t for t in measured if t.info.role is Role.STATISTIC]
        self.slots = [t for t in measured if t.info.role is Role.SLOT]
        self.frozen = [t for t in self.weights if self._is_frozen(t)]
        self.trainable = [t for t in self.weights if not self._is_frozen(t)]
        self.bad = [t for t in (*self.weights, *self.statistics, *self.slots) if t.nonfinite]
        named = {t.info.layer for t in (*self.weights, *self.statistics) if t.nonfinite and t.info.layer is not None}
        self.bad_layers = tuple(sorted(named, key=self.order.rank))

    def _is_frozen(self, tensor: TensorStats) -> bool:
        if tensor.info.trainable is not None:
            return not tensor.info.trainable
        layer = self.order.layer(tensor.info.layer)
        return layer is not None and not layer.trainable

    # --- one tensor --------------------------------------------------------------------------

    def tensor_patterns(self) -> Iterator[Pattern]:
        """Rows, columns, channels and token rows, the layers nearest to the input first."""
        for t in sorted((t for t in self.weights if t.nonfinite), key=lambda t: self.order.rank(t.info.layer)):
            if t.info.variable.rpartition("/")[2] == "embeddings":
                yield from self._token_rows(t)
            elif len(t.info.shape) >= 2 and "kernel" in t.info.variable:
                yield from self._kernel(t)

    def _token_rows(self, t: TensorStats) -> Iterator[Pattern]:
        rows = _axis(t, 0)
        if rows is None or not rows.touched or rows.touched != rows.full or rows.touched == rows.extent:
            return
        yield Pattern(
            kind="embedding_rows",
            message=(
                f"{t.info.label} is {_what(t)} in {rows.touched} of {rows.extent} rows: token ids "
                f"{listed(rows.indices, rows.touched)}. Only tokens of a bad batch are touched."
            ),
            layer=t.info.layer,
            variable=t.info.variable,
            means="token id",
            indices=rows.indices,
            count=rows.touched,
            of=rows.extent,
        )

    def _kernel(self, t: TensorStats) -> Iterator[Pattern]:
        rank = len(t.info.shape)
        incoming, outgoing = _axis(t, rank - 2), _axis(t, rank - 1)
        if incoming is None or outgoing is None:
            return
        convolution = rank > 2
        if _is_selection(incoming) and outgoing.touched == outgoing.extent:
            yield self._rows(t, incoming, convolution=convolution)
        elif _is_selection(outgoing) and incoming.touched == incoming.extent:
            yield self._columns(t, outgoing, convolution=convolution)
        elif not t.finite and self._swallowed(t):
            yield self._rows(t, incoming, convolution=convolution)

    def _swallowed(self, t: TensorStats) -> bool:
        """A kernel next to the input that is bad throughout while its own bias, and every other layer, is finite.

        The gradient of a kernel is input times the gradient of its output, that of the bias is the latter alone: with a
        finite bias only the input can have been bad.
        """
        if len(self.bad_layers) != 1:
            return False
        siblings = [w for w in self.trainable if w.info.layer == t.info.layer and w.info.path != t.info.path]
        return bool(siblings) and not any(w.nonfinite for w in siblings) and self._next_to_input(t)

    def _next_to_input(self, t: TensorStats) -> bool:
        if "recurrent" in t.info.variable:
            return False
        layer = self.order.layer(t.info.layer)
        if self.spec is not None and self.spec.graph_known and layer is not None:
            return reads_input(self.spec, layer.name)
        # Without a graph: were it not the input, the unit that gave the NaN would have bad weights of its own.
        return len(self.bad_layers) == 1

    def _rows(self, t: TensorStats, rows: AxisNonfinite, *, convolution: bool) -> Pattern:
        first = self._next_to_input(t)
        what = ("input channel" if convolution else "input feature") if first else "unit of the layer before"
        which = "all" if rows.touched == rows.extent else listed(rows.indices, rows.touched)
        rest = "; its bias is finite" if rows.touched == rows.extent else "; all others are finite"
        return Pattern(
            kind="channel" if convolution else "kernel_rows",
            message=f"{t.info.label} is {_what(t)} exactly for {what} {which} ({rows.touched} of {rows.extent}){rest}.",
            layer=t.info.layer,
            variable=t.info.variable,
            means=what,
            indices=rows.indices,
            count=rows.touched,
            of=rows.extent,
        )

    def _columns(self, t: TensorStats, columns: AxisNonfinite, *, convolution: bool) -> Pattern:
        what = "output channel" if convolution else "unit"
        return Pattern(
            kind="channel" if convolution else "kernel_columns",
            message=(
                f"{t.info.label} is {_what(t)} exactly for {what} {listed(columns.indices, columns.touched)} "
                f"({columns.touched} of {columns.extent}); all others are finite."
            ),
            layer=t.info.layer,
            variable=t.info.variable,
            means=what,
            indices=columns.indices,
            count=columns.touched,
            of=columns.extent,
        )

    # --- the optimizer -------------------------------------------------------------------------

    def optimizer_patterns(self) -> Iterator[Pattern]:
        """Bad optimizer scalars, and bad slots beside finite weights."""
        scalars = {name: value for name, value in self.census.scalars.items() if not abs(value) < float("inf")}
        for t in self.census.of_role(Role.OPTIMIZER):
            if t.nonfinite:
                scalars.setdefault(t.info.variable, float("nan"))
        rate = self._configured_rate()
        if rate is not None and not abs(rate) < float("inf"):
            scalars.setdefault("learning_rate", rate)
        if scalars:
            told = ", ".join(f"{name} is {_spelled(value)}" for name, value in sorted(scalars.items()))
            yield Pattern(
                kind="optimizer_scalars",
                message=f"The optimizer's own {told}.",
                variable=min(scalars),
                count=len(scalars),
                of=max(len(self.census.scalars), len(scalars)),
            )
        bad = [t for t in self.slots if t.nonfinite]
        if bad and not any(t.nonfinite for t in (*self.weights, *self.statistics)):
            first = min(bad, key=lambda t: self.order.rank(t.info.layer))
            overflow = all(t.nan == 0 for t in bad)
            yield Pattern(
                kind="slots_only",
                message=(
                    f"All weights are finite, but {len(bad)} of {len(self.slots)} optimizer slots are not "
                    f"(first: {first.info.label}): "
                    + ("a squared gradient overflowed." if overflow else "a non-finite gradient was taken in.")
                ),
                layer=first.info.layer,
                variable=first.info.variable,
                means="slot",
                count=len(bad),
                of=len(self.slots),
            )

    def _configured_rate(self) -> float | None:
        compiled = self.spec.compile if self.spec is not None else None
        if not isinstance(compiled, CompileSpec) or not isinstance(compiled.optimizer, OptimizerSpec):
            return None
        rate = compiled.optimizer.learning_rate
        return None if isinstance(rate, Missing) else rate

    # --- the model as a whole ------------------------------------------------------------------

    def model_patterns(self) -> Iterator[Pattern]:
        """What the set of bad layers says, the most telling first."""
        weights_bad = [t for t in self.trainable if t.nonfinite]
        statistics_bad = [t for t in self.statistics if t.nonfinite]
        if statistics_bad and not any(t.nonfinite for t in self.weights):
            yield self._statistics_only(statistics_bad)
        every_trainable = bool(self.trainable) and len(weights_bad) == len(self.trainable)
        if statistics_bad and weights_bad and len(statistics_bad) < len(self.statistics):
            yield from downstream_only(self.spec, self.order, self.statistics)
        if weights_bad and not statistics_bad and not every_trainable:
            yield from upstream_only(self.spec, self.order, self.trainable)
        if every_trainable and self.statistics and not statistics_bad:
            yield self._trainables_only()
        if every_trainable and len(statistics_bad) == len(self.statistics):
            yield Pattern(
                kind="everything",
                message=f"All {len(self.trainable)} trainable weights"
                + (f" and all {len(self.statistics)} moving statistics" if self.statistics else "")
                + " hold non-finite entries.",
                count=len(self.trainable) + len(self.statistics),
                of=len(self.trainable) + len(self.statistics),
            )
        if every_trainable and self.frozen and not any(t.nonfinite for t in self.frozen):
            yield self._frozen_finite()
        layers = {t.info.layer for t in (*self.weights, *self.statistics)}
        if len(self.bad_layers) == 1 and len(layers) > 1:
            yield Pattern(
                kind="single_layer",
                message=f"Only {self.bad_layers[0]} is non-finite, one of {len(layers)} layers with weights.",
                layer=self.bad_layers[0],
                means="layer",
                count=1,
                of=len(layers),
            )

    def _statistics_only(self, bad: list[TensorStats]) -> Pattern:
        first = min(bad, key=lambda t: self.order.rank(t.info.layer))
        axis = first.axes[-1] if first.axes else None
        return Pattern(
            kind="statistics_only",
            message=(
                f"Only {len(bad)} of {len(self.statistics)} moving statistics are non-finite "
                f"(first: {first.info.label}); every trainable weight is finite."
            ),
            layer=first.info.layer,
            variable=first.info.variable,
            means="channel",
            indices=axis.indices if axis else (),
            count=axis.touched if axis else 0,
            of=axis.extent if axis else 0,
        )

    def _trainables_only(self) -> Pattern:
        partial = sum(1 for t in self.trainable if t.finite)
        return Pattern(
            kind="trainables_only",
            message=(
                f"All {len(self.trainable)} trainable weights hold non-finite entries"
                + (f" ({partial} of them only in part)" if partial else "")
                + f", but all {len(self.statistics)} moving statistics are finite: the forward pass was."
            ),
            count=len(self.trainable),
            of=len(self.trainable) + len(self.statistics),
        )

    def _frozen_finite(self) -> Pattern:
        layers = tuple(sorted({t.info.layer for t in self.frozen if t.info.layer}, key=self.order.rank))
        return Pattern(
            kind="frozen_finite",
            message=f"The frozen layers ({listed(layers)}) are finite, every trainable weight is not: updates brought it.",
            layer=layers[0] if layers else None,
            means="layer",
            count=len(layers),
            of=len({t.info.layer for t in self.weights}),
        )

    def scattered(self) -> Pattern:
        """Non-finite entries without any regularity that was looked for."""
        worst = max(self.bad, key=lambda t: t.nonfinite)
        axis = worst.axes[0] if worst.axes else None
        total = sum(t.nonfinite for t in self.bad)
        return Pattern(
            kind="scattered",
            message=(
                f"{total:,} non-finite entries in {len(self.bad)} tensors without a recognised order; "
                f"most in {worst.info.label} ({worst.nonfinite:,} of {worst.info.size:,})."
            ),
            layer=worst.info.layer,
            variable=worst.info.variable,
            means="row",
            indices=axis.indices if axis else (),
            count=total,
            of=sum(t.info.size for t in self.bad),
        )


def _axis(t: TensorStats, axis: int) -> AxisNonfinite | None:
    return next((a for a in t.axes if a.axis == axis), None)


def _is_selection(axis: AxisNonfinite) -> bool:
    """Some, not all, indices are bad, and each of these throughout."""
    return 0 < axis.touched == axis.full < axis.extent


def _what(t: TensorStats) -> str:
    """NaN spreads from anywhere; where only infinities stand, something overflowed right there."""
    if not t.posinf and not t.neginf:
        return "NaN"
    return "infinite" if not t.nan else "non-finite"


def _spelled(value: float) -> str:
    return "NaN" if value != value else ("+Inf" if value > 0 else "-Inf")
