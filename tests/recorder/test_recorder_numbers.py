"""The recorder changes no number of training: weights, slots, statistics and metrics are equal to the last bit."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from recorder_training import compiled, data, network, state

from ckptdoctor import FlightRecorder

pytestmark = pytest.mark.replay


def convolutional() -> keras.Model:
    keras.utils.set_random_seed(3)
    return keras.Sequential([
        keras.Input((6,)),
        keras.layers.RepeatVector(16),
        keras.layers.Reshape((8, 4, 3)),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(1),
    ])  # fmt: skip


def attentive() -> keras.Model:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,))
    tokens = keras.layers.Embedding(32, 8)(keras.ops.cast(keras.ops.abs(inputs) * 8, "int32"))
    mixed = keras.layers.MultiHeadAttention(2, 4, dropout=0.1)(tokens, tokens)
    return keras.Model(
        inputs, keras.layers.Dense(1)(keras.layers.Flatten()(keras.layers.LayerNormalization()(tokens + mixed)))
    )


def decaying() -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.05, 40), momentum=0.9, global_clipnorm=1.0)


CASES = {
    "Adam": (network, lambda: keras.optimizers.Adam(0.01), {}),
    "SGD with schedule and clipping": (network, decaying, {}),
    "XLA": (network, lambda: keras.optimizers.Adam(0.01), {"jit_compile": True}),
    "XLA, convolution": (convolutional, lambda: keras.optimizers.SGD(0.01, momentum=0.9), {"jit_compile": True}),
    "attention, AdamW, averages": (attentive, lambda: keras.optimizers.AdamW(0.01, use_ema=True, ema_overwrite_frequency=5), {}),
    "steps_per_execution": (network, lambda: keras.optimizers.RMSprop(0.01), {"steps_per_execution": 5}),
    "accumulation": (network, lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=3), {}),
    "eager": (network, lambda: keras.optimizers.Adam(0.01), {"run_eagerly": True}),
}  # fmt: skip


def trained(case: str, callbacks: list) -> tuple[dict, dict]:
    build, optimizer, options = CASES[case]
    model = compiled(build(), optimizer=optimizer(), metrics=["mae"], **options)
    history = model.fit(*data(None), batch_size=8, epochs=3, verbose=0, validation_split=0.2, callbacks=callbacks)
    return state(model), history.history


@pytest.mark.parametrize("case", CASES)
def test_training_with_and_without_the_recorder_is_equal_to_the_last_bit(tmp_path, case):
    recorder = FlightRecorder(tmp_path / "run", batches=4, checkpoint_share=1e9)
    alone, history_alone = trained(case, [])
    watched, history_watched = trained(case, [recorder])
    assert [n for n in alone if not np.array_equal(alone[n], watched[n])] == []
    assert history_alone == history_watched
    assert recorder.message.startswith("training finished")


def test_mixed_precision_is_equal_too(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        alone, _ = trained("Adam", [])
        watched, _ = trained("Adam", [FlightRecorder(tmp_path / "run", batches=4)])
    finally:
        keras.config.set_dtype_policy("float32")
    assert [n for n in alone if not np.array_equal(alone[n], watched[n])] == []


def test_no_more_batches_are_held_than_were_asked_for(tmp_path):
    held = []

    class Count(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):  # noqa: ARG002
            session, seam = recorder._session, recorder._seam
            held.append(session._tape.held + int(seam._queue.size()))

    recorder = FlightRecorder(tmp_path / "run", batches=6)
    compiled().fit(*data(None, rows=400), batch_size=8, epochs=1, verbose=0, callbacks=[recorder, Count()])
    assert max(held) <= 6
    assert min(held[6:]) >= 3
