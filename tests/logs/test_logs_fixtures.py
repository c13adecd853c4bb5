"""Every log that the real libraries wrote is recognised by content and gives the numbers that were logged."""

import json
import math
import shutil
from pathlib import Path

import pytest

from ckptdoctor.logs import detect_log, read_log

LOGS = Path(__file__).parents[2] / "fixtures" / "logs"
FORMATS = {
    "csvlogger_{}.csv": "csv",
    "history_{}.json": "history-json",
    "console_{}_verbose1.txt": "console",
    "console_{}_verbose2.txt": "console",
    "tensorboard_{}": "tensorboard",
}


def same(expected, found, digits):
    """Equal up to the digits that a console prints, non-finite included."""
    return len(expected) == len(found) and all(
        (math.isnan(e) and math.isnan(f)) or e == f or math.isclose(e, f, rel_tol=10.0**-digits)
        for e, f in zip(expected, found, strict=True)
    )


@pytest.mark.parametrize("keras", ["keras3", "keras2"])
@pytest.mark.parametrize("run", ["healthy", "nan"])
@pytest.mark.parametrize("pattern", FORMATS)
def test_a_keras_callback_writes_what_history_holds(keras, run, pattern):
    expected = json.loads((LOGS / keras / "expected.json").read_text())[run]
    path = LOGS / keras / pattern.format(run)
    log = read_log(path)
    assert FORMATS[pattern] == detect_log(path) == log.format
    assert str(path) == log.source
    board = log.format == "tensorboard"
    for key in ("loss", "val_loss"):
        name = f"validation/epoch_{key[4:]}" if board and key == "val_loss" else f"epoch_{key}" if board else key
        series = log.find(name)
        assert series is not None
        assert series.axis == "epoch"
        assert tuple(range(len(expected[key]))) == series.steps
        assert same([float(v) for v in expected[key]], series.values, 3 if log.format == "console" else 6)


@pytest.mark.parametrize("keras", ["keras3", "keras2"])
@pytest.mark.parametrize("verbose", [1, 2])
def test_the_line_of_terminate_on_nan_gives_epoch_and_batch(keras, verbose):
    log = read_log(LOGS / keras / f"console_nan_verbose{verbose}.txt")
    assert log.terminated == (0, 5)
    assert (log.find("loss").first_nonfinite[0], str(log.find("loss").first_nonfinite[1])) == (0.0, "nan")


@pytest.mark.parametrize("keras", ["keras3", "keras2"])
def test_a_progress_bar_gives_running_averages_by_step(keras):
    log = read_log(LOGS / keras / "console_healthy_verbose1.txt")
    assert log.running_average
    running = log.find("batch_loss")
    assert running.axis == "step"
    assert running.steps[-1] == 24.0  # 3 epochs of 8 batches
    assert log.find("loss").values[-1] == running.values[-1]


def test_evaluation_after_training_is_not_an_epoch():
    for keras in ("keras3", "keras2"):
        for verbose in (1, 2):
            assert read_log(LOGS / keras / f"console_healthy_verbose{verbose}.txt").find("loss").count == 3


def test_tensorboard_tells_writers_and_axes_apart():
    log = read_log(LOGS / "keras3" / "tensorboard_nan")
    assert log.find("batch_loss").axis == "step"
    assert log.find("batch_loss").first_nonfinite[0] == 6.0
    assert log.find("validation/epoch_loss") is not None
    assert log.find("train/epoch_loss") is None
    assert log.running_average


def test_one_writer_alone_keeps_its_prefix():
    log = read_log(LOGS / "keras3" / "tensorboard_healthy" / "validation")
    assert "validation/epoch_loss" in [s.name for s in log.series]


@pytest.mark.parametrize("path", ["mlflow/mlruns", "mlflow/mlflow.db"])
def test_mlflow_stores_agree_though_sqlite_has_nan_as_zero_and_infinity_as_the_largest_double(path):
    log = read_log(LOGS / path)
    assert log.format.startswith("mlflow")
    assert log.find("loss").values[:2] == (2.5, 1.25)
    assert math.isnan(log.find("loss").values[2])
    assert (2.75, 1.5, math.inf) == log.find("val/loss").values
    assert log.find("loss").steps == (0.0, 1.0, 2.0)


def test_a_run_of_mlflow_is_found_from_the_run_directory_too():
    run = next((LOGS / "mlflow" / "mlruns").glob("*/*/meta.yaml")).parent
    assert detect_log(run) == "mlflow"
    assert read_log(run).find("loss").count == 3


@pytest.mark.parametrize("name", ["run-brisk.wandb", "history.jsonl"])
def test_wandb_by_its_step(name):
    log = read_log(LOGS / "wandb" / name)
    loss, validation = log.find("loss"), log.find("val_loss") or log.find("val/loss")
    assert (loss.axis, loss.steps) == ("step", (0.0, 1.0, 2.0))
    assert math.isnan(loss.values[2])
    assert math.inf == validation.values[2]
    assert log.find("epoch").values == (0.0, 1.0, 2.0)
    assert log.find("_runtime") is None


def test_wandb_web_export_drops_the_runs_name_and_the_extremes():
    log = read_log(LOGS / "wandb" / "history.csv")
    assert [s.name for s in log.series] == ["loss"]
    assert (log.find("loss").first_nonfinite[0], log.find("loss").nonfinite) == (2.0, 1)


def test_pandas_leaves_nan_empty_and_the_log_says_so():
    log = read_log(LOGS / "pandas" / "history.csv")
    assert (log.find("loss").steps, log.find("loss").nonfinite) == ((0.0, 1.0), 0)
    assert any("'loss' has 1 empty cells" in note for note in log.notes)


def test_decimal_commas():
    log = read_log(LOGS / "pandas" / "history_semicolon.csv")
    assert log.find("loss").values[:2] == (2.5, 1.25)
    assert log.find("loss").nonfinite == 1


@pytest.mark.parametrize("orient", ["columns", "records", "split"])
def test_pandas_json(orient):
    log = read_log(LOGS / "pandas" / f"history_{orient}.json")
    assert log.format == "history-json"
    assert log.find("learning_rate").values == (0.1, 0.1, 0.01)
    assert (log.find("loss").values, log.find("loss").axis) == ((2.5, 1.25), "epoch")
    assert any("null" in note for note in log.notes)


@pytest.mark.parametrize(
    "path", ["keras3/csvlogger_nan.csv", "keras3/history_nan.json", "mlflow/mlflow.db", "wandb/run-brisk.wandb"]
)
def test_the_extension_does_not_matter(path, tmp_path):
    expected = detect_log(LOGS / path)
    shutil.copy(LOGS / path, tmp_path / "noname")
    assert expected == detect_log(tmp_path / "noname")
    assert read_log(tmp_path / "noname").series


@pytest.mark.parametrize(
    ("name", "loss", "count", "bad"),
    [
        ("csvlogger.csv", "loss", 2, None),
        ("csvlogger_terminate_on_nan.csv", "loss", 2, None),
        ("nan_tanh.csv", "loss", 2, 0.0),
        ("nan_term.csv", "val_loss", 1, 0.0),
        ("tb_k2", "epoch_loss", 2, None),
        ("tb_k3", "batch_loss", 4, None),
        ("tb_k3_nan", "batch_loss", 2, 2.0),
    ],
)
def test_logs_of_other_runs(name, loss, count, bad):
    series = read_log(LOGS / "callbacks" / name).find(loss)
    assert series.count == count
    assert (series.first_nonfinite or (None,))[0] == bad
