"""Tiny real runs for the command line: checkpoints written with h5py and zipfile as Keras lays them out, and a log."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np


def _layer(class_name: str, config: dict) -> dict:
    return {"module": "keras.layers", "class_name": class_name, "config": config, "registered_name": None}


def _config() -> dict:
    dense = {"units": 4, "activation": "relu", "use_bias": True, "dtype": "float32", "trainable": True, "name": "dense"}
    layers = [_layer("InputLayer", {"batch_shape": [None, 3], "dtype": "float32", "name": "x"}), _layer("Dense", dense)]
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "sequential", "layers": layers, "build_input_shape": [None, 3]},
        "registered_name": None,
        "compile_config": {
            "optimizer": {
                "module": "keras.optimizers",
                "class_name": "SGD",
                "config": {"learning_rate": 0.01},
                "registered_name": None,
            },
            "loss": "mse",
        },
    }


def checkpoint(path: Path, *, nan: bool = False, step: int = 10) -> Path:
    """A `.keras` archive of one Dense layer; with `nan` its kernel's row 1 is NaN."""
    kernel = np.linspace(-0.5, 0.5, 12, dtype="f4").reshape(3, 4)
    if nan:
        kernel[1] = np.nan
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        weights = file.create_group("layers/dense/vars")
        weights.attrs["name"] = "dense"
        weights["0"], weights["1"] = kernel, np.full(4, 0.1, "f4")
        file.create_group("layers/input_layer/vars").attrs["name"] = "x"
        state = file.create_group("optimizer/vars")
        state["0"], state["1"] = np.int64(step), np.float32(0.01)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1", "date_saved": "2026-01-01@00:00:00"}))
        archive.writestr("config.json", json.dumps(_config()))
        archive.writestr("model.weights.h5", buffer.getvalue())
    return path


def run(folder: Path) -> Path:
    """A run whose second checkpoint and third epoch are NaN."""
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True)
    checkpoint(checkpoints / "epoch_000.keras", step=10)
    checkpoint(checkpoints / "epoch_001.keras", nan=True, step=20)
    (folder / "training_log.csv").write_text("epoch,loss\n0,1.5\n1,1.25\n2,nan\n")
    return folder
