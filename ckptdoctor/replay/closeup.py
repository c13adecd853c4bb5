"""The close look at one training step: eager, every op watched, every tensor that matters tested."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from ckptdoctor.model import ChainLink, NonfinitePoint, Phase
from ckptdoctor.replay.batches import Batch
from ckptdoctor.replay.dialect import raw
from ckptdoctor.replay.naming import operation_names
from ckptdoctor.replay.opwatch import OpRecord, OpWatch, bad_rows, floats, glimpse
from ckptdoctor.replay.state import Snapshot, put
from ckptdoctor.replay.step import TrainingStep, tensors

MAX_CHAIN = 120


@dataclass(slots=True)
class Observation:
    """Everything seen in one watched step."""

    watch: OpWatch
    batch: Batch
    inputs: tuple[Any, ...]
    targets: tuple[Any, ...]
    weights: tuple[Any, ...]
    loss: float
    loss_id: int
    gradients: list[Any]
    output_gradients: list[Any]
    sample_loss: np.ndarray[Any, Any] | None
    after: list[np.ndarray[Any, Any]] = field(default_factory=list)
    seconds: float = 0.0


def observe(step: TrainingStep, before: Snapshot, batch: Batch) -> Observation:
    """Take one eager step from a state, watching everything."""
    put(step.variables, before)
    names = {id(n.layer): n.name for n in step.owners.layers} | operation_names(step.model)
    watch = OpWatch(step.dialect, names, batch.rows)
    inputs, targets, weight = tensors(batch)
    for tensor in (*inputs, *targets, *_weights(weight)):
        array = floats(tensor)
        if array is not None and not np.isfinite(array).all():
            watch.mark_bad(tensor)
    started = time.perf_counter()
    tf.config.run_functions_eagerly(True)
    try:
        with watch.watching():
            observation = _watched(step, watch, batch, inputs, targets, weight)
    finally:
        tf.config.run_functions_eagerly(False)
    observation.seconds = time.perf_counter() - started
    return observation


def _weights(weight: Any) -> tuple[Any, ...]:
    """Sample weights as a tuple: none, one, or one an output."""
    if weight is None:
        return ()
    return weight if isinstance(weight, tuple) else (weight,)


def _watched(
    step: TrainingStep, watch: OpWatch, batch: Batch, inputs: tuple[Any, ...], targets: tuple[Any, ...], weight: Any
) -> Observation:
    with tf.GradientTape() as tape:
        prediction = step.forward(inputs, training=True)
        loss = step.loss(inputs, targets, weight, prediction)
        scaled = step.dialect.scale_loss(step.model.optimizer, loss)
    watch.backward = True
    outputs = [tensor for _, _, tensor in watch.layer_outputs]
    sources = [raw(v) for v in step.trainable]
    found = tape.gradient(scaled, [*sources, *outputs])
    gradients, into_outputs = list(found[: len(sources)]), list(found[len(sources) :])
    step.apply(gradients)
    return Observation(
        watch=watch,
        batch=batch,
        inputs=inputs,
        targets=targets,
        weights=_weights(weight),
        loss=float(loss.numpy()),
        loss_id=int(loss._id),  # noqa: SLF001
        gradients=gradients,
        output_gradients=into_outputs,
        sample_loss=_sample_loss(step, targets, prediction),
        after=[v.numpy() for v in step.variables],
    )


def _sample_loss(step: TrainingStep, targets: tuple[Any, ...], prediction: Any) -> np.ndarray[Any, Any] | None:
    """Loss per row, summed over outputs and positions; None where the losses do not tell."""
    if not targets:
        return None
    listed = prediction if isinstance(prediction, (list, tuple)) else [prediction]
    total: np.ndarray[Any, Any] | None = None
    for one, target, output in zip(step.plan.losses, targets, listed, strict=False):
        try:
            fit = tf.cast(target, tf.float32) if target.dtype.is_floating or target.dtype == tf.bool else target
            values = one.call(fit, output).numpy()
        except (AttributeError, TypeError, ValueError, tf.errors.OpError):
            return None
        if not values.ndim or len(values) != len(target):
            return None
        rows = values.reshape(len(values), -1).astype(np.float64).mean(axis=1)
        total = rows if total is None else total + rows
    return total


def examine(
    step: TrainingStep, seen: Observation, *, step_index: int, optimizer_step: int | None, probing: bool = True
) -> NonfinitePoint | None:
    """The first place of a watched step that went non-finite and mattered, None where all that matters is finite.

    Args:
        probing: under loss scaling an infinite gradient is a try at a larger scale, no fault.
    """
    found = _from_loss(seen) or _from_gradients(step, seen, probing=probing) or _from_update(step, seen)
    if found is None:
        return None
    phase, record, leaves, variable, layer = found
    point = NonfinitePoint(
        phase=phase,
        layer=layer,
        op=None,
        variable=variable,
        step=step_index,
        optimizer_step=optimizer_step,
        batch=seen.batch.index,
        rows=(),
        kind="nan",
        chain=tuple(_chain(step, seen))[:MAX_CHAIN],
        message=_without_op(phase, variable),
    )
    if record is not None and record.op == "ReadVariableOp":
        return _in_a_variable(step, record, point)
    data = _in_the_data(step, seen, leaves, point)
    if data is not None and (record is None or phase is not Phase.UPDATE):
        return data
    if record is None:
        return point
    point = _at_an_op(seen, record, point)
    return _swallowed(step, seen, point) or point


def _swallowed(step: TrainingStep, seen: Observation, point: NonfinitePoint) -> NonfinitePoint | None:
    """The point as one in the recorded inputs, where only rows failed that came in with a non-finite entry.

    Some ops turn a NaN into a finite number that is no better: max pooling over nothing but NaN gives the lowest float,
    and the next product overflows.
    """
    for tensor in seen.inputs:
        array = floats(tensor)
        came_in = bad_rows(array, seen.batch.rows) if array is not None else ()
        if point.rows and point.phase is not Phase.UPDATE and set(point.rows) <= set(came_in):
            found = _in_the_data(step, seen, {int(tensor._id)}, point)  # noqa: SLF001
            if found is not None:
                return replace(
                    found, op=None, message=f"{found.message} On its way it became finite for a while: {point.message}"
                )
    return None


def _in_a_variable(step: TrainingStep, record: OpRecord, point: NonfinitePoint) -> NonfinitePoint:
    """The point as a variable that was non-finite before the step: a learning rate that is NaN, a corrupt slot."""
    from ckptdoctor.replay.labels import describe_variable

    handles = {int(v.handle._id): v for v in step.variables if hasattr(v.handle, "_id")}  # noqa: SLF001
    variable = next((handles[i] for i in record.inputs if i in handles), None)
    if variable is None:
        return point
    layer, short = describe_variable(step, variable)
    name = f"{layer}/{short}" if layer else short
    return replace(point, layer=layer, variable=short, message=f"{name} was non-finite before this step.")


def _at_an_op(seen: Observation, record: OpRecord, point: NonfinitePoint) -> NonfinitePoint:
    op = record.op
    if record.backward and record.gradient_of and not op.endswith("Grad"):
        op = f"{record.gradient_of}Grad"
    rows, layer = _rows(seen, point.phase, record), point.layer or record.layer
    return replace(
        point,
        layer=layer,
        op=op,
        rows=rows,
        kind=record.kind or "nan",
        operands=record.operands,
        message=_message(seen, point.phase, record, op, layer, rows),
    )


_Point = tuple[Phase, OpRecord | None, set[int], str | None, str | None]


def _from_loss(seen: Observation) -> _Point | None:
    if np.isfinite(seen.loss):
        return None
    origins, leaves = seen.watch.origins([seen.loss_id])
    origin = origins[0] if origins else None
    phase = Phase.FORWARD if origin is not None and origin.layer is not None else Phase.LOSS
    return phase, origin, leaves, None, None


def _from_gradients(step: TrainingStep, seen: Observation, *, probing: bool) -> _Point | None:
    """A non-finite gradient under a finite loss. Under loss scaling an infinite one only halves the scale."""
    bad = [g for g in seen.gradients if g is not None and not _finite(g)]
    scale = step.dialect.loss_scale(step.model.optimizer) if probing else None
    if not bad or (scale is not None and not _weights_bad(step, seen)):
        return None
    targets = [int(_dense(g)._id) for g in bad]  # noqa: SLF001
    origins, leaves = seen.watch.origins(targets, backward_only=True)
    origin = origins[0] if origins else None
    return Phase.BACKWARD, origin, leaves, None, None


def _from_update(step: TrainingStep, seen: Observation) -> _Point | None:
    """Finite gradients, but a weight, statistic or slot that is not after the step."""
    from ckptdoctor.replay.labels import describe_variable

    bad = [n for n, value in enumerate(seen.after) if _array_bad(value)]
    if not bad:
        return None
    handles = {int(v.handle._id): n for n, v in enumerate(step.variables) if hasattr(v.handle, "_id")}  # noqa: SLF001
    for record in seen.watch.records:
        if not record.op.startswith("Assign") or not record.inputs:
            continue
        index = handles.get(record.inputs[0])
        if index is None or index not in bad:
            continue
        layer, variable = describe_variable(step, step.variables[index])
        values = [i for i in record.inputs[1:] if i in seen.watch.bad]
        if not values:  # the sum overflowed inside the assignment
            return Phase.UPDATE, record, set(), variable, layer
        origins, leaves = seen.watch.origins(values)
        origin = origins[0] if origins else record
        phase = Phase.FORWARD if origin.layer is not None and not origin.backward else Phase.UPDATE
        return phase, origin, leaves, variable, layer
    layer, variable = describe_variable(step, step.variables[bad[0]])
    return Phase.UPDATE, None, set(), variable, layer


def _dense(gradient: Any) -> Any:
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def _finite(tensor: Any) -> bool:
    array = floats(_dense(tensor))
    return array is None or bool(np.isfinite(array).all())


def _array_bad(value: np.ndarray[Any, Any]) -> bool:
    if value.dtype.kind not in "fV":
        return False
    return not np.isfinite(value.astype(np.float32) if value.dtype.itemsize < 4 else value).all()


def _weights_bad(step: TrainingStep, seen: Observation) -> bool:
    owned = {id(raw(v)) for v in step.trainable}
    return any(_array_bad(a) for v, a in zip(step.variables, seen.after, strict=True) if id(v) in owned)


# --- what the recorded batch itself held ------------------------------------------------------


def _in_the_data(
    step: TrainingStep, seen: Observation, leaves: set[int], point: NonfinitePoint
) -> NonfinitePoint | None:
    """The point as one in the recorded batch, where a recorded array is among the leaves of the walk."""
    from ckptdoctor.replay.labels import first_consumer

    named = [
        *((t, f"x_{n}" if len(seen.inputs) > 1 else "x") for n, t in enumerate(seen.inputs)),
        *((t, f"y_{n}" if len(seen.targets) > 1 else "y") for n, t in enumerate(seen.targets)),
        *((t, "sample_weight") for t in seen.weights),
    ]
    for tensor, name in named:
        if int(tensor._id) not in leaves:  # noqa: SLF001
            continue
        array = floats(tensor)
        assert array is not None
        rows = bad_rows(array, seen.batch.rows)
        hit = ~np.isfinite(array)
        features = tuple(int(n) for n in np.flatnonzero(hit.reshape(-1, array.shape[-1]).any(axis=0))[:64])
        kind = "nan" if np.isnan(array).any() else "inf"
        what = {"x": f"input {name}", "y": f"target {name}"}.get(name[0], "array of sample weights")
        layer = first_consumer(step, seen.watch, tensor) if name.startswith("x") else None
        message = (
            f"The recorded {what} of batch {seen.batch.index} holds {int(hit.sum())} non-finite entries "
            f"in {len(rows) or 'unknown'} rows ({kind})."
        )
        return replace(
            point,
            phase=Phase.INPUT,
            layer=layer,
            variable=name,
            rows=rows,
            kind=kind,
            operands=(glimpse(name, tensor),),
            features=features if array.ndim > 1 else (),
            message=message,
        )
    return None


# --- words ------------------------------------------------------------------------------------


def _rows(seen: Observation, phase: Phase, record: OpRecord) -> tuple[int, ...]:
    """Rows that caused it: of the op's output, else of the loss per sample; empty where it is all of them."""
    rows = record.rows
    if not rows and seen.sample_loss is not None and phase in (Phase.LOSS, Phase.FORWARD):
        rows = bad_rows(seen.sample_loss, seen.batch.rows)
    return () if len(rows) == seen.batch.rows and len(rows) > 1 else rows


def _message(seen: Observation, phase: Phase, record: OpRecord, op: str, layer: str | None, rows: Sequence[int]) -> str:
    place = (
        f"layer {layer}"
        if layer
        else {
            Phase.LOSS: "the loss",
            Phase.BACKWARD: "the gradient of the loss",
            Phase.UPDATE: "the optimizer's update",
        }.get(phase, "the model")
    )
    values = "; ".join(
        f"{o.name} from {o.min:.4g} to {o.max:.4g}"
        for o in record.operands[:3]
        if o.min is not None and o.max is not None
    )
    given = "operands that a mask made -inf" if record.index in seen.watch.makers else "finite operands"
    text = f"{op} in {place} made {record.kind or 'nan'} out of {given}"
    text += f" ({values})" if values else ""
    text += f", in {len(rows)} of {seen.batch.rows} rows" if rows else ""
    if record.backward and seen.watch.masked_by_where(record.forward):
        text += (
            f"; its forward value is masked by a where, but the gradient of {record.gradient_of} is computed for every entry "
            "and 0 times infinity is NaN: guard the argument inside the where as well"
        )
    return text + "."


def _without_op(phase: Phase, variable: str | None) -> str:
    return f"{variable or 'A value'} became non-finite in the {phase.value}; the op could not be told."


# --- the chain --------------------------------------------------------------------------------


def _chain(step: TrainingStep, seen: Observation) -> list[ChainLink]:
    """Non-finite stations in order: outputs, loss per sample, gradients into outputs, gradients, new weights."""
    from ckptdoctor.replay.labels import describe_variable

    links: list[ChainLink] = []
    for name, _, tensor in seen.watch.layer_outputs:
        _link(links, Phase.FORWARD, name, "output", tensor)
    if seen.sample_loss is not None:
        _link(links, Phase.LOSS, None, "loss per sample", seen.sample_loss)
    _link(links, Phase.LOSS, None, "loss", np.asarray(seen.loss))
    for (name, _, _), gradient in reversed(list(zip(seen.watch.layer_outputs, seen.output_gradients, strict=True))):
        _link(links, Phase.BACKWARD, name, "gradient of the output", gradient)
    for variable, gradient in reversed(list(zip(step.trainable, seen.gradients, strict=True))):
        layer, short = step.owners.of(variable)
        _link(links, Phase.BACKWARD, layer, f"gradient of {short}", gradient)
    for variable, value in zip(step.variables, seen.after, strict=True):
        if _array_bad(value):
            layer, short = describe_variable(step, variable)
            _link(links, Phase.UPDATE, layer, f"{short} after the update", value)
    return links


def _link(links: list[ChainLink], phase: Phase, layer: str | None, what: str, value: Any) -> None:
    if value is None or len(links) >= MAX_CHAIN:
        return
    value = _dense(value)
    array = value if isinstance(value, np.ndarray) else floats(value)
    if array is None or array.dtype.kind not in "fV" or not _array_bad(array):
        return
    seen = glimpse(what, array)
    links.append(ChainLink(phase, layer, what, seen.nonfinite, int(array.size), seen.min, seen.max))
