"""Weights and slots: loading them from any checkpoint, keeping and putting back whole states."""

from __future__ import annotations

import contextlib
import os
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.model import CkptDoctorError, Format, ReplayStatus
from ckptdoctor.recorder.rng import seed_generators
from ckptdoctor.replay.byname import fill_by_names
from ckptdoctor.replay.dialect import Dialect, raw
from ckptdoctor.replay.failure import CannotReplay, brief
from ckptdoctor.replay.request import CheckpointRef

GLOBAL_SEED = "global seed generator"
SENTINEL = 7.2973525e-3  # an odd number: a variable that still holds it everywhere after loading was not loaded
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a checkpoint filled.

    Attributes:
        not_restored: paths of the variables that it did not. slots_restored: whether the optimizer's state came back.
    """

    not_restored: tuple[str, ...]
    slots_restored: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Values of all variables of a model and its optimizer, on the host."""

    values: tuple[Array, ...]

    def nonfinite(self) -> list[int]:
        """Indices of the variables with a non-finite entry."""
        return [n for n, v in enumerate(self.values) if v.dtype.kind in "fV" and not np.isfinite(_real(v)).all()]


def _real(value: Array) -> Array:
    return value.astype(np.float32) if value.dtype.itemsize < 4 or value.dtype.kind == "V" else value


def model_variables(model: Any) -> list[Any]:
    """Weights, statistics, seeds: everything the model owns but the optimizer, without duplicates."""
    unique: dict[int, Any] = {}
    listed = list(model.variables) if hasattr(model, "variables") else list(model.weights)
    for variable in listed:
        inner = raw(variable)
        unique.setdefault(id(inner), inner)
    shared = _global_seed(model)
    if shared is not None:
        unique.setdefault(id(shared), shared)
    return list(unique.values())


def _global_seed(model: Any) -> Any | None:
    """State of Keras' global seed generator, where it exists: layers without a generator of their own draw from it."""
    generators = seed_generators(model) if hasattr(model, "_flatten_layers") else []
    return next((raw(state) for layer, _, state in generators if layer is None), None)


def variable_names(model: Any, dialect: Dialect) -> list[str]:
    """Paths of the variables of `all_variables`, in order."""
    names: dict[int, str] = {}
    for variable in [*(model.variables if hasattr(model, "variables") else model.weights)]:
        names.setdefault(id(raw(variable)), str(getattr(variable, "path", None) or variable.name))
    shared = _global_seed(model)
    if shared is not None:
        names.setdefault(id(shared), GLOBAL_SEED)
    optimizer = model.optimizer
    listed = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    for variable in listed:
        names.setdefault(id(raw(variable)), f"optimizer/{getattr(variable, 'path', None) or variable.name}")
    return [names[id(v)] for v in all_variables(model, dialect)]


def all_variables(model: Any, dialect: Dialect) -> list[Any]:
    """The model's and the optimizer's variables, without duplicates."""
    unique: dict[int, Any] = {}
    for variable in (*model_variables(model), *dialect.optimizer_variables(model.optimizer)):
        unique.setdefault(id(variable), variable)
    return list(unique.values())


def take(variables: list[Any]) -> Snapshot:
    """Copy the values to the host."""
    return Snapshot(tuple(v.numpy().copy() for v in variables))


def put(variables: list[Any], snapshot: Snapshot) -> None:
    """Put a state back."""
    for variable, value in zip(variables, snapshot.values, strict=True):
        variable.assign(value)


def load(model: Any, dialect: Dialect, reference: CheckpointRef) -> LoadReport:
    """Fill the model and its optimizer from a checkpoint.

    Variables that Keras skips are found by a sentinel written before loading.

    Raises:
        CannotReplay: the file cannot be loaded into this model at all.
    """
    variables = all_variables(model, dialect)
    marked = [v for v in variables if _floating(v) and v.shape.num_elements()]
    before = {id(v): v.numpy() for v in marked}
    for variable in marked:
        variable.assign(np.full(variable.shape, SENTINEL).astype(variable.dtype.as_numpy_dtype))
    dialect.counter(model.optimizer).assign(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _fill(model, dialect, reference)
    except CannotReplay:
        raise
    except Exception as error:
        if not _filled_otherwise(model, dialect, reference):
            raise CannotReplay(
                f"the weights of {os.path.basename(reference.path)} do not fit the rebuilt model ({brief(error)})",
                ReplayStatus.FAILED,
            ) from error
    names = dict(zip((id(v) for v in variables), variable_names(model, dialect), strict=True))
    missing = []
    for variable in marked:
        mark = np.asarray(SENTINEL).astype(variable.dtype.as_numpy_dtype)
        if bool((variable.numpy() == mark).all()):
            missing.append(variable)
            variable.assign(before[id(variable)])
    slots = {id(v) for v in dialect.optimizer_variables(model.optimizer)}
    lost = tuple(names[id(v)] for v in missing)
    weights = [v for v in model.weights if _floating(raw(v))]
    if weights and all(any(raw(v) is m for m in missing) for v in weights):
        raise CannotReplay(
            f"none of the weights in {os.path.basename(reference.path)} could be loaded into the rebuilt model",
            ReplayStatus.FAILED,
        )
    restored = not any(id(v) in slots for v in missing) and (
        reference.iterations is None or dialect.iterations(model.optimizer) == reference.iterations
    )
    return LoadReport(lost, restored)


def _filled_otherwise(model: Any, dialect: Dialect, reference: CheckpointRef) -> bool:
    """Try the project's own reader where Keras' loader gave up."""
    try:
        return fill_by_names(model, dialect, reference.path) > 0
    except (CkptDoctorError, ValueError, TypeError):
        return False


def _floating(variable: Any) -> bool:
    return bool(variable.dtype.is_floating)


def _fill(model: Any, dialect: Dialect, reference: CheckpointRef) -> None:
    kind = Format(reference.format)
    if kind is Format.LEGACY_H5:
        _fill_legacy(model, dialect, reference.path)
    elif dialect.legacy or kind is Format.ORBAX:
        model.load_weights(reference.path)
    else:
        with _store(kind, reference.path) as store:
            _fill_from_store(model, store)


def _fill_from_store(model: Any, store: Any) -> None:
    """Keras' own walk over model and store; what does not fit is skipped and found by the sentinel."""
    from keras.src.saving import saving_lib

    saving_lib._load_state(  # noqa: SLF001 - `load_weights` goes by file name, and we go by content
        model,
        weights_store=store,
        assets_store=None,
        inner_path="",
        skip_mismatch=True,
        visited_saveables=set(),
        failed_saveables=set(),
        error_msgs={},
    )


@contextlib.contextmanager
def _store(kind: Format, path: str) -> Iterator[Any]:
    from keras.src.saving import saving_lib

    with contextlib.ExitStack() as stack:
        if kind is Format.KERAS_ZIP:
            archive = stack.enter_context(zipfile.ZipFile(path))
            if "model.weights.h5" in archive.namelist():
                store = saving_lib.H5IOStore("model.weights.h5", archive=archive, mode="r")
            else:
                store = saving_lib.NpzIOStore("model.weights.npz", archive=archive, mode="r")
        elif kind is Format.KERAS_DIR:
            store = saving_lib.H5IOStore(os.path.join(path, "model.weights.h5"), mode="r")
        elif kind is Format.WEIGHTS_H5:
            store = saving_lib.H5IOStore(path, mode="r")
        elif kind is Format.SHARDED_H5:
            store = saving_lib.ShardedH5IOStore(path, mode="r")
        elif kind is Format.BACKUP:
            store = saving_lib.H5IOStore(os.path.join(path, "latest.weights.h5"), mode="r")
        else:
            raise CannotReplay(f"replay cannot start from the container '{kind.value}' ({os.path.basename(path)})")
        stack.callback(store.close)
        yield store


def _fill_legacy(model: Any, dialect: Dialect, path: str) -> None:
    """Whole-model or weights-only HDF5 of Keras 2's layout: weights by layer order, slots by their order."""
    import h5py

    if dialect.legacy:
        from tf_keras.src.saving.legacy import hdf5_format as legacy
    else:
        from keras.src.legacy.saving import legacy_h5_format as legacy
    with h5py.File(path, "r") as file:
        group = file["model_weights"] if "layer_names" not in file.attrs and "model_weights" in file else file
        legacy.load_weights_from_hdf5_group(group, model)
        if "optimizer_weights" not in file:
            return
        values = [np.asarray(v) for v in legacy.load_optimizer_weights_from_hdf5_group(file)]
        _assign_slots(dialect.optimizer_variables(model.optimizer), values)


def _assign_slots(variables: list[Any], values: list[Array]) -> None:
    """Slots in the order they were saved; the learning rate, which Keras 2 did not store, may be absent.

    Nothing is assigned where the shapes do not line up: the caller then finds the slots not restored.
    """
    if len(values) == len(variables) - 1:
        variables = [v for v in variables if "learning_rate" not in str(v.name)]
    if len(values) != len(variables):
        return
    if any(tuple(v.shape) != value.shape for v, value in zip(variables, values, strict=True)):
        return
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value.astype(variable.dtype.as_numpy_dtype))
