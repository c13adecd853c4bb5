"""Number formats: every code of the small floats, and what is not a number."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from ckptdoctor.checkpoints import CheckpointError
from ckptdoctor.checkpoints.dtypes import canonical_name, decode, is_float, is_known, itemsize, plausible, storage_dtype

SMALL = [
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3",
    "float8_e3m4",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "float8_e4m3b11fnuz",
]


@pytest.mark.parametrize("name", SMALL)
def test_all_codes_of_8_bit_floats(name):
    codes = np.arange(256, dtype=np.uint8)
    expected = codes.view(getattr(ml_dtypes, name)).astype(np.float64)
    np.testing.assert_array_equal(expected, decode(codes, name))
    assert (itemsize(name), is_float(name)) == (1, True)


def test_all_codes_of_bfloat16():
    codes = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):  # signalling NaN
        expected = codes.view(ml_dtypes.bfloat16).astype(np.float64)
    np.testing.assert_array_equal(expected, decode(codes, "bfloat16"))
    np.testing.assert_array_equal(expected, decode(codes.astype(">u2"), ">bfloat16"))


@pytest.mark.parametrize(
    "name", ["float16", "float32", "float64", "int8", "int64", "uint32", "bool", ">f4", ">f2", ">i8"]
)
def test_plain_numbers_keep_their_value(name):
    array = np.array([0, 1, 5], dtype=storage_dtype(name))
    np.testing.assert_array_equal(array.astype(np.float64), decode(array, name))
    assert is_float(name) == ("f" in name)
    assert canonical_name(array.dtype) == name


def test_complex_numbers_become_their_magnitude():
    for name in ("complex64", ">c16"):
        array = np.array([3 + 4j, complex(np.nan, 0), complex(np.inf, 1)], storage_dtype(name))
        np.testing.assert_array_equal([5.0, np.nan, np.inf], decode(array, name))
        assert is_float(name)


def test_packed_int4_is_measured_as_stored():
    np.testing.assert_array_equal([-1.0, 127.0], decode(np.array([-1, 127], "i1"), "int4"))
    assert itemsize("int4") == 1


@pytest.mark.parametrize("name", ["", "object", "float7", "x" * 500, "<f4 ", ">f16", "V2", "S3"])
def test_what_is_not_a_number_is_named(name):
    assert not is_known(name)
    assert not is_float(name)
    with pytest.raises(CheckpointError, match="not one that Keras writes"):
        storage_dtype(name)


@pytest.mark.parametrize(
    ("shape", "possible"),
    [((), True), ((0,), True), ((1 << 40,), True), ((1 << 51,), False), ((0, 1 << 60), False), ((-1,), False)],
)
def test_impossible_shapes(shape, possible):
    assert plausible(shape, 4) is possible
