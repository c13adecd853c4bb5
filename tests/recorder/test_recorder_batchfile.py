"""Batches as files: names, structure, dtypes and shapes survive."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckptdoctor.recorder.batchfile import Batch, flatten, name_leaves, uniform, write_batches, write_stack


def arrays_of(x, y=None, sample_weight=None, names=()):
    return flatten(Batch(0, (x, y, sample_weight), (2,)), names)


def test_single_arrays_keep_their_plain_names():
    arrays, layout = arrays_of(np.ones((2, 3)), np.zeros(2), np.ones(2))
    assert list(arrays) == ["x", "y", "sample_weight"]
    assert layout.arguments["x"].document() == {"form": "single", "names": [""], "keys": ["x"]}


def test_an_absent_argument_has_no_array():
    arrays, layout = arrays_of(np.ones((2, 3)))
    assert list(arrays) == ["x"]
    assert layout.arguments["y"] is None


@pytest.mark.parametrize(
    ("x", "names", "keys"),
    [
        ({"left": 1, "right": 2}, (), ["x_left", "x_right"]),
        ([1, 2], ("left", "right"), ["x_left", "x_right"]),
        ((1, 2), (), ["x_0", "x_1"]),
        ([1, 2], ("same", "same"), ["x_0", "x_1"]),
        ([1, 2], ("only one",), ["x_0", "x_1"]),
        ({"a": {"b": 1}, "a/b": 2}, (), ["x_a_b", "x_a_b_2"]),
        ({"with space": 1, "über": 2}, (), ["x_with_space", "x__ber"]),
    ],
)
def test_several_inputs_get_names_of_their_own(x, names, keys):
    assert [key for key, _ in name_leaves((x, None, None), names)[1]] == keys


dtypes = st.sampled_from(["float32", "float64", "float16", "int8", "int64", "uint8", "bool", "complex64", "S4"])


@given(st.data())
def test_what_is_stacked_comes_back_bit_by_bit(tmp_path_factory, data):
    dtype = data.draw(dtypes)
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=4))
    batches = [{"x": data.draw(hnp.arrays(dtype, shape))} for _ in range(data.draw(st.integers(1, 4)))]
    path = tmp_path_factory.mktemp("stack") / "last_batches.npz"
    write_stack(path, batches, range(7, 7 + len(batches)))
    with np.load(path, allow_pickle=False) as stored:
        assert stored["x"].dtype == np.dtype(dtype)
        assert stored["x"].tobytes() == b"".join(b["x"].tobytes() for b in batches)
        assert stored["step"].tolist() == list(range(7, 7 + len(batches)))


def test_batches_of_different_shapes_become_files_in_order(tmp_path):
    batches = [{"x": np.full((rows, 2), n)} for n, rows in enumerate([4, 4, 3, 4])]
    assert not uniform(batches)
    write_batches(tmp_path / "last_batches", batches, [10, 11, 12, 13])
    found = []
    for path in sorted((tmp_path / "last_batches").iterdir()):
        with np.load(path) as stored:
            found.append((stored["step"].tolist(), stored["x"].shape))
    assert found == [([10, 11], (2, 4, 2)), ([12], (1, 3, 2)), ([13], (1, 4, 2))]


def test_text_is_stored_as_bytes_without_pickling():
    arrays, _ = arrays_of(np.array([b"cat", "bird"], dtype=object))
    assert arrays["x"].tolist() == [b"cat", b"bird"]
    assert arrays["x"].dtype.kind == "S"


@pytest.mark.replay
def test_types_that_npz_cannot_hold_are_stored_without_loss_and_named():
    import tensorflow as tf

    ragged = tf.ragged.constant([[1.0], [2.0, 3.0]])
    sparse = tf.sparse.from_dense([[0.0, 4.0], [5.0, 0.0]])
    half = tf.constant([1.5, 2.5], tf.bfloat16)
    arrays, layout = arrays_of({"ragged": ragged, "sparse": sparse, "half": half})
    assert arrays["x_ragged"].tolist() == [[1.0, 0.0], [2.0, 3.0]]
    assert arrays["x_sparse"].tolist() == [[0.0, 4.0], [5.0, 0.0]]
    assert arrays["x_half"].tolist() == [1.5, 2.5]
    assert layout.densified == {"x_ragged", "x_sparse"}
    assert layout.stored_as == {"x_half": "bfloat16"}
