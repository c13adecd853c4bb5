"""Paths that are not what they seem: each gives one clear sentence, quickly, and touches nothing else."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from ckptdoctor.checkpoints import CheckpointError, detect_format, open_checkpoint
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.model import ProblemKind

FORMATS = Path(__file__).parents[2] / "fixtures" / "formats"


def refused(path, match: str, **options) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        open_checkpoint(path, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert str(path) in sentence or not str(path)
    assert detect_format(path, **options) is None


def test_missing_empty_and_foreign_files(tmp_path):
    refused(tmp_path / "none.keras", "does not exist")
    empty = tmp_path / "empty.keras"
    empty.touch()
    refused(empty, "is empty")
    foreign = tmp_path / "foreign.keras"
    foreign.write_bytes(b"\x80\x04K\x01.")
    refused(foreign, "not a checkpoint")
    refused(empty / "below", "does not exist")
    refused("", "names no checkpoint")
    with pytest.raises(CheckpointError, match="cannot be opened"):
        open_checkpoint("x\0y")


def test_directories_without_a_checkpoint(tmp_path):
    refused(tmp_path, "not itself a checkpoint")
    (tmp_path / "notes.txt").write_text("x")
    refused(tmp_path, "not itself a checkpoint")


def test_special_files_never_block(tmp_path):
    fifo = tmp_path / "pipe.keras"
    os.mkfifo(fifo)
    refused(fifo, "named pipe")
    refused("/dev/zero", "a device")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.keras"))
        refused(tmp_path / "s.keras", "a socket")


def test_sparse_giants_are_refused(tmp_path):
    path = tmp_path / "sparse.keras"
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(1 << 40)
    refused(path, "sparse")


def test_unreadable_files(tmp_path):
    path = tmp_path / "secret.keras"
    shutil.copy(FORMATS / "keras-3.13.0" / "m.keras", path)
    path.chmod(0)
    if os.geteuid() == 0:  # root reads everything: ask as somebody else
        program = (
            "import os, sys\nfrom ckptdoctor.checkpoints import open_checkpoint, CheckpointError\n"
            "import ckptdoctor.checkpoints.keras_archive\nos.setuid(65534)\n"
            "try:\n    open_checkpoint(sys.argv[1])\nexcept CheckpointError as e:\n    print(e)\n"
        )
        for parent in (tmp_path, *tmp_path.parents):
            if parent.stat().st_uid == os.geteuid() and str(parent) != "/":
                parent.chmod(parent.stat().st_mode | 0o111)
        done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
        assert "may not be read" in done.stdout
    else:
        refused(path, "may not be read")


def test_a_link_that_the_user_names_is_followed(tmp_path):
    link = tmp_path / "latest.keras"
    link.symlink_to(FORMATS / "keras-3.13.0" / "m.keras")
    with open_checkpoint(link) as checkpoint:
        assert len(checkpoint.tensors) == 33


@pytest.mark.parametrize(
    ("source", "inside"),
    [
        ("shapes/unzipped.keras", "model.weights.h5"),
        ("tf_checkpoint", "ckpt.data-00000-of-00001"),
        ("savedmodel-keras-2.15", "variables/variables.index"),
        ("made/unzipped", "config.json"),
    ],
)
def test_a_link_out_of_a_directory_checkpoint_is_not_followed(tmp_path, source, inside):
    folder = tmp_path / "checkpoint"
    shutil.copytree(FORMATS / source, folder)
    outside = tmp_path / "outside"
    shutil.move(folder / inside, outside)
    (folder / inside).symlink_to(outside)
    try:
        with open_checkpoint(folder) as checkpoint:
            assert any("leaves the checkpoint directory" in p.message for p in checkpoint.info.problems)
    except CheckpointError as error:
        if "leaves the checkpoint directory" not in str(error):
            raise
    with open_checkpoint(folder, limits=ReadLimits(follow_links=True)) as checkpoint:
        assert all(t.problem is None for t in checkpoint.tensors)


def test_shards_may_not_name_files_elsewhere(tmp_path):
    secret = tmp_path / "secret.weights.h5"
    shutil.copy(FORMATS / "keras-3.13.0" / "m.weights.h5", secret)
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(FORMATS / "made" / "shards_00000.weights.h5", folder)
    names = ["shards_00000.weights.h5", "../secret.weights.h5", str(secret), "missing.weights.h5"]
    (folder / "x.weights.json").write_text(json.dumps({"metadata": {}, "weight_map": {"/layers/dense/vars": names}}))
    with open_checkpoint(folder / "x.weights.json") as checkpoint:
        kinds = [p.kind for p in checkpoint.info.problems]
        assert kinds.count(ProblemKind.HOSTILE) == 2
        assert kinds.count(ProblemKind.INCOMPLETE) == 1
        assert all(t.info.layer_path != "layers/batch_normalization" for t in checkpoint.tensors)


def test_a_checkpoint_file_cannot_point_elsewhere(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(FORMATS / "tf_checkpoint", folder)
    (folder / "checkpoint").write_text('model_checkpoint_path: "../../elsewhere/ckpt"\n')
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.info.path == str(folder)
        assert len(checkpoint.tensors) == 22


def test_a_cut_or_missing_data_file_leaves_the_rest(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(FORMATS / "tf_checkpoint", folder)
    data = folder / "ckpt.data-00000-of-00001"
    raw = data.read_bytes()
    data.write_bytes(raw[:200])
    with open_checkpoint(folder) as checkpoint:
        assert 0 < checkpoint.info.coverage < 1
        assert any("cut off" in p.message for p in checkpoint.info.problems)
    data.unlink()
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.info.coverage == 0
        assert all(t.problem for t in checkpoint.tensors)


def test_nothing_outside_is_opened(tmp_path):
    """An audit hook watches every file and socket while files that try to reach outside are read."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"S" * 64)
    hostile = tmp_path / "hostile.weights.h5"
    with h5py.File(hostile, "w") as file:
        group = file.create_group("layers/dense/vars")
        group.attrs["name"] = "d"
        group.create_dataset("0", (16,), "f4", external=[(str(secret), 0, 64)])
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource(str(secret), "x", (3,))
        group.create_virtual_dataset("1", layout)
        group["2"] = h5py.ExternalLink(str(secret), "/x")
        group.create_dataset("3", data=[1.0, 2.0], chunks=(1,))  # sends the file to the contained child
    program = (
        "import sys\nfrom ckptdoctor.checkpoints import open_checkpoint\n"
        "import ckptdoctor.checkpoints.h5_checkpoint\nseen = []\n"
        "sys.addaudithook(lambda e, a: seen.append((e, str(a[0]))) if e in ('open', 'socket.connect', 'os.system') else None)\n"
        "with open_checkpoint(sys.argv[1]) as c:\n"
        "    values = {t.info.path: t.problem for t in c.tensors}\n"
        "    ok = [t.load().tolist() for t in c.tensors if t.problem is None]\n"
        "assert ok == [[1.0, 2.0]], ok\n"
        "assert 'secret' not in str(seen), seen\n"
        "assert not [e for e, _ in seen if e != 'open'], seen\n"
        "assert sum('refused' in str(v) or 'was not read' in str(v) for v in values.values()) == 2, values\n"
    )
    subprocess.run([sys.executable, "-c", program, str(hostile)], check=True, timeout=60)
