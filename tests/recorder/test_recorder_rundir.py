"""Files of a run directory appear whole or not at all, and an earlier failure is not lost."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptdoctor.recorder.rundir import RunDirectory, RunDirectoryError, fallback_directory, plain


@pytest.fixture
def run(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.open()
    yield directory
    directory.close()


def test_a_file_replaces_its_predecessor_in_one_step(run):
    run.write("checkpoints/a.keras", lambda p: p.write_bytes(b"one"))

    def second(path: Path) -> None:
        assert (run.path / "checkpoints/a.keras").read_bytes() == b"one"
        path.write_bytes(b"two")

    run.write("checkpoints/a.keras", second)
    assert [p.read_bytes() for p in (run.path / "checkpoints").iterdir()] == [b"two"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(run):
    run.write("a.bin", lambda p: p.write_bytes(b"good"))

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run.write("a.bin", fail)
    assert sorted(p.name for p in run.path.iterdir()) == [".ckptdoctor.lock", "a.bin"]
    assert (run.path / "a.bin").read_bytes() == b"good"


def test_a_directory_is_replaced_as_a_whole(run):
    def fill(name: str):
        def write(path: Path) -> None:
            path.mkdir()
            (path / name).write_text(name)

        return write

    run.write("last_batches", fill("one"))
    run.write("last_batches", fill("two"))
    assert [p.name for p in (run.path / "last_batches").iterdir()] == ["two"]


def test_what_a_killed_writer_left_is_removed_by_the_next_one(run):
    run.close()
    (run.path / ".ckptdoctor-part-1-a.npz").write_bytes(b"half")
    (run.path / "checkpoints").mkdir()
    (run.path / "checkpoints" / ".ckptdoctor-part-1-b.keras").write_bytes(b"half")
    (run.path / ".ckptdoctor-part-1-last_batches").mkdir()
    (run.path / "mine.txt").write_text("somebody else's")
    run.open()
    assert sorted(p.name for p in run.path.rglob("*")) == [".ckptdoctor.lock", "checkpoints", "mine.txt"]


def test_a_log_that_was_cut_in_the_middle_of_a_line_goes_on_in_a_new_one(run):
    (run.path / "steps.jsonl").write_text('{"step": 0}\n{"st')
    run.append("steps.jsonl", ['{"step": 2}'])
    run.append("steps.jsonl", [])
    assert (run.path / "steps.jsonl").read_text().splitlines() == ['{"step": 0}', '{"st', '{"step": 2}']


def test_a_directory_in_use_is_recognised_and_another_one_taken(run):
    second = RunDirectory(run.asked)
    second.open()
    assert second.path == run.asked.with_name("run-2")
    assert "in use by another recorder" in second.note
    second.close()
    run.close()
    third = RunDirectory(run.asked)
    third.open()
    assert (third.path, third.note) == (run.asked, "")
    third.close()


def test_a_file_in_the_way_is_reported_in_one_sentence(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunDirectoryError, match=r"expected a directory to write to at .* give FlightRecorder another"):
        RunDirectory(tmp_path / "run").open()


def test_the_last_resort_is_a_directory_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    one, two = fallback_directory(Path("some/run")), fallback_directory(Path("some/run"))
    assert one.path != two.path
    assert one.path.name.startswith("ckptdoctor-run-")
    one.close()
    two.close()


def failed(run: RunDirectory) -> dict:
    for name in ("a", "b", "c"):
        run.write(f"checkpoints/{name}.keras", lambda p, n=name: p.write_text(n))
    run.write("last_batches.npz", lambda p: p.write_bytes(b"x"))
    run.append("steps.jsonl", ['{"step": 7}'])
    kinds = {"a": "rolling", "b": "window", "c": "failed"}
    record = {
        "status": "failed",
        "reason": {"step": 7},
        "window": {"batches": "last_batches.npz"},
        "checkpoints": [{"path": f"checkpoints/{n}.keras", "kind": k} for n, k in kinds.items()],
    }
    run.write_json("recorder.json", record)
    return record


def test_a_failure_is_put_aside_complete_and_training_can_still_resume(run):
    record = failed(run)
    assert run.earlier() == record
    aside = run.path / str(run.put_aside(record))
    assert aside.name == "failure_step_00000007"
    assert {p.name for p in aside.rglob("*.*")} == {
        "a.keras", "b.keras", "c.keras", "last_batches.npz", "steps.jsonl", "recorder.json",
    }  # fmt: skip
    assert [p.name for p in (run.path / "checkpoints").iterdir()] == ["a.keras"]
    assert (run.path / "steps.jsonl").exists()
    assert run.earlier() is None


def test_a_second_failure_at_the_same_step_gets_a_place_of_its_own(run):
    names = {str(run.put_aside(failed(run))) for _ in range(3)}
    assert names == {"failure_step_00000007", "failure_step_00000007-2", "failure_step_00000007-3"}


@pytest.mark.parametrize("path", ["../outside.keras", "/etc/hostname"])
def test_a_record_that_points_outside_moves_nothing(run, path):
    outside = run.path.parent / "outside.keras"
    outside.write_text("not ours")
    run.put_aside({"checkpoints": [{"path": path, "kind": "failed"}], "window": {"batches": path}})
    assert outside.read_text() == "not ours"


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '"text"'])
def test_a_record_that_cannot_be_read_counts_as_none(run, text):
    (run.path / "recorder.json").write_text(text)
    assert run.earlier() is None


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)))  # fmt: skip
def test_any_value_becomes_strict_json(value):
    text = json.dumps(plain({"value": value}), allow_nan=False)
    assert json.loads(text).keys() == {"value"}


def test_numbers_of_numpy_and_non_finite_ones_are_spelt_out():
    values = [np.float32("nan"), math.inf, -math.inf, np.int64(3), np.array([1.5, np.nan]), Path("a") / "b"]
    assert plain(values) == ["NaN", "Infinity", "-Infinity", 3, [1.5, "NaN"], str(Path("a") / "b")]


WRITER = """
import sys
from ckptdoctor.recorder.rundir import RunDirectory
run = RunDirectory(sys.argv[1]); run.open()
print("ready", flush=True)
n = 0
while True:
    n += 1
    run.write("checkpoints/state.bin", lambda p: p.write_bytes(bytes([n % 256]) * 300_000))
    run.write_json("recorder.json", {"n": n})
    run.append("steps.jsonl", ['{"step": %d}' % n])
"""


def test_a_writer_killed_at_any_moment_leaves_whole_files(tmp_path):
    for attempt in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "run"], stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.01 + 0.013 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        state = tmp_path / "run" / "checkpoints" / "state.bin"
        if state.exists():
            content = state.read_bytes()
            assert content == content[:1] * 300_000
            for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines():
                json.loads(line)
        record = tmp_path / "run" / "recorder.json"
        if record.exists():
            json.loads(record.read_text())
    assert state.exists()
