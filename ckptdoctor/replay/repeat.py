"""The flight recorder's steps, taken once more from the state before them: exactly as far as this can be done.

Bits are equal where training ran Keras' own step on one device, with the versions and the processor at hand. Whatever
differs is said.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from ckptdoctor.model import RecordedWindow, Repeat
from ckptdoctor.replay.failure import brief
from ckptdoctor.replay.reproduce import RunOutcome, run
from ckptdoctor.replay.session import Session, Start
from ckptdoctor.replay.state import put

MAX_VARIABLES = 64  # the recorder lists as many
SECONDS = 40.0  # with the compilation this must stay below the silence that the parent takes for a hang
_ERRORS = (tf.errors.OpError, ValueError, TypeError, NotImplementedError, AttributeError)
MOST_XLA = 100  # layers; XLA compiles some ten of them a second


def repeat_window(session: Session, start: Start, window: RecordedWindow) -> RunOutcome | None:
    """Take the recorded steps once, in order, and hand over how they compare with what was recorded.

    Returns:
        how they went; None where they could not be taken to their end, which is then said.
    """
    session.reporter.stage(f"repeating the recorded steps {window.first_step} to {window.last_step}")
    mode = _mode(session)
    try:
        try:
            outcome, variables = _take(session, start, mode)
        except _ERRORS:
            if mode != "xla":
                raise
            mode = "graph"  # XLA does not compile everything that a step may hold
            outcome, variables = _take(session, start, mode)
    except _ERRORS as error:
        session.reporter.found(repeat=Repeat("not used", f"they cannot be taken ({brief(error, 160)})"))
        return None
    if outcome.out_of_time and outcome.failed_step is None:
        reason = f"{outcome.steps} of {len(window.rows)} steps took {outcome.seconds:.0f} seconds"
        session.reporter.found(repeat=Repeat("not used", reason))
        return None
    session.mode = mode
    session.reporter.found(repeat=_compared(session, window, outcome, variables, mode))
    return outcome


def _take(session: Session, start: Start, mode: str) -> tuple[RunOutcome, tuple[str, ...]]:
    batches = session.recording.batches
    with tf.device(session.device), session.step.taken_as(mode):
        outcome = run(session.step, start.snapshot, batches, len(batches), deadline=time.monotonic() + SECONDS)
        if outcome.error:
            raise ValueError(outcome.error)
        return outcome, _nonfinite_after(session, outcome)


def _mode(session: Session) -> str:
    """How the steps are taken: as training took them.

    A loop of the user's own is taken op by op, where no fused op hides a NaN. XLA is used where training used it on the
    same kind of device, and where compiling takes seconds.
    """
    training = session.request.training
    if training.run_eagerly or training.loop == "custom":
        return "eager"
    same_device = ("GPU" in session.request.environment.get("devices", "")) == session.device.startswith("GPU")
    return "xla" if training.jit_compile and same_device and len(session.step.owners.layers) <= MOST_XLA else "graph"


def _nonfinite_after(session: Session, outcome: RunOutcome) -> tuple[str, ...]:
    """Paths of the weights that are non-finite after the failing step, in the model's order."""
    if outcome.failed_batch is None or outcome.before is None:
        return ()
    put(session.step.variables, outcome.before)
    session.step(outcome.failed_batch)
    found = []
    for variable in session.rebuilt.model.weights:
        value = tf.convert_to_tensor(getattr(variable, "value", variable))
        value = tf.cast(value, tf.float32) if value.dtype.is_floating and value.dtype.size < 4 else value
        if value.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(value))):
            found.append(str(getattr(variable, "path", None) or variable.name))
    return tuple(found[:MAX_VARIABLES])


def _compared(
    session: Session, window: RecordedWindow, outcome: RunOutcome, variables: tuple[str, ...], mode: str
) -> Repeat:
    request = session.request
    failed = None if outcome.failed_step is None else window.first_step + outcome.failed_step
    recorded = dict(window.losses)
    pairs = [
        (r.loss, recorded[window.first_step + r.step])
        for r in outcome.records
        if window.first_step + r.step in recorded
    ]
    finite = [(mine, theirs) for mine, theirs in pairs if math.isfinite(mine) and math.isfinite(theirs)]
    differences = [abs(mine - theirs) / max(abs(theirs), 1e-30) for mine, theirs in finite]
    known = failed is not None and failed == request.recorded_step and not session.rebuilt.plan.substituted
    return Repeat(
        outcome="finite" if failed is None else "same step" if failed == request.recorded_step else "other step",
        first_step=window.first_step,
        last_step=window.last_step,
        failed_step=failed,
        compared=len(finite),
        equal=sum(mine == theirs for mine, theirs in finite),
        difference=max(differences, default=None),
        seeds=len(window.seeds) - len(session.seeds_lost),
        variables=variables,
        variables_agree=_same(variables, request.recorded_variables) if known else None,
        honoured=tuple(_honoured(session, window, mode)),
        not_honoured=tuple(_not_honoured(session, window, mode)),
    )


def _same(mine: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether two lists of paths name the same weights: the model's own name in front may be absent, or another."""
    return len(mine) == len(theirs) and all(
        {a, a.partition("/")[2]} & {b, b.partition("/")[2]} for a, b in zip(mine, theirs, strict=True)
    )


def _honoured(session: Session, window: RecordedWindow, mode: str) -> Iterator[str]:
    training = session.request.training
    if session.step.dialect.loss_scale(session.rebuilt.model.optimizer) is not None:
        yield "the loss scale"
    if (training.gradient_accumulation_steps or 0) > 1:
        yield f"gradients accumulated over {training.gradient_accumulation_steps} steps"
    if window.sample_weight is not None:
        yield "sample weights"
    if session.traced_as_recorded and mode == "graph":
        yield "the shapes the step was compiled for"
    if mode == "xla":
        yield "XLA"
    if window.stored_as:
        yield f"{', '.join(sorted(set(window.stored_as.values())))} as the step saw it"


def _not_honoured(session: Session, window: RecordedWindow, mode: str) -> Iterator[str]:
    """What differs from training, in words that complete 'Not repeated:'."""
    request, training, model = session.request, session.request.training, session.rebuilt.model
    if training.replicas > 1:
        yield (
            f"{training.replicas} replicas (the whole batch was taken on one device, so batch statistics and dropout masks "
            "are those of the whole batch)"
        )
    if training.jit_compile and mode != "xla":
        yield "XLA (jit_compile), which rounds otherwise and draws other dropout masks"
    if training.loop == "custom":
        yield "the loop of your own (the step is Keras' own, with the loss and the optimizer that --build compiled)"
    elif type(model).train_step is not session.rebuilt.dialect.keras.Model.train_step and _own_step(model):
        yield "the model's own train_step (the step is Keras' own)"
    if session.rebuilt.plan.substituted:
        yield f"the loss '{session.rebuilt.plan.custom}' (its code is not at hand)"
    if window.densified:
        yield f"ragged or sparse {', '.join(window.densified)} (padded with zeros)"
    yield from session.seeds_lost
    yield from _other_versions(request.environment, session.device)


def _own_step(model: Any) -> bool:
    return not type(model).__module__.startswith(("keras.", "tf_keras."))


def _other_versions(environment: dict[str, str], device: str) -> Iterator[str]:
    import keras
    import numpy as np

    here = {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__}
    for name, version in here.items():
        if environment.get(name, version) != version:
            yield f"{name} {environment[name]} (here {version})"
    if "GPU" in environment.get("devices", "") and not device.startswith("GPU"):
        yield "the GPU"
