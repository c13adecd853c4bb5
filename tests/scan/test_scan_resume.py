"""The results file: nothing is lost, nothing is doubled, whatever happens to the process."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making_checkpoints import keras_template, write, write_run

from ckptdoctor.model import CkptDoctorError, Status
from ckptdoctor.scanner import ScanResult, merge, scan
from ckptdoctor.scanner.result import Kind, from_dict, parse_line
from ckptdoctor.scanner.resume import LineIndex, ResultsFile

KERAS = keras_template()
CLI = [sys.executable, "-c", "from ckptdoctor.cli import main; main()"]


def result(path: str, **more) -> ScanResult:
    return ScanResult(path, "run", Status.HEALTHY, size_bytes=7, modified="2026-01-01T00:00:00.000000000Z", **more)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


text = st.text(max_size=20)
results = st.builds(
    ScanResult,
    path=text,
    run=text,
    status=st.sampled_from(Status),
    nonfinite=st.integers(0, 2**60),
    cause=st.none() | text,
    confidence=st.none() | st.floats(0, 1),
    layer=st.none() | text,
    epoch=st.none() | st.integers(0, 10**6),
    step=st.none() | st.integers(-(2**61), 2**61),
    size_bytes=st.integers(0, 2**50),
    seconds=st.floats(0, 1e6),
    error=st.none() | text,
    kind=st.none() | st.sampled_from(Kind),
    warnings=st.lists(text, max_size=3).map(tuple),
    etag=st.none() | text,
)


@given(results)
def test_a_line_holds_the_whole_result_in_strict_ascii_json(one):
    line = one.line()
    assert line.isascii()
    assert line.count("\n") == 1
    assert parse_line(line) == one

    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads(line, parse_constant=refuse)


def test_the_first_keys_of_a_line_are_the_contract():
    keys = [
        "path",
        "run",
        "status",
        "nonfinite",
        "cause",
        "confidence",
        "layer",
        "epoch",
        "step",
        "size_bytes",
        "seconds",
        "error",
    ]
    assert list(json.loads(result("a").line()))[: len(keys)] == keys


def test_a_number_that_is_none_is_written_as_a_word():
    assert json.loads(result("a", confidence=float("nan")).line())["confidence"] == "NaN"


@pytest.mark.parametrize(
    "wrong", [{}, {"path": 3, "run": "", "status": "sick"}, {"path": "", "run": "", "status": "ill"}]
)
def test_an_object_that_is_no_line_is_refused(wrong):
    with pytest.raises(CkptDoctorError, match="expected a line"):
        from_dict(wrong)


@given(st.binary(max_size=60))
def test_any_bytes_either_parse_or_are_refused_with_a_sentence(raw):
    with pytest.raises(CkptDoctorError, match="expected a line"):
        parse_line(raw)


def test_a_torn_last_line_is_cut_off_at_every_possible_byte(tmp_path):
    whole = [result(f"c{n}").line().encode() for n in range(3)]
    data = b"".join(whole)
    path = tmp_path / "r.jsonl"
    for cut in range(1, len(data) + 1):
        path.write_bytes(data[:cut])
        file = ResultsFile(str(path))
        complete = data[:cut].count(b"\n")
        assert len(file) == complete
        assert (file.repaired == 0) == data[:cut].endswith(b"\n")
        file.append(result("new"))
        file.close()
        assert path.read_bytes() == b"".join(whole[:complete]) + result("new").line().encode()


def test_what_is_unchanged_is_known_and_anything_else_is_not(tmp_path):
    file = ResultsFile(str(tmp_path / "r.jsonl"))
    kept = result("a", etag="e")
    file.append(kept)
    assert file.unchanged("a", 7, kept.modified, "e") == kept
    assert file.unchanged("a", 8, kept.modified, "e") is None
    assert file.unchanged("a", 7, "2026-01-02T00:00:00.000000000Z", "e") is None
    assert file.unchanged("a", 7, kept.modified, "f") is None
    assert file.unchanged("b", 7, kept.modified, "e") is None
    file.close()


@pytest.mark.parametrize(("kind", "kept"), [(kind, kind in (Kind.DAMAGED, Kind.FOREIGN)) for kind in Kind])
def test_only_what_lies_in_the_file_itself_is_not_tried_again(tmp_path, kind, kept):
    file = ResultsFile(str(tmp_path / "r.jsonl"))
    bad = ScanResult("a", "run", Status.UNREADABLE, error="x", kind=kind)
    file.append(bad)
    assert (file.unchanged("a", 0, None, None) is not None) is kept
    file.close()


def test_a_superseded_line_is_gone_after_the_scan(tmp_path):
    path = tmp_path / "r.jsonl"
    file = ResultsFile(str(path))
    for one in (result("a"), result("b"), result("a", step=2), result("c"), result("a", step=3)):
        file.append(one)
    file.close()
    assert [(x["path"], x["step"]) for x in lines(path)] == [("b", None), ("c", None), ("a", 3)]
    assert os.listdir(tmp_path) == ["r.jsonl"]


def test_two_scans_cannot_write_into_one_file(tmp_path):
    file = ResultsFile(str(tmp_path / "r.jsonl"))
    with pytest.raises(CkptDoctorError, match="another scan"):
        ResultsFile(str(tmp_path / "r.jsonl"))
    file.close()
    ResultsFile(str(tmp_path / "r.jsonl")).close()


@pytest.mark.parametrize("content", [b"epoch,loss\n0,1\n", b"\x89HDF", b'{"a":1}\n', b"x" * (2 << 20)])
def test_a_file_that_is_something_else_is_left_alone(tmp_path, content):
    path = tmp_path / "precious"
    path.write_bytes(content)
    with pytest.raises(CkptDoctorError):
        ResultsFile(str(path))
    assert path.read_bytes() == content


def append_ten(file: ResultsFile) -> None:
    for n in range(10):
        file.append(result(f"c{n}"))


def test_a_full_disk_is_told_and_leaves_whole_lines(tmp_path):
    path = tmp_path / "r.jsonl"
    file = ResultsFile(str(path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # the third line fits only in part
        with pytest.raises(CkptDoctorError, match=r"cannot be written.*free some space and continue with --resume"):
            append_ten(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    file.close()
    kept = [x["path"] for x in lines(path)]
    assert kept == [f"c{n}" for n in range(len(kept))]
    assert kept


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 10**9)), max_size=300))
def test_the_index_is_a_dictionary(pairs):
    index, model = LineIndex(), {}
    for number, (key, offset) in enumerate(pairs):
        before = model.get(key)
        assert index.put(str(key), offset) == before
        model[key] = offset
        if number % 37 == 0:
            index._merge()
    assert {key: index.get(str(key)) for key in range(51)} == {key: model.get(key) for key in range(51)}


def test_the_index_stays_small_and_right_beyond_its_first_merges():
    index = LineIndex()
    for n in range(20_000):
        index.put(f"run/{n}", n)
    assert len(index) == 20_000
    assert all(index.get(f"run/{n}") == n for n in range(0, 20_000, 371))
    assert index.get("run/x") is None


# --- whole scans -------------------------------------------------------------------------------


def test_a_second_scan_measures_only_what_changed(tmp_path):
    write_run(tmp_path / "run", KERAS, 6, bad_from=4)
    results = tmp_path / "r.jsonl"
    first = scan(tmp_path / "run", resume=results).finish().counts
    assert (first.done, first.resumed, first.sick) == (6, 0, 2)
    write(tmp_path / "run/epoch_001.keras", KERAS.with_step(11), age=50)
    write(tmp_path / "run/epoch_006.keras", KERAS.with_step(60), age=50)
    second = scan(tmp_path / "run", resume=results).finish()
    assert (second.counts.done, second.counts.resumed, second.counts.sick) == (7, 5, 2)
    (run,) = second.sick_runs
    assert run.first_bad is not None
    assert run.first_bad.path.endswith("epoch_004.keras")
    assert Counter(x["path"] for x in lines(results)) == {str(p): 1 for p in (tmp_path / "run").iterdir()}


def test_sigkill_at_any_moment_loses_and_doubles_nothing(tmp_path):
    total = 120
    for number in range(12):
        write_run(tmp_path / f"runs/r{number}", KERAS, 10, bad_from=8 if number == 3 else None)
    results = tmp_path / "r.jsonl"
    command = [*CLI, "scan", str(tmp_path / "runs"), "--resume", str(results), "--jobs", "2"]
    kept = 0
    for fraction in (0.1, 0.4, 0.7):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if results.exists() and results.read_bytes().count(b"\n") >= fraction * total:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = results.read_bytes()
        assert found.count(b"\n") >= kept, "lines were lost"
        kept = found.count(b"\n")
    with results.open("ab") as file:
        file.write(b'{"path":"torn')  # the worst moment: in the middle of a line
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert "torn last line" in done.stderr
    assert "120 checkpoints in 12 runs: 118 healthy, 2 sick, 0 unreadable." in done.stdout
    assert "unchanged since the scan before" in done.stdout
    paths = Counter(x["path"] for x in lines(results))
    assert len(paths) == total
    assert set(paths.values()) == {1}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_in_good_order(tmp_path, number, status):
    for run in range(20):
        write_run(tmp_path / f"runs/r{run}", KERAS, 20)
    results, page = tmp_path / "r.jsonl", tmp_path / "index.html"
    command = [*CLI, "scan", str(tmp_path / "runs")]
    command += ["--resume", str(results), "-o", str(page), "--jobs", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (results.exists() and results.read_bytes().count(b"\n") >= 10):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == status
    done = len(lines(results))
    assert 10 <= done < 400
    assert f"Interrupted after {done} checkpoints; continue with --resume" in err
    assert "Interrupted" in out
    assert "Interrupted" in page.read_text()


# --- merge -------------------------------------------------------------------------------------


def test_merge_takes_the_last_line_of_each_path(tmp_path):
    (tmp_path / "a.jsonl").write_text(result("x", step=1).line() + result("y").line())
    (tmp_path / "b.jsonl").write_text(result("z").line() + result("x", step=2).line() + '{"torn')
    merged = list(merge([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]))
    assert [(r.path, r.step) for r in merged] == [("y", None), ("z", None), ("x", 2)]


def test_merge_refuses_what_is_no_results_file(tmp_path):
    (tmp_path / "a.csv").write_text("epoch,loss\n")
    with pytest.raises(CkptDoctorError, match=r"a\.csv, line 1"):
        list(merge([str(tmp_path / "a.csv")]))
    with pytest.raises(CkptDoctorError, match="cannot be read"):
        list(merge([str(tmp_path / "none.jsonl")]))
    with pytest.raises(CkptDoctorError, match=r"regular|Is a directory|cannot be read"):
        list(merge([str(tmp_path)]))


def test_shards_together_are_the_whole(tmp_path):
    for run in range(6):
        write_run(tmp_path / f"runs/r{run}", KERAS, 5, bad_from=3 if run == 2 else None)
    files = []
    for i in (1, 2, 3):
        files.append(tmp_path / f"s{i}.jsonl")
        scan(tmp_path / "runs", shard=(i, 3), resume=files[-1]).finish()
    assert all(f.stat().st_size for f in files)
    merged = list(merge([str(f) for f in files]))
    assert sorted(r.path for r in merged) == sorted(str(p) for p in (tmp_path / "runs").rglob("*.keras"))
    assert sum(r.status is Status.SICK for r in merged) == 2
