"""Experiments with the structure: one layer that may throw the signal away is opened, and the model is rebuilt with it.

Tried on runs that stay finite and do not learn. What is opened: pooling that forgets where something was, dropout and
penalties far above the usual, a hidden layer with hardly any units, layers that are frozen, padding that is not masked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from ckptdoctor.model import Cause
from ckptdoctor.replay import surgery
from ckptdoctor.replay.lab import Trial
from ckptdoctor.replay.naming import NamedLayer
from ckptdoctor.replay.rebuild import head_layer
from ckptdoctor.replay.situation import Situation

GLOBAL_POOLING = frozenset(
    {
        "GlobalAveragePooling1D",
        "GlobalAveragePooling2D",
        "GlobalMaxPooling1D",
        "GlobalMaxPooling2D",
    }
)
LOCAL_POOLING = frozenset({"MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D"})
DROPOUT = frozenset({"Dropout", "SpatialDropout1D", "SpatialDropout2D", "AlphaDropout"})
WIDE_POOL = 4  # cells a side: 2 or 3 are usual, from 4 on most places are forgotten
MUCH_DROPOUT, USUAL_DROPOUT = 0.7, 0.2  # share of the input; published nets stay at or below 0.5
STRONG_PENALTY = 0.01  # l1, l2: Keras' own default of 0.01 is already strong, usual ones are 1e-5 to 1e-3
NARROW, WIDER = 2, 16  # units
RECURRENT = frozenset({"SimpleRNN", "LSTM", "GRU", "Bidirectional"})
MAX_FLAT = 65_536  # features behind the flattening
MAX_TRIALS = 3
_REGULARISERS = ("kernel_regularizer", "bias_regularizer", "activity_regularizer", "recurrent_regularizer")


def structure(at: Situation) -> list[Trial]:
    """Up to three trials, each opening one layer."""
    if at.step.dialect.legacy:
        return []
    head = head_layer(at.model)
    found: list[Trial] = []
    for kind in (_dropped, _penalised, _narrow, _pooled):
        for layer in at.step.owners.layers:
            if layer.layer is head or "/" in layer.name:
                continue
            found += kind(at, layer)
    found += _frozen(at)
    found += _unmasked(at)
    for trial in found[MAX_TRIALS:]:
        at.skipped.append((trial.change, f"{MAX_TRIALS} layers were opened already"))
    return found[:MAX_TRIALS]


def behind_head(at: Situation) -> list[Trial]:
    """Dropout as the last layer, behind the answer, switched off."""
    outputs = list(at.model.layers[-1:])
    return [
        surgery.in_place_trial(
            "structure_behind_head",
            f"no dropout in {layer.name}, behind the answer",
            Cause.ARCHITECTURE,
            f"# without layer {layer.name!r}: no dropout behind the last layer with weights",
            [(layer, "rate", 0.0)],
            layer=str(layer.name),
        )
        for layer in outputs
        if type(layer).__name__ in DROPOUT and layer.rate > 0
    ]


def _trial(
    at: Situation,
    key: str,
    name: str,
    change: str,
    code: str,
    edit: Callable[[dict[str, Any]], None],
    alike: Collection[str] = (),
) -> Trial:
    """A rebuilt model with one layer edited, and with it those that have the same trouble."""

    def edited(config: dict[str, Any]) -> dict[str, Any]:
        for entry in config["config"]["layers"]:
            entry.pop("build_config", None)  # shapes behind the layer may change
            if entry.get("config", {}).get("name") in {name, *alike}:
                edit(entry)
        config["config"].pop("build_input_shape", None)
        return config

    return surgery.rebuilt_trial(
        f"structure_{key}", change, Cause.ARCHITECTURE, code, edited, policy=at.policy, layer=name
    )


def _dropped(at: Situation, layer: NamedLayer) -> Iterator[Trial]:
    alike = [one.name for one in at.step.owners.layers if _drops_much(one)]
    if alike[:1] == [layer.name]:
        yield _trial(
            at,
            "dropout",
            layer.name,
            f"dropout of {USUAL_DROPOUT:g} instead of {layer.layer.rate:g} in {layer.name}{_more(alike)}",
            f"keras.layers.{layer.class_name}({USUAL_DROPOUT:g})  # layer {layer.name!r}{_more(alike)}",
            lambda entry: entry["config"].update(rate=USUAL_DROPOUT),
            alike,
        )


def _drops_much(layer: NamedLayer) -> bool:
    rate = getattr(layer.layer, "rate", None)
    return layer.class_name in DROPOUT and isinstance(rate, float) and rate >= MUCH_DROPOUT


def _more(alike: Sequence[str]) -> str:
    return f" and {len(alike) - 1} more" if len(alike) > 1 else ""


def _penalised(at: Situation, layer: NamedLayer) -> Iterator[Trial]:
    alike = [one.name for one in at.step.owners.layers if _strong(one.layer.get_config())]
    if alike[:1] == [layer.name]:
        config = layer.layer.get_config()
        strong = _strong(config)
        yield _trial(
            at,
            "penalty",
            layer.name,
            f"no penalty on {layer.name}{_more(alike)} instead of {max(_penalty(config[k]) for k in strong):g}",
            f"{strong[0]}=None  # in layer {layer.name!r}{_more(alike)}",
            lambda entry: entry["config"].update(dict.fromkeys(_strong(entry["config"]))),
            alike,
        )


def _strong(config: dict[str, Any]) -> list[str]:
    return [k for k in _REGULARISERS if _penalty(config.get(k)) >= STRONG_PENALTY]


def _penalty(config: Any) -> float:
    inner = config.get("config") if isinstance(config, dict) else None
    values = [v for v in inner.values() if isinstance(v, float)] if isinstance(inner, dict) else []
    return max(values, default=0.0)


def _narrow(at: Situation, layer: NamedLayer) -> Iterator[Trial]:
    units = getattr(layer.layer, "units", None)
    outputs = at.model.output_shape
    wide = isinstance(outputs, tuple) and isinstance(outputs[-1], int) and outputs[-1] > 2 * NARROW
    if isinstance(units, int) and units <= NARROW and (wide or units == 1):
        yield _trial(
            at,
            "width",
            layer.name,
            f"{WIDER} units instead of {units} in {layer.name}",
            f"units={WIDER}  # in layer {layer.name!r}",
            lambda entry: entry["config"].update(units=WIDER),
        )


def _unmasked(at: Situation) -> Iterator[Trial]:
    """Zeros behind the words of an embedding that a recurrence reads unmasked: masked."""
    layers = at.step.owners.layers
    read = any(layer.class_name in RECURRENT for layer in layers)
    for layer in layers:
        if layer.class_name != "Embedding" or not read or layer.layer.mask_zero or "/" in layer.name:
            continue
        if not any(_ends_in_padding(values) for values in at.batches[0].inputs):
            continue
        yield _trial(
            at,
            "padding",
            layer.name,
            f"padding masked by {layer.name}",
            f"mask_zero=True  # in layer {layer.name!r}; token 0 must be padding only",
            lambda entry: entry["config"].update(mask_zero=True),
        )
        return


def _ends_in_padding(values: np.ndarray[Any, Any]) -> bool:
    """Rows of tokens, shape (rows, steps), whose last third is usually zero."""
    tail = values[:, -(values.shape[1] // 3 or 1) :] if values.ndim == 2 and values.shape[1] > 2 else None
    return tail is not None and float((tail == 0).all(axis=1).mean()) >= 0.5


def _pooled(at: Situation, layer: NamedLayer) -> Iterator[Trial]:
    shape = getattr(getattr(layer.layer, "input", None), "shape", None)
    if shape is None or any(e is None for e in shape[1:]) or layer.layer.get_config().get("keepdims"):
        return
    sides = tuple(int(e) for e in shape[1:-1])
    flat = int(shape[-1])
    for side in sides:
        flat *= side
    if layer.class_name in GLOBAL_POOLING and max(sides) > 1 and flat <= MAX_FLAT:
        yield _trial(
            at,
            "pooling",
            layer.name,
            f"flattened instead of {layer.class_name} in {layer.name}",
            f"keras.layers.Flatten()  # instead of layer {layer.name!r}, which forgets where",
            _to_flatten,
        )
    size = getattr(layer.layer, "pool_size", ())
    if layer.class_name in LOCAL_POOLING and max(size, default=0) >= WIDE_POOL and max(sides) > max(size) // 2:
        yield _trial(
            at,
            "pooling",
            layer.name,
            f"pools of 2 instead of {max(size)} in {layer.name}",
            f"pool_size=2  # in layer {layer.name!r}",
            lambda entry: entry["config"].update(pool_size=[2] * len(size), strides=[2] * len(size)),
        )


def _to_flatten(entry: dict[str, Any]) -> None:
    entry["class_name"] = "Flatten"
    entry["config"] = {"name": entry["config"]["name"]}


def _frozen(at: Situation) -> Iterator[Trial]:
    """Layers that were frozen by hand, all at once: which of them matters is not the question."""
    frozen = [n for n in at.step.owners.layers if n.layer.weights and not n.layer.trainable]
    if not frozen or any("/" in n.name for n in frozen):
        return
    names = {n.layer.name for n in frozen}

    def edited(config: dict[str, Any]) -> dict[str, Any]:
        for entry in config["config"]["layers"]:
            if entry.get("config", {}).get("name") in names:
                entry["config"]["trainable"] = True
        return config

    some = ", ".join(sorted(names)[:4])
    yield surgery.rebuilt_trial(
        "structure_frozen",
        f"{len(names)} frozen layer{'s' if len(names) > 1 else ''} trained too ({some})",
        Cause.ARCHITECTURE,
        f"layer.trainable = True  # for {some}",
        edited,
        policy=at.policy,
        layer=frozen[0].name,
    )
