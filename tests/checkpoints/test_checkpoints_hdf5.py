"""The own HDF5 reader against h5py, and against damage: it agrees with the library or says what is wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ckptdoctor.checkpoints import CheckpointError, TensorReadError, open_checkpoint
from ckptdoctor.checkpoints.contract import Span
from ckptdoctor.checkpoints.hdf5 import H5Tree, Unsupported, read_tree
from ckptdoctor.checkpoints.hdf5.tree import H5Error
from ckptdoctor.checkpoints.keras3 import span_chunks
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.sources import MemoryFile, Window
from ckptdoctor.model import ProblemKind

FORMATS = Path(__file__).parents[2] / "fixtures" / "formats"
DTYPES = ["<f4", ">f4", "<f2", "<f8", ">f8", "<i8", ">i4", "<u2", "i1", "u1", "?", "<c8", ">c16"]
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0."), min_size=1, max_size=12)


def parse(data: bytes, limits: ReadLimits | None = None) -> H5Tree:
    return read_tree(Window(MemoryFile("test", data), 0, len(data)), limits or ReadLimits())


def written(fill, **options) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        fill(file)
    return buffer.getvalue()


def values_of(data: bytes, tree: H5Tree) -> dict[str, bytes]:
    source = MemoryFile("test", data)
    found = {}
    for dataset in tree.datasets:
        assert dataset.problem is None
        assert dataset.offset is not None
        found[dataset.path] = b"".join(bytes(c) for c in span_chunks(Span(source, dataset.offset, dataset.nbytes))())
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.lists(NAMES, min_size=1, max_size=4).map("/".join),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=4)),
        max_size=30,
    ),
    st.dictionaries(
        NAMES, st.one_of(st.text(max_size=40).map(lambda t: t.replace("\0", "")), st.integers(-9, 9)), max_size=6
    ),
    st.sampled_from([{}, {"userblock_size": 512}, {"libver": "v108"}]),
)
@example({"a/b": ("<f4", [2, 3])}, {}, {"userblock_size": 1024})
def test_files_that_h5py_writes_are_read_alike(content, attributes, options):
    expected: dict[str, np.ndarray] = {}

    def fill(file):
        for path, (code, shape) in content.items():
            if any(path == p or path.startswith(f"{p}/") or p.startswith(f"{path}/") for p in expected):
                continue
            rng = np.random.default_rng(len(expected))
            expected[path] = rng.integers(0, 100, shape).astype(code)
            file[path] = expected[path]
        file.attrs.update(attributes)

    data = written(fill, **options)
    try:
        tree = parse(data)
    except Unsupported:
        # groups in a fractal heap, which newer files and names beyond ASCII bring about: left to the library
        assert options.get("libver") or not all(path.isascii() for path in content)
        return
    assert tree.problems == []
    assert {p: a.tobytes() for p, a in expected.items()} == values_of(data, tree)
    assert {p: a.shape for p, a in expected.items()} == {d.path: d.shape for d in tree.datasets}
    assert attributes == dict(tree.groups[""].attributes)


@pytest.mark.parametrize("code", DTYPES)
def test_dtypes_are_named(code):
    data = written(lambda f: f.create_dataset("x", data=np.zeros(3, code)))
    (dataset,) = parse(data).datasets
    from ckptdoctor.checkpoints.dtypes import storage_dtype

    assert np.dtype(code) == storage_dtype(dataset.dtype)


def test_bfloat16_is_known_with_and_without_its_note():
    def fill(file):
        file["plain"] = np.zeros(3, "V2")
        file["noted"] = np.zeros(3, "V1")
        file["noted"].attrs["dtype"] = "float8_e4m3fn"

    found = {d.path: d.dtype for d in parse(written(fill)).datasets}
    assert found == {"plain": "bfloat16", "noted": "float8_e4m3fn"}


def test_lists_of_names_in_every_form():
    def fill(file):
        file.attrs["variable"] = ["a", "bc", ""]
        file.attrs["fixed"] = np.array([b"xy", b"z"])
        file.attrs["one"] = "word"

    attributes = parse(written(fill)).groups[""].attributes
    assert attributes == {"variable": ["a", "bc", ""], "fixed": ["xy", "z"], "one": "word"}


def test_compact_data_stands_in_the_header():
    def fill(file):
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((4,))
        item = h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_INT32, space, dcpl=properties)
        item.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(4, dtype="i4"))

    data = written(fill)
    tree = parse(data)
    assert tree.datasets[0].storage == "compact"
    assert values_of(data, tree) == {"x": np.arange(4, dtype="i4").tobytes()}


def test_many_members_split_over_several_index_nodes():
    data = written(lambda f: [f.create_dataset(str(i), data=np.float32(i)) for i in range(500)])
    assert {str(i) for i in range(500)} == {d.path for d in parse(data).datasets}


# --- what is refused ---------------------------------------------------------------------------------


def test_links_and_foreign_storage_are_refused_and_the_rest_is_read(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"\x01" * 64)
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["good"] = np.arange(3.0)
        file["soft"] = h5py.SoftLink("/good")
        file["outside"] = h5py.ExternalLink("other.h5", "/x")
        file.create_dataset("external", (16,), "f4", external=[(str(secret), 0, 64)])
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
        file.create_virtual_dataset("virtual", layout)
    tree = parse(path.read_bytes())
    refused = {p.where: p.kind for p in tree.problems}
    assert refused == dict.fromkeys(("soft", "outside", "external", "virtual"), ProblemKind.HOSTILE)
    assert {d.path for d in tree.datasets if d.problem is None} == {"good"}


def test_a_group_that_contains_itself_is_walked_once():
    def fill(file):
        group = file.create_group("a/b")
        group["again"] = file["a"]
        group["root"] = file

    tree = parse(written(fill))
    assert {p.where for p in tree.problems} == {"a/b/again", "a/b/root"}


def test_limits_on_depth_objects_and_attributes():
    deep = written(lambda f: f.create_group("/".join("g" * 200)))
    tree = parse(deep)
    assert not tree.complete
    assert "deeper than 64" in tree.problems[0].message
    many = written(lambda f: [f.create_group(f"{i}/{j}") for i in range(10) for j in range(5)])
    with pytest.raises(H5Error, match="more than 20 objects"):
        parse(many, ReadLimits(hdf5_objects=20))
    large = written(lambda f: f.attrs.update({"big": "x" * 10_000, "small": "y"}))
    tree = parse(large, ReadLimits(hdf5_attribute_bytes=1000))
    assert dict(tree.groups[""].attributes) == {"small": "y"}
    assert tree.problems[0].kind is ProblemKind.HOSTILE
    tree = parse(many, ReadLimits(hdf5_metadata_bytes=8000))
    assert not tree.complete
    assert "bytes of metadata" in tree.problems[0].message


def test_a_shape_that_was_never_written_is_told_not_read():
    data = written(lambda f: f.create_dataset("x", (1 << 20, 1 << 20), "f4"))
    (dataset,) = parse(data).datasets
    assert dataset.offset is None
    assert "none were ever written" in dataset.problem


# --- damage --------------------------------------------------------------------------------------------


SEEDS = ["keras-3.13.0/m.weights.h5", "keras-2.12.0/m.h5", "dtypes/bf16.weights.h5"]


@settings(max_examples=150, deadline=2000)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 1 << 17), st.sampled_from([0, 1, 255, 127, 128, 64])), min_size=1, max_size=40),
    st.one_of(st.none(), st.floats(0, 1)),
)
def test_changed_bytes_give_a_tree_or_a_sentence(seed, changes, keep):
    data = bytearray((FORMATS / seed).read_bytes())
    for at, value in changes:
        data[at % len(data)] = value
    if keep is not None:
        del data[int(len(data) * keep) :]
    try:
        tree = parse(bytes(data))
    except H5Error:
        return
    for dataset in tree.datasets:
        if dataset.offset is not None:
            assert 0 <= dataset.offset
            assert dataset.offset + dataset.nbytes <= len(data)
        else:
            assert dataset.problem is not None or dataset.storage == "chunked"


@pytest.mark.parametrize("seed", SEEDS)
def test_every_truncation_gives_a_checkpoint_or_a_sentence(seed, tmp_path):
    data = (FORMATS / seed).read_bytes()
    cut = tmp_path / "cut.h5"
    for size in range(0, len(data), 997):
        cut.write_bytes(data[:size])
        try:
            with open_checkpoint(cut) as checkpoint:
                assert checkpoint.info.coverage < 1.0
                for stored in checkpoint.tensors:
                    if stored.problem is None:
                        stored.load()
                    else:
                        with pytest.raises(TensorReadError):
                            stored.load()
        except CheckpointError as error:
            if "\n" in str(error):
                pytest.fail(str(error))


# --- the contained child ---------------------------------------------------------------------------------


def keras_layout(file, **options):
    rng = np.random.default_rng(0)
    for i in range(12):
        group = file.create_group(f"layers/dense_{i}/vars")
        group.attrs["name"] = f"layer {i}"
        group.create_dataset("0", data=rng.normal(size=(90, 7)).astype("f4"), **options)
        group.create_dataset("1", data=rng.normal(size=7).astype(">f8"))


@pytest.mark.parametrize(
    ("file_options", "dataset_options"),
    [
        ({"libver": "latest", "track_order": True}, {}),
        ({}, {"chunks": (16, 3), "compression": "gzip", "shuffle": True}),
        ({}, {"chunks": (90, 7), "fletcher32": True}),
        ({"libver": "latest"}, {"chunks": (16, 3), "compression": "lzf"}),
    ],
)
def test_what_only_the_library_reads_is_read_in_the_child(tmp_path, file_options, dataset_options):
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w", **file_options) as file:
        keras_layout(file, **dataset_options)
    with open_checkpoint(path) as checkpoint, h5py.File(path) as reference:
        assert checkpoint.info.problems == ()
        assert len(checkpoint.tensors) == 24
        for stored in checkpoint.tensors:
            assert reference[stored.info.path][()].tobytes() == stored.load().tobytes()
        assert {t.info.layer for t in checkpoint.tensors} == {f"layer {i}" for i in range(12)}


def test_the_child_reads_from_inside_an_archive(tmp_path):
    import zipfile

    data = written(lambda f: keras_layout(f, chunks=True, compression="gzip"))
    path = tmp_path / "x.keras"
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("metadata.json", "{}")
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", data)
        with open_checkpoint(path) as checkpoint:
            assert len(checkpoint.tensors) == 24
            with h5py.File(io.BytesIO(data)) as reference:
                for stored in checkpoint.tensors:
                    assert reference[stored.info.path][()].tobytes() == stored.load().tobytes()


def test_a_chunked_bomb_is_told_not_read(tmp_path):
    path = tmp_path / "bomb.weights.h5"
    with h5py.File(path, "w") as file:
        keras_layout(file)
        file.create_dataset("layers/dense_0/vars/2", (1 << 20, 1 << 15), "f4", chunks=(1 << 10, 1 << 10))
    with open_checkpoint(path) as checkpoint:
        bomb = next(t for t in checkpoint.tensors if t.info.path.endswith("vars/2"))
        assert "was not read" in bomb.problem
        with pytest.raises(TensorReadError):
            next(iter(bomb.chunks()))
        assert len([t for t in checkpoint.tensors if t.problem is None]) == 24


def test_damaged_chunks_are_one_tensors_problem(tmp_path):
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        keras_layout(file, chunks=(90, 7), compression="gzip")
        offset = file["layers/dense_3/vars/0"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(data)
    with open_checkpoint(path) as checkpoint:
        for stored in checkpoint.tensors:
            if stored.info.path == "layers/dense_3/vars/0":
                with pytest.raises(TensorReadError):
                    stored.load()
            else:
                stored.load()


@pytest.mark.parametrize("name", ["h5-two-attributes.h5", "h5-two-names.weights.h5"])
def test_of_two_things_under_one_name_the_library_s_is_shown_and_both_are_told(name):
    from ckptdoctor.checkpoints import open_checkpoint
    from ckptdoctor.model import Missing, ProblemKind

    path = Path(__file__).parents[2] / "fixtures" / "hostile" / name
    with open_checkpoint(path) as checkpoint:
        assert any(p.kind is ProblemKind.HOSTILE for p in checkpoint.info.problems)
        paths = [t.info.path for t in checkpoint.tensors]
        assert len(paths) == len(set(paths))
        config = checkpoint.info.model_config
    if not isinstance(config, Missing):
        with h5py.File(path) as file:
            assert json.loads(file.attrs["model_config"]) == config
