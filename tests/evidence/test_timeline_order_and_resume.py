"""The checkpoints of a run in order, when they went bad, and where to resume."""

import json
import math
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from ckptdoctor.discover import discover
from ckptdoctor.evidence.timeline import build_timeline
from ckptdoctor.model import Missing, Status

SEED = np.random.default_rng(1)


def saved(path: Path, iterations: int | None, *, kernel=1.0, bias=0.5, velocity=0.1, rate=0.01, dtype="f4") -> Path:
    """A `.weights.h5` as Keras 3 writes it: one Dense layer, an optimizer with a count, a rate and a slot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        layer = file.create_group("layers/dense/vars")
        layer.attrs["name"] = "dense"
        layer["0"] = (np.linspace(-1, 1, 12).reshape(4, 3) * kernel).astype(dtype)
        layer["1"] = np.full(3, bias, dtype)
        if iterations is not None:
            slots = file.create_group("optimizer/vars")
            slots["0"] = np.int64(iterations)
            slots["1"] = np.float32(rate)
            slots["2"] = np.full((4, 3), velocity, "f4")
    return path


def timeline_of_run(folder: Path):
    return build_timeline(discover([str(folder)]))


def names(timeline):
    return [Path(p.path).name for p in timeline.points]


def test_healthy_then_bad(tmp_path):
    for epoch in range(5):
        saved(tmp_path / f"epoch_{epoch:03d}.weights.h5", 10 * epoch, kernel=np.nan if epoch >= 3 else 1 + epoch)
    timeline = timeline_of_run(tmp_path)
    assert [p.status for p in timeline.points] == [Status.HEALTHY] * 3 + [Status.SICK] * 2
    assert (timeline.last_healthy, timeline.first_bad, timeline.resume_from) == (2, 3, 2)
    assert [(p.epoch, p.step) for p in timeline.points] == [(e, 10 * e) for e in range(5)]
    assert timeline.points[3].nonfinite == 12
    assert "epoch_002.weights.h5" in timeline.resume_reason


def test_the_saved_count_outranks_the_names(tmp_path):
    for name, count in (("c", 0), ("a", 30), ("b", 20), ("run9", 10)):
        saved(tmp_path / f"{name}.weights.h5", count)
    timeline = timeline_of_run(tmp_path)
    assert names(timeline) == ["c.weights.h5", "run9.weights.h5", "b.weights.h5", "a.weights.h5"]
    assert timeline.order == "iterations"


def test_a_checkpoint_without_count_stays_where_its_name_puts_it(tmp_path):
    for epoch, count in enumerate([None, 10, 20, None, 40]):
        saved(tmp_path / f"epoch_{epoch}.weights.h5", count)
    assert names(timeline_of_run(tmp_path)) == [f"epoch_{e}.weights.h5" for e in range(5)]


def test_a_count_that_starts_again_leaves_the_order_to_the_names(tmp_path):
    for epoch, count in enumerate([0, 10, 20, 10, 20]):
        saved(tmp_path / f"epoch_{epoch}.weights.h5", count)
    timeline = timeline_of_run(tmp_path)
    assert names(timeline) == [f"epoch_{e}.weights.h5" for e in range(5)]
    assert timeline.order == "numbers in names"
    assert any("starts again" in note for note in timeline.notes)


def test_numbers_are_ordered_by_value_not_by_letters(tmp_path):
    for epoch in (1, 2, 10, 9):
        saved(tmp_path / f"weights.{epoch}-0.51.weights.h5", None)
    assert [p.epoch for p in timeline_of_run(tmp_path).points] == [1, 2, 9, 10]


def test_without_numbers_time_decides(tmp_path):
    import os

    for age, name in ((300, "first"), (200, "second"), (100, "third")):
        path = saved(tmp_path / f"{name}.weights.h5", None)
        os.utime(path, (1.7e9 - age, 1.7e9 - age))
    timeline = timeline_of_run(tmp_path)
    assert names(timeline) == ["first.weights.h5", "second.weights.h5", "third.weights.h5"]
    assert timeline.order == "modification time"


def test_an_unreadable_checkpoint_keeps_its_place_with_the_reason(tmp_path):
    for epoch in range(3):
        saved(tmp_path / f"epoch_{epoch}.weights.h5", epoch)
    (tmp_path / "epoch_1.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 50)
    timeline = timeline_of_run(tmp_path)
    assert [p.status for p in timeline.points] == [Status.HEALTHY, Status.UNREADABLE, Status.HEALTHY]
    assert isinstance(timeline.points[1].census, Missing)
    assert timeline.resume_from == 2
    assert any("1 of 3" in note for note in timeline.notes)


@pytest.mark.parametrize(("what", "value"), [("velocity", np.inf), ("rate", np.nan), ("bias", np.nan)])
def test_slots_and_learning_rate_count_too(tmp_path, what, value):
    saved(tmp_path / "epoch_0.weights.h5", 0)
    saved(tmp_path / "epoch_1.weights.h5", 10)
    saved(tmp_path / "epoch_2.weights.h5", 20, **{what: value})
    timeline = timeline_of_run(tmp_path)
    assert (timeline.last_healthy, timeline.first_bad, timeline.resume_from) == (1, 2, 1)


def test_a_finite_checkpoint_that_is_already_blowing_up_is_no_place_to_resume(tmp_path):
    for epoch, kernel in enumerate([1.0, 1.5, 2.0, 5e4, np.nan]):
        saved(tmp_path / f"epoch_{epoch}.weights.h5", 10 * epoch, kernel=kernel)
    timeline = timeline_of_run(tmp_path)
    assert (timeline.last_healthy, timeline.resume_from) == (3, 2)
    assert "epoch_3.weights.h5 is finite but dense/kernel grew" in timeline.resume_reason


def test_a_first_checkpoint_far_out_of_range_is_none_either(tmp_path):
    saved(tmp_path / "epoch_1.weights.h5", 10, kernel=3e7)
    saved(tmp_path / "epoch_2.weights.h5", 20, kernel=np.nan)
    timeline = timeline_of_run(tmp_path)
    assert (timeline.last_healthy, timeline.resume_from) == (0, None)
    assert "start again" in timeline.resume_reason


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_checkpoint_cut_off_is_no_place_to_resume(tmp_path, share):
    import zipfile

    for epoch in range(3):
        weights = saved(tmp_path / "parts" / "model.weights.h5", 10 * epoch)
        with zipfile.ZipFile(tmp_path / f"epoch_{epoch}.keras", "w") as archive:
            archive.writestr("metadata.json", '{"keras_version": "3.15.1"}')
            archive.writestr("config.json", '{"class_name": "Sequential", "config": {"name": "s", "layers": []}}')
            archive.write(weights, "model.weights.h5")
    shutil.rmtree(tmp_path / "parts")
    last = tmp_path / "epoch_2.keras"
    last.write_bytes(last.read_bytes()[: int(share * last.stat().st_size)])
    timeline = timeline_of_run(tmp_path)
    assert len(timeline.points) == 3
    assert timeline.resume_from == 1


def test_nothing_healthy_nothing_to_resume(tmp_path):
    for epoch in range(2):
        saved(tmp_path / f"epoch_{epoch}.weights.h5", epoch, kernel=np.nan)
    timeline = timeline_of_run(tmp_path)
    assert (timeline.last_healthy, timeline.first_bad, timeline.resume_from) == (None, 0, None)
    assert "every readable checkpoint holds non-finite numbers" in timeline.resume_reason


def test_untrained_weights_are_called_so(tmp_path):
    saved(tmp_path / "epoch_0.weights.h5", 0)
    saved(tmp_path / "epoch_1.weights.h5", 10, kernel=np.nan)
    assert "no step has been taken" in timeline_of_run(tmp_path).resume_reason


def test_the_best_one_that_is_nan_will_never_be_replaced(tmp_path):
    saved(tmp_path / "best.weights.h5", 10, kernel=np.nan)
    saved(tmp_path / "epoch_2.weights.h5", 20)
    assert timeline_of_run(tmp_path).best_only_trap
    saved(tmp_path / "best.weights.h5", 10)
    assert not timeline_of_run(tmp_path).best_only_trap


def test_growth_is_fitted_and_its_end_foretold(tmp_path):
    for epoch in range(6):
        saved(tmp_path / f"epoch_{epoch}.weights.h5", 10 * epoch, kernel=2.0**epoch, bias=0.5)
    timeline = timeline_of_run(tmp_path)
    fit = next(g for g in timeline.growth if g.variable == "kernel")
    assert (fit.axis, fit.layer) == ("epoch", "dense")
    assert fit.doubling == pytest.approx(1.0)
    assert fit.r2 == pytest.approx(1.0)
    assert fit.overflow_at == pytest.approx(
        128.0, abs=0.01
    )  # 2**128 is where float32 ends; the largest entry is 2**epoch
    assert not any(g.variable == "bias" for g in timeline.growth)


def test_float16_ends_sooner(tmp_path):
    for epoch in range(4):
        saved(tmp_path / f"epoch_{epoch}.weights.h5", epoch, kernel=2.0**epoch, dtype="f2")
    assert timeline_of_run(tmp_path).growth[0].overflow_at == pytest.approx(16.0, abs=0.01)


def test_growth_after_a_calm_is_seen(tmp_path):
    for epoch in range(10):
        saved(tmp_path / f"epoch_{epoch}.weights.h5", epoch, kernel=1.0 if epoch < 6 else 3.0 ** (epoch - 5))
    fit = next(g for g in timeline_of_run(tmp_path).growth if g.variable == "kernel")
    assert fit.doubling < 1.0


def test_weights_that_never_moved(tmp_path):
    for epoch in range(3):
        saved(tmp_path / f"epoch_{epoch}.weights.h5", 10 * epoch, bias=0.1 * epoch)
    assert timeline_of_run(tmp_path).unmoved == ("layers/dense/vars/0",)


def test_copies_of_one_checkpoint_are_not_called_unmoved(tmp_path):
    saved(tmp_path / "a.weights.h5", 10)
    shutil.copy(tmp_path / "a.weights.h5", tmp_path / "b.weights.h5")
    timeline = timeline_of_run(tmp_path)
    assert [p.step for p in timeline.points] == [10, 10]
    assert timeline.unmoved == ()


def test_checkpoints_of_two_models_are_told(tmp_path):
    saved(tmp_path / "epoch_1.weights.h5", 10)
    with h5py.File(saved(tmp_path / "epoch_2.weights.h5", 20), "a") as file:
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = np.zeros((7, 7), "f4")
        file["layers/other/vars/0"] = np.zeros((7, 7), "f4")
        file["layers/other/vars/1"] = np.zeros(7, "f4")
    assert any("different models" in note for note in timeline_of_run(tmp_path).notes)


def test_it_serialises(tmp_path):
    """Numbers of a timeline are plain Python numbers, fit for the JSON document."""
    for epoch in range(4):
        saved(tmp_path / f"epoch_{epoch}.weights.h5", epoch, kernel=2.0**epoch)
    timeline = timeline_of_run(tmp_path)
    json.dumps([(g.doubling, g.r2, g.overflow_at, g.first, g.last) for g in timeline.growth])
    assert all(math.isfinite(g.doubling) for g in timeline.growth)
