"""One training run under the recorder: when to take what, and the order in which evidence reaches the disk."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ckptdoctor.recorder.batchfile import Batch
from ckptdoctor.recorder.measures import accumulates
from ckptdoctor.recorder.record import (
    Kept,
    Reason,
    Saved,
    Subject,
    environment,
    record_document,
    save_checkpoint,
    training_document,
    write_evidence,
)
from ckptdoctor.recorder.rundir import (
    EPOCHS,
    RECORD,
    STEPS,
    RunDirectory,
    RunDirectoryError,
    fallback_directory,
    timestamp,
)
from ckptdoctor.recorder.seam import StepRow
from ckptdoctor.recorder.tape import Snapshot, StateReader, Tape

LOG_SECONDS = 5.0  # steps.jsonl lags by no more than a window or this
logger = logging.getLogger("ckptdoctor.recorder")


@dataclass(frozen=True, slots=True)
class Options:
    """The recorder's options, as `FlightRecorder` documents them."""

    batches: int
    checkpoint_seconds: float
    checkpoint_epochs: bool
    checkpoint_share: float
    gradient_norm: bool
    stop: bool


class Session:
    """Everything between the first step and the last.

    Attributes:
        subject: what is being trained.
        step: training steps taken so far; the index of the next one.
        epoch: index of the current epoch, None in a custom loop.
        problems: sentences about what could not be done.
        done: evidence has been written; nothing more will be recorded.
    """

    def __init__(self, asked: str, options: Options, subject: Subject, problem: Callable[[str], None]) -> None:
        """Nothing is touched yet; `problem` takes a sentence about something that cannot be done."""
        self.subject = subject
        self.options = options
        self.problems: list[str] = []
        self.step = 0
        self.epoch: int | None = None
        self.done = False
        self.seed_names: list[tuple[str | None, int]] = []
        self.signature: tuple[Any, Any, Any] = (None, None, None)
        self._model, self._optimizer, self._strategy = subject.model, subject.optimizer, subject.strategy
        self._problem = problem
        self._tape = Tape(max(1, options.batches // 2))
        self._state: StateReader | None = None
        self._rows: deque[StepRow] = deque(maxlen=4096)
        self._epoch_start = 0
        self._completed = 0
        self._started = timestamp()
        self._saved: list[Saved] = []
        self._save_cost = 0.0
        self._last_saved_step = -1
        self._last_save = self._last_log = time.monotonic()
        self._directory = RunDirectory(asked)
        self._usable = False
        self._header: list[str] | None = None

    # --- beginning ------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the run directory; without one, evidence is kept in memory and goes to temporary files in the end."""
        try:
            self._directory.open()
            self._usable = True
            if self._directory.note:
                self._problem(self._directory.note)
            self._adopt(self._directory.earlier())
            self._write_record("running", None, None)
        except (OSError, RunDirectoryError) as error:
            self._problem(f"{error} (nothing is written before training fails, and then to temporary files)")
            self._usable = False

    def _adopt(self, record: Mapping[str, Any] | None) -> None:
        """Go on after an earlier run in the same directory: its failure is moved aside, its checkpoints are ours."""
        if record is None:
            return
        entries = [e for e in record.get("checkpoints", []) if isinstance(e, dict)]
        if record.get("status") == "failed":
            aside = self._directory.put_aside(record)
            logger.info("the evidence of an earlier failure was moved to %s", self._directory.path / str(aside))
        for entry in entries:
            path = str(entry.get("path"))
            if entry.get("finite") is True and (self._directory.path / path).is_file():
                seeds = entry.get("seed_generators") or []
                self._saved.append(Saved(path, int(entry["step"]), int(entry["epoch"]), "rolling", True, seeds))

    def begin(self, step: int, *, build: bool = False) -> None:
        """Begin the first window before step `step`, if all variables exist by now.

        With `build`, an optimizer that has no slots yet gets them, as its first step would give them to it.
        """
        if self._tape.started or not self._model.built:
            return
        if build and self._optimizer is not None and not self._optimizer.built:
            with self._strategy.scope():
                self._optimizer.build(self._model.trainable_variables)
        if self._built():
            self._rotate(step)

    def _built(self) -> bool:
        return bool(self._model.built) and (self._optimizer is None or bool(self._optimizer.built))

    @property
    def started(self) -> bool:
        """Whether the first window has begun."""
        return self._tape.started

    # --- after steps ----------------------------------------------------------------------------

    def take(self, batches: Sequence[Batch], rows: Sequence[StepRow]) -> None:
        """Keep batches, log measurements."""
        for batch in batches:
            self._tape.add(batch)
        self._rows.extend(rows)
        if rows and self._usable:
            self._attempt("the log", lambda: self._directory.append(STEPS, [self._line(r) for r in rows]))
        self._last_log = time.monotonic()

    def wants_rotation(self) -> bool:
        """Whether the current window is complete."""
        return self._tape.full(self.step)

    def wants_log(self) -> bool:
        """Whether measurements have waited long enough."""
        return time.monotonic() - self._last_log > LOG_SECONDS

    def rotate(self) -> None:
        """Begin a new window at the present, finite state; save it, if it is time."""
        self._rotate(self.step)
        if time.monotonic() - self._last_save >= self.options.checkpoint_seconds:
            self._roll()

    def _rotate(self, step: int) -> None:
        if self._state is None:
            self._state = StateReader(self._model, self._optimizer, self._strategy)
        self._tape.begin(self._state.snapshot(step, self._completed))

    def epoch_begin(self, epoch: int) -> None:
        """`epoch` counts from 0."""
        self.epoch = self._completed = epoch
        self._epoch_start = self.step

    def epoch_end(self, epoch: int, logs: Mapping[str, Any]) -> None:
        """Log the epoch's metrics and save a checkpoint, if it may cost its time."""
        self._completed = epoch + 1
        if self._usable:
            self._attempt("the log", lambda: self._log_epoch(epoch, logs))
        if self.options.checkpoint_epochs:
            self._roll()

    def _roll(self) -> None:
        """Save the rolling pair's next member: only whole, finite states, and only for a small share of the time."""
        now = time.monotonic()
        if (
            not self._usable
            or self._state is None
            or self._save_cost > self.options.checkpoint_share * (now - self._last_save)
        ):
            return
        if self.step == self._last_saved_step:
            return
        snapshot = self._state.snapshot(self.step, self._completed)
        self._attempt("a checkpoint", lambda: self._save_rolling(snapshot))
        self._last_save = time.monotonic()
        self._save_cost = self._last_save - now

    def _save_rolling(self, snapshot: Snapshot) -> None:
        new = save_checkpoint(self._directory, self._model, snapshot, "rolling", optimizer=self._optimizer)
        self._last_saved_step = snapshot.step
        self._saved = [*(s for s in self._saved if s.path != new.path), new]
        old, self._saved = self._saved[:-2], self._saved[-2:]
        self._write_record("running", None, None)
        for entry in old:
            self._directory.delete(entry.path)

    # --- failure and end --------------------------------------------------------------------------

    def confirm(self, step: int, *, loss_known: bool = True) -> Reason | None:
        """Look exactly at what the quick check found at step `step`; None for a false alarm."""
        row = next((r for r in self._rows if r.step == step), None)
        loss = row.loss if row is not None else math.nan
        broken = tuple(v.path for v in self._model.weights if not _finite(v))
        where = f"at step {step}" + (
            "" if self.epoch is None else f" (epoch {self.epoch}, batch {step - self._epoch_start})"
        )
        if row is not None and loss_known and not math.isfinite(loss):
            kind, text = "loss", f"the loss became {_spoken(loss)} {where}"
        elif broken:
            kind = "weights"
            text = f"{len(broken)} weight tensors became non-finite {where}, first {broken[0]}, while the loss was {loss:.6g}"
        elif accumulates(self._optimizer) and not all(_finite(v) for v in self._optimizer.variables):
            kind, text = (
                "gradients",
                f"the accumulated gradients became non-finite {where}, while the loss was {loss:.6g}",
            )
        else:
            return None
        batch = None if self.epoch is None else step - self._epoch_start
        return Reason(kind, text, step, self.epoch, batch, loss, broken[:64])

    def write(self, reason: Reason | None) -> str:
        """Write everything that was kept and end the recording; `reason` is None at an orderly end.

        Returns:
            The message for the user.
        """
        self.done = True
        if reason is None and not self._usable:
            return f"training finished; nothing could be written to {self._directory.asked}"
        last = reason.step if reason is not None and reason.is_failure and reason.step is not None else self.step
        window = self._tape.leading_to(last)
        now = None
        if self._state is None and self._built():
            self._state = StateReader(self._model, self._optimizer, self._strategy)
        if self._state is not None:
            now = self._state.snapshot(self.step, self._completed)
        start, batches = window or (None, [])
        kept = Kept(self._model, self._state, start, batches, now, self.seed_names, self.signature, self._optimizer)
        status = "finished" if reason is None else "failed" if reason.is_failure else "interrupted"
        directory, usable = self._directory, self._usable
        for attempt in range(2):
            if not usable:
                directory = fallback_directory(self._directory.asked)
            done = write_evidence(directory, kept, reason)
            if attempt == 0 and usable and done.refused and reason is not None:
                usable = False
                self.problems.extend(done.problems)
                continue
            break
        self.problems.extend(done.problems)
        self._finish_record(directory, status, reason, done.window, done.checkpoints)
        directory.settle()
        self._tape.clear()
        if directory is not self._directory:
            directory.close()
        return self._message(directory, reason, done.window)

    def _finish_record(
        self,
        directory: RunDirectory,
        status: str,
        reason: Reason | None,
        window: dict[str, Any] | None,
        new: list[Saved],
    ) -> None:
        written = {n.path for n in new}
        rolling = [s for s in self._saved if s.path not in written] if directory is self._directory else []
        kept = (
            rolling[-1:] if status == "finished" and new else rolling
        )  # the final state and the one before it suffice
        self._saved = [*kept, *new]
        try:
            directory.write_json(RECORD, self._document(status, reason, window))
        except OSError as error:
            self.problems.append(f"{RECORD} could not be written to '{directory.path}': {error.strerror or error}")
        else:
            for entry in rolling[: len(rolling) - len(kept)]:
                directory.delete(entry.path)
        for problem in self.problems[:]:
            self._problem(problem)

    def close(self) -> None:
        """Give the run directory free."""
        self._directory.close()

    # --- documents ------------------------------------------------------------------------------

    def _message(self, directory: RunDirectory, reason: Reason | None, window: dict[str, Any] | None) -> str:
        if reason is None:
            return f"training finished; what was kept is in {directory.path}"
        files = [s.path for s in self._saved if s.kind in ("failed", "interrupted")]
        if window is not None:
            count = window["last_step"] - window["first_step"] + 1
            parts = [p for p in (window["checkpoint"], window["batches"]) if p]
            files.insert(0, f"{' and '.join(parts)} ({count} batches, to repeat it)" if parts else "no batches")
        named = ", ".join([*files, RECORD])
        return f"{reason.text}. Kept in {directory.path}: {named}. Next: ckptdoctor inspect {directory.path}"

    def _document(self, status: str, reason: Reason | None, window: dict[str, Any] | None) -> dict[str, Any]:
        return record_document(
            status=status,
            reason=reason,
            step=self.step,
            epoch=self.epoch,
            started=self._started,
            written=timestamp(),
            window=window,
            checkpoints=self._saved,
            training=training_document(self.subject),
            environment=environment(),
            options=asdict(self.options),
            problems=self.problems,
        )

    def _write_record(self, status: str, reason: Reason | None, window: dict[str, Any] | None) -> None:
        self._directory.write_json(RECORD, self._document(status, reason, window))

    def _line(self, row: StepRow) -> str:
        entry: dict[str, Any] = {"step": row.step}
        if self.epoch is not None:
            entry |= {"epoch": self.epoch, "batch": row.step - self._epoch_start}
        entry["loss"] = row.loss
        for name, value in (("learning_rate", row.learning_rate), ("grad_norm", row.grad_norm)):
            if not (math.isnan(value) and name == "learning_rate"):
                entry[name] = value
        if row.loss_scale != 1.0:
            entry["loss_scale"] = row.loss_scale
        return json.dumps(entry)

    def _log_epoch(self, epoch: int, logs: Mapping[str, Any]) -> None:
        values = {k: float(v) for k, v in logs.items() if np.ndim(v) == 0}
        path = self._directory.path / EPOCHS
        if self._header is None:
            first = path.open(encoding="utf-8").readline().strip() if path.is_file() else ""
            self._header = first.split(",")[1:] if first.startswith("epoch,") else sorted(values)
            if not first:
                self._directory.append(EPOCHS, [",".join(["epoch", *self._header])])
        cells = [repr(values[k]) if k in values else "NA" for k in self._header]
        self._directory.append(EPOCHS, [",".join([str(epoch), *cells])])

    def _attempt(self, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            self._problem(f"{what} could not be written to '{self._directory.path}': {error.strerror or error}")


def _finite(variable: Any) -> bool:
    value = np.asarray(variable.numpy())
    if value.dtype.kind not in "fcV":
        return True
    return bool(np.isfinite(value.astype(np.float32) if value.dtype.kind == "V" else value).all())


def _spoken(value: float) -> str:
    return "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"
