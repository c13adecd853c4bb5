"""What is measured in recorded batches."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ckptdoctor.evidence import batches as module
from ckptdoctor.evidence.batches import measure_batches
from ckptdoctor.model import Missing

NO_SPEC = Missing("no configuration")


def measured(tmp_path, **arrays):
    np.savez(tmp_path / "b.npz", **arrays)
    return measure_batches(tmp_path / "b.npz", NO_SPEC)


def test_bad_rows_are_named_by_batch_and_row_and_features_by_index(tmp_path):
    x = np.ones((3, 4, 5), "f4")
    x[1, 2, 3] = np.nan
    x[2, 0, 1] = -np.inf
    stats = measured(tmp_path, x=x, y=np.zeros((3, 4))).inputs[0]
    assert (stats.nan, stats.posinf, stats.neginf) == (1, 0, 1)
    assert (stats.bad_rows, stats.bad_row_count, stats.bad_features) == (((1, 2), (2, 0)), 2, (1, 3))
    assert [f.nonfinite for f in stats.features] == [0, 1, 0, 1, 0]


def test_the_list_of_bad_rows_is_bounded_and_their_number_exact(tmp_path):
    stats = measured(tmp_path, x=np.full((10, 100, 2), np.nan), y=np.zeros((10, 100))).inputs[0]
    assert (len(stats.bad_rows), stats.bad_row_count) == (256, 1000)
    assert (stats.min, stats.max, stats.mean, stats.std, stats.integral) == (None, None, None, None, False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    npst.arrays(
        np.float64,
        st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 4)),
        elements=st.floats(-1e100, 1e100) | st.sampled_from([math.nan, math.inf]),
    ),
    st.integers(1, 5),
)
def test_moments_agree_with_numpy_whatever_the_chunks(tmp_path, x, entries):
    original = module.CHUNK
    module.CHUNK = entries * x[0].nbytes
    try:
        stats = measured(tmp_path, x=x, step=np.arange(len(x))).inputs[0]
    finally:
        module.CHUNK = original
    finite = x[np.isfinite(x)]
    assert stats.nonfinite == x.size - finite.size
    if finite.size:
        scale = max(abs(finite).max(), 1e-300)
        assert (stats.min, stats.max) == (finite.min(), finite.max())
        assert stats.mean == pytest.approx(finite.mean(), abs=1e-9 * scale)
        assert stats.std == pytest.approx(finite.std(), abs=1e-6 * scale)
        for feature in stats.features:
            column = x[..., feature.index]
            column = column[np.isfinite(column)]
            if column.size:
                assert feature.std == pytest.approx(column.std(), abs=1e-6 * scale)


def test_scale_and_outliers_of_each_feature(tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 64, 3))
    x[..., 1] = 1e6 + 1e3 * x[..., 1]
    x[2, 5, 2] = 500.0
    features = measured(tmp_path, x=x, y=np.zeros((4, 64))).inputs[0].features
    assert features[1].mean == pytest.approx(1e6, rel=1e-2)
    assert features[0].outlier_z < 6
    assert features[2].outlier_z > 300


def test_a_value_that_stands_for_missing_ones(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 64, 5))
    x[1, 3:9, 0] = 99999.0
    x[0, :4, 1] = -999.0
    x[2, 7, 2] = 99999.0  # once is an outlier
    x[..., 3] = rng.integers(0, 2, (4, 64))  # two values are no measurement with a code
    x[0, :5, 4] = x[..., 4].max() + 3.0  # near the others
    features = measured(tmp_path, x=x, y=np.zeros((4, 64))).inputs[0].features
    assert [(99999.0, 6), (-999.0, 4)] == [(f.code, f.code_count) for f in features[:2]]
    assert [None] * 3 == [f.code for f in features[2:]]


def test_constant_features(tmp_path):
    x = np.random.default_rng(0).normal(size=(2, 8, 4))
    x[..., 2] = 7.0
    assert measured(tmp_path, x=x, y=np.zeros((2, 8))).inputs[0].constant_features == (2,)


def test_labels_with_their_counts(tmp_path):
    stats = measured(tmp_path, x=np.zeros((2, 4, 3)), y=np.array([[0, 1, 1, 2], [1, 1, -1, 2]])).targets[0]
    assert (stats.integral, stats.classes) == (True, ((-1.0, 1), (0.0, 1), (1.0, 4), (2.0, 2)))


def test_one_hot_soft_and_neither(tmp_path):
    one_hot = np.eye(3)[np.array([[0, 1, 2, 1]])]
    soft = np.full((1, 4, 3), 1 / 3)
    batches = measured(
        tmp_path, x=np.zeros((1, 4, 2)), y_hard=one_hot, y_soft=soft, y_many=np.ones((1, 4, 3)), step=np.array([0])
    )
    found = {t.name: (t.row_sums_to_one, t.integral) for t in batches.targets}
    assert found == {"y_hard": (True, True), "y_soft": (True, False), "y_many": (False, True)}


def test_rows_that_stand_twice(tmp_path):
    x = np.random.default_rng(0).normal(size=(2, 8, 3))
    x[1, :3] = x[0, :3]
    assert measured(tmp_path, x=x, y=np.zeros((2, 8))).inputs[0].duplicate_rows == 3


def test_zeros_at_the_end_of_rows_are_padding(tmp_path):
    tokens = np.arange(1, 41).reshape(1, 4, 10)
    tokens[0, :3, 4:] = 0
    frames = np.ones((1, 4, 10, 2))
    frames[0, :, 8:, :] = 0
    frames[0, :, :, 1] = 0  # one feature alone is no padding
    batches = measured(tmp_path, x_tokens=tokens, x_frames=frames, y=np.zeros((1, 4)), step=np.array([0]))
    assert {a.name: a.padding for a in batches.inputs} == {"x_tokens": 0.6, "x_frames": 0.2}
    assert measured(tmp_path, x=np.zeros((1, 4, 8)), y=np.zeros((1, 4))).inputs[0].padding == 1.0
    assert measured(tmp_path, x=np.zeros((1, 4, 8, 8, 3)), y=np.zeros((1, 4))).inputs[0].padding is None


def test_images_have_no_feature_table_but_name_their_rows(tmp_path):
    x = np.zeros((2, 4, 6, 6, 3), "f4")
    x[1, 3, 2, 2, 1] = np.nan
    stats = measured(tmp_path, x=x, y=np.zeros((2, 4))).inputs[0]
    assert (stats.features, stats.bad_rows, stats.bad_features) == ((), ((1, 3),), (1,))


def test_texts_are_told_and_not_measured(tmp_path):
    batches = measured(tmp_path, x=np.array([["a", "bc"]]), y=np.zeros((1, 2)), step=np.array([0]))
    assert batches.inputs[0].dtype == "string"
    assert "strings" in batches.association.reason


def test_what_is_too_large_is_sampled_evenly_with_the_last_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 1 << 14)
    monkeypatch.setattr(module, "CHUNK", 1 << 10)
    x = np.zeros((64, 8, 32), "f4")
    x[63, 7, 0] = np.inf
    stats = measured(tmp_path, x=x, y=np.zeros((64, 8))).inputs[0]
    assert stats.sampled
    assert stats.bad_rows == ((63, 7),)


def test_extreme_values_do_not_overflow_the_measure(tmp_path):
    x = np.array([[[1.7e308, 1.0], [-1.7e308, 2.0], [1.7e308, 3.0]]])
    stats = measured(tmp_path, x=x, step=np.array([0])).inputs[0]
    assert (stats.min, stats.max, stats.std) == (-1.7e308, 1.7e308, None)
