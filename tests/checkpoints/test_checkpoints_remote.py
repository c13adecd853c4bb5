"""Checkpoints from a store that is not this machine: through `Opener`, by ranged reads, few of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ckptdoctor.checkpoints import CheckpointError, FileStat, detect_format, open_checkpoint
from ckptdoctor.checkpoints.sources import LocalOpener
from ckptdoctor.model import Format

FORMATS = Path(__file__).parents[2] / "fixtures" / "formats"


class Store:
    """Files under `store://`, with a count of the requests and bytes asked for."""

    def __init__(self, root: Path, read_ahead: int = 1 << 16) -> None:
        self.root, self.read_ahead = root, read_ahead
        self.ranges: list[tuple[str, int, int]] = []
        self.open_files = 0

    def _local(self, path: str) -> Path:
        assert path.startswith("store://")
        return self.root / path.removeprefix("store://")

    def stat(self, path: str) -> FileStat:
        local = self._local(path)
        if not local.exists():
            raise CheckpointError(f"{path} does not exist in this store")
        return FileStat(local.stat().st_size, local.stat().st_mtime, "etag", local.is_dir())

    def list(self, path: str) -> list[str]:
        return sorted(p.name for p in self._local(path).iterdir())

    def open(self, path: str, *, inside: str | None = None):  # noqa: ARG002 - the protocol's shape
        self.stat(path)
        return StoreFile(self, path, self._local(path).read_bytes())


class StoreFile:
    def __init__(self, store: Store, name: str, data: bytes) -> None:
        self.store, self.name, self._data, self.size = store, name, data, len(data)
        store.open_files += 1

    def read(self, offset: int, length: int) -> bytes:
        self.store.ranges.append((self.name, offset, length))
        return self._data[offset : offset + length]

    def read_into(self, offset: int, buffer: memoryview) -> int:
        data = self.read(offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.store.open_files -= 1


REMOTE = [
    "keras-3.13.0/m.keras",
    "keras-2.12.0/m.h5",
    "shapes/npz.keras",
    "shapes/unzipped.keras",
    "made/shards.weights.json",
    "tf_checkpoint",
    "tf_checkpoint/ckpt",
    "savedmodel-keras-2.15",
    "backup_and_restore_2.15",
    "backup_and_restore_2.15/chief",
]


@pytest.mark.parametrize("path", REMOTE)
def test_a_store_gives_what_the_local_files_give(path):
    store = Store(FORMATS)
    with open_checkpoint(f"store://{path}", opener=store) as remote, open_checkpoint(FORMATS / path) as local:
        assert local.scalars == pytest.approx(remote.scalars)
        assert [t.info for t in local.tensors] == [t.info for t in remote.tensors]
        for a, b in zip(local.tensors, remote.tensors, strict=True):
            np.testing.assert_array_equal(a.load(), b.load())
    assert store.open_files == 0


def test_orbax_in_a_store_gives_names_and_says_that_values_need_a_local_copy():
    with open_checkpoint("store://orbax", opener=Store(FORMATS)) as checkpoint:
        assert checkpoint.info.format is Format.ORBAX
        shapes = {t.info.label: t.info.shape for t in checkpoint.tensors}
        assert shapes["d1/kernel"] == (8, 16)
        assert all(t.problem for t in checkpoint.tensors)


def test_what_is_not_there_is_named():
    with pytest.raises(CheckpointError, match="does not exist in this store"):
        open_checkpoint("store://none.keras", opener=Store(FORMATS))
    assert detect_format("store://none.keras", opener=Store(FORMATS)) is None
    assert detect_format("store://tf_checkpoint", opener=Store(FORMATS)) is Format.TF_CHECKPOINT


def test_opening_a_small_file_takes_one_request():
    store = Store(FORMATS, read_ahead=1 << 20)
    open_checkpoint("store://keras-3.13.0/m.keras", opener=store).close()
    assert len(store.ranges) == 1


def test_opening_a_large_file_reads_its_metadata_only(tmp_path):
    import h5py

    with h5py.File(tmp_path / "big.weights.h5", "w") as file:
        for i in range(20):
            group = file.create_group(f"layers/dense_{i}/vars")
            group.attrs["name"] = f"d{i}"
            group.create_dataset("0", data=np.zeros((512, 512), "f4"))
    store = Store(tmp_path, read_ahead=1 << 16)
    with open_checkpoint("store://big.weights.h5", opener=store) as checkpoint:
        assert len(checkpoint.tensors) == 20
    size = (tmp_path / "big.weights.h5").stat().st_size
    assert len(store.ranges) <= 45
    assert sum(length for _, _, length in store.ranges) < size / 6


def test_the_local_opener_is_one_of_them(tmp_path):
    opener = LocalOpener()
    assert opener.list(str(FORMATS / "tf_checkpoint")) == ["checkpoint", "ckpt.data-00000-of-00001", "ckpt.index"]
    found = opener.stat(str(FORMATS))
    assert found.is_dir
    with pytest.raises(CheckpointError, match="a directory"):
        opener.open(str(tmp_path))
