"""A failing fit is recorded, and the recorded window repeats it to the last bit: every data source, every option."""

from __future__ import annotations

import threading
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from recorder_training import (
    BATCH,
    POISONED,
    batches,
    compiled,
    data,
    differences,
    first_nonfinite,
    network,
    record,
    repeat,
    steps,
)

from ckptdoctor import FlightRecorder

pytestmark = pytest.mark.replay


class Rows(keras.utils.PyDataset):
    """Batches by index; it cannot be pickled."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__()
        self.x, self.y, self.lock = x, y, threading.Lock()

    def __len__(self) -> int:
        return (len(self.x) + BATCH - 1) // BATCH

    def __getitem__(self, index: int):
        part = slice(index * BATCH, (index + 1) * BATCH)
        return self.x[part], self.y[part]


def as_arrays(x, y):
    return {"x": x, "y": y, "batch_size": BATCH}


def as_generator(x, y):
    starts = range(0, len(x), BATCH)
    batches_of_epochs = ((x[i : i + BATCH], y[i : i + BATCH]) for _ in range(9) for i in starts)
    return {"x": batches_of_epochs, "steps_per_epoch": len(starts)}


def as_tf_data(x, y):
    return {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).prefetch(2)}


def as_py_dataset(x, y):
    return {"x": Rows(x, y)}


SOURCES = {"arrays": as_arrays, "generator": as_generator, "tf.data": as_tf_data, "PyDataset": as_py_dataset}
OPTIONS = {
    "graph": {},
    "jit": {"jit_compile": True},
    "eager": {"run_eagerly": True},
    "steps_per_execution": {"steps_per_execution": 4},
    "accumulation": {"optimizer": {"gradient_accumulation_steps": 3}},
}


def fit(run: Path, model: keras.Model, source: dict, **options) -> FlightRecorder:
    recorder = FlightRecorder(run, batches=6)
    model.fit(**source, epochs=3, verbose=0, shuffle=False, callbacks=[recorder], **options)
    return recorder


PAIRS = [(s, o) for s in SOURCES for o in OPTIONS if s == "tf.data" or o in ("graph", "steps_per_execution")]


@pytest.mark.parametrize(("source", "option"), PAIRS)
def test_a_failing_run_is_recorded_and_its_window_repeats_it_bit_by_bit(tmp_path, source, option):
    run = tmp_path / "run"
    options = dict(OPTIONS[option])
    optimizer = keras.optimizers.Adam(0.01, **options.pop("optimizer", {}))
    model = compiled(optimizer=optimizer, **options)

    recorder = fit(run, model, SOURCES[source](*data()))

    document = record(run)
    assert (document["status"], document["reason"]["step"]) == ("failed", POISONED // BATCH)
    assert document["reason"]["kind"] == recorder.failure.kind == "loss"
    assert document["window"]["last_step"] == POISONED // BATCH
    assert document["problems"] == []
    assert 3 <= len(document["window"]["rows"]) <= 8
    assert differences(model, repeat(run)) == []
    assert steps(run)[-1]["loss"] != steps(run)[-1]["loss"]


def test_the_message_names_the_files_and_the_next_command(tmp_path, caplog):
    recorder = fit(tmp_path / "run", compiled(), as_arrays(*data()))
    assert "the loss became NaN at step 7 (epoch 0, batch 7)" in recorder.message
    assert "last_batches.npz" in recorder.message
    assert recorder.message.endswith(f"Next: ckptdoctor inspect {tmp_path / 'run'}")
    assert recorder.message in caplog.text


def test_a_finite_loss_does_not_hide_non_finite_weights(tmp_path):
    """Fused by oneDNN, relu turns the NaN of an input into 0; the first kernel's row becomes NaN all the same."""
    run = tmp_path / "run"
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)])

    @keras.saving.register_keras_serializable("recorder_tests")
    def blind_loss(y, prediction):
        return keras.ops.where(keras.ops.isnan(prediction), 0.0 * y, keras.ops.square(prediction - y))

    x, y = data(None)
    x[POISONED, 2] = np.nan
    fit(run, compiled(model, loss=blind_loss), as_arrays(x, y))
    reason = record(run)["reason"]
    assert reason["kind"] == "weights"
    assert np.isfinite(reason["loss"])
    assert reason["step"] == POISONED // BATCH
    assert reason["variables"] == [v.path for v in model.weights if not np.isfinite(v.numpy()).all()] != []
    again = repeat(run)
    assert first_nonfinite(again) == first_nonfinite(model)
    assert differences(model, again) == []


def test_the_short_last_batch_keeps_its_shape(tmp_path):
    run = tmp_path / "run"
    model = compiled()
    fit(run, model, as_arrays(*data(poisoned=69)))
    document = record(run)
    assert document["window"]["batches"] == "last_batches"
    assert [b["x"].shape for b in batches(run, document["window"])] == [(8, 6)] * 5 + [(6, 6)]
    assert document["window"]["rows"] == [[8]] * 5 + [[6]]
    assert differences(model, repeat(run)) == []


def test_batches_are_kept_exactly_with_their_dtypes(tmp_path):
    run = tmp_path / "run"
    x, y = data()
    whole = np.arange(len(x) * 6, dtype="int16").reshape(-1, 6)
    weights = np.linspace(0.5, 2.0, len(x)).astype("float64")
    fit(run, compiled(), as_arrays(whole, y) | {"sample_weight": weights})
    window = record(run)["window"]
    for batch in batches(run, window):
        part = slice(batch["step"] * BATCH, (batch["step"] + 1) * BATCH)
        assert batch["x"].dtype == np.int16
        assert np.array_equal(batch["x"], whole[part])
        assert np.array_equal(batch["y"], y[part], equal_nan=True)
        assert np.array_equal(batch["sample_weight"], weights[part].astype(batch["sample_weight"].dtype))
    assert batch["step"] == 7


@pytest.mark.parametrize("form", ["dict", "list"])
def test_several_inputs_and_outputs_are_stored_by_name(tmp_path, form):
    run = tmp_path / "run"
    keras.utils.set_random_seed(2)
    left, right = keras.Input((4,), name="left"), keras.Input((2,), name="right")
    joined = keras.layers.Dropout(0.2)(keras.layers.Concatenate()([left, right]))
    inputs = {"left": left, "right": right} if form == "dict" else [left, right]
    model = keras.Model(
        inputs, {"a": keras.layers.Dense(1, name="a")(joined), "b": keras.layers.Dense(1, name="b")(joined)}
    )
    x, y = data()
    parts = {"left": x[:, :4], "right": x[:, 4:]} if form == "dict" else [x[:, :4], x[:, 4:]]
    compiled(model, loss={"a": "mse", "b": "mae"})
    fit(run, model, as_arrays(parts, {"a": y, "b": np.nan_to_num(y)}))
    window = record(run)["window"]
    assert set(batches(run, window)[0]) == {"x_left", "x_right", "y_a", "y_b", "step"}
    assert window["structure"]["x"]["form"] == form
    assert differences(model, repeat(run)) == []


def test_class_weights_are_kept_as_the_sample_weights_they_become(tmp_path):
    run = tmp_path / "run"
    x, _ = data()
    x[POISONED] = np.inf
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
    compiled(model, loss="sparse_categorical_crossentropy")
    labels = (np.arange(len(x)) % 3).astype("int32")
    fit(run, model, as_arrays(x, labels), class_weight={0: 1.0, 1: 2.0, 2: 0.5})
    last = batches(run, record(run)["window"])[-1]
    assert np.array_equal(last["sample_weight"], np.take([1.0, 2.0, 0.5], last["y"]))
    assert differences(model, repeat(run)) == []


def test_validation_and_other_callbacks_do_not_get_in_the_way(tmp_path):
    run = tmp_path / "run"
    x, y = data(None)
    later = np.concatenate([y, y])
    model = compiled(metrics=["mae"])
    history = keras.callbacks.History()
    recorder = FlightRecorder(run, batches=6)
    model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0, validation_split=0.2, callbacks=[recorder, history])
    assert record(run)["status"] == "finished"
    lines = (run / "training_log.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,mae,val_loss,val_mae"
    assert [float(v) for v in lines[2].split(",")[1:]] == [history.history[k][1] for k in lines[0].split(",")[1:]]
    assert len(later) == 140


def test_a_failure_in_a_later_epoch_keeps_the_rolling_checkpoints(tmp_path):
    run = tmp_path / "run"
    x, y = data(None)

    class Poison(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):  # noqa: ARG002
            if epoch == 3:
                self.model.get_layer("head").bias.assign([np.inf])

    model = compiled()
    recorder = FlightRecorder(run, batches=6, checkpoint_share=1e9)
    model.fit(x, y, batch_size=BATCH, epochs=6, verbose=0, callbacks=[recorder, Poison()])
    document = record(run)
    assert document["reason"]["step"] == 27
    kinds = [(c["kind"], c["step"], c["finite"]) for c in document["checkpoints"]]
    assert kinds == [("rolling", 18, True), ("rolling", 27, True), ("window", 24, True), ("failed", 28, False)]
    on_disk = {f"checkpoints/{p.name}" for p in (run / "checkpoints").iterdir()}
    assert on_disk == {c["path"] for c in document["checkpoints"]}
    good = keras.models.load_model(run / document["checkpoints"][1]["path"])
    assert first_nonfinite(good) == []
    assert int(good.optimizer.iterations) == 27


def test_weights_that_are_broken_from_the_start_are_noticed_at_the_first_step(tmp_path):
    model = compiled()
    model.get_layer("hidden").kernel.assign(np.full((6, 12), np.nan, "float32"))
    fit(tmp_path / "run", model, as_arrays(*data(None)))
    reason = record(tmp_path / "run")["reason"]
    assert reason["step"] == 0
    assert "sequential" in reason["variables"][0] or "hidden" in reason["variables"][0]


def test_a_model_that_is_built_by_its_first_batch_is_recorded_from_its_first_step(tmp_path):
    run = tmp_path / "run"

    @keras.saving.register_keras_serializable("recorder_tests")
    class Late(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.drop, self.head = keras.layers.Dropout(0.3), keras.layers.Dense(1)

        def call(self, x, training=False):
            return self.head(self.drop(x, training=training))

    keras.utils.set_random_seed(7)
    model = compiled(Late())
    fit(run, model, as_arrays(*data(poisoned=3)))
    window = record(run)["window"]
    assert (window["first_step"], window["last_step"]) == (0, 0)
    assert differences(model, repeat(run)) == []


def test_a_train_step_of_the_users_own_is_recorded(tmp_path):
    run = tmp_path / "run"

    @keras.saving.register_keras_serializable("recorder_tests")
    class Own(keras.Model):
        def train_step(self, batch):
            x, y = batch
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(self(x, training=True) - y))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return {"loss": loss}

    base = network()
    model = compiled(Own(base.inputs, base.outputs))
    fit(run, model, as_arrays(*data()))
    document = record(run)
    assert (document["reason"]["kind"], document["reason"]["step"]) == ("loss", 7)
    assert steps(run)[0]["grad_norm"] > 0
    assert differences(model, repeat(run)) == []


def test_after_training_the_model_is_as_it_was(tmp_path):
    model = compiled()
    before = set(vars(model)), set(vars(model.optimizer))
    function = model.make_train_function() or model.train_function
    fit(tmp_path / "run", model, as_arrays(*data(None)))
    assert model.train_function is function
    added = set(vars(model)) - before[0], set(vars(model.optimizer)) - before[1]
    assert not {n for names in added for n in names} & {
        "train_step",
        "compute_loss",
        "apply",
        "scale_loss",
        "_autoconvert_optionals",
    }


def test_without_stop_training_goes_on_after_the_record(tmp_path):
    model = compiled()
    recorder = FlightRecorder(tmp_path / "run", batches=6, stop=False)
    history = model.fit(*data(), batch_size=BATCH, epochs=2, verbose=0, shuffle=False, callbacks=[recorder])
    assert recorder.failure.step == 7
    assert len(history.history["loss"]) == 2
    assert record(tmp_path / "run")["status"] == "failed"


def test_mixed_precision_failure_and_the_loss_scale(tmp_path):
    run = tmp_path / "run"
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled()
        fit(run, model, as_arrays(*data()))
        document = record(run)
        assert (document["reason"]["kind"], document["reason"]["step"]) == ("loss", 7)
        assert document["training"]["loss_scaling"] is True
        assert steps(run)[0]["loss_scale"] == 2.0**15
        assert differences(model, repeat(run)) == []
    finally:
        keras.config.set_dtype_policy("float32")


def test_steps_that_loss_scaling_skips_are_no_failure(tmp_path):
    run = tmp_path / "run"
    keras.config.set_dtype_policy("mixed_float16")
    try:
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), initial_scale=2.0**30)
        recorder = fit(run, compiled(optimizer=optimizer), as_arrays(*data(None)))
    finally:
        keras.config.set_dtype_policy("float32")
    assert recorder.failure is None
    assert record(run)["status"] == "finished"
    logged = steps(run)
    assert logged[0]["loss_scale"] == 2.0**30 > logged[-1]["loss_scale"]
    assert not np.isfinite(logged[0]["grad_norm"])
    assert np.isfinite(logged[-1]["grad_norm"])


def test_gradients_that_poison_the_accumulator_are_noticed_before_they_reach_the_weights(tmp_path):
    """A root has an infinite slope at 0: the loss stays finite, the gradient does not."""
    run = tmp_path / "run"

    @keras.saving.register_keras_serializable("recorder_tests")
    def root_loss(y, prediction):
        return keras.ops.sqrt(keras.ops.relu(prediction * y))

    model = compiled(loss=root_loss, optimizer=keras.optimizers.Adam(0.01, gradient_accumulation_steps=4))
    x, y = data(None)
    fit(
        run, model, as_arrays(x, np.where(np.arange(len(y))[:, None] == POISONED, 0.0, np.abs(y) + 9).astype("float32"))
    )
    reason = record(run)["reason"]
    assert reason["kind"] == "gradients"
    assert np.isfinite(reason["loss"])
    assert differences(model, repeat(run)) == []
