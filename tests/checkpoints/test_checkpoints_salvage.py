"""A save that was cut off still gives its configuration and every tensor whose bytes are there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ckptdoctor.checkpoints import CheckpointError, open_checkpoint
from ckptdoctor.checkpoints.layers import config_tree
from ckptdoctor.checkpoints.salvage import expected_variables
from ckptdoctor.model import ProblemKind, Role, TensorInfo

FORMATS = Path(__file__).parents[2] / "fixtures" / "formats"
FILES = [
    "keras-3.13.0/m.keras",
    "keras-3.0.5/m.keras",
    "keras-2.15/m.keras",
    "made/nested.keras",
    "made/attention.keras",
    "made/convolution.keras",
]


def contents(path: Path) -> dict[str, list[TensorInfo]]:
    found: dict[str, list[TensorInfo]] = {}
    with open_checkpoint(path) as checkpoint:
        for stored in checkpoint.tensors:
            if stored.problem is None:
                found.setdefault(hashlib.sha256(stored.load().tobytes()).hexdigest(), []).append(stored.info)
    return found


def cut(source: Path, target: Path, fraction: float) -> Path:
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * fraction)])
    return target


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99])
def test_every_tensor_before_the_cut_is_found(file, fraction, tmp_path):
    """Whatever the lists of names still say: all bytes before the cut are some tensor of the result."""
    source = FORMATS / file
    with open_checkpoint(source) as whole:
        size = source.stat().st_size
        # A tensor's header stands in front of its bytes in these files, so bytes before the cut can be located.
        inside = {t.info.path: t for t in whole.tensors if t.span.offset + t.span.nbytes <= int(size * fraction)}
        expected = {hashlib.sha256(t.load().tobytes()).hexdigest() for t in inside.values()}
    path = cut(source, tmp_path / "cut.keras", fraction)
    found = contents(path)
    headers_behind = {d for d in expected if d not in found}
    assert len(headers_behind) <= 2  # at most the tensor at the cut itself, whose header may come after its bytes
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.info.model_config["class_name"] in ("Functional", "Sequential")
        assert checkpoint.info.keras_version
        assert 0 <= checkpoint.info.coverage < 1
        kinds = {p.kind for p in checkpoint.info.problems}
        assert ProblemKind.DAMAGED in kinds


@pytest.mark.parametrize("file", ["keras-3.13.0/m.keras", "made/nested.keras"])
@pytest.mark.parametrize("fraction", [0.5, 0.7, 0.9, 0.95])
def test_what_is_found_is_named_as_in_the_whole_file(file, fraction, tmp_path):
    whole = contents(FORMATS / file)
    found = contents(cut(FORMATS / file, tmp_path / "cut.keras", fraction))
    assert found
    for digest, infos in found.items():
        assert {i.label for i in infos} <= {i.label for i in whole[digest]}


def test_half_a_model_of_twenty_tensors(tmp_path):
    with open_checkpoint(cut(FORMATS / "keras-3.13.0" / "m.keras", tmp_path / "half.keras", 0.5)) as checkpoint:
        assert checkpoint.info.compile_config["optimizer"]["class_name"] == "Adam"
        assert {t.info.layer for t in checkpoint.tensors} == {"my_first", "bn"}
        lost = next(p.message for p in checkpoint.info.problems if p.kind is ProblemKind.INCOMPLETE)
        assert lost.startswith("6 weights of the model are not in this file")
        assert "head/kernel (4, 1)" in lost


def test_slots_of_a_file_without_its_end_keep_their_weights(tmp_path):
    with open_checkpoint(cut(FORMATS / "made" / "nested.keras", tmp_path / "x.keras", 0.95)) as checkpoint:
        slots = [t.info for t in checkpoint.tensors if t.info.role is Role.SLOT and t.problem is None]
        assert len(slots) > 10
        assert all(info.slot_of for info in slots)


def test_coverage_grows_with_what_is_left(tmp_path):
    source = FORMATS / "made" / "attention.keras"
    values = []
    for fraction in (0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0):
        with open_checkpoint(cut(source, tmp_path / "x.keras", fraction)) as checkpoint:
            values.append(checkpoint.info.coverage)
    assert values == sorted(values)
    assert (values[0], values[-1]) == (0.0, 1.0)


def test_cut_before_anything_was_complete(tmp_path):
    path = tmp_path / "x.keras"
    path.write_bytes((FORMATS / "keras-3.13.0" / "m.keras").read_bytes()[:20])
    with pytest.raises(CheckpointError, match="cut off before any part"):
        open_checkpoint(path)


def test_every_cut_of_a_file_gives_a_checkpoint_or_a_sentence(tmp_path):
    data = (FORMATS / "keras-3.13.0" / "m.keras").read_bytes()
    path = tmp_path / "x.keras"
    contents_end = data.find(b"PK\x01\x02")  # behind it only the table of contents is lost
    for size in range(0, len(data), 491):
        path.write_bytes(data[:size])
        try:
            with open_checkpoint(path) as checkpoint:
                assert (checkpoint.info.coverage < 1.0) == (size < contents_end)
                assert checkpoint.info.problems
        except CheckpointError as error:
            if size >= 400 or "\n" in str(error):
                pytest.fail(str(error))


def test_a_damaged_table_of_contents_is_replaced_by_the_members_own_headers(tmp_path):
    data = bytearray((FORMATS / "keras-3.13.0" / "m.keras").read_bytes())
    at = data.find(b"PK\x01\x02")
    data[at : at + 4] = b"XXXX"
    path = tmp_path / "x.keras"
    path.write_bytes(data)
    with open_checkpoint(path) as checkpoint:
        assert len(checkpoint.tensors) == 33
        assert any("table of contents is damaged" in p.message for p in checkpoint.info.problems)


@pytest.mark.parametrize(
    "file", ["made/nested.keras", "made/convolution.keras", "made/attention.keras", "made/recurrent.keras"]
)
def test_shapes_expected_from_the_configuration_are_those_keras_made(file):
    with open_checkpoint(FORMATS / file) as checkpoint:
        stored = {
            (t.info.layer, t.info.variable): t.info.shape for t in checkpoint.tensors if t.info.role is not Role.SLOT
        }
        tree = config_tree(checkpoint.info.model_config)
    expected = {(leaf.name, name): shape for leaf in tree.leaves() for name, shape in expected_variables(leaf)}
    assert len(expected) >= 6
    assert expected == {key: stored[key] for key in expected}
