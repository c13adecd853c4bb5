"""Training in processes of their own: killed, terminated, left without a word, and on two devices."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.replay

HERE = Path(__file__).parent

TRAIN = """
import sys, warnings
sys.path.insert(0, {here!r})
import keras
from recorder_training import compiled, data, network
from ckptdoctor import FlightRecorder

class Told(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        print("epoch", epoch, flush=True)
"""


def start(body: str, **variables: str) -> subprocess.Popen:
    script = TRAIN.format(here=str(HERE)) + textwrap.dedent(body)
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | variables
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


ENDLESS = """
compiled().fit(*data(None, rows=800), batch_size=8, epochs=10**6, verbose=0,
               callbacks=[FlightRecorder(RUN, batches=6, checkpoint_share=1e9), Told()])
"""


def test_sigterm_writes_everything_and_ends_the_process_as_it_would_have(tmp_path):
    run = tmp_path / "run"
    process = start(f"RUN = {str(run)!r}\n" + ENDLESS)
    while process.stdout.readline() != "epoch 2\n":
        assert process.poll() is None, process.stderr.read()
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGTERM
    assert "training was interrupted by SIGTERM" in errors
    assert f"Next: ckptdoctor inspect {run}" in errors
    document = json.loads((run / "recorder.json").read_text())
    assert (document["status"], document["reason"]["kind"]) == ("interrupted", "signal")
    assert {c["kind"] for c in document["checkpoints"]} == {"rolling", "window", "interrupted"}
    with np.load(run / document["window"]["batches"]) as stored:
        assert stored["step"][-1] == document["step"] - 1 == document["window"]["last_step"]


def test_after_sigkill_everything_on_disk_is_readable(tmp_path):
    run = tmp_path / "run"
    for moment in (0.05, 0.21):  # while checkpoints are written after every epoch, which is nearly always
        process = start(f"RUN = {str(run)!r}\n" + ENDLESS)
        while process.stdout.readline() != "epoch 3\n":
            assert process.poll() is None, process.stderr.read()
        time.sleep(moment)
        process.kill()
        process.communicate(timeout=60)
        document = json.loads((run / "recorder.json").read_text())
        assert document["status"] == "running"
        named = [run / c["path"] for c in document["checkpoints"]]
        assert len(named) >= 2
        for path in [*named, *(p for p in (run / "checkpoints").iterdir() if not p.name.startswith("."))]:
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None
        for line in (run / "steps.jsonl").read_text().splitlines():
            json.loads(line)
        with (run / "training_log.csv").open() as file:
            assert {len(row) for row in csv.reader(file)} == {2}


def test_a_program_that_ends_without_a_word_is_recorded_at_its_exit(tmp_path):
    run = tmp_path / "run"
    process = start(f"""
        class Quit(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                if batch == 5:
                    sys.exit(3)
        compiled().fit(*data(None), batch_size=8, verbose=0, callbacks=[FlightRecorder({str(run)!r}, batches=6), Quit()])
        """)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 3
    assert "the program ended during training" in errors
    assert json.loads((run / "recorder.json").read_text())["window"]["last_step"] == 5


MIRRORED = """
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from pathlib import Path
from recorder_training import differences, record, repeat, steps
import numpy as np

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

def train(callbacks, poisoned):
    with strategy.scope():
        model = compiled()
    x, y = data(poisoned)
    model.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(8), epochs=2, verbose=0, callbacks=callbacks)
    return model

run = Path(RUN) / "failed"
model = train([FlightRecorder(run, batches=6)], 60)
document = record(run)
assert (document["reason"]["kind"], document["reason"]["step"]) == ("loss", 7), document["reason"]
assert document["training"]["replicas"] == 2
assert document["window"]["rows"][-1] == [4, 4]
assert document["problems"] == [], document["problems"]
again = repeat(run, strategy=strategy)
assert differences(model, again) == [], differences(model, again)
logged = [s["loss"] for s in steps(run)]
assert all(np.isfinite(logged[:-1])) and not np.isfinite(logged[-1])
assert all(s["grad_norm"] > 0 for s in steps(run)[:-1])
assert differences(train([], None), train([FlightRecorder(Path(RUN) / "finished", batches=6)], None)) == []
print("done", flush=True)
"""


def test_two_replicas_are_recorded_as_one_batch_and_repeated_bit_by_bit(tmp_path):
    process = start(f"RUN = {str(tmp_path)!r}\n" + MIRRORED)
    output, errors = process.communicate(timeout=280)
    assert output.splitlines()[-1:] == ["done"], errors[-3000:]
