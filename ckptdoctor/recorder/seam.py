"""The place in Keras' training loop where a step's batch, loss and gradients can be seen, and where it is left alone.

Callbacks do not get the data. `fit` runs `model.train_function(iterator)`; Keras makes that function of `train_step`
(compiled on its own, by XLA if so asked) inside an outer graph that draws the batch and, for steps_per_execution, loops.
The recorder has Keras make the function again with two additions:

- around the compiled step, in the outer graph: the batch is put in a queue (a reference, no copy), together with the
  learning rate and the seed states before the step; afterwards one pass over the weights tells whether they are finite.
- inside the compiled step: its loss and the norm of its gradients become further outputs.

What the step computes and the shapes it is compiled for stay as they are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ckptdoctor.recorder.batchfile import Batch
from ckptdoctor.recorder.measures import (
    accumulates,
    gradient_norm,
    learning_rate,
    loss_scale,
    scalar,
    unknown,
    weights_finite,
)
from ckptdoctor.recorder.rng import seed_generators

UNBOUNDED = -1  # capacity: a full queue would block training, so it must never be full


@dataclass(slots=True)
class StepRow:
    """What the graph measured of one step. grad_norm, learning_rate, loss_scale are NaN where unknown."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    loss_scale: float
    weights_finite: bool


class Capture(threading.local):
    """Loss and gradient norm of the step being traced (or run eagerly) in this thread: one per replica."""

    def __init__(self) -> None:
        self.active = False
        self.loss: Any = None
        self.norm: Any = None


class Seam:
    """Instruments one model's training. `install`, train, `drain` now and then, `remove`.

    Attributes:
        signature: type specs of x, y and sample_weight that the step was last traced for, of one replica.
    """

    def __init__(
        self, model: Any, *, gradient_norm: bool, on_trace: Callable[[], None], problem: Callable[[str], None]
    ) -> None:
        """Prepare, changing nothing yet.

        Args:
            model: a compiled Keras model.
            gradient_norm: whether to measure it.
            on_trace: called once all variables exist and before the first step has changed any.
            problem: takes a sentence about something that cannot be recorded.
        """
        self._model = model
        self._strategy = model.distribute_strategy
        self._with_norm = gradient_norm
        self._on_trace = on_trace
        self._problem = problem
        self._capture = Capture()
        self._queue: Any = None
        self._queue_dtypes: list[Any] = []
        self._structure: Any = None
        self.signature: tuple[Any, Any, Any] = (None, None, None)
        self._seed_names: list[tuple[str | None, int]] = []
        self._rate: Any = None
        self._kept: Any = None  # the operation that keeps the batch of the step being traced
        self._inside = False
        self._known = {"loss": False, "norm": False}
        self._restore: list[Callable[[], None]] = []
        with tf.device("CPU:0"):
            self._state = tf.Variable(np.array([0, -1], np.int64), trainable=False, name="ckptdoctor_state")
            self._scale = tf.Variable(1.0, trainable=False, dtype=tf.float64, name="ckptdoctor_loss_scale")
            self._rows = tf.queue.FIFOQueue(UNBOUNDED, [tf.float64], shapes=[(6,)])

    # --- life ---------------------------------------------------------------------------------

    def install(self) -> Callable[[Any], Any]:
        """Have Keras make its train function with the additions.

        Returns:
            The new function, which the caller puts in place of `model.train_function`.
        """
        model = self._model
        previous = model.train_function
        convert = getattr(model, "_autoconvert_optionals", None)
        if convert is None:
            raise RuntimeError("this version of Keras builds its training step in a way the recorder does not know")
        self._hook(model, "compute_loss", self._watch_loss)
        if model.optimizer is not None:
            self._hook(model.optimizer, "scale_loss", self._watch_scaled_loss)
            if self._with_norm:
                self._hook(model.optimizer, "apply", self._watch_gradients)
        undo = [_replace(model, "train_step", self._observed_step(model.train_step))]
        try:
            undo.append(_replace(model, "_autoconvert_optionals", lambda step: convert(self._recorded(step))))
            model.make_train_function(force=True)
        finally:
            for back in reversed(undo):
                back()
        made = model.train_function
        self._restore.append(lambda: setattr(model, "train_function", previous))
        return made  # type: ignore[no-any-return]

    def remove(self) -> None:
        """Leave the model as it was found."""
        for back in reversed(self._restore):
            back()
        self._restore.clear()

    def _hook(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        original = getattr(owner, name, None)
        if callable(original):
            self._restore.append(_replace(owner, name, make(original)))

    # --- inside the compiled step -----------------------------------------------------------------

    def _observed_step(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        capture = self._capture

        def train_step(data: Any) -> Any:
            capture.active, capture.loss, capture.norm = True, None, None
            try:
                outputs = step(data)
            finally:
                capture.active = False
            if not self._inside:  # a training loop of the user's own, which knows nothing of a second output
                return outputs
            loss, norm = _usable(capture.loss), _usable(capture.norm)
            if loss is None and isinstance(outputs, dict) and "loss" in outputs:
                loss = outputs["loss"]  # a step of the user's own: Keras' running mean at least
            self._known.update(loss=loss is not None, norm=norm is not None)
            return outputs, tf.stack([scalar(loss), scalar(norm)])

        return train_step

    def _watch_loss(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def compute_loss(*args: Any, **kwargs: Any) -> Any:
            loss = original(*args, **kwargs)
            if self._capture.active:
                self._capture.loss = _unscaled(loss, self._strategy)
            return loss

        return compute_loss

    def _watch_scaled_loss(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def scale_loss(loss: Any, *args: Any, **kwargs: Any) -> Any:
            if self._capture.active and _usable(self._capture.loss) is None:
                self._capture.loss = _unscaled(loss, self._strategy)
            return original(loss, *args, **kwargs)

        return scale_loss

    def _watch_gradients(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def apply(grads: Any, *args: Any, **kwargs: Any) -> Any:
            if self._capture.active:
                grads = list(grads)
                with suppress(Exception):
                    self._capture.norm = gradient_norm(grads)
            return original(grads, *args, **kwargs)

        return apply

    # --- around the compiled step -----------------------------------------------------------------

    def _recorded(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def one_step(data: Any) -> Any:
            self._guarded("the batches of this model cannot be kept", self._put_batch, data)
            kept = [] if self._kept is None else [self._kept]
            self._inside = True
            try:
                with tf.control_dependencies(kept):  # or a step that raises could overtake its own batch
                    outputs, measured = step(data)
            finally:
                self._inside, self._kept = False, None
            self._guarded("the steps of this model cannot be watched", self._put_row, measured)
            return outputs

        return one_step

    def _guarded(self, what: str, action: Callable[[Any], None], argument: Any) -> None:
        try:
            action(argument)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong here must not stop training
            self._problem(f"{what}: {type(error).__name__}: {error}")

    def _put_batch(self, data: Any) -> None:
        self._rate = learning_rate(self._model.optimizer)
        replicas = self._replicas(data)
        if tf.executing_eagerly():
            self._on_trace()
        flat = [[p for p in tf.nest.flatten(r, expand_composites=True) if p is not None] for r in replicas]
        rows = tf.stack([_rows(r) for r in replicas])
        parts = flat[0] if len(flat) == 1 else [tf.concat(p, axis=0) for p in zip(*flat, strict=True)]
        generators = seed_generators(self._model)
        seeds = [tf.cast(tf.convert_to_tensor(state.value), tf.int64) for _, _, state in generators]
        entry = [
            self._state[0],
            rows,
            tf.stack(seeds) if seeds else tf.zeros((0, 2), tf.int64),
            *map(tf.convert_to_tensor, parts),
        ]
        dtypes = [t.dtype for t in entry]
        self.signature = unpack(tf.nest.map_structure(_spec, replicas[0]))
        if self._queue is None:
            self._structure = tf.nest.map_structure(_spec, replicas[0])
            self._seed_names = [(layer, index) for layer, index, _ in generators]
            with tf.init_scope(), tf.device("CPU:0"):
                self._queue = tf.queue.FIFOQueue(UNBOUNDED, dtypes)
            self._queue_dtypes = dtypes
        if dtypes != self._queue_dtypes:
            raise TypeError("batches of another structure than the first one's")
        self._kept = self._queue.enqueue(entry)

    def _put_row(self, measured: Any) -> None:
        if not tf.executing_eagerly():
            with tf.init_scope():
                self._on_trace()
        measured = tf.cast(measured, tf.float64)
        loss, norm = measured[0], measured[1]
        finite = weights_finite(self._model.weights)
        good = (tf.math.is_finite(loss) & finite) if self._known["loss"] else finite
        if self._known["norm"] and accumulates(self._model.optimizer):
            good &= tf.math.is_finite(norm)  # weights stay finite for some steps; the accumulator is poisoned already
        rate = self._rate if self._rate is not None else unknown()
        scale = tf.identity(self._scale)  # of this step: the optimizer may have changed its own since
        self._scale.assign(tf.cast(loss_scale(self._model.optimizer), tf.float64))
        step, failed = self._state[0], self._state[1]
        row = [tf.cast(step, tf.float64), loss, rate, norm / scale, scale, tf.cast(finite, tf.float64)]
        self._rows.enqueue(tf.stack(row))
        self._state.assign(tf.stack([step + 1, tf.where((failed < 0) & ~good, step, failed)]))
        if tf.executing_eagerly():
            self._on_trace()

    def _replicas(self, data: Any) -> list[Any]:
        count = self._strategy.num_replicas_in_sync
        if count == 1:
            return [data]
        local = self._strategy.experimental_local_results
        return [tf.nest.map_structure(lambda v, r=replica: local(v)[r], data) for replica in range(count)]

    # --- from Python, between executions ------------------------------------------------------------

    @property
    def seed_names(self) -> list[tuple[str | None, int]]:
        """Whose states `Batch.seeds` holds."""
        return self._seed_names

    @property
    def loss_known(self) -> bool:
        """Whether the step has a loss that can be seen; else only the weights are watched."""
        return self._known["loss"]

    def set_step(self, step: int) -> None:
        """Number the next step, which is the first one."""
        self._state.assign([step, -1])
        self._scale.assign(tf.cast(loss_scale(self._model.optimizer), tf.float64))

    def progress(self) -> tuple[int, int]:
        """(index of the next step, first step that looked non-finite or -1)."""
        step, failed = self._state.numpy()
        return int(step), int(failed)

    def forgive(self) -> None:
        """Go on after a false alarm."""
        self._state.assign([self.progress()[0], -1])

    def drain_batches(self) -> list[Batch]:
        """The batches since the last call. They are the very tensors the steps used."""
        if self._queue is None:
            return []
        entries = [self._queue.dequeue() for _ in range(int(self._queue.size()))]
        return [self._batch(entry) for entry in entries]

    def _batch(self, entry: list[Any]) -> Batch:
        step, rows, seeds, *parts = entry
        waiting = iter(parts)
        flat = [
            None if spec is None else next(waiting) for spec in tf.nest.flatten(self._structure, expand_composites=True)
        ]
        data = tf.nest.pack_sequence_as(self._structure, flat, expand_composites=True)
        return Batch(int(step), unpack(data), tuple(int(n) for n in rows.numpy()), seeds.numpy())

    def drain_rows(self) -> list[StepRow]:
        """The measurements since the last call."""
        waiting = int(self._rows.size())
        table = self._rows.dequeue_many(waiting).numpy() if waiting else np.zeros((0, 6))
        return [StepRow(int(r[0]), float(r[1]), float(r[2]), float(r[3]), float(r[4]), bool(r[5])) for r in table]


def unpack(data: Any) -> tuple[Any, Any, Any]:
    """(x, y, sample_weight) of what a data source yields, as Keras understands it."""
    import keras

    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    return x, y, sample_weight


def _unscaled(loss: Any, strategy: Any) -> Any:
    """Keras divides a replica's loss by the number of replicas, so that gradients can be summed."""
    return loss * strategy.num_replicas_in_sync if strategy.num_replicas_in_sync > 1 else loss


def _usable(tensor: Any) -> Any:
    """`tensor` if it belongs to the graph being built, else None (a train_step with a graph of its own)."""
    if tensor is None or not tf.is_symbolic_tensor(tensor):
        return tensor
    return tensor if tensor.graph is tf.compat.v1.get_default_graph() else None


def _rows(data: Any) -> Any:
    """Rows of the first tensor; those of a sparse or ragged one are not those of its parts."""
    first = next(leaf for leaf in tf.nest.flatten(data) if leaf is not None)
    if isinstance(first, tf.SparseTensor):
        return tf.cast(first.dense_shape[0], tf.int64)
    if isinstance(first, tf.RaggedTensor):
        return tf.cast(first.nrows(), tf.int64)
    first = tf.convert_to_tensor(first)
    return tf.shape(first, out_type=tf.int64)[0] if first.shape.rank != 0 else tf.constant(1, tf.int64)


def _spec(value: Any) -> Any:
    return tf.type_spec_from_value(value) if value is not None else None


def _replace(owner: Any, name: str, value: Any) -> Callable[[], None]:
    """Set an attribute of this one object past Keras' tracking; returns how to undo it."""
    had = name in vars(owner)
    old = vars(owner).get(name)
    object.__setattr__(owner, name, value)

    def undo() -> None:
        if had:
            object.__setattr__(owner, name, old)
        else:
            vars(owner).pop(name, None)

    return undo
