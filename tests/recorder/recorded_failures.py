"""Makes failing runs under the recorder: one for each kind of data source and option. `python recorded_failures.py DIRECTORY`.

Each run breaks at step 7 (8 where the short last batch is the bad one) unless its maker says otherwise.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from recorder_training import BATCH, POISONED, compiled, data, network

from ckptdoctor import FlightRecorder
from ckptdoctor.recorder.flight import TrainingFailedError


class Rows(keras.utils.PyDataset):
    """Batches by index."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__()
        self.x, self.y = x, y

    def __len__(self) -> int:
        return (len(self.x) + BATCH - 1) // BATCH

    def __getitem__(self, index: int):
        part = slice(index * BATCH, (index + 1) * BATCH)
        return self.x[part], self.y[part]


def as_arrays(x, y):
    return {"x": x, "y": y, "batch_size": BATCH}


def as_generator(x, y):
    starts = range(0, len(x), BATCH)
    batches = ((x[i : i + BATCH], y[i : i + BATCH]) for _ in range(9) for i in starts)
    return {"x": batches, "steps_per_epoch": len(starts)}


def as_tf_data(x, y):
    return {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).prefetch(2)}


def fit(run: Path, model: keras.Model, source: dict, **options) -> None:
    options = {"epochs": 3, "shuffle": False} | options
    model.fit(**source, verbose=0, callbacks=[FlightRecorder(run, batches=6)], **options)


def plain(run: Path, source, **options) -> None:
    """Dropout, batch statistics, Adam; one target is NaN."""
    optimizer = keras.optimizers.Adam(0.01, **options.pop("optimizer", {}))
    fit(run, compiled(optimizer=optimizer, **options), source(*data()))


def short_batch(run: Path) -> None:
    fit(run, compiled(), as_arrays(*data(poisoned=69)))


def mixed(run: Path) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        fit(run, compiled(), as_arrays(*data()))
    finally:
        keras.config.set_dtype_policy("float32")


def validation(run: Path) -> None:
    """The row that breaks comes in the second epoch."""
    x, y = data(None)

    class Poison(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):  # noqa: ARG002 - Keras' signature
            if epoch == 1:
                y[25] = np.nan

    def batches():
        for start in range(0, 56, BATCH):
            yield x[start : start + BATCH], y[start : start + BATCH].copy()

    spec = (tf.TensorSpec((None, 6)), tf.TensorSpec((None, 1)))
    source = {"x": tf.data.Dataset.from_generator(batches, output_signature=spec)}
    model, recorder = compiled(metrics=["mae"]), FlightRecorder(run, batches=6)
    callbacks = [recorder, Poison()]
    model.fit(**source, epochs=3, verbose=0, validation_data=(x[56:], data(None)[1][56:]), callbacks=callbacks)


def resumed(run: Path) -> None:
    """A healthy epoch, then the same directory again from its checkpoint: the failing step is 9 + 7."""
    fit(run, compiled(), as_arrays(*data(None)), epochs=1)
    model = keras.models.load_model(max((run / "checkpoints").iterdir()))
    fit(run, model, as_arrays(*data()), epochs=1)


def several(run: Path, form: str) -> None:
    """Two inputs, two outputs, sample weights for each; by name neither stands in the order of the alphabet."""
    keras.utils.set_random_seed(2)
    left, right = keras.Input((4,), name="right side"), keras.Input((2,), name="left side")
    joined = keras.layers.Dropout(0.2)(keras.layers.Concatenate()([left, right]))
    a, b = keras.layers.Dense(1, name="z")(joined), keras.layers.Dense(1, name="b")(joined)
    as_dict = form == "dict"
    model = keras.Model({"right side": left, "left side": right} if as_dict else [left, right],
                        {"z": a, "b": b} if as_dict else [a, b])  # fmt: skip
    compiled(model, loss={"z": "mse", "b": "mae"} if as_dict else ["mse", "mae"])
    x, y = data()
    inputs, targets = {"right side": x[:, :4], "left side": x[:, 4:]}, {"z": y, "b": np.nan_to_num(y)}
    weights = {"z": np.linspace(0.5, 2, len(x)), "b": np.linspace(3, 1, len(x))}
    parts = [inputs, targets, weights] if as_dict else [list(p.values()) for p in (inputs, targets, weights)]
    fit(run, model, as_arrays(parts[0], parts[1]) | {"sample_weight": parts[2]})


def weighted(run: Path) -> None:
    """Class weights, which become sample weights; integer targets; an infinite input."""
    x, _ = data()
    x[POISONED] = np.inf
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax", name="head")])
    compiled(model, loss="sparse_categorical_crossentropy")
    fit(run, model, as_arrays(x, (np.arange(len(x)) % 3).astype("int32")), class_weight={0: 1.0, 1: 2.0, 2: 0.5})


def bfloat(run: Path) -> None:
    """Inputs of a dtype that npz cannot hold."""
    x, y = data()
    rows = tf.data.Dataset.from_tensor_slices((tf.cast(x, tf.bfloat16), y)).batch(BATCH)
    fit(run, compiled(), {"x": rows})


def overflow(run: Path) -> None:
    """An exponential that overflows after some steps: which step, depends on every dropout mask before it."""
    keras.utils.set_random_seed(12)
    layers = [keras.layers.Dense(8, activation="exponential", name="grows"), keras.layers.Dropout(0.5)]
    model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(1, name="head")])
    fit(run, compiled(model, optimizer=keras.optimizers.SGD(0.05)), as_tf_data(*data(None)))


def scaled(run: Path) -> None:
    """A loss scale that grows every other step."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inner = keras.optimizers.Adam(0.01)
        optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**8, dynamic_growth_steps=2)
        fit(run, compiled(optimizer=optimizer), as_arrays(*data()))
    finally:
        keras.config.set_dtype_policy("float32")


def moved_aside(run: Path) -> None:
    """A failure, and then a second run in its directory: what is left here is what was moved aside."""
    both = run.parent / "both"
    fit(both, compiled(), as_arrays(*data()))
    fit(both, compiled(), as_arrays(*data(None)), epochs=1)
    next(both.glob("failure_step_*")).rename(run)
    shutil.rmtree(both)


@keras.saving.register_keras_serializable("recorded_failures")
class Noise(keras.layers.Layer):
    """Draws from Keras' global generator, having none of its own."""

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x))


def global_generator(run: Path) -> None:
    keras.utils.set_random_seed(8)
    fit(run, compiled(keras.Sequential([keras.Input((6,)), Noise(), keras.layers.Dense(1)])), as_arrays(*data()))


@keras.saving.register_keras_serializable("recorded_failures")
class OwnStep(keras.Model):
    """A train_step of one's own, which does what Keras' does."""

    def train_step(self, batch):
        x, y = batch
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x, training=True) - y))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


def own_step(run: Path) -> None:
    base = network()
    fit(run, compiled(OwnStep(base.inputs, base.outputs)), as_arrays(*data()))


def sparse(run: Path) -> None:
    """Sparse inputs, which are stored padded with zeros."""
    x, y = data()
    x = np.where(np.abs(x) > 1, x, 0).astype("float32")
    keras.utils.set_random_seed(9)
    model = keras.Sequential([keras.Input((6,), sparse=True), keras.layers.Dense(4), keras.layers.Dense(1)])
    rows = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).map(lambda a, b: (tf.sparse.from_dense(a), b))
    fit(run, compiled(model), {"x": rows})


def finished(run: Path) -> None:
    """Nothing breaks."""
    fit(run, compiled(), as_arrays(*data(None)), epochs=2)


def hidden(run: Path) -> None:
    """A NaN input that fused operations turn into 0: the loss stays finite, the kernel's row does not."""
    keras.utils.set_random_seed(1)
    layers = [keras.Input((6,)), keras.layers.Dense(8, activation="relu", name="first"), keras.layers.Dense(1)]
    x, y = data(None)
    x[POISONED, 2] = np.nan
    fit(run, compiled(keras.Sequential(layers)), as_arrays(x, y))


def mirrored(run: Path) -> None:
    """Two replicas on virtual devices; without dropout and batch statistics, whose numbers belong to a replica."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        keras.utils.set_random_seed(6)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, activation="tanh"), keras.layers.Dense(1)])
        compiled(model)
    fit(run, model, as_tf_data(*data()))


def build_for_custom() -> keras.Model:
    """For `--build`: the model of the custom loop, compiled with what the loop does."""
    return compiled(network())


def custom(run: Path) -> None:
    """A loop of one's own, with an optimizer that the model does not know of; its first failing step is 7."""
    model, optimizer = network(), keras.optimizers.Adam(0.01)
    x, y = data()
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
    try:
        with FlightRecorder(run, batches=6, model=model, optimizer=optimizer) as recorder:
            for batch, target in dataset:
                with recorder.step(batch, target) as step:
                    with tf.GradientTape() as tape:
                        loss = tf.reduce_mean(tf.square(model(batch, training=True) - target))
                    optimizer.apply_gradients(
                        zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
                    )
                    step.loss(loss)
    except TrainingFailedError:
        return
    raise AssertionError("the loop should have failed")


MAKERS = {
    "arrays": lambda run: plain(run, as_arrays),
    "generator": lambda run: plain(run, as_generator),
    "tf_data": lambda run: plain(run, as_tf_data),
    "py_dataset": lambda run: plain(run, lambda x, y: {"x": Rows(x, y)}),
    "jit": lambda run: plain(run, as_tf_data, jit_compile=True),
    "eager": lambda run: plain(run, as_arrays, run_eagerly=True),
    "steps_per_execution": lambda run: plain(run, as_tf_data, steps_per_execution=4),
    "accumulation": lambda run: plain(run, as_arrays, optimizer={"gradient_accumulation_steps": 3}),
    "short_batch": short_batch,
    "mixed": mixed,
    "validation": validation,
    "resumed": resumed,
    "several_by_name": lambda run: several(run, "dict"),
    "several_in_a_list": lambda run: several(run, "list"),
    "weighted": weighted,
    "overflow": overflow,
    "scaled": scaled,
    "moved_aside": moved_aside,
    "bfloat16": bfloat,
    "global_generator": global_generator,
    "own_step": own_step,
    "sparse": sparse,
    "finished": finished,
    "hidden": hidden,
    "mirrored": mirrored,
    "custom": custom,
}


def main(directory: str) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    for name, make in MAKERS.items():
        make(Path(directory) / name)


if __name__ == "__main__":
    main(sys.argv[1])
