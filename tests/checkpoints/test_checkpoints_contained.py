"""A child that crashes, hangs or floods costs a sentence, never the parent; and it cannot reach anything."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ckptdoctor.checkpoints import CheckpointError
from ckptdoctor.checkpoints.contained import Contained, blocks
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.sources import MemoryFile, Window

CONFINED = Path(__file__).parents[2] / "ckptdoctor" / "checkpoints"
LIMITS = ReadLimits(child_wall_seconds=2.0, child_memory_bytes=1 << 28, child_cpu_seconds=2)


def child(tmp_path, body: str, limits: ReadLimits = LIMITS) -> Contained:
    script = tmp_path / "child.py"
    script.write_text(
        f"import sys; sys.path[:0] = [{str(CONFINED)!r}]\n"
        "from confined import confine, cut_network, question, receive, send\n"
        "cut_network(); setup = question(); confine(setup['limits'], descriptors=3)\n"
        "asked = question()\n" + textwrap.dedent(body),
        encoding="utf-8",
    )
    return Contained(str(script), "the parser", "a file", limits, window=Window(MemoryFile("x", b"abcdef"), 0, 6))


MISBEHAVIOUR = {
    "segfault": ("import ctypes; ctypes.string_at(0)", "segmentation fault"),
    "abort": ("import os; os.abort()", "an abort"),
    "exit": ("import os; os._exit(0)", "without an answer"),
    "hang": ("import time; time.sleep(600)", "took too long"),
    "endless loop": ("while True: pass", "processor time|took too long"),
    "flood": ("import os\nwhile True: os.write(1, b'x' * 4096)", "larger than allowed|makes no sense"),
    "a lie about length": ("import os, struct; os.write(1, struct.pack('<cQ', b'J', 1 << 60))", "larger than allowed"),
    "memory": ("x = bytearray(1 << 33)\nsend(b'J', b'{}')", "without an answer"),
    "endless questions": (
        "import struct\nwhile True:\n    send(b'R', struct.pack('<QQ', 0, 1)); receive()",
        "took too long",
    ),
    "huge range": ("import struct\nsend(b'R', struct.pack('<QQ', 0, 1 << 50)); receive()", "more bytes at once"),
}


@pytest.mark.parametrize("name", sorted(MISBEHAVIOUR))
def test_misbehaviour_becomes_a_sentence_in_bounded_time(tmp_path, name):
    body, sentence = MISBEHAVIOUR[name]
    reader = child(tmp_path, body)
    started = time.monotonic()
    try:
        with pytest.raises(CheckpointError, match=sentence):
            reader.ask({"ask": "list"})
    finally:
        reader.close()
    assert time.monotonic() - started < 20


CUT_OFF = {
    "opening a file": "open('/etc/passwd').read()",
    "writing a file": f"open({'/tmp/ckptdoctor-should-not-exist'!r}, 'w').write('x')",
    "a socket": "import socket; socket.socket()",
    "a process": "import os, subprocess; subprocess.run(['true'])",
}


@pytest.mark.parametrize("name", sorted(CUT_OFF))
def test_the_child_cannot(tmp_path, name):
    body = f"try:\n    {CUT_OFF[name]}\n    send(b'J', b'\"done\"')\nexcept OSError as error:\n    send(b'J', b'\"refused\"')\n"
    reader = child(tmp_path, body)
    try:
        assert json.loads(reader.ask({"ask": "list"})) == "refused"
    finally:
        reader.close()


def test_a_child_is_started_again_after_it_was_lost(tmp_path):
    reader = child(tmp_path, "import os\nif asked['ask'] == 'die': os.abort()\nsend(b'J', b'1')")
    with pytest.raises(CheckpointError):
        reader.ask({"ask": "die"})
    assert reader.ask({"ask": "live"}) == b"1"
    reader.close()


def test_containment_costs_little():
    """Start, one answer and end, next to the bare start of the interpreter that it needs anyway."""
    import subprocess

    from ckptdoctor.checkpoints.h5files import open_hdf5

    formats = Path(__file__).parents[2] / "fixtures" / "formats"
    data = (formats / "keras-3.13.0" / "m.weights.h5").read_bytes()
    window = Window(MemoryFile("x", data), 0, len(data))
    assert open_hdf5(window, "x", ReadLimits()).sources == ()  # no child for what Keras writes: no cost at all
    started = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", "import numpy, h5py"], check=True)
    bare = time.perf_counter() - started
    reader = Contained("h5_child.py", "the HDF5 library", "x", ReadLimits(), window=window)
    started = time.perf_counter()
    assert len(json.loads(reader.ask({"ask": "list"}))["rows"]) > 30
    contained = time.perf_counter() - started
    reader.close()
    assert contained < 3 * bare + 0.5


@pytest.mark.parametrize("shape", [(), (5,), (7, 3), (4, 5, 6), (1, 1, 9), (3, 0, 2)])
@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("limit", [1, 8, 40, 10_000])
def test_blocks_cover_a_tensor_in_order(shape, chunk, limit):
    import numpy as np

    array = np.arange(int(np.prod(shape))).reshape(shape)
    chunks = None if chunk is None or not shape else (chunk,) * len(shape)
    pieces = [
        array[tuple(slice(s, s + c) for s, c in zip(start, count, strict=True))].ravel()
        for start, count in blocks(shape, chunks, 8, limit)
    ]
    joined = np.concatenate(pieces) if pieces else np.array([])
    assert array.ravel().tolist() == joined.tolist()
    assert max((p.nbytes for p in pieces), default=0) <= max(limit, 8)


def test_a_hang_on_the_same_bytes_is_not_waited_for_twice(tmp_path):
    """One inspection opens a file several times: for its format, its tensors, its optimizer."""
    for _ in range(3):
        with pytest.raises(CheckpointError, match="took too long"):
            child(tmp_path, "import time; time.sleep(600)").ask({"ask": "list"})
        started = time.monotonic()
    assert time.monotonic() - started < 1.0
