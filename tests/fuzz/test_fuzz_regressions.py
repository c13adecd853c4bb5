"""What fuzzing found once, each as small as it gets."""

from __future__ import annotations

import io
import json
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ckptdoctor.checkpoints import CheckpointError, open_checkpoint
from ckptdoctor.checkpoints.documents import parse_json
from ckptdoctor.checkpoints.limits import DEFAULT_LIMITS
from ckptdoctor.evidence.batches import BatchesError, measure_batches
from ckptdoctor.logs import LogError, read_log
from ckptdoctor.model import Missing
from ckptdoctor.report.charts.bars import LogBars

FORMATS = Path(__file__).resolve().parents[2] / "fixtures" / "formats"
NO_SPEC = Missing("no configuration")


def npz(path, **members: bytes):
    with zipfile.ZipFile(path, "w") as file:
        for name, body in members.items():
            file.writestr(f"{name}.npy", body)
    return path


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_a_header_that_is_no_python_at_all(tmp_path):
    """Numpy tries to repair what Python 2 wrote, with a tokenizer that raises an error of its own."""
    body = npy(np.zeros((2, 3), "f4")).replace(b"'shape': (", b"'shap3': ((")
    with pytest.raises(BatchesError, match="does not begin like one that numpy saved"):
        measure_batches(npz(tmp_path / "b.npz", x=body, y=body), NO_SPEC)


def test_a_compressed_header_that_does_not_inflate(tmp_path):
    path = tmp_path / "b.npz"
    np.savez_compressed(path, x=np.arange(60, dtype="f4").reshape(10, 6), y=np.zeros((10, 1), "f4"))
    raw = bytearray(path.read_bytes())
    at = raw.find(b"x.npy") + len(b"x.npy")
    at += int.from_bytes(raw[28:30], "little")
    raw[at : at + 24] = b"\xff" * 24
    path.write_bytes(raw)
    with pytest.raises(BatchesError, match=r"damaged|cannot be read"):
        measure_batches(path, NO_SPEC)


def test_signalling_nan_are_counted_without_a_warning(tmp_path):
    x = np.ones((4, 8, 3), "f4")
    x.view("u4")[0, 0, 0] = 0x7F800001
    y = np.zeros((4, 8, 1), "f2")
    y.view("u2")[1, 1, 0] = 0x7C01
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure_batches(npz(tmp_path / "b.npz", x=npy(x), y=npy(y)), NO_SPEC)
    assert (found.inputs[0].nan, found.targets[0].nan) == (1, 1)


def test_an_array_may_not_claim_more_than_the_archive_holds(tmp_path):
    """A stored member whose directory entry declares gigabytes: nothing of that size is ever asked for."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (4, 20_000, 5_000)})
    body = buffer.getvalue()
    raw = bytearray(npz(tmp_path / "b.npz", x=body, y=body).read_bytes())
    for at in (i for i in range(len(raw)) if raw[i : i + 4] == b"PK\x01\x02"):
        raw[at + 20 : at + 28] = (0x7FFFFFFF).to_bytes(4, "little") * 2
    (tmp_path / "b.npz").write_bytes(raw)
    with pytest.raises(BatchesError, match="declares 1,600,000,000 bytes and has"):
        measure_batches(tmp_path / "b.npz", NO_SPEC)


def test_long_integers_are_told_in_words_of_our_own():
    with pytest.raises(CheckpointError, match="more digits than any number of a model"):
        parse_json(b"[" + b"9" * 5000 + b"]", "config.json", DEFAULT_LIMITS)


def test_a_device_is_not_even_opened(tmp_path, monkeypatch):
    (tmp_path / "log.csv").symlink_to("/dev/zero")
    monkeypatch.setattr("os.open", lambda *_a, **_k: pytest.fail("it was opened"))
    with pytest.raises(LogError, match=r"not a regular file|no known"):
        read_log(tmp_path / "log.csv")


def test_what_a_library_quotes_of_a_file_is_cut(tmp_path):
    """Python's zip reader repeats the name in a member's own header, however long it is."""
    body = npy(np.zeros((4, 2), "f4"))
    raw = bytearray(npz(tmp_path / "b.npz", x=body, y=body).read_bytes())
    raw[26:28] = len(body).to_bytes(2, "little")
    raw[8:10] = raw[raw.find(b"PK\x01\x02") + 10 : raw.find(b"PK\x01\x02") + 12] = (
        b"\x08\0"  # only compressed ones are opened by it
    )
    (tmp_path / "b.npz").write_bytes(raw)
    with pytest.raises(BatchesError, match="damaged one") as caught:
        measure_batches(tmp_path / "b.npz", NO_SPEC)
    assert len(str(caught.value)) < 600 + len(str(tmp_path))


def test_bars_over_the_whole_range_of_float64():
    bars = LogBars.over([1e-300, 1.0, 1e300])
    assert [bars.length(v) for v in (1e-300, 1.0, 1e300)] == [1, 11, 20]


@pytest.mark.parametrize("key", [{"a" * 5000: {}}, "a" * 5000, ["kernel"], None])
def test_a_key_of_an_orbax_tree_is_a_name_of_ordinary_length(key, tmp_path):
    shutil.copytree(FORMATS / "orbax" / "1", tmp_path / "1")
    metadata = next((tmp_path / "1").rglob("pytree/_METADATA"))
    document = json.loads(metadata.read_text())
    before = len(document["tree_metadata"])
    first = next(iter(document["tree_metadata"].values()))
    first["key_metadata"][0]["key"] = key
    metadata.write_text(json.dumps(document))
    with open_checkpoint(tmp_path / "1") as checkpoint:
        assert before - 1 >= len(checkpoint.tensors)
        for stored in checkpoint.tensors:
            assert len(stored.info.path) < 500
