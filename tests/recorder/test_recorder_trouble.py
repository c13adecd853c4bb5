"""Whatever goes wrong around the recorder, training is not broken by it, and what was kept is written."""

from __future__ import annotations

import json
import os
import resource
import signal
import tempfile
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from recorder_training import BATCH, batches, compiled, data, differences, network, record, repeat, steps

from ckptdoctor import FlightRecorder
from ckptdoctor.recorder.flight import RecorderWarning
from ckptdoctor.recorder.rundir import RunDirectory

pytestmark = pytest.mark.replay


class At(keras.callbacks.Callback):
    """Does something after one batch of the first epoch."""

    def __init__(self, batch: int, action) -> None:
        super().__init__()
        self.batch, self.action = batch, action

    def on_train_batch_end(self, batch, logs=None):  # noqa: ARG002
        if batch == self.batch:
            self.batch = -1
            self.action()


def fit(model: keras.Model, recorder: FlightRecorder, *others, poisoned: int | None = None, epochs: int = 2) -> list:
    """Train; returns the recorder's warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(
            *data(poisoned), batch_size=BATCH, epochs=epochs, verbose=0, shuffle=False, callbacks=[recorder, *others]
        )
    return [w.message for w in caught if isinstance(w.message, RecorderWarning)]


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """Where temporary files go."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


@contextmanager
def largest_file(size: int):
    """No file may grow beyond `size` bytes: writing fails as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- the disk -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("temporary")
def test_on_a_full_disk_training_goes_on_and_the_small_pieces_are_written(tmp_path):
    run = tmp_path / "run"
    alone = compiled()
    alone.fit(*data(None), batch_size=BATCH, epochs=2, verbose=0, shuffle=False)
    model = compiled()
    with largest_file(24_000):  # a checkpoint of this model takes more than that, its batches do not
        caught = fit(model, FlightRecorder(run, batches=6))
    assert len(caught) == 1
    assert "could not be written" in str(caught[0])
    assert differences(alone, model) == []
    document = record(run)
    assert document["status"] == "finished"
    assert document["checkpoints"] == []
    assert document["window"]["checkpoint"] is None
    assert batches(run, document["window"])
    assert len(document["problems"]) >= 2
    assert sorted(p.name for p in run.rglob("*") if "part" in p.name) == []


@pytest.mark.usefixtures("temporary")
def test_when_the_disk_fills_up_the_last_good_checkpoint_stays(tmp_path):
    run = tmp_path / "run"
    recorder = FlightRecorder(run, batches=6, checkpoint_share=1e9)

    class Fill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):  # noqa: ARG002
            if epoch == 1:
                self.limit = largest_file(24_000)
                self.limit.__enter__()

        def on_train_end(self, logs=None):  # noqa: ARG002
            self.limit.__exit__(None, None, None)

    fit(compiled(), recorder, Fill(), epochs=3)
    kept = [c for c in record(run)["checkpoints"] if c["kind"] == "rolling"]
    assert [c["step"] for c in kept] == [9]
    assert int(keras.models.load_model(run / kept[0]["path"]).optimizer.iterations) == 9


def test_a_directory_that_cannot_be_made_costs_one_warning_and_evidence_goes_to_temporary_files(tmp_path, temporary):
    (tmp_path / "file").write_text("not a directory")
    recorder = FlightRecorder(tmp_path / "file" / "run", batches=6)
    model = compiled()
    caught = fit(model, recorder, poisoned=60)
    assert len(caught) == 1
    assert "give FlightRecorder another directory" in str(caught[0])
    (run,) = temporary.iterdir()
    assert recorder.message.endswith(f"Next: ckptdoctor inspect {run}")
    assert record(run)["reason"]["step"] == 7
    assert differences(model, repeat(run)) == []


def test_a_read_only_directory_is_treated_alike(monkeypatch):
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as place:
        parent = Path(place)
        (parent / "run").mkdir()
        (parent / "temporary").mkdir()
        (parent / "temporary").chmod(0o777)
        (parent / "run").chmod(0o555)
        parent.chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", str(parent / "temporary"))
        model = compiled()
        model.fit(*data(None), batch_size=BATCH, epochs=1, verbose=0)  # loads whatever is loaded lazily
        if root:
            os.seteuid(65534)  # root may write everywhere
        try:
            caught = fit(model, FlightRecorder(parent / "run", batches=6), poisoned=60)
        finally:
            if root:
                os.seteuid(0)
        assert len(caught) == 1
        assert list((parent / "run").iterdir()) == []
        (run,) = (parent / "temporary").iterdir()
        assert record(run)["status"] == "failed"


def test_a_run_directory_in_use_is_not_touched(tmp_path):
    other = RunDirectory(tmp_path / "run")
    other.open()
    try:
        caught = fit(compiled(), FlightRecorder(tmp_path / "run", batches=6), poisoned=60)
        assert len(caught) == 1
        assert "is in use by another recorder; recording to" in str(caught[0])
        assert [p.name for p in (tmp_path / "run").iterdir()] == [".ckptdoctor.lock"]
        assert record(tmp_path / "run-2")["status"] == "failed"
    finally:
        other.close()


# --- interruptions ------------------------------------------------------------------------------------


def test_an_exception_in_the_users_train_step_passes_through_and_its_batch_is_kept(tmp_path):
    run = tmp_path / "run"

    @keras.saving.register_keras_serializable("recorder_trouble")
    class Picky(keras.Model):
        def train_step(self, batch):
            tf.debugging.assert_all_finite(batch[1], "labels must be numbers")
            return super().train_step(batch)

    base = network()
    model = compiled(Picky(base.inputs, base.outputs))
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels must be numbers"):
        fit(model, FlightRecorder(run, batches=6), poisoned=60)
    document = record(run)
    assert (document["status"], document["reason"]["kind"]) == ("interrupted", "exception")
    assert "labels must be numbers" in document["reason"]["text"]
    last = batches(run, document["window"])[-1]
    assert last["step"] == 7
    assert np.isnan(last["y"]).any()
    assert "train_step" not in vars(model)


def test_an_exception_in_the_data_passes_through(tmp_path):
    run = tmp_path / "run"
    x, y = data(None)

    def source():
        for i in range(5):
            yield x[i : i + BATCH], y[i : i + BATCH]
        raise RuntimeError("the disk with the images is gone")

    with pytest.raises(Exception, match="the disk with the images is gone"):
        compiled().fit(source(), verbose=0, shuffle=False, callbacks=[FlightRecorder(run, batches=6)])
    document = record(run)
    assert document["status"] == "interrupted"
    assert document["window"]["last_step"] == 4


def test_an_exception_in_another_callback_is_recorded_by_the_with_statement(tmp_path):
    def fail():
        raise KeyError("somebody else's bug")

    model = compiled()
    with pytest.raises(KeyError, match="somebody else's bug"), FlightRecorder(tmp_path / "run") as recorder:
        fit(model, recorder, At(4, fail))
    assert record(tmp_path / "run")["reason"]["text"] == 'training ended by KeyError: "somebody else\'s bug"'
    assert "train_step" not in vars(model)


def test_ctrl_c_is_recorded_and_still_interrupts(tmp_path):
    run = tmp_path / "run"
    model = compiled()
    with pytest.raises(KeyboardInterrupt):
        fit(model, FlightRecorder(run, batches=6), At(4, lambda: signal.raise_signal(signal.SIGINT)))
    document = record(run)
    assert document["reason"]["text"] == "training was interrupted by SIGINT"
    (current,) = [c for c in document["checkpoints"] if c["kind"] == "interrupted"]
    assert differences(model, keras.models.load_model(run / current["path"])) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_for_sigterm_that_was_there_still_runs_and_training_goes_on(tmp_path):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        alone, model = compiled(), compiled()
        alone.fit(*data(None), batch_size=BATCH, epochs=2, verbose=0, shuffle=False)
        fit(model, FlightRecorder(tmp_path / "run", batches=6), At(4, lambda: signal.raise_signal(signal.SIGTERM)))
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]
    assert differences(alone, model) == []
    assert record(tmp_path / "run")["reason"]["kind"] == "signal"


def test_a_fit_in_a_thread_is_recorded_without_signal_handlers(tmp_path):
    model, recorder = compiled(), FlightRecorder(tmp_path / "run", batches=6)
    thread = threading.Thread(target=lambda: fit(model, recorder, poisoned=60))
    thread.start()
    thread.join()
    assert recorder.failure.step == 7


# --- the recorder itself --------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["seam.Seam.drain_batches", "session.Session.rotate", "tape.StateReader.snapshot"])
def test_a_bug_in_the_recorder_becomes_one_warning(tmp_path, monkeypatch, part):
    def fail(*args, **kwargs):  # noqa: ARG001
        raise RuntimeError("a bug")

    monkeypatch.setattr(f"ckptdoctor.recorder.{part}", fail)
    alone, model = compiled(), compiled()
    alone.fit(*data(None), batch_size=BATCH, epochs=2, verbose=0, shuffle=False)
    caught = fit(model, FlightRecorder(tmp_path / "run", batches=6))
    assert len(caught) == 1
    assert "a bug" in str(caught[0])
    assert differences(alone, model) == []


def test_warnings_that_are_errors_do_not_reach_training(tmp_path):
    (tmp_path / "file").write_text("")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = compiled().fit(
            *data(None), batch_size=BATCH, verbose=0, callbacks=[FlightRecorder(tmp_path / "file" / "run")]
        )
    assert len(history.history["loss"]) == 1


def test_a_train_function_of_the_users_own_is_left_alone(tmp_path):
    class Own(keras.Model):
        def make_train_function(self, force=False):  # noqa: ARG002
            def train_function(iterator):
                return {"loss": self.train_step(next(iterator))["loss"]}

            self.train_function = train_function
            return train_function

    base = network()
    model = compiled(Own(base.inputs, base.outputs))
    caught = fit(model, FlightRecorder(tmp_path / "run", batches=6))
    assert len(caught) == 1
    assert "as Keras' own does" in str(caught[0])


def test_a_model_without_a_configuration_is_saved_as_weights(tmp_path):
    class Bare(keras.Model):
        def __init__(self, function):
            super().__init__()
            self.function, self.head = function, keras.layers.Dense(1)

        def call(self, x):
            return self.head(self.function(x))

        def get_config(self):
            raise NotImplementedError

    keras.utils.set_random_seed(1)
    run = tmp_path / "run"
    assert fit(compiled(Bare(lambda x: x * 2)), FlightRecorder(run, batches=6), poisoned=60) == []
    names = [c["path"].split("/")[1].split(".", 1)[1] for c in record(run)["checkpoints"]]
    assert names == ["weights.h5", "weights.h5"]


def test_huge_but_finite_weights_are_no_failure(tmp_path):
    """Their squares overflow, which is what the quick check looks at."""
    model = compiled(optimizer=keras.optimizers.SGD(1e-6))
    model.get_layer("norm").moving_mean.assign(np.full(12, 1e30, "float32"))
    model.get_layer("norm").trainable = False
    recorder = FlightRecorder(tmp_path / "run", batches=6)
    x, y = data(None)
    model.compile(keras.optimizers.SGD(0.0), "mae", jit_compile=False)
    model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0, callbacks=[recorder])
    assert recorder.failure is None
    assert record(tmp_path / "run")["status"] == "finished"


# --- run after run ------------------------------------------------------------------------------------


def test_a_resumed_run_counts_on_and_appends(tmp_path):
    run = tmp_path / "run"
    backup = tmp_path / "backup"

    def part(epochs, stop_at=None):
        model = compiled()
        callbacks = [keras.callbacks.BackupAndRestore(backup, delete_checkpoint=False)]
        if stop_at is not None:
            callbacks.append(At(stop_at, lambda: signal.raise_signal(signal.SIGINT)))
        fit(model, FlightRecorder(run, batches=6, checkpoint_share=1e9), *callbacks, epochs=epochs)
        return model

    part(2)
    part(4)
    assert [s["step"] for s in steps(run)] == list(range(36))
    assert [s["epoch"] for s in steps(run)] == [e for e in range(4) for _ in range(9)]
    assert [line.split(",")[0] for line in (run / "training_log.csv").read_text().splitlines()] == ["epoch", *"0123"]
    document = record(run)
    assert document["step"] == 36
    assert document["checkpoints"][-1]["epoch"] == 4


def test_an_earlier_failure_is_moved_aside_complete(tmp_path):
    run = tmp_path / "run"
    model = compiled()
    fit(model, FlightRecorder(run, batches=6), poisoned=60)
    fit(compiled(), FlightRecorder(run, batches=6))
    assert record(run)["status"] == "finished"
    aside = run / "failure_step_00000007"
    assert record(aside)["reason"]["step"] == 7
    assert differences(model, repeat(aside)) == []
    assert len(steps(aside)) == 8


def test_one_recorder_serves_several_fits(tmp_path):
    run = tmp_path / "run"
    model, recorder = compiled(), FlightRecorder(run, batches=6)
    assert fit(model, recorder) == []
    assert fit(model, recorder, poisoned=60) == []
    assert record(run)["reason"]["step"] == 18 + 7
    assert recorder.failure.step == 25


# --- a loop of one's own --------------------------------------------------------------------------------


def own_loop(recorder, model, *, poisoned=60, epochs=1):
    optimizer = keras.optimizers.Adam(0.01)
    model.compile(optimizer, "mse")
    x, y = data(poisoned)
    taken = 0
    with recorder:
        for _ in range(epochs):
            for i in range(0, len(x), BATCH):
                with recorder.step(x[i : i + BATCH], y[i : i + BATCH]) as step:
                    with tf.GradientTape() as tape:
                        loss = tf.reduce_mean(tf.square(model(x[i : i + BATCH], training=True) - y[i : i + BATCH]))
                    gradients = tape.gradient(loss, model.trainable_variables)
                    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
                    step.loss(loss)
                    step.gradients(gradients)
                taken += 1
    return taken


def test_a_custom_loop_stops_with_the_message_and_its_window_repeats_it(tmp_path):
    from ckptdoctor.recorder.flight import TrainingFailedError

    run = tmp_path / "run"
    model = network()
    recorder = FlightRecorder(run, batches=6, model=model)
    with pytest.raises(TrainingFailedError, match=r"the loss became NaN at step 7\. Kept in"):
        own_loop(recorder, model)
    document = record(run)
    assert document["training"]["loop"] == "custom"
    assert steps(run)[0]["grad_norm"] > 0
    again = keras.models.load_model(run / document["window"]["checkpoint"])
    from ckptdoctor.recorder.rng import restore_seed_states

    restore_seed_states(again, document["window"]["seed_generators"])
    for batch in batches(run, document["window"]):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(again(batch["x"], training=True) - batch["y"]))
        gradients = tape.gradient(loss, again.trainable_variables)
        again.optimizer.apply_gradients(zip(gradients, again.trainable_variables, strict=True))
    assert differences(model, again) == []


def test_a_custom_loop_that_ends_well_is_recorded_too(tmp_path):
    model = network()
    recorder = FlightRecorder(tmp_path / "run", batches=6, model=model)
    assert own_loop(recorder, model, poisoned=None, epochs=2) == 18
    document = record(tmp_path / "run")
    assert (document["status"], document["step"]) == ("finished", 18)
    assert [s["step"] for s in steps(tmp_path / "run")] == list(range(18))


def test_arrays_that_a_custom_loop_reuses_are_kept_as_they_were(tmp_path):
    model = network()
    model.compile("sgd", "mse")
    buffer = np.zeros((4, 6), "float32")
    with FlightRecorder(tmp_path / "run", batches=8, model=model) as recorder:
        for n in range(3):
            buffer[:] = n
            with recorder.step(buffer):
                pass
    kept = batches(tmp_path / "run", record(tmp_path / "run")["window"])
    assert [b["x"].max() for b in kept] == [0.0, 1.0, 2.0]


def test_strict_json_whatever_was_recorded(tmp_path):
    run = tmp_path / "run"
    fit(compiled(), FlightRecorder(run, batches=6), poisoned=60)

    def refuse(token):
        raise AssertionError(token)

    document = json.loads((run / "recorder.json").read_text(), parse_constant=refuse)
    assert document["reason"]["loss"] == "NaN"


def test_fewer_than_two_batches_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected batches of at least 2, found 1"):
        FlightRecorder(tmp_path, batches=1)
