"""Turns what is in memory into the files of a run directory, piece by piece, so that one failing piece spares the rest."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ckptdoctor.recorder.batchfile import Batch, flatten, name_leaves, uniform, write_batches, write_stack
from ckptdoctor.recorder.rundir import RunDirectory
from ckptdoctor.recorder.tape import Snapshot, StateReader

SCHEMA_VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why recording ended; recorder.json's `reason`."""

    kind: str
    text: str
    step: int | None = None
    epoch: int | None = None
    batch: int | None = None
    loss: float | None = None
    variables: tuple[str, ...] = ()

    @property
    def is_failure(self) -> bool:
        """Something went non-finite, rather than training being interrupted."""
        return self.kind in ("loss", "weights", "gradients")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is being trained, and how.

    Attributes:
        model: a Keras model. optimizer: its optimizer, or None. strategy: the tf.distribute strategy.
        loop: `fit` or `custom`. params: what Keras tells callbacks about the fit.
    """

    model: Any
    optimizer: Any
    strategy: Any
    loop: str
    params: Mapping[str, Any]


@dataclass(slots=True)
class Saved:
    """One checkpoint on disk; an entry of recorder.json's `checkpoints`."""

    path: str
    step: int
    epoch: int
    kind: str
    finite: bool
    seed_generators: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Kept:
    """What memory holds when evidence is written.

    Attributes:
        model: its state is changed while a snapshot is saved, and put back.
        state: reads and writes it; None if the model was never built.
        start: the state before the first of `batches`; None if there is none.
        now: the present state.
        seed_names: whose states the batches carry. signature: type specs the step was traced for.
        optimizer: the model's, or that of a loop of the user's own.
    """

    model: Any
    state: StateReader | None
    start: Snapshot | None
    batches: Sequence[Batch]
    now: Snapshot | None
    seed_names: Sequence[tuple[str | None, int]]
    signature: tuple[Any, Any, Any]
    optimizer: Any = None


@dataclass(slots=True)
class Piece:
    """What one attempt at writing the evidence achieved."""

    window: dict[str, Any] | None = None
    checkpoints: list[Saved] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    refused: bool = False  # the directory took something not


def save_checkpoint(
    directory: RunDirectory, model: Any, snapshot: Snapshot, kind: str, *, optimizer: Any = None, finite: bool = True
) -> Saved:
    """Save the model as it is now; `snapshot` describes that state.

    A model that Keras cannot describe as a configuration is saved as weights alone. The state of an optimizer that the
    model does not know of, in a loop of the user's own, is saved where a compiled model's would be.

    Raises:
        OSError: the file could not be written.
    """
    ending = "" if kind in ("rolling", "window", "final") else f"_{kind}"
    stem = f"checkpoints/epoch_{snapshot.epoch:03d}_step_{snapshot.step:08d}{ending}"
    with warnings.catch_warnings(), _knowing(model, optimizer):
        warnings.simplefilter("ignore")
        try:
            path = directory.write(f"{stem}.keras", model.save)
        except OSError:
            raise
        except Exception:  # noqa: BLE001 - whatever a user's get_config raises
            path = directory.write(f"{stem}.weights.h5", model.save_weights)
    return Saved(f"checkpoints/{path.name}", snapshot.step, snapshot.epoch, kind, finite, snapshot.seeds)


@contextlib.contextmanager
def _knowing(model: Any, optimizer: Any) -> Iterator[None]:
    """Let a model that has no optimizer have this one meanwhile, past Keras' tracking of attributes."""
    if optimizer is None or getattr(model, "optimizer", None) is not None:
        yield
        return
    object.__setattr__(model, "optimizer", optimizer)
    try:
        yield
    finally:
        vars(model).pop("optimizer", None)


def write_evidence(directory: RunDirectory, kept: Kept, reason: Reason | None) -> Piece:
    """Write the checkpoint before the window, the batches, and the checkpoint of the present state.

    Args:
        directory: where.
        kept: what.
        reason: why; None at an orderly end.
    """
    done = Piece()
    kind = "final" if reason is None else "failed" if reason.is_failure else "interrupted"

    def present() -> None:
        if kept.now is not None:
            saved = save_checkpoint(
                directory, kept.model, kept.now, kind, optimizer=kept.optimizer, finite=kind != "failed"
            )
            done.checkpoints.append(saved)

    def before() -> None:
        if kept.start is None or kept.state is None or kept.now is None or not kept.batches:
            return
        done.window = _window_document(kept.start, kept)
        kept.state.restore(kept.start)
        try:
            saved = save_checkpoint(directory, kept.model, kept.start, "window", optimizer=kept.optimizer)
        finally:
            kept.state.restore(kept.now)
        done.checkpoints.append(saved)
        done.window["checkpoint"] = saved.path

    def arrays() -> None:
        if done.window is not None:
            _write_batches(directory, kept, done.window)

    order: list[tuple[str, Callable[[], None]]] = [
        ("the checkpoint before the last batches", before),
        ("the last batches", arrays),
        ("the present state", present),
    ]
    if kind == "interrupted":  # seconds may remain, and this is what training resumes from
        order.insert(0, order.pop())
    for what, write in order:
        try:
            write()
        except OSError as error:
            done.refused = True
            done.problems.append(f"{what} could not be written to '{directory.path}': {error.strerror or error}")
        except Exception as error:  # noqa: BLE001 - the other pieces are worth having
            done.problems.append(f"{what} could not be kept: {type(error).__name__}: {error}")
    return done


def _window_document(start: Snapshot, kept: Kept) -> dict[str, Any]:
    name, keys, *rest = start.numpy_random
    return {
        "checkpoint": None,
        "first_step": kept.batches[0].step,
        "last_step": kept.batches[-1].step,
        "batches": None,
        "structure": None,
        "traced_as": {},
        "rows": [list(b.rows) for b in kept.batches],
        "densified": [],
        "stored_as": {},
        "seed_generators": start.seeds,
        "seed_names": [list(n) for n in kept.seed_names],
        "seed_states_before_step": [None if b.seeds is None else b.seeds.tolist() for b in kept.batches],
        "python_random": start.python_random,
        "numpy_random": [name, keys.tolist(), *rest],
    }


def _write_batches(directory: RunDirectory, kept: Kept, window: dict[str, Any]) -> None:
    names = _input_names(kept.model)
    flat = [flatten(b, names) for b in kept.batches]
    arrays, steps = [a for a, _ in flat], [b.step for b in kept.batches]
    if uniform(arrays):
        target, stale = "last_batches.npz", "last_batches"
        directory.write(target, lambda p: write_stack(p, arrays, steps))
    else:
        target, stale = "last_batches", "last_batches.npz"
        directory.write(target, lambda p: write_batches(p, arrays, steps))
    directory.delete(stale)
    layouts = [layout for _, layout in flat]
    traced = name_leaves(kept.signature, names)[1]
    window |= {
        "batches": target,
        "structure": {k: v and v.document() for k, v in layouts[0].arguments.items()},
        "traced_as": {key: _shape(spec) for key, spec in traced},
        "densified": sorted(set().union(*(layout.densified for layout in layouts))),
        "stored_as": {k: v for layout in layouts for k, v in layout.stored_as.items()},
    }


def _shape(spec: Any) -> list[int | None] | None:
    return spec.shape.as_list() if spec.shape.rank is not None else None


def _input_names(model: Any) -> list[str]:
    try:
        return [str(t.name) for t in model.inputs]
    except (AttributeError, TypeError, ValueError):
        return []


def record_document(
    *,
    status: str,
    reason: Reason | None,
    step: int,
    epoch: int | None,
    started: str,
    written: str,
    window: dict[str, Any] | None,
    checkpoints: Sequence[Saved],
    training: dict[str, Any],
    environment: dict[str, Any],
    options: dict[str, Any],
    problems: Sequence[str],
) -> dict[str, Any]:
    """The whole of recorder.json."""
    from ckptdoctor import __version__

    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "ckptdoctor", "version": __version__},
        "status": status,
        "reason": None if reason is None else asdict(reason),
        "step": step,
        "epoch": epoch,
        "started": started,
        "written": written,
        "window": window,
        "checkpoints": [asdict(c) for c in checkpoints],
        "training": training,
        "environment": environment,
        "options": options,
        "problems": list(problems),
    }


def environment() -> dict[str, Any]:
    """Versions and switches that decide whether numbers can be reproduced."""
    import keras
    import numpy as np
    import tensorflow as tf

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "argv": [Path(sys.argv[0]).name] if sys.argv else [],
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "devices": [d.name for d in tf.config.list_logical_devices()],
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "deterministic_ops": _determinism(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
    }


def _determinism() -> bool | None:
    try:
        from tensorflow.python.framework.config import is_op_determinism_enabled
    except ImportError:
        return None
    return bool(is_op_determinism_enabled())


def training_document(subject: Subject) -> dict[str, Any]:
    """How the model was being trained."""
    model, optimizer, fit = subject.model, subject.optimizer, subject.loop == "fit"
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return {
        "loop": subject.loop,
        "epochs": subject.params.get("epochs"),
        "steps_per_epoch": subject.params.get("steps"),
        "steps_per_execution": getattr(model, "steps_per_execution", None) if fit else None,
        "jit_compile": getattr(model, "jit_compile", None) if fit else None,
        "run_eagerly": getattr(model, "run_eagerly", None) if fit else None,
        "dtype_policy": getattr(getattr(model, "dtype_policy", None), "name", None),
        "optimizer": type(inner).__name__ if inner is not None else None,
        "gradient_accumulation_steps": getattr(inner, "gradient_accumulation_steps", None),
        "loss_scaling": optimizer is not inner,
        "replicas": subject.strategy.num_replicas_in_sync,
    }
