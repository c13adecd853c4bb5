"""What replay costs: `python -m tests.benchmarks.bench_replay`.

Bars: reproducing at most 1.5 times a bare compiled training loop over the same batches; the close look at one step at
most 10 times an eager step. Both are measured in one process, after the start of TensorFlow, on a small stack and on a
small convolutional network; the start is reported apart.
"""

import os
import time

os.environ.update(
    TF_ENABLE_ONEDNN_OPTS="0", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", KERAS_BACKEND="tensorflow"
)

STEPS, ROUNDS = 200, 3
REPRODUCE_BAR, CLOSEUP_BAR = 1.5, 10.0


def models(keras):
    yield (
        "stack of Dense",
        keras.Sequential(
            [
                keras.Input((64,)),
                *(keras.layers.Dense(128, activation="relu") for _ in range(4)),
                keras.layers.Dense(10),
            ]
        ),
        (64,),
        STEPS,
    )
    yield (
        "convolutions",
        keras.Sequential(
            [
                keras.Input((32, 32, 3)),
                keras.layers.Conv2D(16, 3, activation="relu"),
                keras.layers.BatchNormalization(),
                keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
                keras.layers.BatchNormalization(),
                keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(10),
            ]
        ),
        (32, 32, 3),
        40,
    )


def bare_loop(model, batches, steps):
    """Seconds of a compiled Keras training step called over the batches, tracing included."""
    import tensorflow as tf

    step = tf.function(model.train_step, jit_compile=False)
    prepared = [(tf.constant(b.inputs[0]), tf.constant(b.targets[0])) for b in batches]
    started = time.perf_counter()
    for n in range(steps):
        float(step(prepared[n % len(prepared)])["loss"].numpy())
    return time.perf_counter() - started


def eager_step(step, batch):
    """Seconds of one plain eager step."""
    from ckptdoctor.replay.step import tensors

    inputs, targets, weight = tensors(batch)
    started = time.perf_counter()
    _, _, gradients = step.gradients(inputs, targets, weight)
    step.apply(gradients)
    return time.perf_counter() - started


def measure(name, keras, model, shape, steps):
    import numpy as np

    from ckptdoctor.replay.batches import Batch
    from ckptdoctor.replay.closeup import examine, observe
    from ckptdoctor.replay.dialect import keras_3
    from ckptdoctor.replay.losses import LossPlan
    from ckptdoctor.replay.reproduce import run
    from ckptdoctor.replay.state import take
    from ckptdoctor.replay.step import TrainingStep

    rng = np.random.default_rng(0)
    batches = [
        Batch(n, (rng.normal(size=(32, *shape)).astype("float32"),), (rng.integers(0, 10, (32,)),)) for n in range(8)
    ]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-4), loss, jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    plan = LossPlan((loss,), None, ("sparse_categorical_crossentropy",), "rebuilt")
    bare, ours = [], []
    for _ in range(ROUNDS):
        bare.append(bare_loop(model, batches, steps))
        step = TrainingStep(keras_3(), model, plan)
        started = time.perf_counter()
        run(step, take(step.variables), batches, steps)
        ours.append(time.perf_counter() - started)
    for _ in range(3):
        eager_step(step, batches[0])
    plain = min(eager_step(step, batches[0]) for _ in range(5))
    looks = []
    for _ in range(3):
        started = time.perf_counter()
        seen = observe(step, take(step.variables), batches[0])
        examine(step, seen, step_index=0, optimizer_step=0)
        looks.append(time.perf_counter() - started)
    reproduce, look = min(ours) / min(bare), min(looks) / plain
    print(
        f"{name}: {steps} steps bare {min(bare):.2f} s, replay {min(ours):.2f} s, ratio {reproduce:.2f} (bar {REPRODUCE_BAR})"
    )
    print(
        f"{name}: eager step {plain * 1e3:.0f} ms, close look {min(looks) * 1e3:.0f} ms, ratio {look:.1f} (bar {CLOSEUP_BAR})"
    )
    return reproduce <= REPRODUCE_BAR and look <= CLOSEUP_BAR


def main():
    started = time.perf_counter()
    import keras
    import tensorflow as tf

    print(f"start of TensorFlow: {time.perf_counter() - started:.1f} s")
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    met = [measure(name, keras, model, shape, steps) for name, model, shape, steps in models(keras)]
    raise SystemExit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
