"""Builds small runs on disk, each with one cause or none: `python replay_scenarios.py OUTDIR [NAME …]`.

Run in a process of its own, because it imports TensorFlow. A run is `checkpoints/epoch_000.keras`, `last_batches.npz`
and `request.json` with what a census would have said.
"""

import json
import os
import sys
from pathlib import Path

os.environ.update(
    TF_ENABLE_ONEDNN_OPTS="0", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", KERAS_BACKEND="tensorflow"
)

import numpy as np

ROWS, BATCHES = 8, 4
RUNS = {}


def run(function):
    RUNS[function.__name__] = function
    return function


def data(rng, width=4, outputs=1, scale=1.0):
    x = rng.normal(size=(BATCHES, ROWS, width)).astype("float32") * scale
    y = x.sum(axis=-1, keepdims=True)[..., :outputs] if outputs == 1 else rng.normal(size=(BATCHES, ROWS, outputs))
    return x, y.astype("float32")


def stack(keras, *layers, width=4):
    return keras.Sequential([keras.Input((width,), name="features"), *layers])


def through(keras, operation, width=4):
    """Dense h → operation → Dense out."""
    given = keras.Input((width,), name="features")
    inner = keras.layers.Dense(3, use_bias=False, name="h")(given)
    return keras.Model(given, keras.layers.Dense(1, name="out")(operation(inner)))


def zero_rows(x, rows):
    """Make the inputs of some rows of batch 2 zero: a Dense without bias then gives exactly 0."""
    x[2, rows] = 0.0
    return x


@run
def sqrt_trap(keras, rng):
    x, y = data(rng)
    model = through(keras, lambda t: keras.ops.sqrt(keras.ops.square(t)))
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    return model, zero_rows(x, [1, 5]), y


@run
def pow_trap(keras, rng):
    x, y = data(rng)
    model = through(keras, lambda t: keras.ops.power(keras.ops.square(t), 0.5))
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    return model, zero_rows(x, [3]), y


@run
def where_log_trap(keras, rng):
    x, y = data(rng)

    def guarded(t):
        square = keras.ops.square(t)
        return keras.ops.where(square > 0, keras.ops.log(square), keras.ops.zeros_like(square))

    model = through(keras, guarded)
    model.compile(keras.optimizers.SGD(1e-4), "mse")
    return model, zero_rows(x, [2, 6]), y


@run
def log_of_zero(keras, rng):
    x, y = data(rng)
    model = through(keras, lambda t: keras.ops.log(keras.ops.square(t)))
    model.compile(keras.optimizers.SGD(1e-4), "mse")
    return model, zero_rows(x, [7]), y


@run
def half_softmax(keras, rng):
    """A softmax written out in float16: exp of more than 11.09 is infinite."""
    x, _ = data(rng)
    y = np.eye(3, dtype="float32")[rng.integers(0, 3, (BATCHES, ROWS))]
    given = keras.Input((4,), name="features", dtype="float16")
    logits = keras.layers.Dense(3, name="logits", dtype="float16")(given)
    powers = keras.ops.exp(logits)
    shares = keras.layers.Activation("linear", name="shares", dtype="float16")(
        powers / keras.ops.sum(powers, -1, keepdims=True)
    )
    model = keras.Model(given, shares)
    model.get_layer("logits").set_weights([np.full((4, 3), 2.0, "float16"), np.zeros(3, "float16")])
    model.compile(keras.optimizers.SGD(1e-6), "categorical_crossentropy")
    x = np.clip(x, -0.2, 0.2)
    x[1, 4] = 3.0
    return model, x.astype("float16"), y


@run
def nan_label(keras, rng):
    x, y = data(rng)
    y[1, 3] = np.nan
    model = stack(keras, keras.layers.Dense(6, activation="relu", name="h"), keras.layers.Dense(1, name="out"))
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    return model, x, y


@run
def nan_weight(keras, rng):
    """One row's sample weight is NaN; `save` adds the weights."""
    x, y = data(rng)
    model = stack(keras, keras.layers.Dense(6, activation="relu", name="h"), keras.layers.Dense(1, name="out"))
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    return model, x, y


@run
def nan_behind_pooling(keras, rng):
    """A row of images that are NaN wherever a pool looks: max pooling makes the lowest float of nothing but NaN."""
    x = rng.normal(size=(BATCHES, ROWS, 4, 4, 1)).astype("float32")
    y = x.mean(axis=(2, 3))
    x[2, 6, :2, :2] = np.nan
    given = keras.Input((4, 4, 1), name="image")
    pooled = keras.layers.MaxPooling2D(2, name="pool")(given)
    found = keras.layers.Conv2D(3, 2, kernel_initializer=keras.initializers.Constant(2.0), name="conv")(pooled)
    model = keras.Model(given, keras.layers.Dense(1, name="out")(keras.layers.Flatten(name="flat")(found)))
    model.compile(keras.optimizers.SGD(1e-4), "mse")
    return model, x, y


@run
def nan_behind_relu(keras, rng):
    """One NaN in feature 2 of one row: fused relu turns it into 0 on a CPU."""
    x, y = data(rng)
    x[1, 5, 2] = np.nan
    model = stack(keras, keras.layers.Dense(6, activation="relu", name="h"), keras.layers.Dense(1, name="out"))
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    return model, x, y


@run
def labels_from_one(keras, rng):
    x, _ = data(rng)
    y = 1 + (x.sum(-1) > 0).astype("int64") + (x[..., 0] > 0.5)
    model = stack(
        keras, keras.layers.Dense(8, activation="relu", name="h"), keras.layers.Dense(3, "softmax", name="out")
    )
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    return model, x, y


@run
def epsilon_of_zero(keras, rng):
    """A constant zero input column has a zero gradient: Adam without epsilon divides 0 by 0."""
    x, y = data(rng)
    x[..., 0] = 0.0
    model = stack(keras, keras.layers.Dense(1, name="out"))
    model.compile(keras.optimizers.Adam(1e-2, epsilon=0.0), "mse")
    return model, x, y


@run
def rate_too_high(keras, rng):
    x, y = data(rng)
    model = stack(keras, keras.layers.Dense(8, name="h"), keras.layers.Dense(1, name="out"))
    model.compile(keras.optimizers.SGD(10.0), "mse")
    return model, x, y


@run
def masked_attention(keras, rng):
    """A causal mask puts very large negative numbers and masked softmax inside: harmless."""
    x = rng.normal(size=(BATCHES, ROWS, 5, 4)).astype("float32")
    y = x.mean(axis=(2, 3))[..., None].astype("float32")
    given = keras.Input((5, 4), name="features")
    inner = keras.layers.MultiHeadAttention(2, 3, name="attention")(given, given, use_causal_mask=True)
    lifted = keras.ops.where(keras.ops.ones((5, 5)) > 0, 0.0, -np.inf)[0]
    inner = keras.layers.GlobalAveragePooling1D(name="pool")(inner + lifted[:, None])
    model = keras.Model(given, keras.layers.Dense(1, name="out")(inner))
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    return model, x, y


@run
def harmless_where(keras, rng):
    """Log of an input column under a where: infinite inside, nothing trainable before it."""
    x, y = data(rng)
    x[..., 0] = np.abs(x[..., 0])
    x[:, ::2, 0] = 0.0
    given = keras.Input((4,), name="features")
    guarded = keras.ops.where(given > 0, keras.ops.log(given), keras.ops.zeros_like(given))
    model = keras.Model(given, keras.layers.Dense(1, name="out")(guarded))
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    return model, x, y


@run
def loss_scale_probing(keras, rng):
    """A loss scale that starts too high overflows a few gradients, then settles: not a failure."""
    keras.config.set_dtype_policy("mixed_float16")
    x, y = data(rng)
    model = stack(
        keras, keras.layers.Dense(8, activation="relu", name="h"), keras.layers.Dense(1, name="out", dtype="float32")
    )
    inner = keras.optimizers.Adam(1e-2)
    model.compile(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**26), "mse")
    return model, x, y


@run
def token_out_of_range(keras, rng):
    x = rng.integers(0, 10, (BATCHES, ROWS, 6)).astype("int64")
    x[3, 2, 1] = 12
    y = rng.normal(size=(BATCHES, ROWS, 1)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int64", name="tokens"),
            keras.layers.Embedding(10, 4, name="table"),
            keras.layers.GlobalAveragePooling1D(name="pool"),
            keras.layers.Dense(1, name="out"),
        ]
    )
    model.compile("adam", "mse")
    return model, x, y


@run
def relu_head(keras, rng):
    """Targets of both signs under a relu head that starts dead: always finite, learns nothing."""
    x, y = data(rng)
    y = np.concatenate([y] * 2, axis=0)
    x = np.concatenate([x] * 2, axis=0)
    model = stack(keras, keras.layers.Dense(8, activation="tanh", name="h"), keras.layers.Dense(1, "relu", name="out"))
    model.get_layer("out").bias.assign([-20.0])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model, x, y


@run
def masks_of_255(keras, rng):
    """Masks of 0 and 255 under a binary cross-entropy."""
    x, y = data(rng)
    y = 255.0 * (np.concatenate([y] * 2, axis=0) > 0)
    x = np.concatenate([x] * 2, axis=0)
    model = stack(
        keras, keras.layers.Dense(8, activation="tanh", name="h"), keras.layers.Dense(1, "sigmoid", name="out")
    )
    model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy")
    return model, x, y


@run
def densities(keras, rng):
    """Targets of some thousandths under a squared error and plain descent: there is hardly a slope."""
    x, y = data(rng)
    x, y = np.concatenate([x] * 2, axis=0), 0.002 * np.concatenate([y] * 2, axis=0)
    start = keras.initializers.RandomNormal(stddev=1e-4, seed=3)
    model = stack(
        keras, keras.layers.Dense(8, "tanh", name="h"), keras.layers.Dense(1, kernel_initializer=start, name="out")
    )
    model.compile(keras.optimizers.SGD(1e-4), "mse")
    return model, x, y.astype("float32")


@run
def slow_adadelta(keras, rng):
    """Adadelta at Keras' default, a thousandth of its paper's."""
    x, y = data(rng)
    model = stack(keras, keras.layers.Dense(8, activation="tanh", name="h"), keras.layers.Dense(1, name="out"))
    model.compile(keras.optimizers.Adadelta(), "mse")
    return model, np.concatenate([x] * 2, axis=0), np.concatenate([y] * 2, axis=0)


@run
def healthy(keras, rng):
    x, y = data(rng)
    model = stack(keras, keras.layers.Dense(8, activation="relu", name="h"), keras.layers.Dense(1, name="out"))
    model.compile(keras.optimizers.Adam(3e-2), "mse")
    model.fit(x.reshape(-1, 4), y.reshape(-1, 1), epochs=60, batch_size=ROWS, verbose=0)
    return model, x, y


@run
def custom_rmse(keras, rng):
    """A custom root mean squared error meets a row that is predicted exactly: its gradient is 0 times infinity."""
    x, y = data(rng)
    x[0, 2], y[0, 2] = 0.0, 0.0

    def rmse(y_true, y_pred):
        return keras.ops.sqrt(keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1))

    model = stack(keras, keras.layers.Dense(6, activation="relu", name="h"), keras.layers.Dense(1, name="out"))
    model.compile(keras.optimizers.Adam(1e-2), rmse)
    return model, x, y


@run
def own_sequence_loss(keras, rng):
    """A loss of one's own over a sequence of scores and class ids of another length, as for reading aloud."""
    x = rng.normal(size=(BATCHES, ROWS, 6, 3)).astype("float32")
    y = rng.integers(1, 4, (BATCHES, ROWS, 4)).astype("int32")

    def reading(y_true, y_pred):
        known = keras.ops.mean(keras.ops.cast(y_true, "float32"), axis=-1)
        return keras.ops.square(keras.ops.mean(y_pred, axis=(1, 2)) - known)

    model = keras.Sequential([keras.Input((6, 3)), keras.layers.Dense(5, name="out")])
    model.compile(keras.optimizers.Adam(1e-2), reading)
    return model, x, y


@run
def norm_over_one_feature(keras, rng):
    """A series of one feature, normalised over its last axis: a number less its own mean is zero."""
    x = rng.normal(size=(BATCHES, ROWS, 5, 1)).astype("float32")
    y = x.sum(axis=(2, 3))[..., None]
    model = keras.Sequential(
        [
            keras.Input((5, 1)),
            keras.layers.LayerNormalization(name="norm"),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu", name="h"),
            keras.layers.Dense(1, name="out"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), "mean_squared_error")
    return model, x, y


@run
def padded_behind(keras, rng):
    """Three words, then a long padding that nothing masks: the last state knows nothing of the words."""
    x = np.zeros((BATCHES, ROWS, 40), "int32")
    x[:, :, :3] = rng.integers(1, 9, (BATCHES, ROWS, 3))
    y = (x[:, :, 0:1] > 4).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((40,)),
            keras.layers.Embedding(9, 4, name="words"),
            keras.layers.LSTM(8, name="reader"),
            keras.layers.Dense(1, activation="sigmoid", name="out"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy")
    return model, x, y


@run
def two_inputs(keras, rng):
    """Inputs recorded by name, in another order than the model takes them; one row of `right` is NaN."""
    left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
    joined = keras.layers.Concatenate(name="join")(
        [keras.layers.Dense(4, name="a")(left), keras.layers.Dense(4, name="b")(right)]
    )
    model = keras.Model([left, right], keras.layers.Dense(1, name="out")(joined))
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    x = {"right": rng.normal(size=(BATCHES, ROWS, 3)), "left": rng.normal(size=(BATCHES, ROWS, 2))}
    x["right"][0, 6, 1] = np.nan
    return model, x, rng.normal(size=(BATCHES, ROWS, 1))


@run
def only_broken(keras, rng):
    """The only checkpoint left is non-finite in one kernel; the rate is far too high."""
    model, x, y = rate_too_high(keras, rng)
    model.get_layer("out").kernel.assign(np.full((8, 1), np.nan))
    return model, x, y


@run
def saved_dataset(keras, rng):
    """The batches of `nan_label` as a saved tf.data dataset."""
    return nan_label(keras, rng)


@run
def keras_2_one_element(_keras, rng):
    """A Keras 2 file, whose BatchNormalization sees one element per channel."""
    import tf_keras

    model = tf_keras.Sequential(
        [
            tf_keras.Input((1, 1, 2)),
            tf_keras.layers.Conv2D(3, 1, name="conv"),
            tf_keras.layers.BatchNormalization(name="norm"),
            tf_keras.layers.Flatten(name="flat"),
            tf_keras.layers.Dense(1, name="out"),
        ]
    )
    model.compile("sgd", "mse")
    x = rng.normal(size=(BATCHES, 1, 1, 1, 2)).astype("float32")
    return model, x, x.sum(axis=(2, 3, 4))[..., None]


@run
def place_pooled_away(keras, rng):
    """The target is where the bright spot stands, and global pooling forgets where."""
    place = rng.integers(0, 36, (12, 16))
    x = 0.05 * rng.normal(size=(12, 16, 36)).astype("float32")
    np.put_along_axis(x, place[..., None], 1.0, axis=-1)
    given = keras.Input((6, 6, 1), name="image")
    found = keras.layers.Conv2D(4, 1, activation="relu", name="conv")(given)
    model = keras.Model(
        given, keras.layers.Dense(1, name="out")(keras.layers.GlobalAveragePooling2D(name="pool")(found))
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model, x.reshape(12, 16, 6, 6, 1), (place % 6 > 2).astype("float32")[..., None]


@run
def raw_features(keras, rng):
    """Two of four features are counted in hundreds: the usual rate overshoots."""
    x, y = data(rng)
    x *= np.array([1.0, 1.0, 300.0, 500.0], dtype="float32")
    model = stack(keras, keras.layers.Dense(6, activation="relu", name="h"), keras.layers.Dense(1, name="out"))
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model, x, y


@run
def poisson_of_a_linear_head(keras, rng):
    """The Poisson loss takes the log of what a linear head gives; one row's is below zero."""
    x, y = data(rng)
    x = np.abs(x)
    x[1, 6] *= -1
    model = stack(keras, keras.layers.Dense(1, kernel_initializer="ones", name="out"))
    model.compile(keras.optimizers.SGD(1e-4), "poisson")
    return model, x, np.abs(y)


@run
def exponential_recurrence(keras, rng):
    """A recurrence of exponentials overflows on one large row."""
    x = (0.3 * rng.normal(size=(BATCHES, ROWS, 5, 2))).astype("float32")
    y = x.mean(axis=(2, 3))[..., None]
    x[2, 4, 1] = 90.0
    given = keras.Input((5, 2), name="features")
    inner = keras.layers.SimpleRNN(
        4, activation="exponential", kernel_initializer="ones", recurrent_initializer="zeros", name="rnn"
    )(given)
    model = keras.Model(given, keras.layers.Dense(1, name="out")(inner))
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    return model, x, y


@run
def wholly_masked_row(keras, rng):
    """Attention whose mask is -inf; one row has nothing left: softmax divides 0 by 0."""
    x = rng.normal(size=(BATCHES, ROWS, 5, 4)).astype("float32")
    x[..., 4, 0] = -1.0
    x[..., :4, 0] = 1.0
    x[1, 3, :, 0] = -1.0
    y = x[..., 1:].mean(axis=(2, 3))[..., None].astype("float32")
    given = keras.Input((5, 4), name="features")
    scores = keras.layers.Dot(axes=2, name="dot")([keras.layers.Dense(3, name="query")(given)] * 2)
    masked = keras.ops.where(given[:, None, :, 0] > 0, scores, -np.inf)
    shares = keras.layers.Softmax(name="shares")(masked)
    mixed = keras.layers.Dot(axes=(2, 1), name="mix")([shares, keras.layers.Dense(4, name="value")(given)])
    model = keras.Model(
        given, keras.layers.Dense(1, name="out")(keras.layers.GlobalAveragePooling1D(name="pool")(mixed))
    )
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    return model, x, y


@run
def huge_weights(keras, rng):
    """One layer's kernel was drawn far too wide: its first product overflows."""
    x, y = data(rng)
    wide = keras.initializers.RandomNormal(stddev=5e37, seed=3)
    model = stack(
        keras,
        keras.layers.Dense(8, activation="relu", name="h1"),
        keras.layers.Dense(8, activation="relu", kernel_initializer=wide, name="h2"),
        keras.layers.Dense(1, name="out"),
    )
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    return model, x, y


@run
def growing_recurrence(keras, rng):
    """A recurrence of relu over 60 steps, each multiplying by more than 1: gradients explode with the length."""
    x = rng.normal(size=(BATCHES, ROWS, 60, 2)).astype("float32")
    y = x[..., 0].sum(axis=2)[..., None] / 8
    given = keras.Input((60, 2), name="features")
    inner = keras.layers.SimpleRNN(
        6, activation="relu", recurrent_initializer=keras.initializers.Identity(1.1), name="rnn"
    )(given)
    model = keras.Model(given, keras.layers.Dense(1, name="out")(inner))
    model.compile(keras.optimizers.SGD(1e-2), "mse")
    return model, x, y


@run
def sigmoid_stack(keras, rng):
    """Seven sigmoid layers under SGD: finite, and nothing reaches the first of them."""
    x, y = data(rng)
    names = [f"h{n}" for n in range(1, 8)]
    model = stack(
        keras,
        *[keras.layers.Dense(8, activation="sigmoid", name=name) for name in names],
        keras.layers.Dense(1, name="out"),
    )
    model.compile(keras.optimizers.SGD(0.05), "mse")
    model.fit(x.reshape(-1, 4), y.reshape(-1, 1), epochs=30, batch_size=ROWS, verbose=0)
    return model, x, y


@run
def one_element_norm(keras, rng):
    """BatchNormalization in batches of one row, without epsilon: the variance is 0, and 0 times 1/0 is NaN."""
    x = rng.normal(size=(4 * ROWS, 1, 4)).astype("float32")
    model = stack(
        keras,
        keras.layers.Dense(6, activation="relu", name="h"),
        keras.layers.BatchNormalization(epsilon=0.0, name="norm"),
        keras.layers.Dense(1, name="out"),
    )
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    return model, x, x.sum(axis=-1, keepdims=True)[..., 0]


@run
def collapsed_scale(keras, rng):
    """Half precision: one large row's product with its error overflows at any scale, which fell while steps were skipped."""
    keras.config.set_dtype_policy("mixed_float16")
    x, y = data(rng)
    x[0, 2], y[0, 2] = 1000.0, -8000.0
    model = stack(
        keras,
        keras.layers.Dense(4, activation="relu", kernel_initializer=keras.initializers.Constant(0.1), name="h"),
        keras.layers.Dense(1, kernel_initializer="ones", name="out", dtype="float32"),
    )
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2), initial_scale=0.5), "mse")
    return model, x, y


def save(folder, model, x, y):
    (folder / "checkpoints").mkdir(parents=True)
    legacy = type(model).__module__.startswith("tf_keras")
    path = folder / "checkpoints" / f"epoch_000.{'h5' if legacy else 'keras'}"
    model.optimizer.build(model.trainable_variables)
    model.save(path)
    if getattr(model, "history", None) is not None:
        losses = enumerate(model.history.history["loss"])
        (folder / "training_log.csv").write_text("epoch,loss\n" + "".join(f"{n},{loss}\n" for n, loss in losses))
    steps = np.arange(1, len(y) + 1)
    if folder.name == "saved_dataset":
        import tensorflow as tf

        tf.data.Dataset.from_tensor_slices((x, y)).save(str(folder / "last_batches"))
    elif isinstance(x, dict):
        np.savez(
            folder / "last_batches.npz", y=y, step=steps, **{f"x_{name}": a.astype("float32") for name, a in x.items()}
        )
    elif folder.name == "nan_weight":
        weights = np.ones((BATCHES, ROWS), dtype="float32")
        weights[1, 4] = np.nan
        np.savez(folder / "last_batches.npz", x=x, y=y, sample_weight=weights, step=steps)
    else:
        np.savez(folder / "last_batches.npz", x=x, y=y, step=steps)


def main():
    import keras

    out, wanted = Path(sys.argv[1]), sys.argv[2:] or list(RUNS)
    for name in wanted:
        keras.config.set_dtype_policy("float32")
        keras.utils.set_random_seed(7)
        model, x, y = RUNS[name](keras, np.random.default_rng(11))
        save(out / name, model, x, y)
    (out / "made.json").write_text(json.dumps(wanted))


if __name__ == "__main__":
    main()
