"""What the recorder's tests train, and the repetition of what it recorded, written against recorder.json alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from ckptdoctor.recorder.rng import restore_seed_states

ROWS, BATCH = 70, 8  # nine batches, the last one of six rows
POISONED = 60  # the row that breaks training: step 7 when nothing is shuffled


def data(poisoned: int | None = POISONED, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Regression data, x (rows, 6) and y (rows, 1); y of one row is NaN."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows, 6)).astype("float32")
    y = (x @ rng.normal(size=(6, 1))).astype("float32")
    if poisoned is not None:
        y[poisoned] = np.nan
    return x, y


def network(seed: int = 3) -> keras.Model:
    """Dropout, batch statistics and two dense layers."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential([
        keras.Input((6,), name="features"),
        keras.layers.Dense(12, activation="gelu", name="hidden"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dropout(0.4, name="drop"),
        keras.layers.Dense(1, name="head"),
    ])  # fmt: skip


def compiled(model: keras.Model | None = None, *, optimizer=None, **options) -> keras.Model:
    model = network() if model is None else model
    options.setdefault("jit_compile", False)
    model.compile(optimizer or keras.optimizers.Adam(0.01), options.pop("loss", "mse"), **options)
    return model


def record(run: Path) -> dict:
    return json.loads((run / "recorder.json").read_text())


def steps(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]


def batches(run: Path, window: dict) -> list[dict[str, np.ndarray]]:
    """The recorded batches one by one."""
    path = run / window["batches"]
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = []
    for file in files:
        with np.load(file, allow_pickle=False) as stack:
            arrays = {k: stack[k] for k in stack.files}
        found += [{k: v[i] for k, v in arrays.items()} for i in range(len(arrays["step"]))]
    return found


def as_dataset(run: Path, window: dict) -> tf.data.Dataset:
    """The recorded batches as the step saw them: same structure, same dtypes, same static shapes."""

    def build(argument, leaf):
        if argument is None:
            return None
        leaves = [leaf(key) for key in argument["keys"]]
        if argument["form"] == "single":
            return leaves[0]
        return dict(zip(argument["names"], leaves, strict=True)) if argument["form"] == "dict" else tuple(leaves)

    def structure(leaf):
        parts = [build(window["structure"][name], leaf) for name in ("x", "y", "sample_weight")]
        return tuple(p for p in parts if p is not None)

    recorded = batches(run, window)
    traced = window["traced_as"]
    spec = structure(lambda key: tf.TensorSpec(traced.get(key), recorded[0][key].dtype))
    return tf.data.Dataset.from_generator(lambda: (structure(b.__getitem__) for b in recorded), output_signature=spec)


def repeat(run: Path, *, strategy: tf.distribute.Strategy | None = None, **loading) -> keras.Model:
    """Reload the window's checkpoint, put the seed states back, take the recorded steps once more."""
    document = record(run)
    window, training = document["window"], document["training"]
    with (strategy or tf.distribute.get_strategy()).scope():
        model = keras.models.load_model(run / window["checkpoint"], **loading)
    assert restore_seed_states(model, window["seed_generators"]) == []
    model.steps_per_execution = 1
    model.run_eagerly = bool(training["run_eagerly"])
    dataset = as_dataset(run, window)
    if strategy is not None:  # the recorded batches are global ones; replicas got `rows` of them each
        dataset = strategy.experimental_distribute_dataset(dataset)
    model.make_train_function()
    iterator = iter(dataset)
    for _ in window["rows"]:
        model.train_function(iterator)
    return model


def state(model: keras.Model) -> dict[str, np.ndarray]:
    """Weights and optimizer variables, in an order that survives reloading."""
    variables = [*model.weights, *model.optimizer.variables]
    return {f"{i} {v.name.rsplit('_', 1)[-1]}": v.numpy() for i, v in enumerate(variables)}


def differences(one: keras.Model, other: keras.Model) -> list[str]:
    """Names of the variables that are not equal to the last bit; all NaN count as one."""
    a, b = state(one), state(other)
    assert list(a) == list(b)
    return [name for name in a if not np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f")]


def first_nonfinite(model: keras.Model) -> list[str]:
    return [v.name for v in model.weights if not np.isfinite(v.numpy()).all()]
