"""How far each weight went, entry by entry, between the first and the last healthy checkpoint."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckptdoctor.evidence.displacement import displacement
from ckptdoctor.evidence.timeline import measure_point


def saved(path, **weights):
    with h5py.File(path, "w") as file:
        for name, value in weights.items():
            file[f"layers/{name}/vars/0"] = value
        file["optimizer/vars/0"] = np.int64(7)
    return measure_point(str(path))


KERNEL = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_a_kernel_that_was_turned_around_went_far_though_its_size_is_the_same(tmp_path):
    points = [
        saved(tmp_path / "epoch_0.weights.h5", dense=KERNEL),
        saved(tmp_path / "epoch_1.weights.h5", dense=-KERNEL),
    ]
    (found,) = displacement(points)
    assert ("layers/dense/vars/0", pytest.approx(2.0)) == (found.path, found.relative)


def test_only_healthy_checkpoints_are_compared(tmp_path):
    broken = np.full_like(KERNEL, np.nan)
    points = [
        saved(tmp_path / "epoch_0.weights.h5", dense=KERNEL),
        saved(tmp_path / "epoch_1.weights.h5", dense=KERNEL + 1),
        saved(tmp_path / "epoch_2.weights.h5", dense=broken),
    ]
    (found,) = displacement(points)
    assert pytest.approx(1.0) == found.distance
    assert () == displacement(points[1:])


def test_weights_of_another_shape_or_name_are_left_out(tmp_path):
    points = [
        saved(tmp_path / "epoch_0.weights.h5", dense=KERNEL, other=KERNEL),
        saved(tmp_path / "epoch_1.weights.h5", dense=KERNEL.T, new=KERNEL),
    ]
    assert () == displacement(points)


def test_a_weight_that_began_at_zero_has_no_relative_distance(tmp_path):
    points = [saved(tmp_path / "a.weights.h5", dense=0 * KERNEL), saved(tmp_path / "b.weights.h5", dense=KERNEL)]
    (found,) = displacement(points)
    assert (None, 0.0) == (found.relative, found.size)


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(np.float32, (5, 3), elements=st.floats(-1e6, 1e6, width=32)),
    hnp.arrays(np.float32, (5, 3), elements=st.floats(-1e6, 1e6, width=32)),
)
def test_distance_is_numpys(tmp_path_factory, first, last):
    folder = tmp_path_factory.mktemp("run")
    points = [saved(folder / "0.weights.h5", dense=first), saved(folder / "1.weights.h5", dense=last)]
    (found,) = displacement(points)
    wanted = np.sqrt(np.mean(np.square(last.astype("f8") - first)))
    assert wanted == pytest.approx(found.distance, rel=1e-9, abs=1e-12)
