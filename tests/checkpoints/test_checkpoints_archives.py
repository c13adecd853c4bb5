"""The zip around a `.keras`: stored and deflated members are read, everything that lies is refused by name."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import pytest

from ckptdoctor.checkpoints import CheckpointError, detect_format, open_checkpoint
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.model import ProblemKind

FORMATS = Path(__file__).parents[2] / "fixtures" / "formats"
SOURCE = FORMATS / "keras-3.13.0" / "m.keras"


def members() -> dict[str, bytes]:
    with zipfile.ZipFile(SOURCE) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path: Path, content, method=zipfile.ZIP_STORED, **options) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content if isinstance(content, list) else content.items():
            archive.writestr(name, data, **options)
    return path


def loaded(path: Path, **options) -> dict[str, bytes]:
    with open_checkpoint(path, **options) as checkpoint:
        return {t.info.path: t.load().tobytes() for t in checkpoint.tensors}


def refusals(path: Path) -> dict[str | None, ProblemKind]:
    with open_checkpoint(path) as checkpoint:
        return {p.where: p.kind for p in checkpoint.info.problems}


def test_a_deflated_archive_holds_the_same(tmp_path):
    path = zipped(tmp_path / "x.keras", members(), zipfile.ZIP_DEFLATED)
    assert loaded(SOURCE) == loaded(path)


def test_a_large_deflated_member_goes_through_a_file_that_leaves_no_trace(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "spill"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "spill").mkdir()
    path = zipped(tmp_path / "x.keras", members(), zipfile.ZIP_DEFLATED)
    assert loaded(SOURCE) == loaded(path, limits=ReadLimits(inflate_memory_bytes=1000))
    assert list((tmp_path / "spill").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["spill", "x.keras"]


def test_zip64_fields_are_understood(tmp_path):
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members().items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    assert loaded(SOURCE) == loaded(path)


def test_an_archive_written_to_a_stream_is_read(tmp_path):
    """Sizes then stand behind each member, not before it."""

    class Stream:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            return self.file.write(data)

        def flush(self):
            self.file.flush()

    path = tmp_path / "x.keras"
    with path.open("wb") as file, zipfile.ZipFile(Stream(file), "w") as archive:
        for name, data in members().items():
            archive.writestr(name, data)
    assert loaded(SOURCE) == loaded(path)


def test_another_zip_is_no_checkpoint(tmp_path):
    path = zipped(tmp_path / "batches.npz", {"x.npy": b"1", "y.npy": b"2"})
    assert detect_format(path) is None
    with pytest.raises(CheckpointError, match=r"not a \.keras file"):
        open_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_refused(tmp_path):
    content = [*members().items(), ("config.json", b'{"class_name": "Other"}')]
    path = zipped(tmp_path / "x.keras", content)
    assert refusals(path)["config.json"] is ProblemKind.HOSTILE


@pytest.mark.parametrize("name", ["../../outside.h5", "/etc/passwd", "assets\\..\\..\\x", "C:/x"])
def test_names_that_leave_the_archive_are_refused(tmp_path, name):
    path = zipped(tmp_path / "x.keras", {**members(), name: b"x"})
    found = refusals(path)
    assert ProblemKind.HOSTILE in found.values()
    assert len(loaded(path)) == len(loaded(SOURCE))


def patched(path: Path, name: str, *, local=None, central=None) -> None:
    """Change fields of a member's two headers: {offset in the header: bytes}."""
    data = bytearray(path.read_bytes())
    key = name.encode()
    for signature, at_name, changes in ((b"PK\x03\x04", 30, local), (b"PK\x01\x02", 46, central)):
        at = data.find(signature)
        while data[at + at_name : at + at_name + len(key)] != key:
            at = data.find(signature, at + 4)
        for offset, value in (changes or {}).items():
            data[at + offset : at + offset + len(value)] = value
    path.write_bytes(data)


WEIGHTS = "model.weights.h5"
LIES = {
    "encrypted": ({6: b"\x01"}, {8: b"\x01"}, ProblemKind.HOSTILE),
    "another method": ({8: b"\x63"}, {10: b"\x63"}, ProblemKind.UNSUPPORTED),
    "methods that differ": ({8: b"\x08"}, None, ProblemKind.HOSTILE),
    "sizes that differ": ({22: struct.pack("<L", 99)}, None, ProblemKind.HOSTILE),
    "names that differ": ({30: b"nodel"}, None, None),
    "position elsewhere": (None, {42: struct.pack("<L", 11)}, ProblemKind.DAMAGED),
    "stored size too large": (
        {18: struct.pack("<2L", 1 << 30, 1 << 30)},
        {20: struct.pack("<2L", 1 << 30, 1 << 30)},
        ProblemKind.HOSTILE,
    ),
}


@pytest.mark.parametrize("lie", sorted(set(LIES) - {"names that differ"}))
def test_a_member_whose_headers_lie_is_refused_and_the_configuration_read(tmp_path, lie):
    local, central, kind = LIES[lie]
    path = zipped(tmp_path / "x.keras", members())
    patched(path, WEIGHTS, local=local, central=central)
    with open_checkpoint(path) as checkpoint:
        assert kind in {p.kind for p in checkpoint.info.problems if p.where == WEIGHTS}
        assert checkpoint.tensors == ()
        assert checkpoint.info.coverage == 0.0
        assert checkpoint.info.model_config["class_name"] == "Functional"


def test_a_bomb_is_refused_by_what_it_declares(tmp_path):
    path = zipped(tmp_path / "x.keras", {**members(), WEIGHTS: bytes(1 << 22)}, zipfile.ZIP_DEFLATED)
    with open_checkpoint(path, limits=ReadLimits(zip_ratio_floor=1 << 20)) as checkpoint:
        assert any("zip bomb" in p.message for p in checkpoint.info.problems)
        assert checkpoint.tensors == ()


def test_a_bomb_that_lies_about_its_size_stops_at_what_it_declared(tmp_path):
    path = zipped(tmp_path / "x.keras", {**members(), WEIGHTS: bytes(1 << 22)}, zipfile.ZIP_DEFLATED)
    patched(path, WEIGHTS, local={22: struct.pack("<L", 1000)}, central={24: struct.pack("<L", 1000)})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.tensors == ()
        assert any("HDF5" in p.message for p in checkpoint.info.problems)


def test_changed_bytes_in_a_deflated_member_fail_its_checksum(tmp_path):
    content = members()
    path = zipped(tmp_path / "x.keras", content, zipfile.ZIP_DEFLATED)
    patched(path, WEIGHTS, local={14: b"\0\0\0\1"}, central={16: b"\0\0\0\1"})
    with open_checkpoint(path) as checkpoint:
        assert any("checksum" in p.message for p in checkpoint.info.problems)
        assert len(checkpoint.tensors) == len(loaded(SOURCE))


def test_configuration_bounds(tmp_path):
    deep = zipped(tmp_path / "deep.keras", {**members(), "config.json": b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"})
    digits = zipped(tmp_path / "digits.keras", {**members(), "config.json": b'{"a":' + b"9" * 5000 + b"}"})
    wide = zipped(tmp_path / "wide.keras", {**members(), "config.json": b"[" + b"0," * 50 + b"0]"})
    for path, limits in ((deep, ReadLimits()), (digits, ReadLimits()), (wide, ReadLimits(json_items=20))):
        with open_checkpoint(path, limits=limits) as checkpoint:
            assert not checkpoint.info.model_config
            assert "config.json" in {p.where for p in checkpoint.info.problems}
            assert len(checkpoint.tensors) == len(loaded(SOURCE))


def test_an_archive_without_weights_says_so(tmp_path):
    content = members()
    del content[WEIGHTS]
    with open_checkpoint(zipped(tmp_path / "x.keras", content)) as checkpoint:
        assert "no weights" in checkpoint.info.problems[0].message
        assert checkpoint.info.coverage == 0.0


# --- npz -------------------------------------------------------------------------------------------------


def test_npz_weights_are_read_without_unpickling(tmp_path):
    """The pickle names `os.system`; unpickling would leave a file behind."""
    import io
    import pickle

    import numpy as np

    class Evil:
        def __reduce__(self):
            import os

            return os.system, (f"touch {tmp_path / 'ran'}",)

    buffer = io.BytesIO()
    good = {"0": np.arange(6.0).reshape(2, 3), "1": np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))}
    np.savez(
        buffer,
        **{"layers/dense": np.array(good, dtype=object), "layers/dense_1": np.array({"0": Evil()}, dtype=object)},
    )
    assert b"system" in buffer.getvalue()
    content = members()
    del content[WEIGHTS]
    path = zipped(tmp_path / "x.keras", {**content, "model.weights.npz": buffer.getvalue()})
    with open_checkpoint(path) as checkpoint:
        found = {t.info.path: t.load() for t in checkpoint.tensors}
        assert {"layers/dense/vars/0", "layers/dense/vars/1"} == set(found)
        for key, array in good.items():
            np.testing.assert_array_equal(array, found[f"layers/dense/vars/{key}"])
        assert any(p.kind is ProblemKind.HOSTILE and "system" in p.message for p in checkpoint.info.problems)
    assert not (tmp_path / "ran").exists()
    assert pickle.loads(pickle.dumps(1)) == 1


def test_an_empty_archive_is_not_a_checkpoint(tmp_path):
    path = zipped(tmp_path / "x.keras", {"config.json": b"{}"})
    data = path.read_bytes()
    end = bytearray(data[-22:])
    end[8:20] = bytes(12)  # no members, no table of contents
    path.write_bytes(data[:-22] + end)
    with pytest.raises(CheckpointError, match=r"not a \.keras file"):
        open_checkpoint(path)


# --- archives that are read in two ways ------------------------------------------------------------


@pytest.mark.parametrize("name", ["zip-two-archives.keras", "zip-wide-record.keras", "zip-second-name.keras"])
def test_what_is_seen_is_what_zipfile_loads(name):
    """Keras loads with `zipfile`; whoever looks must see the same configuration, and be told that there are two."""
    path = Path(__file__).parents[2] / "fixtures" / "hostile" / name
    with zipfile.ZipFile(path) as archive:
        loaded_by_keras = json.loads(archive.read("config.json"))
    with open_checkpoint(path) as checkpoint:
        assert loaded_by_keras == checkpoint.info.model_config
        assert any(p.kind is ProblemKind.HOSTILE for p in checkpoint.info.problems)


def test_a_wrong_position_in_the_end_record_costs_nothing_else(tmp_path):
    """Damage to the four bytes that say where the table of contents stands: it is found in front of the end record."""
    path = zipped(tmp_path / "x.keras", members())
    data = bytearray(path.read_bytes())
    expected = loaded(path)
    data[-6:-2] = b"\x07\0\0\0"
    path.write_bytes(data)
    assert expected == loaded(path)
    assert ProblemKind.HOSTILE in refusals(path).values()  # a program may still take it for another archive
