"""recorder.json is a stranger's file: what it says is checked, what it names stays inside the run directory."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptdoctor import inspect
from ckptdoctor.discover import discover
from ckptdoctor.evidence.gather import gather
from ckptdoctor.evidence.recording import LIMITS, RecordError, read_record
from ckptdoctor.model import FlightRecord, Missing, RecordedWindow
from ckptdoctor.options import InspectOptions
from ckptdoctor.replay.request import request_from

RUN = Path(__file__).resolve().parents[2] / "fixtures" / "runs" / "nan_feature"

DOCUMENT = {
    "schema_version": "1.0",
    "tool": {"name": "ckptdoctor", "version": "0.1.0"},
    "status": "failed",
    "reason": {"kind": "loss", "text": "the loss became NaN at step 12 (epoch 3, batch 0)", "step": 12, "epoch": 3,
               "batch": 0, "loss": "NaN", "variables": ["sequential/dense/kernel"]},
    "step": 13,
    "window": {
        "checkpoint": "checkpoints/epoch_000.keras",
        "first_step": 11,
        "last_step": 12,
        "batches": "last_batches.npz",
        "structure": {"x": {"form": "single", "names": [""], "keys": ["x"]},
                      "y": {"form": "single", "names": [""], "keys": ["y"]}, "sample_weight": None},
        "traced_as": {"x": [None, 6], "y": None},
        "rows": [[32], [32]],
        "densified": [],
        "stored_as": {},
        "seed_generators": [{"layer": "drop", "index": 0, "state": [7, 3]}, {"layer": None, "index": 0, "state": [1, 0]}],
    },
    "training": {"loop": "fit", "jit_compile": False, "replicas": 1},
    "environment": {"tensorflow": "2.21.0", "devices": ["/device:CPU:0"], "onednn": "default"},
    "problems": [],
}  # fmt: skip


@pytest.fixture
def run(tmp_path) -> Path:
    """A run directory with a recording."""
    shutil.copytree(RUN, tmp_path / "run")
    write(tmp_path / "run", DOCUMENT)
    (tmp_path / "run" / "steps.jsonl").write_text(
        '{"step": 10, "loss": 9}\n{"step": 11, "loss": 0.75}\nnot json\n{"step": 12, "loss": 0.5}\n'
        '{"step": 12, "loss": NaN}\n{"step": "x", "loss": 1}\n[1]\n'
    )
    return tmp_path / "run"


def write(run: Path, document: object) -> Path:
    path = run / "recorder.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def changed(**members: object) -> dict:
    """The document with members of the window replaced."""
    document = copy.deepcopy(DOCUMENT)
    document["window"] |= members
    return document


def test_what_the_recorder_wrote_is_read(run):
    record = read_record(run / "recorder.json")
    assert (record.status, record.kind, record.step, record.epoch, record.steps_taken) == ("failed", "loss", 12, 3, 13)
    assert record.loss != record.loss
    window = record.window
    assert isinstance(window, RecordedWindow)
    assert (window.first_step, window.last_step, window.rows) == (11, 12, ((32,), (32,)))
    assert window.checkpoint == str(run / "checkpoints/epoch_000.keras")
    assert window.traced_as == {"x": (None, 6)}
    assert [(s.layer, s.state) for s in window.seeds] == [("drop", (7, 3)), (None, (1, 0))]
    assert record.environment["devices"] == "/device:CPU:0"


def test_of_a_step_that_was_logged_twice_the_later_line_counts_and_damaged_lines_are_passed_over(run):
    (first, loss), (second, again) = read_record(run / "recorder.json").window.losses
    assert (first, loss, second) == (11, 0.75, 12)
    assert again != again


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../outside.keras", "a/../../outside.keras", "..\\outside", "", "a\0b"]
)
@pytest.mark.parametrize("member", ["checkpoint", "batches"])
def test_a_path_that_leads_out_of_the_run_directory_is_not_followed(run, member, name):
    (run.parent / "outside.keras").write_bytes(b"")
    window = read_record(write(run, changed(**{member: name}))).window
    assert isinstance(window, Missing)
    assert "would lie outside the run directory" in window.reason


def test_a_link_that_leads_out_of_the_run_directory_is_not_followed(run):
    shutil.move(run / "last_batches.npz", run.parent / "elsewhere.npz")
    (run / "last_batches.npz").symlink_to(run.parent / "elsewhere.npz")
    window = read_record(run / "recorder.json").window
    assert isinstance(window, Missing)
    assert "link out of the run directory" in window.reason


def test_a_recording_that_is_a_link_or_a_pipe_is_not_read(run):
    shutil.move(run / "recorder.json", run.parent / "elsewhere.json")
    (run / "recorder.json").symlink_to(run.parent / "elsewhere.json")
    with pytest.raises(RecordError, match="cannot read"):
        read_record(run / "recorder.json")
    (run / "recorder.json").unlink()
    os.mkfifo(run / "recorder.json")
    with pytest.raises(RecordError, match="not a regular file"):
        read_record(run / "recorder.json")


@pytest.mark.parametrize("member", ["checkpoint", "batches"])
def test_what_was_not_written_or_is_gone_is_said(run, member):
    window = read_record(write(run, changed(**{member: None}))).window
    assert "could not be written when training ended" in window.reason
    window = read_record(write(run, changed(**{member: "gone.npz"}))).window
    assert "is not there any more" in window.reason


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{",
        "[]",
        "null",
        '{"schema_version": "1.0"',
        "[" * 100_000,
        '{"schema_version": "1.0", "status": ' + "9" * 5000 + "}",
        {"schema_version": "2.0"},
        {**DOCUMENT, "status": ["failed"]},
        {**DOCUMENT, "status": "unheard-of"},
        {**DOCUMENT, "step": -1},
        {**DOCUMENT, "step": True},
        {**DOCUMENT, "reason": {"kind": "loss", "step": "seven"}},
        {**DOCUMENT, "reason": {"text": "no kind"}},
        {**DOCUMENT, "reason": "loss"},
        {**DOCUMENT, "window": 3},
        {k: v for k, v in DOCUMENT.items() if k != "step"},
        changed(rows=[[32]]),
        changed(rows=[[32], [-32]]),
        changed(rows="32"),
        changed(first_step=13),
        changed(structure={"x": {"form": "single", "names": [""], "keys": ["x", "y"]}}),
        changed(structure={"x": {"form": "tree", "names": [""], "keys": ["x"]}}),
        changed(structure={"x": {"form": "single", "names": [""]}}),
        changed(seed_generators=[{"layer": "drop", "index": 0, "state": [1]}]),
        changed(seed_generators=[{"layer": "drop", "index": 0, "state": [1, 1 << 80]}]),
        changed(seed_generators=[{"layer": 3, "index": 0, "state": [1, 1]}]),
        changed(traced_as={"x": ["None", 6]}),
        changed(rows=[[1]] * 20_000),
    ],
)
def test_what_the_recorder_does_not_write_is_one_sentence(run, document):
    with pytest.raises(RecordError) as caught:
        read_record(write(run, document))
    text = str(caught.value)
    assert "recorder.json" in text
    assert len(text) < 400
    assert "\n" not in text.replace(str(run), "")


def test_a_recording_that_is_too_large_is_not_read(run):
    path = run / "recorder.json"
    with path.open("r+b") as file:
        file.truncate(LIMITS.json_bytes + 1)
    with pytest.raises(RecordError, match="allowed for JSON"):
        read_record(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_member_may_be_anything(tmp_path_factory, data):
    run = tmp_path_factory.mktemp("any", numbered=True)
    document = copy.deepcopy(DOCUMENT)
    place = data.draw(st.sampled_from(["", "window", "reason", "training", "environment"]))
    node = document[place] if place else document
    node[data.draw(st.sampled_from(sorted(node)))] = data.draw(JSON)
    with contextlib.suppress(RecordError):
        assert isinstance(read_record(write(run, document)), FlightRecord)


def requested(run: Path, **options: object):
    chosen = InspectOptions(replay=False, **options)
    evidence = gather(discover([str(run)], batches=chosen.batches), chosen, lambda _: None)
    return evidence, request_from(evidence, chosen)


def test_the_recording_of_a_run_directory_is_found_and_given_to_replay(run):
    evidence, request = requested(run)
    assert evidence.files.recorder == str(run / "recorder.json")
    assert isinstance(evidence.recorder, FlightRecord)
    assert request.window == evidence.recorder.window
    assert request.checkpoints[request.window_start].path.endswith("epoch_000.keras")
    assert (request.recorded_step, request.failed) == (12, True)
    assert any(log.source.endswith("steps.jsonl") for log in evidence.logs)


def test_the_recorded_batches_outrank_others_that_lie_about(run):
    (run / "aaa_batches").mkdir()
    shutil.copy(run / "last_batches.npz", run / "aaa_batches" / "batch.npz")
    shutil.move(run / "last_batches.npz", run / "zzz.npz")
    write(run, changed(batches="zzz.npz"))
    evidence, request = requested(run)
    assert evidence.files.batches == (str(run / "zzz.npz"),)
    assert request.window is not None
    assert str(run / "zzz.npz") not in [i.path for i in evidence.files.ignored]
    assert "the flight recorder's batches were used" in [i.reason for i in evidence.files.ignored]


def test_batches_that_the_user_names_outrank_the_recording(run):
    other = run.parent / "mine.npz"
    shutil.copy(run / "last_batches.npz", other)
    _, request = requested(run, batches=(str(other),))
    assert request.window is None
    assert "named with --batches" in request.window_unused


def test_a_window_that_begins_at_a_sick_or_unreadable_checkpoint_is_not_repeated(run):
    write(run, changed(checkpoint="checkpoints/epoch_003.keras"))
    _, request = requested(run)
    assert "is non-finite already" in request.window_unused
    (run / "checkpoints" / "epoch_000.keras").write_bytes(b"PK\x03\x04 cut off")
    write(run, DOCUMENT)
    _, request = requested(run)
    assert "could not be read" in request.window_unused


def test_two_recordings_below_one_directory_are_not_chosen_between(run):
    shutil.copytree(run, run / "again", ignore=shutil.ignore_patterns("checkpoints", "*.npz", "*.csv", "*.jsonl"))
    files = discover([str(run)])
    assert files.recorder is None
    assert sum("one of several recordings" in i.reason for i in files.ignored) == 2


def test_a_malformed_recording_is_a_sentence_and_the_run_is_inspected_without_it(run):
    write(run, "{oops")
    report = inspect(run, replay=False)
    assert isinstance(report.evidence.recorder, Missing)
    assert report.verdict.status.value == "sick"
    text = " ".join(str(report).split())
    assert "The flight recorder's file was not used:" in text
    assert "is not valid JSON" in text
    document = json.loads(report.to_json())
    assert document["recorder"] is None
    assert "recorder" in [gap["part"] for gap in document["not_checked"]]


def test_a_run_without_a_recording_has_no_word_of_one():
    report = inspect(RUN, replay=False)
    assert report.evidence.files.recorder is None
    assert "flight recorder" not in " ".join(str(report).split()).replace("ckptdoctor.FlightRecorder", "").lower()
    document = json.loads(report.to_json())
    assert document["recorder"] is None
    assert "recorder" not in [gap["part"] for gap in document["not_checked"]]
