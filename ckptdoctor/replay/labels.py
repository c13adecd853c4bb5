"""What to call a variable or a place of the model in the report."""

from __future__ import annotations

from typing import Any

from ckptdoctor.replay.dialect import raw
from ckptdoctor.replay.naming import short_name
from ckptdoctor.replay.opwatch import OpWatch
from ckptdoctor.replay.step import TrainingStep

_SLOTS = ("momentum", "velocity", "accumulator", "average", "accumulated_gradient", "first_moment", "second_moment")


def describe_variable(step: TrainingStep, variable: Any) -> tuple[str | None, str]:
    """Layer and name of a weight, a statistic or a slot (`kernel velocity`), or (None, `learning_rate`)."""
    for owned in step.owners.layers:
        listed = owned.layer.variables if hasattr(owned.layer, "variables") else owned.layer.weights
        for own in listed:
            if raw(own) is raw(variable):
                return step.owners.of(own)
    return _describe_slot(step, variable)


def _describe_slot(step: TrainingStep, variable: Any) -> tuple[str | None, str]:
    """A slot is named after its weight: Keras writes `<weight path with underscores>_<slot>`, tf_keras `…/m/…`."""
    optimizer = step.model.optimizer
    listed = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    path = next(
        (str(getattr(v, "path", None) or v.name) for v in listed if raw(v) is variable),
        str(getattr(variable, "name", "?")),
    )
    flat = path.partition(":")[0].replace("/", "_")
    best: tuple[int, str | None, str] | None = None
    for weight in step.trainable:
        stem = str(getattr(weight, "path", None) or weight.name).partition(":")[0].replace("/", "_")
        if stem in flat and (best is None or len(stem) > best[0]):
            layer, short = step.owners.of(weight)
            slot = flat.partition(stem)[2].strip("_") or next((s for s in _SLOTS if s in flat), "slot")
            best = (len(stem), layer, f"{short} {slot}")
    if best is not None:
        return best[1], best[2]
    return None, short_name(variable)


def first_consumer(step: TrainingStep, watch: OpWatch, tensor: Any) -> str | None:
    """The first layer of the model that computes with a tensor or something made from it."""
    reached = {int(tensor._id)}  # noqa: SLF001 - identity of eager tensors
    del step
    for record in watch.records:
        if record.backward:
            break
        if reached.intersection(record.inputs):
            if record.layer is not None:
                return record.layer
            reached.update(record.outputs)
    return None
