"""`--publish tensorboard`: what is written is what TensorBoard reads, and does not disturb the run's own log."""

from __future__ import annotations

import shutil
import struct
import sys
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integration_runs import HEALTHY, ROOT, SICK, ckptdoctor
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.text import metadata

import ckptdoctor as package
from ckptdoctor.logs import read_log
from ckptdoctor.logs.tfevents import EventFile
from ckptdoctor.publish import PublishError, publish
from ckptdoctor.publish.tensorboard import TAG, records

EVENTS = "events.out.tfevents.*"


@pytest.fixture(scope="module")
def report():
    return package.inspect(SICK, replay=False)


@pytest.fixture(autouse=True)
def without_tensorflow(monkeypatch):
    """TensorBoard's own switch for its stub: importing TensorFlow would take seconds."""
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", types.ModuleType("notf"))


def accumulated(folder) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def text_of(accumulator: EventAccumulator) -> tuple[int, str]:
    (event,) = accumulator.Tensors(TAG)
    return event.step, event.tensor_proto.string_val[0].decode()


def test_tensorboard_reads_the_markdown_report(tmp_path, report):
    (where,) = publish(report, [f"tensorboard={tmp_path / 'new' / 'logs'}"])
    reader = accumulated(tmp_path / "new" / "logs")
    assert text_of(reader) == (report.diagnosis.origin.step, report.to_markdown())
    assert reader.SummaryMetadata(TAG).plugin_data.plugin_name == metadata.PLUGIN_NAME
    assert where.startswith("TensorBoard ")


def test_our_own_reader_finds_whole_records_and_no_scalar(tmp_path, report):
    publish(report, [f"tensorboard={tmp_path}"])
    (path,) = tmp_path.glob(EVENTS)
    events = EventFile(str(path))
    assert list(events) == []
    assert (events.others, events.damaged, events.truncated) == (2, 0, False)  # the version, and the text


def logged_run(folder):
    """A run whose log is a TensorBoard directory, written by Keras."""
    shutil.copytree(HEALTHY / "checkpoints", folder / "checkpoints")
    shutil.copytree(ROOT / "fixtures" / "logs" / "keras3" / "tensorboard_healthy", folder / "logs")
    return folder


def test_without_a_directory_it_goes_beside_the_runs_own_curves_and_leaves_them_as_they_were(tmp_path):
    run = logged_run(tmp_path / "run")
    before = read_log(run / "logs")
    publish(package.inspect(run), ["tensorboard"])
    assert len(list((run / "logs").glob(EVENTS))) == 1
    after = read_log(run / "logs")
    assert [(s.name, s.count) for s in after.series] == [(s.name, s.count) for s in before.series]
    assert after.notes == before.notes
    assert package.inspect(run).verdict == package.inspect(run).verdict


def test_publishing_twice_keeps_both(tmp_path, report):
    publish(report, [f"tensorboard={tmp_path}", f"tensorboard={tmp_path}"])
    assert len(list(tmp_path.iterdir())) == 2
    assert len(accumulated(tmp_path).Tensors(TAG)) == 2


def test_a_run_without_such_a_directory_asks_for_one(report):
    with pytest.raises(PublishError, match="name one with --publish tensorboard=DIR"):
        publish(report, ["tensorboard"])


def test_a_place_that_cannot_be_written_is_named(tmp_path, report):
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match="cannot write into the TensorBoard directory"):
        publish(report, [f"tensorboard={tmp_path / 'file'}"])


def test_the_command_prints_where_it_is_on_standard_error_only(tmp_path):
    done = ckptdoctor("inspect", SICK, "--no-replay", "--format", "json", "--publish", "tensorboard=tb", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("{")
    assert done.stderr.startswith("Published: TensorBoard tb/events.out.tfevents.")
    assert text_of(accumulated(tmp_path / "tb"))[1].startswith("## Sick")


@settings(max_examples=30, deadline=None)
@given(text=st.text(max_size=2000), step=st.integers(0, 2**62))
def test_any_text_at_any_step_survives(tmp_path_factory, text, step):
    encodable = text.encode("utf-8", "replace").decode()
    folder = tmp_path_factory.mktemp("events")
    (folder / "events.out.tfevents.1.x").write_bytes(b"".join(records(encodable, step)))
    assert text_of(accumulated(folder)) == (step, encodable)


def test_a_flipped_bit_is_noticed(tmp_path):
    whole = b"".join(records("report", 3))
    length = struct.unpack_from("<Q", whole)[0]
    broken = bytearray(whole)
    broken[16 + length + 12 + 20] ^= 1  # inside the second record
    (tmp_path / "events.out.tfevents.1.x").write_bytes(broken)
    events = EventFile(str(tmp_path / "events.out.tfevents.1.x"))
    assert list(events) == []
    assert events.damaged == 1
