"""Evidence made by hand: every part Missing unless a test says otherwise."""

from __future__ import annotations

import math
from typing import Any

from ckptdoctor.model import (
    ArrayStats,
    Batches,
    Census,
    CheckpointInfo,
    CompileSpec,
    Evidence,
    Fingerprint,
    Format,
    LayerSpec,
    LossSpec,
    Missing,
    ModelSpec,
    OptimizerSpec,
    OptimizerState,
    Pattern,
    Replay,
    ReplayStatus,
    Role,
    RunFiles,
    Series,
    Status,
    TensorInfo,
    TensorStats,
    Timeline,
    TimelinePoint,
    TrainingLog,
    UnitStats,
)
from ckptdoctor.model.evidence import GradientScale

NONE = Missing("not part of this test")


def tensor(
    label: str = "dense/kernel",
    *,
    shape: tuple[int, ...] = (10, 64),
    role: Role = Role.WEIGHT,
    dtype: str = "float32",
    slot: str | None = None,
    units: UnitStats | None = None,
    trainable: bool | None = None,
    nan: int = 0,
    posinf: int = 0,
    rms: float | None = 0.1,
    mean: float | None = 0.0,
    low: float | None = -0.3,
    high: float | None = 0.3,
) -> TensorStats:
    layer, _, variable = label.rpartition("/")
    info = TensorInfo(
        path=f"layers/{label}" + (f"/{slot}" if slot else ""),
        layer=layer or None,
        layer_path=f"layers/{layer}" if layer else None,
        variable=variable,
        role=role,
        shape=shape,
        dtype=dtype,
        nbytes=4 * math.prod(shape),
        slot=slot,
        trainable=trainable,
    )
    return TensorStats(info, nan=nan, posinf=posinf, min=low, max=high, mean=mean, rms=rms, units=units)


def units(n: int = 64, *, distinct: int | None = None, zero: int = 0) -> UnitStats:
    return UnitStats(n, zero, zero, n if distinct is None else distinct, 0.5, 0.8, 1.2)


def info(path: str = "model.keras", **changes: Any) -> CheckpointInfo:
    fields: dict[str, Any] = {
        "path": path,
        "format": Format.KERAS_ZIP,
        "size_bytes": 1000,
        "keras_version": "3.15.1",
        "saved_at": NONE,
        "backend": NONE,
        "model_config": NONE,
        "compile_config": NONE,
    }
    return CheckpointInfo(**(fields | changes))


def census(*tensors: TensorStats, iterations: int | None = 100, path: str = "model.keras", **changes: Any) -> Census:
    scalars = {} if iterations is None else {"iterations": float(iterations)}
    return Census(info(path, **changes), tensors or (tensor(),), scalars)


def layer(name: str = "dense", class_name: str = "Dense", **changes: Any) -> LayerSpec:
    fields: dict[str, Any] = {
        "name": name,
        "class_name": class_name,
        "registered": None,
        "inbound": (),
        "activation": "relu" if class_name == "Dense" else None,
        "units": 64 if class_name == "Dense" else None,
        "dtype_policy": "float32",
        "trainable": True,
        "depth": 0,
        "config": {},
    }
    return LayerSpec(**(fields | changes))


def chain(*layers: LayerSpec) -> tuple[LayerSpec, ...]:
    """The layers after one another, each fed by the one before."""
    from dataclasses import replace

    linked = [replace(layers[0], depth=0)]
    for n, after in enumerate(layers[1:], 1):
        linked.append(replace(after, inbound=(linked[-1].name,), depth=n))
    return tuple(linked)


def optimizer(class_name: str = "Adam", rate: float | Missing = 0.001, **changes: Any) -> OptimizerSpec:
    fields: dict[str, Any] = {
        "class_name": class_name,
        "custom": False,
        "learning_rate": rate,
        "schedule": None,
        "epsilon": None if class_name == "SGD" else 1e-7,
        "momentum": 0.0 if class_name == "SGD" else None,
        "clipnorm": None,
        "clipvalue": None,
        "global_clipnorm": None,
        "use_ema": False,
        "loss_scaled": False,
        "config": {},
    }
    return OptimizerSpec(**(fields | changes))


def loss(
    name: str = "mean_squared_error", *, custom: bool = False, from_logits: bool = False, **config: Any
) -> LossSpec:
    return LossSpec(None, name, custom, from_logits, config)


def spec(
    *layers: LayerSpec, loss: LossSpec | None = None, optimizer: OptimizerSpec | Missing | None = None, **changes: Any
) -> ModelSpec:
    """A sequential model: input, then the layers; two relu layers and a linear head unless told otherwise."""
    given = layers or (layer("h1"), layer("h2"), layer("out", units=1, activation="linear"))
    linked = chain(layer("input", "InputLayer"), *given)
    compiled = CompileSpec(
        optimizer=optimizer if optimizer is not None else globals()["optimizer"](),
        losses=(loss or globals()["loss"](),),
        metrics=(),
        jit_compile=False,
    )
    fields: dict[str, Any] = {
        "name": "model",
        "class_name": "Sequential",
        "layers": linked,
        "inputs": ("input",),
        "outputs": (linked[-1].name,),
        "graph_known": True,
        "custom_objects": (),
        "global_policy": "float32",
        "compile": compiled,
    }
    return ModelSpec(**(fields | changes))


def state(class_name: str = "Adam", rate: float | Missing = 0.001, **changes: Any) -> OptimizerState:
    fields: dict[str, Any] = {
        "class_name": class_name,
        "iterations": 100,
        "learning_rate": rate,
        "learning_rate_source": "stored",
        "gradients": (),
        "profile_ratio": None,
        "loss_scale": None,
        "skipped_updates": None,
        "untouched_slots": False,
    }
    return OptimizerState(**(fields | changes))


def gradient(
    layer_name: str, rms: float | None = 0.1, ratio: float | None = None, variable: str = "kernel"
) -> GradientScale:
    return GradientScale(f"layers/{layer_name}/vars/0", layer_name, variable, rms, rms, ratio, 0.1)


def series(name: str = "loss", values: tuple[float, ...] = (1.0, 0.5, 0.3, 0.2, 0.1), axis: str = "epoch") -> Series:
    steps = tuple(float(n) for n in range(len(values)))
    finite = [v for v in values if math.isfinite(v)]
    bad = [(s, v) for s, v in zip(steps, values, strict=True) if not math.isfinite(v)]
    return Series(
        name=name,
        axis=axis,
        steps=steps,
        values=values,
        count=len(values),
        nonfinite=len(bad),
        first_nonfinite=bad[0] if bad else None,
        min=min(finite, default=None),
        max=max(finite, default=None),
    )


def log(*given: Series, **changes: Any) -> tuple[TrainingLog, ...]:
    return (TrainingLog("log.csv", "csv", given or (series(),), **changes),)


def array(name: str = "x", kind: str = "input", **changes: Any) -> ArrayStats:
    fields: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "shape": (8, 32, 10) if kind == "input" else (8, 32, 1),
        "dtype": "float32",
        "nan": 0,
        "posinf": 0,
        "neginf": 0,
        "min": -3.0,
        "max": 3.0,
        "mean": 0.0,
        "std": 1.0,
    }
    return ArrayStats(**(fields | changes))


def batches(x: ArrayStats | None = None, y: ArrayStats | None = None, **changes: Any) -> Batches:
    return Batches("last_batches.npz", 8, tuple(range(8)), (x or array(),), (y or array("y", "target"),), **changes)


def fingerprint(*patterns: Pattern, layers: tuple[str, ...] = ("h1",)) -> Fingerprint:
    return Fingerprint(patterns, layers, layers[0] if layers else None)


def point(epoch: int, measured: Census | None = None, *, status: Status = Status.HEALTHY) -> TimelinePoint:
    measured = measured or census(path=f"epoch_{epoch:03}.keras", iterations=epoch * 10)
    return TimelinePoint(f"epoch_{epoch:03}.keras", epoch, epoch * 10, status, measured.nonfinite, measured)


def timeline(*points: TimelinePoint, **changes: Any) -> Timeline:
    given = points or (point(0), point(1))
    bad = next((n for n, p in enumerate(given) if p.status is Status.SICK), None)
    good = [n for n, p in enumerate(given) if p.status is Status.HEALTHY and (bad is None or n < bad)]
    fields: dict[str, Any] = {
        "points": given,
        "order": "iterations",
        "last_healthy": good[-1] if good else None,
        "first_bad": bad,
        "resume_from": good[-1] if good else None,
        "resume_reason": "the last healthy one",
    }
    return Timeline(**(fields | changes))


def replay(status: ReplayStatus = ReplayStatus.NOT_REPRODUCED, **changes: Any) -> Replay:
    return Replay(status, **changes)


def evidence(**parts: Any) -> Evidence:
    """Evidence with the given parts; the rest is Missing."""
    fields: dict[str, Any] = {
        "files": RunFiles("run", (), (), ()),
        "census": NONE,
        "spec": NONE,
        "fingerprint": NONE,
        "optimizer": NONE,
        "timeline": NONE,
        "logs": NONE,
        "batches": NONE,
        "replay": NONE,
    }
    return Evidence(**(fields | parts))
