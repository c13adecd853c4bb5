"""A child that crashes, hangs or floods costs a sentence, never the parent; and it cannot reach anything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ckptdoctor.checkpoints import CheckpointError
from ckptdoctor.checkpoints.children import end_kept
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


REUSED = """
import os, sys
from confined import confine, cut_network, leave, one_process_each, question, send
cut_network()
setup = one_process_each(question(), told=int(sys.argv[1]))
confine(setup["limits"], descriptors=3)
marks = []
while True:
    asked = question()
    if asked["ask"] == "abort":
        os.abort()
    marks.append(asked["ask"])
    send(b"J", f"{os.getpid()} {os.getppid()} {len(marks)}".encode())
    if asked["ask"] == "forge":  # say that it has ended, and stay
        for fd in range(3, 64):
            try:
                os.write(fd, b"e")
            except OSError:
                pass
        while True:
            os.read(0, 1)
"""


@pytest.fixture
def reused(tmp_path):
    """Readers of a program that is kept, as many as are asked for."""
    script = tmp_path / "reused.py"
    script.write_text(f"import sys; sys.path[:0] = [{str(CONFINED)!r}]\n{REUSED}", encoding="utf-8")
    yield lambda: Contained(
        str(script), "the parser", "a file", LIMITS, window=Window(MemoryFile("x", b"ab"), 0, 2), reusable=True
    )
    end_kept()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a program is kept where processes fork")
class TestKept:
    def test_every_file_is_read_by_a_new_process_of_the_same_program(self, reused):
        seen = []
        for _ in range(3):
            reader = reused()
            reader.ask({"ask": "a"})
            seen.append([int(w) for w in reader.ask({"ask": "b"}).split()])
            reader.close()
        assert len({own for own, _, _ in seen}) == 3
        assert len({program for _, program, _ in seen}) == 1
        assert [2, 2, 2] == [count for _, _, count in seen]  # nothing of the file before

    def test_files_that_are_open_together_have_programs_of_their_own(self, reused):
        one, other = reused(), reused()
        programs = {r.ask({"ask": "a"}).split()[1] for r in (one, other)}
        one.close()
        other.close()
        assert len(programs) == 2

    def test_a_crash_is_told_and_ends_the_program(self, reused):
        reader = reused()
        before = reader.ask({"ask": "a"}).split()
        with pytest.raises(CheckpointError, match="an abort"):
            reader.ask({"ask": "abort"})
        reader.close()
        after = reused().ask({"ask": "a"}).split()
        assert before[1] != after[1]

    def test_a_process_that_claims_to_have_ended_reads_no_other_file(self, reused):
        reader = reused()
        own, program, _ = (int(w) for w in reader.ask({"ask": "forge"}).split())
        reader.close()
        for pid in (own, program):
            assert gone(pid)
        assert int(reused().ask({"ask": "b"}).split()[1]) != program

    def test_a_program_that_ended_while_waiting_is_replaced(self, reused):
        reader = reused()
        program = int(reader.ask({"ask": "a"}).split()[1])
        reader.close()
        os.kill(program, signal.SIGKILL)
        assert int(reused().ask({"ask": "a"}).split()[1]) != program

    def test_the_copy_dies_with_its_program(self, reused):
        reader = reused()
        own, program, _ = (int(w) for w in reader.ask({"ask": "a"}).split())
        os.kill(program, signal.SIGKILL)
        reader.close()
        assert gone(own)


def gone(pid: int) -> bool:
    """Whether a process ends within seconds; one that nobody has waited for yet counts as ended."""
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                if file.read().rpartition(")")[2].split()[0] in "ZX":
                    return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_one_inspection_starts_one_program(tmp_path, monkeypatch):
    """The census and the optimizer each open the file; the second opening costs a fork, not an import of h5py."""
    import h5py
    import numpy as np

    import ckptdoctor

    end_kept()
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/dense/vars/0", data=np.ones((8, 8), "f4"), chunks=(4, 4), compression="gzip")
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a) or popen(*a, **k))
    assert ckptdoctor.inspect(path, replay=False).verdict.status.value == "healthy"
    assert len(started) == 1


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
