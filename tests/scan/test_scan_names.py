"""Names, patterns and points in time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptdoctor.model import CkptDoctorError
from ckptdoctor.scanner.names import checkpoint_directory, epoch_in_name, find_checkpoints, natural_key, parent, run_of
from ckptdoctor.scanner.patterns import compile_pattern, matches, parse_shard, parse_since, split_root


def found(*names: str, sniff: bool = False) -> list[str]:
    return [f.name for f in find_checkpoints(names, sniff=sniff)]


def test_checkpoints_come_in_the_order_of_their_numbers():
    assert found("e_10.keras", "e_9.keras", "e_1.keras") == ["e_1.keras", "e_9.keras", "e_10.keras"]


def test_shards_belong_to_their_index():
    names = ("m.weights.json", "m_00000.weights.h5", "m_00001.weights.h5", "other_00000.weights.h5")
    checkpoints = {f.name: f.members for f in find_checkpoints(names, sniff=False)}
    assert checkpoints == {"m.weights.json": names[1:3], "other_00000.weights.h5": ()}


def test_data_files_belong_to_their_index_and_an_index_without_data_is_none():
    names = ("ckpt-1.index", "ckpt-1.data-00000-of-00002", "ckpt-1.data-00001-of-00002", "search.index", "checkpoint")
    checkpoints = {f.name: f.members for f in find_checkpoints(names, sniff=False)}
    assert checkpoints == {"ckpt-1.index": names[1:3]}


@pytest.mark.parametrize("name", [".m.keras", "m.keras.tmp", "m.keras.part", "m.keras~", "log.csv", "data.npz"])
def test_files_that_are_no_checkpoints_yet_or_at_all(name):
    assert found(name, sniff=True) == []


def test_files_of_unknown_names_are_only_given_to_be_sniffed():
    assert found("model_final") == []
    (only,) = find_checkpoints(["model_final"], sniff=True)
    assert not only.sure


@pytest.mark.parametrize(
    ("files", "directories", "expected"),
    [
        ({"saved_model.pb"}, {"variables"}, True),
        ({"config.json", "metadata.json", "model.weights.h5"}, set(), True),
        ({"_CHECKPOINT_METADATA", "commit_success.txt"}, {"pytree"}, True),
        ({"config.json", "a.keras"}, {"checkpoints"}, False),
        (set(), set(), False),
    ],
)
def test_directories_that_are_one_checkpoint(files, directories, expected):
    assert checkpoint_directory(files, directories) is expected


@pytest.mark.parametrize(
    ("directory", "run"),
    [
        ("runs/a", "runs/a"),
        ("runs/a/checkpoints", "runs/a"),
        ("ckpts", "ckpts"),
        ("s3://b/r/ckpt", "s3://b/r"),
        (".", "."),
    ],
)
def test_the_run_is_the_directory_above_checkpoints(directory, run):
    assert run_of(directory) == run


@pytest.mark.parametrize(
    ("path", "expected"), [("a/b.keras", "a"), ("b.keras", "."), ("/b.keras", "/"), ("s3://b/m.h5", "s3://b")]
)
def test_the_parent_of_a_path(path, expected):
    assert parent(path) == expected


@pytest.mark.parametrize(
    ("name", "epoch"),
    [
        ("epoch_003.keras", 3),
        ("run-ep12-0.53.weights.h5", 12),
        ("07-0.12.keras", 7),
        ("weights.05-0.33.hdf5", 5),
        ("model_v2.keras", None),
        ("best.keras", None),
        ("0.93.keras", None),
    ],
)
def test_the_epoch_is_read_only_where_the_name_states_it(name, epoch):
    assert epoch_in_name(f"runs/epoch_99/{name}") == epoch


@given(st.lists(st.text(max_size=12)))
def test_any_names_can_be_ordered(names):
    ordered = sorted(names, key=natural_key)
    assert sorted(ordered, key=natural_key) == ordered


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_numbers_in_names_are_ordered_as_numbers(a, b):
    assert (natural_key(f"e{a}.keras") < natural_key(f"e{b}.keras")) == (a < b)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.keras", "runs/a/x.keras", True),
        ("best*", "runs/a/x.keras", False),
        ("a/*.keras", "runs/a/x.keras", True),
        ("a/*.keras", "runs/a/b/x.keras", False),
        ("a/**/*.keras", "runs/a/b/c/x.keras", True),
        ("runs/**", "runs/a/x.keras", True),
        ("[!x]*.keras", "runs/a/x.keras", False),
        ("/abs/*.keras", "/abs/x.keras", True),
        ("/abs/*.keras", "/other/abs/x.keras", False),
        ("s3://b/*/x.keras", "s3://b/a/x.keras", True),
    ],
)
def test_patterns(pattern, path, expected):
    assert matches(pattern, path, path.rpartition("/")[2]) is expected


@given(st.text(alphabet="ab*?[]!/\\-.^", max_size=12), st.text(alphabet="ab/.-", max_size=12))
def test_any_pattern_either_compiles_or_is_refused_with_a_sentence(pattern, path):
    try:
        compile_pattern(pattern).fullmatch(path)
    except CkptDoctorError as error:
        assert "is not a pattern" in str(error)  # noqa: PT017 - both outcomes are right


@given(st.text(alphabet="abc./-_ ", max_size=20))
def test_a_pattern_without_wildcards_matches_itself_alone(text):
    assert compile_pattern(text).fullmatch(text)
    assert not compile_pattern(text).fullmatch(text + "x")


@pytest.mark.parametrize(
    ("pattern", "root", "depth"),
    [
        ("runs/*/best.keras", "runs", 2),
        ("/data/**/x.keras", "/data", None),
        ("*.keras", ".", 1),
        ("/*.keras", "/", 1),
        ("s3://bucket/runs/*/x", "s3://bucket/runs", 2),
    ],
)
def test_where_a_wildcard_path_starts(pattern, root, depth):
    assert split_root(pattern) == (root, depth)


def test_since_is_an_age_or_a_date():
    now = datetime(2026, 3, 10, 12, tzinfo=UTC)
    assert parse_since("7d", now) == now.timestamp() - 7 * 86_400
    assert parse_since("90min", now) == now.timestamp() - 5400
    assert parse_since("2026-03-01T00:00+00:00", now) == datetime(2026, 3, 1, tzinfo=UTC).timestamp()
    with pytest.raises(CkptDoctorError, match="--since expects"):
        parse_since("yesterday", now)


def test_a_shard_is_i_of_n():
    assert parse_shard("3/16") == (3, 16)
    for wrong in ("0/4", "5/4", "1", "a/b", "-1/2"):
        with pytest.raises(CkptDoctorError, match="--shard expects"):
            parse_shard(wrong)
