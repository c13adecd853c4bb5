"""What a training curve shows, as numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptdoctor.evidence import log_signals as signals
from ckptdoctor.logs import SeriesBuilder
from ckptdoctor.model import TrainingLog

NAN, INF = math.nan, math.inf


def curve(*values, name="loss", axis="epoch", steps=None):
    builder = SeriesBuilder(name, axis)
    for step, value in zip(steps or range(len(values)), values, strict=True):
        builder.add(float(step), float(value))
    return builder.build()


def log(*series, **more):
    return TrainingLog("log.csv", "csv", tuple(series), **more)


@pytest.mark.parametrize(
    ("names", "loss", "validation", "accuracy", "rate"),
    [
        (("accuracy", "loss", "val_accuracy", "val_loss", "lr"), "loss", "val_loss", "accuracy", "lr"),
        (
            ("epoch_loss", "epoch_learning_rate", "validation/epoch_loss", "validation/evaluation_loss_vs_iterations"),
            "epoch_loss",
            "validation/epoch_loss",
            None,
            "epoch_learning_rate",
        ),
        (
            ("train/loss", "eval/loss", "train/grad_norm", "train/learning_rate"),
            "train/loss",
            "eval/loss",
            None,
            "train/learning_rate",
        ),
        (("head_loss", "other_loss", "loss"), "loss", None, None, None),
        (
            ("sparse_categorical_accuracy", "Loss/train", "Loss/val"),
            "Loss/train",
            "Loss/val",
            "sparse_categorical_accuracy",
            None,
        ),
        (("loss_scale", "mae"), None, None, None, None),
        (("train_loss", "valid_loss", "acc"), "train_loss", "valid_loss", "acc", None),
    ],
)
def test_series_are_known_by_their_names(names, loss, validation, accuracy, rate):
    found = log(*(curve(1, 2, name=n) for n in names))
    picked = (
        signals.loss_series,
        signals.validation_loss_series,
        signals.accuracy_series,
        signals.learning_rate_series,
    )
    assert tuple(getattr(pick(found), "name", None) for pick in picked) == (loss, validation, accuracy, rate)


def test_the_loss_by_epoch_is_preferred_to_running_values():
    found = log(curve(1, 2, name="batch_loss", axis="step"), curve(1, name="loss"))
    assert signals.loss_series(found).name == "loss"
    assert signals.batch_loss_series(found).name == "batch_loss"
    assert signals.loss_series(log(curve(1, name="batch_loss", axis="step"))).name == "batch_loss"


def test_gradient_norm_and_loss_scale():
    found = log(curve(1, name="global_grad_norm"), curve(1, name="loss_scale"))
    assert signals.gradient_norm_series(found).name == "global_grad_norm"
    assert signals.loss_scale_series(found).name == "loss_scale"
    assert not signals.is_loss_name("loss_scale")


def test_first_nonfinite_with_epoch_and_step():
    found = log(
        curve(1, 0.5, NAN),
        curve(1, 0.9, 0.8, NAN, NAN, axis="step", steps=[5, 10, 15, 20, 25], name="batch_loss"),
        terminated=(2, 7),
    )
    first = signals.first_nonfinite(found)
    assert (first.metric, first.epoch, first.step, first.batch) == ("batch_loss", 2, 20.0, 7)
    assert (first.readings_before, first.last_finite, first.at_start) == (3, 0.8, False)


def test_first_nonfinite_from_the_very_start():
    first = signals.first_nonfinite(log(curve(INF, NAN)))
    assert (first.value, first.epoch, first.step, first.at_start, first.last_finite) == (INF, 0, None, True, None)


def test_first_nonfinite_by_step_finds_its_epoch():
    found = log(
        curve(1, 1, NAN, axis="step", steps=[10, 20, 30]), curve(0, 0, 1, axis="step", steps=[10, 20, 30], name="epoch")
    )
    assert (signals.first_nonfinite(found).epoch, signals.first_nonfinite(found).step) == (1, 30.0)


def test_a_nan_metric_counts_when_the_loss_stays_finite():
    assert signals.first_nonfinite(log(curve(1, 1, 1), curve(1, NAN, 1, name="f1"))).metric == "f1"
    assert signals.first_nonfinite(log(curve(1, 1, NAN), curve(NAN, NAN, NAN, name="f1"))).metric == "loss"
    assert signals.first_nonfinite(log(curve(1, 1))) is None


def test_blow_up_counts_from_the_lowest_point():
    found = signals.blow_up(curve(4, 1, 2, 8, 64, 1024, NAN))
    assert (found.lowest, found.highest, found.factor, found.last_at, found.ends_nonfinite) == (
        1,
        1024,
        1024,
        5.0,
        True,
    )
    assert found.fastest == 1024
    assert found.doubling < 0.5
    assert found.r2 > 0.9


def test_a_falling_loss_does_not_blow_up():
    found = signals.blow_up(curve(*[2.0**-i for i in range(10)]))
    assert (found.factor, found.doubling, found.ends_nonfinite) == (1.0, None, False)


def test_blow_up_to_the_end_of_float64():
    found = signals.blow_up(curve(1e-300, 1.0, 1e308, 1e308))
    assert found.factor == INF
    assert signals.blow_up(curve(-1.0, 5.0)).factor is None
    assert signals.blow_up(curve(NAN, 1.0)) is None


def test_spikes():
    values = [1.0 + 0.01 * (i % 5) for i in range(40)]
    values[30] = 3.0
    (spike,) = signals.spikes(curve(*values))
    assert (spike.at, spike.value) == (30.0, 3.0)
    assert spike.z > 50
    assert spike.ratio == pytest.approx(3.0, rel=0.05)


def test_plateau():
    flat = signals.plateau(curve(2.3, 2.3, 2.3, 2.3, 2.3, 2.3))
    assert (flat.relative_change, flat.spread, flat.slope, flat.constant_tail) == (0, 0, 0, 6)
    falling = signals.plateau(curve(*[10 - i for i in range(10)]))
    assert falling.relative_change > 0.5
    assert falling.slope < 0
    assert falling.total_change == pytest.approx(0.7)
    assert signals.plateau(curve(1, 2)) is None


def test_stuck_at_the_loss_of_an_even_guess():
    found = signals.stuck_at(curve(2.5, 2.31, 2.303, 2.3025, 2.3026), math.log(10), tolerance=0.01)
    assert (found.trailing, found.points, found.share) == (4, 5, 0.8)
    assert found.distance < 0.001


def test_negative():
    found = signals.negative(curve(0.5, -1, -5, -20, -100, -300))
    assert (found.count, found.first_at, found.lowest, found.falling) == (5, 1.0, -300, True)
    assert signals.negative(curve(1, 0)) is None


def test_oscillation():
    found = signals.oscillation(curve(*[0.5 + 0.1 * (-1) ** i for i in range(20)], name="accuracy"), limit=0.03)
    assert (found.reversals, found.large) == (1.0, 1.0)
    assert found.trend == pytest.approx(0.0, abs=1.1)
    calm = signals.oscillation(curve(*range(20)), limit=2)
    assert (calm.reversals, calm.large) == (0.0, 0.0)
    assert calm.trend > 5


def test_gap_between_training_and_validation():
    found = signals.gap(curve(1, 0.5, 0.1), curve(1, 0.8, 1.6, name="val_loss"))
    assert (found.train, found.validation, found.at, found.best, found.best_at) == (0.1, 1.6, 2.0, 0.8, 1.0)
    assert found.relative == pytest.approx(15.0)
    assert found.rise == pytest.approx(1.0)
    assert signals.gap(curve(1), curve(1, axis="step")) is None


def test_learning_rate_changes():
    rate = curve(0.1, 0.1, 0.01, 0.01, 1.0, name="lr")
    assert [(c.at, c.factor) for c in signals.rate_changes(rate)] == [
        (2.0, pytest.approx(0.1)),
        (4.0, pytest.approx(100)),
    ]
    assert signals.rate_change_before(rate, 5.0, within=1.0).after == 1.0
    assert signals.rate_change_before(rate, 5.0, within=0.5) is None
    assert signals.rate_changes(curve(0.1, 0.0, 0.1, name="lr"))[1].factor == INF


def test_level_of_gradient_norms():
    found = signals.level(curve(1, 1, 1, 1, 2, 4, 400, NAN, name="grad_norm"))
    assert (found.early, found.highest, found.highest_at, found.ratio) == (1, 400, 6.0, 400)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=80))
def test_no_curve_upsets_any_measure(values):
    series = curve(*values)
    for measure in (
        signals.blow_up,
        signals.spikes,
        signals.plateau,
        signals.negative,
        signals.level,
        signals.rate_changes,
    ):
        measure(series)
    signals.stuck_at(series, 0.5, tolerance=0.1)
    signals.oscillation(series, limit=0.1)
    signals.gap(series, series)
    signals.rate_change_before(series, 10.0, within=5.0)
    signals.first_nonfinite(log(series))
