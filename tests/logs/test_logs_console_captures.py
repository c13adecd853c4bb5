"""Console output as it is captured: bars, escapes, resumed runs, other people's lines."""

import math
from pathlib import Path

import pytest

from ckptdoctor.logs import read_log


def captured(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "train.log"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def bar(done: int, total: int, loss: str) -> str:
    """A state of Keras 3's progress bar, with the backspaces that precede the next one."""
    return (
        f"\r\x1b[1m{done}/{total}\x1b[0m \x1b[32m━━━━\x1b[0m\x1b[37m━━━━\x1b[0m \x1b[1m1s\x1b[0m 9ms/step - accuracy: 0.5000 - loss: {loss}"
        + "\b" * 70
    )


def test_only_the_last_state_of_a_bar_counts_for_the_epoch(tmp_path):
    text = (
        "Epoch 1/2\n" + "".join(bar(i, 4, f"{4 - i}.0000") for i in range(1, 5)).rstrip("\b") + " - val_loss: 0.2500\n"
    )
    log = read_log(captured(tmp_path, text))
    assert log.find("loss").values == (0.0,)
    assert log.find("val_loss").values == (0.25,)
    assert (log.find("batch_loss").steps, log.find("batch_loss").values) == ((1.0, 2.0, 3.0, 4.0), (3.0, 2.0, 1.0, 0.0))


def test_the_first_nan_within_an_epoch_has_a_step(tmp_path):
    text = "Epoch 1/1\n" + "".join(bar(i, 9, "0.5000" if i < 6 else "nan") for i in range(1, 9))
    log = read_log(captured(tmp_path, text))
    assert log.find("batch_loss").first_nonfinite[0] == 6.0
    assert any("ends inside an epoch" in note for note in log.notes)


def test_a_message_glued_to_a_number(tmp_path):
    log = read_log(
        captured(
            tmp_path, "Epoch 3/10\n" + bar(7, 20, "nan").rstrip("\b") + "Batch 12: Invalid loss, terminating training\n"
        )
    )
    assert log.terminated == (2, 12)
    assert math.isnan(log.find("loss").values[0])


def test_old_keras_without_counts(tmp_path):
    log = read_log(
        captured(
            tmp_path,
            "Train on 10 samples\nEpoch 1/2\n - 1s - loss: 0.7000 - acc: 0.5000 - val_loss: 0.8000\nEpoch 2/2\n - 0s - loss: inf - acc: 0.1000\n",
        )
    )
    assert (0.7, math.inf) == log.find("loss").values
    assert log.find("acc").steps == (0.0, 1.0)


def test_an_unknown_number_of_batches(tmp_path):
    log = read_log(
        captured(
            tmp_path,
            "Epoch 1/1\n\r      1/Unknown - 1s 1s/step - loss: 2.0\r      9/Unknown - 2s 9ms/step - loss: 1.0\n",
        )
    )
    assert log.find("loss").values == (1.0,)


def test_a_resumed_run_in_the_same_capture(tmp_path):
    line = "2/2 - 1s - 489ms/step - loss: {}\n"
    log = read_log(
        captured(tmp_path, f"Epoch 1/2\n{line.format(1.0)}Epoch 2/2\n{line.format(0.5)}Epoch 1/2\n{line.format(0.4)}")
    )
    assert (log.find("loss").steps, log.restarts) == ((0.0, 1.0, 0.0), (0.0,))


def test_lines_of_other_programs_between(tmp_path):
    noise = "I0000 00:00:1795475168 port.cc:153] oneDNN custom operations: loss of precision - note: 3/4 done\n"
    log = read_log(
        captured(
            tmp_path, noise * 50 + "Epoch 1/1\n" + noise + "2/2 - 0s - loss: nan - mae: nan - 406ms/epoch\n" + noise
        )
    )
    assert [s.name for s in log.series] == ["loss", "mae"]
    assert log.find("loss").count == 1


def test_the_rate_that_a_callback_announces_where_none_is_logged(tmp_path):
    text = "Epoch 1/2\n2/2 - 0s - loss: 1.0\n\nEpoch 1: ReduceLROnPlateau reducing learning rate to 0.001.\nEpoch 2/2\n2/2 - 0s - loss: 0.9\n"
    log = read_log(captured(tmp_path, text))
    assert (log.find("learning_rate").steps, log.find("learning_rate").values) == ((1.0,), (0.001,))


def test_a_hand_written_loop(tmp_path):
    log = read_log(captured(tmp_path, "step 100: loss = 0.5000\nstep 200: loss = 1e+30\nstep 300: loss = nan\n"))
    assert (log.find("loss").axis, log.find("loss").steps) == ("step", (100.0, 200.0, 300.0))
    assert log.find("loss").nonfinite == 1


def test_a_line_without_end_is_bounded(tmp_path):
    path = captured(tmp_path, b"Epoch 1/1\n" + b"x" * (5 << 20) + b"\n2/2 - 0s - loss: 1.0\n")
    log = read_log(path)
    assert log.find("loss").values == (1.0,)
    assert any("64 KB" in note for note in log.notes)


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_a_capture_cut_anywhere_is_read_as_far_as_it_goes(tmp_path, cut):
    text = (
        "Epoch 1/3\n" + bar(1, 2, "3.0000") + bar(2, 2, "2.5000").rstrip("\b") + "\n" + "Epoch 2/3\n" + bar(1, 2, "nan")
    ).encode()
    log = read_log(captured(tmp_path, b"Epoch 1/3\n2/2 - 0s - loss: 3.0\n" + text[:cut]))
    assert log.find("loss").values[0] == 3.0
