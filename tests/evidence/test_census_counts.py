"""The census counts exactly, whatever the dtype, the size and the way the bytes come."""

from __future__ import annotations

import math

import numpy as np
import pytest
from handmade import checkpoint
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckptdoctor.checkpoints.dtypes import decode, storage_dtype
from ckptdoctor.evidence.census import take_census
from ckptdoctor.model import TensorStats

PLAIN = [
    "f2",
    "f4",
    "f8",
    ">f2",
    ">f4",
    ">f8",
    "c8",
    "c16",
    ">c8",
    "i1",
    "u1",
    "i2",
    ">i2",
    "i4",
    "u4",
    "i8",
    "u8",
    "?",
]
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=12)


def count(array: np.ndarray, dtype: str | None = None, **options: object) -> TensorStats:
    made = checkpoint({"layer/kernel": array}, dtypes={"layer/kernel": dtype} if dtype else None, **options)
    (found,) = take_census(made).tensors
    return found


def measured(values: np.ndarray) -> np.ndarray:
    """float64 values as the census defines them: complex numbers by magnitude."""
    with np.errstate(all="ignore"):
        return np.abs(values.astype("c16")) if values.dtype.kind == "c" else values.astype("f8")


def on_the_brim(values: np.ndarray) -> bool:
    """A complex magnitude next to float64's largest number: whether it overflows depends on how numpy rounds on the way."""
    parts = np.abs(np.ravel(values).astype("c16").view("f8")).astype(np.longdouble)
    size = np.sqrt(parts[0::2] ** 2 + parts[1::2] ** 2)
    largest = np.longdouble(np.finfo("f8").max)
    return values.dtype.kind == "c" and bool((np.abs(size / largest - 1) < 1e-12).any())


def agrees(found: TensorStats, values: np.ndarray) -> None:
    """Counts exact; mean and rms to 1e-6 of the rms, computed here in exact arithmetic where it matters."""
    assert found.error is None
    assert found.nan == np.isnan(values).sum()
    assert found.posinf == (values == np.inf).sum()
    assert found.neginf == (values == -np.inf).sum()
    assert found.zeros == (values == 0).sum()
    finite = values[np.isfinite(values)]
    if not finite.size:
        assert (found.min, found.max, found.mean, found.rms) == (None,) * 4
        return
    assert found.min == finite.min()
    assert found.max == finite.max()
    peak = np.abs(finite).max()
    if peak == 0:
        assert (found.mean, found.rms) == (0.0, 0.0)
        return
    _, exponent = math.frexp(peak)
    scaled = np.ldexp(finite, -exponent)  # exact but for entries far below the peak
    rms = math.sqrt(math.fsum((scaled**2).tolist()) / finite.size)
    mean = math.fsum(scaled.tolist()) / finite.size
    assert math.ldexp(found.rms, -exponent) == pytest.approx(rms, rel=1e-6)
    assert math.ldexp(found.mean, -exponent) == pytest.approx(mean, abs=1e-6 * rms)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), code=st.sampled_from(PLAIN), spans=st.booleans())
def test_any_array_of_any_dtype_is_counted_like_numpy_counts_it(data: st.DataObject, code: str, spans: bool) -> None:
    array = data.draw(hnp.arrays(np.dtype(code), shapes))
    assume(not on_the_brim(array))
    agrees(count(array, spans=spans), measured(array))


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(), name=st.sampled_from(["bfloat16", ">bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"])
)
def test_formats_numpy_lacks_are_counted_by_what_their_bits_mean(data: st.DataObject, name: str) -> None:
    raw = data.draw(hnp.arrays(storage_dtype(name), shapes))
    agrees(count(raw, name), decode(raw, name))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_two_byte_float_widens_exactly(name: str) -> None:
    """All 65,536 bit patterns one at a time in rows: subnormals, both zeros, the largest, NaN payloads."""
    raw = np.arange(1 << 16).astype(storage_dtype(name).newbyteorder("=") if name == "bfloat16" else "u2")
    for start in range(0, 1 << 16, 4096):
        part = raw[start : start + 4096]
        stored = part if name == "bfloat16" else part.view("f2")
        with np.errstate(all="ignore"):
            expected = decode(stored, name)
        agrees(count(stored, name), expected)


def test_packed_int4_holds_two_signed_numbers_a_byte() -> None:
    packed = np.array([[0x7F, 0x80], [0x00, 0x21]], np.uint8).view(np.int8)  # -1, 7, 0, -8, 0, 0, 1, 2
    found = count(packed, "int4")
    assert (found.min, found.max, found.zeros) == (-8.0, 7.0, 3)
    assert found.mean == pytest.approx(1 / 8)
    assert found.rms == pytest.approx(math.sqrt((1 + 49 + 64 + 1 + 4) / 8))


@pytest.mark.parametrize(
    "values",
    [
        np.full(1000, np.nan, "f4"),
        np.zeros(0, "f4"),
        np.zeros((3, 0, 2), "f8"),
        np.full(300, np.finfo("f4").max, "f4"),
        np.full(300, np.finfo("f8").max, "f8"),
        np.array([np.finfo("f8").max, -np.finfo("f8").max] * 3, "f8"),
        np.full(300, np.finfo("f4").smallest_subnormal, "f4"),
        np.full(300, np.finfo("f8").smallest_subnormal, "f8"),
        np.array([1e-320, 1.0, 1e300, np.nan, -np.inf], "f8"),
        np.array([-0.0, 0.0, -0.0], "f4"),
        np.array([np.finfo("f2").max] * 70_000, "f2"),
        np.array([np.iinfo("i8").min, np.iinfo("i8").max], "i8"),
    ],
    ids=lambda v: f"{v.dtype}-{v.shape}-{v.ravel()[:1]}",
)
def test_the_limits_of_a_format_neither_overflow_nor_vanish(values: np.ndarray) -> None:
    agrees(count(values), values.astype("f8"))


def test_tiny_and_huge_blocks_of_one_tensor_add_up() -> None:
    """Each 256 KiB block is scaled on its own; the sum must not depend on their order."""
    tiny, usual, huge = (np.full(100_000, v, "f8") for v in (1e-310, 1.0, 1e305))
    for order in ((tiny, usual), (usual, tiny), (huge, tiny), (tiny, huge, usual), (tiny, np.zeros(100_000), tiny)):
        array = np.concatenate(order)
        agrees(count(array), array)


@pytest.mark.parametrize("code", ["f4", "f8", "f2", ">f4", "i1", "c8", "i4"])
@pytest.mark.parametrize("spans", [True, False], ids=["from the file", "from chunks"])
def test_a_large_tensor_is_counted_in_blocks_like_a_small_one(code: str, spans: bool) -> None:
    rng = np.random.default_rng(7)
    array = (rng.standard_normal((1031, 1213)) * 50).astype(code)
    if array.dtype.kind in "fc":
        array[17, 5], array[1030, 1212], array[500, 0] = np.nan, np.inf, -np.inf
    found = count(array, spans=spans)
    agrees(found, measured(array))
    if array.dtype.kind in "fc":
        rows, columns = found.axes
        assert (rows.touched, rows.full, rows.indices) == (3, 0, (17, 500, 1030))
        assert (columns.touched, columns.full, columns.indices) == (3, 0, (0, 5, 1212))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_result_does_not_depend_on_the_number_of_threads(threads: int) -> None:
    rng = np.random.default_rng(1)
    arrays = {f"l{i}/kernel": rng.standard_normal((700, 1000)).astype("f4") for i in range(5)}
    arrays["l3/kernel"][:, 44] = np.nan
    made = checkpoint(arrays)
    assert take_census(made, threads=threads).tensors == take_census(made, threads=1).tensors
