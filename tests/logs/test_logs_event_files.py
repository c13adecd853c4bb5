"""TensorBoard event files: cut off, corrupted, of another program, in every encoding of a scalar."""

import struct
from pathlib import Path

import numpy as np
import pytest

from ckptdoctor.logs import LogError, detect_log, read_log
from ckptdoctor.logs.crc import masked_crc

LOGS = Path(__file__).parents[2] / "fixtures" / "logs"
STORED = next((LOGS / "keras3" / "tensorboard_healthy" / "train").iterdir())


def crc(data: bytes) -> bytes:
    return struct.pack("<I", int(masked_crc(np.frombuffer(data, np.uint8)[None])[0]))


def record(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + crc(length) + payload + crc(payload)


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def event(step: int, tag: str, value: bytes) -> bytes:
    summary = field(1, field(1, tag.encode()) + value)
    return record(b"\x09" + struct.pack("<d", 1.7e9) + b"\x10" + varint(step % (1 << 64)) + field(5, summary))


def tensor(dtype: int, rest: bytes, shape: bytes = b"") -> bytes:
    return field(8, b"\x08" + varint(dtype) + field(2, shape) + rest)


HEAD = record(b"\x09" + struct.pack("<d", 1.7e9) + field(3, b"brain.Event:2"))


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "events.out.tfevents.1700000000.host"
    path.write_bytes(data)
    return path


def test_the_checksum_of_the_standard():
    # CRC-32C of "123456789" is 0xE3069283 (RFC 3720, appendix B.4 and the usual check value)
    value = 0xE3069283
    masked = ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert int(masked_crc(np.frombuffer(b"123456789", np.uint8)[None])[0]) == masked


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"\x15" + struct.pack("<f", 0.5), 0.5),
        (tensor(1, field(5, struct.pack("<f", 0.25))), 0.25),
        (tensor(1, b"\x2d" + struct.pack("<f", 0.25)), 0.25),
        (tensor(1, field(4, struct.pack("<f", 0.125))), 0.125),
        (tensor(2, field(6, struct.pack("<d", 1e300))), 1e300),
        (tensor(2, b"\x31" + struct.pack("<d", 1e300)), 1e300),
        (tensor(19, field(13, varint(0x3C00))), 1.0),
        (tensor(14, field(13, varint(0x3F80))), 1.0),
        (tensor(14, field(4, b"\x80\x3f")), 1.0),
        (tensor(3, field(7, varint(7))), 7.0),
        (tensor(9, field(10, varint((1 << 64) - 3))), -3.0),
        (tensor(1, field(5, struct.pack("<f", float("inf"))), field(2, b"\x08\x01")), float("inf")),
    ],
)
def test_every_encoding_of_a_scalar(tmp_path, value, expected):
    log = read_log(written(tmp_path, HEAD + event(3, "loss", value)))
    assert (log.find("loss").steps, log.find("loss").values) == ((3.0,), (expected,))


def test_arrays_and_histograms_are_not_scalars(tmp_path):
    vector = tensor(1, field(4, struct.pack("<2f", 1, 2)), field(2, b"\x08\x02"))
    text = field(9, field(1, field(1, b"histograms"))) + b"\x15" + struct.pack("<f", 1.0)
    log = read_log(written(tmp_path, HEAD + event(0, "v", vector) + event(0, "h", text)))
    assert log.series == ()
    assert any("no scalars" in note for note in log.notes)


@pytest.mark.parametrize("lost", [1, 5, 12, 17, 40, 200, 1000])
def test_a_cut_tail_is_normal(tmp_path, lost):
    whole = read_log(written(tmp_path, STORED.read_bytes()))
    log = read_log(written(tmp_path, STORED.read_bytes()[:-lost]))
    assert any("ends inside a record" in note for note in log.notes)
    for series in log.series:
        before = whole.find(series.name)
        assert series.values == before.values[: series.count]


def test_a_flipped_bit_costs_its_record_only(tmp_path):
    data = bytearray(HEAD + b"".join(event(i, "loss", b"\x15" + struct.pack("<f", i)) for i in range(10)))
    size = len(event(0, "loss", b"\x15" + struct.pack("<f", 0)))
    data[len(HEAD) + 4 * size + 25] ^= 0x10
    log = read_log(written(tmp_path, bytes(data)))
    assert log.find("loss").steps == (0.0, 1.0, 2.0, 3.0, 5.0, 6.0, 7.0, 8.0, 9.0)
    assert any("wrong checksum" in note for note in log.notes)


def test_a_record_of_a_graph_is_passed_over_unread(tmp_path):
    graph = field(4, b"g" * (5 << 20))
    length = struct.pack("<Q", len(graph))
    huge = (
        length + crc(length) + graph + b"????"
    )  # a checksum that nobody computes, so that it is right for nobody either
    scalar = event(1, "loss", b"\x15" + struct.pack("<f", 2.0))
    log = read_log(written(tmp_path, HEAD + huge + scalar + huge + scalar))
    assert log.find("loss").count == 2


def test_a_length_of_exabytes_is_not_believed(tmp_path):
    length = struct.pack("<Q", 1 << 60)
    log = read_log(
        written(tmp_path, HEAD + event(1, "loss", b"\x15" + struct.pack("<f", 2.0)) + length + crc(length) + b"x" * 50)
    )
    assert log.find("loss").count == 1


def test_steps_of_a_resumed_run(tmp_path):
    scalar = b"\x15" + struct.pack("<f", 2.0)
    log = read_log(written(tmp_path, HEAD + b"".join(event(s, "epoch_loss", scalar) for s in (0, 1, 2, 1, 2))))
    assert (log.restarts, log.find("epoch_loss").steps) == ((1.0,), (0.0, 1.0, 2.0, 1.0, 2.0))


def test_names_of_event_files_alone_do_not_make_a_log(tmp_path):
    path = written(tmp_path, b"nothing of the kind, although long enough")
    assert detect_log(path) is None
    assert detect_log(tmp_path) is None
    with pytest.raises(LogError, match="expected"):
        read_log(tmp_path)


def test_what_tensorboard_itself_reads():
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = LOGS / "keras3" / "tensorboard_healthy" / "train"
    accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    log = read_log(folder)
    assert set(accumulator.Tags()["tensors"]) == {s.name for s in log.series}
    for series in log.series:
        theirs = [
            (
                e.step,
                float(np.frombuffer(e.tensor_proto.tensor_content, "f4")[0])
                if e.tensor_proto.tensor_content
                else e.tensor_proto.float_val[0],
            )
            for e in accumulator.Tensors(series.name)
        ]
        assert theirs == list(zip(series.steps, series.values, strict=True))
