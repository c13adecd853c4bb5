"""A series of any length: exact counts, bounded points, nothing that matters lost."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ckptdoctor.logs import SeriesBuilder
from ckptdoctor.logs.series import BUCKETS, MAX_CHANGES

numbers = st.floats(allow_nan=True, allow_infinity=True)


def built(values, chunk=None):
    builder = SeriesBuilder("loss", "step")
    if chunk is None:
        for step, value in enumerate(values):
            builder.add(float(step), value)
    else:
        for start in range(0, len(values), chunk):
            part = values[start : start + chunk]
            builder.extend([float(s) for s in range(start, start + len(part))], part)
    return builder.build()


@given(st.lists(numbers, max_size=600), st.sampled_from([None, 1, 70, 500]))
def test_a_short_series_is_kept_whole(values, chunk):
    series = built(values, chunk)
    assert np.array_equal(series.values, values, equal_nan=True)
    assert series.steps == tuple(float(i) for i in range(len(values)))


@given(st.integers(0, 2**32), st.integers(1, 60_000), st.sampled_from([None, 64, 4097, 20_000]))
def test_a_long_series_keeps_counts_extremes_ends_and_changes(seed, count, chunk):
    rng = np.random.default_rng(seed)
    values = rng.standard_cauchy(count)
    for at in rng.integers(0, count, size=min(5, count)):
        values[at] = rng.choice([np.nan, np.inf, -np.inf])
    series = built(values.tolist(), chunk)
    finite = values[np.isfinite(values)]
    assert (series.count, series.nonfinite) == (count, count - len(finite))
    if len(finite):
        assert (series.min, series.max) == (finite.min(), finite.max())
        assert {series.min, series.max} <= set(series.values)
    else:
        assert (series.min, series.max) == (None, None)
    assert (series.steps[0], series.steps[-1]) == (0.0, count - 1.0)
    bad = np.flatnonzero(~np.isfinite(values))
    assert series.first_nonfinite is None if not len(bad) else series.first_nonfinite[0] == bad[0]
    assert {float(b) for b in bad} <= set(series.steps)
    assert len(series.steps) <= 6 * BUCKETS + 2 * MAX_CHANGES + 2
    assert list(series.steps) == sorted(set(series.steps))
    assert all(
        v == values[int(s)] or (math.isnan(v) and math.isnan(values[int(s)]))
        for s, v in zip(series.steps, series.values, strict=True)
    )


def test_the_thinning_is_even_over_time():
    series = built([float(i % 7) for i in range(100_000)])
    gaps = np.diff(series.steps)
    assert gaps.max() <= 2 * 100_000 / BUCKETS


def test_changes_without_end_are_bounded():
    series = built([math.nan if i % 2 else 1.0 for i in range(200_000)])
    assert (series.count, series.nonfinite) == (200_000, 100_000)
    assert len(series.steps) <= 6 * BUCKETS + 2 * MAX_CHANGES + 2


def test_steps_that_start_again_stay_in_the_order_of_the_log():
    builder = SeriesBuilder("loss", "epoch")
    for step in (0.0, 1.0, 2.0, 0.0, 1.0):
        builder.add(step, step)
    assert builder.build().steps == (0.0, 1.0, 2.0, 0.0, 1.0)


def test_reading_a_series_twice_gives_the_same():
    builder = SeriesBuilder("loss", "epoch")
    builder.add(0.0, 1.0)
    first = builder.build()
    assert builder.build() == first
    builder.add(1.0, 2.0)
    assert builder.build().steps == (0.0, 1.0)
