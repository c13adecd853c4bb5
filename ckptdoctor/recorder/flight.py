"""The recorder as users meet it: a Keras callback for `fit`, and a context manager for loops of their own."""

from __future__ import annotations

import atexit
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any

import keras
import tensorflow as tf

from ckptdoctor.model import CkptDoctorError
from ckptdoctor.recorder.loop import Loop, Step
from ckptdoctor.recorder.record import Reason, Subject
from ckptdoctor.recorder.seam import Seam
from ckptdoctor.recorder.session import Options, Session
from ckptdoctor.recorder.signals import SignalGuard

logger = logging.getLogger("ckptdoctor.recorder")


class RecorderWarning(UserWarning):
    """Something that the recorder could not do. Training goes on."""


class TrainingFailedError(CkptDoctorError):
    """Raised out of `FlightRecorder.step` when something went non-finite; its text says what was written where."""


class FlightRecorder(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Keeps the last batches and the state before them, and writes a run directory when training dies.

    For `fit`, pass it as a callback. For a loop of your own:

        with FlightRecorder("run/", model=model, optimizer=optimizer) as recorder:
            for x, y in data:
                with recorder.step(x, y) as step:
                    loss, gradients = train_one(x, y)
                    step.loss(loss)
                    step.gradients(gradients)

    At the first non-finite loss or weight (and on SIGTERM, Ctrl-C or an exception in a step) it writes what
    `ckptdoctor.recorder` describes. It never raises an exception of its own into training: what it cannot do becomes
    one `RecorderWarning`, and an entry under `problems` in recorder.json.

    Attributes:
        failure: what went non-finite, or None.
        message: what was written where, after the end.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        batches: int = 16,
        checkpoint_epochs: bool = True,
        checkpoint_seconds: float = 600.0,
        checkpoint_share: float = 0.01,
        gradient_norm: bool = True,
        stop: bool = True,
        model: Any = None,
        optimizer: Any = None,
    ) -> None:
        """Nothing is touched before training begins.

        Args:
            directory: the run directory; made if need be.
            batches: at most so many batches are held in memory, and at least half as many are written. With
                steps_per_execution above half of it, two executions' batches are held.
            checkpoint_epochs: save one of the rolling checkpoints at the end of an epoch.
            checkpoint_seconds: save one also after so many seconds.
            checkpoint_share: rolling checkpoints wait rather than take more than this share of the time.
            gradient_norm: measure it at every step.
            stop: stop training at the first non-finite value; otherwise only write.
            model: for a loop of your own: the model. optimizer: its optimizer, if it is not `model.optimizer`.

        Raises:
            ValueError: `batches` below 2.
        """
        super().__init__()
        if batches < 2:
            raise ValueError(
                f"expected batches of at least 2, found {batches}: one window is kept while the next fills"
            )
        self.failure: Reason | None = None
        self.message = ""
        self._asked = os.fspath(directory)
        self._options = Options(batches, checkpoint_seconds, checkpoint_epochs, checkpoint_share, gradient_norm, stop)
        self._loop_model, self._loop_optimizer = model, optimizer
        self._session: Session | None = None
        self._loop: Loop | None = None
        self._seam: Seam | None = None
        self._busy = False
        self._warned = False
        self._guard = SignalGuard(self._on_signal, lambda: self._busy)

    # --- Keras ----------------------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras' signature
        """Look into the training step from now on."""
        self._protected(self._begin_fit)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras' signature
        """`epoch` counts from 0."""
        if (session := self._live()) is not None:
            session.epoch_begin(epoch)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Log, and perhaps save."""
        if (session := self._live()) is not None:
            self._protected(lambda: self._end_epoch(session, epoch, logs or {}))

    def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras' signature
        """Write what was kept, and leave the model as it was."""
        self._protected(lambda: self._finish(None))
        self._leave()

    # --- a loop of one's own ----------------------------------------------------------------------

    def __enter__(self) -> FlightRecorder:
        """Begin, if a model was given; else `fit` will."""
        if self._loop_model is not None:
            self._protected(self._begin_loop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what was kept, if nothing has been written yet."""
        reason = None
        if error is not None and not isinstance(error, TrainingFailedError):
            reason = Reason("exception", _spoken(error))
        if self._session is not None:
            self._protected(lambda: self._finish(reason))
            self._leave()

    @contextmanager
    def step(self, x: Any, y: Any = None, sample_weight: Any = None) -> Iterator[Step]:
        """One training step on this batch.

        Raises:
            TrainingFailedError: at its end, when the loss or the weights are non-finite and `stop` is set.
        """
        step, loop = Step(), self._loop
        if loop is not None and self._live() is not None:
            self._protected(lambda: loop.before((x, y, sample_weight), step))
        try:
            yield step
        except BaseException as error:
            self._protected(partial(self._finish, Reason("exception", _spoken(error))))
            raise
        if loop is not None and self._live() is not None:
            self._protected(lambda: self._finish_failed(loop.after(step)))
            if self.failure is not None and self._options.stop:
                raise TrainingFailedError(self.message)

    def _finish_failed(self, reason: Reason | None) -> None:
        if reason is not None:
            self._finish(reason)

    def _begin_loop(self) -> None:
        model = self._loop_model
        optimizer = self._loop_optimizer or getattr(model, "optimizer", None)
        strategy = getattr(model, "distribute_strategy", None) or tf.distribute.get_strategy()
        session = Session(self._asked, self._options, Subject(model, optimizer, strategy, "custom", {}), self._problem)
        session.step = _iterations(optimizer)
        self._loop = Loop(session)
        self._open(session)

    # --- the way through a fit ----------------------------------------------------------------------

    def _begin_fit(self) -> None:
        if keras.backend.backend() != "tensorflow":
            self._problem(
                f"the recorder needs Keras on TensorFlow, found {keras.backend.backend()}; nothing is recorded"
            )
            return
        if self._session is not None:  # an earlier fit ended by an exception outside of a step
            self._finish(Reason("exception", "training ended without its callbacks being told"))
            self._leave()
        model = self.model
        subject = Subject(model, model.optimizer, model.distribute_strategy, "fit", dict(self.params or {}))
        session = Session(self._asked, self._options, subject, self._problem)
        self._open(session)
        seam = Seam(model, gradient_norm=self._options.gradient_norm, on_trace=self._on_trace, problem=self._problem)
        self._seam = seam
        inner = seam.install()
        model.train_function = self._recorded(inner, seam, session)

    def _open(self, session: Session) -> None:
        self.failure, self.message, self._warned = None, "", False
        self._session = session
        session.open()
        self._guard.arm()
        atexit.register(self._at_exit)

    def _on_trace(self) -> None:
        """All variables exist, and the next step has not changed them yet."""
        session, seam = self._session, self._seam
        if session is not None and seam is not None and not session.started and not session.done:
            session.begin(seam.progress()[0], build=tf.executing_eagerly() and self.model.run_eagerly)

    def _recorded(self, inner: Callable[[Any], Any], seam: Seam, session: Session) -> Callable[[Any], Any]:
        """Keras' train function: `steps_per_execution` steps on what the iterator yields."""
        ready = False

        def train_function(iterator: Any) -> Any:
            nonlocal ready
            if session.done:
                return inner(iterator)
            if not ready:
                ready = True
                self._protected(lambda: self._number_steps(seam, session))
            try:
                logs = inner(iterator)
            except (StopIteration, tf.errors.OutOfRangeError):  # the data has ended
                raise
            except BaseException as error:
                self._protected(partial(self._finish, Reason("exception", _spoken(error), session.step, session.epoch)))
                self._leave()
                raise
            self._protected(lambda: self._after_execution(seam, session))
            return logs

        return train_function

    def _number_steps(self, seam: Seam, session: Session) -> None:
        """Go on counting where the optimizer stands: other callbacks may have restored it just before."""
        session.step = _iterations(self.model.optimizer)
        session.epoch_begin(session.epoch or 0)
        seam.set_step(session.step)

    def _after_execution(self, seam: Seam, session: Session) -> None:
        step, failed = seam.progress()
        if step == session.step:
            self._problem(
                "this model's train function does not run its steps as Keras' own does; nothing can be recorded"
            )
            session.done = True
            return
        session.step = step
        session.begin(step)
        if failed >= 0:
            self._pull(seam, session)
            reason = session.confirm(failed, loss_known=seam.loss_known)
            if reason is None:
                seam.forgive()
            else:
                self._finish(reason)
                self.model.stop_training = self._options.stop or self.model.stop_training
                return
        if session.wants_rotation():
            self._pull(seam, session)
            session.rotate()
        elif session.wants_log():
            self._pull(seam, session)

    def _pull(self, seam: Seam, session: Session) -> None:
        batches = seam.drain_batches()
        session.seed_names, session.signature = seam.seed_names, seam.signature
        session.take(batches, seam.drain_rows())

    def _end_epoch(self, session: Session, epoch: int, logs: Mapping[str, Any]) -> None:
        if self._seam is not None:
            self._pull(self._seam, session)
        session.epoch_end(epoch, logs)

    # --- the end ------------------------------------------------------------------------------------

    def _live(self) -> Session | None:
        return self._session if self._session is not None and not self._session.done else None

    def _finish(self, reason: Reason | None) -> None:
        """Write what was kept, once. What went non-finite unnoticed so far outranks `reason`."""
        session = self._live()
        if session is None:
            return
        if self._seam is not None:
            step, failed = self._seam.progress()
            session.step = max(step, session.step)
            self._pull(self._seam, session)
            found = session.confirm(failed, loss_known=self._seam.loss_known) if failed >= 0 else None
            reason = found or reason
        self.message = session.write(reason)
        if reason is not None:
            self.failure = reason if reason.is_failure else None
            logger.error("ckptdoctor: %s", self.message)

    def _leave(self) -> None:
        """Give back the model, the signals and the directory."""
        atexit.unregister(self._at_exit)
        self._guard.disarm()
        if self._seam is not None:
            self._seam.remove()
            self._seam = None
        if self._session is not None:
            self._session.close()
            self._session = self._loop = None

    def _on_signal(self, name: str) -> None:
        session = self._live()
        if session is not None:
            reason = Reason("signal", f"training was interrupted by {name}", session.step, session.epoch)
            self._protected(lambda: self._finish(reason))
            self._leave()

    def _at_exit(self) -> None:
        self._protected(lambda: self._finish(Reason("exit", "the program ended during training")))
        self._leave()

    # --- never in the way -----------------------------------------------------------------------------

    def _protected(self, action: Callable[[], None]) -> None:
        """Run a part of the recorder so that its own errors cannot reach training; signals wait meanwhile."""
        outer, self._busy = self._busy, True
        try:
            action()
        except Exception as error:  # training is never broken by the recorder
            if self._session is not None:
                self._session.done = True
            self._problem(f"recording ended: {type(error).__name__}: {error}")
            logger.debug("recording ended", exc_info=True)
        finally:
            self._busy = outer
        if not outer:
            self._guard.release()

    def _problem(self, sentence: str) -> None:
        """The first problem is told to the user, all go into recorder.json."""
        if self._session is not None and sentence not in self._session.problems:
            self._session.problems.append(sentence)
        if not self._warned:
            self._warned = True
            try:
                warnings.warn(f"FlightRecorder('{self._asked}'): {sentence}", RecorderWarning, stacklevel=2)
            except RecorderWarning as promoted:  # the user turns warnings into errors; not in the middle of training
                logger.warning("%s", promoted)


def _iterations(optimizer: Any) -> int:
    """Steps the optimizer has counted, accumulating ones included."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    counter = getattr(inner, "_iterations", None)
    return int(counter.numpy()) if counter is not None else 0


def _spoken(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if len(text) > 1000:  # TensorFlow puts a whole stack before what matters
        text = f"{text[:300]} … {text[-600:]}"
    return f"training ended by {type(error).__name__}" + (f": {text}" if text else "")
