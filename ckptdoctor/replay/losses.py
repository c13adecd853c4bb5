"""Loss and optimizer from the saved configuration, rebuilt by hand so that only Keras' own parts are made.

A loss whose code is not at hand is replaced by the usual one for the model's head and marked as substituted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ckptdoctor.model import JsonObject
from ckptdoctor.replay.allowlist import compile_problems
from ckptdoctor.replay.dialect import Dialect
from ckptdoctor.replay.failure import CannotReplay, brief

SPARSE = frozenset({"sparse_categorical_crossentropy", "SparseCategoricalCrossentropy"})


@dataclass(frozen=True, slots=True)
class LossPlan:
    """What to compile the model with.

    Attributes:
        losses: one Keras loss object an output, in order.
        weights: of the losses, None for all 1.
        names: canonical snake case, one an output.
        source: `rebuilt`, `build function`, `custom objects` or `substituted`.
        custom: the run's own loss where it was substituted, else empty.
    """

    losses: tuple[Any, ...]
    weights: tuple[float, ...] | None
    names: tuple[str, ...]
    source: str
    custom: str = ""

    @property
    def substituted(self) -> bool:
        """Whether the run's own loss could not be used."""
        return self.source == "substituted"


def snake(name: str) -> str:
    """`MeanSquaredError` → `mean_squared_error`; aliases to their full names."""
    text = (
        "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_") if not name.isupper() else name.lower()
    )
    aliases = {
        "mse": "mean_squared_error",
        "mae": "mean_absolute_error",
        "mape": "mean_absolute_percentage_error",
        "msle": "mean_squared_logarithmic_error",
        "bce": "binary_crossentropy",
        "kld": "kl_divergence",
        "k_l_divergence": "kl_divergence",
        "kullback_leibler_divergence": "kl_divergence",
        "logcosh": "log_cosh",
        "huber_loss": "huber",
    }
    return aliases.get(text, text)


def plan_losses(
    dialect: Dialect, config: JsonObject | None, outputs: Sequence[str], known: Mapping[str, Any]
) -> tuple[Any, ...] | str:
    """The loss objects of the configuration, one an output; or, where one cannot be made, its name.

    Args:
        dialect: the Keras to build with.
        config: `compile_config` or `training_config`.
        outputs: names of the model's outputs. known: custom objects by name.
    """
    entry = (config or {}).get("loss")
    entries = _per_output(entry, outputs)
    if entries is None or any(e is None for e in entries):
        return "a loss that the file does not record"
    made: list[Any] = []
    for one in entries:
        loss = _one_loss(dialect, one, known)
        if isinstance(loss, str):
            return loss
        made.append(loss)
    return tuple(made)


def _per_output(entry: Any, outputs: Sequence[str]) -> list[Any] | None:
    """One configuration an output: from a single one, a list, or a mapping by output."""
    if entry is None:
        return None
    if isinstance(entry, Mapping) and "class_name" not in entry:
        return [entry.get(name) for name in outputs] if set(outputs) & set(entry) else list(entry.values())
    if isinstance(entry, (list, tuple)):
        return list(entry)
    return [entry] * max(1, len(outputs))


def _one_loss(dialect: Dialect, entry: Any, known: Mapping[str, Any]) -> Any | str:
    """A loss object, or the name of one whose code is missing."""
    name = _loss_name(entry)
    if name in known:
        return as_loss(dialect, known[name], name)
    if isinstance(entry, Mapping) and isinstance(entry.get("config"), Mapping):
        inner = entry["config"].get("fn")
        if inner is not None and _loss_name(inner) in known:
            return as_loss(dialect, known[_loss_name(inner)], _loss_name(inner))
    if compile_problems(entry if not isinstance(entry, str) else {"class_name": entry}):
        return name
    try:
        return as_loss(dialect, dialect.keras.losses.get(_function_name(entry)), name)
    except Exception:  # noqa: BLE001 - whatever Keras says, the loss is one we cannot make
        return name


def _loss_name(entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, Mapping):
        if entry.get("class_name") == "function" and isinstance(entry.get("config"), str):
            return str(entry["config"])
        if entry.get("class_name") == "__lambda__":
            return "a lambda"
        return str(entry.get("class_name", "unnamed"))
    return "unnamed"


def _function_name(entry: Any) -> Any:
    if isinstance(entry, Mapping) and entry.get("class_name") == "function":
        return entry["config"]
    return dict(entry) if isinstance(entry, Mapping) else entry


def as_loss(dialect: Dialect, thing: Any, name: str) -> Any:
    losses = dialect.keras.losses
    if isinstance(thing, type):
        return thing()
    if isinstance(thing, losses.Loss):
        return thing
    if dialect.legacy:
        from tf_keras.src.losses import LossFunctionWrapper
    else:
        from keras.src.losses.losses import LossFunctionWrapper
    built_in = getattr(losses, "get", None)
    # Keras turns its own loss functions into their classes when it compiles; do the same so that options are right.
    classes = {snake(n): c for n, c in vars(losses).items() if isinstance(c, type) and issubclass(c, losses.Loss)}
    if built_in is not None and getattr(thing, "__module__", "").partition(".")[0] in ("keras", "tf_keras"):
        made = classes.get(snake(getattr(thing, "__name__", name)))
        if made is not None and made is not losses.Loss:
            return made()
    return LossFunctionWrapper(thing, name=name)


def substitute(
    dialect: Dialect, activation: str | None, outputs: tuple[int, ...], targets: np.ndarray[Any, Any] | None
) -> Any:
    """The usual loss for a head and its targets.

    Args:
        dialect: the Keras to build with.
        activation: of the output layer. outputs: its shape without the batch axis.
        targets: recorded targets of this output, rows first; None without.
    """
    losses = dialect.keras.losses
    if targets is None or not _comparable(outputs, targets.shape[1:]):
        if targets is not None and activation == "softmax" and _integral(targets):
            return losses.SparseCategoricalCrossentropy()
        return SizeOfOutput(dialect).make()
    if activation == "softmax" and outputs and outputs[-1] > 1:
        return losses.CategoricalCrossentropy()
    if activation == "sigmoid" and float(np.nanmin(targets)) >= 0 and float(np.nanmax(targets)) <= 1:
        return losses.BinaryCrossentropy()
    return losses.MeanSquaredError()


def masked_targets(dialect: Dialect, loss: Any) -> Any:
    """The loss with non-finite targets left out: they are taken to be what was predicted."""

    class Masked(dialect.keras.losses.Loss):  # type: ignore[misc,name-defined]
        def call(self, y_true: Any, y_pred: Any) -> Any:
            y_pred = tf.convert_to_tensor(y_pred)
            known = tf.cast(y_true, y_pred.dtype)
            if not known.shape.is_compatible_with(y_pred.shape):  # class ids, or targets of another kind
                return loss.call(y_true, y_pred)
            return loss.call(tf.where(tf.math.is_finite(known), known, tf.stop_gradient(y_pred)), y_pred)

    return Masked(name=loss.name)


def _comparable(outputs: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return tuple(e for e in outputs if e != 1) == tuple(e for e in target if e != 1)


def _integral(targets: np.ndarray[Any, Any]) -> bool:
    finite = targets[np.isfinite(targets)] if targets.dtype.kind == "f" else targets
    return bool(finite.size) and bool((finite == np.round(finite)).all())


@dataclass(frozen=True, slots=True)
class SizeOfOutput:
    """A stand-in for a loss that compares nothing we know of: the mean square of the output."""

    dialect: Dialect

    def make(self) -> Any:
        """A Keras loss object."""

        def mean_square_of_output(y_true: Any, y_pred: Any) -> Any:
            import tensorflow as tf

            del y_true
            rows = tf.shape(y_pred)[0]
            return tf.reduce_mean(tf.reshape(tf.square(y_pred), (rows, -1)), axis=-1)

        return as_loss(self.dialect, mean_square_of_output, "mean_square_of_output")


def rebuild_optimizer(dialect: Dialect, config: JsonObject | None, known: Mapping[str, Any]) -> Any:
    """The optimizer of the configuration, with its schedule.

    Raises:
        CannotReplay: none is recorded, or Keras cannot make it.
    """
    entry = (config or {}).get("optimizer") or (config or {}).get("optimizer_config")
    if entry is None:
        raise CannotReplay(
            "the file does not record the optimizer; replay needs a checkpoint saved from a compiled model, or "
            "--build MODULE:FUNCTION that returns one, compiled as the training did"
        )
    if isinstance(entry, Mapping):
        bad = [p for p in compile_problems(entry, root="optimizer") if p.subject not in known]
        if bad:
            raise CannotReplay(
                f"the optimizer cannot be rebuilt: {bad[0].reason}; give its module with --custom-objects"
            )
        entry = _as_new_optimizer(entry) if dialect.legacy else _clean(entry)
    try:
        with dialect.keras.utils.custom_object_scope(dict(known)):
            made = dialect.keras.optimizers.get(entry)
    except Exception as error:
        raise CannotReplay(f"the optimizer cannot be rebuilt ({brief(error, 160)})") from error
    if type(made).__name__ == "LossScaleOptimizer":
        return made.inner_optimizer  # compile wraps it again where the policy asks for it
    return made


def _clean(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry as Keras' own loader wants it: Keras 2 names registered its optimizers as `Custom>Adam`."""
    plain = dict(entry)
    name = plain.get("class_name")
    if isinstance(name, str) and name.startswith("Custom>"):
        plain["class_name"] = name.removeprefix("Custom>")
        plain.pop("registered_name", None)
    return plain


def _as_new_optimizer(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Keras 2 before 2.11 had other optimizer classes; the later ones compute the same. Their slots are ordered otherwise."""
    plain = dict(entry)
    config = dict(plain.get("config") or {})
    if "is_legacy_optimizer" not in config:
        config["is_legacy_optimizer"] = False
        config.pop("decay", None)
    return {**plain, "config": config}
