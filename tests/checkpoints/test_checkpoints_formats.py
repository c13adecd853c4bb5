"""Every container that Keras 2.12 to 3.15 writes opens, with the user's names and the very bytes that Keras saved."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import h5py
import numpy as np
import pytest

from ckptdoctor.checkpoints import detect_format, open_checkpoint
from ckptdoctor.model import Format, Missing, Role, TensorInfo

FORMATS = Path(__file__).parents[2] / "fixtures" / "formats"
MADE = json.loads((FORMATS / "made" / "expected.json").read_text(encoding="utf-8"))
LOADED = json.loads((FORMATS / "loaded.json").read_text(encoding="utf-8"))
STORED = json.loads((FORMATS / "stores.json").read_text(encoding="utf-8"))
MODELS = {**{f"made/{name}": rows for name, rows in MADE.items()}, **LOADED}

# layers inside one of Keras' own layers: Keras names them in a variable's path, we call them by their part
INNER = {
    "each/inside": "each",
    "spectral/bounded": "spectral",
    "stack/stacked_rnn_cells": "stack/cells",
}
# a nested model that was built on its own does not know the model around it
AROUND = {"ln": "middle/inner/ln", "deep": "middle/inner/deep"}
# Keras saves neither the state of seed generators nor the two factors of LoRA (merged into the kernel when saved)
UNSAVED = re.compile(r"seed_generator|lora_kernel_")


def sha(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def expected_label(path: str, file: str) -> str:
    """What we call a variable that Keras calls by this path."""
    name = re.sub(r":\d+$", "", path)
    name = re.sub(r"^(small|net|recurrent)/", "", name)
    for theirs, ours in INNER.items():
        name = name.replace(theirs, ours)
    parts = []
    for part in name.split("/"):
        if re.search(r"_cell(_\d+)?$", part) and "cells" not in parts:
            continue
        parts.append(re.sub(r"^(forward|backward)_.*", r"\1", part))
    if parts[0] in AROUND and "nested" in file:
        parts[0] = AROUND[parts[0]]
    if parts[0] in ("deep1", "dense") and not file.startswith("made/"):  # likewise
        parts.insert(0, "sub")
    return "/".join(parts)


# What a file does not settle: gamma or beta of a layer that has one of them; variables of classes that are not Keras' own,
# and of Keras' own under a name of the user's inside such a class.
UNSETTLED = {
    ("made/nested.weights.h5", "norm/gamma"): "norm/vars/0",
    ("made/custom.keras", "block/gain"): "block/vars/0",
    ("made/custom.keras", "block/wide/kernel"): "block/wide/vars/0",
    ("made/custom.keras", "block/wide/bias"): "block/wide/vars/1",
}


@pytest.mark.parametrize("file", sorted(MODELS))
def test_variables_have_the_names_and_bytes_that_keras_loads(file):
    with open_checkpoint(FORMATS / file) as checkpoint:
        by_bytes: dict[str, list[TensorInfo]] = defaultdict(list)
        for stored in checkpoint.tensors:
            if stored.info.role not in (Role.SLOT, Role.OPTIMIZER):
                by_bytes[sha(stored.load())].append(stored.info)
    for variable in MODELS[file]["model"]:
        if UNSAVED.search(variable["name"]):
            continue
        found = by_bytes.get(variable["sha256"], [])
        label = expected_label(variable["name"], file)
        label = UNSETTLED.get((file, label), label)
        assert label in {info.label for info in found}, (variable, found)
        info = next(i for i in found if i.label == label)
        assert tuple(variable["shape"]) == info.shape
        assert info.dtype in (variable["dtype"], "int4")
        if info.role is Role.WEIGHT and info.trainable is not None and file in MADE:
            assert variable["trainable"] == info.trainable


@pytest.mark.parametrize("file", sorted(f for f in MODELS if MODELS[f]["optimizer"]))
def test_slots_belong_to_the_weights_that_keras_made_them_for(file):
    with open_checkpoint(FORMATS / file) as checkpoint:
        pairs = [(stored.info, sha(stored.load())) for stored in checkpoint.tensors]
    digests = {info.path: digest for info, digest in pairs}
    weight_names = {row["sha256"]: re.sub(r":\d+$", "", row["name"]) for row in MODELS[file]["model"]}
    slot_names = {row["sha256"]: re.sub(r":\d+$", "", row["name"]) for row in MODELS[file]["optimizer"]}
    random_values = file.startswith("made/")  # in the others many slots hold equal bytes
    mapped = 0
    for info, digest in pairs:
        if info.role is not Role.SLOT or info.slot_of is None:
            continue
        mapped += 1
        weight = next(i for i, _ in pairs if i.path == info.slot_of)
        assert info.shape == weight.shape
        assert (info.layer, info.variable) == (weight.layer, weight.variable)
        if random_values:
            keras_name = slot_names[digest].rpartition("/")[2]
            assert keras_name == f"{weight_names[digests[info.slot_of]].replace('/', '_')}_{info.slot}"
    slots = [info for info, _ in pairs if info.role is Role.SLOT and not info.variable.startswith("lora_")]
    assert mapped == len(slots)


def test_slots_whose_weight_is_not_certain_claim_none():
    with open_checkpoint(FORMATS / "shapes" / "sub.keras") as checkpoint:
        slots = [t.info for t in checkpoint.tensors if t.info.role is Role.SLOT]
    certain = {info.layer for info in slots if info.slot_of is not None}
    assert certain == {None, "aa", "dense_7"}  # the three layers between have equal shapes and no recorded order
    assert {(4, 4), (4,)} == {info.shape for info in slots if info.slot_of is None}


@pytest.mark.parametrize("store", sorted(STORED))
def test_stores_of_tensorflow_and_orbax_hold_the_bytes_their_own_readers_give(store):
    path = FORMATS / store
    if "variables" in path.parts:
        path = path.parents[1]
    elif path.name == "pytree":
        path = path.parent
    with open_checkpoint(path) as checkpoint:
        found = {t.info.path: sha(t.load()) for t in checkpoint.tensors}
        copies = {p for p in (r["name"] for r in STORED[store]["stored"]) if p.startswith("_all_variables/")}
        expected = {r["name"]: r["sha256"] for r in STORED[store]["stored"] if r["name"] not in copies}
        assert expected == found
        assert all(t.info.slot_of for t in checkpoint.tensors if t.info.role is Role.SLOT)


HDF5 = sorted(
    p.relative_to(FORMATS).as_posix() for p in FORMATS.rglob("*.h5") if h5py.is_hdf5(p) and "shards" not in p.name
)


@pytest.mark.parametrize("file", HDF5)
def test_every_dataset_of_an_hdf5_file_has_the_bytes_h5py_reads(file):
    with open_checkpoint(FORMATS / file) as checkpoint, h5py.File(FORMATS / file) as reference:
        datasets: dict[str, bytes] = {}
        reference.visititems(
            lambda name, item: datasets.update({name: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
        )
        assert datasets == {t.info.path: t.load().tobytes() for t in checkpoint.tensors}
        assert checkpoint.info.coverage == 1.0


DETECTED = {
    "keras-2.12.0/m.keras": Format.LEGACY_H5,
    "keras-2.12.0/m.weights.h5": Format.WEIGHTS_H5,
    "keras-2.15/m.h5": Format.LEGACY_H5,
    "keras-3.13.0/m.keras": Format.KERAS_ZIP,
    "damaged_or_odd/trunc.keras": Format.KERAS_ZIP,
    "shapes/npz.keras": Format.KERAS_ZIP,
    "shapes/unzipped.keras": Format.KERAS_DIR,
    "made/unzipped": Format.KERAS_DIR,
    "made/shards.weights.json": Format.SHARDED_H5,
    "tf_checkpoint": Format.TF_CHECKPOINT,
    "tf_checkpoint/ckpt.index": Format.TF_CHECKPOINT,
    "savedmodel-keras-2.15": Format.SAVED_MODEL,
    "exported_savedmodel": Format.SAVED_MODEL,
    "orbax": Format.ORBAX,
    "orbax/1": Format.ORBAX,
    "backup_and_restore_2.15": Format.BACKUP,
    "README.md": None,
    "loaded.json": None,
    "backup_and_restore_2.15/training_metadata.json": None,
    "does-not-exist": None,
}


@pytest.mark.parametrize("path", sorted(DETECTED))
def test_the_container_is_found_by_content(path):
    assert DETECTED[path] == detect_format(FORMATS / path)


@pytest.mark.parametrize("path", sorted(p for p, form in DETECTED.items() if form is not None))
def test_opening_agrees_with_detecting(path):
    with open_checkpoint(FORMATS / path) as checkpoint:
        assert DETECTED[path] == checkpoint.info.format
        assert checkpoint.info.size_bytes > 0


def test_the_extension_says_nothing(tmp_path):
    odd = tmp_path / "model.txt"
    odd.write_bytes((FORMATS / "keras-3.13.0" / "m.keras").read_bytes())
    with open_checkpoint(odd) as checkpoint:
        assert checkpoint.info.format is Format.KERAS_ZIP


def test_what_a_container_says_of_itself():
    with open_checkpoint(FORMATS / "keras-3.13.0" / "m.keras") as checkpoint:
        assert checkpoint.info.keras_version == "3.13.0"
        assert checkpoint.info.saved_at == "2026-11-23@19:10:26"
        assert isinstance(checkpoint.info.backend, Missing)
        assert checkpoint.info.compile_config["optimizer"]["config"]["clipnorm"] == 1.0
        assert {"iterations": 8.0} == checkpoint.scalars
    with open_checkpoint(FORMATS / "keras-2.12.0" / "m.h5") as checkpoint:
        assert (checkpoint.info.keras_version, checkpoint.info.backend) == ("2.12.0", "tensorflow")
    with open_checkpoint(FORMATS / "savedmodel-keras-2.15") as checkpoint:
        assert checkpoint.info.keras_version == "2.15.0"
        assert checkpoint.info.model_config["class_name"] == "Sequential"
    with open_checkpoint(FORMATS / "orbax") as checkpoint:
        assert checkpoint.info.model_config["class_name"] == "Functional"
        assert checkpoint.scalars["iterations"] == 4.0


def test_backup_folders_give_epoch_and_batch():
    folder = FORMATS / "backup_and_restore_2.15"
    with open_checkpoint(folder) as checkpoint:
        assert (checkpoint.info.epoch, checkpoint.info.batch) == (2, 0)
    with open_checkpoint(folder / "chief") as checkpoint:
        assert checkpoint.info.format is Format.BACKUP
        assert checkpoint.info.epoch == 1


def test_a_loss_scale_is_read_with_the_count_of_applied_updates():
    with open_checkpoint(FORMATS / "dtypes" / "mf16ls.keras") as checkpoint:
        assert checkpoint.scalars["loss_scale"] == 8192.0
        assert checkpoint.scalars["inner_iterations"] == checkpoint.scalars["iterations"] == 0.0
        assert checkpoint.scalars["learning_rate"] == pytest.approx(1e-3)


def test_a_nan_learning_rate_survives_in_file_and_configuration():
    with open_checkpoint(FORMATS / "damaged_or_odd" / "nanlr.keras") as checkpoint:
        assert np.isnan(checkpoint.scalars["learning_rate"])
        assert np.isnan(checkpoint.info.compile_config["optimizer"]["config"]["learning_rate"])


def test_packed_int4_is_labelled_and_keeps_its_scales():
    with open_checkpoint(FORMATS / "made" / "int4.keras") as checkpoint:
        kernels = {t.info.label: t.info for t in checkpoint.tensors if t.info.role is Role.WEIGHT}
        assert kernels["out/kernel"].dtype == "int4"
        states = {t.info.variable for t in checkpoint.tensors if t.info.role is Role.STATE}
        assert {"kernel_scale", "kernel_zero", "g_idx", "embeddings_scale"} <= states


def test_keras_30_lost_weights_of_nested_models_in_its_legacy_format():
    with open_checkpoint(FORMATS / "keras-3.0.5" / "m.h5") as checkpoint:
        assert any("several weights named 'kernel'" in p.message for p in checkpoint.info.problems)


def test_layers_come_in_the_order_of_the_model():
    with open_checkpoint(FORMATS / "made" / "nested.keras") as checkpoint:
        layers = list(dict.fromkeys(t.info.layer for t in checkpoint.tensors if t.info.role is Role.WEIGHT))
    assert layers == ["middle/inner/ln", "middle/inner/deep", "middle/after", "side", "norm", "frozen", "out"]


def test_a_subclassed_model_is_named_by_its_layers():
    with open_checkpoint(FORMATS / "shapes" / "sub.keras") as checkpoint:
        layers = {t.info.layer for t in checkpoint.tensors if t.info.role is Role.WEIGHT}
    assert layers == {None, "aa", "dense_4", "dense_5", "dense_6", "dense_7"}


def test_a_tensor_in_a_stored_archive_is_read_in_place():
    path = FORMATS / "keras-3.13.0" / "m.keras"
    raw = path.read_bytes()
    with open_checkpoint(path) as checkpoint:
        for stored in checkpoint.tensors:
            assert stored.span is not None
            assert raw[stored.span.offset : stored.span.offset + stored.span.nbytes] == stored.load().tobytes()


def test_opening_needs_no_hdf5_library():
    program = (
        "import sys\n"
        "from ckptdoctor.checkpoints import open_checkpoint\n"
        f"for f in {[str(FORMATS / f) for f in sorted(MODELS)]!r}:\n"
        "    open_checkpoint(f).close()\n"
        "assert not {'h5py', 'tensorflow', 'keras', 'ml_dtypes'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_an_optimizer_of_a_nested_model_is_no_weight(tmp_path):
    # a frozen discriminator compiled for itself, inside a GAN: its zero slots looked like constant kernels
    path = tmp_path / "gan.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/sequential/layers/dense/vars/0"] = np.ones((3, 4), np.float32)
        file["layers/sequential/optimizer/vars/0"] = np.int64(120)
        file["layers/sequential/optimizer/vars/2"] = np.zeros((3, 4), np.float32)
        file["d_optimizer/vars/1"] = np.zeros((3, 4), np.float32)
    with open_checkpoint(str(path)) as checkpoint:
        roles = {t.info.path: t.info.role for t in checkpoint.tensors}
    assert {"layers/sequential/layers/dense/vars/0"} == {p for p, role in roles.items() if role is Role.WEIGHT}
