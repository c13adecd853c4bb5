"""A save that was cut off half-way: what is still told on the command line."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hostile_run import ROOT

import ckptdoctor
from ckptdoctor.checkpoints import open_checkpoint
from ckptdoctor.model import Missing
from fixtures.hostile_parts import archive, model, part

MODEL = ROOT / "fixtures" / "formats" / "made" / "attention.keras"


@pytest.fixture
def half(tmp_path):
    path = tmp_path / "half.keras"
    data = MODEL.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def test_configuration_and_every_tensor_that_can_be_located(half):
    size = half.stat().st_size
    with open_checkpoint(MODEL) as whole:
        assert len(whole.tensors) >= 20
        inside = [t for t in whole.tensors if t.span is not None and t.span.offset + t.span.nbytes <= size]
        expected = {hashlib.sha256(t.load().tobytes()).hexdigest() for t in inside}
        config = whole.info.model_config
    with open_checkpoint(half) as checkpoint:
        found = [t for t in checkpoint.tensors if t.problem is None]
        digests = {hashlib.sha256(t.load().tobytes()).hexdigest() for t in found}
        assert checkpoint.info.model_config == config
        assert not isinstance(checkpoint.info.keras_version, Missing)
        assert 0.0 < checkpoint.info.coverage < 1.0
    assert len(expected) >= 3
    # One tensor may stand in front of the cut while its own header stands behind it.
    assert len(expected - digests) <= 1


def test_the_command_line_says_how_much_and_ends_with_2(half):
    command = [sys.executable, "-c", "from ckptdoctor.cli import main; main()"]
    result = subprocess.run(
        [*command, "inspect", "--no-replay", "--format", "json", str(half)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    document = json.loads(result.stdout)
    assert document["verdict"]["status"] == "unreadable"
    assert document["subject"]["layers"]
    assert [layer for layer in document["layers"] if layer["variables"]]
    coverage = re.search(r"(\d+)\s?%", document["verdict"]["headline"])
    assert coverage is not None
    assert 0 < int(coverage.group(1)) < 100
    messages = " ".join(f["message"] for f in document["findings"])
    assert "weights of the model are not in this file" in messages  # what the rest would have been


# --- damage of other kinds -------------------------------------------------------------------------


def test_nan_that_damage_made_is_no_diagnosis(tmp_path):
    """4 KiB of ones in the middle of a healthy file read as NaN; the archive's checksum tells that nobody trained them."""
    from ckptdoctor.scanner.work import measure

    data = bytearray(MODEL.read_bytes())
    with open_checkpoint(MODEL) as whole:
        victim = max((t for t in whole.tensors if t.span is not None), key=lambda t: t.info.nbytes)
        at, length = victim.span.offset, min(victim.info.nbytes, 4096)
    data[at : at + length] = b"\xff" * length
    path = tmp_path / "flipped.keras"
    path.write_bytes(data)
    report = ckptdoctor.inspect(path, replay=False)
    assert report.verdict.status.value == "unreadable"
    assert "checksum" in report.verdict.headline
    assert any(f.rule == "CKD701" for f in report.findings)
    line = measure({"path": str(path), "first": None})
    assert (line["status"], line["kind"]) == ("unreadable", "damaged")


def uncompiled(tmp_path, form):
    """Ten Dense layers that were never compiled, as Keras saves them, cut in half."""
    layers = [part("Dense", name=f"d{n}", units=64, use_bias=True) for n in range(10)]
    for layer in layers:
        layer["build_config"] = {"input_shape": [None, 64]}
    config = model()
    config["config"]["layers"][1:] = layers
    config["compile_config"] = {}
    rng = np.random.default_rng(3)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        if form == "h5":
            file.attrs["model_config"] = json.dumps(config)
            top = file.create_group("model_weights")
            top.attrs["layer_names"] = [layer["config"]["name"] for layer in layers]
        for n, layer in enumerate(layers):
            name = layer["config"]["name"]
            if form == "h5":
                group = top.create_group(name)
                group.attrs["weight_names"] = [f"{name}/kernel:0", f"{name}/bias:0"]
                names = (f"{name}/kernel:0", f"{name}/bias:0")
            else:
                group = file.create_group(f"layers/dense{f'_{n}' if n else ''}/vars")
                group.attrs["name"] = name
                names = ("0", "1")
            group.create_dataset(names[0], data=rng.random((64, 64), "f4"))
            group.create_dataset(names[1], data=rng.random(64, "f4"))
    whole = tmp_path / f"whole.{form}"
    whole.write_bytes(archive(config, buffer.getvalue()) if form == "keras" else buffer.getvalue())
    half = tmp_path / f"half.{form}"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return whole, half


@pytest.mark.parametrize("form", ["keras", "h5"])
def test_half_of_twenty_tensors(tmp_path, form):
    whole, half = uncompiled(tmp_path, form)
    with open_checkpoint(whole) as checkpoint:
        names = {
            hashlib.sha256(t.load().tobytes()).hexdigest(): (t.info.layer, t.info.variable) for t in checkpoint.tensors
        }
        config = checkpoint.info.model_config
    assert len(names) == 20
    with open_checkpoint(half) as checkpoint:
        found = [t for t in checkpoint.tensors if t.problem is None]
        assert checkpoint.info.model_config == config
        assert 8 <= len(found) <= 10
        # Of a model without an optimizer no state can be missing: nearly half of the bytes are there.
        assert 0.4 <= checkpoint.info.coverage <= 0.5
        for stored in found:
            layer, variable = names[hashlib.sha256(stored.load().tobytes()).hexdigest()]
            assert stored.info.layer in (layer, None)
            assert stored.info.variable in (variable, None) or stored.info.layer is None
