"""Where non-finite entries stand, what units look like, and what happens to tensors that cannot be read."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from handmade import Memory, checkpoint, info, produced, tensor_info
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckptdoctor.checkpoints.contract import Checkpoint, Span, StoredTensor, TensorReadError
from ckptdoctor.evidence import units
from ckptdoctor.evidence.census import take_census
from ckptdoctor.evidence.geometry import INDICES, AxisCounter
from ckptdoctor.model import AxisNonfinite, Role, TensorStats


def only(made: Checkpoint) -> TensorStats:
    (found,) = take_census(made).tensors
    return found


def expected_axes(bad: np.ndarray) -> tuple[AxisNonfinite, ...]:
    """Straight from the definition."""
    result = []
    for axis in range(bad.ndim):
        others = tuple(a for a in range(bad.ndim) if a != axis)
        touched, full = bad.any(axis=others), bad.all(axis=others)
        indices = tuple(np.flatnonzero(touched)[:INDICES].tolist())
        result.append(AxisNonfinite(axis, bad.shape[axis], int(touched.sum()), int(full.sum()), indices))
    return tuple(result)


# --- axes ---------------------------------------------------------------------------------------

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=9))


@settings(max_examples=300, deadline=None)
@given(bad=masks, cuts=st.lists(st.integers(1, 40), max_size=30))
def test_axes_are_counted_alike_however_the_entries_are_cut_into_pieces(bad: np.ndarray, cuts: list[int]) -> None:
    counter = AxisCounter(bad.shape)
    rest = bad.ravel()
    for cut in cuts:
        counter.feed(rest[:cut])
        rest = rest[cut:]
    counter.feed(rest)
    assert expected_axes(bad) == counter.result()


@settings(max_examples=100, deadline=None)
@given(bad=masks, value=st.sampled_from([np.nan, np.inf, -np.inf]), code=st.sampled_from(["f2", "f4", ">f4", "c8"]))
def test_a_tensor_with_nonfinite_entries_says_where_they_are(bad: np.ndarray, value: float, code: str) -> None:
    found = only(checkpoint({"a/kernel": np.where(bad, value, 1.0).astype(code)}))
    assert found.axes == (expected_axes(bad) if bad.any() else ())


def test_all_nan_is_told_without_a_second_pass() -> None:
    made = checkpoint({"a/kernel": np.full((600, 700), np.nan, "f4")})
    census = take_census(made)
    rows, columns = census.tensors[0].axes
    assert (rows.touched, rows.full, columns.touched, columns.full) == (600, 600, 700, 700)
    assert rows.indices == tuple(range(INDICES))
    assert census.bytes_read == 600 * 700 * 4


def test_a_finite_tensor_has_no_axes() -> None:
    assert only(checkpoint({"a/kernel": np.ones((3, 3), "f4")})).axes == ()


# --- units ----------------------------------------------------------------------------------------


def test_dead_constant_and_copied_units_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((20, 6)).astype("f4")
    kernel[:, 1] = 0.0
    kernel[:, 2] = 0.25
    kernel[:, 4] = kernel[:, 3]
    found = only(checkpoint({"a/kernel": kernel})).units
    assert found is not None
    assert (found.units, found.zero_units, found.constant_units, found.distinct_units) == (6, 1, 2, 5)
    norms = np.sort(np.linalg.norm(kernel.astype("f8"), axis=0))
    assert (found.norm_min, found.norm_max) == (norms[0], pytest.approx(norms[-1]))
    assert found.norm_median == pytest.approx(np.median(norms))
    assert not found.sampled


def test_constant_kernels_have_one_distinct_unit() -> None:
    found = only(checkpoint({"a/kernel": np.full((8, 5), 0.1, "f4")})).units
    assert found is not None
    assert (found.distinct_units, found.constant_units, found.zero_units) == (1, 5, 0)


def test_a_unit_with_a_nan_is_neither_zero_nor_constant() -> None:
    kernel = np.zeros((4, 3), "f4")
    kernel[:, 0] = np.nan
    kernel[2, 1] = np.inf
    found = only(checkpoint({"a/kernel": kernel})).units
    assert found is not None
    assert (found.zero_units, found.constant_units, found.distinct_units) == (1, 1, 3)


@pytest.mark.parametrize("value", [1e200, 1e-200])
def test_unit_norms_neither_overflow_nor_vanish(value: float) -> None:
    found = only(checkpoint({"a/kernel": np.full((4, 2), value)})).units
    assert found is not None
    assert found.norm_max == pytest.approx(2 * value)


def test_one_incoming_entry_makes_no_constant_unit() -> None:
    found = only(checkpoint({"a/kernel": np.ones((1, 4), "f4")})).units
    assert found is not None
    assert found.constant_units == 0


def test_units_are_measured_of_weights_with_rank_two_only() -> None:
    arrays = {name: np.ones((4, 4), "f4") for name in ("a/kernel", "a/moving", "a/slot")} | {"a/bias": np.ones(4, "f4")}
    made = checkpoint(arrays, roles={"a/moving": Role.STATISTIC, "a/slot": Role.SLOT})
    assert [t.units is not None for t in take_census(made).tensors] == [True, False, False, False]


@pytest.mark.parametrize("spans", [True, False], ids=["from the file", "from chunks"])
def test_beyond_the_limit_rows_are_sampled_evenly_and_labelled(spans: bool) -> None:
    rows, columns = 3000, 512
    kernel = np.random.default_rng(0).standard_normal((rows, columns)).astype("f4")
    assert kernel.nbytes > units.EXACT_TENSOR
    kernel[:, 7] = 0.0
    found = only(checkpoint({"a/kernel": kernel}, spans=spans)).units
    assert found is not None
    assert found.sampled
    assert (found.zero_units, found.units) == (1, columns)
    picked = kernel[units.sample_rows(rows, columns * 4)].astype("f8")
    assert found.norm_max == pytest.approx(np.linalg.norm(picked, axis=0).max())


# --- unreadable tensors ----------------------------------------------------------------------------


def test_an_unreadable_tensor_says_why_and_spoils_no_other() -> None:
    source = Memory(np.ones(8, "f4").tobytes())

    def fails() -> Iterator[bytes]:
        raise TensorReadError("chunk 3 of a/broken is damaged")
        yield b""

    def tensor(name: str, dtype: str, span: Span | None, problem: str | None = None) -> StoredTensor:
        nbytes = 12 if span is None else span.nbytes
        return StoredTensor(tensor_info(name, (3,), dtype, nbytes), span, fails, problem)

    tensors = (
        tensor("a/good", "float32", Span(source, 0, 12)),
        tensor("a/beyond", "float32", Span(source, 24, 12)),
        tensor("a/short", "float32", Span(source, 0, 8)),
        tensor("a/text", "string", Span(source, 0, 12)),
        tensor("a/broken", "float32", None),
        tensor("a/refused", "float32", None, "a/refused points outside of the file"),
        tensor("a/also_good", "float32", Span(source, 12, 12)),
    )
    found = take_census(Checkpoint(info(), tensors, {})).tensors
    assert [t.error is None for t in found] == [True, False, False, False, False, False, True]
    assert "ends 4 bytes before" in str(found[1].error)
    assert "needs 12 bytes, but the file holds 8" in str(found[2].error)
    assert "'string' is not known" in str(found[3].error)
    assert found[4].error == "chunk 3 of a/broken is damaged"
    assert found[5].error == "a/refused points outside of the file"
    assert found[0].mean == found[6].mean == 1.0


def test_a_large_tensor_that_is_cut_off_is_an_error() -> None:
    source = Memory(bytes(1 << 20))
    stored = StoredTensor(
        tensor_info("a/kernel", (1 << 19,), "float32", 1 << 21), Span(source, 0, 1 << 21), lambda: iter(())
    )
    found = only(Checkpoint(info(), (stored,), {}))
    assert "ends" in str(found.error)
    assert (found.nan, found.mean) == (0, None)


@pytest.mark.parametrize("given", [399, 401, 0])
@pytest.mark.parametrize("scale", [1, 20_000])
def test_producing_more_or_fewer_bytes_than_declared_is_an_error(given: int, scale: int) -> None:
    stored = produced(tensor_info("a/kernel", (100 * scale,), "float32", 400 * scale), bytes(given * scale), 7777)
    assert "bytes" in str(only(Checkpoint(info(), (stored,), {})).error)


def test_a_source_that_gives_little_at_a_time_is_read_to_the_end() -> None:
    array = np.arange(300_000, dtype="f4")
    source = Memory(array.tobytes(), burst=100_000)
    stored = StoredTensor(
        tensor_info("a/kernel", array.shape, "float32", array.nbytes), Span(source, 0, array.nbytes), lambda: iter(())
    )
    assert only(Checkpoint(info(), (stored,), {})).max == 299_999


# --- cost ------------------------------------------------------------------------------------------


def test_neighbouring_small_tensors_are_read_together() -> None:
    made = checkpoint({f"l{i}/kernel": np.full((5, 5), i, "f4") for i in range(40)})
    found = take_census(made)
    assert [t.mean for t in found.tensors] == [float(i) for i in range(40)]
    span = made.tensors[0].span
    assert span is not None
    assert isinstance(span.source, Memory)
    assert span.source.reads == 1


def test_memory_does_not_grow_with_the_tensor() -> None:
    """A tensor of 256 MB that is never there as a whole; entries repeat, one NaN at the end."""

    class Endless(Memory):
        def read_into(self, offset: int, buffer: memoryview) -> int:
            buffer[:] = bytes(len(buffer))
            if offset + len(buffer) == size:
                buffer[-4:] = np.array([np.nan], "f4").tobytes()
            return len(buffer)

    shape = (8192, 8192)
    size = 4 * shape[0] * shape[1]
    stored = StoredTensor(
        tensor_info("a/kernel", shape, "float32", size), Span(Endless(b""), 0, size), lambda: iter(())
    )
    tracemalloc.start()
    found = take_census(Checkpoint(info(), (stored,), {}), threads=2).tensors[0]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.nan, found.zeros, [a.indices for a in found.axes]) == (1, shape[0] ** 2 - 1, [(8191,), (8191,)])
    assert peak < 16 << 20


def test_a_census_keeps_what_the_checkpoint_says() -> None:
    made = checkpoint({"a/bias": np.ones(3, "f4")}, scalars={"iterations": 7.0})
    census = take_census(made)
    assert census.iterations == 7
    assert census.info is made.info
    assert census.bytes_read == 12
    assert census.seconds > 0
