"""What a tensor looked like when it was created: the scale that its configured initializer gives it.

Formulas: Glorot and Bengio 2010, He et al. 2015, LeCun et al. 1998, Saxe et al. 2014 (orthogonal), as Keras
implements them in `keras.initializers`; defaults from the Keras documentation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ckptdoctor.evidence.config import wrapped
from ckptdoctor.evidence.serialized import bare_class, config_of, mapping, number, snake
from ckptdoctor.model import JsonObject, LayerSpec

_TRUNCATED = 0.87962566103423978
"""Standard deviation of a standard normal truncated at ±2."""

# Families of VarianceScaling: scale, mode, distribution.
_SCALING = {
    "glorot_uniform": (1.0, "fan_avg", "uniform"),
    "glorot_normal": (1.0, "fan_avg", "truncated_normal"),
    "he_uniform": (2.0, "fan_in", "uniform"),
    "he_normal": (2.0, "fan_in", "truncated_normal"),
    "lecun_uniform": (1.0, "fan_in", "uniform"),
    "lecun_normal": (1.0, "fan_in", "truncated_normal"),
}
_ALIASES = {"normal": "random_normal", "uniform": "random_uniform", "zero": "zeros", "one": "ones", "eye": "identity"}
# The default where the configuration names none (Keras always writes it; Keras 2 HDF5 of custom layers may not).
_DEFAULTS = {
    "kernel": "glorot_uniform",
    "recurrent_kernel": "orthogonal",
    "embeddings": "random_uniform",
    "bias": "zeros",
    "gamma": "ones",
    "beta": "zeros",
    "moving_mean": "zeros",
    "moving_variance": "ones",
    "alpha": "zeros",
}


@dataclass(frozen=True, slots=True)
class Expected:
    """What an initializer gives.

    Attributes:
        name: canonical, e.g. `glorot_uniform`.
        mean, std, rms: of the entries.
        constant: every entry is one value.
        limit: no entry is larger in magnitude; None for unbounded distributions.
    """

    name: str
    mean: float
    std: float
    constant: bool
    limit: float | None

    @property
    def rms(self) -> float:
        return math.hypot(self.mean, self.std)


def fans(shape: tuple[int, ...]) -> tuple[float, float]:
    """fan-in and fan-out of a kernel as Keras counts them: (…, in, out) with the receptive field in front."""
    if not shape:
        return 1.0, 1.0
    if len(shape) == 1:
        return float(shape[0]), float(shape[0])
    field = float(math.prod(shape[:-2]))
    return shape[-2] * field, shape[-1] * field


def expected_std(layer: LayerSpec, variable: str, shape: tuple[int, ...]) -> float | None:
    """Standard deviation of a variable right after creation, None where the configuration does not tell.

    Args:
        layer: with its configuration.
        variable: as the census names it: `kernel`, `bias`, `recurrent_kernel`, `embeddings`, `gamma`, ….
        shape: of the variable.
    """
    found = expected(layer, variable, shape)
    return None if found is None else found.std


def expected(layer: LayerSpec, variable: str, shape: tuple[int, ...]) -> Expected | None:
    """Everything that is known of a variable right after creation, None where the configuration does not tell."""
    config = layer.config
    inner = wrapped(layer.class_name, config)
    if inner is not None:
        config = config_of(inner)
    variable = variable.rpartition("/")[2]
    serialized = config.get(f"{variable}_initializer")
    if serialized is None:
        serialized = _DEFAULTS.get(variable) if layer.registered is None else None
    if serialized is None:
        return None
    if variable == "bias" and config.get("unit_forget_bias") is True and len(shape) == 1 and shape[0] >= 4:
        return Expected("unit_forget_bias", 0.25, math.sqrt(3) / 4, constant=False, limit=1.0)
    return _of_initializer(serialized, shape)


def _of_initializer(serialized: Any, shape: tuple[int, ...]) -> Expected | None:
    name = serialized if isinstance(serialized, str) else bare_class(mapping(serialized))
    if not isinstance(name, str):
        return None
    name = snake(name)
    name = _ALIASES.get(name, name)
    config: JsonObject = config_of(serialized)
    if name in _SCALING:
        return _scaling(name, *_SCALING[name], shape)
    if name == "variance_scaling":
        scale = _value(config, "scale", 1.0)
        mode, distribution = config.get("mode", "fan_in"), config.get("distribution", "truncated_normal")
        return _scaling(name, scale, str(mode), str(distribution), shape)
    if name == "random_normal":
        return Expected(
            name, _value(config, "mean", 0.0), abs(_value(config, "stddev", 0.05)), constant=False, limit=None
        )
    if name == "truncated_normal":
        mean, std = _value(config, "mean", 0.0), abs(_value(config, "stddev", 0.05))
        return Expected(name, mean, std * _TRUNCATED, constant=std == 0, limit=abs(mean) + 2 * std)
    if name == "random_uniform":
        low, high = _value(config, "minval", -0.05), _value(config, "maxval", 0.05)
        std = abs(high - low) / math.sqrt(12)
        return Expected(name, (low + high) / 2, std, constant=low == high, limit=max(abs(low), abs(high)))
    if name in ("zeros", "ones", "constant"):
        value = {"zeros": 0.0, "ones": 1.0}.get(name, _value(config, "value", 0.0))
        return Expected(name, value, 0.0, constant=True, limit=abs(value))
    if name == "orthogonal" and len(shape) >= 2:
        length = max(math.prod(shape[:-1]), shape[-1], 1)
        gain = abs(_value(config, "gain", 1.0))
        std = gain / math.sqrt(length)  # as many rows or columns of unit length as the shorter side has
        return Expected(name, 0.0, std, constant=False, limit=gain)
    if name == "identity" and len(shape) == 2 and 0 not in shape:
        gain = _value(config, "gain", 1.0)
        rows, columns = shape
        share = min(rows, columns) / (rows * columns)
        return Expected(name, gain * share, abs(gain) * math.sqrt(share * (1 - share)), constant=False, limit=abs(gain))
    return None


def _value(config: JsonObject, key: str, default: float) -> float:
    found = number(config.get(key))
    return default if found is None else found


def _scaling(name: str, scale: float, mode: str, distribution: str, shape: tuple[int, ...]) -> Expected | None:
    fan_in, fan_out = fans(shape)
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}.get(mode)
    if fan is None or not math.isfinite(scale) or scale < 0:
        return None
    std = math.sqrt(scale / max(1.0, fan))
    if distribution == "uniform":
        limit: float | None = std * math.sqrt(3.0)
    elif distribution in ("truncated_normal", "normal"):
        limit = 2 * std / _TRUNCATED  # Keras widens the normal so that the truncated one has this std
    else:
        limit = None
    return Expected(name, 0.0, std, constant=std == 0, limit=limit)
