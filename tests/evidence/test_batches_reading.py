"""Recorded batches as files: every layout is found, nothing is unpickled, nothing hostile is believed."""

import contextlib
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptdoctor.evidence.batch_arrays import MAX_INFLATED
from ckptdoctor.evidence.batch_reading import BatchesError, open_batches
from ckptdoctor.evidence.batches import measure_batches
from ckptdoctor.model import Missing

NO_SPEC = Missing("no configuration")
RNG = np.random.default_rng(0)


def saved(tmp_path: Path, name: str = "last_batches.npz", *, compressed: bool = False, **arrays) -> Path:
    (np.savez_compressed if compressed else np.savez)(tmp_path / name, **arrays)
    return tmp_path / name


def test_batches_come_back_as_they_were_saved(tmp_path):
    x, y = RNG.normal(size=(4, 8, 3)).astype("f4"), RNG.integers(0, 3, (4, 8))
    for compressed in (False, True):
        path = saved(tmp_path, x=x, y=y, step=np.arange(7, 11), sample_weight=np.ones((4, 8)), compressed=compressed)
        with open_batches(path) as recorded:
            batches = list(recorded)
            assert (recorded.count, recorded.steps) == (4, (7, 8, 9, 10))
        for k, (inputs, targets, weight, step) in enumerate(batches):
            assert np.array_equal(inputs[0], x[k])
            assert np.array_equal(targets[0], y[k])
            assert (weight.shape, step) == ((8,), 7 + k)


def test_several_inputs_and_outputs_by_name(tmp_path):
    arrays = {name: RNG.normal(size=(2, 4, 3)) for name in ("x_10", "x_2", "x_image", "y_a", "y_b")}
    with open_batches(saved(tmp_path, **arrays)) as recorded:
        assert recorded.input_names == ("x_2", "x_10", "x_image")
        assert recorded.target_names == ("y_a", "y_b")


def test_rows_without_a_batch_axis_are_one_batch(tmp_path):
    with open_batches(saved(tmp_path, x=np.zeros((32, 5)), y=np.zeros(32))) as recorded:
        inputs, targets, _, step = next(iter(recorded))
        assert (recorded.count, inputs[0].shape, targets[0].shape, step) == (1, (32, 5), (32,), None)


def test_a_directory_of_files_one_after_the_other_with_a_short_last_batch(tmp_path):
    folder = tmp_path / "last_batches"
    folder.mkdir()
    saved(folder, "batches_0010.npz", x=np.full((1, 3, 2), 9.0), y=np.zeros((1, 3)), step=np.array([9]))
    saved(folder, "batches_0009.npz", x=np.zeros((2, 4, 2)), y=np.zeros((2, 4)), step=np.array([7, 8]))
    with open_batches(folder) as recorded:
        assert [inputs[0].shape for inputs, *_ in recorded] == [(4, 2), (4, 2), (3, 2)]
        assert recorded.steps == (7, 8, 9)
    assert measure_batches(folder, NO_SPEC).inputs[0].shape == (11, 2)


def test_npy_files_side_by_side(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 4, 3)))
    np.save(tmp_path / "y.npy", np.ones((2, 4)))
    with open_batches(tmp_path) as recorded:
        assert (recorded.count, recorded.input_names, recorded.target_names) == (2, ("x",), ("y",))


def test_bfloat16_as_numpy_stores_it(tmp_path):
    bits = np.array([[0x3F80, 0x7FC0], [0xBF80, 0x7F80]], np.uint16).reshape(1, 2, 2)
    np.savez(tmp_path / "b.npz", x=bits.view("V2"), y=np.zeros((1, 2)), step=np.array([1]))
    stats = measure_batches(tmp_path / "b.npz", NO_SPEC).inputs[0]
    assert (stats.dtype, stats.nan, stats.posinf, stats.min, stats.max) == ("bfloat16", 1, 1, -1.0, 1.0)


def test_arrays_in_column_order(tmp_path):
    x = np.asfortranarray(RNG.normal(size=(2, 4, 3)))
    with open_batches(saved(tmp_path, x=x, y=np.zeros((2, 4)))) as recorded:
        assert np.array_equal(next(iter(recorded))[0][0], x[0])


class Bomb:
    def __reduce__(self):
        return (open, ("/tmp/ckptdoctor-was-here", "w"))


def test_python_objects_are_refused_without_unpickling(tmp_path):
    marker = Path("/tmp/ckptdoctor-was-here")
    path = saved(tmp_path, x=np.array([Bomb()], dtype=object), y=np.zeros(1))
    with pytest.raises(BatchesError, match="unpickled: refused"):
        measure_batches(path, NO_SPEC)
    assert not marker.exists()


def npy_header(shape, dtype="<f4") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"shape": shape, "fortran_order": False, "descr": dtype})
    return stream.getvalue()


def archive(path: Path, members: dict[str, bytes], method=zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def test_a_shape_bomb_is_not_believed(tmp_path):
    path = archive(tmp_path / "b.npz", {"x.npy": npy_header((1 << 20, 1 << 20, 1 << 10)) + b"1234"})
    with pytest.raises(BatchesError, match="cut off"):
        measure_batches(path, NO_SPEC)


def test_a_compression_bomb_stays_within_its_bounds(tmp_path):
    import tracemalloc

    rows = 60_000
    path = archive(tmp_path / "b.npz", {"x.npy": npy_header((rows, 1000)) + bytes(rows * 4000)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    stats = measure_batches(path, NO_SPEC).inputs[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (stats.min, stats.max, stats.sampled) == (0.0, 0.0, False)
    assert peak < 300 << 20
    assert MAX_INFLATED <= 1 << 32


def test_a_save_cut_off_is_told(tmp_path):
    path = saved(tmp_path, x=np.zeros((4, 8, 3)), y=np.zeros((4, 8)))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(BatchesError, match="damaged"):
        measure_batches(path, NO_SPEC)


def test_arrays_that_do_not_go_together_are_left_out_and_told(tmp_path):
    batches = measure_batches(saved(tmp_path, x=np.zeros((4, 8, 3)), y=np.zeros((5, 8)), step=np.arange(4)), NO_SPEC)
    assert batches.targets == ()
    assert any("does not go with" in note for note in batches.notes)


@pytest.mark.parametrize("arrays", [{"a": np.zeros(3)}, {"y": np.zeros((2, 3))}, {"x": np.zeros((0, 3))}])
def test_nothing_to_use_is_one_sentence(tmp_path, arrays):
    with pytest.raises(BatchesError, match="expected recorded batches"):
        measure_batches(saved(tmp_path, **arrays), NO_SPEC)


def test_a_saved_dataset_needs_tensorflow_and_says_so(tmp_path):
    (tmp_path / "dataset_spec.pb").write_bytes(b"x")
    (tmp_path / "snapshot.metadata").write_bytes(b"x")
    with pytest.raises(BatchesError, match="replay") as caught:
        measure_batches(tmp_path, NO_SPEC)
    assert caught.value.needs_replay


def test_missing_directory_and_wrong_file(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,loss\n")
    for path in (tmp_path / "nothing.npz", tmp_path / "log.csv"):
        with pytest.raises(BatchesError):
            open_batches(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=5000, max_examples=150)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    keep=st.floats(0, 1),
    compressed=st.booleans(),
)
def test_any_damage_ends_in_numbers_or_one_sentence(tmp_path, flips, keep, compressed):
    path = saved(
        tmp_path, x=np.arange(48.0).reshape(2, 8, 3), y=np.zeros((2, 8)), step=np.arange(2), compressed=compressed
    )
    data = bytearray(path.read_bytes())
    for place, value in flips:
        data[int(place * (len(data) - 1))] = value
    path.write_bytes(data[: int(keep * len(data)) + 1])
    with contextlib.suppress(BatchesError):
        assert measure_batches(path, NO_SPEC).inputs


def test_offsets_follow_the_local_header(tmp_path):
    """Some writers pad the local extra field to align the data; the central directory does not tell."""
    data = npy_header((1, 2, 2)) + np.arange(4, dtype="<f4").tobytes()
    path = archive(tmp_path / "b.npz", {"x.npy": data})
    raw = path.read_bytes()
    name_length = struct.unpack_from("<H", raw, 26)[0]
    pad = struct.pack("<HH", 0xCAFE, 28) + bytes(28)
    central = raw.index(b"PK\x01\x02")
    end = raw.index(b"PK\x05\x06")
    moved = bytearray(
        raw[:28] + struct.pack("<H", len(pad)) + raw[30 : 30 + name_length] + pad + raw[30 + name_length :]
    )
    struct.pack_into("<I", moved, end + len(pad) + 16, central + len(pad))
    path.write_bytes(moved)
    with open_batches(path) as recorded:
        assert next(iter(recorded))[0][0].ravel().tolist() == [0.0, 1.0, 2.0, 3.0]
