"""Files that are large, deep or strange beyond what can be committed: made here, refused quickly, with one sentence."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hostile_run import ROOT, offences, watched

from ckptdoctor.checkpoints.limits import use_limits
from fixtures.hostile_parts import CANARY, Entry, archive, legacy, model, plain_entries, weights, zipped

SLOWEST = 20.0  # seconds
HEALTHY = ROOT / "fixtures" / "runs" / "dense_healthy"


class Payload:
    """Unpickling it would make the canary."""

    def __reduce__(self):
        return (open, (CANARY, "w"))


def saved(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


# --- checkpoints -----------------------------------------------------------------------------------


def deep_groups(folder: Path) -> Path:
    def nest(file, _group):
        file.create_group("/".join(["layers", *["g"] * 3000]))

    return saved(folder, "x.weights.h5", weights(nest))


def deep_groups_of_the_library(folder: Path) -> Path:
    """The same for the contained library: a chunked tensor makes the own reader hand the file over."""

    def nest(file, group):
        group.create_dataset("2", data=np.zeros((64, 64), "f4"), chunks=(8, 8), compression="gzip")
        file.create_group("/".join(["layers", *["g"] * 3000]))

    return saved(folder, "x.weights.h5", weights(nest))


def giant_attribute(folder: Path) -> Path:
    return saved(folder, "x.h5", legacy({**model(), "padding": "x" * (33 << 20)}))


def long_document(folder: Path) -> Path:
    config = b'{"a": "' + b" " * (65 << 20) + b'"}'
    entries = [Entry("config.json", config, method=8), *(e for e in plain_entries() if e.name != "config.json")]
    return saved(folder, "x.keras", zipped(*entries))


def undeclared_bomb(folder: Path) -> Path:
    """A member that says 100 bytes and inflates to 50 MB."""
    big = Entry("model.weights.h5", weights() + b"\0" * (50 << 20), method=8, declared=100)
    return saved(folder, "x.keras", zipped(*plain_entries()[:2], big))


def many_members(folder: Path) -> Path:
    entries = [Entry(f"assets/{n}", b"") for n in range(20_000)]
    out = bytearray(zipped(*plain_entries(), *entries))
    return saved(folder, "x.keras", bytes(out))


def many_values(folder: Path) -> Path:
    config = json.dumps(model()).encode().replace(b'"units": 2', b'"units": [' + b"0," * 2_100_000 + b"0]")
    return saved(folder, "x.keras", archive(config))


def pickled_weights(folder: Path) -> Path:
    buffer = io.BytesIO()
    np.savez(buffer, __root__=np.array([Payload()], dtype=object), x=np.zeros(3))
    entries = [e for e in plain_entries() if not e.name.endswith(".h5")]
    return saved(folder, "x.keras", zipped(*entries, Entry("model.weights.npz", buffer.getvalue())))


def sparse(folder: Path) -> Path:
    path = saved(folder, "x.weights.h5", weights())
    os.truncate(path, 1 << 40)
    return path


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "x.keras")
    return folder / "x.keras"


def device(folder: Path) -> Path:
    (folder / "x.keras").symlink_to("/dev/zero")
    return folder / "x.keras"


def link_circle(folder: Path) -> Path:
    (folder / "x.keras").symlink_to(folder / "y.keras")
    (folder / "y.keras").symlink_to(folder / "x.keras")
    return folder / "x.keras"


def linked_out(folder: Path) -> Path:
    """An unzipped checkpoint whose weights are a link to another place."""
    inside = folder / "x.keras"
    inside.mkdir()
    for entry in plain_entries()[:2]:
        (inside / entry.name).write_bytes(entry.data)
    saved(folder, "elsewhere.h5", weights())
    (inside / "model.weights.h5").symlink_to(folder / "elsewhere.h5")
    return inside


def pipe_inside(folder: Path) -> Path:
    inside = folder / "x.keras"
    inside.mkdir()
    for entry in plain_entries()[:2]:
        (inside / entry.name).write_bytes(entry.data)
    os.mkfifo(inside / "model.weights.h5")
    return inside


CHECKPOINTS = [
    (deep_groups, 1, "nested deeper"),
    (deep_groups_of_the_library, 1, "nested"),
    (giant_attribute, None, "attribute"),
    (long_document, 2, "more than the 67,108,864 allowed"),
    (undeclared_bomb, 2, "checksum"),
    (many_members, 0, ""),
    (many_values, 2, "more than the 2,000,000 values"),
    (pickled_weights, 1, "its pickle names io.open"),
    (sparse, 2, "sparse"),
    (pipe, 2, "named pipe"),
    (device, 2, "a device"),
    (link_circle, 2, "symbolic links"),
    (linked_out, 2, "leaves the checkpoint directory"),
    (pipe_inside, 2, "named pipe"),
]

# --- logs and batches beside an honest checkpoint ---------------------------------------------------


def run_with(folder: Path) -> Path:
    """A run directory of one honest checkpoint, in which the last batches and the log are to be replaced."""
    run = folder / "run"
    run.mkdir()
    shutil.copy(HEALTHY / "checkpoints" / "epoch_008.keras", run)
    return run


def pickled_batches(folder: Path) -> Path:
    run = run_with(folder)
    np.savez(run / "last_batches.npz", x=np.array([Payload()], dtype=object), y=np.zeros((1, 2), "f4"))
    return run


def pickle_as_batches(folder: Path) -> Path:
    run = run_with(folder)
    (run / "last_batches.npz").write_bytes(pickle.dumps(Payload()))
    return run


def batch_bomb(folder: Path) -> Path:
    """A compressed array of 6 GB in 6 MB."""
    run = run_with(folder)
    with zipfile.ZipFile(run / "last_batches.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("x.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(
                member, {"descr": "<f4", "fortran_order": False, "shape": (1, 3 << 29)}
            )
            member.write(b"\0" * (1 << 20))
        file.writestr("y.npy", b"\x93NUMPY\x01\0")
    return run


def endless_shape(folder: Path) -> Path:
    run = run_with(folder)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s,)}" % b",".join([b"9" * 30] * 5)
    with zipfile.ZipFile(run / "last_batches.npz", "w") as file:
        body = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header) + 1) + header + b"\n"
        for name in ("x.npy", "y.npy"):
            file.writestr(name, body)
    return run


def wide_table(folder: Path) -> Path:
    """A table of 400,000 columns; a thousand million do not fit on a disk, and differ in nothing."""
    run = run_with(folder)
    names = b"epoch,loss" + b"".join(b",c%d" % n for n in range(400_000))
    (run / "training_log.csv").write_bytes(names + b"\n0,1.0" + b",0" * 400_000 + b"\n")
    return run


def endless_line(folder: Path) -> Path:
    run = run_with(folder)
    (run / "training_log.csv").write_bytes(b"epoch,loss\n0,1.0\n" + b"9" * (16 << 20))
    return run


def long_record(folder: Path) -> Path:
    """An event file whose second record declares 2^62 bytes."""
    from tests.fuzz.mutation import _record, _sum

    run = run_with(folder)
    head = struct.pack("<Q", 1 << 62)
    version = b"\x09\0\0\0\0\0\0\xf0\x3f\x1a\x0dbrain.Event:2"
    (run / "events.out.tfevents.1.host").write_bytes(_record(version) + head + _sum(head) + b"x" * 100)
    return run


def deep_history(folder: Path) -> Path:
    run = run_with(folder)
    (run / "history.json").write_bytes(b'{"loss": ' + b"[" * 200_000 + b"]" * 200_000 + b"}")
    return run


def pickled_history(folder: Path) -> Path:
    run = run_with(folder)
    (run / "history.pkl").write_bytes(pickle.dumps(Payload()))
    (run / "history.json").write_bytes(pickle.dumps(Payload()))
    return run


def pipes_in_the_run(folder: Path) -> Path:
    run = run_with(folder)
    for name in ("training_log.csv", "last_batches.npz", "history.json", "other.keras"):
        os.mkfifo(run / name)
    return run


def devices_in_the_run(folder: Path) -> Path:
    run = run_with(folder)
    for name in ("training_log.csv", "last_batches.npz", "events.out.tfevents.1.host"):
        (run / name).symlink_to("/dev/zero")
    return run


def sparse_in_the_run(folder: Path) -> Path:
    run = run_with(folder)
    for name in ("training_log.csv", "run.log"):
        (run / name).write_bytes(b"epoch,loss\n0,1.0\n")
        os.truncate(run / name, 1 << 40)
    return run


def circles_of_folders(folder: Path) -> Path:
    run = run_with(folder)
    (run / "logs").symlink_to(run)
    (run / "checkpoints").symlink_to(run)
    return run


RUNS = [
    pickled_batches,
    pickle_as_batches,
    batch_bomb,
    endless_shape,
    wide_table,
    endless_line,
    long_record,
    deep_history,
    pickled_history,
    pipes_in_the_run,
    devices_in_the_run,
    sparse_in_the_run,
    circles_of_folders,
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Everything through `inspect` in one watched process."""
    room = tmp_path_factory.mktemp("giants")
    makers = [make for make, _, _ in CHECKPOINTS] + RUNS
    paths = []
    for make in makers:
        folder = room / make.__name__
        folder.mkdir()
        paths.append(make(folder))
    runs = [["inspect", "--no-replay", "--format", "json", str(p)] for p in paths]
    found = watched(runs, room)
    yield {make.__name__: (path, result) for make, path, result in zip(makers, paths, found, strict=True)}, room
    shutil.rmtree(room)


def common(path, result, room):
    assert result["seconds"] < SLOWEST
    assert "Traceback" not in result["stderr"]
    assert len(result["stderr"].strip().splitlines()) <= 1
    # A deflated member may go to an unlinked temporary file of its own.
    allowed = [e for e in offences(result["events"], room) if not e[0].startswith("tempfile.")]
    assert [e for e in allowed if not (e[0] in ("open", "os.remove") and "ckptdoctor-" in e[1])] == []
    assert not (room / CANARY).exists()
    assert not (path.parent / CANARY).exists()


@pytest.mark.parametrize(("make", "status", "says"), CHECKPOINTS, ids=[c[0].__name__ for c in CHECKPOINTS])
def test_a_strange_checkpoint(results, make, status, says):
    path, result = results[0][make.__name__]
    common(path, result, results[1])
    assert says in result["stdout"] + result["stderr"]
    assert result["status"] == status or (status is None and result["status"] in (1, 2))


@pytest.mark.parametrize("make", RUNS, ids=[m.__name__ for m in RUNS])
def test_a_strange_log_or_batch_leaves_the_checkpoint_readable(results, make):
    path, result = results[0][make.__name__]
    common(path, result, results[1])
    assert result["status"] == 0, result["stderr"]
    document = json.loads(result["stdout"])
    assert document["verdict"]["status"] == "healthy"
    assert document["failures"] == []


def test_links_at_any_part_of_a_path_are_told(tmp_path):
    """A soft link in the middle of the way to a tensor, for every group on that way."""
    from ckptdoctor.checkpoints import open_checkpoint

    for depth, name in enumerate(("layers", "layers/dense", "layers/dense/vars")):
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            file.create_group("hidden/dense/vars").create_dataset("0", data=np.float32([1.0]))
            parent, _, last = name.rpartition("/")
            group = file.require_group(parent) if parent else file
            group[last] = h5py.SoftLink(("/hidden", "/hidden/dense", "/hidden/dense/vars")[depth])
            file.require_group("layers2/dense/vars").create_dataset("0", data=np.float32([1.0]))
        with open_checkpoint(saved(tmp_path, f"{depth}.weights.h5", buffer.getvalue())) as checkpoint:
            assert [p.where for p in checkpoint.info.problems if "symbolic link" in p.message] == [name]
            assert not any(t.info.path.startswith("layers/") for t in checkpoint.tensors)


def test_a_flood_of_one_finding_hides_no_other_from_a_scan(tmp_path):
    """Of a file's warnings a line of `scan` holds twenty; forty vocabularies of another machine come before the Lambda."""
    from ckptdoctor.scanner.work import measure
    from fixtures.hostile_parts import lambda_layer, part

    flood = [part("StringLookup", name=f"s{n}", vocabulary=f"/etc/words/{n}") for n in range(40)]
    path = saved(tmp_path, "x.keras", archive(model(*flood, lambda_layer())))
    warnings = measure({"path": str(path)})["warnings"]
    assert any("CVE-2024-3660" in w for w in warnings)
    assert any("CVE-2025-12058" in w for w in warnings)


# --- what once took too long, or too much ------------------------------------------------------------


def npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def swollen_batches(run: Path) -> None:
    """Half a gigabyte of zeros in half a megabyte: below what an array may inflate to, far above what it stores."""
    with zipfile.ZipFile(run / "last_batches.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("x.npy", "y.npy"):
            with file.open(name, "w", force_zip64=True) as member:
                member.write(npy_header((1024, 1 << 17)))
                for _ in range(32):
                    member.write(bytes(1 << 24))


def one_wide_batch(run: Path) -> None:
    """A single batch of half a gigabyte, stored plainly: it is looked at in pieces."""
    for name in ("x", "y"):
        path = run / f"{name}.bin"
        path.write_bytes(npy_header((1, 1024, 1 << 17)))
        os.truncate(path, path.stat().st_size + (1 << 29))
    with zipfile.ZipFile(run / "last_batches.npz", "w") as file:
        for name in ("x", "y"):
            file.write(run / f"{name}.bin", f"{name}.npy")
            (run / f"{name}.bin").unlink()


def long_header(run: Path) -> None:
    """A header that declares a gigabyte, of which a quarter is there."""
    with zipfile.ZipFile(run / "last_batches.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", b"\x93NUMPY\x02\0" + struct.pack("<I", 1 << 30) + bytes(1 << 28))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the kernel for the most memory it took")
@pytest.mark.parametrize("make", [swollen_batches, one_wide_batch, long_header], ids=lambda m: m.__name__)
def test_batches_take_little_memory(make, tmp_path):
    make(tmp_path)
    program = (
        "import re, sys\n"
        "from ckptdoctor.evidence.batches import BatchesError, measure_batches\n"
        "from ckptdoctor.model import Missing\n"
        "try: measure_batches(sys.argv[1], Missing('none'))\n"
        "except BatchesError as error: print(error, file=sys.stderr)\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) >> 10)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "last_batches.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) < 300, done.stderr


def test_many_tensors_that_nobody_wrote_are_a_bomb_together(tmp_path):
    """Chunked tensors of 3 GiB each, of which no chunk is stored: one is harmless, the third is refused."""

    def declare(_file, group):
        for n in range(2, 8):
            group.create_dataset(str(n), shape=(3 << 28,), dtype="f4", chunks=(1 << 16,), compression="gzip")

    from ckptdoctor.checkpoints import open_checkpoint

    with open_checkpoint(saved(tmp_path, "x.weights.h5", weights(declare))) as checkpoint:
        refused = [p for p in checkpoint.info.problems if "shape bomb" in p.message]
        assert len(refused) == 5


# --- links out ---------------------------------------------------------------------------------------


def test_a_run_does_not_lead_to_files_elsewhere(tmp_path):
    """A stranger's run with a link to somebody's table: its columns must not stand in a report that is passed on."""
    import ckptdoctor

    run = run_with(tmp_path)
    (tmp_path / "mine.csv").write_text("epoch,loss,secret_column\n0,1.0,5\n1,nan,6\n")
    shutil.copy(HEALTHY / "last_batches.npz", tmp_path / "mine.npz")
    (run / "training_log.csv").symlink_to(tmp_path / "mine.csv")
    (run / "last_batches.npz").symlink_to(tmp_path / "mine.npz")
    (run / "logs").mkdir()
    (run / "logs" / "history.json").write_text('{"loss": [2.0, 1.0]}')
    (run / "history.json").symlink_to("logs/history.json")  # within the run it may lead where it likes
    for target in (run, run / "epoch_008.keras"):
        report = ckptdoctor.inspect(target, replay=False)
        assert "secret_column" not in report.to_json()
        assert not report.evidence.files.batches
        if target is run:
            told = {os.path.basename(i.path) for i in report.evidence.files.ignored if "link out" in i.reason}
            assert told == {"training_log.csv", "last_batches.npz"}
    assert run.joinpath("history.json").as_posix() in report.evidence.files.logs
    named = ckptdoctor.inspect(run, replay=False, log=(str(run / "training_log.csv"),))
    assert "secret_column" in named.to_json()


def test_a_store_does_not_lead_to_files_elsewhere(tmp_path):
    """Tensorstore follows links wherever they lead."""
    import tensorstore

    from ckptdoctor.checkpoints import open_checkpoint

    folder = tmp_path / "store"
    shutil.copytree(ROOT / "fixtures" / "formats" / "orbax", folder)
    outside = {"driver": "zarr", "kvstore": f"file://{tmp_path}/outside/", "create": True, "dtype": "float32"}
    made = tensorstore.open({**outside, "metadata": {"shape": [4], "dtype": "<f4"}}).result()
    made.write(np.arange(4, dtype="f4")).result()
    metadata = next(p for p in folder.rglob("_METADATA") if p.parent.name == "pytree")
    document = json.loads(metadata.read_text()) | {"use_ocdbt": False, "use_zarr3": False}
    keys = [["trainable_variables", "link"], ["trainable_variables/../../../../outside"]]
    document["tree_metadata"] = {str(n): {"key_metadata": [{"key": k} for k in key]} for n, key in enumerate(keys)}
    metadata.write_text(json.dumps(document))
    link = metadata.parent / "trainable_variables.link"
    for linked in (False, True):
        if linked:
            link.symlink_to(tmp_path / "outside")
        with open_checkpoint(folder) as checkpoint:
            assert all(t.problem is not None for t in checkpoint.tensors)
            assert any("link that leaves" in p.message for p in checkpoint.info.problems) is linked
    with use_limits({"follow_links": True}), open_checkpoint(folder) as checkpoint:
        assert [t.load().tolist() for t in checkpoint.tensors if t.problem is None] == [[0.0, 1.0, 2.0, 3.0]]


def test_rows_too_wide_to_compare_take_no_memory(tmp_path):
    """Projecting rows of 32 MiB at random would take a matrix of sixteen gigabytes."""
    from ckptdoctor.evidence.batches import measure_batches
    from ckptdoctor.model import Missing

    np.savez(tmp_path / "b.npz", x=np.zeros((2, 1 << 23), "f4"), y=np.zeros((2, 1), "f4"))
    measured = measure_batches(tmp_path / "b.npz", Missing("none"))
    assert isinstance(measured.association, Missing)
    assert "too large to compare" in measured.association.reason
