"""Keras 3 and Keras 2 (`tf_keras`) behind one face: the few calls replay needs that differ between them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Dialect:
    """One Keras.

    Attributes:
        keras: the package. legacy: True for `tf_keras`.
    """

    keras: Any
    legacy: bool

    @property
    def version(self) -> str:
        """Of the package."""
        return str(self.keras.__version__)

    def set_policy(self, name: str) -> None:
        """The global dtype policy; must precede building the model, or slots are silently dropped."""
        if self.legacy:
            self.keras.mixed_precision.set_global_policy(name)
        else:
            self.keras.config.set_dtype_policy(name)

    def set_seed(self, seed: int) -> None:
        """Seed Python, numpy and TensorFlow."""
        self.keras.utils.set_random_seed(seed)

    def optimizer_variables(self, optimizer: Any) -> list[Any]:
        """All of the optimizer's variables as `tf.Variable`."""
        variables = optimizer.variables
        return [raw(v) for v in (variables() if callable(variables) else variables)]

    def build_optimizer(self, optimizer: Any, variables: Sequence[Any]) -> None:
        """Create the slots."""
        if not getattr(optimizer, "built", False) or self.legacy:
            optimizer.build(variables)

    def iterations(self, optimizer: Any) -> int:
        """Applied steps (inner steps under loss scaling); accumulating ones count."""
        return int(self.counter(optimizer).numpy())

    def counter(self, optimizer: Any) -> Any:
        """The variable that counts steps. Under gradient accumulation Keras' `iterations` is a quotient of it."""
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        return raw(inner.iterations if self.legacy else inner._iterations)  # noqa: SLF001 - no public name

    def scale_loss(self, optimizer: Any, loss: Any) -> Any:
        """The loss as it is differentiated: scaled under loss scaling."""
        if self.legacy:
            scaled = getattr(optimizer, "get_scaled_loss", None)
            return scaled(loss) if scaled is not None else loss
        return optimizer.scale_loss(loss)

    def unscale(self, optimizer: Any, gradients: list[Any]) -> list[Any]:
        """What `apply` must be given: Keras 3 unscales inside."""
        if self.legacy and hasattr(optimizer, "get_unscaled_gradients"):
            return list(optimizer.get_unscaled_gradients(gradients))
        return gradients

    def loss_scale(self, optimizer: Any) -> Any | None:
        """The current loss scale as a tensor or variable, None without loss scaling."""
        if self.legacy:
            return getattr(optimizer, "loss_scale", None)
        scale = getattr(optimizer, "dynamic_scale", None)
        return None if scale is None else raw(scale)

    def layers(self, model: Any) -> list[Any]:
        """Every layer of the model, nested ones included, in Keras' order."""
        return list(model._flatten_layers(include_self=False, recursive=True))  # noqa: SLF001 - no public way


def raw(variable: Any) -> Any:
    """The `tf.Variable` inside a Keras 3 variable; others unchanged."""
    inner = getattr(variable, "_value", None)
    return inner if hasattr(inner, "assign") else variable


def keras_3() -> Dialect:
    """Keras 3 on TensorFlow."""
    return Dialect(importlib.import_module("keras"), legacy=False)


def keras_2() -> Dialect | None:
    """`tf_keras`, if installed."""
    try:
        return Dialect(importlib.import_module("tf_keras"), legacy=True)
    except ImportError:
        return None
