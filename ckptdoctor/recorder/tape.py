"""What is kept in memory: windows of batches, each with the state of training before its first batch.

A window begins with a snapshot: model weights, optimizer variables and seed-generator states. Running its batches from
there repeats training exactly. Two windows are held: when the current one is full, the one before it is dropped and a new
one begins, so that at any moment at least one complete window leads up to the latest step.

A snapshot copies nothing when it is taken. It holds the tensors that the variables hold; TensorFlow gives a variable
whose tensor is held elsewhere a new one at its next update. The cost is one copy of every changed variable per window.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ckptdoctor.recorder.batchfile import Batch
from ckptdoctor.recorder.rng import seed_entries, seed_generators


@dataclass(slots=True)
class Snapshot:
    """The state of training before step `step`.

    Attributes:
        step: index of the step that comes next. epoch: completed epochs.
        values: one tensor per component of `StateReader.components`.
        seeds: entries as recorder.json holds them.
        python_random, numpy_random: states of `random` and `numpy.random`.
    """

    step: int
    epoch: int
    values: tuple[Any, ...]
    seeds: list[dict[str, Any]]
    python_random: Any
    numpy_random: Any


@dataclass(slots=True)
class Window:
    """A snapshot and the batches since."""

    start: Snapshot
    batches: list[Batch] = field(default_factory=list)


class StateReader:
    """Reads and writes everything a training step changes, except metrics.

    With several replicas every replica's copy counts: some variables (seed states) may differ between them.
    """

    def __init__(self, model: Any, optimizer: Any, strategy: Any) -> None:
        import tensorflow as tf

        generators = seed_generators(model)
        self._names = [(layer, index) for layer, index, _ in generators]
        variables = [*model.weights, *(optimizer.variables if optimizer is not None else [])]
        self._ordinary = _components(variables, strategy)
        self._seeds = _components([state for _, _, state in generators], strategy)
        self._per_seed = len(self._seeds) // max(1, len(generators))
        self.components = [*self._ordinary, *self._seeds]
        self._read = tf.function(self._read_all, autograph=False).get_concrete_function()

    def _read_all(self) -> list[Any]:
        return [component.read_value() for component in self.components]

    def snapshot(self, step: int, epoch: int) -> Snapshot:
        """The state as it is now."""
        values = tuple(self._read())
        return Snapshot(step, epoch, values, self._entries(values), random.getstate(), np.random.get_state())  # noqa: NPY002 - the user's state

    def restore(self, snapshot: Snapshot) -> None:
        """Make `snapshot` the state of the model, optimizer and generators."""
        for component, value in zip(self.components, snapshot.values, strict=True):
            component.assign(value)

    def _entries(self, values: Sequence[Any]) -> list[dict[str, Any]]:
        states = values[len(self._ordinary) :: self._per_seed] if self._names else ()
        return seed_entries(self._names, [s.numpy() for s in states])


def _components(variables: Sequence[Any], strategy: Any) -> list[Any]:
    """The tf.Variables behind Keras variables, each once, every replica's copy."""
    found: dict[int, Any] = {}
    for variable in variables:
        value = getattr(variable, "value", variable)
        for component in strategy.experimental_local_results(value):
            found.setdefault(id(component), component)
    return list(found.values())


class Tape:
    """The windows. `stride` batches fill one."""

    def __init__(self, stride: int) -> None:
        self._stride = stride
        self._windows: list[Window] = []

    @property
    def started(self) -> bool:
        """Whether there is a snapshot."""
        return bool(self._windows)

    def full(self, step: int) -> bool:
        """Whether the current window is complete before step `step`, so that a new one should begin."""
        return bool(self._windows) and step - self._windows[-1].start.step >= self._stride

    @property
    def held(self) -> int:
        """Batches in memory."""
        return sum(len(w.batches) for w in self._windows)

    def begin(self, snapshot: Snapshot) -> None:
        """Start a window and drop the one before the last."""
        self._windows = [*self._windows[-1:], Window(snapshot)]

    def add(self, batch: Batch) -> None:
        """One more batch. Batches from before the first snapshot cannot be replayed and are not held."""
        if self._windows and batch.step >= self._windows[-1].start.step:
            self._windows[-1].batches.append(batch)

    def leading_to(self, step: int) -> tuple[Snapshot, list[Batch]] | None:
        """The oldest snapshot, and all batches from there up to and including `step`; None without a snapshot."""
        if not self._windows:
            return None
        batches = [b for w in self._windows for b in w.batches if b.step <= step]
        return self._windows[0].start, batches

    def clear(self) -> None:
        """Forget everything."""
        self._windows = []
