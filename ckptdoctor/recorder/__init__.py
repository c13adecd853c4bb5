"""The flight recorder: keeps what a post-mortem needs while a model trains, and writes it when training dies.

`FlightRecorder` is imported on first use, because it needs TensorFlow; everything else here needs numpy at most.

## What is written

    run/
      checkpoints/epoch_002_step_00000112.keras          completed epochs and steps so far; complete, with optimizer
      checkpoints/epoch_002_step_00000124_failed.keras   the state right after the failing step
      training_log.csv                                   one row per epoch, as keras.callbacks.CSVLogger writes it
      steps.jsonl                                        one object per step
      last_batches.npz                                   the batches since the window's checkpoint; where their shapes
                                                         differ (a short last batch) a directory `last_batches/` of
                                                         such files, in order
      recorder.json                                      written last: what it names is complete
      failure_step_00000123/                             an earlier failure, moved aside when training starts again

`steps.jsonl` holds `{"step", "epoch", "batch", "loss", "learning_rate", "grad_norm"}` and, under dynamic loss scaling,
`loss_scale`. `loss` is the loss of that step alone, not Keras' running mean. `grad_norm` is the global norm of the
gradients before clipping (with several replicas the mean of the replicas' norms). Steps count training batches, from the
optimizer's iteration count when training began; epochs and batches count from 0. A non-finite number is written as
`NaN`, `Infinity` or `-Infinity`, as Python's json module does. `last_batches` holds `x`, `y`, `sample_weight` (with
several inputs or outputs `x_<name>`, …), each (K, B, …), and `step` (K,).

## recorder.json (strict JSON; non-finite numbers are the strings "NaN", "Infinity", "-Infinity")

    schema_version  "1.0"
    tool            {name, version}
    status          running | failed | interrupted | finished
    reason          null, or {kind: loss | weights | gradients | signal | exception | exit, text, step, epoch, batch, loss,
                    variables[paths of non-finite weights]}
    step            training steps taken, counted as above; also the index of the next step
    epoch           index of the current epoch, or null in a custom loop
    started, written   UTC, ISO 8601
    window          null, or what is needed to run the last steps again:
        checkpoint      path of the state before the first batch of the window, relative to this file; null where it
                    could not be written
        first_step, last_step   the window's batches are these steps, one after the other; after running them from
                    `checkpoint` the failing step has just been taken
        batches         path of last_batches, relative; null where batches could not be kept
        structure       {x, y, sample_weight}: each null | {form: single | list | dict, names[], keys[]}: how the arrays
                    of last_batches form the arguments of the step; `names` are dict keys or input names
        traced_as       {key: shape, null where unknown}: static shapes that Keras compiled the step for. Graph mode may
                    choose other kernels for other static shapes, which shows in the last bits: to repeat a step
                    bit by bit, feed it from a tf.data.Dataset of this signature ({} in a custom loop)
        rows            per batch, rows of each replica: [[32], …]; with two replicas [[16, 16], …]
        densified       keys that were ragged or sparse and are stored padded with zeros
        stored_as       {key: dtype the step saw}, only where npz cannot hold that dtype (bfloat16 → float32)
        seed_generators the states that belong to `checkpoint`: see below
        seed_states_before_step   per batch, the same states before that very step: [[[seed, count], …], …]
        seed_names      the generators of `seed_states_before_step`, in its order: [[layer, index], …]
        python_random, numpy_random   states of `random` and `numpy.random` when the window began; the batches do not
                    need them. [version, [625 integers], gauss] and [name, [624 integers], position, has_gauss, gauss]
    checkpoints     [{path, step, epoch, kind: rolling | window | failed | interrupted | final, finite, seed_generators}]
    training        {epochs, steps_per_epoch, steps_per_execution, jit_compile, run_eagerly, dtype_policy, optimizer,
                    gradient_accumulation_steps, loss_scaling, replicas, loop: fit | custom}
    environment     {python, platform, tensorflow, keras, numpy, devices[], onednn, deterministic_ops, xla_flags,
                    intra_op_threads, inter_op_threads}
    options         the recorder's own
    problems        sentences: what could not be kept or written, and why

`seed_generators` is a list of {layer, index, state: [seed, count]}: the state of the `index`-th seed generator of that
layer, in the order of the model's layers (outermost first); `layer` is null for Keras' global generator. A `.keras` file
does not hold these states; `ckptdoctor.recorder.rng.restore_seed_states(model, entries)` puts them back, after which
dropout draws the masks it drew in training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckptdoctor.recorder.flight import FlightRecorder as FlightRecorder

__all__ = ["FlightRecorder"]


def __getattr__(name: str) -> Any:
    if name == "FlightRecorder":
        from ckptdoctor.recorder.flight import FlightRecorder

        return FlightRecorder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
