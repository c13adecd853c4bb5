"""A file that crashes, hangs or bloats a worker costs that file only, and is named."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptdoctor.model import CkptDoctorError
from ckptdoctor.scanner.child import MIB, Child, Limits, WorkerLostError
from ckptdoctor.scanner.pool import LocalPool, measure_contained
from ckptdoctor.scanner.result import Kind
from ckptdoctor.scanner.worker import read_frame, write_frame


@pytest.fixture
def child():
    """A worker that can be told to misbehave, allowed 2 s and 128 MiB."""
    worker = Child(Limits(timeout=2.0, memory=128 * MIB), entry="hostile_worker")
    yield worker
    worker.close()


def lost(child: Child, path: str) -> WorkerLostError:
    with pytest.raises(WorkerLostError) as caught:
        child.ask({"path": path})
    return caught.value


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_answers_again_and_again(child):
    first, second = child.ask({"path": "fine"}), child.ask({"path": "fine"})
    assert first == second == {"status": "healthy", "pid": child.pid}


@pytest.mark.parametrize(("path", "words"), [("segfault", "SIGSEGV"), ("abort", "SIGABRT"), ("exit", "exit status 7")])
def test_a_crash_is_reported_and_the_next_file_has_a_new_worker(child, path, words):
    before = child.ask({"path": "fine"})["pid"]
    error = lost(child, path)
    assert error.kind is Kind.CRASHED
    assert words in str(error)
    after = child.ask({"path": "fine"})["pid"]
    assert after != before
    assert not alive(before)


@pytest.mark.parametrize("path", ["hang", "spin"])
def test_a_hang_is_bounded_by_the_clock(child, path):
    child.ask({"path": "fine"})
    started = time.monotonic()
    error = lost(child, path)
    assert error.kind is Kind.TIMEOUT
    assert "within 2 s" in str(error)
    assert time.monotonic() - started < 6
    assert child.ask({"path": "fine"})["status"] == "healthy"


def test_a_bloat_is_bounded_and_the_parent_stays_small(child):
    error = lost(child, "bloat")
    assert error.kind in (Kind.BLOATED, Kind.CRASHED)  # the kernel refuses memory, or the parent sees it grow
    assert child.ask({"path": "fine"})["status"] == "healthy"


def test_what_a_worker_prints_into_its_pipe_is_no_answer(child):
    assert lost(child, "babble").kind is Kind.CRASHED
    assert child.ask({"path": "fine"})["status"] == "healthy"


def test_a_worker_that_idles_ends_itself_and_is_replaced_without_a_word():
    child = Child(Limits(timeout=5.0, idle=0.2), entry="hostile_worker")
    try:
        first = child.ask({"path": "fine"})["pid"]
        time.sleep(1.0)
        assert child.ask({"path": "fine"})["pid"] != first
    finally:
        child.close()


def test_a_worker_ends_when_its_parent_is_gone():
    child = Child(Limits(timeout=5.0), entry="hostile_worker")
    pid = child.ask({"path": "fine"})["pid"]
    child.close()
    assert not alive(pid)


def test_kill_from_another_thread_ends_an_answer_under_way(child):
    child.ask({"path": "fine"})
    threading.Timer(0.3, child.kill).start()
    started = time.monotonic()
    assert lost(child, "hang").kind is Kind.LOST
    assert time.monotonic() - started < 1.5


def test_a_worker_that_cannot_start_is_an_error_and_not_the_files_fault():
    child = Child(Limits(), entry="no_such_module")
    with pytest.raises(CkptDoctorError, match=r"could not be started.*no_such_module"):
        child.ask({"path": "fine"})


def test_the_pool_reports_a_worker_killed_from_outside_and_goes_on(tmp_path):
    (tmp_path / "not.keras").write_bytes(b"nothing")
    pool = LocalPool(1, Limits(timeout=30.0))
    try:
        first = pool.submit({"path": str(tmp_path / "not.keras")}).result(60)
        assert first["kind"] == "damaged"
        (pid,) = pool.pids()
        os.kill(pid, signal.SIGSTOP)
        stopped = pool.submit({"path": str(tmp_path / "not.keras")})
        time.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        answer = stopped.result(30)
        assert (answer["status"], answer["kind"]) == ("unreadable", "crashed")
        assert pool.submit({"path": str(tmp_path / "not.keras")}).result(60)["kind"] == "damaged"
    finally:
        pool.close()


def test_any_executor_can_call_the_contained_measurement(tmp_path):
    (tmp_path / "empty.keras").touch()
    answer = measure_contained({"path": str(tmp_path / "empty.keras")}, 30.0, 512 * MIB)
    assert answer["status"] == "unreadable"
    assert "empty" in answer["error"]


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())))
def test_frames_carry_any_object(data):
    reader, writer = os.pipe()
    try:
        write_frame(writer, data)
        assert read_frame(reader) == data
    finally:
        os.close(reader)
        os.close(writer)


def test_a_frame_of_absurd_length_is_refused_before_it_is_read():
    reader, writer = os.pipe()
    try:
        os.write(writer, b"\xff\xff\xff\xff")
        with pytest.raises(ValueError, match="frame"):
            read_frame(reader)
    finally:
        os.close(reader)
        os.close(writer)
